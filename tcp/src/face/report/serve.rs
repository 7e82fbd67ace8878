//! The responder's report: intervals of a second, the final table, the document `synmill-serve/1`.

use std::fmt::Write as _;
use std::time::Duration;

use serde::Serialize;

use super::{
    Accounts, Named, RINGS, Site, Verdict, grown, is_gauge, softirq_percents, tenth, worker_percents,
};
use crate::host::machine::cpu::Cpu;
use crate::text::grouped;
use synmill_engine::stats::Snapshot;

/// What happened between two samples.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Interval {
    /// Its end, since the workers run.
    pub at_s: f64,
    /// Connections opened, by us or by peers.
    pub opened_per_s: u64,
    /// Connections closed: ended in whatever way, or gone into TIME-WAIT, where both ends have closed.
    pub closed_per_s: u64,
    /// Connections not closed at its end.
    pub held: u64,
    /// Connections in TIME-WAIT at its end: closed, and remembered for a while.
    pub time_wait: u64,
    /// Segments received.
    pub in_segs_per_s: u64,
    /// Segments sent, retransmissions not counted.
    pub out_segs_per_s: u64,
    /// Segments sent again in the interval.
    pub retrans_segs: u64,
    /// What was dropped in the interval; reasons that occurred only.
    pub drops: Named,
    /// Losses at the rings in the interval; kinds that occurred only.
    pub ring_losses: Named,
    /// CPU time of each worker's thread, user and system.
    pub worker_cpu_percent: Vec<f64>,
    /// Time each worker's core spent in soft interrupts: the kernel's side of the packets, and others'.
    pub softirq_percent: Vec<f64>,
}

/// Turns counters that only grow into intervals.
#[derive(Debug, Default)]
pub struct Sampler {
    at: Duration,
    before: Snapshot,
    cpu: Cpu,
}

impl Sampler {
    /// A sampler that starts at 0 with this much CPU time used.
    #[must_use]
    pub fn new(cpu: Cpu) -> Self {
        Self { cpu, ..Self::default() }
    }

    /// The interval that ends `at`, a time since the workers run.
    pub fn sample(&mut self, at: Duration, now: &Snapshot, cpu: Cpu) -> Interval {
        let before = std::mem::replace(&mut self.before, *now);
        let cpu_before = std::mem::replace(&mut self.cpu, cpu);
        let seconds = at.saturating_sub(self.at).as_secs_f64().max(1e-3);
        self.at = at;
        let rate = |after: u64, before: u64| (after.saturating_sub(before) as f64 / seconds).round() as u64;
        Interval {
            at_s: tenth(at.as_secs_f64()),
            opened_per_s: rate(opened(now), opened(&before)),
            closed_per_s: rate(closed(now), closed(&before)),
            held: held(now),
            time_wait: now.curr_time_wait,
            in_segs_per_s: rate(now.in_segs, before.in_segs),
            out_segs_per_s: rate(now.out_segs, before.out_segs),
            retrans_segs: now.retrans_segs.saturating_sub(before.retrans_segs),
            drops: grown(now.drops(), before.drops()).collect(),
            ring_losses: grown(now.counts(), before.counts())
                .filter(|(name, _)| RINGS.contains(name))
                .collect(),
            worker_cpu_percent: worker_percents(&cpu_before, &self.cpu, seconds),
            softirq_percent: softirq_percents(&cpu_before, &self.cpu, seconds),
        }
    }
}

pub(super) fn opened(snapshot: &Snapshot) -> u64 {
    snapshot.active_opens + snapshot.passive_opens
}

/// A connection in TIME-WAIT is closed already, and does not close once more when its time is over.
pub(super) fn closed(snapshot: &Snapshot) -> u64 {
    snapshot.ended() + snapshot.curr_time_wait
}

/// Connections that are not closed: those in the table, TIME-WAIT left out.
#[must_use]
pub fn held(snapshot: &Snapshot) -> u64 {
    // The counters are not read at one moment.
    snapshot.curr_connections.saturating_sub(snapshot.curr_time_wait)
}

impl Interval {
    /// The line a second.
    #[must_use]
    pub fn line(&self) -> String {
        let mut line = format!(
            "{:>5.0} s  opened {}/s  closed {}/s  held {}",
            self.at_s,
            grouped(self.opened_per_s),
            grouped(self.closed_per_s),
            grouped(self.held),
        );
        let percents =
            |values: &[f64]| values.iter().map(|v| format!("{v:.0}")).collect::<Vec<_>>().join(" ");
        // Writing to a string does not fail.
        if self.time_wait > 0 {
            let _ = write!(line, "  time-wait {}", grouped(self.time_wait));
        }
        let (in_segs, out_segs) = (grouped(self.in_segs_per_s), grouped(self.out_segs_per_s));
        let _ = write!(line, "  segments in {in_segs}/s out {out_segs}/s");
        let _ = write!(line, "  cpu % {}", percents(&self.worker_cpu_percent));
        let _ = write!(line, "  softirq % {}", percents(&self.softirq_percent));
        if self.retrans_segs > 0 {
            let _ = write!(line, "  retrans_segs {}", grouped(self.retrans_segs));
        }
        for (name, count) in self.drops.0.iter().chain(&self.ring_losses.0) {
            let _ = write!(line, "  {name} {}", grouped(*count));
        }
        line
    }
}

/// What became of all connections: opened = closed + held.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub struct Connections {
    /// Opened, by us or by peers.
    pub opened: u64,
    /// Closed: ended in whatever way, or in TIME-WAIT at the end.
    pub closed: u64,
    /// Not closed at the end.
    pub held: u64,
    /// Those of the closed that were in TIME-WAIT at the end.
    pub time_wait: u64,
}

impl From<&Snapshot> for Connections {
    fn from(totals: &Snapshot) -> Self {
        Self {
            opened: opened(totals),
            closed: closed(totals),
            held: held(totals),
            time_wait: totals.curr_time_wait,
        }
    }
}

/// The whole run.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// The shape of this document, `synmill-serve/1`.
    pub schema: &'static str,
    /// Command, host and interface.
    #[serde(flatten)]
    pub site: Site,
    /// From the start of the workers to their end.
    pub duration_s: f64,
    /// What became of the connections.
    pub connections: Connections,
    /// Every counter.
    pub counters: Named,
    /// Every reason to drop.
    pub drops: Named,
    /// The XDP program's counters.
    pub steering: Named,
    /// The laws.
    pub accounts: Accounts,
    /// A second each; of a run of more than a day the last day's.
    pub intervals: Vec<Interval>,
}

impl Report {
    /// Sets the counters and what follows from them.
    #[must_use]
    pub fn with_counts(mut self, totals: &Snapshot) -> Self {
        let laws: Vec<Verdict> = totals.laws().into_iter().map(Verdict::from).collect();
        self.accounts = Accounts { closed: laws.iter().all(|law| law.holds), laws };
        self.connections = Connections::from(totals);
        self.counters = totals.counts().collect();
        self.drops = totals.drops().collect();
        self
    }

    /// The final table: what became of the connections, every count that is not 0, with its rate, and the accounts.
    #[must_use]
    pub fn table(&self) -> String {
        let mut table = format!(
            "{} ({}), {}, {:.2} s\n",
            self.site.interface,
            self.site.driver,
            self.site.rings(),
            self.duration_s,
        );
        let steering = self.steering.0.iter().map(|(name, count)| (format!("xdp {name}"), *count));
        let counts = self.counters.0.iter().chain(&self.drops.0).cloned().chain(steering);
        let counts: Vec<(String, u64)> = counts.filter(|&(_, count)| count > 0).collect();
        // A rate is an average over seconds: of a part of one it says nothing.
        let rates = self.duration_s >= 1.0;
        if rates && !counts.is_empty() {
            // Writing to a string does not fail.
            let _ = writeln!(table, "{:<28}{:>20}{:>16}", "", "total", "per second");
        }
        for (name, count) in counts {
            let _ = write!(table, "{name:<28}{:>20}", grouped(count));
            if rates && !is_gauge(&name) {
                let _ = write!(table, "{:>16}", grouped((count as f64 / self.duration_s).round() as u64));
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
            let (sign, end) = if law.holds { ("=", "") } else { ("is not", "  <- this law does not hold") };
            let _ = writeln!(
                table,
                "account of {:<17}{} {sign} {}{end}",
                law.name,
                grouped(law.left),
                grouped(law.right)
            );
        }
        let verdict = if self.accounts.closed { "the accounts close" } else { "the accounts do NOT close" };
        let _ = writeln!(table, "{verdict}");
        table
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::super::Host;
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
        assert!(first.line().contains("held 600  time-wait 400  segments"), "{}", first.line());
        assert_eq!((&first.worker_cpu_percent[..], &first.softirq_percent[..]), (&[80.0][..], &[10.0][..]));

        // All come out of TIME-WAIT: they had closed when they went in.
        now.passive_opens += 500;
        now.ended_closed += 400;
        now.curr_time_wait = 0;
        now.curr_connections = 1100;
        now.retrans_segs = 3;
        now.drop_land = 2;
        now.rx_ring_full = 1;
        let second = sampler.sample(Duration::from_millis(1500), &now, cpu(230, 60));
        assert_eq!((second.opened_per_s, second.closed_per_s, second.retrans_segs), (1000, 0, 3));
        assert_eq!(second.worker_cpu_percent, [100.0]);
        let line = second.line();
        for part in ["opened 1,000/s", "retrans_segs 3", "drop_land 2", "rx_ring_full 1", "cpu % 100"] {
            assert!(line.contains(part), "{line}");
        }
        assert_eq!((second.held, second.time_wait), (1100, 0));
        assert!(
            !line.contains("drop_martian") && !line.contains("time-wait") && !line.contains('\n'),
            "{line}"
        );
    }

    pub(in super::super) fn report(totals: &Snapshot) -> Report {
        let report = Report {
            schema: "synmill-serve/1",
            site: Site {
                command: vec!["synmill".into()],
                host: Host { kernel: "6.18".into(), cpus: 2, cpu_model: String::new() },
                interface: "t0".into(),
                driver: "veth".into(),
                mode: "copy".into(),
                queues: vec![0, 1],
                workers: 1,
            },
            duration_s: 2.0,
            connections: Connections::default(),
            counters: Named::default(),
            drops: Named::default(),
            steering: [("redirected", 7)].into_iter().collect(),
            accounts: Accounts { closed: false, laws: Vec::new() },
            intervals: vec![Interval::default()],
        };
        report.with_counts(totals)
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
        assert!(
            table.contains("passive_opens") && table.contains("2,468") && table.contains("1,234"),
            "{table}"
        );
        assert!(table.contains("xdp redirected") && !table.contains("active_opens"), "{table}");
        assert!(table.ends_with("the accounts close\n"), "{table}");
        assert!(table.contains("2 queues, 1 worker,") && table.contains("per second"), "{table}");
        assert!(table.contains("connections: 2,468 opened, 0 closed, 2,468 held\n"), "{table}");
        totals.in_frames = 1;
        totals.curr_time_wait = 2460;
        let table = report(&totals).table();
        assert!(table.contains("account of frames") && table.contains("1 is not 0"), "{table}");
        assert!(table.ends_with("do NOT close\n"), "{table}");
        let what = "connections: 2,468 opened, 2,460 closed, 8 held; 2,460 of the closed in TIME-WAIT\n";
        assert!(table.contains(what), "{table}");
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
        let json = serde_json::to_value(report(&Snapshot { drop_land: 4, ..Snapshot::default() })).unwrap();
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
