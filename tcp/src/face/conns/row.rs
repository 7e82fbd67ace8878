//! A connection as a line of JSON, `synmill-conns/1`. docs/json.md lists every path.

use std::borrow::Cow;
use std::fmt;
use std::net::SocketAddr;

use serde::{Deserialize, Serialize};

use super::request::StateName;
use synmill_engine::endpoint::View;
use synmill_engine::proto::Timer;

/// The schema of a [`Row`] in JSON.
pub const SCHEMA: &str = "synmill-conns/1";

/// The begin of every [`Row`] in JSON.
pub(super) const HEAD: &[u8] = br#"{"schema":"synmill-conns/1","#;

/// A connection.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Row {
    /// [`SCHEMA`]
    pub schema: Cow<'static, str>,
    /// The worker that owns the connection.
    pub worker: usize,
    /// The slot in the worker's table.
    pub slot: u32,
    /// The number of the listener or target, in the order of the options.
    pub role: u16,
    /// The state, by its name in RFC 9293.
    pub state: StateName,
    /// Our address and port.
    pub local: SocketAddr,
    /// The peer's address and port.
    pub peer: SocketAddr,
    /// Whether we sent the first SYN.
    pub active: bool,
    /// Age since the open, with the limits of [`View::age`].
    pub age_s: u64,
    /// SND.UNA
    pub snd_una: u32,
    /// SND.NXT
    pub snd_nxt: u32,
    /// SND.NXT - SND.UNA: sequence numbers in flight, SYN and FIN included.
    pub unacked: u32,
    /// SND.WND, with the shift applied.
    pub snd_wnd_bytes: u32,
    /// The shift of the peer's windows.
    pub snd_wnd_shift: u8,
    /// RCV.NXT
    pub rcv_nxt: u32,
    /// RCV.WND, with the shift applied.
    pub rcv_wnd_bytes: u32,
    /// Maximum text in a segment to the peer.
    pub mss_bytes: u16,
    /// Whether timestamps were negotiated (RFC 7323).
    pub timestamps: bool,
    /// Whether window scaling was negotiated (RFC 7323).
    pub window_scale: bool,
    /// Whether the peer permits SACK (RFC 2018).
    pub sack: bool,
    /// The timer that runs.
    pub timer: Option<TimerName>,
    /// Time until the timer expires.
    pub timer_ms: Option<u32>,
    /// Smoothed round-trip time (RFC 6298).
    pub rtt_us: Option<u32>,
    /// Variation of the round-trip time.
    pub rtt_var_us: Option<u32>,
    /// Retransmission timeout.
    pub rto_ms: u32,
    /// Consecutive retransmissions without an answer.
    pub backoff: u8,
    /// Segments retransmitted. A connection forgets them with its transfer record.
    pub retransmissions: u32,
    /// Congestion window; `None` without a transfer record.
    pub cwnd_bytes: Option<u32>,
    /// Slow start threshold; `None` without a transfer record.
    pub ssthresh_bytes: Option<u32>,
}

/// A timer by name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum TimerName {
    /// Retransmission timer.
    Retransmit,
    /// Timer of zero-window probes.
    Persist,
    /// Timer of a delayed acknowledgement.
    DelayedAck,
    /// Timer of TIME-WAIT (2 MSL), or of FIN-WAIT-2.
    Linger,
}

impl TimerName {
    fn of(timer: Timer) -> Option<Self> {
        match timer {
            Timer::None => None,
            Timer::Retransmit => Some(Self::Retransmit),
            Timer::Persist => Some(Self::Persist),
            Timer::DelayedAck => Some(Self::DelayedAck),
            Timer::Linger => Some(Self::Linger),
        }
    }
}

/// Writes the name that JSON has.
impl fmt::Display for TimerName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.serialize(f)
    }
}

impl Row {
    /// Creates the row of a worker's connection.
    #[must_use]
    pub fn new(worker: usize, view: &View) -> Self {
        let timer = TimerName::of(view.timer);
        let [cwnd, ssthresh] = view.congestion.map_or([None; 2], |both| both.map(Some));
        let [rtt, rtt_var] = view.rtt_us.map_or([None; 2], |both| both.map(Some));
        Self {
            schema: SCHEMA.into(),
            worker,
            slot: view.slot,
            role: view.role,
            state: StateName(view.state),
            local: SocketAddr::new(view.key.local.to_ip(), view.key.local_port),
            peer: SocketAddr::new(view.key.remote.to_ip(), view.key.remote_port),
            active: view.is_active,
            age_s: view.age.as_secs(),
            snd_una: view.snd_una.0,
            snd_nxt: view.snd_nxt.0,
            unacked: view.snd_nxt - view.snd_una,
            snd_wnd_bytes: view.snd_wnd,
            snd_wnd_shift: view.snd_scale,
            rcv_nxt: view.rcv_nxt.0,
            rcv_wnd_bytes: view.rcv_wnd,
            mss_bytes: view.mss,
            timestamps: view.timestamps,
            window_scale: view.window_scale,
            sack: view.sack,
            timer,
            timer_ms: timer.map(|_| view.timer_ms),
            rtt_us: rtt,
            rtt_var_us: rtt_var,
            rto_ms: view.rto_ms,
            backoff: view.backoff,
            retransmissions: view.retransmissions,
            cwnd_bytes: cwnd,
            ssthresh_bytes: ssthresh,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{full, view};
    use super::*;
    use synmill_engine::proto::{SeqNum, State};

    #[test]
    fn a_row_says_what_the_view_knows() {
        let view = View { snd_una: SeqNum(u32::MAX - 1), snd_nxt: SeqNum(8), ..full(7) };
        let row = Row::new(1, &view);
        assert_eq!((row.worker, row.slot, row.state), (1, 7, StateName(State::Established)));
        assert_eq!((row.snd_una, row.snd_nxt, row.unacked), (u32::MAX - 1, 8, 10), "around the circle");
        assert_eq!((row.rtt_us, row.rtt_var_us), (Some(1_500), Some(500)));
        assert_eq!((row.cwnd_bytes, row.ssthresh_bytes), (Some(14_480), Some(65_535)));
        assert_eq!((row.timer, row.timer_ms), (Some(TimerName::Retransmit), Some(187)));
        assert_eq!(row.age_s, 12);
    }

    #[test]
    fn a_row_is_known_by_its_head() {
        assert!(serde_json::to_vec(&Row::new(0, &full(1))).unwrap().starts_with(HEAD));
    }

    #[test]
    fn what_is_not_known_is_null() {
        let row = Row::new(0, &view(1, State::TimeWait, "[fd00:18::2]:80", "[fd00:18::1]:1024"));
        let json = serde_json::to_value(&row).unwrap();
        for path in ["timer", "timer_ms", "rtt_us", "rtt_var_us", "cwnd_bytes", "ssthresh_bytes"] {
            assert!(json[path].is_null(), "{path}: {json}");
        }
        assert_eq!([&json["state"], &json["peer"]], ["TIME-WAIT", "[fd00:18::1]:1024"]);
    }

    #[test]
    fn a_timers_name_is_the_one_in_json() {
        for timer in [Timer::Retransmit, Timer::Persist, Timer::DelayedAck, Timer::Linger] {
            let name = TimerName::of(timer).unwrap();
            assert_eq!(serde_json::to_value(name).unwrap(), name.to_string());
        }
    }
}
