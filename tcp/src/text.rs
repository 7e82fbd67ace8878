//! Numbers as text: how messages write them, and how options and the kernel's lists are read.

use std::fmt;
use std::ops::Deref;
use std::str::FromStr;

/// Returns a number with its thousands set apart: `1,234,567`.
#[must_use]
pub fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (position, digit) in digits.chars().enumerate() {
        if position > 0 && (digits.len() - position).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// Returns a number and its noun: `1 queue`, `2 queues`.
#[must_use]
pub fn counted(number: u64, noun: &str) -> String {
    format!("{} {noun}{}", grouped(number), if number == 1 { "" } else { "s" })
}

/// Returns microseconds with three digits and the unit that fits.
#[must_use]
pub fn duration(us: f64) -> String {
    let (value, unit) = match us {
        us if us < 999.5 => (us, "us"),
        us if us < 999_500.0 => (us / 1e3, "ms"),
        us => (us / 1e6, "s"),
    };
    let decimals = match value {
        value if value >= 99.95 => 0,
        value if value >= 9.995 || unit == "us" => 1,
        _ => 2,
    };
    format!("{value:.decimals$} {unit}")
}

/// Returns a rate with its thousands set apart, or with a decimal if it is small.
#[must_use]
pub fn rate(value: f64) -> String {
    if value < 1_000.0 { format!("{value:.1}") } else { grouped(value.round() as u64) }
}

/// Returns numbers in the form of the command line: `0-3,6`.
#[must_use]
pub fn ranges(numbers: &[usize]) -> String {
    let runs = numbers.chunk_by(|a, b| a + 1 == *b).map(|run| match run {
        [first, .., last] => format!("{first}-{last}"),
        run => run.iter().map(usize::to_string).collect(),
    });
    runs.collect::<Vec<_>>().join(",")
}

/// Returns queues by their numbers: `queue 0`, `queues 0-3`.
#[must_use]
pub fn queues(numbers: &[usize]) -> String {
    format!("queue{} {}", if numbers.len() == 1 { "" } else { "s" }, ranges(numbers))
}

/// Returns bytes in hexadecimal, with colons between: `02:00:5e`.
#[must_use]
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect::<Vec<_>>().join(":")
}

/// Reads both ends of a range such as `3-9`; one number is both of its ends.
#[must_use]
pub fn parse_range<T: FromStr>(text: &str) -> Option<(T, T)> {
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    Some((first.parse().ok()?, last.parse().ok()?))
}

/// Different numbers of queues or cores, at least one, in the order given.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Numbers(Vec<usize>);

/// The largest number of a queue or core that makes sense. It also bounds the list.
const MAX_NUMBER: usize = 4095;

impl Deref for Numbers {
    type Target = [usize];

    fn deref(&self) -> &[usize] {
        &self.0
    }
}

impl FromStr for Numbers {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let mut numbers = Vec::new();
        for part in text.split(',') {
            let (first, last) = parse_range(part)
                .filter(|&(first, last): &(usize, usize)| first.max(last) <= MAX_NUMBER)
                .ok_or_else(|| {
                    format!("write numbers from 0 to {MAX_NUMBER} and ranges, such as 0-3 or 0,2")
                })?;
            if first > last {
                return Err(format!("the range {part} runs backwards: write {last}-{first}"));
            }
            for number in first..=last {
                if numbers.contains(&number) {
                    return Err(format!("{number} is named twice"));
                }
                numbers.push(number);
            }
        }
        Ok(Self(numbers))
    }
}

impl fmt::Display for Numbers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&ranges(self))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn thousands_are_set_apart() {
        assert_eq!([0, 999, 1000, 1234567].map(grouped), ["0", "999", "1,000", "1,234,567"]);
    }

    #[test]
    fn durations_have_three_digits_and_a_unit() {
        let check = |us: f64, text: &str| assert_eq!(duration(us), text);
        check(0.0, "0.0 us");
        check(1.0, "1.0 us");
        check(45.23, "45.2 us");
        check(250.0, "250 us");
        check(999.6, "1.00 ms");
        check(12_345.0, "12.3 ms");
        check(999_600.0, "1.00 s");
        check(3_600_000_000.0, "3600 s");
    }
}
