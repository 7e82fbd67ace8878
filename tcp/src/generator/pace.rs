//! When connections are due.
