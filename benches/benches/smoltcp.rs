//! synmill's engine and smoltcp's on the same frames of the same client: 3 + 3 packets a connection, in memory, on one core.
//!
//! `cargo xtask bench smoltcp`. smoltcp has a fixed set of sockets and searches it for each packet, so the bench varies their number; all
//! but 64 hold a connection that stays. synmill holds 1000 connections. Both verify and write checksums. smoltcp's service answers any
//! text and reads no HTTP; its sockets listen again as soon as they are in TIME-WAIT.

use std::collections::VecDeque;
use std::time::Duration;

use anyhow::Result;
use smoltcp::iface::{Config, Interface, SocketSet};
use smoltcp::phy::{self, Device, DeviceCapabilities, Medium};
use smoltcp::socket::tcp::{Socket, SocketBuffer, State};
use smoltcp::wire::{EthernetAddress, IpAddress, IpCidr};
use synmill_benches::cores::pin_to_first;
use synmill_benches::engine::{
    self, Client, ENGINE, Engine, Family, PEER, Pace, RESPONSE, Responder, Rings as _, Setup, nanos_each,
};
use synmill_benches::rows::{self, Options, Row};
use synmill_benches::timing::Rounds;
use synmill_engine::time::Instant;

const BENCH: &str = "smoltcp";
/// The server's address, as the client knows it.
const SERVER: [u8; 4] = [198, 18, 0, 2];
/// The client's address. Its ports suffice for all names.
const CLIENT: [u8; 4] = [198, 19, 0, 0];
const NAMES: usize = 50_000;
/// Three batches are under way at a time, each at another stage.
const PACE: Pace = Pace { batch: 16, window: 16, step: Duration::from_micros(10) };
/// Sockets for these batches, and for TIME-WAIT until a batch ends.
const AT_WORK: usize = 64;
/// Bytes of a frame.
const FRAME: usize = 1514;

/// Frames by their way. The measured part allocates none.
#[derive(Default)]
struct Rings {
    free: Vec<Vec<u8>>,
    rx: VecDeque<Vec<u8>>,
    read: Vec<Vec<u8>>,
    tx: Vec<Vec<u8>>,
}

struct Received<'a> {
    frame: Vec<u8>,
    read: &'a mut Vec<Vec<u8>>,
}

impl phy::RxToken for Received<'_> {
    fn consume<R, F: FnOnce(&[u8]) -> R>(self, take: F) -> R {
        let taken = take(&self.frame);
        self.read.push(self.frame);
        taken
    }
}

struct Room<'a> {
    free: &'a mut Vec<Vec<u8>>,
    tx: &'a mut Vec<Vec<u8>>,
}

impl phy::TxToken for Room<'_> {
    fn consume<R, F: FnOnce(&mut [u8]) -> R>(self, len: usize, fill: F) -> R {
        let mut frame = self.free.pop().expect("a frame for each packet");
        frame.resize(len, 0);
        let filled = fill(&mut frame);
        self.tx.push(frame);
        filled
    }
}

impl Device for Rings {
    type RxToken<'a> = Received<'a>;
    type TxToken<'a> = Room<'a>;

    fn receive(&mut self, _now: smoltcp::time::Instant) -> Option<(Received<'_>, Room<'_>)> {
        let frame = self.rx.pop_front()?;
        Some((Received { frame, read: &mut self.read }, Room { free: &mut self.free, tx: &mut self.tx }))
    }

    fn transmit(&mut self, _now: smoltcp::time::Instant) -> Option<Room<'_>> {
        Some(Room { free: &mut self.free, tx: &mut self.tx })
    }

    fn capabilities(&self) -> DeviceCapabilities {
        let mut capabilities = DeviceCapabilities::default();
        capabilities.medium = Medium::Ethernet;
        capabilities.max_transmission_unit = FRAME;
        capabilities
    }
}

impl engine::Rings for Rings {
    fn deliver(&mut self, write: impl FnOnce(&mut [u8]) -> usize) -> bool {
        let Some(mut frame) = self.free.pop() else { return false };
        frame.resize(FRAME, 0);
        let len = write(&mut frame);
        frame.truncate(len);
        self.rx.push_back(frame);
        true
    }

    fn waiting(&self) -> usize {
        self.rx.len()
    }

    fn collect(&mut self, mut read: impl FnMut(&[u8])) {
        self.tx.iter().for_each(|frame| read(frame));
        self.free.append(&mut self.tx);
        self.free.append(&mut self.read);
    }
}

/// smoltcp as a responder.
struct Stack {
    rings: Rings,
    interface: Interface,
    sockets: SocketSet<'static>,
}

/// A constant clock for smoltcp's timestamps. The client echoes its own.
fn timestamp() -> u32 {
    77
}

impl Stack {
    fn new(sockets: usize) -> Self {
        let mut rings = Rings::default();
        rings.free.resize_with(1024, || Vec::with_capacity(FRAME));
        let mut config = Config::new(EthernetAddress(ENGINE).into());
        config.random_seed = 1;
        let mut interface = Interface::new(config, &mut rings, smoltcp::time::Instant::ZERO);
        let address = |[a, b, c, d]: [u8; 4]| IpAddress::v4(a, b, c, d);
        interface.update_ip_addrs(|addresses| {
            addresses.push(IpCidr::new(address(SERVER), 15)).expect("room for one address");
        });
        let mut set = SocketSet::new(Vec::with_capacity(sockets));
        for _ in 0..sockets {
            let buffer = || SocketBuffer::new(vec![0; 2048]);
            let mut socket = Socket::new(buffer(), buffer());
            socket.set_tsval_generator(Some(timestamp));
            socket.listen(80).expect("a port that is not 0");
            set.add(socket);
        }
        let mut stack = Self { rings, interface, sockets: set };
        stack.introduce();
        stack
    }

    /// Has the client ask for the server's Ethernet address, which tells the server the client's.
    fn introduce(&mut self) {
        let (ethernet, arp) = ([0x08, 0x06], [0, 1, 8, 0, 6, 4, 0, 1]);
        let request = [&[0xff; 6][..], &PEER, &ethernet, &arp, &PEER, &CLIENT, &[0; 6], &SERVER].concat();
        self.rings.deliver(|frame| {
            frame[..request.len()].copy_from_slice(&request);
            request.len()
        });
        self.turn(Instant::ZERO);
        let mut answers = 0;
        self.rings.collect(|_| answers += 1);
        assert_eq!(answers, 1, "an answer to ARP");
    }
}

impl Engine for Stack {
    type Rings = Rings;

    fn rings(&mut self) -> &mut Rings {
        &mut self.rings
    }

    fn turn(&mut self, now: Instant) {
        let now = smoltcp::time::Instant::from_micros((now.as_nanos() / 1000) as i64);
        self.interface.poll(now, &mut self.rings, &mut self.sockets);
        for (_, socket) in self.sockets.iter_mut() {
            let smoltcp::socket::Socket::Tcp(socket) = socket;
            if socket.can_recv() {
                socket.recv(|text| (text.len(), ())).expect("text to read");
                socket.send_slice(RESPONSE).expect("room for a response");
                socket.close();
            } else if socket.state() == State::TimeWait {
                socket.listen(80).expect("a port that is not 0");
            }
        }
        self.interface.poll(now, &mut self.rings, &mut self.sockets);
    }
}

fn main() -> Result<()> {
    let options = Options::of_process();
    let (round, count) = if options.quick { (5000, 3) } else { (50_000, 9) };
    pin_to_first()?;
    let mut responder = Responder::new(Setup::of(Family::V4, 1000));
    responder.fill();
    responder.warm();
    let synmill = Rounds::of(count, || nanos_each(&mut responder, round));
    responder.check();
    let mut found = vec![synmill.row(BENCH, "synmill", "connection")];
    for sockets in [64, 256, 1024] {
        let setup = Setup { family: Family::V4, resident: sockets - AT_WORK, spare: AT_WORK };
        let client = Client::new(Family::V4, 0, setup.resident, NAMES);
        let mut stack = Responder::of(Stack::new(sockets), client, setup).paced(PACE);
        stack.fill();
        nanos_each(&mut stack, 10 * PACE.batch);
        let rounds = Rounds::of(count, || nanos_each(&mut stack, round));
        let row = rounds.row(BENCH, &format!("smoltcp/{sockets}-sockets"), "connection");
        let times = row.value / found[0].value;
        found.push(row);
        found.push(Row::new(BENCH, format!("smoltcp/{sockets}-sockets-by-synmill"), times, "ratio"));
    }
    rows::write(&options, &found)
}
