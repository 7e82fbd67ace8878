//! Attaching the program in a network namespace of the test's own, and the kernel's refusals. Needs root.

use std::process::Command;

use nix::sched::{CloneFlags, unshare};
use synmill::host::program::AttachMode;
use synmill_engine::device::Buffers;

use crate::load;

/// Moves this thread, and the processes that it starts, into a network namespace that ends with the thread.
fn enter_own_namespace() {
    unshare(CloneFlags::CLONE_NEWNET).expect("these tests need root");
}

/// Runs a command in this thread's namespace. Returns its output.
#[track_caller]
fn run(line: &str) -> String {
    let mut words = line.split(' ');
    let name = words.next().unwrap();
    let output = Command::new(name)
        .args(words)
        .output()
        .unwrap_or_else(|error| panic!("these tests need ip (iproute2) and ethtool: {name}: {error}"));
    assert!(output.status.success(), "{line}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn attaches_and_leaves_nothing_behind() {
    enter_own_namespace();
    run("ip link add ebpf0 type veth peer name ebpf1");
    for (mode, shown) in [(AttachMode::Driver, " xdp "), (AttachMode::Skb, " xdpgeneric ")] {
        let mut program = load(Buffers::One);
        program.attach("ebpf0", mode).unwrap();
        let link = run("ip -details link show dev ebpf0");
        assert!(link.contains(shown), "{mode:?}: {link}");
        assert!(link.contains("name steer"), "{link}");

        // By link: only its holder can detach the program.
        let mut second = load(Buffers::One);
        for mode in [AttachMode::Driver, AttachMode::Skb] {
            let error = second.attach("ebpf0", mode).unwrap_err();
            let line = error.to_string();
            let ours = "ebpf0 is taken by another synmill serve or bench (XDP program ";
            let id = line.strip_prefix(ours).and_then(|rest| rest.split_once(')')).expect(&line).0;
            assert!(link.contains(&format!("prog/xdp id {id}")), "{line}: {link}");
        }
        program.detach();
        second.attach("ebpf0", mode).unwrap();
        drop(second);
        let link = run("ip -details link show dev ebpf0");
        assert!(!link.contains("xdp"), "{link}");
    }
}

#[test]
fn refusals_say_what_to_do() {
    enter_own_namespace();
    run("ip link add ebpf0 mtu 9000 type veth peer name ebpf1 mtu 9000");
    let mut program = load(Buffers::One);
    let error = program.attach("ebpf0", AttachMode::Driver).unwrap_err();
    assert_eq!(
        error.to_string(),
        "the MTU of ebpf0 (9000), or of its peer if it is a veth, is too large for XDP in its driver: `ip link set dev ebpf0 \
         mtu 1500`, on both ends of a veth, which takes at most 3506 (pages of 4096 octets)"
    );
    run("ip link set dev ebpf0 mtu 3507");
    run("ip link set dev ebpf1 mtu 3507");
    let error = program.attach("ebpf0", AttachMode::Driver).unwrap_err();
    assert!(error.to_string().starts_with("the MTU of ebpf0 (3507), or of its peer"), "{error}");
    let mut several = load(Buffers::Several);
    several.attach("ebpf0", AttachMode::Driver).unwrap();
    drop(several);
    run("ip link set dev ebpf0 mtu 3506");
    run("ip link set dev ebpf1 mtu 3506");
    program.attach("ebpf0", AttachMode::Driver).unwrap();
    program.detach();

    let error = program.attach("ebpf9", AttachMode::Driver).unwrap_err();
    assert_eq!(error.to_string(), "there is no interface ebpf9 here: `ip -brief link` lists those there are");

    // A bridge has no native XDP.
    run("ip link add ebpf2 type bridge");
    let error = program.attach("ebpf2", AttachMode::Driver).unwrap_err();
    assert!(error.is_of_mode(), "{error}");
    assert!(error.to_string().starts_with("the driver of ebpf2 has no native XDP"), "{error}");
    program.attach("ebpf2", AttachMode::Skb).unwrap();

    // A veth with fewer receive queues than its peer has transmit queues.
    run("ip link add ebpf3 numrxqueues 1 type veth peer name ebpf4 numtxqueues 2");
    run("ethtool -L ebpf4 tx 2");
    let error = load(Buffers::One).attach("ebpf3", AttachMode::Driver).unwrap_err();
    assert!(error.is_of_mode(), "{error}");
    assert!(error.to_string().starts_with("ebpf3 has too few queues for XDP"), "{error}");
}
