//! A service of one's own that only speaks: sends one fixed line to everybody and closes. Knows its line; never what the
//! peer says.

use synmill::service::{Memo, Pending, Service, Taken, Then};

/// The line. A connection's memo is the number of its bytes that the peer has acknowledged.
struct Fortune(&'static [u8]);

impl Service for Fortune {
    fn on_data(&self, _memo: &mut Memo, text: &[u8]) -> Taken {
        Taken::Bytes(text.len())
    }

    fn on_acked(&self, memo: &mut Memo, bytes: u64) {
        *memo = Memo::of(memo.get() + bytes);
    }

    fn pending(&self, memo: &Memo) -> Pending {
        Pending { bytes: self.0.len() as u64 - memo.get(), then: Then::Close }
    }

    fn write(&self, memo: &Memo, at: u64, into: &mut [u8]) {
        let from = (memo.get() + at) as usize;
        into.copy_from_slice(&self.0[from..from + into.len()]);
    }
}

/// Plays one connection by hand: the first ten bytes arrive, the rest is lost and written again.
fn main() {
    let (service, mut memo) = (Fortune(b"A ship in harbour is safe.\n"), Memo::default());
    service.on_open(&mut memo);
    let mut line = vec![0; service.pending(&memo).bytes as usize];
    service.write(&memo, 0, &mut line);
    service.on_acked(&mut memo, 10);
    let mut again = vec![0; service.pending(&memo).bytes as usize];
    service.write(&memo, 0, &mut again);
    assert_eq!(again, &line[10..]);
    service.on_acked(&mut memo, again.len() as u64);
    assert_eq!(service.pending(&memo), Pending { bytes: 0, then: Then::Close });
    print!("{}", String::from_utf8_lossy(&line));
}
