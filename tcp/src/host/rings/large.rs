//! Frames for packets of several chunks. XDP has its headroom in front of each piece of a packet, and the endpoint reads a packet whole.
//! So the pieces of a packet are copied together here, and a packet is cut into pieces to be sent.

use synmill_engine::device::LARGE_FOR_SENDING;
use synmill_engine::device::umem::{Frame, HEADROOM, Region};

/// The frames of one queue, each for the longest packet. They are outside the UMEM.
pub(super) struct Large {
    region: Region,
    free: Vec<u32>,
    /// The packet whose pieces are arriving.
    joining: Joining,
    /// Packets for which there was no frame.
    lost: u64,
}

enum Joining {
    Nothing,
    Frame(Frame),
    /// No frame was free, or the packet is too long: its further pieces are ignored.
    Lost,
}

impl Large {
    /// `count` frames for packets of up to `longest` bytes.
    ///
    /// # Panics
    /// See [`Region::heap`].
    pub(super) fn new(count: usize, longest: usize, home: u8) -> Self {
        let region = Region::heap(count, HEADROOM + longest, home);
        Self { region, free: (0..count as u32).rev().collect(), joining: Joining::Nothing, lost: 0 }
    }

    /// Returns the number of all frames.
    pub(super) const fn count(&self) -> usize {
        self.region.count()
    }

    /// Returns the number of free frames.
    pub(super) fn free(&self) -> usize {
        self.free.len()
    }

    /// Returns the number of frames outside.
    pub(super) const fn out(&self) -> usize {
        self.region.out() - self.joining() as usize
    }

    /// Returns whether a frame is being filled.
    pub(super) const fn joining(&self) -> bool {
        matches!(self.joining, Joining::Frame(_))
    }

    /// Returns the number of packets lost for lack of a frame.
    pub(super) const fn lost(&self) -> u64 {
        self.lost
    }

    /// Returns the bytes of memory.
    pub(super) const fn memory_bytes(&self) -> usize {
        self.region.memory_bytes()
    }

    /// Takes a free frame, empty.
    pub(super) fn take(&mut self) -> Option<Frame> {
        self.free.pop().map(|number| self.region.take(number, HEADROOM, 0))
    }

    /// Returns whether a frame is one of these.
    pub(super) fn owns(&self, frame: &Frame) -> bool {
        self.region.owns(frame)
    }

    /// Ends a frame that was taken here.
    pub(super) fn give_back(&mut self, frame: Frame) {
        self.free.push(self.region.give_back(frame));
    }

    /// Returns whether no packet is incomplete.
    pub(super) const fn is_between(&self) -> bool {
        matches!(self.joining, Joining::Nothing)
    }

    /// Adds the next piece of a packet. Returns the packet after its last piece. Some frames are kept for sending, because received text
    /// may wait for that.
    pub(super) fn join(&mut self, piece: &[u8], is_last: bool) -> Option<Frame> {
        if self.is_between() {
            let has_some = self.free.len() > self.count() / LARGE_FOR_SENDING;
            self.joining = has_some.then(|| self.take()).flatten().map_or(Joining::Lost, Joining::Frame);
        }
        if let Joining::Frame(frame) = &mut self.joining {
            let (before, len) = (frame.len(), frame.len() + piece.len());
            if len <= frame.capacity() {
                frame.set_len(len);
                frame[before..].copy_from_slice(piece);
            } else if let Joining::Frame(frame) = std::mem::replace(&mut self.joining, Joining::Lost) {
                self.give_back(frame);
            }
        }
        if !is_last {
            return None;
        }
        match std::mem::replace(&mut self.joining, Joining::Nothing) {
            Joining::Frame(frame) => Some(frame),
            Joining::Nothing | Joining::Lost => {
                self.lost += 1;
                None
            }
        }
    }
}

impl Drop for Large {
    fn drop(&mut self) {
        if let Joining::Frame(frame) = std::mem::replace(&mut self.joining, Joining::Nothing) {
            self.give_back(frame);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn assert_law(large: &Large, held: usize) {
        assert_eq!(large.out(), held);
        assert_eq!(large.free() + usize::from(large.joining()) + held, large.count());
    }

    #[test]
    fn pieces_become_one_packet() {
        let mut large = Large::new(8, 9000, 3);
        assert!(large.join(&[1; 3840], false).is_none());
        assert!(!large.is_between());
        assert_law(&large, 0);
        assert!(large.join(&[2; 3840], false).is_none());
        let packet = large.join(&[3; 500], true).unwrap();
        assert_eq!(*packet, [vec![1; 3840], vec![2; 3840], vec![3; 500]].concat());
        assert_eq!((packet.home(), large.lost()), (3, 0));
        assert_law(&large, 1);
        large.give_back(packet);
        assert_law(&large, 0);
    }

    #[test]
    fn what_finds_no_frame_is_lost_whole_and_counted_once() {
        let mut large = Large::new(4, 5000, 0);
        let mut held: Vec<_> = (0..3).map(|_| large.take().unwrap()).collect();
        for is_last in [false, false, true] {
            assert!(large.join(&[0; 100], is_last).is_none(), "the last quarter is for sending");
        }
        assert_eq!(large.lost(), 1);
        large.give_back(held.pop().unwrap());
        // Of a packet that is too long all pieces are lost, and the next packet is whole.
        for (len, is_last) in [(3840, false), (1161, false), (10, true)] {
            assert!(large.join(&vec![0; len], is_last).is_none());
        }
        assert_eq!(large.lost(), 2);
        let packet = large.join(&[7; 5000], true).unwrap();
        assert_eq!(*packet, [7; 5000]);
        held.push(packet);
        assert_law(&large, 3);
        held.into_iter().for_each(|frame| large.give_back(frame));
    }

    #[test]
    fn a_packet_that_is_half_there_goes_with_its_device() {
        let mut large = Large::new(4, 5000, 0);
        assert!(large.join(&[0; 100], false).is_none());
        assert_law(&large, 0);
    }
}
