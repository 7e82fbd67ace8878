//! Reads the report of `synmill bench --json`.

use std::fs;
use std::path::Path;

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;

/// The only schema that is understood.
const SCHEMA: &str = "synmill-bench/1";

/// A report.
#[derive(Clone, Debug)]
pub(crate) struct Report(Value);

impl Report {
    /// Reads the file that `synmill bench` wrote.
    pub(crate) fn read(path: &Path) -> Result<Self> {
        let text = fs::read_to_string(path).with_context(|| path.display().to_string())?;
        Self::parse(&text)
    }

    fn parse(text: &str) -> Result<Self> {
        let report: Value = serde_json::from_str(text).context("the report of `synmill bench`")?;
        let schema = &report["schema"];
        ensure!(schema == SCHEMA, "the schema of the report is {schema}; only {SCHEMA} is understood");
        Ok(Self(report))
    }

    /// Returns the value at a JSON pointer.
    pub(crate) fn at(&self, pointer: &str) -> Result<&Value> {
        self.0.pointer(pointer).with_context(|| format!("the report of `synmill bench` has no {pointer}"))
    }

    /// Returns the number at a JSON pointer.
    pub(crate) fn number(&self, pointer: &str) -> Result<f64> {
        self.at(pointer)?.as_f64().with_context(|| format!("{pointer} of the report is no number"))
    }

    /// Adds up the numbers with these keys in the object at a JSON pointer.
    pub(crate) fn sum(&self, pointer: &str, keys: &[&str]) -> Result<f64> {
        keys.iter().map(|key| self.number(&format!("{pointer}/{key}"))).sum()
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    #[expect(clippy::cast_precision_loss, reason = "small counts")]
    /// A report as `synmill bench` writes it, with what differs between tests.
    pub(in super::super) fn fake(established: u64, connect_p99: f64) -> Value {
        let percentiles = |count: u64| {
            serde_json::json!({
                "p50": 20.0, "p90": 30.0, "p99": connect_p99, "p999": 90.5, "p9999": 99, "max": 120, "count": count
            })
        };
        let failed = serde_json::json!({
            "refused": 1, "connect_timed_out": 2, "unreachable": 0, "connect_cut": 8, "reset_by_peer": 0,
            "bad_response": 3, "timed_out": 0, "cut": 4
        });
        serde_json::json!({
            "schema": SCHEMA, "command": ["synmill", "bench"], "host": {}, "mode": "copy", "duration_s": 5.0,
            "rate_per_s": {"asked": null, "achieved": established as f64 / 5.0, "started": 1.0, "closed": 1.0},
            "connections": {"started": established + 10, "established": established, "closed": established,
                            "failed": failed, "not_started": 0},
            "requests": {"started": 10, "done": 10, "http_errors": 0, "per_s": 2.0},
            "packets_per_connection": {"out": 3.0, "in": 3.01},
            "latency_us": {"connect": percentiles(established), "first_byte": percentiles(1),
                           "request": percentiles(0), "close": percentiles(1), "life": percentiles(1)},
            "start_lag_us": percentiles(1),
            "retransmissions": {"syn": 1, "segs": 7}, "drops": {},
            "rings": {"rx_ring_full": 5, "fill_ring_empty": 2, "rx_dropped": 0, "tx_ring_full": 9},
            "cpu": {"cores": [{"core": 1, "user_percent": 60.0, "system_percent": 30.0, "softirq_percent": 9.0,
                               "idle_percent": 0.0}],
                    "ns_per_connection": 4800.0},
            "verdict": {"ok": true, "problems": []}
        })
    }

    pub(in super::super) fn report(value: &Value) -> Result<Report> {
        Report::parse(&value.to_string())
    }

    #[test]
    fn a_report_is_understood() {
        let report = report(&fake(1_000_000, 55.0)).unwrap();
        for (pointer, want) in [("/connections/failed/cut", 4.0), ("/latency_us/connect/p99", 55.0)] {
            assert!((report.number(pointer).unwrap() - want).abs() < 1e-9, "{pointer}");
        }
        assert!((report.sum("/rings", &["rx_ring_full", "tx_ring_full"]).unwrap() - 14.0).abs() < 1e-9);
        assert!(report.number("/mode").unwrap_err().to_string().contains("/mode"));
        assert_eq!(report.at("/verdict/ok").unwrap(), true);
    }
}
