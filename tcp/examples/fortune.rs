//! A service that only speaks: it sends one fixed line to every peer and closes.
//!
//! `cargo run --release --example fortune -- serve --interface IF --listen ADDR:PORT`

use std::error::Error;

use synmill::engine::service::{Memo, Pending, Service, Taken, Then};
use synmill::face::{cli, config::Serve, run};

/// The line. A connection's memo is the number of bytes that the peer has acknowledged.
#[derive(Clone)]
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

fn main() -> Result<(), Box<dyn Error>> {
    let cli::Command::Serve(options) = cli::parse(std::env::args_os())?.command else {
        return Err("this is a service: use the command `serve`".into());
    };
    let config = Serve::new(*options, |_| Ok::<_, String>(Fortune(b"A ship in harbour is safe.\n")))?;
    run::serve(&config)?;
    Ok(())
}

/// A connection by hand: the first ten bytes arrive, and the rest is lost and written again.
#[test]
fn what_is_lost_is_written_again() {
    let (service, mut memo) = (Fortune(b"A ship in harbour is safe.\n"), Memo::default());
    service.on_acked(&mut memo, 10);
    let mut again = vec![0; service.pending(&memo).bytes as usize];
    service.write(&memo, 0, &mut again);
    assert_eq!(again, b"harbour is safe.\n");
    service.on_acked(&mut memo, again.len() as u64);
    assert_eq!(service.pending(&memo), Pending { bytes: 0, then: Then::Close });
}
