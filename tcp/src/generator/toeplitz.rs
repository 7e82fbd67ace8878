//! The hash of receive side scaling.
