//! CUBIC, RFC 9438: how a congestion window grows between two losses.

use crate::time::Millis;

/// RFC 9438 section 4.6.
const BETA: f64 = 0.7;
/// RFC 9438 section 5.1, in segments a second cubed.
const C: f64 = 0.4;
/// RFC 9438 section 4.3: the segments that Reno would add in a round trip for the same average window.
const ALPHA: f64 = 3.0 * (1.0 - BETA) / (1.0 + BETA);
/// The longest time that the curve is followed for, in seconds: far beyond any window.
const LONGEST: f64 = 1000.0;

/// The curve. Windows are in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Cubic {
    /// The window where the curve is flat.
    plateau: f64,
    /// The window before the last loss.
    before_loss: f64,
    /// The start of the curve, with the time from there to the plateau in seconds and the window that Reno would have.
    stage: Option<(Millis, f64, f64)>,
}

impl Cubic {
    /// Takes a loss with a window of `window` bytes, and returns the new slow start threshold.
    pub(super) fn on_loss(&mut self, window: u32, mss: u32) -> u32 {
        let window = f64::from(window);
        // Fast convergence, section 4.7.
        self.plateau = if window < self.plateau { window * (1.0 + BETA) / 2.0 } else { window };
        self.before_loss = window;
        self.stage = None;
        ((window * BETA) as u32).max(2 * mss)
    }

    /// Starts the curve anew with the next acknowledgement: the network was not asked for the whole window meanwhile.
    pub(super) fn pause(&mut self) {
        self.stage = None;
    }

    /// Returns by how many bytes a window grows in congestion avoidance, when `acked` bytes are acknowledged after `rtt_ms`.
    pub(super) fn growth(&mut self, window: u32, acked: u32, mss: u32, rtt_ms: u32, now: Millis) -> u32 {
        let (window, acked, mss) = (f64::from(window), f64::from(acked), f64::from(mss));
        if self.stage.is_none() {
            self.plateau = self.plateau.max(window);
        }
        let plateau = self.plateau;
        let (start, to_plateau, reno) =
            self.stage.get_or_insert((now, ((plateau - window) / mss / C).cbrt(), window));
        let time = (f64::from(now.since(*start)) + f64::from(rtt_ms)) / 1000.0 - *to_plateau;
        let target = plateau + mss * C * time.min(LONGEST).powi(3);
        let alpha = if *reno < self.before_loss { ALPHA } else { 1.0 };
        *reno += alpha * mss * acked / window;
        if target.max(window) < *reno {
            return (*reno - window) as u32;
        }
        let step = (target.clamp(window, 1.5 * window) - window) * acked / window;
        step.round() as u32
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MSS: u32 = 1000;

    /// Returns the windows after each of `rounds` round trips of `rtt_ms` from `window` on.
    fn windows(cubic: &mut Cubic, mut window: u32, rtt_ms: u32, rounds: u32) -> Vec<u32> {
        let mut now = Millis(0);
        let mut windows = Vec::new();
        for _ in 0..rounds {
            for _ in 0..window / MSS {
                window += cubic.growth(window, MSS, MSS, rtt_ms, now);
            }
            now = now + rtt_ms;
            windows.push(window);
        }
        windows
    }

    #[test]
    fn the_window_returns_to_where_it_was_lost_flattens_and_goes_on() {
        let mut cubic = Cubic::default();
        let threshold = cubic.on_loss(1_000_000, MSS);
        assert_eq!(threshold, 700_000);
        // K is the cube root of 300 / 0.4: 9.1 s.
        let windows = windows(&mut cubic, threshold, 100, 150);
        let at = |seconds: usize| windows[seconds * 10 - 1];
        assert!((900_000..980_000).contains(&at(5)), "{}", at(5));
        assert!((990_000..1_010_000).contains(&at(9)), "{}", at(9));
        assert!(at(10) - at(8) < 10_000, "flat at the plateau");
        assert!(at(14) > 1_030_000, "{}", at(14));
    }

    #[test]
    fn on_a_short_path_it_is_as_fast_as_reno() {
        let mut cubic = Cubic::default();
        let threshold = cubic.on_loss(20_000, MSS);
        let windows = windows(&mut cubic, threshold, 1, 30);
        // 0.53 segments a round trip up to the old window, then one.
        assert!((36_000..39_000).contains(&windows[29]), "{}", windows[29]);
    }

    #[test]
    fn a_second_loss_below_the_first_lets_others_have_more() {
        let mut cubic = Cubic::default();
        cubic.on_loss(100_000, MSS);
        cubic.on_loss(80_000, MSS);
        assert!((67_999.0..68_001.0).contains(&cubic.plateau), "{}", cubic.plateau);
        assert_eq!(cubic.on_loss(1000, MSS), 2000, "never below two segments");
    }
}
