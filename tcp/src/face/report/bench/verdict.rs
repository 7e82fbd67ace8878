//! Whether a run is what it was asked to be, and if not, in whole sentences why.

use super::{BenchReport, Early, Failed, Outcome};
use crate::text::{self, grouped};

/// How far a rate, or a number of open connections, may be from what was asked for; and how many connections may fail.
const TOLERANCE: f64 = 0.01;

/// Connections on the window's edges, which may fall to either side of them.
const EDGES: f64 = 2.0;

/// A generator is late if one start of a hundred was by more than this.
const LATE_US: f64 = 1_000.0;

impl BenchReport {
    /// Sets the verdict of a report that is complete but for it.
    pub(super) fn judge(&mut self, ended_early: Option<Early>) {
        let report = &*self;
        let mut problems = Vec::new();
        for law in report.accounts.laws.iter().filter(|law| !law.holds) {
            let (left, right) = (grouped(law.left), grouped(law.right));
            problems.push(format!("the account of {} does not hold: {left} is not {right}", law.name));
        }
        if let Some(early) = ended_early {
            let [was, asked] = [report.duration_s, report.setup.load.duration_s];
            let what = match early {
                Early::Signal => "a signal ended the run",
                Early::Trouble => "the run was broken off",
            };
            problems.push(format!("{what}: {was:.1} of {asked:.1} s were measured"));
        }
        problems.extend(search(report));
        if report.connections.established == 0 && !holds_earlier_ones(report) {
            problems
                .push(format!("no connection was established{}", told(&report.connections.failed.causes())));
        } else {
            problems.extend(rate(report));
            problems.extend(concurrency(report));
            problems.extend(held_up(report));
            problems.extend(failed(report));
            // What breaks a run off cuts: that is no fault of the drain's.
            problems.extend(cut(report).filter(|_| ended_early != Some(Early::Trouble)));
        }
        self.verdict = Outcome { ok: problems.is_empty(), problems };
    }
}

/// Off by more than is allowed?
fn is_off(is: f64, asked: f64) -> bool {
    (is - asked).abs() > asked * TOLERANCE
}

fn rate(report: &BenchReport) -> Option<String> {
    // A search judges its trials itself.
    let asked = report.setup.load.asked.filter(|_| report.setup.load.kind == "rate")?;
    let achieved = report.rate_per_s.achieved;
    let connections = (achieved - asked as f64).abs() * report.duration_s;
    if !is_off(achieved, asked as f64) || connections <= EDGES {
        return None;
    }
    let off = (achieved / asked as f64 - 1.0) * 100.0;
    let (is, asked_text) = (text::rate(achieved), grouped(asked));
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
        table_full(connections.table_full)
    } else if not_started >= most_of && connections.tuples_short > 0 {
        tuples_short(connections.tuples_short)
    } else if lag.p99 > LATE_US || not_started >= most_of {
        let lag = text::duration(lag.p99);
        format!(
            "the generator was late, by {lag} at the 99th percentile: give it more workers, or ask for less"
        )
    } else {
        "nothing that was counted says why".into()
    }
}

fn table_full(times: u64) -> String {
    format!("the connection table was full {} times: allow more connections", grouped(times))
}

fn tuples_short(times: u64) -> String {
    let times = grouped(times);
    format!("no tuple was out of its TIME-WAIT {times} times: give more sources, ports or targets")
}

/// Where the rate is what comes out, want of tuples or room must not be what has made it.
fn held_up(report: &BenchReport) -> Vec<String> {
    let connections = &report.connections;
    if report.setup.load.kind == "rate" {
        return Vec::new();
    }
    let short = (connections.tuples_short > 0).then(|| tuples_short(connections.tuples_short));
    let full = (connections.table_full > 0).then(|| table_full(connections.table_full));
    let reasons = short.into_iter().chain(full);
    reasons.map(|reason| format!("connections were held up: {reason}")).collect()
}

fn concurrency(report: &BenchReport) -> Option<String> {
    let concurrency = report.concurrency?;
    is_off(concurrency.mean, concurrency.asked as f64).then(|| {
        let (is, asked) = (text::rate(concurrency.mean), grouped(concurrency.asked));
        format!("{is} connections were open on average instead of {asked}")
    })
}

/// All failures, for those that are too few to be a problem: `3 of 2,000 connections failed: 2 refused, 1 cut`, and how many
/// are let pass.
pub(super) fn few_failed(report: &BenchReport) -> Option<String> {
    let causes = report.connections.failed.causes();
    let failed: u64 = causes.iter().map(|(_, count)| count).sum();
    let started = report.connections.started;
    let allowed = if is_confirmed(report) {
        "as few as --loss lets pass"
    } else if is_beyond(failed, started) {
        // Each is looked at by itself.
        "1 % may fail, and 1 % be cut"
    } else {
        "within the 1 % that is let pass"
    };
    let (count, started) = (grouped(failed), grouped(started));
    (failed > 0).then(|| format!("{count} of {started} connections failed{} ({allowed})", told(&causes)))
}

/// More of the connections that were started than are let pass?
fn is_beyond(count: u64, started: u64) -> bool {
    count as f64 > started as f64 * TOLERANCE
}

/// Does a search stand behind its losses? They are as few as it was allowed.
fn is_confirmed(report: &BenchReport) -> bool {
    report.setup.load.kind == "search" && report.rate_per_s.asked.is_some()
}

/// Failures that are the peer's or the way's; being cut at the end is neither's.
fn failed(report: &BenchReport) -> Option<String> {
    let uncut = Failed { connect_cut: 0, cut: 0, ..report.connections.failed }.causes();
    let failed: u64 = uncut.iter().map(|(_, count)| count).sum();
    let started = report.connections.started;
    (is_beyond(failed, started) && !is_confirmed(report)).then(|| {
        let (failed, started) = (grouped(failed), grouped(started));
        format!("more than 1 % of the connections failed, {failed} of {started}{}", told(&uncut))
    })
}

/// Connections that the drain was too short for.
fn cut(report: &BenchReport) -> Option<String> {
    let Failed { connect_cut, cut, .. } = report.connections.failed;
    let (cut, started) = (connect_cut + cut, report.connections.started);
    (is_beyond(cut, started) && !is_confirmed(report)).then(|| {
        let (cut, started) = (grouped(cut), grouped(started));
        format!(
            "more than 1 % of the connections were cut, {cut} of {started}, under way at the drain's end: give a longer --drain"
        )
    })
}

/// A search has found what a confirmation of the whole duration has borne out.
fn search(report: &BenchReport) -> Option<String> {
    (report.setup.load.kind == "search" && !is_confirmed(report))
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

    use super::super::tests::{measured, meters, setup};
    use super::super::{Concurrency, Load, Measured, Setup, Step};
    use super::*;
    use synmill_engine::generator;
    use synmill_engine::generator::meters::Meter;
    use synmill_engine::generator::tally::Totals;

    /// So many connections open on average of 100.
    fn open(mean: f64) -> Concurrency {
        Concurrency { asked: 100, min: mean as u64, mean, max: mean as u64 }
    }

    fn search() -> Load {
        let second = Duration::from_secs(1);
        Load::search(second, second, second)
    }

    #[test]
    fn what_is_as_asked_needs_no_words() {
        let outcome = BenchReport::new(setup(), measured()).verdict;
        assert_eq!(outcome, Outcome { ok: true, problems: Vec::new() });
    }

    #[test]
    fn connections_that_stay_were_opened_before_the_window() {
        let mut measured = measured();
        measured.totals = Totals::default();
        measured.meters = meters(0);
        measured.concurrency = Some(open(100.0));
        let second = Duration::from_secs(1);
        let load = Load::steady(generator::Load::Concurrency(100), second, second, second);
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
        check(
            &|measured| measured.ended_early = Some(Early::Signal),
            &["a signal ended the run: 10.0 of 10.0 s"],
        );
        check(
            &|measured| {
                measured.ended_early = Some(Early::Trouble);
                measured.totals.closed -= 30_000;
                measured.totals.cut = 30_000;
            },
            &["the run was broken off: 10.0 of 10.0 s"],
        );
        check(
            &|measured| measured.meters = meters(19),
            &["the account of latencies does not hold: 2,000,000 is not 1,900,000"],
        );
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
                measured.meters = meters(18);
            },
            &[
                "200,000 failed before: 200,000 refused",
                "more than 1 % of the connections failed, 200,000 of 2,000,000: 200,000 refused",
            ],
        );
        check(
            &|measured| {
                measured.totals.connect_timed_out = measured.totals.started;
                measured.totals.established = 0;
                measured.totals.closed = 0;
                measured.totals.connect_cut = 0;
                measured.totals.reset_by_peer = 0;
                measured.meters = meters(0);
            },
            &["no connection was established: 2,000,000 connect timed out"],
        );
        check(
            &|measured| measured.concurrency = Some(open(91.0)),
            &["91.0 connections were open on average instead of 100"],
        );
        check(
            &|measured| {
                measured.totals.closed -= 30_000;
                measured.totals.cut = 30_000;
            },
            &[
                "more than 1 % of the connections were cut, 30,000 of 2,000,000, under way at the drain's end: give a longer",
            ],
        );
    }

    #[test]
    fn nothing_is_not_what_was_asked_for() {
        let measured = Measured { totals: Totals::default(), meters: meters(0), ..measured() };
        let problems = BenchReport::new(setup(), measured).verdict.problems;
        assert!(problems[0].contains("no connection was established"), "{problems:?}");
    }

    #[test]
    fn a_search_has_found_what_was_confirmed_last() {
        let report = |change: &dyn Fn(&mut Measured)| {
            let mut measured = measured();
            change(&mut measured);
            BenchReport::new(Setup { load: search(), ..setup() }, measured)
        };
        let step =
            Step { rate: 100, started: 100, lost: 0, achieved: 100.0, passed: true, confirmation: false };
        let none = "the search found no rate: none passed its trial and its confirmation";
        // A trial that passed is no confirmation.
        for steps in [vec![], vec![step], vec![step, Step { passed: false, ..step }]] {
            let report = report(&|measured| measured.steps.clone_from(&steps));
            assert_eq!((report.rate_per_s.asked, &report.verdict.problems[..]), (None, &[none.into()][..]));
        }
        let found = report(&|measured| measured.confirmed = Some(200_000));
        assert_eq!((found.rate_per_s.asked, found.verdict.problems), (Some(200_000), Vec::new()));
        // It was allowed to lose as many as it did.
        let lossy = report(&|measured| {
            measured.confirmed = Some(200_000);
            measured.totals.closed -= 100_000;
            measured.totals.reset_by_peer = 60_000;
            measured.totals.cut = 40_000;
        });
        assert_eq!(lossy.verdict.problems, Vec::<String>::new());
        let table = lossy.table();
        assert!(table.contains("close; 100,000 of 2,000,000 connections failed:"), "{table}");
        assert!(table.ends_with("40,000 cut (as few as --loss lets pass)\n"), "{table}");
    }

    #[test]
    fn a_rate_that_want_of_tuples_or_room_has_made_is_none() {
        let check = |load: Load, change: &dyn Fn(&mut Totals), sentences: &[&str]| {
            let mut measured = Measured { confirmed: Some(200_000), ..measured() };
            change(&mut measured.totals);
            if load.kind == "concurrency" {
                measured.concurrency = Some(open(100.0));
            }
            let problems = BenchReport::new(Setup { load, ..setup() }, measured).verdict.problems;
            assert_eq!(problems.len(), sentences.len(), "{problems:?}");
            for (problem, sentence) in problems.iter().zip(sentences) {
                assert!(problem.starts_with("connections were held up: ") && problem.contains(sentence));
            }
        };
        let second = Duration::from_secs(1);
        let steady = |load: generator::Load| Load::steady(load, second, second, second);
        let [max, concurrency] = [generator::Load::Max, generator::Load::Concurrency(100)].map(steady);
        for load in [max, concurrency, search()] {
            check(load, &|_| (), &[]);
            check(load, &|totals| totals.tuples_short = 8, &["no tuple was out of its TIME-WAIT 8 times"]);
            check(load, &|totals| totals.table_full = 7, &["the connection table was full 7 times"]);
        }
        // A rate says itself whether it was reached.
        check(steady(generator::Load::Rate(200_000)), &|totals| totals.tuples_short = 8, &[]);
    }
}
