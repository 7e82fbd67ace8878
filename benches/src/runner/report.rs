//! The report of `synmill bench --json`.

use std::fs;
use std::path::Path;

use anyhow::{Context as _, Error, Result, ensure};
use serde::Deserialize as _;
use serde_json::Value;

use super::figures::{Column, Sample};

/// The only schema that this runner understands.
const SCHEMA: &str = "synmill-bench/1";
/// The reasons of failed connections, without the end of the measurement.
const FAILED: [&str; 6] =
    ["refused", "connect_timed_out", "unreachable", "reset_by_peer", "bad_response", "timed_out"];
const BUSY: [&str; 3] = ["user_percent", "system_percent", "softirq_percent"];
const LOST: [&str; 3] = ["rx_ring_full", "fill_ring_empty", "rx_dropped"];

/// A report.
#[derive(Clone, Debug)]
pub(super) struct Report(Value);

impl Report {
    pub(super) fn read(path: &Path) -> Result<Self> {
        Self::parse(&fs::read_to_string(path).with_context(|| path.display().to_string())?)
    }

    fn parse(text: &str) -> Result<Self> {
        let report: Value = serde_json::from_str(text).context("the report of `synmill bench`")?;
        let schema = &report["schema"];
        ensure!(schema == SCHEMA, "the schema of the report is {schema}, and only {SCHEMA} is understood");
        Ok(Self(report))
    }

    fn at(&self, pointer: &str) -> Result<&Value> {
        self.0.pointer(pointer).with_context(|| format!("the report of `synmill bench` has no {pointer}"))
    }

    /// Returns the number at a JSON pointer.
    pub(super) fn number(&self, pointer: &str) -> Result<f64> {
        self.at(pointer)?.as_f64().with_context(|| format!("{pointer} of the report is no number"))
    }

    fn sum(&self, pointer: &str, keys: &[&str]) -> Result<f64> {
        keys.iter().map(|key| self.number(&format!("{pointer}/{key}"))).sum()
    }

    /// Returns the figures of the report.
    pub(super) fn sample(&self) -> Result<Sample> {
        let number = |pointer: &str| self.number(pointer);
        // Without a sample, each percentile is 0.
        let percentile = |of: &str, name: &str| {
            let (value, count) = (number(&format!("{of}/{name}"))?, number(&format!("{of}/count"))?);
            Ok::<_, Error>(if count > 0.0 { value } else { f64::NAN })
        };
        let requests = if number("/requests/done")? > 0.0 { number("/requests/per_s")? } else { f64::NAN };
        let values = [
            (Column::ConnectionsPerS, number("/rate_per_s/achieved")?),
            (Column::RequestsPerS, requests),
            (Column::ConnectP50Us, percentile("/latency_us/connect", "p50")?),
            (Column::ConnectP99Us, percentile("/latency_us/connect", "p99")?),
            (Column::RequestP50Us, percentile("/latency_us/request", "p50")?),
            (Column::RequestP99Us, percentile("/latency_us/request", "p99")?),
            (Column::LifeP99Us, percentile("/latency_us/life", "p99")?),
            (Column::StartLagP99Us, percentile("/start_lag_us", "p99")?),
            (Column::PacketsOut, number("/packets_per_connection/out")?),
            (Column::PacketsIn, number("/packets_per_connection/in")?),
            (Column::Failed, self.sum("/connections/failed", &FAILED)?),
            (Column::GeneratorCorePercent, self.sum("/cpu/cores/0", &BUSY)?),
            (Column::GeneratorRetransmissions, number("/retransmissions/segs")?),
            (Column::GeneratorNs, self.at("/cpu/ns_per_connection")?.as_f64().unwrap_or(f64::NAN)),
            (Column::FramesLost, self.sum("/rings", &LOST)?),
        ];
        Ok(values.into_iter().collect())
    }

    /// Returns the problems of the verdict; a reason of our own if the run is `in_doubt` or its verdict not ok without one.
    pub(super) fn problems(&self, in_doubt: bool) -> Result<Vec<String>> {
        let verdict = self.at("/verdict")?;
        let mut problems: Vec<String> =
            Vec::deserialize(&verdict["problems"]).context("/verdict/problems of the report")?;
        if problems.is_empty() && (in_doubt || verdict["ok"] != true) {
            problems.push("the generator's verdict is not good, and names no problem".to_owned());
        }
        Ok(problems)
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// Returns a report as `synmill bench` writes it.
    #[expect(clippy::cast_precision_loss, reason = "small counts")]
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

    pub(in super::super) fn report(value: &Value) -> Report {
        Report::parse(&value.to_string()).unwrap()
    }

    #[test]
    fn a_report_is_understood() {
        let report = report(&fake(1_000_000, 55.0));
        for (pointer, want) in [("/connections/failed/cut", 4.0), ("/latency_us/connect/p99", 55.0)] {
            assert!((report.number(pointer).unwrap() - want).abs() < 1e-9, "{pointer}");
        }
        assert!(report.number("/mode").unwrap_err().to_string().contains("/mode"));
    }

    #[test]
    fn a_report_fills_the_columns() {
        let sample = report(&fake(1000, 55.0)).sample().unwrap();
        for (column, want) in [
            (Column::ConnectionsPerS, 200.0),
            (Column::RequestsPerS, 2.0),
            (Column::ConnectP50Us, 20.0),
            (Column::ConnectP99Us, 55.0),
            (Column::LifeP99Us, 55.0),
            (Column::StartLagP99Us, 55.0),
            (Column::PacketsOut, 3.0),
            (Column::PacketsIn, 3.01),
            (Column::Failed, 6.0),
            (Column::GeneratorRetransmissions, 7.0),
            (Column::GeneratorCorePercent, 99.0),
            (Column::GeneratorNs, 4800.0),
            (Column::FramesLost, 7.0),
        ] {
            assert!((sample.get(column) - want).abs() < 1e-9, "{column:?}: {}", sample.get(column));
        }
        assert!(sample.get(Column::RequestP99Us).is_nan());
    }

    #[test]
    fn a_missing_key_is_named_with_its_place() {
        for pointer in [
            "/connections/failed",
            "/connections/failed/timed_out",
            "/latency_us/connect",
            "/latency_us/connect/p99",
            "/packets_per_connection/in",
            "/cpu/ns_per_connection",
            "/retransmissions/segs",
            "/cpu/cores/0/softirq_percent",
        ] {
            let mut value = fake(1, 1.0);
            let (place, key) = pointer.rsplit_once('/').unwrap();
            value.pointer_mut(place).unwrap().as_object_mut().unwrap().remove(key).unwrap();
            let said = report(&value).sample().unwrap_err().to_string();
            assert!(said.contains(&format!("has no {pointer}")), "{said}");
        }
        let mut value = fake(1, 1.0);
        value["schema"] = "synmill-bench/2".into();
        assert!(Report::parse(&value.to_string()).unwrap_err().to_string().contains("synmill-bench/2"));
    }

    #[test]
    fn a_doubtful_run_says_why() {
        let mut value = fake(1, 1.0);
        assert!(report(&value).problems(false).unwrap().is_empty());
        assert_eq!(report(&value).problems(true).unwrap().len(), 1);
        value["verdict"] = serde_json::json!({"ok": false, "problems": ["the generator was the limit"]});
        assert_eq!(report(&value).problems(true).unwrap(), ["the generator was the limit"]);
    }
}
