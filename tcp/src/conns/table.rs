//! Connections as people read them, two lines each, much as `ss -ti` has them. Knows [`Row`]s; never where they come from.

use std::fmt::Write as _;

use super::{Row, Totals};
use crate::report::grouped;

/// The widest local address that is expected: what is wider makes the column so from there on.
const LOCAL: usize = "255.255.255.255:65535".len();

/// What is remembered from one row to the next.
#[derive(Clone, Debug, Default)]
pub struct Table {
    /// The column of local addresses; 0 before the first row.
    width: usize,
}

impl Table {
    /// The two lines of a connection, below the heading if it is the first.
    #[must_use]
    pub fn row(&mut self, row: &Row) -> String {
        let mut text = String::new();
        let local = row.local.to_string();
        let is_first = self.width == 0;
        self.width = self.width.max(LOCAL).max(local.len());
        let width = self.width;
        // Writing to a string does not fail.
        if is_first {
            let _ = writeln!(
                text,
                "{:<12} {:>10} {:>7} {:>9}  {:<width$}  Peer",
                "State", "Unacked", "Retrans", "Age", "Local"
            );
        }
        let _ = writeln!(
            text,
            "{:<12} {:>10} {:>7} {:>9}  {local:<width$}  {}",
            row.state.0.name(),
            row.unacked,
            row.retransmissions,
            age(row.age_s),
            row.peer
        );
        let _ = writeln!(text, "    {}", details(row));
        text
    }

    /// The last line: how many there were.
    #[must_use]
    pub fn end(&self, totals: &Totals) -> String {
        let mut text = format!("{} listed", grouped(totals.listed));
        if totals.matching > totals.listed {
            let _ = write!(text, " of {} that match", grouped(totals.matching));
        }
        let _ = write!(text, ", {} held", grouped(totals.held.iter().sum()));
        if totals.held.len() > 1 {
            let each = totals.held.iter().enumerate();
            let each: Vec<String> =
                each.map(|(worker, &held)| format!("worker {worker}: {}", grouped(held))).collect();
            let _ = write!(text, " ({})", each.join(", "));
        }
        text + "\n"
    }
}

/// What stands below the addresses.
fn details(row: &Row) -> String {
    let mut text = format!("snd una:{} nxt:{} wnd:{}", row.snd_una, row.snd_nxt, row.snd_wnd_bytes);
    if row.window_scale {
        let _ = write!(text, " shift:{}", row.snd_wnd_shift);
    }
    let _ = write!(text, "  rcv nxt:{} wnd:{}", row.rcv_nxt, row.rcv_wnd_bytes);
    let _ = write!(text, "  mss:{} rto:{}ms", row.mss_bytes, row.rto_ms);
    if let (Some(rtt), Some(rtt_var)) = (row.rtt_us, row.rtt_var_us) {
        let ms = |us: u32| f64::from(us) / 1e3;
        let _ = write!(text, " rtt:{}/{}ms", ms(rtt), ms(rtt_var));
    }
    if row.backoff > 0 {
        let _ = write!(text, " backoff:{}", row.backoff);
    }
    if let (Some(cwnd), Some(ssthresh)) = (row.cwnd_bytes, row.ssthresh_bytes) {
        let _ = write!(text, " cwnd:{cwnd} ssthresh:{ssthresh}");
    }
    if let (Some(timer), Some(due_ms)) = (row.timer, row.timer_ms) {
        let _ = write!(text, " timer:{}({due_ms}ms)", timer.name());
    }
    let has = [(row.timestamps, " ts"), (row.sack, " sack"), (row.window_scale, " wscale")];
    has.into_iter().filter(|(has, _)| *has).for_each(|(_, name)| text.push_str(name));
    let opened = if row.active { "active" } else { "passive" };
    let _ = write!(text, "  {opened} role:{} worker:{} slot:{}", row.role, row.worker, row.slot);
    text
}

/// A time in the two largest of its units.
fn age(seconds: u64) -> String {
    let (minutes, hours, days) = (seconds / 60, seconds / 3600, seconds / 86_400);
    match (days, hours, minutes) {
        (0, 0, 0) => format!("{seconds}s"),
        (0, 0, _) => format!("{minutes}m{:02}s", seconds % 60),
        (0, ..) => format!("{hours}h{:02}m", minutes % 60),
        _ => format!("{days}d{:02}h", hours % 24),
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{full, view};
    use super::*;
    use crate::proto::State;

    #[test]
    fn a_connection_is_two_lines_below_one_heading() {
        let mut table = Table::default();
        let first = table.row(&Row::new(1, &full(7)));
        let second = table.row(&Row::new(0, &view(9, State::TimeWait, "198.18.0.2:80", "198.18.0.1:65535")));
        let expected = "\
State           Unacked Retrans       Age  Local                  Peer
ESTABLISHED        1448       3       12s  198.18.0.2:80          198.18.0.1:1024
    snd una:1000 nxt:2448 wnd:64256 shift:7  rcv nxt:5000 wnd:65535  mss:1448 rto:201ms rtt:1.5/0.5ms backoff:1 cwnd:14480 \
ssthresh:65535 timer:retransmit(187ms) ts sack wscale  passive role:2 worker:1 slot:7
TIME-WAIT             0       0        1s  198.18.0.2:80          198.18.0.1:65535
    snd una:1 nxt:1 wnd:65535  rcv nxt:1 wnd:65535  mss:536 rto:1000ms  passive role:0 worker:0 slot:9
";
        assert_eq!(first + &second, expected);
    }

    #[test]
    fn a_wide_address_makes_its_column_wide() {
        let mut table = Table::default();
        let wide = "[2001:db8:1111:2222:3333:4444:5555:6666]:65535";
        let first = table.row(&Row::new(0, &view(1, State::Established, wide, "[2001:db8::1]:1024")));
        let second =
            table.row(&Row::new(0, &view(2, State::Established, "[2001:db8::2]:80", "[2001:db8::1]:1025")));
        let column = |text: &str, what: &str| text.lines().find_map(|line| line.find(what));
        assert_eq!(column(&first, "Peer"), column(&first, "[2001:db8::1]"));
        assert_eq!(column(&first, "Peer"), column(&second, "[2001:db8::1]"));
    }

    #[test]
    fn an_age_has_two_units() {
        let table = [(0, "0s"), (59, "59s"), (60, "1m00s"), (3_725, "1h02m"), (90_000, "1d01h")];
        for (seconds, text) in table {
            assert_eq!(age(seconds), text);
        }
    }

    #[test]
    fn the_end_says_how_many_there_are() {
        let end = |listed, matching, held: &[u64]| {
            Table::default().end(&Totals { listed, matching, held: held.to_vec() })
        };
        assert_eq!(end(3, 3, &[1000]), "3 listed, 1,000 held\n");
        assert_eq!(
            end(10, 532, &[480, 520]),
            "10 listed of 532 that match, 1,000 held (worker 0: 480, worker 1: 520)\n"
        );
        assert_eq!(end(0, 0, &[0]), "0 listed, 0 held\n");
    }
}
