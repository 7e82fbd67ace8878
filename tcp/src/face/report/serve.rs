//! The responder's report: an interval per second, the final table, the document `synmill-serve/1`.

use std::fmt::Write as _;
use std::time::Duration;

use serde::Serialize;

use super::interval::{Busy, Losses};
use super::{Accounts, Named, Site, per_s, tenth};
use crate::host::machine::cpu::Cpu;
use crate::text::grouped;
use synmill_engine::stats::Snapshot;

/// Activity between two samples.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Interval {
    /// End of the interval, from the start of the workers.
    pub at_s: f64,
    /// Connections opened, by us or by peers.
    pub opened_per_s: u64,
    /// Connections closed: ended in any way, or entered TIME-WAIT, where both ends have closed.
    pub closed_per_s: u64,
    /// Connections not closed at the end of the interval.
    pub held: u64,
    /// Connections in TIME-WAIT at the end of the interval: closed, but still in the table.
    pub time_wait: u64,
    /// Segments received.
    pub in_segs_per_s: u64,
    /// Segments sent, retransmissions excluded.
    pub out_segs_per_s: u64,
    /// Losses in the interval.
    #[serde(flatten)]
    pub losses: Losses,
    /// CPU time in the interval.
    #[serde(flatten)]
    pub busy: Busy,
}

/// Turns counters that only grow into intervals.
#[derive(Debug, Default)]
pub struct Sampler {
    at: Duration,
    before: Snapshot,
    cpu: Cpu,
}

impl Sampler {
    /// Creates a sampler for workers that start now. `cpu` is the CPU time used before.
    #[must_use]
    pub fn new(cpu: Cpu) -> Self {
        Self { cpu, ..Self::default() }
    }

    /// Returns the interval that ends at `at`, a time from the start of the workers.
    pub fn sample(&mut self, at: Duration, now: &Snapshot, cpu: Cpu) -> Interval {
        let seconds = at.saturating_sub(self.at).as_secs_f64().max(1e-3);
        let grown = now.since(&self.before);
        let rate = |count: u64| per_s(count, seconds).round() as u64;
        let interval = Interval {
            at_s: tenth(at.as_secs_f64()),
            opened_per_s: rate(opened(&grown)),
            closed_per_s: rate(closed(now).saturating_sub(closed(&self.before))),
            held: held(now),
            time_wait: now.curr_time_wait,
            in_segs_per_s: rate(grown.in_segs),
            out_segs_per_s: rate(grown.out_segs),
            losses: Losses::from(&grown),
            busy: Busy::between(&self.cpu, &cpu, seconds),
        };
        *self = Self { at, before: *now, cpu };
        interval
    }
}

fn opened(snapshot: &Snapshot) -> u64 {
    snapshot.active_opens + snapshot.passive_opens
}

/// Returns the connections that closed. One in TIME-WAIT has closed already, and does not close again when TIME-WAIT ends.
pub(super) fn closed(snapshot: &Snapshot) -> u64 {
    snapshot.ended() + snapshot.curr_time_wait
}

/// Returns the connections that are not closed: those in the table that are not in TIME-WAIT.
#[must_use]
pub fn held(snapshot: &Snapshot) -> u64 {
    // The two counters are not read at the same moment.
    snapshot.curr_connections.saturating_sub(snapshot.curr_time_wait)
}

impl Interval {
    /// Returns the interval's line on standard output.
    #[must_use]
    pub fn line(&self) -> String {
        let mut parts = vec![
            format!("{:>5.0} s", self.at_s),
            format!("opened {}/s", grouped(self.opened_per_s)),
            format!("closed {}/s", grouped(self.closed_per_s)),
            format!("held {}", grouped(self.held)),
        ];
        parts.extend((self.time_wait > 0).then(|| format!("time-wait {}", grouped(self.time_wait))));
        let [received, sent] = [self.in_segs_per_s, self.out_segs_per_s].map(grouped);
        let [cpu, softirq] = self.busy.lists();
        parts.push(format!("segments in {received}/s out {sent}/s  cpu % {cpu}  softirq % {softirq}"));
        parts.extend(self.losses.words("retrans_segs"));
        parts.join("  ")
    }
}

/// Numbers of connections: opened = closed + held.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub struct Connections {
    /// Opened, by us or by peers.
    pub opened: u64,
    /// Closed: ended in any way, or in TIME-WAIT at the end.
    pub closed: u64,
    /// Not closed at the end.
    pub held: u64,
    /// Closed connections that were in TIME-WAIT at the end.
    pub time_wait: u64,
}

/// The report of a whole run.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// The document's schema, `synmill-serve/1`.
    pub schema: &'static str,
    /// Command, host and interface.
    #[serde(flatten)]
    pub site: Site,
    /// Time from the start of the workers to their end.
    pub duration_s: f64,
    /// Numbers of connections.
    pub connections: Connections,
    /// All counters but the drops.
    pub counters: Named,
    /// Frames dropped, by reason.
    pub drops: Named,
    /// Counters of the XDP program.
    pub steering: Named,
    /// The accounts.
    pub accounts: Accounts,
    /// An interval per second; of a run longer than a day only the last day.
    pub intervals: Vec<Interval>,
}

impl Report {
    /// Creates the report from the counters at the end: `totals` of the workers, `steering` of the XDP program.
    #[must_use]
    pub fn new(
        site: Site,
        duration: Duration,
        totals: &Snapshot,
        steering: Named,
        intervals: Vec<Interval>,
    ) -> Self {
        Self {
            schema: "synmill-serve/1",
            site,
            duration_s: duration.as_secs_f64(),
            connections: Connections {
                opened: opened(totals),
                closed: closed(totals),
                held: held(totals),
                time_wait: totals.curr_time_wait,
            },
            counters: totals.counts().collect(),
            drops: totals.drops().collect(),
            steering,
            accounts: totals.laws().into_iter().collect(),
            intervals,
        }
    }

    /// Returns the final table: every count that is not 0 with its rate, the numbers of connections, and the accounts.
    #[must_use]
    pub fn table(&self) -> String {
        let Site { interface, driver, .. } = &self.site;
        let mut table = format!("{interface} ({driver}), {}, {:.2} s\n", self.site.rings(), self.duration_s);
        let counts = self.counters.occurred().chain(self.drops.occurred());
        let counts = counts.map(|(name, count)| (name.to_owned(), count));
        let steering = self.steering.occurred().map(|(name, count)| (format!("xdp {name}"), count));
        let counts: Vec<(String, u64)> = counts.chain(steering).collect();
        // A rate is an average over seconds, so a run of less than one has none.
        let rates = self.duration_s >= 1.0;
        // Writing to a string does not fail.
        if rates && !counts.is_empty() {
            let _ = writeln!(table, "{:<28}{:>20}{:>16}", "", "total", "per second");
        }
        for (name, count) in counts {
            let _ = write!(table, "{name:<28}{:>20}", grouped(count));
            // A gauge has no rate.
            if rates && !name.starts_with("curr_") {
                let _ = write!(table, "{:>16}", grouped(per_s(count, self.duration_s).round() as u64));
            }
            table.push('\n');
        }
        let Connections { opened, closed, held, time_wait } = self.connections;
        let [opened, closed, held] = [opened, closed, held].map(grouped);
        let _ = write!(table, "connections: {opened} opened, {closed} closed, {held} held");
        if time_wait > 0 {
            let _ = write!(table, "; {} of the closed in TIME-WAIT", grouped(time_wait));
        }
        table.push('\n');
        for law in &self.accounts.laws {
            let [left, right] = [law.left, law.right].map(grouped);
            let (sign, end) =
                if law.holds { ("=", "") } else { ("is not", "  <- this account does not hold") };
            let _ = writeln!(table, "account of {:<17}{left} {sign} {right}{end}", law.name);
        }
        let verdict = if self.accounts.closed { "the accounts close" } else { "the accounts do NOT close" };
        table + verdict + "\n"
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::super::Host;
    use super::super::tests::{has, lacks};
    use super::*;
    use crate::host::machine::cpu::CoreTicks;

    fn cpu(worker: u64, softirq: u64) -> Cpu {
        let core = CoreTicks { softirq, ..CoreTicks::default() };
        Cpu { workers: vec![worker], cores: vec![core], ..Cpu::default() }
    }

    #[test]
    fn an_interval_is_a_difference_over_its_time() {
        let mut sampler = Sampler::new(cpu(100, 50));
        let mut now = Snapshot {
            passive_opens: 3000,
            ended_closed: 2000,
            curr_connections: 1000,
            curr_time_wait: 400,
            ..Snapshot::default()
        };
        let first = sampler.sample(Duration::from_secs(1), &now, cpu(180, 60));
        assert_eq!((first.opened_per_s, first.closed_per_s), (3000, 2400));
        assert_eq!((first.held, first.time_wait), (600, 400));
        has(&first.line(), &["held 600  time-wait 400  segments"]);
        assert_eq!(
            (&first.busy.worker_cpu_percent[..], &first.busy.softirq_percent[..]),
            (&[80.0][..], &[10.0][..])
        );

        // All leave TIME-WAIT. They had closed when they entered it.
        now.passive_opens += 500;
        now.ended_closed += 400;
        now.curr_time_wait = 0;
        now.curr_connections = 1100;
        now.retrans_segs = 3;
        now.drop_land = 2;
        now.rx_ring_full = 1;
        let second = sampler.sample(Duration::from_millis(1500), &now, cpu(230, 60));
        assert_eq!((second.opened_per_s, second.closed_per_s, second.losses.retrans_segs), (1000, 0, 3));
        assert_eq!(second.busy.worker_cpu_percent, [100.0]);
        let line = second.line();
        has(&line, &["opened 1,000/s", "retrans_segs 3", "drop_land 2", "rx_ring_full 1", "cpu % 100"]);
        assert_eq!((second.held, second.time_wait), (1100, 0));
        lacks(&line, &["drop_martian", "time-wait", "\n"]);
    }

    pub(in super::super) fn site() -> Site {
        Site {
            command: vec!["synmill".into()],
            host: Host { kernel: "6.18".into(), cpus: 2, cpu_model: "Model".into() },
            interface: "t0".into(),
            driver: "veth".into(),
            mode: "copy".into(),
            queues: vec![0, 1],
            workers: 1,
        }
    }

    pub(in super::super) fn report(totals: &Snapshot) -> Report {
        let steering = [("redirected", 7)].into_iter().collect();
        Report::new(site(), Duration::from_secs(2), totals, steering, vec![Interval::default()])
    }

    #[test]
    fn the_table_shows_what_happened_and_whether_it_adds_up() {
        let mut totals = Snapshot {
            passive_opens: 2468,
            established: 2468,
            curr_connections: 2468,
            ..Snapshot::default()
        };
        let table = report(&totals).table();
        has(
            &table,
            &["passive_opens", "2,468", "1,234", "xdp redirected", "2 queues, 1 worker,", "per second"],
        );
        has(&table, &["connections: 2,468 opened, 0 closed, 2,468 held\n"]);
        lacks(&table, &["active_opens"]);
        assert!(table.ends_with("the accounts close\n"), "{table}");
        totals.in_frames = 1;
        totals.curr_time_wait = 2460;
        let table = report(&totals).table();
        has(&table, &["account of frames", "1 is not 0"]);
        has(&table, &["connections: 2,468 opened, 2,460 closed, 8 held; 2,460 of the closed in TIME-WAIT\n"]);
        assert!(table.ends_with("do NOT close\n"), "{table}");
    }

    #[test]
    fn a_part_of_a_second_has_no_rates() {
        let mut report = report(&Snapshot { in_segs: 14, ..Snapshot::default() });
        report.duration_s = 0.5;
        let table = report.table();
        let line = table.lines().find(|line| line.starts_with("in_segs")).unwrap();
        assert!(line.ends_with(" 14") && !table.contains("per second"), "{table}");
    }

    #[test]
    fn the_document_has_every_counter_by_name() {
        let report = report(&Snapshot { drop_land: 4, ..Snapshot::default() });
        let json = serde_json::to_value(&report).unwrap();
        assert_eq!(json["schema"], "synmill-serve/1");
        assert_eq!(json["drops"]["drop_land"], 4);
        assert_eq!(json["counters"]["passive_opens"], 0);
        assert_eq!(json["steering"]["redirected"], 7);
        assert_eq!(json["accounts"]["closed"], false);
        assert_eq!(json["accounts"]["laws"][2]["name"], "frames");
        assert_eq!(json["accounts"]["laws"][2]["holds"], false);
        assert_eq!(json["intervals"][0]["opened_per_s"], 0);
        assert_eq!(json["intervals"][0]["time_wait"], 0);
        assert_eq!(json["connections"]["held"], 0);
        assert_eq!(json["counters"].as_object().unwrap().len(), Snapshot::default().counts().count());
    }
}
