//! The interval log that HdrHistogram's own tools read: a line for each second and meter, tagged with the meter's name.
//! Values are nanoseconds.

use std::io;
use std::time::{Duration, SystemTime};

use hdrhistogram::serialization::interval_log::{
    IntervalLogWriter, IntervalLogWriterBuilder, IntervalLogWriterError, Tag,
};

use synmill_engine::generator::meters::Meters;

/// Serializes histograms: compressed, version 2 of the format.
pub type Serializer = hdrhistogram::serialization::V2DeflateSerializer;

/// The tools divide a maximum by this, and so show it in milliseconds.
const NS_PER_MS: f64 = 1e6;

/// Writer of a log. It never flushes `W`; the owner of `W` does.
pub struct Log<'a, W: io::Write>(IntervalLogWriter<'a, 'a, W, Serializer>);

impl<'a, W: io::Write> Log<'a, W> {
    /// Writes the header: the program's version, the command, and the start time that all other times count from.
    ///
    /// # Errors
    /// The writer fails.
    pub fn begin(
        out: &'a mut W,
        serializer: &'a mut Serializer,
        command: &[String],
        start: SystemTime,
    ) -> io::Result<Self> {
        let version = concat!("synmill ", env!("CARGO_PKG_VERSION"));
        // The tools look for this first line.
        IntervalLogWriterBuilder::new()
            .add_comment("[Histogram log format version 1.3]")
            .add_comment(&format!("[Logged with {version}: {}]", command.join(" ")))
            .with_start_time(start)
            .with_base_time(start)
            .with_max_value_divisor(NS_PER_MS)
            .begin_log_with(out, serializer)
            .map(Self)
    }

    /// Writes a line for each meter that has samples. The interval begins at `at`, a time from the start of the log.
    ///
    /// # Errors
    /// The writer fails.
    pub fn write(&mut self, at: Duration, length: Duration, meters: &Meters) -> io::Result<()> {
        for (meter, samples) in meters.iter().filter(|(_, samples)| !samples.is_empty()) {
            let written = self.0.write_histogram(samples, at, length, Tag::new(meter.name()));
            written.map_err(|error| match error {
                IntervalLogWriterError::IoError(error) => error,
                IntervalLogWriterError::SerializeError(error) => io::Error::other(error.to_string()),
            })?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use hdrhistogram::serialization::interval_log::{IntervalLogIterator, LogEntry};

    use super::*;
    use synmill_engine::generator::meters::Meter;

    #[test]
    fn what_is_written_is_read_back() {
        let mut first = Meters::default();
        (1..=1000).for_each(|us| first.record(Meter::Connect, Duration::from_micros(us)));
        first.record(Meter::StartLag, Duration::ZERO);
        let mut second = Meters::default();
        second.record(Meter::Connect, Duration::from_millis(250));

        let mut text = Vec::new();
        let mut serializer = Serializer::new();
        let start = SystemTime::UNIX_EPOCH + Duration::from_secs(1_700_000_000);
        let command = ["synmill".into(), "bench".into(), "a\nb".into()];
        let mut log = Log::begin(&mut text, &mut serializer, &command, start).unwrap();
        for (at, meters) in [(0, &first), (1, &second), (2, &Meters::default())] {
            log.write(Duration::from_secs(at), Duration::from_secs(1), meters).unwrap();
        }

        let lines = String::from_utf8(text).unwrap();
        assert!(lines.starts_with("#[Histogram log format version 1.3]\n"), "{lines}");
        assert!(lines.contains(": synmill bench a\n#b]\n"), "{lines}");
        assert!(lines.contains("\nTag=connect,1.000,1.000,25"), "the maximum is in ms: {lines}");
        let mut read = Vec::new();
        for entry in IntervalLogIterator::new(lines.as_bytes()) {
            match entry.unwrap() {
                LogEntry::StartTime(time) | LogEntry::BaseTime(time) => {
                    assert_eq!(time.as_secs(), 1_700_000_000);
                }
                LogEntry::Interval(interval) => {
                    let tag = interval.tag().unwrap().as_str().to_owned();
                    assert_eq!(interval.duration(), Duration::from_secs(1));
                    let at = interval.start_timestamp().as_secs();
                    read.push((at, tag, decoded(interval.encoded_histogram())));
                }
            }
        }
        let written =
            [(0, &first, Meter::Connect), (0, &first, Meter::StartLag), (1, &second, Meter::Connect)];
        assert_eq!(
            read,
            written.map(|(at, meters, meter)| (at, meter.name().to_owned(), meters.get(meter).clone()))
        );
    }

    /// Decodes a histogram from its text in base64.
    fn decoded(text: &str) -> hdrhistogram::Histogram<u64> {
        const ALPHABET: &[u8] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
        let digit = |digit: &u8| ALPHABET.iter().position(|letter| letter == digit).unwrap() as u32;
        let letters: Vec<u8> = text.bytes().filter(|&letter| letter != b'=').collect();
        let mut bytes = Vec::new();
        for four in letters.chunks(4) {
            let bits =
                four.iter().fold(0, |bits, letter| bits << 6 | digit(letter)) << (6 * (4 - four.len()));
            bytes.extend_from_slice(&bits.to_be_bytes()[1..four.len()]);
        }
        hdrhistogram::serialization::Deserializer::new().deserialize(&mut bytes.as_slice()).unwrap()
    }
}
