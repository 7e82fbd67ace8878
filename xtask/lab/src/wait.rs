//! Waiting for a condition, with a deadline, and until a signal interrupts this program.

use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, LazyLock};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};

/// Set by the signals of [`crate::Interrupt`].
pub(crate) static INTERRUPTED: LazyLock<Arc<AtomicBool>> = LazyLock::new(Arc::default);

/// Time between two looks at a condition.
const POLL: Duration = Duration::from_millis(10);

/// Fails if a signal has interrupted this program.
pub(crate) fn check_interrupt() -> Result<()> {
    ensure!(!INTERRUPTED.load(Relaxed), "interrupted");
    Ok(())
}

/// Waits until `condition` yields a value, and returns it.
///
/// # Errors
/// The condition failed, a signal has interrupted this program, or `condition` yielded nothing for longer than `limit`; then the
/// error names `what`.
pub fn wait<T>(what: &str, limit: Duration, mut condition: impl FnMut() -> Result<Option<T>>) -> Result<T> {
    wait_uninterrupted(what, limit, || {
        check_interrupt()?;
        condition()
    })
}

/// Waits as [`wait`] does, and no signal ends it: an interrupted program still takes its lab down.
pub(crate) fn wait_uninterrupted<T>(
    what: &str,
    limit: Duration,
    mut condition: impl FnMut() -> Result<Option<T>>,
) -> Result<T> {
    let start = Instant::now();
    loop {
        if let Some(value) = condition()? {
            return Ok(value);
        }
        ensure!(start.elapsed() < limit, "not after {limit:?}: {what}");
        thread::sleep(POLL);
    }
}

/// Waits until `condition` is true.
///
/// # Errors
/// As [`wait`].
pub fn until(what: &str, limit: Duration, mut condition: impl FnMut() -> Result<bool>) -> Result<()> {
    wait(what, limit, || Ok(condition()?.then_some(())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wait_ends_with_its_value_its_error_or_its_deadline() {
        let mut looks = 0..;
        let third = wait("the third look", Duration::MAX, || Ok(looks.next().filter(|look| *look == 2)));
        assert_eq!(third.unwrap(), 2);
        let error = until("a miracle", Duration::ZERO, || Ok(false)).unwrap_err().to_string();
        assert_eq!(error, "not after 0ns: a miracle");
        let failed = until("anything", Duration::MAX, || anyhow::bail!("broken"));
        assert_eq!(failed.unwrap_err().to_string(), "broken");
    }
}
