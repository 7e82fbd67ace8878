//! The workers' threads: start, pin, watch, join.

use std::fs;
use std::io;
use std::panic;
use std::sync::mpsc;
use std::thread::{self, JoinHandle};

use core_affinity::CoreId;

/// The end of a worker's loop that did not panic: a failure is one line.
pub(super) type Outcome = Result<(), String>;

/// One worker to start.
pub(super) struct Job {
    /// The core to pin it to.
    pub(super) core: usize,
    /// The worker's loop.
    pub(super) run: Box<dyn FnOnce() -> Outcome + Send>,
}

/// The running workers.
#[derive(Debug)]
pub(super) struct Crew {
    threads: Vec<JoinHandle<Outcome>>,
    /// The threads' numbers in /proc/self/task.
    pub(super) thread_ids: Vec<u32>,
}

/// A thread's first message: the worker's number and its own, or why it does not run.
type Hello = Result<(usize, u32), String>;

/// Pins this thread, a worker's, to a core.
fn pin(number: usize, core: usize) -> Result<(), String> {
    let is_pinned = core_affinity::set_for_current(CoreId { id: core });
    if is_pinned { Ok(()) } else { Err(format!("worker {number} cannot be pinned to core {core}")) }
}

/// Makes a part of each worker on the worker's core. So its memory is on the node where it is used. Allocators mostly keep the memory of
/// several threads apart, so that two workers rarely write to one cache line.
///
/// # Errors
/// One line: which worker has no thread, or cannot be pinned.
pub(super) fn make_on<T: Send>(cores: &[usize], make: impl Fn(usize) -> T + Sync) -> Result<Vec<T>, String> {
    let make = &make;
    thread::scope(|scope| {
        let makers: Vec<_> = cores
            .iter()
            .enumerate()
            .map(|(number, &core)| {
                thread::Builder::new()
                    .name(format!("synmill-m{number}"))
                    .spawn_scoped(scope, move || pin(number, core).map(|()| make(number)))
                    .map_err(|error| no_thread(number, &error))
            })
            .collect();
        // All are joined, also after a failure of the first.
        let made: Vec<_> = makers
            .into_iter()
            .map(|maker| maker?.join().unwrap_or_else(|panic| panic::resume_unwind(panic)))
            .collect();
        made.into_iter().collect()
    })
}

fn no_thread(number: usize, error: &io::Error) -> String {
    format!("worker {number} has no thread: {error}")
}

impl Crew {
    /// Starts one thread for each job and waits until all of them run. If one does not, calls `stop` and joins the others.
    ///
    /// # Errors
    /// One line: which worker did not start, and why.
    pub(super) fn start(jobs: Vec<Job>, stop: impl Fn()) -> Result<Self, String> {
        let (say, hear) = mpsc::channel::<Hello>();
        let mut crew = Self { threads: Vec::new(), thread_ids: vec![0; jobs.len()] };
        let mut failure = None;
        for (number, job) in jobs.into_iter().enumerate() {
            let say = say.clone();
            let spawned = thread::Builder::new().name(format!("synmill-w{number}")).spawn(move || {
                if let Err(line) = pin(number, job.core) {
                    // The receiver is gone only if the start has failed already.
                    let _ = say.send(Err(line));
                    return Ok(());
                }
                let _ = say.send(thread_id().map(|id| (number, id)).map_err(|error| error.to_string()));
                drop(say);
                (job.run)()
            });
            match spawned {
                Ok(thread) => crew.threads.push(thread),
                Err(error) => {
                    failure = Some(no_thread(number, &error));
                    break;
                }
            }
        }
        drop(say);
        // Ends when every thread has sent its message or died.
        for hello in hear {
            match hello {
                Ok((number, id)) => crew.thread_ids[number] = id,
                Err(line) => failure = Some(line),
            }
        }
        let Some(failure) = failure else { return Ok(crew) };
        stop();
        // The first failure is the one to report.
        let _ = crew.join();
        Err(failure)
    }

    /// Returns whether a worker has ended. Before the stop only a panic ends one.
    pub(super) fn lost_one(&self) -> bool {
        self.threads.iter().any(JoinHandle::is_finished)
    }

    /// Joins all workers.
    ///
    /// # Errors
    /// One line: the workers that panicked, and the failures of the others.
    pub(super) fn join(self) -> Result<(), String> {
        let mut failures = Vec::new();
        for (number, thread) in self.threads.into_iter().enumerate() {
            let panicked = || Err(format!("synmill-w{number} panicked: see above"));
            failures.extend(thread.join().unwrap_or_else(|_| panicked()).err());
        }
        if failures.is_empty() { Ok(()) } else { Err(failures.join("; ")) }
    }
}

/// Returns this thread's number: /proc/thread-self is a link to `PID/task/TID`.
fn thread_id() -> io::Result<u32> {
    let link = fs::read_link("/proc/thread-self")?;
    let name = link.file_name().and_then(|name| name.to_str()).and_then(|name| name.parse().ok());
    name.ok_or_else(|| io::Error::other("/proc/thread-self is not a thread's number"))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicBool, Ordering};
    use std::time::Duration;

    use super::*;

    fn core() -> usize {
        core_affinity::get_core_ids().unwrap()[0].id
    }

    /// A worker's loop that runs until `stop` is set.
    fn until(stop: &Arc<AtomicBool>) -> Box<dyn FnOnce() -> Outcome + Send> {
        let stop = Arc::clone(stop);
        Box::new(move || {
            while !stop.load(Ordering::SeqCst) {
                thread::sleep(Duration::from_millis(1));
            }
            Ok(())
        })
    }

    #[test]
    fn workers_run_on_threads_of_their_own_until_told() {
        let stop = Arc::new(AtomicBool::new(false));
        let jobs = (0..2).map(|_| Job { core: core(), run: until(&stop) }).collect();
        let crew = Crew::start(jobs, || ()).unwrap();
        for (number, id) in crew.thread_ids.iter().enumerate() {
            let name = fs::read_to_string(format!("/proc/self/task/{id}/comm")).unwrap();
            assert_eq!(name.trim(), format!("synmill-w{number}"));
        }
        assert!(!crew.lost_one());
        stop.store(true, Ordering::SeqCst);
        crew.join().unwrap();
    }

    #[test]
    fn a_panic_is_noticed_and_named() {
        let jobs = vec![Job { core: core(), run: Box::new(|| panic!("as the test wants")) }];
        let crew = Crew::start(jobs, || ()).unwrap();
        for _ in 0..10_000 {
            if crew.lost_one() {
                break;
            }
            thread::sleep(Duration::from_millis(1));
        }
        assert!(crew.lost_one());
        assert!(crew.join().unwrap_err().contains("synmill-w0 panicked"));
    }

    #[test]
    fn what_each_worker_failed_at_is_told() {
        let jobs: Vec<Job> = [Ok(()), Err("no room".to_owned()), Err("no file".to_owned())]
            .map(|outcome| Job { core: core(), run: Box::new(|| outcome) })
            .into();
        assert_eq!(Crew::start(jobs, || ()).unwrap().join().unwrap_err(), "no room; no file");
    }

    #[test]
    fn parts_are_made_on_their_cores_and_come_in_order() {
        let made = make_on(&[core(); 3], |number| (number, core_affinity::get_core_ids().unwrap()));
        // A pinned thread sees its own core only.
        assert_eq!(made.unwrap(), [0, 1, 2].map(|number| (number, vec![CoreId { id: core() }])));
        let line = make_on(&[core(), 1023], |number| number).unwrap_err();
        assert!(line.contains("worker 1 cannot be pinned to core 1023"), "{line}");
    }

    #[test]
    fn one_that_cannot_be_pinned_stops_the_others() {
        let stop = Arc::new(AtomicBool::new(false));
        let jobs = [core(), 1023].map(|core| Job { core, run: until(&stop) }).into();
        let line = Crew::start(jobs, || stop.store(true, Ordering::SeqCst)).unwrap_err();
        assert!(line.contains("worker 1 cannot be pinned"), "{line}");
    }
}
