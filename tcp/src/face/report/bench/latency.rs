//! Latencies, as reports tell them.

use hdrhistogram::Histogram;
use serde::Serialize;

use crate::face::report::tenth;
use synmill_engine::generator::meters::{Meter, Meters};

/// How a latency is distributed, in microseconds to one decimal; all 0 without a sample.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Latency {
    /// Half of the samples are no longer.
    pub p50: f64,
    /// Nine of ten are no longer.
    pub p90: f64,
    /// 99 of a hundred.
    pub p99: f64,
    /// 999 of a thousand.
    pub p999: f64,
    /// 9,999 of ten thousand.
    pub p9999: f64,
    /// The longest.
    pub max: f64,
    /// How many samples.
    pub count: u64,
}

impl From<&Histogram<u64>> for Latency {
    fn from(samples: &Histogram<u64>) -> Self {
        if samples.is_empty() {
            return Self::default();
        }
        // A bucket's upper end may lie beyond the largest sample's.
        let at = |quantile: f64| micros(samples.value_at_quantile(quantile).min(samples.max()));
        Self {
            p50: at(0.5),
            p90: at(0.9),
            p99: at(0.99),
            p999: at(0.999),
            p9999: at(0.9999),
            max: micros(samples.max()),
            count: samples.len(),
        }
    }
}

/// Nanoseconds as microseconds with one decimal.
pub(super) fn micros(ns: u64) -> f64 {
    tenth(ns as f64 / 1e3)
}

/// Latencies, from the intended start where the start is meant.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Latencies {
    /// Intended start to SYN,ACK.
    pub connect: Latency,
    /// Intended start to the first byte of the first response.
    pub first_byte: Latency,
    /// Request sent to its response's last byte.
    pub request: Latency,
    /// Our FIN to its acknowledgement.
    pub close: Latency,
    /// Intended start to the end.
    pub life: Latency,
}

impl From<&Meters> for Latencies {
    fn from(meters: &Meters) -> Self {
        let latency = |meter: Meter| Latency::from(meters.get(meter));
        Self {
            connect: latency(Meter::Connect),
            first_byte: latency(Meter::FirstByte),
            request: latency(Meter::Request),
            close: latency(Meter::Close),
            life: latency(Meter::Life),
        }
    }
}

/// The same, from the moment that the SYN was sent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct FromSyn {
    /// To SYN,ACK.
    pub connect: Latency,
    /// To the first byte of the first response.
    pub first_byte: Latency,
    /// To the end.
    pub life: Latency,
}

impl From<&Meters> for FromSyn {
    fn from(meters: &Meters) -> Self {
        let latency = |meter: Meter| Latency::from(meters.get(meter));
        Self {
            connect: latency(Meter::ConnectFromSyn),
            first_byte: latency(Meter::FirstByteFromSyn),
            life: latency(Meter::LifeFromSyn),
        }
    }
}
