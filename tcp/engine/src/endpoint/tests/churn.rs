//! A table that stays full while a million connections come and go: those in ESTABLISHED go on undisturbed.

use super::*;

const CONNECTIONS: usize = 4096;
/// Half of all connections stay.
const STAYING: usize = CONNECTIONS / 2;
/// Connections that come and go together: half a burst.
const GROUP: usize = BURST / 2;
/// A seed of small numbers would not spread tuples in a row.
const SEED: [u64; 4] =
    [0x243f_6a88_85a3_08d3, 0x1319_8a2e_0370_7344, 0xa409_3822_299f_31d0, 0x082e_fa98_ec4e_6c89];
/// The connections that come and go, and the SYNs of the flood: as many of each.
const CHURNED: u32 = 1_000_000;

/// Returns a guest that connects to a port of ours.
fn guest(number: u32, port: u16) -> Peer {
    let [.., a, b] = (number / 50_000).to_be_bytes();
    let local = Address::v4([10, 0, a, b]);
    Peer::named(FlowKey { local, remote_port: port, ..name((number % 50_000) as u16) })
}

/// Returns SYNs to port 80, from guests that never complete the handshake.
fn flood(numbers: &mut std::ops::RangeFrom<u32>) -> Vec<Vec<u8>> {
    numbers.take(GROUP).map(|number| guest(number, 80).frame(SYN, &[])).collect()
}

/// Opens connections to port 81, whose service closes first. The guests close too, which leaves TIME-WAIT.
fn open_and_close(bench: &mut Bench, numbers: &mut std::ops::RangeFrom<u32>) {
    let mut peers: Vec<Peer> = numbers.take(GROUP).map(|number| guest(number, 81)).collect();
    for (flags, answer) in [(SYN, SYN_ACK), (ACK, FIN_ACK), (FIN_ACK, ACK)] {
        let frames: Vec<_> = peers.iter().map(|peer| peer.frame(flags, &[])).collect();
        let replies = bench.inject_all(&frames);
        assert_eq!(replies.len(), GROUP, "{flags:?}: {replies:?}");
        for peer in &mut peers {
            let reply = replies.iter().find(|reply| reply.key == peer.key);
            let segment = reply.expect("each guest has an answer").segment;
            assert_eq!(segment.flags, answer);
            peer.nxt = segment.ack;
            peer.expected = segment.end();
        }
    }
}

/// Each staying peer sends a byte, and receives it back.
fn all_answer(bench: &mut Bench, staying: &mut [Peer]) {
    for peer in staying {
        let echo = peer.say(bench, ACK, b"?");
        assert_eq!(text_of(&echo), b"?");
        assert!(peer.say(bench, ACK, &[]).is_empty());
    }
}

#[test]
fn a_full_endpoint_churns_and_what_is_established_lives_on() {
    let mut config = with_room(CONNECTIONS, Config { seed: SEED, ..config("echo") });
    let service = "close".parse().unwrap();
    config.application.0.push(Listener { address: Address::v4([0; 4]), port: 81, service });
    let mut bench = Bench::new(config);
    let mut staying = Peer::open_all(0..STAYING as u16, &mut bench);

    let (mut knocking, mut closing) = (0.., 0..);
    let mut full = 0;
    for round in 0..CHURNED / GROUP as u32 {
        let answers = bench.inject_all(&flood(&mut knocking));
        assert_eq!(answers.len(), GROUP, "{answers:?}");
        assert!(answers.iter().all(|reply| reply.segment.flags == SYN_ACK), "{answers:?}");
        open_and_close(&mut bench, &mut closing);
        full += u32::from(bench.endpoint.len() == CONNECTIONS);
        // Now and then time passes, and the endpoint retransmits SYN,ACKs.
        if round % 1024 == 0 {
            bench.wait(100);
            all_answer(&mut bench, &mut staying);
        }
    }
    all_answer(&mut bench, &mut staying);

    // After the start, the table was full all the time.
    let rounds = CHURNED / GROUP as u32;
    assert!(full > rounds - rounds / 100, "{full} of {rounds}");
    assert_eq!(bench.endpoint.len(), CONNECTIONS);
    let counts = bench.counts();
    assert_eq!((counts.curr_estab, counts.curr_connections), (STAYING as u64, CONNECTIONS as u64));
    assert_eq!(counts.passive_opens, STAYING as u64 + 2 * u64::from(CHURNED));
    assert_eq!(counts.curr_half_open + counts.curr_time_wait, (CONNECTIONS - STAYING) as u64);
    // Every connection that ended was evicted, and none was refused.
    assert_eq!(counts.ended_evicted_half_open + counts.curr_half_open, u64::from(CHURNED));
    assert_eq!(counts.ended_evicted_time_wait + counts.curr_time_wait, u64::from(CHURNED));
    assert!(counts.ended_evicted_half_open > 0 && counts.ended_evicted_time_wait > 0);
    let ended_otherwise = counts.ended_closed
        + counts.ended_timed_out
        + counts.ended_reset_by_peer
        + counts.ended_reset_by_us
        + counts.ended_unreachable;
    assert_eq!((ended_otherwise, counts.drop_table_full, counts.drop_too_many_paths), (0, 0, 0));
}
