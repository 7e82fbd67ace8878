//! The system calls of an AF_XDP socket that its libraries lack.

use std::io;
use std::os::fd::RawFd;
use std::ptr;
use std::time::Duration;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Sets a socket option of four bytes.
pub(super) fn set_option(fd: RawFd, level: libc::c_int, option: libc::c_int, value: u32) -> io::Result<()> {
    let len = size_of::<u32>() as libc::socklen_t;
    // SAFETY: the kernel reads the four bytes of `value`.
    let done = unsafe { libc::setsockopt(fd, level, option, (&raw const value).cast(), len) };
    if done == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Returns a socket option of four bytes.
pub(super) fn get_option(fd: RawFd, level: libc::c_int, option: libc::c_int) -> io::Result<u32> {
    let mut value = 0_u32;
    let mut len = size_of::<u32>() as libc::socklen_t;
    // SAFETY: the kernel writes at most `len` bytes, which `value` has.
    let done = unsafe { libc::getsockopt(fd, level, option, (&raw mut value).cast(), &raw mut len) };
    if done == 0 { Ok(value) } else { Err(io::Error::last_os_error()) }
}

/// Makes the kernel look at the TX ring.
#[inline]
pub(super) fn kick(fd: RawFd) -> io::Result<()> {
    // SAFETY: an empty message: the kernel reads no memory of ours.
    let sent = unsafe { libc::sendto(fd, ptr::null(), 0, libc::MSG_DONTWAIT, ptr::null(), 0) };
    if sent >= 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Makes the driver look at the fill ring and, when busy polling, at its queue. A failure has no remedy here: sending finds out the
/// link's state.
#[inline]
pub(super) fn wake_receiver(fd: RawFd) {
    let nowhere = ptr::null_mut();
    // SAFETY: an empty buffer: the kernel writes no memory of ours.
    unsafe { libc::recvfrom(fd, nowhere, 0, libc::MSG_DONTWAIT, ptr::null_mut(), ptr::null_mut()) };
}

/// Waits until one of the sockets has a frame, or for `timeout`.
pub(super) fn poll(polled: &mut [libc::pollfd], timeout: Duration) {
    let timeout =
        libc::timespec { tv_sec: timeout.as_secs() as libc::time_t, tv_nsec: timeout.subsec_nanos().into() };
    // SAFETY: `polled` and the timeout live across the call. A failure (a signal, mostly) only ends the wait.
    unsafe {
        libc::ppoll(polled.as_mut_ptr(), polled.len() as libc::nfds_t, &raw const timeout, ptr::null())
    };
}

/// Raises the limit on locked memory: to infinity if that is allowed, else to the hard limit.
pub(super) fn raise_memory_lock() {
    let Rlimit { maximum, .. } = getrlimit(Resource::Memlock);
    let _ = setrlimit(Resource::Memlock, Rlimit { current: None, maximum: None })
        .or_else(|_| setrlimit(Resource::Memlock, Rlimit { current: maximum, maximum }));
}

/// Returns the interface's number in this network namespace.
pub(super) fn index(interface: &str) -> Option<u32> {
    let name = std::ffi::CString::new(interface).ok()?;
    // SAFETY: a C string that lives across the call.
    let index = unsafe { libc::if_nametoindex(name.as_ptr()) };
    (index != 0).then_some(index)
}
