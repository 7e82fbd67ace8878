//! The table of one screen.

use std::fmt::{Display, Write as _};

use super::losses::nic_losses;
use super::verdict::few_failed;
use super::{BenchReport, CoreUse, Latency, Step};
use crate::face::report::{Named, Verdict};
use crate::text::{counted, duration, grouped, rate};

/// More cores than this are shown as one line of averages.
const MOST_CORES: usize = 6;
/// Of a longer search the last trials are shown: they decide.
const MOST_STEPS: usize = 10;
/// Where a line's content begins.
const LABEL: usize = 14;
/// How wide the content is: with the label 100 columns.
const CONTENT: usize = 86;

/// What happened, with its count; nothing that did not.
fn occurred<'a>(pairs: impl IntoIterator<Item = (&'a str, u64)>) -> Vec<String> {
    let pairs = pairs.into_iter().filter(|&(_, count)| count > 0);
    pairs.map(|(name, count)| format!("{} {}", name.replace('_', " "), grouped(count))).collect()
}

/// The table's text, line by line.
struct Table(String);

impl Table {
    /// A line with a label; text that is too long goes on in the next.
    fn line(&mut self, label: &str, text: impl Display) {
        let text = text.to_string();
        let mut rest = text.as_str();
        let mut label = label;
        loop {
            let (line, further) = broken(rest);
            // Writing to a string does not fail.
            let _ = writeln!(self.0, "{}", format!("{label:<LABEL$}{line}").trim_end());
            if further.is_empty() {
                return;
            }
            (label, rest) = ("", further);
        }
    }

    /// An empty line between two groups.
    fn gap(&mut self) {
        self.0.push('\n');
    }

    /// A line of parts, unless there are none.
    fn parts(&mut self, label: &str, parts: &[String]) {
        if !parts.is_empty() {
            self.line(label, parts.join("   "));
        }
    }
}

/// What fits on a line, and what does not: broken at the last space that there is before the end.
fn broken(text: &str) -> (&str, &str) {
    let Some((end, _)) = text.char_indices().nth(CONTENT) else { return (text, "") };
    let space = text[..end].rfind(' ').filter(|&space| space > 0).unwrap_or(end);
    (text[..space].trim_end(), text[space..].trim_start())
}

impl BenchReport {
    /// The final table: what was asked and achieved, what became of the connections, how long things took, what was
    /// lost, what it cost, the accounts, and at the end what is not as it was asked for.
    #[must_use]
    pub fn table(&self) -> String {
        let mut table = Table(String::new());
        self.heading(&mut table);
        self.counts(&mut table);
        self.latencies(&mut table);
        self.losses(&mut table);
        self.cores(&mut table);
        self.trials(&mut table);
        self.outcome(&mut table);
        table.0
    }

    fn heading(&self, table: &mut Table) {
        let site = &self.setup.site;
        let driver = if site.driver.is_empty() { "unknown driver" } else { &site.driver };
        table.line("interface", format!("{} ({driver}), {}", site.interface, site.rings()));
        let requests = match self.setup.workload.requests {
            0 => String::new(),
            number => format!(", {}", counted(number, "request")),
        };
        let targets = match self.setup.targets.as_slice() {
            [first, rest @ ..] if !rest.is_empty() => format!("{first} and {} more", rest.len()),
            targets => targets.concat(),
        };
        let line = format!(
            "{}{requests}, closed by {}, to {targets}, {:.2} s measured",
            self.setup.workload.kind, self.setup.workload.close, self.duration_s
        );
        table.line("workload", line);
    }

    fn counts(&self, table: &mut Table) {
        let rates = &self.rate_per_s;
        let mut parts = Vec::new();
        parts.extend(rates.asked.map(|asked| format!("asked {}/s", grouped(asked))));
        parts.push(format!("achieved {}/s", rate(rates.achieved)));
        parts.push(format!("started {}/s", rate(rates.started)));
        parts.push(format!("closed {}/s", rate(rates.closed)));
        table.parts("rate", &parts);
        if let Some(open) = self.concurrency {
            let [asked, min, max] = [open.asked, open.min, open.max].map(grouped);
            table.line("open", format!("asked {asked}   mean {}   min {min}   max {max}", rate(open.mean)));
        }
        let connections = &self.connections;
        let [started, established, closed] =
            [connections.started, connections.established, connections.closed].map(grouped);
        let mut parts = vec![
            format!("started {started}"),
            format!("established {established}"),
            format!("closed {closed}"),
        ];
        parts.extend(occurred([("not started", connections.not_started)]));
        table.parts("connections", &parts);
        table.parts("  failed", &occurred(connections.failed.causes()));
        if let Some(bad) = &connections.first_bad_response {
            table.line("  response", format!("bad; the first: {bad}"));
        }
        let short = [("table full", connections.table_full), ("no tuple free", connections.tuples_short)];
        table.parts("  held up", &occurred(short));
        let requests = &self.requests;
        if requests.started > 0 {
            let [started, done] = [requests.started, requests.done].map(grouped);
            let mut parts = vec![format!("started {started}"), format!("done {done}")];
            parts.push(format!("{}/s", rate(requests.per_s)));
            parts.extend(occurred([("http errors", requests.http_errors)]));
            table.parts("requests", &parts);
        }
        let packets = &self.packets_per_connection;
        let [out, inward] = [packets.out_total, packets.in_total].map(grouped);
        let each = format!("{:.2} out + {:.2} in, each connection", packets.out, packets.inward);
        table.line("packets", format!("{each}   ({out} out, {inward} in, ramp to drain)"));
    }

    fn latencies(&self, table: &mut Table) {
        let (latency, from_syn) = (&self.latency_us, &self.latency_from_syn_us);
        let rows = [
            ("  connect", &latency.connect),
            ("    from SYN", &from_syn.connect),
            ("  first byte", &latency.first_byte),
            ("    from SYN", &from_syn.first_byte),
            ("  request", &latency.request),
            ("  close", &latency.close),
            ("  life", &latency.life),
            ("    from SYN", &from_syn.life),
            ("  start lag", &self.start_lag_us),
        ];
        let cells = |cells: [&str; 7]| {
            let [p50, p90, p99, p999, p9999, max, count] = cells;
            format!("{p50:>10}{p90:>11}{p99:>11}{p999:>11}{p9999:>11}{max:>11}{count:>15}")
        };
        let mut heading = Some(cells(["p50", "p90", "p99", "p99.9", "p99.99", "max", "count"]));
        for (name, latency) in rows.into_iter().filter(|(_, latency)| latency.count > 0) {
            if let Some(heading) = heading.take() {
                table.gap();
                table.line("latency", heading);
            }
            let Latency { p50, p90, p99, p999, p9999, max, count } = *latency;
            let [p50, p90, p99, p999, p9999, max] = [p50, p90, p99, p999, p9999, max].map(duration);
            table.line(name, cells([&p50, &p90, &p99, &p999, &p9999, &max, &grouped(count)]));
        }
    }

    fn losses(&self, table: &mut Table) {
        table.gap();
        let again = &self.retransmissions;
        let again = [
            ("SYNs", again.syn),
            ("timeouts", again.timeout),
            ("fast recoveries", again.fast),
            ("segments in all", again.segs),
        ];
        table.parts("sent again", &occurred(again));
        let received = &self.received;
        let received = [
            ("duplicates", received.duplicates),
            ("out of order", received.out_of_order),
            ("bad checksums or headers", received.errors),
        ];
        table.parts("received", &occurred(received));
        let lost = &self.lost_syns;
        if lost.total > 0 {
            table.line("SYNs lost", format!("{}: {}", grouped(lost.total), lost.places().join(", ")));
        }
        let named = |named: &Named| {
            let pairs = named.0.iter().map(|(name, count)| (name.trim_start_matches("drop_"), *count));
            occurred(pairs)
        };
        table.parts("our rings", &named(&self.rings));
        table.parts("NIC", &occurred(nic_losses(&self.nic)));
        table.parts("dropped", &named(&self.drops));
    }

    fn cores(&self, table: &mut Table) {
        let cores = &self.cpu.cores;
        let mut label = "cpu";
        let mut line = |name: String, core: &CoreUse| {
            let CoreUse { user_percent, system_percent, softirq_percent, idle_percent, .. } = core;
            let busy = format!("user {user_percent:>3.0} %   system {system_percent:>3.0} %");
            let rest = format!("interrupts {softirq_percent:>3.0} %   idle {idle_percent:>3.0} %");
            table.line(label, format!("{name:<9}{busy}   {rest}"));
            label = "";
        };
        if cores.len() <= MOST_CORES {
            cores.iter().for_each(|core| line(format!("core {}", core.core), core));
        } else {
            let mean = |part: fn(&CoreUse) -> f64| cores.iter().map(part).sum::<f64>() / cores.len() as f64;
            let all = CoreUse {
                core: 0,
                user_percent: mean(|core| core.user_percent),
                system_percent: mean(|core| core.system_percent),
                softirq_percent: mean(|core| core.softirq_percent),
                idle_percent: mean(|core| core.idle_percent),
            };
            line(counted(cores.len() as u64, "core"), &all);
            if let Some(core) = cores.iter().min_by(|a, b| a.idle_percent.total_cmp(&b.idle_percent)) {
                line(format!("core {}", core.core), core);
            }
        }
        if let Some(ns) = self.cpu.ns_per_connection {
            let text = format!("{} ns a connection: all that these cores did", grouped(ns as u64));
            table.line("", text);
        }
    }

    fn trials(&self, table: &mut Table) {
        if self.steps.is_empty() {
            return;
        }
        table.line("search", format!("{:>12}{:>14}{:>12}{:>16}", "rate/s", "started", "lost", "achieved/s"));
        for step in &self.steps[self.steps.len().saturating_sub(MOST_STEPS)..] {
            let Step { rate: asked, started, lost, achieved, passed, confirmation } = *step;
            let [asked, started, lost] = [asked, started, lost].map(grouped);
            let passed = if passed { "passed" } else { "failed" };
            let confirmation = if confirmation { " (confirmation)" } else { "" };
            let achieved = rate(achieved);
            let line = format!("{asked:>12}{started:>14}{lost:>12}{achieved:>16}   {passed}{confirmation}");
            table.line("", line);
        }
        // A search ends with the first confirmation that passes.
        if let Some(found) = self.steps.last().filter(|last| last.confirmation && last.passed) {
            let loss = if found.lost == 0 { "without loss" } else { "within the loss allowed" };
            table.line("", format!("highest rate {loss}: {}/s", grouped(found.rate)));
        }
    }

    fn outcome(&self, table: &mut Table) {
        table.gap();
        for (number, laws) in self.accounts.laws.chunks(2).enumerate() {
            let law = |law: &Verdict| {
                let sign = if law.holds { "=" } else { "is NOT" };
                format!("{:<12}{} {sign} {}", law.name, grouped(law.left), grouped(law.right))
            };
            let laws: String = laws.iter().map(|one| format!("{:<43}", law(one))).collect();
            table.line(if number == 0 { "accounts" } else { "" }, laws);
        }
        if self.verdict.ok {
            let failed = few_failed(self).map_or_else(String::new, |failed| format!("; {failed}"));
            return table.line("verdict", format!("all is as asked, and the accounts close{failed}"));
        }
        table.line("verdict", "NOT as asked:");
        self.verdict.problems.iter().for_each(|problem| table.line("", format!("- {problem}")));
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{measured, setup, troubled};
    use super::*;
    use crate::face::report::bench::{CpuUse, Measured};

    fn fits(table: &str, lines: usize) {
        assert!(table.lines().count() <= lines, "{table}");
        for line in table.lines() {
            assert!(line.chars().count() <= LABEL + CONTENT && line.trim_end() == line, "{line}");
        }
    }

    #[test]
    fn a_run_without_trouble_has_a_short_table() {
        let table = BenchReport::new(setup(), measured()).table();
        fits(&table, 30);
        for part in ["asked 200,000/s   achieved 200,000/s", "core 1", "4.00 out + 3.00 in, each connection"]
        {
            assert!(table.contains(part), "{part}: {table}");
        }
        for part in [
            "failed",
            "received",
            "held up",
            "first byte",
            "sent again",
            "dropped",
            "search",
            "requests",
            "NIC",
        ] {
            assert!(!table.contains(part), "{part}: {table}");
        }
        assert!(table.ends_with("all is as asked, and the accounts close\n"), "{table}");
    }

    #[test]
    fn few_failures_are_named_beside_the_verdict() {
        let check = |reset_by_peer: u64, cut: u64, verdict: &str| {
            let mut measured = measured();
            measured.totals.closed -= reset_by_peer + cut;
            measured.totals.reset_by_peer = reset_by_peer;
            measured.totals.cut = cut;
            let table = BenchReport::new(setup(), measured).table();
            let table = table.split_whitespace().collect::<Vec<_>>().join(" ");
            let verdict = format!("all is as asked, and the accounts close; {verdict}");
            assert!(table.ends_with(&verdict), "{verdict}: {table}");
        };
        check(
            900,
            300,
            "1,200 of 2,000,000 connections failed: 900 reset by peer, 300 cut (within the 1 % that is let pass)",
        );
        check(
            15_000,
            16_000,
            "31,000 of 2,000,000 connections failed: 15,000 reset by peer, 16,000 cut (1 % may fail, and 1 % be cut)",
        );
    }

    #[test]
    fn what_went_wrong_is_in_the_table() {
        let report = troubled();
        let table = report.table();
        fits(&table, 48);
        for part in [
            "refused 300,000",
            "not started 70,000",
            "table full 12",
            "http errors 5",
            "SYNs lost     57: 48 to 57 at the peer or on the way, at most 2 at our own TX ring, at most 3 at",
            "              our own RX ring, at most 4 at the NIC",
            "received      duplicates 21   out of order 22   bad checksums or headers 23",
            "rx missed errors 4",
            "dropped       land 7",
            "frames      7,800,000 is NOT 7,800,007",
            "first byte",
            "passed",
            "NOT as asked",
        ] {
            assert!(table.contains(part), "{part}: {table}");
        }
    }

    #[test]
    fn the_result_of_a_search_is_named_below_its_trials() {
        let step = Step {
            rate: 227_259,
            started: 2_272_590,
            lost: 0,
            achieved: 227_258.9,
            passed: true,
            confirmation: false,
        };
        let confirmed = Step { confirmation: true, ..step };
        let table = |steps: &[Step]| {
            let table = BenchReport::new(setup(), Measured { steps: steps.to_vec(), ..measured() }).table();
            fits(&table, 36);
            table
        };
        let found = table(&[step, confirmed]);
        assert_eq!(found.matches("passed\n").count(), 1, "{found}");
        let end =
            "         227,259   passed (confirmation)\n              highest rate without loss: 227,259/s\n";
        assert!(found.contains(end), "{found}");
        let allowed = table(&[step, Step { lost: 12, ..confirmed }]);
        assert!(allowed.contains("highest rate within the loss allowed: 227,259/s\n"), "{allowed}");
        for steps in [&[step][..], &[step, Step { passed: false, ..confirmed }]] {
            assert!(!table(steps).contains("highest rate"), "{steps:?}");
        }
    }

    #[test]
    fn long_text_is_broken_at_a_space() {
        let check = |text: &str, parts: (usize, usize)| {
            let (line, rest) = broken(text);
            assert_eq!((line.chars().count(), rest.chars().count()), parts, "{text}");
        };
        check("", (0, 0));
        check(&"a".repeat(CONTENT), (CONTENT, 0));
        check(&"\u{e4}".repeat(CONTENT + 4), (CONTENT, 4));
        check(&format!("{} {}", "\u{e4}".repeat(50), "b".repeat(50)), (50, 50));
    }

    #[test]
    fn many_cores_are_shown_as_their_average_and_the_busiest() {
        let mut report = BenchReport::new(setup(), measured());
        let core = |core: usize| CoreUse {
            core,
            user_percent: core as f64,
            system_percent: 0.0,
            softirq_percent: 0.0,
            idle_percent: 100.0 - core as f64,
        };
        report.cpu = CpuUse { cores: (0..33).map(core).collect(), ..report.cpu };
        let table = report.table();
        assert!(table.contains("33 cores user  16 %") && table.contains("core 32  user  32 %"), "{table}");
        fits(&table, 30);
    }
}
