//! `synmill-bulk count` in the generator's place, for a peer that only sends: its command line and what it counted. Knows no TCP.

use std::ffi::OsString;
use std::fs;

use anyhow::{Context as _, Result, bail};
use serde::Deserialize;
use serde_json::Value;
use synmill_lab::{CLIENT_INTERFACE, CLIENT_V4};

use super::generator::at_client;
use super::peer::{last_json, listed};
use super::sample::{Column, Sample};
use super::stage::{Stage, binary};

/// The port that it counts at.
const PORT: u16 = 9;

/// Where it receives.
pub(super) fn address() -> String {
    format!("{CLIENT_V4}:{PORT}")
}

/// What it counted, in the window.
#[derive(Debug, Deserialize)]
struct Counted {
    /// Bytes of text.
    text_bytes: u64,
    seconds: f64,
    /// Frames whose numbers were left out.
    lost: u64,
}

/// Counts for so many seconds, after one to warm up; what it found, and how busy the watched core was.
pub(super) fn count(
    stage: &Stage,
    seconds: u32,
    arguments: &[String],
    watched: usize,
) -> Result<(Sample, f64)> {
    let log = stage.folder.file("receiver.log");
    let output = fs::File::create(&log).context("making the receiver's log")?;
    let errors = output.try_clone().context("making the receiver's log")?;
    let (address, core) = (address(), listed(&[stage.generator_core()]));
    let seconds_text = seconds.to_string();
    let options = ["count", "--interface", CLIENT_INTERFACE, "--at", &address, "--core", &core, "--seconds"];
    let mut argv: Vec<OsString> = vec![binary("synmill-bulk")?.into()];
    argv.extend(options.map(OsString::from));
    argv.push(seconds_text.into());
    argv.extend(arguments.iter().map(OsString::from));
    let pipes = [output.into(), errors.into()];
    let (status, core_percent) = at_client(stage, argv.into_iter(), pipes, seconds, watched)?;
    let said = fs::read_to_string(&log).context("reading the receiver's log")?;
    if !status.success() {
        bail!("`synmill-bulk count` failed ({status}): {}", said.trim());
    }
    Ok((values(last_json(&said)?)?, core_percent))
}

#[expect(clippy::cast_precision_loss, reason = "counts of some minutes are far below 2^52")]
fn values(said: Value) -> Result<Sample> {
    let counted = Counted::deserialize(said).context("what the receiver counted")?;
    let mut sample = Sample::default();
    sample.set(Column::GbitPerS, Some(counted.text_bytes as f64 * 8e-9 / counted.seconds));
    sample.set(Column::FramesLost, Some(counted.lost as f64));
    Ok(sample)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_counted_is_a_sample() {
        let said = serde_json::json!({"frames": 10, "text_bytes": 500_000_000, "seconds": 2.0, "lost": 3});
        let sample = values(said).unwrap();
        assert!((sample.get(Column::GbitPerS) - 2.0).abs() < 1e-9);
        assert!((sample.get(Column::FramesLost) - 3.0).abs() < 1e-9);
        assert!(values(serde_json::json!({"seconds": 1.0})).is_err());
    }
}
