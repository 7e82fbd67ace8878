//! The XDP program: knows headers up to the ports and whose they are; never connections.
//!
//! A packet that is ours goes to its queue's AF_XDP socket, every other one to the kernel. In doubt it is the kernel's.
#![no_std]
#![no_main]
#![expect(
    unsafe_code,
    reason = "packets and maps are raw memory to a BPF program; the verifier checks every access"
)]

mod headers;

use aya_ebpf::Global;
use aya_ebpf::bindings::xdp_action;
use aya_ebpf::helpers::generated::bpf_xdp_get_buff_len;
use aya_ebpf::macros::{map, xdp};
use aya_ebpf::maps::lpm_trie::{Key, LpmTrie};
use aya_ebpf::maps::{HashMap, PerCpuArray, XskMap};
use aya_ebpf::programs::XdpContext;
use headers::Asks;
use synmill_xdp_ebpf::{
    Address, ListenerKey, MAX_LISTENERS, MAX_OWNED, MAX_QUEUES, Outcome, Station, is_group,
};

#[map]
static LISTENERS: HashMap<ListenerKey, u8> = HashMap::with_max_entries(MAX_LISTENERS, 0);

#[map]
static OWNED: LpmTrie<Address, u8> = LpmTrie::with_max_entries(MAX_OWNED, 0);

#[map]
static XSKS: XskMap = XskMap::with_max_entries(MAX_QUEUES, 0);

#[map]
static OUTCOMES: PerCpuArray<u64> = PerCpuArray::with_max_entries(Outcome::ALL.len() as u32, 0);

/// The interface's own address; the loader writes it, and from then on it never changes.
#[unsafe(no_mangle)]
static MAC: Global<Station> = Global::new([0; 3]);

/// Which sources this object was built from; `cargo xtask ebpf --check` looks for it.
#[used]
#[unsafe(link_section = "synmill.sources")]
static SOURCES: [u8; env!("SYNMILL_EBPF_SOURCES").len()] = {
    let mut octets = [0; env!("SYNMILL_EBPF_SOURCES").len()];
    octets.copy_from_slice(env!("SYNMILL_EBPF_SOURCES").as_bytes());
    octets
};

#[used]
#[unsafe(link_section = "license")]
static LICENSE: [u8; 18] = *b"MIT OR Apache-2.0\0";

/// For packets that lie in one buffer each: every driver with XDP takes it.
#[xdp]
#[expect(clippy::needless_pass_by_value, reason = "the xdp attribute hands the context over by value")]
fn steer(ctx: XdpContext) -> u32 {
    take(&ctx, 0)
}

/// For packets of several buffers, of which it sees the first.
#[xdp(frags)]
#[expect(clippy::needless_pass_by_value, reason = "the xdp attribute hands the context over by value")]
fn steer_frags(ctx: XdpContext) -> u32 {
    // SAFETY: the context is the program's own.
    let len = unsafe { bpf_xdp_get_buff_len(ctx.ctx) } as usize;
    take(&ctx, len.saturating_sub(ctx.data_end() - ctx.data()))
}

/// Steers one packet, of which so many octets lie beyond its first buffer, and counts what became of it.
#[inline(always)]
fn take(ctx: &XdpContext, beyond: usize) -> u32 {
    let mut outcome = match headers::parse(ctx.data(), ctx.data_end(), beyond) {
        Ok((station, asks)) => decide(station, asks),
        Err(outcome) => outcome,
    };
    let mut action = xdp_action::XDP_PASS;
    if outcome.is_steered() {
        // The flags are the action for a queue without a socket.
        match XSKS.redirect(ctx.rx_queue_index(), u64::from(xdp_action::XDP_PASS)) {
            Ok(redirect) => action = redirect,
            Err(_) => outcome = Outcome::PassedNoSocket,
        }
    }
    if let Some(count) = OUTCOMES.get_ptr_mut(outcome as u32) {
        // SAFETY: the lookup returned this CPU's own element; XDP programs do not nest on a CPU.
        unsafe { *count += 1 };
    }
    action
}

/// Is what the packet asks for ours? A frame for another station never is: an interface sees them when it is promiscuous or a
/// bridge's port, and addresses and ports alone do not tell them from ours.
#[inline(always)]
fn decide(station: Station, asks: Asks) -> Outcome {
    let may_ask_a_group = matches!(asks, Asks::Neighbour { .. });
    if station != MAC.load() && !(may_ask_a_group && is_group(station)) {
        return Outcome::PassedOtherMac;
    }
    let (is_ours, steered) = match asks {
        Asks::Tcp { to, port, is_v4 } => {
            // The unspecified address of its family, mapped or not.
            let any = [0, 0, 0, 0, 0, if is_v4 { 0xffff } else { 0 }, 0, 0];
            let is_ours = listens(to, port) || listens(any, port) || owns(to);
            (is_ours, Outcome::TcpSteered)
        }
        Asks::Neighbour { target } => (owns(target), Outcome::NeighbourSteered),
        Asks::Echo { to } => (owns(to), Outcome::EchoSteered),
        Asks::Error { to } => (owns(to), Outcome::ErrorSteered),
    };
    if is_ours { steered } else { Outcome::PassedNotOurs }
}

#[inline(always)]
fn listens(address: Address, port: u16) -> bool {
    LISTENERS.get_ptr(ListenerKey::new(address, port)).is_some()
}

#[inline(always)]
fn owns(address: Address) -> bool {
    OWNED.get(Key::new(128, address)).is_some()
}

/// The verifier rejects a program that could loop; nothing here panics, so the linker drops this.
#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    loop {}
}
