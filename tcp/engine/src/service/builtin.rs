//! The built-in services by their names on the command line. Knows the syntax of SERVICE; never what a service says.

use std::fmt;
use std::io;
use std::path::Path;
use std::str::FromStr;

use super::{BODY_MAX, Close, Discard, Echo, Http, Memo, Pending, Reset, Service, Source, Taken};

/// The longest stream of `source:SIZE`: 1 TiB.
const SOURCE_MAX: u64 = 1 << 40;

/// A built-in service, chosen by name: `close`, `reset`, `discard`, `echo`, `hold`, `source:SIZE`, `http:SIZE` or
/// `http-file:PATH`.
///
/// SIZE is a number of bytes, optionally in units of K, M, G or T (also KiB and so on, in either case): powers of 1024.
#[derive(Clone, Debug)]
pub enum BuiltIn {
    /// `close`: FIN at once.
    Close(Close),
    /// `reset`: RST at once.
    Reset(Reset),
    /// `discard`: reads and says nothing.
    Discard(Discard),
    /// `echo`: says what it hears.
    Echo(Echo),
    /// `hold`: keeps the connection open.
    Hold(Discard),
    /// `source:SIZE`: SIZE bytes, then FIN.
    Source(Source),
    /// `http:SIZE` or `http-file:PATH`: HTTP/1.1 with one body for every target.
    Http(Http),
}

/// Why a SERVICE of the command line is refused: one line each.
#[derive(Debug, thiserror::Error)]
pub enum Invalid {
    /// No service has this name.
    #[error(
        "no service `{0}`; there are close, reset, discard, echo, hold, source:SIZE (up to 1T), http:SIZE (up to 4G), \
         http-file:PATH"
    )]
    Name(String),
    /// SIZE is not a number of bytes.
    #[error("`{0}` is no SIZE: write a number of bytes such as 0, 512, 64K or 1MiB (K = 1024)")]
    Size(String),
    /// SIZE is beyond the service's range.
    #[error("{service}: SIZE is at most {}, not {}", Size(*max), Size(*size))]
    TooLarge {
        /// The service's name.
        service: &'static str,
        /// Its bound, in bytes.
        max: u64,
        /// What was asked for, in bytes.
        size: u64,
    },
    /// The file to serve cannot be read.
    #[error("http-file:{path}: {reason}")]
    File {
        /// The path as given.
        path: String,
        /// Why.
        reason: io::Error,
    },
}

impl FromStr for BuiltIn {
    type Err = Invalid;

    fn from_str(text: &str) -> Result<Self, Invalid> {
        let (name, argument) = match text.split_once(':') {
            Some((name, argument)) => (name, Some(argument)),
            None => (text, None),
        };
        match (name, argument) {
            ("close", None) => Ok(Self::Close(Close)),
            ("reset", None) => Ok(Self::Reset(Reset)),
            ("discard", None) => Ok(Self::Discard(Discard)),
            ("echo", None) => Ok(Self::Echo(Echo)),
            ("hold", None) => Ok(Self::Hold(Discard)),
            ("source", Some(size)) => {
                parse_size("source", size, SOURCE_MAX).map(|size| Self::Source(Source { size }))
            }
            ("http", Some(size)) => {
                parse_size("http", size, BODY_MAX).map(|size| Self::Http(Http::of_size(size)))
            }
            ("http-file", Some(path)) => Http::of_file(Path::new(path))
                .map(Self::Http)
                .map_err(|reason| Invalid::File { path: path.to_owned(), reason }),
            _ => Err(Invalid::Name(text.to_owned())),
        }
    }
}

impl fmt::Display for BuiltIn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Close(_) => f.write_str("close"),
            Self::Reset(_) => f.write_str("reset"),
            Self::Discard(_) => f.write_str("discard"),
            Self::Echo(_) => f.write_str("echo"),
            Self::Hold(_) => f.write_str("hold"),
            Self::Source(source) => write!(f, "source:{}", Size(source.size)),
            Self::Http(http) => match http.source() {
                Ok(size) => write!(f, "http:{}", Size(size)),
                Err(path) => write!(f, "http-file:{}", path.display()),
            },
        }
    }
}

/// The units of SIZE and their powers of two.
const UNITS: [(char, u32); 4] = [('T', 40), ('G', 30), ('M', 20), ('K', 10)];

/// Bytes, shown in the largest unit that is exact.
struct Size(u64);

impl fmt::Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let exact = UNITS.iter().find(|(_, power)| self.0 != 0 && self.0.trailing_zeros() >= *power);
        match exact {
            Some((unit, power)) => write!(f, "{}{unit}", self.0 >> power),
            None => write!(f, "{}", self.0),
        }
    }
}

/// SIZE in bytes, up to `max`.
pub fn parse_size(service: &'static str, text: &str, max: u64) -> Result<u64, Invalid> {
    let invalid = || Invalid::Size(text.to_owned());
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at(digits);
    let unit = unit.to_ascii_uppercase();
    let power = match unit.strip_suffix("IB").unwrap_or(&unit) {
        "" if unit.is_empty() => 0,
        unit => UNITS.iter().find(|(name, _)| unit.chars().eq([*name])).ok_or_else(invalid)?.1,
    };
    if number.is_empty() {
        return Err(invalid());
    }
    // Digits only, so the one way to fail is to be too large.
    let number: u64 = number.parse().unwrap_or(u64::MAX);
    let size = number.saturating_mul(1 << power);
    if size > max { Err(Invalid::TooLarge { service, max, size }) } else { Ok(size) }
}

/// Calls a method of whichever service it is.
macro_rules! dispatch {
    ($self:ident, $service:ident => $call:expr) => {
        match $self {
            Self::Close($service) => $call,
            Self::Reset($service) => $call,
            Self::Discard($service) | Self::Hold($service) => $call,
            Self::Echo($service) => $call,
            Self::Source($service) => $call,
            Self::Http($service) => $call,
        }
    };
}

impl Service for BuiltIn {
    fn on_open(&self, memo: &mut Memo) {
        dispatch!(self, service => service.on_open(memo));
    }

    #[inline]
    fn on_data(&self, memo: &mut Memo, text: &[u8]) -> Taken {
        dispatch!(self, service => service.on_data(memo, text))
    }

    #[inline]
    fn on_acked(&self, memo: &mut Memo, bytes: u64) {
        dispatch!(self, service => service.on_acked(memo, bytes));
    }

    fn on_peer_closed(&self, memo: &mut Memo) {
        dispatch!(self, service => service.on_peer_closed(memo));
    }

    #[inline]
    fn pending(&self, memo: &Memo) -> Pending {
        dispatch!(self, service => service.pending(memo))
    }

    #[inline]
    fn write(&self, memo: &Memo, at: u64, into: &mut [u8]) {
        dispatch!(self, service => service.write(memo, at, into));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::service::{Then, driver::Conversation};

    fn error(text: &str) -> String {
        text.parse::<BuiltIn>().expect_err(text).to_string()
    }

    #[test]
    fn every_name_is_shown_as_it_is_written() {
        let names = "close reset discard echo hold source:0 source:512 source:100M source:1T http:0 http:1K http:4G \
                     http-file:Cargo.toml";
        for text in names.split_whitespace() {
            assert_eq!(text.parse::<BuiltIn>().expect(text).to_string(), text);
        }
    }

    #[test]
    fn sizes_have_units_of_1024() {
        for (text, bytes) in [
            ("0", 0),
            ("512", 512),
            ("1k", 1024),
            ("1KiB", 1024),
            ("64K", 65_536),
            ("1M", 1 << 20),
            ("1mib", 1 << 20),
            ("100M", 100 << 20),
            ("1G", 1 << 30),
            ("1024G", 1 << 40),
        ] {
            assert_eq!(parse_size("source", text, SOURCE_MAX).expect(text), bytes, "{text}");
        }
        for text in ["", "K", "iB", "1iB", "1KB", "1KK", "1.5M", "-1", "+1", " 1", "1 K", "0x10", "é", "1é"]
        {
            assert!(matches!(parse_size("source", text, SOURCE_MAX), Err(Invalid::Size(_))), "{text:?}");
        }
    }

    #[test]
    fn refusals_say_what_to_write_instead() {
        for text in ["", "closed", "close:", "close:1", "source", "http", "http-file", "Close", "hold "] {
            let line = error(text);
            assert!(line.contains(&format!("`{text}`")) && line.contains("source:SIZE"), "{line}");
            assert!(!line.contains('\n'));
        }
        assert_eq!(
            error("source:x"),
            "`x` is no SIZE: write a number of bytes such as 0, 512, 64K or 1MiB (K = 1024)"
        );
        assert_eq!(error("source:2T"), "source: SIZE is at most 1T, not 2T");
        assert_eq!(error("http:5G"), "http: SIZE is at most 4G, not 5G");
        assert_eq!(error("http:4294967297"), "http: SIZE is at most 4G, not 4294967297");
        assert_eq!(error("http-file:/no/such"), "http-file:/no/such: No such file or directory (os error 2)");
        assert_eq!(error("http-file:/"), "http-file:/: not a regular file");
        assert!(error("source:99999999999999999999T").starts_with("source: SIZE is at most 1T"));
    }

    #[test]
    fn dispatch_reaches_each_service() {
        for (text, len, then) in [
            ("close", 0, Then::Close),
            ("reset", 0, Then::Reset),
            ("discard", 0, Then::CloseAfterPeer),
            ("echo", 2, Then::CloseAfterPeer),
            ("hold", 0, Then::CloseAfterPeer),
            ("source:1K", 1024, Then::Close),
            ("http:1K", 83, Then::Close),
        ] {
            let service: BuiltIn = text.parse().expect(text);
            let mut talk = Conversation::open(&service, 3);
            talk.say(b"\x01\n");
            talk.close();
            let (stream, last) = talk.run();
            assert_eq!((stream.len(), last), (len, then), "{text}");
        }
    }
}
