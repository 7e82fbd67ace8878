//! Whether a run is what it was asked to be, and if not, in whole sentences why.

use serde::Serialize;

use super::{BenchReport, Failed, table};
use crate::report::grouped;

/// What is not as it was asked for.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Outcome {
    /// Nothing.
    pub ok: bool,
    /// A sentence each.
    pub problems: Vec<String>,
}

/// How far a rate, or a number of open connections, may be from what was asked for; and how many connections may fail.
const TOLERANCE: f64 = 0.01;

/// Connections on the window's edges, which may fall to either side of them.
const EDGES: f64 = 2.0;

/// A generator is late if one start of a hundred was by more than this.
const LATE_US: f64 = 1_000.0;

impl Outcome {
    /// What there is to say about a report that is complete but for this.
    pub(super) fn of(report: &BenchReport, signalled: bool) -> Self {
        let mut problems = Vec::new();
        for law in report.accounts.laws.iter().filter(|law| !law.holds) {
            let (left, right) = (grouped(law.left), grouped(law.right));
            problems.push(format!("the account of {} does not hold: {left} is not {right}", law.name));
        }
        if signalled {
            let [was, asked] = [report.duration_s, report.load.duration_s];
            problems.push(format!("a signal ended the run: {was:.1} of {asked:.1} s were measured"));
        }
        problems.extend(search(report));
        if report.connections.established == 0 && !holds_earlier_ones(report) {
            problems
                .push(format!("no connection was established{}", told(&report.connections.failed.causes())));
        } else {
            problems.extend(rate(report));
            problems.extend(concurrency(report));
            problems.extend(failed(report));
            problems.extend(cut(report));
        }
        Self { ok: problems.is_empty(), problems }
    }
}

/// Off by more than is allowed?
fn is_off(is: f64, asked: f64) -> bool {
    (is - asked).abs() > asked * TOLERANCE
}

fn rate(report: &BenchReport) -> Option<String> {
    let achieved = report.rate_per_s.achieved;
    let asked = report.rate_per_s.asked.filter(|&asked| {
        let connections = (achieved - asked as f64).abs() * report.duration_s;
        is_off(achieved, asked as f64) && connections > EDGES
    })?;
    let off = (achieved / asked as f64 - 1.0) * 100.0;
    let (is, asked_text) = (table::rate(achieved), grouped(asked));
    let mut problem = format!("{is} connections/s were established instead of {asked_text} ({off:+.1} %)");
    if achieved < asked as f64 {
        problem.push_str("; ");
        problem.push_str(&reason(report, (asked as f64 - achieved) * report.duration_s));
    }
    Some(problem)
}

/// The likely reason why so many connections are missing: what accounts for at least half of them.
fn reason(report: &BenchReport, missing: f64) -> String {
    let connections = &report.connections;
    let failed = &connections.failed;
    let before = &failed.causes()[..4];
    let unestablished: u64 = before.iter().map(|(_, count)| count).sum();
    let [most_of, not_started] = [missing / 2.0, connections.not_started as f64];
    let lag = &report.start_lag_us;
    if unestablished as f64 >= most_of {
        format!("{} failed before{}", grouped(unestablished), told(before))
    } else if not_started >= most_of && connections.table_full > connections.tuples_short {
        let times = grouped(connections.table_full);
        format!("the connection table was full {times} times: allow more connections")
    } else if not_started >= most_of && connections.tuples_short > 0 {
        let times = grouped(connections.tuples_short);
        format!("no tuple was out of its TIME-WAIT {times} times: give more sources, ports or targets")
    } else if lag.p99 > LATE_US || not_started >= most_of {
        let lag = table::duration(lag.p99);
        format!(
            "the generator was late, by {lag} at the 99th percentile: give it more workers, or ask for less"
        )
    } else {
        "nothing that was counted says why".into()
    }
}

fn concurrency(report: &BenchReport) -> Option<String> {
    let concurrency = report.concurrency?;
    is_off(concurrency.mean, concurrency.asked as f64).then(|| {
        let (is, asked) = (table::rate(concurrency.mean), grouped(concurrency.asked));
        format!("{is} connections were open on average instead of {asked}")
    })
}

/// Failures that are the peer's or the way's; being cut at the end is neither's.
fn failed(report: &BenchReport) -> Option<String> {
    let uncut = Failed { connect_cut: 0, cut: 0, ..report.connections.failed }.causes();
    let failed: u64 = uncut.iter().map(|(_, count)| count).sum();
    let started = report.connections.started;
    (failed as f64 > started as f64 * TOLERANCE)
        .then(|| format!("{} of {} connections failed{}", grouped(failed), grouped(started), told(&uncut)))
}

/// Connections that the drain was too short for.
fn cut(report: &BenchReport) -> Option<String> {
    let Failed { connect_cut, cut, .. } = report.connections.failed;
    let (cut, started) = (connect_cut + cut, report.connections.started);
    (cut as f64 > started as f64 * TOLERANCE).then(|| {
        let (cut, started) = (grouped(cut), grouped(started));
        format!(
            "{cut} of {started} connections were cut, under way at the drain's end: give a longer --drain"
        )
    })
}

/// The last trial of a search that has found a rate is a confirmation that passed.
fn search(report: &BenchReport) -> Option<String> {
    let found = report.steps.last().is_some_and(|step| step.passed);
    (report.load.kind == "search" && !found)
        .then(|| "the search found no rate: none passed its trial and its confirmation".into())
}

/// Connections that stay open may all have begun before the window.
fn holds_earlier_ones(report: &BenchReport) -> bool {
    let established = report.counters.0.iter().any(|(name, count)| name == "established" && *count > 0);
    report.concurrency.is_some() && report.connections.started == 0 && established
}

/// `: 3 refused, 2 timed out`, or nothing.
fn told(causes: &[(&str, u64)]) -> String {
    let causes = causes.iter().filter(|(_, count)| *count > 0);
    let causes: Vec<String> =
        causes.map(|(name, count)| format!("{} {}", grouped(*count), name.replace('_', " "))).collect();
    if causes.is_empty() { String::new() } else { format!(": {}", causes.join(", ")) }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::super::tests::{measured, setup};
    use super::super::{Concurrency, Load, Measured, Setup, Step};
    use super::*;
    use crate::generator;
    use crate::generator::meters::Meter;
    use crate::generator::tally::Totals;

    #[test]
    fn what_is_as_asked_needs_no_words() {
        let outcome = BenchReport::new(setup(), measured()).verdict;
        assert_eq!(outcome, Outcome { ok: true, problems: Vec::new() });
    }

    #[test]
    fn connections_that_stay_were_opened_before_the_window() {
        let mut measured = measured();
        measured.totals = Totals::default();
        measured.concurrency = Some(Concurrency::over(100, &[100, 100]));
        let open = Duration::from_secs(1);
        let load = Load::steady(generator::Load::Concurrency(100), open, open, open);
        let outcome = BenchReport::new(Setup { load, ..setup() }, measured).verdict;
        assert_eq!(outcome, Outcome { ok: true, problems: Vec::new() });
    }

    #[test]
    fn the_windows_edges_decide_about_no_small_rate() {
        let load = Load::steady(generator::Load::Rate(1), Duration::ZERO, Duration::ZERO, Duration::ZERO);
        let check = |established: u64, is_ok: bool| {
            let mut measured = measured();
            measured.totals.established_in_time = established;
            let outcome = BenchReport::new(Setup { load, ..setup() }, measured).verdict;
            assert_eq!(outcome.ok, is_ok, "{established}: {:?}", outcome.problems);
        };
        // 1/s in a window of 10 s.
        check(10, true);
        check(8, true);
        check(12, true);
        check(7, false);
        check(13, false);
    }

    #[test]
    fn what_is_not_as_asked_is_said_with_its_likely_reason() {
        let check = |change: &dyn Fn(&mut Measured), sentences: &[&str]| {
            let mut measured = measured();
            change(&mut measured);
            let Outcome { ok, problems } = BenchReport::new(setup(), measured).verdict;
            assert!(!ok && problems.len() == sentences.len(), "{problems:?}");
            for (problem, sentence) in problems.iter().zip(sentences) {
                assert!(problem.contains(sentence), "{problem}: {sentence}");
            }
        };
        /// A tenth of the connections is missing, and never became any.
        fn fewer(measured: &mut Measured) {
            measured.totals.established_in_time -= 200_000;
        }
        check(&|measured| measured.counts.in_frames += 1, &["the account of frames does not hold: "]);
        check(&|measured| measured.signalled = true, &["a signal ended the run: 10.0 of 10.0 s"]);
        check(&fewer, &["180,000 connections/s were established instead of 200,000 (-10.0 %); nothing that"]);
        check(
            &|measured| {
                fewer(measured);
                measured.totals.not_started = 190_000;
                measured.totals.table_full = 7;
            },
            &["the connection table was full 7 times"],
        );
        check(
            &|measured| {
                fewer(measured);
                measured.totals.not_started = 190_000;
                measured.totals.tuples_short = 8;
            },
            &["no tuple was out of its TIME-WAIT 8 times"],
        );
        check(
            &|measured| {
                fewer(measured);
                let late = Duration::from_millis(500);
                (0..100_000).for_each(|_| measured.meters.record(Meter::StartLag, late));
            },
            &["the generator was late, by 500 ms"],
        );
        check(
            &|measured| {
                fewer(measured);
                measured.totals.established -= 200_000;
                measured.totals.closed -= 200_000;
                measured.totals.refused += 200_000;
            },
            &[
                "200,000 failed before: 200,000 refused",
                "200,000 of 2,000,000 connections failed: 200,000 refused",
            ],
        );
        check(
            &|measured| {
                measured.totals.connect_timed_out = measured.totals.started;
                measured.totals.established = 0;
                measured.totals.closed = 0;
                measured.totals.connect_cut = 0;
                measured.totals.reset_by_peer = 0;
            },
            &["no connection was established: 2,000,000 connect timed out"],
        );
        check(
            &|measured| measured.concurrency = Some(Concurrency::over(100, &[90, 92])),
            &["91.0 connections were open on average instead of 100"],
        );
        check(
            &|measured| {
                measured.totals.closed -= 30_000;
                measured.totals.cut = 30_000;
            },
            &[
                "30,000 of 2,000,000 connections were cut, under way at the drain's end: give a longer --drain",
            ],
        );
    }

    #[test]
    fn nothing_is_not_what_was_asked_for() {
        let measured = Measured { totals: Totals::default(), ..measured() };
        let problems = BenchReport::new(setup(), measured).verdict.problems;
        assert!(problems[0].contains("no connection was established"), "{problems:?}");
    }

    #[test]
    fn a_search_has_found_what_was_confirmed_last() {
        let second = Duration::from_secs(1);
        let problems = |outcomes: &[bool]| {
            let step = |&passed: &bool| Step { rate: 100, started: 100, lost: 0, achieved: 100.0, passed };
            let measured = Measured { steps: outcomes.iter().map(step).collect(), ..measured() };
            let setup = Setup { load: Load::search(second, second, second), ..setup() };
            BenchReport::new(setup, measured).verdict.problems.join("; ")
        };
        assert_eq!(problems(&[false, true]), "");
        for outcomes in [&[true, false][..], &[false], &[]] {
            assert!(problems(outcomes).contains("the search found no rate"), "{outcomes:?}");
        }
    }
}
