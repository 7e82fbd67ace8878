//! Connections as people read them, two lines each, in the style of `ss -ti`.

use std::fmt::Write as _;

use super::answer::Totals;
use super::row::Row;
use crate::text::grouped;

/// Width of the column of local addresses, for any IPv4 address.
const NARROW: usize = "255.255.255.255:65535".len();
/// Width of the column of local addresses, for any IPv6 address.
const WIDE: usize = "[2001:1db8:1111:2222:3333:4444:5555:6666]:65535".len();
/// Maximum number of rows that wait for the width of the column.
const MOST_WAITING: usize = 1000;

/// State of a table from one row to the next. The column of local addresses never changes its width. It is as wide as the
/// addresses need if there are few rows, and wide enough for any address otherwise.
#[derive(Clone, Debug, Default)]
pub struct Table {
    /// Rows that are not shown yet.
    waiting: Vec<Row>,
    /// Width of the column of local addresses, once it is known.
    width: Option<usize>,
}

impl Table {
    /// Adds a connection, and returns the lines that can be shown now: two per row, with the heading before the first.
    #[must_use]
    pub fn row(&mut self, row: Row) -> String {
        self.waiting.push(row);
        if self.width.is_some() || self.waiting.len() > MOST_WAITING { self.flush() } else { String::new() }
    }

    /// Returns the lines of the waiting rows. More rows may follow.
    #[must_use]
    pub fn flush(&mut self) -> String {
        self.show(WIDE)
    }

    /// Returns the lines of the waiting rows, and the last line, with the numbers of connections.
    #[must_use]
    pub fn end(&mut self, totals: &Totals) -> String {
        let widest = self.waiting.iter().map(|row| row.local.to_string().len()).max();
        let mut text = self.show(widest.unwrap_or(0).max(NARROW));
        // Writing to a string does not fail.
        let _ = write!(text, "{} listed of ", grouped(totals.listed));
        if totals.matching > totals.listed {
            let _ = write!(text, "{} that match, ", grouped(totals.matching));
        }
        let _ = write!(text, "{} in the table", grouped(totals.held.iter().sum()));
        if totals.held.len() > 1 {
            let each = totals.held.iter().enumerate();
            let each: Vec<String> =
                each.map(|(worker, &held)| format!("worker {worker}: {}", grouped(held))).collect();
            let _ = write!(text, " ({})", each.join(", "));
        }
        text + "\n"
    }

    /// Returns the lines of the waiting rows. `width` counts only if the width is not known yet.
    fn show(&mut self, width: usize) -> String {
        let mut text = String::new();
        if self.waiting.is_empty() {
            return text;
        }
        let is_first = self.width.is_none();
        let width = *self.width.get_or_insert(width);
        let line = |[state, unacked, retrans, age, local, peer]: [&str; 6]| {
            format!("{state:<12} {unacked:>10} {retrans:>7} {age:>9}  {local:<width$}  {peer}\n")
        };
        if is_first {
            text += &line(["State", "Unacked", "Retrans", "Age", "Local", "Peer"]);
        }
        for row in self.waiting.drain(..) {
            let [unacked, retrans] = [row.unacked, row.retransmissions].map(|count| count.to_string());
            let [local, peer] = [row.local, row.peer].map(|end| end.to_string());
            text += &line([row.state.0.name(), &unacked, &retrans, &age(row.age_s), &local, &peer]);
            text += &format!("    {}\n", details(&row));
        }
        text
    }
}

/// Returns the second line of a connection.
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
        let _ = write!(text, " timer:{timer}({due_ms}ms)");
    }
    let has = [(row.timestamps, " ts"), (row.sack, " sack"), (row.window_scale, " wscale")];
    has.into_iter().filter(|(has, _)| *has).for_each(|(_, name)| text.push_str(name));
    let opened = if row.active { "active" } else { "passive" };
    let _ = write!(text, "  {opened} role:{} worker:{} slot:{}", row.role, row.worker, row.slot);
    text
}

/// Formats seconds in the two largest units.
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
    use synmill_engine::proto::State;

    #[test]
    fn a_connection_is_two_lines_below_one_heading() {
        let mut table = Table::default();
        let first = table.row(Row::new(1, &full(7)));
        let second = table.row(Row::new(0, &view(9, State::TimeWait, "198.18.0.2:80", "198.18.0.1:65535")));
        let end = table.end(&Totals { listed: 2, matching: 2, held: vec![2] });
        let expected = "\
State           Unacked Retrans       Age  Local                  Peer
ESTABLISHED        1448       3       12s  198.18.0.2:80          198.18.0.1:1024
    snd una:1000 nxt:2448 wnd:64256 shift:7  rcv nxt:5000 wnd:65535  mss:1448 rto:201ms rtt:1.5/0.5ms backoff:1 cwnd:14480 \
ssthresh:65535 timer:retransmit(187ms) ts sack wscale  passive role:2 worker:1 slot:7
TIME-WAIT             0       0        1s  198.18.0.2:80          198.18.0.1:65535
    snd una:1 nxt:1 wnd:65535  rcv nxt:1 wnd:65535  mss:536 rto:1000ms  passive role:0 worker:0 slot:9
2 listed of 2 in the table
";
        assert_eq!(first + &second + &end, expected);
    }

    /// Returns the column of the peers, which must be the same in all lines. `begin` and `end` are the numbers of rows before and
    /// after one with a wide address.
    fn peers(begin: usize, end: usize, is_flushed: bool) -> usize {
        let row = |local: &str| Row::new(0, &view(1, State::Established, local, "[2001:db8::1]:1024"));
        let (mut table, mut text) = (Table::default(), String::new());
        (0..begin).for_each(|_| text += &table.row(row("198.18.0.2:80")));
        if is_flushed {
            text += &table.flush();
        }
        text += &table.row(row("[2001:db8:1111:2222:3333:4444:5555:6666]:65535"));
        (0..end).for_each(|_| text += &table.row(row("[2001:db8::2]:80")));
        text += &table.end(&Totals::default());
        let column = text.lines().next().unwrap().find("Peer").unwrap();
        let columns: Vec<_> = text.lines().filter_map(|line| line.find("[2001:db8::1]:1024")).collect();
        assert_eq!(columns, vec![column; begin + 1 + end]);
        column
    }

    #[test]
    fn the_columns_line_up_wherever_a_wide_address_comes() {
        let few = peers(2, 2, false);
        assert_eq!(peers(0, 0, false), few);
        // If rows were shown before, there is room for the widest address.
        assert_eq!(peers(2, 2, true), few + 1);
        assert_eq!(peers(MOST_WAITING + 1, 1, false), few + 1);
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
        let two = "10 listed of 532 that match, 1,000 in the table (worker 0: 480, worker 1: 520)\n";
        for (listed, matching, held, text) in [
            (3, 3, vec![1000], "3 listed of 1,000 in the table\n"),
            (10, 532, vec![480, 520], two),
            (0, 0, vec![0], "0 listed of 0 in the table\n"),
        ] {
            assert_eq!(Table::default().end(&Totals { listed, matching, held }), text);
        }
    }
}
