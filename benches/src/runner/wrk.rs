//! The output of wrk.

use anyhow::{Context as _, Result};

/// The figures of a run.
#[derive(Debug, PartialEq)]
pub(super) struct Wrk {
    pub(super) requests: f64,
    pub(super) per_second: f64,
    pub(super) p50_us: f64,
    pub(super) p99_us: f64,
    /// Of sockets, and responses other than 2xx and 3xx.
    pub(super) errors: f64,
}

impl Wrk {
    pub(super) fn parse(said: &str) -> Result<Self> {
        let after =
            |start: &str| said.lines().find_map(|line| line.trim().strip_prefix(start)).map(str::trim);
        let latency = |start: &str| microseconds(after(start)?);
        let requests = said.lines().find_map(|line| line.split_once(" requests in "));
        let sockets = after("Socket errors:").unwrap_or_default();
        let refused = after("Non-2xx or 3xx responses:").unwrap_or_default();
        let errors = sockets.split([' ', ',']).chain([refused]).filter_map(|word| word.parse::<f64>().ok());
        Ok(Self {
            requests: requests
                .and_then(|(count, _)| count.trim().parse().ok())
                .context("no count of requests")?,
            per_second: after("Requests/sec:").and_then(|rate| rate.parse().ok()).context("no rate")?,
            p50_us: latency("50%").context("no median latency")?,
            p99_us: latency("99%").context("no 99th percentile of the latency")?,
            // The sum of no floats is -0.
            errors: errors.fold(0.0, |sum, count| sum + count),
        })
    }
}

/// Parses `271.00us`, `1.20ms` or `1.05s`.
fn microseconds(text: &str) -> Option<f64> {
    let (digits, unit) = text.split_at(text.find(|c: char| c.is_ascii_alphabetic())?);
    let factor = match unit {
        "us" => 1.0,
        "ms" => 1e3,
        "s" => 1e6,
        "m" => 60e6,
        _ => return None,
    };
    Some(digits.parse::<f64>().ok()? * factor)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wrk_is_understood() {
        let said = "Running 5s test @ http://198.18.0.2/
  1 threads and 64 connections
  Thread Stats   Avg      Stdev     Max   +/- Stdev
    Latency   300.00us  100.00us   2.00ms   90.00%
    Req/Sec   200.00k     1.00k  210.00k    70.00%
  Latency Distribution
     50%  250.00us
     75%  300.00us
     90%    0.90ms
     99%    1.50ms
  1000000 requests in 5.00s, 1.10GB read
  Socket errors: connect 1, read 2, write 0, timeout 3
  Non-2xx or 3xx responses: 4
Requests/sec: 200000.50
Transfer/sec:    225.00MB
";
        let want = Wrk { requests: 1e6, per_second: 200_000.5, p50_us: 250.0, p99_us: 1500.0, errors: 10.0 };
        assert_eq!(Wrk::parse(said).unwrap(), want);
        assert!(Wrk::parse("unable to connect").is_err());
    }

    #[test]
    fn times_have_units() {
        let times = ["10.00us", "1.50ms", "2.00s", "1.00m", "7", "7h"].map(microseconds);
        assert_eq!(times, [Some(10.0), Some(1500.0), Some(2e6), Some(6e7), None, None]);
    }
}
