//! The arguments of services on the command line, and why one is invalid.

use std::fmt;
use std::io;

/// Why a SERVICE of the command line is invalid, in one line.
#[derive(Debug, thiserror::Error)]
pub enum Invalid {
    /// No service has this name.
    #[error("no service `{name}`; there are {known}")]
    Name {
        /// The text of the command line.
        name: String,
        /// All services.
        known: String,
    },
    /// SIZE is not a number of bytes.
    #[error("`{0}` is no SIZE: write a number of bytes such as 0, 512, 64K or 1MiB (K = 1024)")]
    Size(String),
    /// SIZE is beyond the service's range.
    #[error("{service}: SIZE is at most {}, not {}", Size(*max), Size(*size))]
    TooLarge {
        /// The service's name.
        service: &'static str,
        /// The service's bound, in bytes.
        max: u64,
        /// The given size, in bytes.
        size: u64,
    },
    /// The file to serve cannot be read.
    #[error("http-file:{path}: {reason}")]
    File {
        /// The given path.
        path: String,
        /// Why.
        reason: io::Error,
    },
}

/// The units of SIZE and their powers of two.
const UNITS: [(char, u32); 4] = [('T', 40), ('G', 30), ('M', 20), ('K', 10)];

/// A number of bytes. It is shown in the largest unit that is exact.
pub(super) struct Size(pub(super) u64);

impl fmt::Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let exact = UNITS.iter().find(|(_, power)| self.0 != 0 && self.0.trailing_zeros() >= *power);
        match exact {
            Some((unit, power)) => write!(f, "{}{unit}", self.0 >> power),
            None => write!(f, "{}", self.0),
        }
    }
}

/// Parses SIZE: a number of bytes, optionally with a unit of K, M, G or T (also KiB and so on, in either case), which are powers of
/// 1024.
///
/// # Errors
/// If `text` is no SIZE, or one above `max`.
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
    // A string of digits can only be too large.
    let number: u64 = number.parse().unwrap_or(u64::MAX);
    let size = number.saturating_mul(1 << power);
    if size > max { Err(Invalid::TooLarge { service, max, size }) } else { Ok(size) }
}
