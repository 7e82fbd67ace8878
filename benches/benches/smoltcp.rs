//! synmill's engine and smoltcp's on the same frames of the same client: 3 + 3 packets a connection, in memory, on one core.
//!
//! `cargo xtask bench smoltcp`. smoltcp has a fixed set of sockets and looks through it for each packet, so it is measured by their
//! number; all but 64 hold a connection that stays. synmill beside it holds 1000. Both verify and write checksums. smoltcp's service
//! answers any text and reads no HTTP; its sockets listen again as soon as they are in TIME-WAIT.

use std::collections::VecDeque;
use std::time::Duration;

use anyhow::Result;
use smoltcp::iface::{Config, Interface, SocketSet};
use smoltcp::phy::{self, Device, DeviceCapabilities, Medium};
use smoltcp::socket::tcp::{Socket, SocketBuffer, State};
use smoltcp::wire::{EthernetAddress, IpAddress, IpCidr};
use synmill_benches::engine::{
    Batches, Client, ENGINE, Family, PEER, RESPONSE, Responder, Setup, nanos_each,
};
use synmill_benches::rows::{self, Options, Row};
use synmill_benches::timing::{Rounds, pin};
use synmill_engine::time::Instant;

const BENCH: &str = "smoltcp";
/// As the client has it.
const SERVER: [u8; 4] = [198, 18, 0, 2];
/// The client's address, whose ports are enough for all of its connections.
const CLIENT: [u8; 4] = [198, 19, 0, 0];
const NAMES: usize = 50_000;
/// Connections in a batch. Three batches are under way at a time, each at another stage.
const BATCH: u64 = 16;
/// Sockets for them, and for what is in TIME-WAIT until the batch is over.
const AT_WORK: usize = 64;
const STEP: Duration = Duration::from_micros(10);
/// Bytes of a frame.
const FRAME: usize = 1514;

/// Frames by the way they go. None is allocated while it is measured.
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

/// smoltcp as a responder, and the client.
struct Stack {
    rings: Rings,
    interface: Interface,
    sockets: SocketSet<'static>,
    client: Client,
    resident: u64,
    /// The next connection to be opened.
    next: u64,
    now: Instant,
}

/// The present in a unit that smoltcp's timestamps can have. The client echoes its own.
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
        let resident = sockets - AT_WORK;
        let client = Client::new(Family::V4, 0, resident, NAMES);
        let resident = resident as u64;
        let mut stack =
            Self { rings, interface, sockets: set, client, resident, next: 0, now: Instant::ZERO };
        stack.introduce();
        while stack.next < resident {
            stack.open_one();
        }
        stack
    }

    /// The client asks for the server's Ethernet address, and so tells its own.
    fn introduce(&mut self) {
        let mut frame = self.rings.free.pop().expect("frames are free at the start");
        let (ethernet, arp) = ([0x08, 0x06], [0, 1, 8, 0, 6, 4, 0, 1]);
        for bytes in [&[0xff; 6][..], &PEER, &ethernet, &arp, &PEER, &CLIENT, &[0; 6], &SERVER] {
            frame.extend_from_slice(bytes);
        }
        self.rings.rx.push_back(frame);
        self.turn();
        assert_eq!(self.rings.tx.len(), 1, "an answer to ARP");
        self.rings.free.append(&mut self.rings.tx);
    }

    /// Opens a connection that stays.
    fn open_one(&mut self) {
        let number = self.next;
        self.put(|client, now, frame| client.syn(number, now, frame));
        self.turn();
        self.hear();
        self.put(|client, now, frame| client.ack(number, now, frame));
        self.turn();
        self.hear();
        self.next += 1;
    }

    fn hear(&mut self) {
        for frame in &self.rings.tx {
            self.client.hear(frame);
        }
        self.rings.free.append(&mut self.rings.tx);
        self.rings.free.append(&mut self.rings.read);
    }

    fn put(&mut self, write: impl FnOnce(&Client, Instant, &mut [u8]) -> usize) {
        let mut frame = self.rings.free.pop().expect("a frame for each packet");
        frame.resize(FRAME, 0);
        let len = write(&self.client, self.now, &mut frame);
        frame.truncate(len);
        self.rings.rx.push_back(frame);
    }
}

impl Batches for Stack {
    fn prepare(&mut self) {
        self.now = self.now + STEP;
        let first = self.resident;
        for number in self.next..self.next + BATCH {
            self.put(|client, now, frame| client.syn(number, now, frame));
            if let Some(number) = number.checked_sub(BATCH).filter(|number| *number >= first) {
                self.put(|client, now, frame| client.request(number, now, frame));
            }
            if let Some(number) = number.checked_sub(2 * BATCH).filter(|number| *number >= first) {
                self.put(|client, now, frame| client.fin(number, now, frame));
            }
        }
        self.next += BATCH;
    }

    fn turn(&mut self) {
        let now = smoltcp::time::Instant::from_micros((self.now.as_nanos() / 1000) as i64);
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

    fn collect(&mut self) -> u64 {
        let before = self.client.heard();
        self.hear();
        let heard = self.client.heard();
        let stages = [0, 1, 2].map(|stage| u64::from(self.next > self.resident + stage * BATCH));
        let packets = stages.iter().sum::<u64>() * BATCH;
        assert_eq!(heard.packets - before.packets, packets, "one answer for each packet");
        assert_eq!(heard.texts - before.texts, stages[1] * BATCH, "a response for each request");
        BATCH
    }
}

fn main() -> Result<()> {
    let options = Options::of_process();
    let (round, count) = if options.quick { (5000, 3) } else { (50_000, 9) };
    pin(0)?;
    let mut responder = Responder::new(Setup::of(Family::V4, 1000));
    responder.fill();
    responder.warm();
    let synmill = Rounds::of(count, || nanos_each(&mut responder, round));
    responder.check();
    let mut found = vec![synmill.row(BENCH, "synmill", "connection")];
    for sockets in [64, 256, 1024] {
        let mut stack = Stack::new(sockets);
        nanos_each(&mut stack, 10 * BATCH);
        let rounds = Rounds::of(count, || nanos_each(&mut stack, round));
        let row = rounds.row(BENCH, &format!("smoltcp/{sockets}-sockets"), "connection");
        let times = row.value / found[0].value;
        found.push(row);
        found.push(Row::new(BENCH, format!("smoltcp/{sockets}-sockets-by-synmill"), times, "ratio"));
    }
    rows::write(&options, &found)
}
