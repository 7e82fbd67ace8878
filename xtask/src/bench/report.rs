//! What `synmill bench --json` wrote. Knows its schema; never how it was measured.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use anyhow::{Context as _, Result, ensure};
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::Value;

/// The only schema that is understood.
const SCHEMA: &str = "synmill-bench/1";

/// The part of it that the benchmarks read and archive.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub(crate) struct Report {
    /// How the rings were reached.
    mode: Value,
    duration_s: f64,
    pub(crate) rate_per_s: Rates,
    pub(crate) connections: Connections,
    pub(crate) requests: Requests,
    pub(crate) packets_per_connection: Packets,
    pub(crate) latency_us: Latencies,
    /// How late connections were started.
    pub(crate) start_lag_us: Percentiles,
    pub(crate) retransmissions: Retransmissions,
    drops: Value,
    pub(crate) rings: Rings,
    pub(crate) cpu: Cpu,
    pub(crate) verdict: Verdict,
}

/// Of what happened in the window.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub(crate) struct Rates {
    asked: Value,
    /// Handshakes completed.
    pub(crate) achieved: f64,
    started: f64,
    closed: f64,
}

/// Of those that count.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub(crate) struct Connections {
    started: u64,
    established: u64,
    closed: u64,
    pub(crate) failed: Failed,
    not_started: u64,
}

#[derive(Clone, Debug, Deserialize, Serialize)]
pub(crate) struct Failed {
    refused: u64,
    connect_timed_out: u64,
    unreachable: u64,
    connect_cut: u64,
    reset_by_peer: u64,
    bad_response: u64,
    timed_out: u64,
    cut: u64,
}

impl Failed {
    /// Whatever the reason, but for the end of the measurement.
    pub(crate) const fn uncut(&self) -> u64 {
        self.refused
            + self.connect_timed_out
            + self.unreachable
            + self.reset_by_peer
            + self.bad_response
            + self.timed_out
    }
}

/// Of the connections that count.
#[derive(Clone, Copy, Debug, Deserialize, Serialize)]
pub(crate) struct Requests {
    started: u64,
    pub(crate) done: u64,
    http_errors: u64,
    pub(crate) per_s: f64,
}

/// A number that may be absent, as null; the key must be there.
fn nullable<'de, D: Deserializer<'de>>(from: D) -> Result<Option<f64>, D::Error> {
    Option::deserialize(from)
}

/// Packets for a connection, as the generator's side counts them.
#[derive(Clone, Copy, Debug, Deserialize, Serialize)]
pub(crate) struct Packets {
    pub(crate) out: f64,
    #[serde(rename = "in")]
    pub(crate) into: f64,
}

/// What was timed; from the intended start, but for request and close.
#[derive(Clone, Copy, Debug, Deserialize, Serialize)]
pub(crate) struct Latencies {
    pub(crate) connect: Percentiles,
    first_byte: Percentiles,
    pub(crate) request: Percentiles,
    close: Percentiles,
    pub(crate) life: Percentiles,
}

/// Without a sample, all are 0.
#[derive(Clone, Copy, Debug, Deserialize, Serialize)]
pub(crate) struct Percentiles {
    p50: f64,
    p90: f64,
    p99: f64,
    p999: f64,
    p9999: f64,
    max: f64,
    count: u64,
}

impl Percentiles {
    /// The median, if there is a sample.
    pub(crate) fn p50(&self) -> Option<f64> {
        (self.count > 0).then_some(self.p50)
    }

    /// The 99th percentile, if there is a sample.
    pub(crate) fn p99(&self) -> Option<f64> {
        (self.count > 0).then_some(self.p99)
    }
}

/// Segments sent again; those with SYN are among the others.
#[derive(Clone, Copy, Debug, Deserialize, Serialize)]
pub(crate) struct Retransmissions {
    syn: u64,
    pub(crate) segs: u64,
}

/// Frames lost at the generator's rings, by kind.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(transparent)]
pub(crate) struct Rings(BTreeMap<String, u64>);

impl Rings {
    /// Those that were to be received.
    pub(crate) fn lost(&self) -> u64 {
        ["rx_ring_full", "fill_ring_empty", "rx_dropped"].iter().filter_map(|kind| self.0.get(*kind)).sum()
    }
}

/// CPU time of the generator's side, in the window.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub(crate) struct Cpu {
    cores: Vec<Core>,
    #[serde(deserialize_with = "nullable")]
    pub(crate) ns_per_connection: Option<f64>,
}

impl Cpu {
    /// How busy its first core was, whoever used it.
    pub(crate) fn busy_percent(&self) -> Option<f64> {
        let core = self.cores.first()?;
        Some(core.user_percent + core.system_percent + core.softirq_percent)
    }
}

#[derive(Clone, Copy, Debug, Deserialize, Serialize)]
struct Core {
    core: usize,
    user_percent: f64,
    system_percent: f64,
    softirq_percent: f64,
    idle_percent: f64,
}

/// Is what was measured worth anything?
#[derive(Clone, Debug, Deserialize, Serialize)]
pub(crate) struct Verdict {
    pub(crate) ok: bool,
    pub(crate) problems: Vec<String>,
}

impl Report {
    /// From the file that `synmill bench` wrote.
    pub(crate) fn read(path: &Path) -> Result<Self> {
        let text = fs::read_to_string(path).with_context(|| path.display().to_string())?;
        Self::parse(&text).context("the report of `synmill bench`")
    }

    fn parse(text: &str) -> Result<Self> {
        let value: Value = serde_json::from_str(text)?;
        let schema = &value["schema"];
        ensure!(schema == SCHEMA, "its schema is {schema}, and {SCHEMA} is understood");
        // The error names the place of a key that is missing or of another kind.
        Ok(serde_path_to_error::deserialize(value)?)
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
            "rings": {"rx_ring_full": 5, "fill_ring_empty": 2, "tx_ring_full": 9},
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
        assert_eq!(report.connections.failed.uncut(), 6);
        assert_eq!(report.latency_us.connect.p99(), Some(55.0));
        assert_eq!(report.latency_us.request.p99(), None);
        assert_eq!(report.cpu.busy_percent(), Some(99.0));
    }

    #[test]
    fn a_missing_key_is_named_with_its_place() {
        for (place, key) in [
            ("", "verdict"),
            ("/connections", "established"),
            ("/connections/failed", "cut"),
            ("/latency_us", "connect"),
            ("/latency_us/connect", "p99"),
            ("/packets_per_connection", "in"),
            ("/cpu", "ns_per_connection"),
            ("/retransmissions", "segs"),
            ("/cpu/cores/0", "idle_percent"),
        ] {
            let mut value = fake(1, 1.0);
            value.pointer_mut(place).unwrap().as_object_mut().unwrap().remove(key).unwrap();
            let said = format!("{:#}", report(&value).unwrap_err());
            let path = place.trim_start_matches('/').replace("/0", "[0]").replace('/', ".");
            assert!(said.contains(&path) && said.contains(&format!("missing field `{key}`")), "{said}");
        }
        let mut value = fake(1, 1.0);
        value["schema"] = "synmill-bench/2".into();
        assert!(report(&value).unwrap_err().to_string().contains("synmill-bench/2"));
    }
}
