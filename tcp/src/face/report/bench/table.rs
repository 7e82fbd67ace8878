//! The final table, of one screen.

use std::fmt::{Display, Write as _};

use super::latency::Latency;
use super::lost_syns::nic_losses;
use super::report::{BenchReport, Step};
use super::usage::CoreUse;
use super::verdict::few_failed;
use crate::face::report::{Account, words};
use crate::text::{counted, duration, grouped, rate};

/// The table shows more cores than this as one line of averages.
const MOST_CORES: usize = 6;
/// Of a longer search the table shows the last trials: they decide.
const MOST_STEPS: usize = 10;
/// Column where a line's content begins.
const LABEL: usize = 14;
/// Width of the content. With the label a line has 100 columns.
const CONTENT: usize = 86;

/// The table's text, line by line.
struct Table(String);

impl Table {
    /// Adds a line with a label. Text that is too long continues on the next line.
    fn line(&mut self, label: &str, text: impl Display) {
        let text = text.to_string();
        let (mut label, mut rest) = (label, text.as_str());
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

    /// Adds an empty line between two groups.
    fn gap(&mut self) {
        self.0.push('\n');
    }

    /// Adds a line of parts; nothing if there is no part.
    fn parts(&mut self, label: &str, parts: impl IntoIterator<Item = String>) {
        let parts: Vec<String> = parts.into_iter().collect();
        if !parts.is_empty() {
            self.line(label, parts.join("   "));
        }
    }
}

/// Splits text at the last space that a line has room for: the line, and the rest.
fn broken(text: &str) -> (&str, &str) {
    let Some((end, _)) = text.char_indices().nth(CONTENT) else { return (text, "") };
    let space = text[..end].rfind(' ').filter(|&space| space > 0).unwrap_or(end);
    (text[..space].trim_end(), text[space..].trim_start())
}

/// Returns `NAME COUNT` for each count.
fn named<const N: usize>(counts: [(&str, u64); N]) -> [String; N] {
    counts.map(|(name, count)| format!("{name} {}", grouped(count)))
}

impl BenchReport {
    /// Returns the final table: rates, connections, latencies, losses, CPU time, the trials of a search, accounts and verdict.
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
        let (site, workload) = (&self.setup.site, &self.setup.workload);
        let driver = if site.driver.is_empty() { "unknown driver" } else { &site.driver };
        table.line("interface", format!("{} ({driver}), {}", site.interface, site.rings()));
        let requests = match workload.requests {
            0 => String::new(),
            number => format!(", {}", counted(number, "request")),
        };
        let targets = match self.setup.targets.as_slice() {
            [first, rest @ ..] if !rest.is_empty() => format!("{first} and {} more", rest.len()),
            targets => targets.concat(),
        };
        let (kind, close, seconds) = (&workload.kind, workload.close, self.duration_s);
        let line = format!("{kind}{requests}, closed by {close}, to {targets}, {seconds:.2} s measured");
        table.line("workload", line);
    }

    fn counts(&self, table: &mut Table) {
        let rates = &self.rate_per_s;
        let asked = rates.asked.map(|asked| format!("asked {}/s", grouped(asked)));
        let measured = [("achieved", rates.achieved), ("started", rates.started), ("closed", rates.closed)];
        let measured = measured.map(|(name, per_s)| format!("{name} {}/s", rate(per_s)));
        table.parts("rate", asked.into_iter().chain(measured));
        if let Some(open) = self.concurrency {
            let [asked, min, max] = named([("asked", open.asked), ("min", open.min), ("max", open.max)]);
            table.parts("open", [asked, format!("mean {}", rate(open.mean)), min, max]);
        }
        let connections = &self.connections;
        let parts = named([
            ("started", connections.started),
            ("established", connections.established),
            ("closed", connections.closed),
        ]);
        let not_started = words([("not started", connections.not_started)]);
        table.parts("connections", parts.into_iter().chain(not_started));
        table.parts("  failed", words(connections.failed.occurred()));
        if let Some(bad) = &connections.first_bad_response {
            table.line("  response", format!("bad; the first: {bad}"));
        }
        let short = [("table full", connections.table_full), ("no tuple free", connections.tuples_short)];
        table.parts("  held up", words(short));
        let requests = &self.requests;
        if requests.started > 0 {
            let [started, done] = named([("started", requests.started), ("done", requests.done)]);
            let errors = words([("http errors", requests.http_errors)]);
            let parts = [started, done, format!("{}/s", rate(requests.per_s))];
            table.parts("requests", parts.into_iter().chain(errors));
        }
        let packets = &self.packets_per_connection;
        let [out, inward] = [packets.out_total, packets.in_total].map(grouped);
        let each = format!("{:.2} out + {:.2} in, each connection", packets.out, packets.inward);
        table.line("packets", format!("{each}   ({out} out, {inward} in, ramp to drain)"));
    }

    fn latencies(&self, table: &mut Table) {
        let all = &self.latencies;
        let mut rows = Vec::new();
        for (name, latency) in &all.latency_us.0 {
            rows.push((format!("  {}", name.replace('_', " ")), latency));
            rows.extend(all.latency_from_syn_us.get(name).map(|latency| ("    from SYN".into(), latency)));
        }
        rows.push(("  start lag".into(), &all.start_lag_us));
        rows.retain(|(_, latency)| latency.count > 0);
        if rows.is_empty() {
            return;
        }
        let cells = |cells: [&str; 7]| {
            let [p50, p90, p99, p999, p9999, max, count] = cells;
            format!("{p50:>10}{p90:>11}{p99:>11}{p999:>11}{p9999:>11}{max:>11}{count:>15}")
        };
        table.gap();
        table.line("latency", cells(["p50", "p90", "p99", "p99.9", "p99.99", "max", "count"]));
        for (name, &Latency { p50, p90, p99, p999, p9999, max, count }) in rows {
            let [p50, p90, p99, p999, p9999, max] = [p50, p90, p99, p999, p9999, max].map(duration);
            table.line(&name, cells([&p50, &p90, &p99, &p999, &p9999, &max, &grouped(count)]));
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
        table.parts("sent again", words(again));
        let received = &self.received;
        let received = [
            ("duplicates", received.duplicates),
            ("out of order", received.out_of_order),
            ("bad checksums or headers", received.errors),
        ];
        table.parts("received", words(received));
        let lost = &self.lost_syns;
        if lost.total > 0 {
            table.line("SYNs lost", format!("{}: {}", grouped(lost.total), lost.places().join(", ")));
        }
        table.parts("our rings", words(self.rings.occurred()));
        table.parts("NIC", words(nic_losses(&self.nic)));
        let drops = self.drops.occurred().map(|(name, count)| (name.trim_start_matches("drop_"), count));
        table.parts("dropped", words(drops));
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
        let name = |core: &CoreUse| format!("core {}", core.core);
        if cores.len() <= MOST_CORES {
            cores.iter().for_each(|core| line(name(core), core));
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
            let busiest = cores.iter().min_by(|a, b| a.idle_percent.total_cmp(&b.idle_percent));
            busiest.into_iter().for_each(|core| line(name(core), core));
        }
        if let Some(ns) = self.cpu.ns_per_connection {
            table.line("", format!("{} ns per connection: all that these cores did", grouped(ns as u64)));
        }
    }

    fn trials(&self, table: &mut Table) {
        let Some(last) = self.steps.last() else { return };
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
        if last.confirmation && last.passed {
            let loss = if last.lost == 0 { "without loss" } else { "within the loss allowed" };
            table.line("", format!("highest rate {loss}: {}/s", grouped(last.rate)));
        }
    }

    fn outcome(&self, table: &mut Table) {
        table.gap();
        let law = |law: &Account| {
            let sign = if law.holds { "=" } else { "is NOT" };
            let law = format!("{:<12}{} {sign} {}", law.name, grouped(law.left), grouped(law.right));
            format!("{law:<43}")
        };
        let mut label = "accounts";
        for two in self.accounts.laws.chunks(2) {
            table.line(label, two.iter().map(law).collect::<String>());
            label = "";
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
    use super::super::tests::{changed, troubled};
    use super::*;
    use crate::face::report::tests::{has, lacks};
    use synmill_engine::generator::tally::Totals;

    fn fits(table: &str, lines: usize) {
        assert!(table.lines().count() <= lines, "{table}");
        for line in table.lines() {
            assert!(line.chars().count() <= LABEL + CONTENT && line.trim_end() == line, "{line}");
        }
    }

    #[test]
    fn a_run_without_trouble_has_a_short_table() {
        let table = changed(|_, _| ()).table();
        fits(&table, 30);
        has(
            &table,
            &["asked 200,000/s   achieved 200,000/s", "core 1", "4.00 out + 3.00 in, each connection"],
        );
        lacks(&table, &["failed", "received", "held up", "first byte", "sent again", "dropped", "search"]);
        lacks(&table, &["requests", "NIC"]);
        assert!(table.ends_with("all is as asked, and the accounts close\n"), "{table}");
    }

    #[test]
    fn few_failures_are_named_beside_the_verdict() {
        let check = |reset_by_peer: u64, cut: u64, verdict: &str| {
            let table = changed(|_, measured| {
                let closed = measured.totals.closed - reset_by_peer - cut;
                measured.totals = Totals { closed, reset_by_peer, cut, ..measured.totals };
            });
            let table = table.table().split_whitespace().collect::<Vec<_>>().join(" ");
            let verdict = format!("all is as asked, and the accounts close; {verdict}");
            assert!(table.ends_with(&verdict), "{verdict}: {table}");
        };
        check(900, 300, "1,200 of 2,000,000 connections failed: 900 reset by peer, 300 cut (1 % may fail)");
        check(
            15_000,
            16_000,
            "31,000 of 2,000,000 connections failed: 15,000 reset by peer, 16,000 cut (1 % may fail, and 1 % may be cut)",
        );
    }

    #[test]
    fn what_went_wrong_is_in_the_table() {
        let table = troubled().table();
        fits(&table, 48);
        let parts = [
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
        ];
        has(&table, &parts);
    }

    #[test]
    fn the_result_of_a_search_is_named_below_its_trials() {
        let (rate, started, achieved) = (227_259, 2_272_590, 227_258.9);
        let step = Step { rate, started, lost: 0, achieved, passed: true, confirmation: false };
        let confirmed = Step { confirmation: true, ..step };
        let table = |steps: &[Step]| {
            let table = changed(|_, measured| measured.steps = steps.to_vec()).table();
            fits(&table, 36);
            table
        };
        let found = table(&[step, confirmed]);
        assert_eq!(found.matches("passed\n").count(), 1, "{found}");
        let end =
            "         227,259   passed (confirmation)\n              highest rate without loss: 227,259/s\n";
        has(&found, &[end]);
        let allowed = table(&[step, Step { lost: 12, ..confirmed }]);
        has(&allowed, &["highest rate within the loss allowed: 227,259/s\n"]);
        for steps in [&[step][..], &[step, Step { passed: false, ..confirmed }]] {
            lacks(&table(steps), &["highest rate"]);
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
        let mut report = changed(|_, _| ());
        let one = CoreUse { system_percent: 0.0, softirq_percent: 0.0, ..report.cpu.cores[0] };
        let core = |core: usize| CoreUse {
            core,
            user_percent: core as f64,
            idle_percent: 100.0 - core as f64,
            ..one
        };
        report.cpu.cores = (0..33).map(core).collect();
        let table = report.table();
        has(&table, &["33 cores user  16 %", "core 32  user  32 %"]);
        fits(&table, 30);
    }
}
