//! Waiting for a condition, with a deadline.

use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};

/// Time between two looks at a condition.
const POLL: Duration = Duration::from_millis(10);

/// Waits until `condition` yields a value, and returns it.
///
/// # Errors
/// The condition failed, or yielded nothing for longer than `limit`; then the error names `what`.
pub fn wait<T>(what: &str, limit: Duration, mut condition: impl FnMut() -> Result<Option<T>>) -> Result<T> {
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
/// The condition failed, or was false for longer than `limit`; then the error names `what`.
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
