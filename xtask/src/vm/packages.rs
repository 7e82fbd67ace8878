//! Debian's packages, in a cache outside the tree. Knows apt-get and dpkg; never what boots.
