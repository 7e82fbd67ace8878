//! TCP options: RFC 9293 section 3.1, RFC 2018 section 2, RFC 7323.

use super::bytes::{room, u32_at, words_of};
use super::checksum::Sum;
use crate::proto::{Options, SeqNum, Timestamps};
use crate::stats::DropReason;

const END: u8 = 0;
const NOP: u8 = 1;
const MSS: u8 = 2;
const WINDOW_SCALE: u8 = 3;
const SACK_PERMITTED: u8 = 4;
const SACK: u8 = 5;
const TIMESTAMPS: u8 = 8;
/// The first word of the one option that nearly every segment carries: timestamps with padding (RFC 7323 appendix A).
const COMMON: u32 = u32::from_be_bytes([NOP, NOP, TIMESTAMPS, 10]);
/// Bytes of that option, padding included.
const COMMON_LEN: usize = 12;
/// The first word of SACK-permitted and timestamps together, as Linux lays them out.
const SACK_AND_TIMESTAMPS: u32 = u32::from_be_bytes([SACK_PERMITTED, 2, TIMESTAMPS, 10]);
/// The word of an MSS of 0, and of a window shift of 0.
const MSS_OF_0: u32 = u32::from_be_bytes([MSS, 4, 0, 0]);
const SHIFT_OF_0: u32 = u32::from_be_bytes([NOP, WINDOW_SCALE, 3, 0]);
/// Bytes of the options on Linux's SYN.
const LINUX_SYN_LEN: usize = 20;
/// Bytes of a SACK block.
const BLOCK: usize = 8;

/// The largest shift. A larger one counts as this one (RFC 7323 section 2.3).
const MAX_WINDOW_SCALE: u8 = 14;

/// Parses all options of a header, and returns their sum. An option for SYNs is ignored on other segments. An MSS of 0 counts as
/// none, as in Linux.
#[inline(always)]
pub(super) fn parse(bytes: &[u8], is_syn: bool, options: &mut Options) -> Result<Sum, DropReason> {
    options.clear();
    if bytes.is_empty() {
        return Ok(Sum::ZERO);
    }
    if let Ok(bytes) = <&[u8; COMMON_LEN]>::try_from(bytes)
        && u32_at(bytes, 0) == COMMON
    {
        let (value, echo) = (u32_at(bytes, 4), u32_at(bytes, 8));
        options.timestamps = Some(Timestamps { value, echo });
        return Ok(Sum::of(u64::from(COMMON) + u64::from(value) + u64::from(echo)));
    }
    if let Ok(bytes) = <&[u8; LINUX_SYN_LEN]>::try_from(bytes)
        && is_syn
        && let Some(sum) = parse_linux_syn(bytes, options)
    {
        return Ok(sum);
    }
    parse_any(bytes, is_syn, options)?;
    Ok(Sum::ZERO.bytes(bytes))
}

/// Parses the options of a SYN as Linux lays them out ([`Layout::emit`]), with a good shift and an MSS. Returns their sum, or `None`
/// for any other options.
#[inline]
fn parse_linux_syn(bytes: &[u8; LINUX_SYN_LEN], options: &mut Options) -> Option<Sum> {
    let words @ [mss, kinds, value, echo, shift] = words_of(bytes);
    let (mss, shift) = (mss.wrapping_sub(MSS_OF_0), shift.wrapping_sub(SHIFT_OF_0));
    let is_one =
        (1..=0xffff).contains(&mss) && kinds == SACK_AND_TIMESTAMPS && shift <= MAX_WINDOW_SCALE.into();
    is_one.then(|| {
        options.mss = Some(mss as u16);
        options.sack_permitted = true;
        options.timestamps = Some(Timestamps { value, echo });
        options.window_scale = Some(shift as u8);
        Sum::ZERO.words(words)
    })
}

fn parse_any(mut bytes: &[u8], is_syn: bool, options: &mut Options) -> Result<(), DropReason> {
    // At most 40 steps: each takes at least one byte.
    while let [kind, rest @ ..] = bytes {
        match *kind {
            END => break,
            NOP => {
                bytes = rest;
                continue;
            }
            _ => {}
        }
        // The length includes the kind and the length itself.
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
            [SACK, _, ref blocks @ ..] if !blocks.is_empty() && blocks.len().is_multiple_of(BLOCK) => {
                for [s0, s1, s2, s3, e0, e1, e2, e3] in blocks.as_chunks().0 {
                    let start = SeqNum(u32::from_be_bytes([*s0, *s1, *s2, *s3]));
                    let end = SeqNum(u32::from_be_bytes([*e0, *e1, *e2, *e3]));
                    if !is_syn {
                        options.sack.push(start, end);
                    }
                }
            }
            // Too short for kind and length, or a known option with a wrong length.
            [] | [_] | [MSS | WINDOW_SCALE | SACK_PERMITTED | SACK | TIMESTAMPS, ..] => {
                return Err(DropReason::TcpOptions);
            }
            _ => {}
        }
        bytes = behind;
    }
    Ok(())
}

/// The length of the options that a segment carries.
#[derive(Clone, Copy, Debug)]
pub(super) struct Layout {
    len: usize,
    /// There are no options but timestamps.
    is_common: bool,
}

impl Layout {
    #[inline]
    pub(super) fn of(options: &Options) -> Self {
        let is_common = options.are_common();
        let common_len = if options.timestamps.is_some() { COMMON_LEN } else { 0 };
        Self { len: if is_common { common_len } else { len_of_any(options) }, is_common }
    }

    /// Returns the bytes of the options, a multiple of four.
    #[inline]
    pub(super) const fn len(self) -> usize {
        self.len
    }

    /// Writes `options` in Linux's order: MSS, SACK-permitted and timestamps (NOPs in place of an absent one), NOP and window scale,
    /// SACK blocks. Returns their sum. `into` is [`Layout::len`] bytes long.
    #[inline]
    pub(super) fn emit(self, into: &mut [u8], options: &Options) -> Sum {
        if !self.is_common {
            return emit_any(into, options);
        }
        let Some(Timestamps { value, echo }) = options.timestamps else { return Sum::ZERO };
        let (into, _) = room::<COMMON_LEN>(into);
        into[..4].copy_from_slice(&COMMON.to_be_bytes());
        into[4..8].copy_from_slice(&value.to_be_bytes());
        into[8..].copy_from_slice(&echo.to_be_bytes());
        Sum::of(u64::from(COMMON) + u64::from(value) + u64::from(echo))
    }
}

fn len_of_any(options: &Options) -> usize {
    let timestamps_or_sack = match (options.timestamps.is_some(), options.sack_permitted) {
        (true, _) => 12,
        (false, true) => 4,
        (false, false) => 0,
    };
    let words = usize::from(options.mss.is_some()) + usize::from(options.window_scale.is_some());
    timestamps_or_sack + 4 * words + sack_len(options)
}

/// Returns the bytes of the SACK blocks, padding included.
#[inline]
fn sack_len(options: &Options) -> usize {
    if options.sack.is_empty() { 0 } else { 4 + BLOCK * options.sack.as_slice().len() }
}

/// Writes all options that a SYN can offer.
fn emit_linux_syn(into: &mut [u8; LINUX_SYN_LEN], mss: u16, times: Timestamps, shift: u8) -> Sum {
    let (mss, shift) = (MSS_OF_0 | u32::from(mss), SHIFT_OF_0 | u32::from(shift));
    let words = [mss, SACK_AND_TIMESTAMPS, times.value, times.echo, shift];
    for (into, word) in into.as_chunks_mut::<4>().0.iter_mut().zip(words) {
        *into = word.to_be_bytes();
    }
    Sum::ZERO.words(words)
}

fn emit_any(into: &mut [u8], options: &Options) -> Sum {
    if let Options {
        mss: Some(mss),
        timestamps: Some(times),
        window_scale: Some(shift),
        sack_permitted: true,
        ..
    } = *options
        && let Ok(into) = <&mut [u8; LINUX_SYN_LEN]>::try_from(&mut *into)
    {
        return emit_linux_syn(into, mss, times, shift);
    }

    let mut words = into.as_chunks_mut::<4>().0.iter_mut();
    let mut sum = 0;
    let mut put = |word: u32| {
        if let Some(into) = words.next() {
            *into = word.to_be_bytes();
            // At most ten words.
            sum += u64::from(word);
        }
    };
    if let Some(mss) = options.mss {
        put(MSS_OF_0 | u32::from(mss));
    }
    if let Some(Timestamps { value, echo }) = options.timestamps {
        put(if options.sack_permitted { SACK_AND_TIMESTAMPS } else { COMMON });
        put(value);
        put(echo);
    } else if options.sack_permitted {
        put(u32::from_be_bytes([NOP, NOP, SACK_PERMITTED, 2]));
    }
    if let Some(shift) = options.window_scale {
        put(SHIFT_OF_0 | u32::from(shift));
    }
    if !options.sack.is_empty() {
        put(u32::from_be_bytes([NOP, NOP, SACK, (sack_len(options) - 2) as u8]));
        for (start, end) in options.sack.as_slice() {
            put(start.0);
            put(end.0);
        }
    }
    Sum::of(sum)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proto::SackBlocks;

    const T: [u8; 10] = [8, 10, 0, 0, 0, 1, 0, 0, 0, 2];
    const TIMES: Option<Timestamps> = Some(Timestamps { value: 1, echo: 2 });
    const LINUX_SYN: Options = Options {
        mss: Some(1460),
        window_scale: Some(7),
        sack_permitted: true,
        timestamps: TIMES,
        sack: SackBlocks::NONE,
    };

    fn parse(bytes: &[u8], is_syn: bool) -> Result<Options, DropReason> {
        // The parser must clear older options.
        let mut options = Options { mss: Some(7), sack_permitted: true, ..Options::NONE };
        options.sack.push(SeqNum(1), SeqNum(2));
        let sum = super::parse(bytes, is_syn, &mut options)?;
        assert_eq!(sum.folded(), Sum::ZERO.bytes(bytes).folded(), "the sum of {bytes:?}");
        Ok(options)
    }

    fn padded(bytes: &[u8]) -> Vec<u8> {
        let mut bytes = bytes.to_vec();
        bytes.resize(bytes.len().next_multiple_of(4), END);
        bytes
    }

    #[test]
    fn good_ones() {
        let none = Options::NONE;
        let times = Options { timestamps: TIMES, ..none };
        let mut block = SackBlocks::NONE;
        block.push(SeqNum(1), SeqNum(2));
        let linux = [2, 4, 5, 0xb4, 4, 2, 8, 10, 0, 0, 0, 1, 0, 0, 0, 2, 1, 3, 3, 7];
        let with = |at: usize, changed: &[u8]| {
            let mut bytes = linux;
            bytes[at..at + changed.len()].copy_from_slice(changed);
            bytes
        };
        let far = Options { window_scale: Some(14), ..LINUX_SYN };
        let (no_mss, no_sack) =
            (Options { mss: None, ..LINUX_SYN }, Options { sack_permitted: false, ..LINUX_SYN });
        let table: &[(&str, &[u8], bool, Options)] = &[
            ("none", &[], true, none),
            ("only NOPs", &[1; 40], true, none),
            ("timestamps, the common layout", &[&[1, 1], &T[..]].concat(), false, times),
            ("timestamps first", &[&T[..], &[1, 1]].concat(), false, times),
            (
                "timestamps and SACK",
                &[&[1, 1], &T[..], &[1, 1, 5, 10, 0, 0, 0, 1, 0, 0, 0, 2]].concat(),
                false,
                Options { sack: block, ..times },
            ),
            ("twelve bytes of something else", &[1, 1, 253, 10, 0, 0, 0, 1, 0, 0, 0, 2], false, none),
            ("MSS", &[2, 4, 5, 0xb4], true, Options { mss: Some(1460), ..none }),
            ("MSS of 0", &[2, 4, 0, 0], true, none),
            ("MSS without SYN", &[2, 4, 5, 0xb4], false, none),
            ("the largest shift", &[3, 3, 14], true, Options { window_scale: Some(14), ..none }),
            ("a shift too far", &[3, 3, 15], true, Options { window_scale: Some(14), ..none }),
            ("a shift far too far", &[3, 3, 255], true, Options { window_scale: Some(14), ..none }),
            ("a shift without SYN", &[3, 3, 7], false, none),
            ("SACK-permitted", &[4, 2], true, Options { sack_permitted: true, ..none }),
            ("SACK-permitted without SYN", &[4, 2], false, none),
            ("END stops", &[0, 2, 0, 0], true, none),
            ("END stops after MSS", &[2, 4, 5, 0xb4, 0, 3, 3, 7], true, Options { mss: Some(1460), ..none }),
            ("unknown, then MSS", &[254, 4, 9, 9, 2, 4, 5, 0xb4], true, Options { mss: Some(1460), ..none }),
            ("unknown without a value", &[254, 2, 4, 2], true, Options { sack_permitted: true, ..none }),
            ("a SYN of Linux's", &linux, true, LINUX_SYN),
            ("Linux's options without SYN", &linux, false, times),
            ("a SYN of Linux's with the largest shift", &with(19, &[14]), true, far),
            ("a SYN of Linux's with a shift too far", &with(19, &[15]), true, far),
            ("a SYN of Linux's with NOPs for its MSS", &with(0, &[1; 4]), true, no_mss),
            ("a SYN of Linux's with an MSS of 0", &with(2, &[0, 0]), true, no_mss),
            ("a SYN of Linux's with an unknown option", &with(4, &[254]), true, no_sack),
            ("unknown to the last byte", &[&[254, 40], &[0; 38][..]].concat(), true, none),
        ];
        for (name, bytes, is_syn, expected) in table {
            assert_eq!(parse(&padded(bytes), *is_syn), Ok(*expected), "{name}");
        }
    }

    #[test]
    fn bad_lengths() {
        let table: &[(&str, &[u8])] = &[
            ("0", &[254, 0, 0, 0]),
            ("1", &[254, 1, 0, 0]),
            ("one too many", &[254, 5, 0, 0]),
            ("255", &[254, 255, 0, 0]),
            ("no length", &[1, 1, 1, 254]),
            ("no value", &[1, 1, 2, 4]),
            ("MSS of 3", &[2, 3, 5, 0]),
            ("MSS of 2", &[2, 2, 5, 0]),
            ("window scale of 4", &[3, 4, 7, 0]),
            ("SACK-permitted of 3", &[4, 3, 0, 0]),
            ("timestamps of 9", &[1, 1, 8, 9, 0, 0, 0, 1, 0, 0, 0, 0]),
            ("timestamps of 11", &[1, 1, 8, 11, 0, 0, 0, 1, 0, 0, 0, 0]),
            ("timestamps of 0", &[1, 1, 8, 0, 0, 0, 0, 1, 0, 0, 0, 0]),
        ];
        for (name, bytes) in table {
            assert_eq!(parse(bytes, true), Err(DropReason::TcpOptions), "{name}");
            assert_eq!(parse(bytes, false), Err(DropReason::TcpOptions), "{name}, without SYN");
        }
    }

    #[test]
    fn sack_blocks_there_and_back() {
        for timestamps in [None, TIMES] {
            let mut options = Options { timestamps, ..Options::NONE };
            for block in 1..=3 {
                options.sack.push(SeqNum(block * 1000), SeqNum(block * 1000 + 500));
                let mut bytes = vec![0; Layout::of(&options).len()];
                Layout::of(&options).emit(&mut bytes, &options);
                assert!(bytes.len() <= 40);
                assert_eq!(parse(&bytes, false), Ok(options));
                assert_eq!(parse(&bytes, true).map(|options| options.sack.is_empty()), Ok(true));
            }
        }
        for bytes in [&[5, 2, 1, 1][..], &[5, 9, 0, 0, 0, 1, 0, 0, 0, 2, 1, 1]] {
            assert_eq!(parse(bytes, false), Err(DropReason::TcpOptions));
        }
    }

    #[test]
    fn laid_out_as_linux_does() {
        let all = LINUX_SYN;
        let table: &[(Options, &[u8])] = &[
            (all, &[2, 4, 5, 0xb4, 4, 2, 8, 10, 0, 0, 0, 1, 0, 0, 0, 2, 1, 3, 3, 7]),
            (Options { timestamps: None, ..all }, &[2, 4, 5, 0xb4, 1, 1, 4, 2, 1, 3, 3, 7]),
            (Options { timestamps: None, sack_permitted: false, ..all }, &[2, 4, 5, 0xb4, 1, 3, 3, 7]),
            (Options { timestamps: TIMES, ..Options::NONE }, &[1, 1, 8, 10, 0, 0, 0, 1, 0, 0, 0, 2]),
            (Options::NONE, &[]),
        ];
        for (options, bytes) in table {
            let mut got = vec![0xa5; Layout::of(options).len()];
            Layout::of(options).emit(&mut got, options);
            assert_eq!(got, *bytes, "{options:?}");
        }
    }
}
