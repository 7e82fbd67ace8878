//! The text of options' values.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

/// `--control`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ControlSocket {
    /// No socket.
    None,
    /// A socket at this path.
    At(PathBuf),
}

impl FromStr for ControlSocket {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "" => Err("write a path, or `none`"),
            "none" => Ok(Self::None),
            path => Ok(Self::At(path.into())),
        }
    }
}

pub(super) fn parse_address(text: &str) -> Result<SocketAddr, String> {
    // Such a text may also be an address without a port.
    if let Some((ip, port)) = text.rsplit_once(':')
        && let (Ok(ip), Ok(port @ 1..)) = (ip.parse::<Ipv6Addr>(), port.parse())
    {
        return Err(format!("an IPv6 address needs brackets: write {}", SocketAddr::new(ip.into(), port)));
    }
    if let Ok(ip) = text.trim_matches(['[', ']']).parse::<IpAddr>() {
        return Err(format!("the port is missing: write {}", SocketAddr::new(ip, 80)));
    }
    text.parse().map_err(|_| {
        "not an address and port: write 192.0.2.1:80 or [2001:db8::1]:80, a port from 1 to 65535".to_owned()
    })
}

/// Reads a whole number with one of these units.
fn parse_units(text: &str, units: &[(&str, u64)]) -> Option<u64> {
    let (digits, unit) = text.split_at(text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len()));
    let (_, factor) = units.iter().find(|(name, _)| *name == unit)?;
    digits.parse::<u64>().ok()?.checked_mul(*factor)
}

pub(super) fn parse_count(text: &str) -> Result<usize, &'static str> {
    let count = parse_units(text, &[("", 1), ("k", 1_000), ("K", 1_000), ("M", 1_000_000)]);
    count
        .and_then(|count| count.try_into().ok())
        .ok_or("write a whole number, with K for 1000 or M for 1000000, such as 500K")
}

pub(super) fn parse_duration(text: &str) -> Result<Duration, &'static str> {
    let ms = parse_units(text, &[("ms", 1), ("s", 1_000), ("m", 60_000), ("h", 3_600_000)]);
    ms.map(Duration::from_millis).ok_or("write a whole number and a unit: 500ms, 30s, 5m or 1h")
}
