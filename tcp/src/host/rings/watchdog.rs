//! Notices that a driver no longer sends, by kicks without a completed frame.
//!
//! A kick that the kernel puts off or refuses does not count: the link is down then, or the kernel watches the driver's queue itself.

/// Kicks without effect between two looks that mean a stall. A worker that waits for frames makes more of them in that time.
const FRUITLESS: u32 = 16;
/// Such looks in a row after which the driver or the NIC counts as stopped: one second. Flow control may hold frames back for a while.
const LOOKS: u32 = 10;

/// A stall that a look finds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stall {
    /// No frame was completed while busy polling is preferred. Found once.
    BusyPoll,
    /// No frame was completed for a second. Found again only after a frame was completed in between.
    Stopped,
}

/// Tells a stall from a lull: between two looks the kernel took kicks and completed no frame.
#[derive(Debug)]
pub(super) struct Watchdog {
    /// Busy polling is preferred.
    polls: bool,
    /// Kicks since the last completed frame, and how many of them the last look saw.
    kicks: u32,
    seen: u32,
    /// Looks in a row that found kicks without effect.
    fruitless: u32,
}

impl Watchdog {
    /// A watchdog for a queue where busy polling is preferred, or is not.
    pub(super) const fn new(polls: bool) -> Self {
        Self { polls, kicks: 0, seen: 0, fruitless: 0 }
    }

    /// The kernel took a kick.
    #[inline]
    pub(super) const fn kicked(&mut self) {
        self.kicks = self.kicks.saturating_add(1);
    }

    /// Frames were completed.
    #[inline]
    pub(super) const fn completed(&mut self) {
        (self.kicks, self.seen) = (0, 0);
    }

    /// Looks, some 100 ms after the last look, for a stall in the time between. Without a carrier no frame can be completed. Calls
    /// `has_carrier` only if there seems to be a stall.
    pub(super) fn look(&mut self, has_carrier: impl FnOnce() -> bool) -> Option<Stall> {
        let is_fruitless = self.seen > 0 && self.kicks - self.seen >= FRUITLESS;
        if is_fruitless && !has_carrier() {
            self.fruitless = 0;
            self.completed();
            return None;
        }
        self.seen = self.kicks;
        self.fruitless = if is_fruitless { self.fruitless.saturating_add(1) } else { 0 };
        if is_fruitless && self.polls {
            // From now on busy polling is off.
            (self.polls, self.fruitless) = (false, 0);
            return Some(Stall::BusyPoll);
        }
        (self.fruitless == LOOKS).then_some(Stall::Stopped)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kick(watchdog: &mut Watchdog, times: u32) {
        (0..times).for_each(|_| watchdog.kicked());
    }

    /// Returns the stalls that a number of looks find, each look after a number of kicks.
    fn found(watchdog: &mut Watchdog, looks: u32, kicks: u32) -> Vec<Stall> {
        let look = |_| {
            kick(watchdog, kicks);
            watchdog.look(|| true)
        };
        (0..looks).filter_map(look).collect()
    }

    #[test]
    fn a_stall_is_kicks_without_effect_from_one_look_to_the_next() {
        let mut watchdog = Watchdog::new(true);
        assert_eq!(watchdog.look(|| true), None);
        kick(&mut watchdog, 1000);
        assert_eq!(watchdog.look(|| true), None, "they may all be a moment old");
        kick(&mut watchdog, FRUITLESS);
        assert_eq!(watchdog.look(|| true), Some(Stall::BusyPoll));
        assert_eq!(found(&mut watchdog, LOOKS - 1, 1000), [], "polling is given up once");
        assert_eq!(found(&mut watchdog, 1000, 1000), [Stall::Stopped], "that was not the reason");
    }

    #[test]
    fn one_of_a_second_is_found_once_until_something_came_back() {
        let mut watchdog = Watchdog::new(false);
        for _ in 0..3 {
            assert_eq!(found(&mut watchdog, LOOKS, FRUITLESS), [], "the first look knows nothing of before");
            assert_eq!(found(&mut watchdog, 1, FRUITLESS), [Stall::Stopped]);
            assert_eq!(found(&mut watchdog, 1000, 1000), []);
            watchdog.completed();
        }
        kick(&mut watchdog, u32::MAX);
        assert_eq!(found(&mut watchdog, 100, 1000), [], "as many kicks as can be counted");
    }

    #[test]
    fn frames_that_come_back_or_a_worker_that_hardly_ran_are_no_stall() {
        for polls in [false, true] {
            let mut watchdog = Watchdog::new(polls);
            for _ in 0..100 {
                kick(&mut watchdog, 1000);
                assert_eq!(watchdog.look(|| true), None);
                kick(&mut watchdog, 1000);
                watchdog.completed();
                kick(&mut watchdog, 1);
                assert_eq!(watchdog.look(|| true), None);
                kick(&mut watchdog, FRUITLESS - 1);
                assert_eq!(watchdog.look(|| true), None);
                watchdog.completed();
                assert_eq!(watchdog.look(|| true), None, "nothing is out");
            }
        }
    }

    #[test]
    fn without_a_carrier_nothing_comes_back_and_that_is_no_stall() {
        for polls in [false, true] {
            let mut watchdog = Watchdog::new(polls);
            for _ in 0..100 {
                kick(&mut watchdog, 1000);
                assert_eq!(watchdog.look(|| false), None);
            }
            watchdog.completed();
            let first = found(&mut watchdog, LOOKS + 1, FRUITLESS)[0];
            assert_eq!(first, if polls { Stall::BusyPoll } else { Stall::Stopped });
        }
    }
}
