//! Which addresses and ports a connection uses.
