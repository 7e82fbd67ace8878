//! Latencies by meter, as the document has them.

use hdrhistogram::Histogram;
use serde::Serialize;

use crate::face::report::{Named, tenth};
use synmill_engine::generator::meters::{Meter, Meters};

/// Distribution of a latency, in microseconds with one decimal. All values are 0 if there is no sample.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Latency {
    /// Median.
    pub p50: f64,
    /// 90th percentile.
    pub p90: f64,
    /// 99th percentile.
    pub p99: f64,
    /// 99.9th percentile.
    pub p999: f64,
    /// 99.99th percentile.
    pub p9999: f64,
    /// Maximum.
    pub max: f64,
    /// Number of samples.
    pub count: u64,
}

impl From<&Histogram<u64>> for Latency {
    fn from(samples: &Histogram<u64>) -> Self {
        if samples.is_empty() {
            return Self::default();
        }
        // A bucket's upper end may lie beyond the largest sample.
        let at = |quantile: f64| micros(samples.value_at_quantile(quantile).min(samples.max()));
        let [p50, p90, p99, p999, p9999] = [0.5, 0.9, 0.99, 0.999, 0.9999].map(at);
        Self { p50, p90, p99, p999, p9999, max: micros(samples.max()), count: samples.len() }
    }
}

/// Converts nanoseconds to microseconds with one decimal.
pub(super) fn micros(ns: u64) -> f64 {
    tenth(ns as f64 / 1e3)
}

/// All latencies of the connections that count.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Latencies {
    /// Latencies by the meter's name. Those of connect, first byte and life begin at the intended start.
    pub latency_us: Named<Latency>,
    /// Latencies from the moment that the SYN was sent.
    pub latency_from_syn_us: Named<Latency>,
    /// Time from the intended start to the moment that the SYN was sent.
    pub start_lag_us: Latency,
}

impl From<&Meters> for Latencies {
    fn from(meters: &Meters) -> Self {
        let mut all = Self::default();
        for (meter, samples) in meters.iter() {
            let (name, latency) = (meter.name(), Latency::from(samples));
            match name.strip_suffix("_from_syn") {
                _ if meter == Meter::StartLag => all.start_lag_us = latency,
                Some(name) => all.latency_from_syn_us.0.push((name.into(), latency)),
                None => all.latency_us.0.push((name.into(), latency)),
            }
        }
        all
    }
}
