//! The XDP program from user space: loads it, attaches it and fills its maps.
//!
//! The program is attached by a `bpf_link` that is never pinned. When the process ends, by kill -9 too, the interface is as it was.

mod error;
mod holder;

use std::os::fd::{AsRawFd as _, BorrowedFd};

use aya::maps::lpm_trie::{Key, LpmTrie};
use aya::maps::{HashMap, Map, MapData, PerCpuArray, XskMap};
use aya::programs::xdp::XdpLinkId;
use aya::programs::{TestRun as _, TestRunOptions, Xdp, XdpMode};
use aya::util::KernelVersion;
use aya::{Ebpf, EbpfLoader};
use synmill_engine::device::Buffers;
use synmill_engine::flow::{Address, Prefix};
use synmill_engine::wire::Mac;
use synmill_xdp_ebpf::{
    LISTENERS, ListenerKey, MAC, MAX_LISTENERS, MAX_OWNED, MAX_QUEUES, OUTCOMES, OWNED, Outcome, PROGRAM,
    PROGRAM_FRAGS, XSKS,
};

use super::Error;

pub use holder::Holder;

/// The first kernel with `bpf_link` for XDP. An older one would leave the program attached after kill -9.
const OLDEST_KERNEL: KernelVersion = KernelVersion::new(5, 9, 0);

/// The committed object.
static OBJECT: &[u8] = aya::include_bytes_aligned!("../../../../xdp-ebpf/object/steer.bpf.o");

/// Where the kernel runs the program.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AttachMode {
    /// In the driver, before the kernel makes a packet of a frame: native XDP.
    Driver,
    /// In the network stack: generic XDP, which every interface has.
    Skb,
}

/// The program in the kernel, with its maps. Dropping it detaches and unloads it.
pub struct Program {
    ebpf: Ebpf,
    name: &'static str,
    listeners: HashMap<MapData, [u8; ListenerKey::LEN], u8>,
    owned: LpmTrie<MapData, [u8; 16], u8>,
    sockets: XskMap<MapData>,
    outcomes: PerCpuArray<MapData, u64>,
    link: Option<XdpLinkId>,
}

impl Program {
    /// Loads `object`, or else the committed one, for an interface with the Ethernet address `mac` whose packets lie in `buffers`.
    /// Attaches nothing yet. The program steers no frame for another station.
    ///
    /// # Errors
    /// The process may not load it, the kernel is too old, or it refuses the object.
    pub fn load(mac: Mac, buffers: Buffers, object: Option<&[u8]>) -> Result<Self, Error> {
        let kernel = KernelVersion::current().unwrap_or(OLDEST_KERNEL);
        if kernel < OLDEST_KERNEL {
            return Err("this kernel has no bpf_link for XDP: Linux 5.9 or newer is needed".into());
        }
        let mut ebpf = EbpfLoader::new()
            .override_global(MAC, mac.as_slice(), true)
            .load(object.unwrap_or(OBJECT))
            .map_err(|error| error::of_load(&error))?;
        let name = match buffers {
            Buffers::One => PROGRAM,
            Buffers::Several => PROGRAM_FRAGS,
        };
        program(&mut ebpf, name)?.load().map_err(|error| error::of_load_for(buffers, &error))?;
        Ok(Self {
            listeners: take(&mut ebpf, LISTENERS)?,
            owned: take(&mut ebpf, OWNED)?,
            sockets: take(&mut ebpf, XSKS)?,
            outcomes: take(&mut ebpf, OUTCOMES)?,
            ebpf,
            name,
            link: None,
        })
    }

    /// Steers TCP to `address` and `port` from now on. The unspecified address stands for every address of its family.
    ///
    /// # Errors
    /// The map refuses the entry, for example because it has [`MAX_LISTENERS`] already.
    pub fn add_listener(&mut self, address: Address, port: u16) -> Result<(), Error> {
        self.listeners
            .insert(ListenerKey::octets(address.octets(), port), 0, 0)
            .map_err(|error| error::of_map(LISTENERS, MAX_LISTENERS, &error))
    }

    /// Takes these addresses for ones that only synmill has. The program steers their TCP on any port, address resolution, echo
    /// requests and unreachable destinations from now on.
    ///
    /// # Errors
    /// The map refuses the entry, for example because it has [`MAX_OWNED`] already.
    pub fn add_owned(&mut self, owned: Prefix) -> Result<(), Error> {
        let key = Key::new(owned.mapped_len().into(), owned.first().octets());
        self.owned.insert(&key, 0, 0).map_err(|error| error::of_map(OWNED, MAX_OWNED, &error))
    }

    /// Gives steered frames of `queue` to this AF_XDP socket from now on. The socket must have its rings.
    ///
    /// # Errors
    /// The map refuses the entry, for example because `queue` is [`MAX_QUEUES`] or above.
    pub fn set_socket(&mut self, queue: u32, socket: BorrowedFd<'_>) -> Result<(), Error> {
        self.sockets
            .set(queue, socket.as_raw_fd(), 0)
            .map_err(|error| error::of_map(XSKS, MAX_QUEUES, &error))
    }

    /// Attaches the program to an interface of this network namespace, after detaching it from any other.
    ///
    /// # Errors
    /// The kernel refuses, for a reason that the line names as far as the kernel's number tells.
    pub fn attach(&mut self, interface: &str, mode: AttachMode) -> Result<(), Error> {
        self.detach();
        if interface.contains('\0') {
            return Err(error::unknown_interface(&interface.replace('\0', "?")));
        }
        let xdp_mode = match mode {
            AttachMode::Driver => XdpMode::Driver,
            AttachMode::Skb => XdpMode::Skb,
        };
        let link = program(&mut self.ebpf, self.name)?
            .attach(interface, xdp_mode)
            .map_err(|error| error::of_attach(interface, &error))?;
        self.link = Some(link);
        Ok(())
    }

    /// Detaches the program if it is attached.
    pub fn detach(&mut self) {
        if let (Some(link), Ok(program)) = (self.link.take(), program(&mut self.ebpf, self.name)) {
            // The one possible error is a link of another program.
            let _ = program.detach(link);
        }
    }

    /// Returns each outcome's name and the number of packets with that outcome since the load, summed over CPUs. Each packet counts
    /// once.
    ///
    /// # Errors
    /// The map gives no value.
    pub fn counts(&self) -> Result<Vec<(&'static str, u64)>, Error> {
        let count = |(index, outcome): (u32, Outcome)| {
            let per_cpu = self.outcomes.get(&index, 0);
            let per_cpu =
                per_cpu.map_err(|error| error::of_map(OUTCOMES, Outcome::ALL.len() as u32, &error))?;
            Ok((outcome.name(), per_cpu.iter().sum()))
        };
        (0..).zip(Outcome::ALL).map(count).collect()
    }

    /// Runs the program on `packet` as if it came to queue 0, without any interface. Returns the XDP action. The packet has 14 octets
    /// to about a page, or more with [`Buffers::Several`].
    ///
    /// # Errors
    /// The kernel does not run the program.
    pub fn test_run(&mut self, packet: &[u8]) -> Result<u32, Error> {
        let options = TestRunOptions { data_in: Some(packet), ..TestRunOptions::new() };
        let result = program(&mut self.ebpf, self.name)?.test_run(options);
        Ok(result.map_err(|error| error::of_test_run(&error))?.return_value)
    }
}

/// Returns the XDP program of this name in an object.
fn program<'a>(ebpf: &'a mut Ebpf, name: &'static str) -> Result<&'a mut Xdp, Error> {
    let program = ebpf.program_mut(name).ok_or_else(|| error::incomplete(name))?;
    program.try_into().map_err(|_| error::incomplete(name))
}

/// Takes a map out of an object.
fn take<M: TryFrom<Map>>(ebpf: &mut Ebpf, name: &'static str) -> Result<M, Error> {
    let map = ebpf.take_map(name).ok_or_else(|| error::incomplete(name))?;
    M::try_from(map).map_err(|_| error::incomplete(name))
}
