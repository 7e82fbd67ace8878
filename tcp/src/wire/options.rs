//! TCP options: RFC 9293 section 3.1, RFC 2018 section 2, RFC 7323. Knows their bytes; never when they are due.

use crate::proto::{Options, Timestamps};
use crate::stats::DropReason;

const END: u8 = 0;
const NOP: u8 = 1;
const MSS: u8 = 2;
const WINDOW_SCALE: u8 = 3;
const SACK_PERMITTED: u8 = 4;
const TIMESTAMPS: u8 = 8;

/// The largest shift; a larger one counts as this (RFC 7323 section 2.3).
const MAX_WINDOW_SCALE: u8 = 14;

/// MSS, SACK-permitted with timestamps, NOP with window scale.
pub(super) const MAX_LEN: usize = 20;

/// All options of a header. What belongs on a SYN only is ignored elsewhere; an MSS of 0 counts as none, as in Linux.
#[inline]
pub(super) fn parse(bytes: &[u8], is_syn: bool) -> Result<Options, DropReason> {
    if bytes.is_empty() {
        return Ok(Options::NONE);
    }
    // What nearly every segment but the SYN carries (RFC 7323 appendix A).
    if let Ok(&[NOP, NOP, TIMESTAMPS, 10, v0, v1, v2, v3, e0, e1, e2, e3]) = <&[u8; 12]>::try_from(bytes) {
        let timestamps = Timestamps {
            value: u32::from_be_bytes([v0, v1, v2, v3]),
            echo: u32::from_be_bytes([e0, e1, e2, e3]),
        };
        return Ok(Options { timestamps: Some(timestamps), ..Options::NONE });
    }
    parse_any(bytes, is_syn)
}

fn parse_any(mut bytes: &[u8], is_syn: bool) -> Result<Options, DropReason> {
    let mut options = Options::NONE;
    // At most 40 steps: each takes a byte at least.
    while let [kind, rest @ ..] = bytes {
        match *kind {
            END => break,
            NOP => {
                bytes = rest;
                continue;
            }
            _ => {}
        }
        // The length counts kind and length too.
        let length = usize::from(*rest.first().ok_or(DropReason::TcpOptions)?);
        let (option, behind) = bytes.split_at_checked(length).ok_or(DropReason::TcpOptions)?;
        match *option {
            [MSS, _, m0, m1] => {
                let mss = u16::from_be_bytes([m0, m1]);
                options.mss = (is_syn && mss != 0).then_some(mss);
            }
            [WINDOW_SCALE, _, shift] => {
                options.window_scale = is_syn.then_some(shift.min(MAX_WINDOW_SCALE));
            }
            [SACK_PERMITTED, _] => options.sack_permitted = is_syn,
            [TIMESTAMPS, _, v0, v1, v2, v3, e0, e1, e2, e3] => {
                options.timestamps = Some(Timestamps {
                    value: u32::from_be_bytes([v0, v1, v2, v3]),
                    echo: u32::from_be_bytes([e0, e1, e2, e3]),
                });
            }
            // Too short for itself, or one of the above at a wrong length.
            [] | [_] | [MSS | WINDOW_SCALE | SACK_PERMITTED | TIMESTAMPS, ..] => {
                return Err(DropReason::TcpOptions);
            }
            _ => {}
        }
        bytes = behind;
    }
    Ok(options)
}

/// Bytes that `options` take, a multiple of four.
#[inline]
pub(super) const fn len(options: &Options) -> usize {
    let timestamps_or_sack = match (options.timestamps.is_some(), options.sack_permitted) {
        (true, _) => 12,
        (false, true) => 4,
        (false, false) => 0,
    };
    timestamps_or_sack + 4 * (options.mss.is_some() as usize + options.window_scale.is_some() as usize)
}

/// Lays `options` out as Linux does: MSS, SACK-permitted and timestamps (NOPs for what is not there), NOP and window scale.
/// The first [`len`] bytes count.
#[inline]
pub(super) fn layout(options: &Options) -> [u8; MAX_LEN] {
    let mut bytes = [0; MAX_LEN];
    let mut at = 0;
    let mut put = |four: [u8; 4]| {
        bytes[at..at + 4].copy_from_slice(&four);
        at += 4;
    };
    if let Some(mss) = options.mss {
        let [m0, m1] = mss.to_be_bytes();
        put([MSS, 4, m0, m1]);
    }
    if let Some(Timestamps { value, echo }) = options.timestamps {
        put(if options.sack_permitted {
            [SACK_PERMITTED, 2, TIMESTAMPS, 10]
        } else {
            [NOP, NOP, TIMESTAMPS, 10]
        });
        put(value.to_be_bytes());
        put(echo.to_be_bytes());
    } else if options.sack_permitted {
        put([NOP, NOP, SACK_PERMITTED, 2]);
    }
    if let Some(shift) = options.window_scale {
        put([NOP, WINDOW_SCALE, 3, shift]);
    }
    bytes
}
