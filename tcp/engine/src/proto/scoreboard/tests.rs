//! The scoreboard: losses, the numbers on their way, and peers that lie.

use proptest::prelude::*;

use super::*;

const MSS: u32 = 1000;

fn blocks(ranges: &[(u32, u32)], una: u32) -> SackBlocks {
    let mut blocks = SackBlocks::NONE;
    for (start, end) in ranges {
        blocks.push(SeqNum(una) + start * MSS, SeqNum(una) + end * MSS);
    }
    blocks
}

/// A scoreboard with `flight` segments in flight; `una` is where the numbers wrap, or do not.
struct Board {
    board: Scoreboard,
    una: SeqNum,
    flight: u32,
}

impl Board {
    fn new(una: u32, flight: u32) -> Self {
        Self { board: Scoreboard::new(SeqNum(una)), una: SeqNum(una), flight: flight * MSS }
    }

    /// Takes reports in segments from SND.UNA.
    fn report(&mut self, ranges: &[(u32, u32)]) {
        let una = self.una.0;
        self.board.report(&blocks(ranges, una), self.una, self.una + self.flight, MSS);
        self.board.lose_again(MSS);
    }

    fn pipe(&self, recovers: bool) -> u32 {
        self.board.pipe(self.una, self.flight, recovers, MSS) / MSS
    }

    /// Sends all that is lost, and returns which segments these are.
    fn repair(&mut self) -> Vec<u32> {
        let mut sent = Vec::new();
        while let Some((at, len)) = self.board.next_lost(self.flight, true, MSS) {
            sent.push((at - self.una) / MSS);
            self.board.sent_again(at, len.min(MSS), self.una + self.flight);
        }
        sent
    }
}

#[test]
fn three_segments_beyond_a_hole_make_it_lost() {
    for una in [0, u32::MAX - 2500] {
        let mut board = Board::new(una, 10);
        board.report(&[(1, 3)]);
        assert!(!board.board.has_loss(board.flight, false, MSS));
        assert_eq!(board.pipe(false), 8);
        board.report(&[(1, 4)]);
        assert!(board.board.has_loss(board.flight, false, MSS));
        assert_eq!(board.pipe(true), 6);
        assert_eq!(board.repair(), [0]);
        assert_eq!(board.pipe(true), 7);
    }
}

#[test]
fn every_hole_of_a_round_trip_is_repaired_at_once() {
    let mut board = Board::new(7, 12);
    board.report(&[(8, 10), (4, 7), (1, 3)]);
    assert_eq!(board.repair(), [0, 3, 7]);
    assert_eq!(board.pipe(true), 5);
    board.board.acknowledge(board.una + 3 * MSS, MSS);
    assert_eq!(board.board.reported(board.una + 3 * MSS), 5 * MSS);
}

/// With three segments in flight no third duplicate can come.
#[test]
fn a_short_flight_needs_fewer_reports() {
    let mut board = Board::new(0, 3);
    board.report(&[(1, 2)]);
    assert!(!board.board.has_loss(board.flight, false, MSS));
    board.report(&[(1, 3)]);
    assert!(board.board.has_loss(board.flight, false, MSS));
    let mut board = Board::new(0, 2);
    board.report(&[(1, 2)]);
    assert!(board.board.has_loss(board.flight, false, MSS));
}

#[test]
fn a_retransmission_is_lost_when_something_later_has_arrived() {
    let mut board = Board::new(0, 10);
    board.report(&[(6, 10), (3, 5)]);
    assert_eq!(board.repair(), [0, 1, 2, 5]);
    // The third arrives, so the first and the second are lost again; the fourth was sent after it.
    board.report(&[(2, 5)]);
    assert_eq!(board.repair(), [0, 1]);
    // So does new text.
    board.flight += 2 * MSS;
    board.report(&[(10, 11)]);
    assert_eq!(board.repair(), [0, 1, 5]);
}

#[test]
fn what_was_overtaken_and_came_makes_it_patient() {
    let mut board = Board::new(0, 20);
    board.report(&[(1, 9)]);
    board.report(&[(0, 9)]);
    // Text that starts at SND.UNA is no report: the acknowledgement says it.
    board.board.acknowledge(board.una + 9 * MSS, MSS);
    board.una += 9 * MSS;
    board.report(&[(1, 8)]);
    assert!(!board.board.has_loss(board.flight, true, MSS), "eight segments overtook one before");
    board.report(&[(1, 10)]);
    assert!(board.board.has_loss(board.flight, true, MSS));
}

#[test]
fn after_a_timeout_all_that_was_not_reported_goes_again() {
    let mut board = Board::new(0, 6);
    board.report(&[(2, 3)]);
    let nxt = board.una + board.flight;
    board.board.lose_all(board.una, nxt, false);
    assert_eq!(board.pipe(true), 0);
    assert_eq!(board.repair(), [0, 1, 3, 4, 5]);
    board.board.lose_all(board.una, nxt, true);
    assert_eq!(board.repair(), [0, 1, 2, 3, 4, 5], "a second timeout believes nothing");
}

#[test]
fn holes_that_touch_are_both_repaired() {
    let mut board = Board::new(0, 3);
    board.board.lose_all(board.una, board.una + board.flight, false);
    assert_eq!(board.repair(), [0, 1, 2]);
    board.flight += 2 * MSS;
    board.report(&[(4, 5)]);
    assert_eq!(board.repair(), [0, 1, 2, 3], "the first was sent again before the last");
}

#[test]
fn lies_change_nothing() {
    let mut board = Board::new(5000, 5);
    board.board.report(&blocks(&[(0, 3), (3, 3), (4, 2)], 5000), board.una, board.una + board.flight, MSS);
    board.report(&[(3, 6), (1000, 2000)]);
    assert!(board.board.is_empty());
    assert_eq!(board.pipe(false), 5);
}

#[test]
fn a_thousand_holes_take_the_room_of_a_few() {
    let mut board = Board::new(0, 2000);
    for hole in 0..1000 {
        board.report(&[(2 * hole + 1, 2 * hole + 2)]);
    }
    assert_eq!(board.board.len, MOST);
    board.board.lose_all(board.una, board.una + board.flight, false);
    assert_eq!(board.repair().len(), MOST - 1 + 2000 - 2 * (MOST - 1));
}

proptest! {
    /// The holes stay in order, apart and inside of the flight, whatever a peer reports.
    #[test]
    fn the_holes_stay_in_order(
        una in prop::sample::select(vec![0_u32, u32::MAX - 20_000, 1 << 31]),
        steps in prop::collection::vec((0_u32..5, any::<[(u16, u16); 3]>(), 0_u32..6000), 1..60),
    ) {
        let (mut una, mut flight) = (SeqNum(una), 40_000_u32);
        let mut board = Scoreboard::new(una);
        for (kind, ranges, by) in steps {
            match kind {
                0 => {
                    una += by.min(flight);
                    flight -= by.min(flight);
                    board.acknowledge(una, MSS);
                }
                1 => board.lose_all(una, una + flight, by % 2 == 0),
                2 => flight += by,
                3 => {
                    if let Some((at, len)) = board.next_lost(flight, true, MSS) {
                        board.sent_again(at, len.min(MSS), una + flight);
                    }
                }
                _ => {
                    let mut blocks = SackBlocks::NONE;
                    for (start, end) in ranges {
                        blocks.push(una + u32::from(start), una + u32::from(end));
                    }
                    board.report(&blocks, una, una + flight, MSS);
                    board.lose_again(MSS);
                }
            }
            let mut last = None;
            for hole in board.holes() {
                prop_assert!(hole.start.before(hole.end) && hole.start.at_or_after(una));
                prop_assert!(hole.next.at_or_after(hole.start) && hole.next.at_or_before(hole.end));
                prop_assert!(last.is_none_or(|last| hole.start.at_or_after(last)));
                last = Some(hole.end);
            }
            prop_assert!(board.is_empty() || board.high.at_or_before(una + flight));
            prop_assert!(board.reported(una) <= flight);
            prop_assert!(board.pipe(una, flight, true, MSS) <= flight);
        }
    }
}
