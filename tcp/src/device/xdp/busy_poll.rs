//! Preferred busy polling: switched on, watched, and switched off where it stalls. Knows socket options and kicks; never rings.
//!
//! While it is preferred the kernel passes no wakeup on to the driver: our system calls poll the receive queue's NAPI instead. Where
//! sending has a NAPI of its own (virtio-net, zero-copy) no one polls that, and nothing is ever sent. No driver says so beforehand.

use std::io;
use std::os::fd::RawFd;

use super::open::set_option;
use crate::device::BURST;

/// `asm-generic/socket.h`, not in every libc.
const SO_PREFER_BUSY_POLL: libc::c_int = 69;
const SO_BUSY_POLL_BUDGET: libc::c_int = 70;

/// Kicks without effect between two looks that mean a stall. A worker with frames out makes more of them in one look's time.
const FRUITLESS: u32 = 16;

/// Lets our system calls drive the driver's receive queue.
pub(super) fn prefer(fd: RawFd) -> io::Result<()> {
    [(SO_PREFER_BUSY_POLL, 1), (libc::SO_BUSY_POLL, 20), (SO_BUSY_POLL_BUDGET, BURST as u32)]
        .into_iter()
        .try_for_each(|(option, value)| set_option(fd, libc::SOL_SOCKET, option, value))
}

/// Lets wakeups reach the driver again. Our system calls go on polling: that alone stalls nothing.
pub(super) fn stop_preferring(fd: RawFd) -> io::Result<()> {
    set_option(fd, libc::SOL_SOCKET, SO_PREFER_BUSY_POLL, 0)
}

/// Tells a stall from a lull: kicks that were taken, and no frame that came back for them from one look to the next.
#[derive(Debug)]
pub(super) struct Watchdog {
    awake: bool,
    /// Kicks since the last frame came back, and how many of them the last look saw.
    kicks: u32,
    seen: u32,
}

impl Watchdog {
    /// One that never barks if it is not `awake`.
    pub(super) const fn new(awake: bool) -> Self {
        Self { awake, kicks: 0, seen: 0 }
    }

    /// The kernel took a kick.
    #[inline]
    pub(super) const fn kicked(&mut self) {
        self.kicks = self.kicks.saturating_add(1);
    }

    /// Frames came back.
    #[inline]
    pub(super) const fn completed(&mut self) {
        (self.kicks, self.seen) = (0, 0);
    }

    /// A look, some 100 ms after the last: has nothing come back in all the time between? Barks once.
    pub(super) const fn look(&mut self) -> bool {
        let stalled = self.awake && self.seen > 0 && self.kicks - self.seen >= FRUITLESS;
        self.seen = self.kicks;
        self.awake &= !stalled;
        stalled
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kick(watchdog: &mut Watchdog, times: u32) {
        (0..times).for_each(|_| watchdog.kicked());
    }

    #[test]
    fn a_stall_is_kicks_without_effect_from_one_look_to_the_next() {
        let mut watchdog = Watchdog::new(true);
        assert!(!watchdog.look());
        kick(&mut watchdog, 1000);
        assert!(!watchdog.look(), "they may all be a moment old");
        kick(&mut watchdog, FRUITLESS);
        assert!(watchdog.look());
        kick(&mut watchdog, 1000);
        assert!(!watchdog.look(), "it barks once");
    }

    #[test]
    fn frames_that_come_back_or_a_worker_that_hardly_ran_are_no_stall() {
        let mut watchdog = Watchdog::new(true);
        for _ in 0..10 {
            kick(&mut watchdog, 1000);
            assert!(!watchdog.look());
            kick(&mut watchdog, 1000);
            watchdog.completed();
            kick(&mut watchdog, 1);
            assert!(!watchdog.look());
            kick(&mut watchdog, FRUITLESS - 1);
            assert!(!watchdog.look());
            watchdog.completed();
            assert!(!watchdog.look(), "nothing is out");
        }
    }

    #[test]
    fn one_that_sleeps_is_silent() {
        let mut watchdog = Watchdog::new(false);
        for _ in 0..10 {
            kick(&mut watchdog, 1000);
            assert!(!watchdog.look());
        }
    }
}
