//! The XDP program from user space: loads and attaches it and fills its maps. Knows interfaces, queues and maps; never TCP's rules.
//!
//! The program hangs on a `bpf_link` that is never pinned: when the process ends, by kill -9 too, the interface is as it was.

mod error;

use std::os::fd::{AsRawFd as _, BorrowedFd};

use aya::maps::lpm_trie::{Key, LpmTrie};
use aya::maps::{HashMap, Map, MapData, PerCpuArray, XskMap};
use aya::programs::xdp::XdpLinkId;
use aya::programs::{TestRun as _, TestRunOptions, Xdp, XdpMode, loaded_programs};
use aya::util::KernelVersion;
use aya::{Ebpf, EbpfLoader};
use synmill_xdp_ebpf::{
    LISTENERS, ListenerKey, MAC, MAX_LISTENERS, MAX_OWNED, MAX_QUEUES, OUTCOMES, OWNED, Outcome, PROGRAM,
    PROGRAM_FRAGS, XSKS,
};

pub use error::SteerError;

use crate::host::preflight::Holder;
use synmill_engine::device::Buffers;
use synmill_engine::flow::{Address, Prefix};
use synmill_engine::wire::Mac;

/// The first kernel with `bpf_link` for XDP; an older one would leave the program behind after kill -9.
const OLDEST_KERNEL: KernelVersion = KernelVersion::new(5, 9, 0);

/// The committed object.
static OBJECT: &[u8] = aya::include_bytes_aligned!("../../../../xdp-ebpf/object/steer.bpf.o");

/// Where the program runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AttachMode {
    /// In the driver, before the kernel makes a packet of it: native XDP.
    Driver,
    /// In the network stack: generic XDP, which every interface has.
    Skb,
}

/// The program in the kernel, with its maps. Dropping it detaches and unloads it.
pub struct Steer {
    ebpf: Ebpf,
    program: &'static str,
    listeners: HashMap<MapData, [u8; ListenerKey::LEN], u8>,
    owned: LpmTrie<MapData, [u8; 16], u8>,
    sockets: XskMap<MapData>,
    outcomes: PerCpuArray<MapData, u64>,
    link: Option<XdpLinkId>,
}

impl Steer {
    /// Loads `object`, or else the one that is part of this program, for an interface whose Ethernet address is `mac` (frames
    /// for other stations are never ours), and whose packets lie in `buffers`. Nothing is attached yet.
    ///
    /// # Errors
    /// [`SteerError::Permission`], [`SteerError::KernelTooOld`], [`SteerError::OneBuffer`], [`SteerError::Object`].
    pub fn load(mac: Mac, buffers: Buffers, object: Option<&[u8]>) -> Result<Self, SteerError> {
        let kernel = KernelVersion::current().unwrap_or(OLDEST_KERNEL);
        if kernel < OLDEST_KERNEL {
            return Err(SteerError::KernelTooOld);
        }
        let mut ebpf = EbpfLoader::new()
            .override_global(MAC, mac.as_slice(), true)
            .load(object.unwrap_or(OBJECT))
            .map_err(SteerError::from_load)?;
        let name = match buffers {
            Buffers::One => PROGRAM,
            Buffers::Several => PROGRAM_FRAGS,
        };
        program(&mut ebpf, name)?.load().map_err(|error| SteerError::from_load_for(buffers, error))?;
        Ok(Self {
            listeners: take(&mut ebpf, LISTENERS)?,
            owned: take(&mut ebpf, OWNED)?,
            sockets: take(&mut ebpf, XSKS)?,
            outcomes: take(&mut ebpf, OUTCOMES)?,
            ebpf,
            program: name,
            link: None,
        })
    }

    /// From now on TCP to `address` and `port` is ours; the unspecified address stands for every one of its family.
    ///
    /// # Errors
    /// [`SteerError::Map`], when there are [`MAX_LISTENERS`] already, too.
    pub fn add_listener(&mut self, address: Address, port: u16) -> Result<(), SteerError> {
        self.listeners
            .insert(ListenerKey::octets(address.octets(), port), 0, 0)
            .map_err(|error| SteerError::from_map(LISTENERS, MAX_LISTENERS, &error))
    }

    /// From now on these addresses are ones that only we have: their TCP on any port, address resolution, echo requests and
    /// unreachable destinations are ours.
    ///
    /// # Errors
    /// [`SteerError::Map`], when there are [`MAX_OWNED`] already, too.
    pub fn add_owned(&mut self, owned: Prefix) -> Result<(), SteerError> {
        let key = Key::new(owned.mapped_len().into(), owned.first().octets());
        self.owned.insert(&key, 0, 0).map_err(|error| SteerError::from_map(OWNED, MAX_OWNED, &error))
    }

    /// From now on what is ours and arrives on `queue` goes to this AF_XDP socket; it has to have its rings.
    ///
    /// # Errors
    /// [`SteerError::Map`], when `queue` is [`MAX_QUEUES`] or above, too.
    pub fn set_socket(&mut self, queue: u32, socket: BorrowedFd<'_>) -> Result<(), SteerError> {
        self.sockets
            .set(queue, socket.as_raw_fd(), 0)
            .map_err(|error| SteerError::from_map(XSKS, MAX_QUEUES, &error))
    }

    /// Attaches to an interface of this network namespace; what was attached before is detached.
    ///
    /// # Errors
    /// Why the kernel refused, as far as its number tells: see [`SteerError`].
    pub fn attach(&mut self, interface: &str, mode: AttachMode) -> Result<(), SteerError> {
        self.detach();
        if interface.contains('\0') {
            return Err(SteerError::UnknownInterface { interface: interface.replace('\0', "?") });
        }
        let xdp_mode = match mode {
            AttachMode::Driver => XdpMode::Driver,
            AttachMode::Skb => XdpMode::Skb,
        };
        let link = program(&mut self.ebpf, self.program)?
            .attach(interface, xdp_mode)
            .map_err(|error| SteerError::from_attach(interface, &error))?;
        self.link = Some(link);
        Ok(())
    }

    /// Detaches, if it is attached. Cannot fail: the link is closed, and an interface that is gone has no program.
    pub fn detach(&mut self) {
        if let (Some(link), Ok(program)) = (self.link.take(), program(&mut self.ebpf, self.program)) {
            // The only error there is, is a link that is not this program's.
            let _ = program.detach(link);
        }
    }

    /// How many packets ended in which way since the program was loaded, summed over processors: each packet counts once.
    ///
    /// # Errors
    /// [`SteerError::Map`].
    pub fn counts(&self) -> Result<impl Iterator<Item = (&'static str, u64)> + use<>, SteerError> {
        let mut counts = [("", 0); Outcome::ALL.len()];
        for (index, (outcome, count)) in (0..).zip(Outcome::ALL.into_iter().zip(&mut counts)) {
            let per_cpu = self
                .outcomes
                .get(&index, 0)
                .map_err(|error| SteerError::from_map(OUTCOMES, Outcome::ALL.len() as u32, &error))?;
            *count = (outcome.name(), per_cpu.iter().sum());
        }
        Ok(counts.into_iter())
    }

    /// Runs the program on `packet` (from 14 octets to about a page, or more with [`Buffers::Several`]) without any interface, as if on
    /// queue 0; the XDP action.
    ///
    /// # Errors
    /// [`SteerError::TestRun`].
    pub fn test_run(&mut self, packet: &[u8]) -> Result<u32, SteerError> {
        let options = TestRunOptions { data_in: Some(packet), ..TestRunOptions::new() };
        let result = program(&mut self.ebpf, self.program)?.test_run(options);
        Ok(result.map_err(SteerError::TestRun)?.return_value)
    }
}

/// What the kernel tells of the program with this identifier: nothing without CAP_SYS_ADMIN.
#[must_use]
pub fn holder(id: u32) -> Holder {
    let program = loaded_programs().flatten().find(|program| program.id() == id);
    let name = program.and_then(|program| program.name_as_str().map(str::to_owned));
    Holder { id: Some(id), name: name.filter(|name| !name.is_empty()) }
}

/// The XDP program of this name in an object.
fn program<'a>(ebpf: &'a mut Ebpf, name: &'static str) -> Result<&'a mut Xdp, SteerError> {
    let program = ebpf.program_mut(name).ok_or(SteerError::Incomplete { name })?;
    program.try_into().map_err(|_| SteerError::Incomplete { name })
}

/// Takes a map out of an object, as the type that the contract says.
fn take<M: TryFrom<Map>>(ebpf: &mut Ebpf, name: &'static str) -> Result<M, SteerError> {
    let map = ebpf.take_map(name).ok_or(SteerError::Incomplete { name })?;
    M::try_from(map).map_err(|_| SteerError::Incomplete { name })
}
