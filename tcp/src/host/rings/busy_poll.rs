//! Preferred busy polling of a socket.
//!
//! While it is preferred the kernel passes no wakeup on to the driver: the worker's system calls poll the receive queue's NAPI instead.
//! A driver whose sending has a NAPI of its own (virtio-net, zero-copy) then never sends, because nothing polls that one. No driver says
//! so beforehand.

use std::io;
use std::os::fd::RawFd;

use super::socket::set_option;

/// `asm-generic/socket.h`, not in every libc.
const SO_PREFER_BUSY_POLL: libc::c_int = 69;
const SO_BUSY_POLL_BUDGET: libc::c_int = 70;
/// Packets that a driver takes at once, as in the kernel's `netdevice.h`.
const NAPI_POLL_WEIGHT: u32 = 64;

/// Lets the worker's system calls drive the driver's receive queue.
pub(super) fn prefer(fd: RawFd) -> io::Result<()> {
    [(SO_PREFER_BUSY_POLL, 1), (libc::SO_BUSY_POLL, 20), (SO_BUSY_POLL_BUDGET, NAPI_POLL_WEIGHT)]
        .into_iter()
        .try_for_each(|(option, value)| set_option(fd, libc::SOL_SOCKET, option, value))
}

/// Lets wakeups reach the driver again. The worker's system calls go on polling, which alone stalls nothing.
pub(super) fn stop_preferring(fd: RawFd) -> io::Result<()> {
    set_option(fd, libc::SOL_SOCKET, SO_PREFER_BUSY_POLL, 0)
}
