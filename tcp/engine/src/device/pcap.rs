//! A device that writes the packets that pass through it to a capture file: tcpdump sees none of the packets that the XDP program
//! takes.

use std::io::{self, Write};
use std::time::Duration;

use super::queue::{Burst, Census, Device};
use super::umem::Frame;
use crate::stats::RingCounts;

/// The magic number of a file with times in nanoseconds (draft-ietf-opsawg-pcap).
const NANOSECONDS: u32 = 0xa1b2_3c4d;
/// Version 2.4 of the format.
const VERSION: u32 = 4 << 16 | 2;
/// `LINKTYPE_ETHERNET`
const ETHERNET: u32 = 1;
/// Longer than any frame: the file holds whole packets.
const SNAP_LENGTH: u32 = 1 << 16;

/// A device around a device, which also writes received frames and frames given to [`Device::transmit`] to a pcap file.
///
/// The file can be read while it grows: the header is written at once, packets are flushed with each [`Device::ring_counts`].
/// Writing blocks, so a capture is for looking at an exchange, not for measuring one. The first error ends the capture, not the
/// device; [`Capture::finish`] returns it.
pub struct Capture<D> {
    device: D,
    file: Box<dyn Write + Send>,
    /// Time since the Unix epoch.
    clock: Box<dyn FnMut() -> Duration + Send>,
    left: u64,
    outcome: io::Result<()>,
}

impl<D: Device> Capture<D> {
    /// Writes the first `limit` packets to `file`, which should be buffered. `clock` returns the time since the Unix epoch; it is
    /// called once for each burst.
    ///
    /// # Errors
    /// If the header cannot be written.
    pub fn new(
        device: D,
        mut file: impl Write + Send + 'static,
        limit: u64,
        clock: impl FnMut() -> Duration + Send + 'static,
    ) -> io::Result<Self> {
        let header = [NANOSECONDS, VERSION, 0, 0, SNAP_LENGTH, ETHERNET].map(u32::to_le_bytes);
        file.write_all(header.as_flattened())?;
        file.flush()?;
        Ok(Self { device, file: Box::new(file), clock: Box::new(clock), left: limit, outcome: Ok(()) })
    }

    /// Returns the device inside.
    pub fn device_mut(&mut self) -> &mut D {
        &mut self.device
    }

    /// Ends the capture.
    ///
    /// # Errors
    /// The first error in writing the file.
    pub fn finish(&mut self) -> io::Result<()> {
        self.left = 0;
        let flushed = self.file.flush();
        std::mem::replace(&mut self.outcome, Ok(())).and(flushed)
    }
}

impl<D> Capture<D> {
    fn capture(&mut self, packets: &[Frame]) {
        if self.outcome.is_ok() {
            self.outcome = self.write(packets);
        }
    }

    /// Writes as many of the packets as the limit allows.
    fn write(&mut self, packets: &[Frame]) -> io::Result<()> {
        if self.left == 0 || packets.is_empty() {
            return Ok(());
        }
        let now = (self.clock)();
        for packet in packets.iter().take(usize::try_from(self.left).unwrap_or(usize::MAX)) {
            self.left -= 1;
            let len = packet.len() as u32;
            // The format holds seconds in 32 bits: until the year 2106.
            let record = [now.as_secs() as u32, now.subsec_nanos(), len, len].map(u32::to_le_bytes);
            self.file.write_all(record.as_flattened())?;
            self.file.write_all(packet)?;
        }
        // The file is whole once the last packet is written, even if the process is killed later.
        if self.left == 0 { self.file.flush() } else { Ok(()) }
    }
}

impl<D: Device> Device for Capture<D> {
    fn receive(&mut self, into: &mut Burst, limit: usize) -> usize {
        let from = into.len();
        let count = self.device.receive(into, limit);
        self.capture(&into[from..]);
        count
    }

    fn recycle(&mut self, frames: &mut Burst) {
        self.device.recycle(frames);
    }

    fn alloc(&mut self, into: &mut Burst, limit: usize) -> usize {
        self.device.alloc(into, limit)
    }

    fn transmit(&mut self, frames: &mut Burst) -> usize {
        self.capture(frames);
        self.device.transmit(frames)
    }

    fn wait(&mut self, timeout: Duration) {
        self.device.wait(timeout);
    }

    fn ring_counts(&mut self) -> RingCounts {
        // Every 100 ms: often enough for a reader of the growing file, and no packet pays for it.
        if self.outcome.is_ok() {
            self.outcome = self.file.flush();
        }
        self.device.ring_counts()
    }

    fn census(&self) -> Census {
        self.device.census()
    }
}

#[cfg(test)]
mod tests {
    use std::io::BufWriter;
    use std::sync::{Arc, Mutex};

    use super::*;
    use crate::device::BURST;
    use crate::device::pair::{Faults, PairDevice, pair};

    /// A file in memory. A write beyond its bound fails.
    #[derive(Clone)]
    struct Bounded(Arc<Mutex<Vec<u8>>>, usize);

    impl Bounded {
        fn new(bound: usize) -> Self {
            Self(Arc::default(), bound)
        }

        /// Returns the packets of the file: time and bytes.
        fn read(&self) -> Vec<(Duration, Vec<u8>)> {
            let file = self.0.lock().unwrap();
            let word = |at: usize| u32::from_le_bytes(file[at..at + 4].try_into().unwrap());
            assert_eq!([word(0), word(4), word(16), word(20)], [0xa1b2_3c4d, 0x0004_0002, 65536, 1]);
            let mut packets = Vec::new();
            let mut at = 24;
            while at < file.len() {
                let len = word(at + 8) as usize;
                assert_eq!(word(at + 12) as usize, len);
                let time = Duration::new(word(at).into(), word(at + 4));
                packets.push((time, file[at + 16..at + 16 + len].to_vec()));
                at += 16 + len;
            }
            packets
        }
    }

    impl Write for Bounded {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let mut file = self.0.lock().unwrap();
            if file.len() + bytes.len() > self.1 {
                return Err(io::ErrorKind::StorageFull.into());
            }
            file.extend(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn packet(fill: u8) -> Vec<u8> {
        vec![fill; 20 + fill as usize]
    }

    fn send<D: Device>(device: &mut D, fills: &[u8]) {
        let mut burst = Burst::new();
        device.alloc(&mut burst, fills.len());
        for (frame, &fill) in burst.iter_mut().zip(fills) {
            frame.set_len(packet(fill).len());
            frame.copy_from_slice(&packet(fill));
        }
        assert_eq!(device.transmit(&mut burst), fills.len());
    }

    fn captured(file: &Bounded, limit: u64) -> (Capture<PairDevice>, PairDevice) {
        let (ours, theirs, _) = pair(1, &Faults::NONE, 64, 2048);
        let mut seconds = 0;
        let clock = move || {
            seconds += 1;
            Duration::new(seconds, 5)
        };
        (Capture::new(ours, file.clone(), limit, clock).unwrap(), theirs)
    }

    #[test]
    fn both_directions_are_written_whole_in_order() {
        let file = Bounded::new(usize::MAX);
        let (mut ours, mut theirs) = captured(&file, 100);
        send(&mut ours, &[1, 2]);
        send(&mut theirs, &[3]);
        let mut burst = Burst::new();
        // A burst that holds a frame already: only the received packet is written.
        ours.alloc(&mut burst, 1);
        assert_eq!(ours.receive(&mut burst, BURST), 1);
        assert_eq!(ours.receive(&mut burst, BURST), 0);
        ours.recycle(&mut burst);
        let at = |seconds| Duration::new(seconds, 5);
        assert_eq!(file.read(), [(at(1), packet(1)), (at(1), packet(2)), (at(2), packet(3))]);
        ours.finish().unwrap();
        let census = ours.census();
        assert_eq!(census.free + census.rings, 64);
    }

    #[test]
    fn what_was_captured_can_be_read_while_it_goes_on() {
        let file = Bounded::new(usize::MAX);
        let (ours, _theirs, _) = pair(1, &Faults::NONE, 64, 2048);
        let mut ours = Capture::new(ours, BufWriter::new(file.clone()), 100, || Duration::ZERO).unwrap();
        assert_eq!(file.read(), [], "the header is there");
        for round in 1..3 {
            send(&mut ours, &[1]);
            ours.ring_counts();
            assert_eq!(file.read().len(), round);
        }
        // An error of that flush is returned at the end.
        let full = Bounded::new(24);
        let mut ours = Capture::new(ours, BufWriter::new(full.clone()), 100, || Duration::ZERO).unwrap();
        send(&mut ours, &[1]);
        ours.ring_counts();
        assert_eq!(ours.finish().unwrap_err().kind(), io::ErrorKind::StorageFull);
        assert_eq!(full.read(), []);
    }

    #[test]
    fn the_bound_ends_the_file_and_not_the_device() {
        let file = Bounded::new(usize::MAX);
        let (mut ours, mut theirs) = captured(&file, 3);
        send(&mut ours, &[1, 2]);
        send(&mut ours, &[3, 4]);
        send(&mut ours, &[5]);
        assert_eq!(file.read().len(), 3);
        let mut burst = Burst::new();
        assert_eq!(theirs.receive(&mut burst, BURST), 5);
    }

    #[test]
    fn a_full_disk_is_told_at_the_end() {
        let file = Bounded::new(24 + 16 + 21);
        let (mut ours, mut theirs) = captured(&file, 100);
        send(&mut ours, &[1]);
        send(&mut ours, &[2]);
        let mut burst = Burst::new();
        assert_eq!(theirs.receive(&mut burst, BURST), 2);
        assert_eq!(file.read(), [(Duration::new(1, 5), packet(1))]);
        assert_eq!(ours.finish().unwrap_err().kind(), io::ErrorKind::StorageFull);
    }
}
