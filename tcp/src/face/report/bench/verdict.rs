//! The problems of a run: sentences that say where it is not what the user asked for, and why.

use super::causes::{BEFORE_HANDSHAKE, CUT};
use super::report::BenchReport;
use crate::text::{self, grouped};

/// Reason for an end before the planned one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Early {
    /// A signal: no further connection was opened, and open ones could drain.
    Signal,
    /// An error, which the command reports itself: open connections were cut.
    Trouble,
}

/// Tolerance of a rate and of a number of open connections, and the share of connections that may fail.
const TOLERANCE: f64 = 0.01;

/// Number of connections at the edges of the window, which may fall to either side.
const EDGES: f64 = 2.0;

/// The generator is late if more than 1 % of the starts were later than this.
const LATE_US: f64 = 1_000.0;

/// Returns the problems of a report whose verdict is still missing.
pub(super) fn problems(report: &BenchReport, ended_early: Option<Early>) -> Vec<String> {
    let mut problems = Vec::new();
    for law in report.accounts.laws.iter().filter(|law| !law.holds) {
        let (left, right) = (grouped(law.left), grouped(law.right));
        problems.push(format!("the account of {} does not hold: {left} is not {right}", law.name));
    }
    if let Some(early) = ended_early {
        let [was, asked] = [report.duration_s, report.setup.load.duration_s];
        let reason = match early {
            Early::Signal => "a signal",
            Early::Trouble => "an error",
        };
        problems.push(format!("{reason} ended the run: {was:.1} of {asked:.1} s were measured"));
    }
    if is_search(report) && report.rate_per_s.asked.is_none() {
        problems.push("the search found no rate: none passed both a trial and its confirmation".into());
    }
    let connections = &report.connections;
    if connections.established == 0 && !has_only_earlier_ones(report) {
        let causes = causes(connections.failed.occurred());
        problems.push(format!("no connection was established{causes}"));
    } else {
        problems.extend(rate(report));
        problems.extend(concurrency(report));
        problems.extend(held_up(report));
        problems.extend(failed(report));
        // An error that ends the run cuts the open connections, and the drain is not the cause.
        problems.extend(cut(report).filter(|_| ended_early != Some(Early::Trouble)));
    }
    problems
}

/// Is a value outside of the tolerance?
fn is_off(is: f64, asked: f64) -> bool {
    (is - asked).abs() > asked * TOLERANCE
}

fn is_search(report: &BenchReport) -> bool {
    report.setup.load.kind == "search"
}

fn rate(report: &BenchReport) -> Option<String> {
    // A search judges its trials itself.
    let asked = report.setup.load.asked.filter(|_| report.setup.load.kind == "rate")? as f64;
    let achieved = report.rate_per_s.achieved;
    let missing = (asked - achieved) * report.duration_s;
    if !is_off(achieved, asked) || missing.abs() <= EDGES {
        return None;
    }
    let (off, is, asked) = ((achieved / asked - 1.0) * 100.0, text::rate(achieved), grouped(asked as u64));
    let reason = if missing > 0.0 { format!("; {}", reason(report, missing)) } else { String::new() };
    Some(format!("{is} connections/s were established instead of {asked} ({off:+.1} %){reason}"))
}

/// Returns the likely reason for missing connections: the cause of at least half of them.
fn reason(report: &BenchReport, missing: f64) -> String {
    let connections = &report.connections;
    let before =
        || connections.failed.0.iter().take(BEFORE_HANDSHAKE).map(|(name, count)| (name.as_str(), *count));
    let unestablished: u64 = before().map(|(_, count)| count).sum();
    let not_started = connections.not_started as f64 >= missing / 2.0;
    let late_us = report.latencies.start_lag_us.p99;
    if unestablished as f64 >= missing / 2.0 {
        format!("{} failed in the handshake{}", grouped(unestablished), causes(before()))
    } else if not_started && connections.table_full > connections.tuples_short {
        table_full(connections.table_full)
    } else if not_started && connections.tuples_short > 0 {
        tuples_short(connections.tuples_short)
    } else if late_us > LATE_US || not_started {
        let late = text::duration(late_us);
        format!(
            "the generator was late by {late} at the 99th percentile: give more --workers or a lower --rate"
        )
    } else {
        "no counter shows why".into()
    }
}

fn table_full(times: u64) -> String {
    format!("the connection table was full {} times: raise --max-connections", grouped(times))
}

fn tuples_short(times: u64) -> String {
    let times = grouped(times);
    format!("no tuple was free {times} times: give a larger --source, more --source-ports or more --target")
}

/// Returns the shortages of a load that has no rate of its own: they must not decide the rate that comes out.
fn held_up(report: &BenchReport) -> Vec<String> {
    let connections = &report.connections;
    let short = (connections.tuples_short > 0).then(|| tuples_short(connections.tuples_short));
    let full = (connections.table_full > 0).then(|| table_full(connections.table_full));
    let reasons = short.into_iter().chain(full).filter(|_| report.setup.load.kind != "rate");
    reasons.map(|reason| format!("connections had to wait: {reason}")).collect()
}

fn concurrency(report: &BenchReport) -> Option<String> {
    let concurrency = report.concurrency?;
    is_off(concurrency.mean, concurrency.asked as f64).then(|| {
        let (is, asked) = (text::rate(concurrency.mean), grouped(concurrency.asked));
        format!("{is} connections were open on average instead of {asked}")
    })
}

/// Returns the failures that are too few for a problem, such as `3 of 2,000 connections failed: 2 refused, 1 cut (1 % may fail)`.
pub(super) fn few_failed(report: &BenchReport) -> Option<String> {
    let failed = &report.connections.failed;
    let count: u64 = failed.occurred().map(|(_, count)| count).sum();
    let started = report.connections.started;
    let allowed = if is_search(report) {
        "--loss allows as many"
    } else if is_beyond(count, started) {
        // Failed and cut connections have a limit each.
        "1 % may fail, and 1 % may be cut"
    } else {
        "1 % may fail"
    };
    let (failed, started) = (causes(failed.occurred()), grouped(started));
    (count > 0).then(|| format!("{} of {started} connections failed{failed} ({allowed})", grouped(count)))
}

/// Is a number of connections more than the share that may fail?
fn is_beyond(count: u64, started: u64) -> bool {
    count as f64 > started as f64 * TOLERANCE
}

/// Has too large a share of the connections failed? A search that confirmed a rate allowed its own losses.
fn is_too_much(report: &BenchReport, count: u64) -> bool {
    let is_confirmed = is_search(report) && report.rate_per_s.asked.is_some();
    is_beyond(count, report.connections.started) && !is_confirmed
}

/// Connections that failed at the peer or on the way. A cut at the end of the drain is no fault of either.
fn failed(report: &BenchReport) -> Option<String> {
    let uncut = || report.connections.failed.occurred().filter(|(cause, _)| !CUT.contains(cause));
    let failed: u64 = uncut().map(|(_, count)| count).sum();
    is_too_much(report, failed).then(|| {
        let (failed, started) = (grouped(failed), grouped(report.connections.started));
        format!("more than 1 % of the connections failed, {failed} of {started}{}", causes(uncut()))
    })
}

/// Connections that were still open at the end of the drain.
fn cut(report: &BenchReport) -> Option<String> {
    let cut = CUT.iter().filter_map(|cause| report.connections.failed.get(cause)).sum();
    is_too_much(report, cut).then(|| {
        let (cut, started) = (grouped(cut), grouped(report.connections.started));
        format!("more than 1 % of the connections were cut at the end of the drain, {cut} of {started}: raise --drain")
    })
}

/// Has the window only connections that began earlier and stay open?
fn has_only_earlier_ones(report: &BenchReport) -> bool {
    let established = report.counters.get("established").is_some_and(|&count| count > 0);
    report.concurrency.is_some() && report.connections.started == 0 && established
}

/// Returns `: 3 refused, 2 timed out`; empty without causes.
fn causes<'a>(causes: impl Iterator<Item = (&'a str, u64)>) -> String {
    let causes: Vec<String> = causes
        .filter(|(_, count)| *count > 0)
        .map(|(cause, count)| format!("{} {}", grouped(count), cause.replace('_', " ")))
        .collect();
    if causes.is_empty() { String::new() } else { format!(": {}", causes.join(", ")) }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::super::tests::{changed, measured, meters};
    use super::super::{Concurrency, Load, Measured, Outcome, Setup, Step};
    use super::*;
    use synmill_engine::generator;
    use synmill_engine::generator::meters::Meter;
    use synmill_engine::generator::tally::Totals;

    const SECOND: Duration = Duration::from_secs(1);

    /// An average of this many open connections, of 100 that the user asked for.
    fn open(mean: f64) -> Option<Concurrency> {
        Some(Concurrency { asked: 100, min: mean as u64, mean, max: mean as u64 })
    }

    fn steady(load: generator::Load) -> Load {
        Load::steady(load, SECOND, SECOND, SECOND)
    }

    fn search() -> Load {
        Load::search(SECOND, SECOND, SECOND)
    }

    fn problems(change: impl FnOnce(&mut Setup, &mut Measured)) -> Vec<String> {
        let Outcome { ok, problems } = changed(change).verdict;
        assert_eq!(ok, problems.is_empty());
        problems
    }

    fn says(problems: &[String], sentences: &[&str]) {
        assert_eq!(problems.len(), sentences.len(), "{problems:?}");
        for (problem, sentence) in problems.iter().zip(sentences) {
            assert!(problem.contains(sentence), "{problem}: {sentence}");
        }
    }

    #[test]
    fn what_is_as_asked_needs_no_words() {
        says(&problems(|_, _| ()), &[]);
    }

    #[test]
    fn connections_that_stay_were_opened_before_the_window() {
        let problems = problems(|setup, measured| {
            setup.load = steady(generator::Load::Concurrency(100));
            measured.totals = Totals::default();
            measured.meters = meters(0);
            measured.concurrency = open(100.0);
        });
        says(&problems, &[]);
    }

    #[test]
    fn the_windows_edges_decide_about_no_small_rate() {
        // 1/s in a window of 10 s.
        for (established, is_ok) in [(10, true), (8, true), (12, true), (7, false), (13, false)] {
            let problems = problems(|setup, measured| {
                setup.load = steady(generator::Load::Rate(1));
                measured.totals.established_in_time = established;
            });
            assert_eq!(problems.is_empty(), is_ok, "{established}: {problems:?}");
        }
    }

    #[test]
    fn what_is_not_as_asked_is_said_with_its_likely_reason() {
        let check = |change: &dyn Fn(&mut Measured), sentences: &[&str]| {
            says(&problems(|_, measured| change(measured)), sentences);
        };
        let all = measured().totals;
        let cut = Totals { closed: all.closed - 30_000, cut: 30_000, ..all };
        // A tenth of the connections is missing.
        let fewer = Totals { established_in_time: all.established_in_time - 200_000, ..all };
        let late = Totals { not_started: 190_000, ..fewer };
        check(&|run| run.counts.in_frames += 1, &["the account of frames does not hold: "]);
        check(&|run| run.ended_early = Some(Early::Signal), &["a signal ended the run: 10.0 of 10.0 s"]);
        check(
            &|run| (run.ended_early, run.totals) = (Some(Early::Trouble), cut),
            &["an error ended the run: 10.0 of 10.0 s"],
        );
        check(
            &|run| run.meters = meters(19),
            &["the account of latencies does not hold: 2,000,000 is not 1,900,000"],
        );
        check(
            &|run| run.totals = fewer,
            &["180,000 connections/s were established instead of 200,000 (-10.0 %); no counter"],
        );
        check(
            &|run| run.totals = Totals { table_full: 7, ..late },
            &["the connection table was full 7 times"],
        );
        check(&|run| run.totals = Totals { tuples_short: 8, ..late }, &["no tuple was free 8 times"]);
        check(
            &|run| {
                run.totals = fewer;
                (0..100_000).for_each(|_| run.meters.record(Meter::StartLag, SECOND / 2));
            },
            &["the generator was late by 500 ms"],
        );
        let established = all.established - 200_000;
        let refused = Totals { established, closed: established, refused: 200_000, ..fewer };
        check(
            &|run| (run.totals, run.meters) = (refused, meters(18)),
            &[
                "200,000 failed in the handshake: 200,000 refused",
                "more than 1 % of the connections failed, 200,000 of 2,000,000: 200,000 refused",
            ],
        );
        let none = Totals { connect_timed_out: all.started, established: 0, closed: 0, ..all };
        check(
            &|run| (run.totals, run.meters) = (none, meters(0)),
            &["no connection was established: 2,000,000 connect timed out"],
        );
        check(&|run| run.concurrency = open(91.0), &["91.0 connections were open on average instead of 100"]);
        check(
            &|run| run.totals = cut,
            &[
                "more than 1 % of the connections were cut at the end of the drain, 30,000 of 2,000,000: raise",
            ],
        );
    }

    #[test]
    fn nothing_is_not_what_was_asked_for() {
        let problems = problems(|_, run| (run.totals, run.meters) = (Totals::default(), meters(0)));
        assert!(problems[0].contains("no connection was established"), "{problems:?}");
    }

    #[test]
    fn a_search_has_found_what_was_confirmed_last() {
        let report = |change: &dyn Fn(&mut Measured)| {
            changed(|setup, measured| {
                setup.load = search();
                change(measured);
            })
        };
        let step =
            Step { rate: 100, started: 100, lost: 0, achieved: 100.0, passed: true, confirmation: false };
        let none = "the search found no rate: none passed both a trial and its confirmation";
        // A trial that passed is no confirmation.
        for steps in [vec![], vec![step], vec![step, Step { passed: false, ..step }]] {
            let report = report(&|measured| measured.steps.clone_from(&steps));
            assert_eq!((report.rate_per_s.asked, &report.verdict.problems[..]), (None, &[none.into()][..]));
        }
        let found = report(&|measured| measured.confirmed = Some(200_000));
        assert_eq!((found.rate_per_s.asked, found.verdict.problems), (Some(200_000), Vec::new()));
        // The search allowed its losses.
        let lossy = report(&|run| {
            let closed = run.totals.closed - 100_000;
            run.confirmed = Some(200_000);
            run.totals = Totals { closed, reset_by_peer: 60_000, cut: 40_000, ..run.totals };
        });
        assert_eq!(lossy.verdict.problems, Vec::<String>::new());
        let table = lossy.table();
        assert!(table.contains("close; 100,000 of 2,000,000 connections failed:"), "{table}");
        assert!(table.ends_with("40,000 cut (--loss allows as many)\n"), "{table}");
    }

    #[test]
    fn a_rate_that_want_of_tuples_or_room_has_made_is_none() {
        let check = |load: Load, tuples_short: u64, table_full: u64, sentences: &[&str]| {
            let problems = problems(|setup, run| {
                setup.load = load;
                run.confirmed = Some(200_000);
                run.totals = Totals { tuples_short, table_full, ..run.totals };
                run.concurrency = open(100.0).filter(|_| load.kind == "concurrency");
            });
            says(&problems, sentences);
            assert!(problems.iter().all(|problem| problem.starts_with("connections had to wait: ")));
        };
        let [max, concurrency] = [generator::Load::Max, generator::Load::Concurrency(100)].map(steady);
        for load in [max, concurrency, search()] {
            check(load, 0, 0, &[]);
            check(load, 8, 0, &["no tuple was free 8 times"]);
            check(load, 0, 7, &["the connection table was full 7 times"]);
        }
        // A run with a rate shows by itself whether it reached the rate.
        check(steady(generator::Load::Rate(200_000)), 8, 0, &[]);
    }
}
