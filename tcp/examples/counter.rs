//! A service that listens: it answers each line with the line's number.
//!
//! `cargo run --release --example counter -- serve --interface IF --listen ADDR:PORT`

use std::error::Error;

use synmill::engine::service::{Memo, Pending, Service, Taken, Then};
use synmill::face::{cli, config::Serve, run};

/// Length of each answer: seven digits and a line feed. So a position names its answer.
const ANSWER: u64 = 8;
/// Most bytes of unacknowledged answers, below 2^16. Further lines wait at the peer.
const OWED_MAX: u64 = 1000 * ANSWER;

#[derive(Clone)]
struct Counter;

/// Splits a memo into lines so far and bytes of unacknowledged answers.
fn unpack(memo: Memo) -> (u64, u64) {
    (memo.get() >> 16, memo.get() & 0xffff)
}

impl Service for Counter {
    fn on_data(&self, memo: &mut Memo, text: &[u8]) -> Taken {
        let (mut lines, mut owed) = unpack(*memo);
        let mut taken = text.len();
        for (i, _) in text.iter().enumerate().filter(|(_, byte)| **byte == b'\n') {
            if owed + ANSWER > OWED_MAX {
                taken = i;
                break;
            }
            (lines, owed) = (lines + 1, owed + ANSWER);
        }
        *memo = Memo::of(lines << 16 | owed);
        Taken::Bytes(taken)
    }

    fn on_acked(&self, memo: &mut Memo, bytes: u64) {
        *memo = Memo::of(memo.get() - bytes);
    }

    fn pending(&self, memo: &Memo) -> Pending {
        Pending { bytes: unpack(*memo).1, then: Then::CloseAfterPeer }
    }

    fn write(&self, memo: &Memo, at: u64, into: &mut [u8]) {
        let (lines, owed) = unpack(*memo);
        for (position, byte) in (lines * ANSWER - owed + at..).zip(into) {
            let digit = (ANSWER - 2).checked_sub(position % ANSWER);
            let number = position / ANSWER + 1;
            *byte = digit.map_or(b'\n', |digit| b'0' + (number / 10u64.pow(digit as u32) % 10) as u8);
        }
    }
}

fn main() -> Result<(), Box<dyn Error>> {
    let cli::Command::Serve(options) = cli::parse(std::env::args_os())?.command else {
        return Err("this is a service: use the command `serve`".into());
    };
    run::serve(&Serve::new(*options, |_| Ok::<_, String>(Counter))?)?;
    Ok(())
}

/// Returns the stream from the first unacknowledged byte on.
#[cfg(test)]
fn said(memo: Memo) -> String {
    let mut text = vec![0; Counter.pending(&memo).bytes as usize];
    Counter.write(&memo, 0, &mut text);
    String::from_utf8_lossy(&text).into_owned()
}

/// A connection by hand: three lines, an acknowledgement in the middle of an answer, and one more line.
#[test]
fn every_line_has_its_number() {
    let mut memo = Memo::default();
    assert_eq!(Counter.on_data(&mut memo, b"one\ntwo\nthree\nfo"), Taken::Bytes(16));
    assert_eq!(said(memo), "0000001\n0000002\n0000003\n");
    Counter.on_acked(&mut memo, 10);
    assert_eq!(said(memo), "00002\n0000003\n");
    Counter.on_data(&mut memo, b"ur\n");
    assert_eq!(said(memo), "00002\n0000003\n0000004\n");
    assert_eq!(Counter.on_data(&mut memo, &[b'\n'; 2000]), Taken::Bytes(997));
    Counter.on_acked(&mut memo, 8);
    assert_eq!(Counter.on_data(&mut memo, &[b'\n'; 1003]), Taken::Bytes(1));
}
