//! Packets through a device, for the tests of devices.

use super::queue::{BURST, Burst, Device};

/// Sends one packet after the other, each of which must be submitted.
pub(super) fn send<D: Device>(device: &mut D, packets: impl IntoIterator<Item = impl AsRef<[u8]>>) {
    let mut burst = Burst::new();
    for packet in packets {
        let packet = packet.as_ref();
        assert_eq!(device.alloc(&mut burst, 1), 1);
        burst[0].set_len(packet.len());
        burst[0].copy_from_slice(packet);
        assert_eq!(device.transmit(&mut burst), 1);
    }
}

/// Receives all packets that have arrived, with the home of each frame.
pub(super) fn drain<D: Device>(device: &mut D) -> Vec<(u8, Vec<u8>)> {
    let (mut packets, mut burst) = (Vec::new(), Burst::new());
    while device.receive(&mut burst, BURST) > 0 {
        packets.extend(burst.iter().map(|frame| (frame.home(), frame.to_vec())));
        device.recycle(&mut burst);
    }
    packets
}
