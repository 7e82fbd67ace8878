//! The contract between the XDP program and user space: map names, key and value types, counters. Knows no packet.
#![no_std]
