//! Whether there is memory for a plan.

use synmill_engine::device::{Buffers, kept_frames, queue_bytes};

use super::queues::Place;
use crate::text::grouped;

/// The parts of a run that take memory.
pub(super) struct Need<'a> {
    /// Connections held at once, all workers together.
    pub(super) connections: usize,
    /// An option that needs a number of them, if there is one.
    pub(super) least: Option<(&'a str, usize)>,
    /// The workers.
    pub(super) workers: &'a [Place],
    /// How packets lie in the driver's memory.
    pub(super) buffers: Buffers,
    /// The interface's MTU in bytes.
    pub(super) mtu: usize,
}

impl Need<'_> {
    /// Returns the bytes for a number of connections, the frames of all queues included. `worker` returns the bytes that one worker takes for
    /// its share of the connections and for the frames that it may keep.
    fn bytes(&self, connections: usize, worker: &impl Fn(usize, usize) -> usize) -> u64 {
        let each = |place: &Place| {
            let queues = place.queues.len();
            worker(connections.div_ceil(self.workers.len()), queues * kept_frames(self.buffers))
                + queues * queue_bytes(self.buffers, self.mtu)
        };
        self.workers.iter().map(|place| each(place) as u64).sum()
    }

    /// Refuses a plan that does not fit. If the available memory is unknown, the kernel decides.
    ///
    /// # Errors
    /// One line: the most connections that fit.
    pub(super) fn check(
        &self,
        available: Option<u64>,
        worker: impl Fn(usize, usize) -> usize,
    ) -> Result<(), String> {
        let needed = self.bytes(self.connections, &worker);
        let Some(available) = available.filter(|&available| available < needed) else { return Ok(()) };
        // `most` fits, and `too_many` does not.
        let (mut most, mut too_many) = (0, self.connections);
        while most + 1 < too_many {
            let middle = most.midpoint(too_many);
            if self.bytes(middle, &worker) <= available { most = middle } else { too_many = middle }
        }
        let most = rounded(most);
        let help = match self.least {
            _ if most.0 < self.workers.len() => "free some memory".into(),
            Some((option, least)) if most.0 < least => {
                format!("give at most {option} {0} --max-connections {0}", most.1)
            }
            _ => format!("give at most --max-connections {}", most.1),
        };
        Err(format!(
            "room for {} connections needs {} bytes of memory, and {} are available: {help}",
            grouped(self.connections as u64),
            grouped(needed),
            grouped(available)
        ))
    }
}

/// Returns a count rounded down to two digits or more, and as one types it.
fn rounded(count: usize) -> (usize, String) {
    match count {
        10_000_000.. => (count / 1_000_000 * 1_000_000, format!("{}M", count / 1_000_000)),
        10_000.. => (count / 1000 * 1000, format!("{}K", count / 1000)),
        _ => (count, count.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn places(count: usize) -> Vec<Place> {
        (0..count).map(|core| Place { core, queues: vec![core] }).collect()
    }

    /// Checks a hundred bytes for each connection, and none for frames.
    fn check(
        connections: usize,
        least: Option<(&str, usize)>,
        workers: usize,
        available: u64,
    ) -> Result<(), String> {
        let frames = (workers * queue_bytes(Buffers::One, 1500)) as u64;
        Need { connections, least, workers: &places(workers), buffers: Buffers::One, mtu: 1500 }
            .check(Some(available + frames), |slots, _| 100 * slots)
    }

    #[test]
    fn what_fits_is_let_through_and_what_is_refused_says_how_much_fits() {
        assert_eq!(check(1_000_000, None, 1, 100_000_000), Ok(()));
        assert_eq!(check(1_000_000, None, 2, 100_000_000), Ok(()));
        let table = [
            (1_000_000, None, 1, 99_999_999, "--max-connections 999K"),
            (100_000_000, None, 2, 5_012_345_678, "--max-connections 50M"),
            (1_000_000, None, 1, 123_456, "--max-connections 1234"),
            (1_000_000, None, 2, 150, "free some memory"),
            (1000, Some(("--concurrency", 800)), 1, 90_000, "at most --max-connections 900"),
            (
                1000,
                Some(("--concurrency", 800)),
                1,
                70_000,
                "at most --concurrency 700 --max-connections 700",
            ),
        ];
        for (connections, least, workers, available, part) in table {
            let line = check(connections, least, workers, available).expect_err(part);
            assert!(line.ends_with(part), "says: {line}\n not: {part}");
        }
        let line = check(1_000_000, None, 1, 1000).unwrap_err();
        assert_eq!(
            line,
            "room for 1,000,000 connections needs 133,554,432 bytes of memory, and 33,555,432 are available: \
             give at most --max-connections 10"
        );
    }

    #[test]
    fn where_nothing_is_known_nothing_is_refused() {
        let need = Need {
            connections: usize::MAX >> 20,
            least: None,
            workers: &places(1),
            buffers: Buffers::One,
            mtu: 1500,
        };
        assert_eq!(need.check(None, |slots, _| 100 * slots), Ok(()));
    }
}
