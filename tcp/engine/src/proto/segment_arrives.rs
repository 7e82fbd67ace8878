//! SEGMENT ARRIVES, RFC 9293 section 3.10.7: what a segment means to a connection, check by check in the RFC's order.
//!
//! Text and FIN are only judged here: whether text finds a place is the endpoint's to say, and it reports back through
//! [`Tcb::receive`] and [`Tcb::receive_fin`].

use std::hint::cold_path;

use super::tcb::{FIN_WAIT_2_MS, Flag};
use super::timeouts::FIN_RETRIES;
use super::{Flags, Segment, SeqNum, State, Tcb, Timer, Transfer, WireWindow};
use crate::hint::{mostly, seldom};
use crate::stats::DropReason;
use crate::time::Millis;

/// Doublings of a probe's interval that an answer leaves standing: the interval stays near its ceiling, and as many as
/// [`super::timeouts::DATA_RETRIES`] less these may go unanswered.
const PROBE_BACKOFF: u8 = 9;

/// What one end fixes for all its connections.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Environment {
    /// The largest text that fits our MTU without options, in bytes.
    pub local_mss: u16,
    /// 2 MSL in milliseconds.
    pub time_wait_ms: u32,
}

/// How a connection ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// Both FINs were acknowledged.
    Closed,
    /// The peer sent RST; before ESTABLISHED that is a refusal.
    ResetByPeer,
    /// We sent RST.
    ResetByUs,
    /// The peer stopped answering.
    TimedOut,
    /// The peer never answered, and a router said that it cannot be reached.
    Unreachable,
}

/// What becomes of the segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Disposition {
    /// It is acceptable: what it acknowledges is taken, text and FIN wait to be received.
    Accepted,
    /// It is not acceptable, and is answered with an acknowledgement of what is.
    Acknowledge,
    /// It is an old SYN of this very handshake: SYN,ACK goes again.
    RepeatHandshake,
    /// It is answered with RST, see [`refusal`]; the connection stays as it is.
    Refuse,
    /// It ends the connection.
    End(End),
    /// A SYN that may open a new connection in place of this one in TIME-WAIT.
    Reopen,
    /// It is dropped.
    Drop(DropReason),
}

/// Text that lies in the window: `len` bytes that start `skip` bytes into the segment's text, at number `seq`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Text {
    /// The number of its first byte.
    pub seq: SeqNum,
    /// Bytes of the segment's text before it, received earlier.
    pub skip: u16,
    /// Bytes.
    pub len: u16,
}

/// A segment, judged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Arrival {
    /// What becomes of it.
    pub disposition: Disposition,
    /// Bytes of our stream that it acknowledges for the first time.
    pub acked: u32,
    /// The third of three equal acknowledgements repairs a loss: this may be one (RFC 5681 section 2).
    pub is_duplicate_ack: bool,
    /// The handshake is complete, and our SYN or SYN,ACK went more than once: the first window is one segment (RFC 5681
    /// section 3.1).
    pub syn_was_lost: bool,
    /// It carries text, none of which can be taken: the peer is told what can.
    pub must_acknowledge: bool,
    /// Text to be received.
    pub text: Option<Text>,
    /// The number of a FIN to be received once all text before it is.
    pub fin: Option<SeqNum>,
}

impl Arrival {
    const fn of(disposition: Disposition) -> Self {
        Self {
            disposition,
            acked: 0,
            is_duplicate_ack: false,
            syn_was_lost: false,
            must_acknowledge: false,
            text: None,
            fin: None,
        }
    }
}

/// The RST for a segment that belongs to no connection, section 3.10.7.1; none for an RST.
#[must_use]
pub fn refusal(seg: &Segment) -> Option<Segment> {
    if seg.flags.has(Flags::RST) {
        None
    } else if seg.flags.has(Flags::ACK) {
        Some(Segment { seq: seg.ack, flags: Flags::RST, ..Segment::default() })
    } else {
        Some(Segment { ack: seg.end(), flags: Flags::RST.with(Flags::ACK), ..Segment::default() })
    }
}

fn refuse(seg: &Segment) -> Arrival {
    let is_rst = seg.flags.has(Flags::RST);
    Arrival::of(if is_rst { Disposition::Drop(DropReason::NoConnection) } else { Disposition::Refuse })
}

impl Tcb {
    /// Section 3.10.7.3 and 3.10.7.4, for a segment of this connection. `transfer` is the connection's record, if it has one.
    #[inline(always)]
    pub fn segment_arrives(
        &mut self,
        transfer: Option<&mut Transfer>,
        seg: &Segment,
        environment: &Environment,
        now: Millis,
    ) -> Arrival {
        if self.state() == State::SynSent {
            return self.arrives_in_syn_sent(seg, environment, now);
        }
        if seldom(self.state() == State::TimeWait) && self.may_reopen(seg) {
            return Arrival::of(Disposition::Reopen);
        }
        let window = self.rcv_wnd(transfer.as_deref());
        if let Some(disposition) = self
            .check_sequence(seg, window, environment, now)
            .or_else(|| self.check_rst(seg))
            .or_else(|| self.check_syn(seg))
        {
            cold_path();
            return Arrival::of(disposition);
        }
        if seldom(!seg.flags.has(Flags::ACK)) {
            return Arrival::of(Disposition::Drop(DropReason::NoAck));
        }
        self.note_timestamp(seg);
        let mut arrival = Arrival::of(Disposition::Accepted);
        if let Some(disposition) = self.check_ack(transfer, seg, environment, now, &mut arrival) {
            return Arrival { disposition, ..arrival };
        }
        self.check_text(seg, window, &mut arrival);
        arrival
    }

    /// Section 3.10.7.3.
    fn arrives_in_syn_sent(&mut self, seg: &Segment, environment: &Environment, now: Millis) -> Arrival {
        let has_ack = seg.flags.has(Flags::ACK);
        // First, the ACK bit: it must acknowledge our SYN and nothing else.
        if has_ack && seg.ack != self.snd_nxt() {
            return refuse(seg);
        }
        // Second, the RST bit: believed only with an acceptable acknowledgement.
        if seg.flags.has(Flags::RST) {
            return Arrival::of(if has_ack {
                Disposition::End(End::ResetByPeer)
            } else {
                Disposition::Drop(DropReason::RstOutOfWindow)
            });
        }
        // Fourth, the SYN bit.
        if !seg.flags.has(Flags::SYN) {
            return Arrival::of(Disposition::Drop(DropReason::NoAck));
        }
        self.learn(seg, environment.local_mss);
        if has_ack {
            let syn_was_lost = self.establish(seg, now);
            self.set_flag(Flag::AckPending, true);
            Arrival { syn_was_lost, ..Arrival::of(Disposition::Accepted) }
        } else {
            // Simultaneous open: our SYN and theirs have crossed.
            self.set_state(State::SynReceived);
            self.set_backoff(0);
            self.start_retransmit(None, now);
            Arrival::of(Disposition::RepeatHandshake)
        }
    }

    /// TIME-WAIT gives way to a SYN that cannot be an old one: RFC 1122 section 4.2.2.13 by its number, RFC 6191 by its timestamp.
    fn may_reopen(&self, seg: &Segment) -> bool {
        if !seg.flags.has(Flags::SYN) || seg.flags.has_any(Flags::RST.with(Flags::ACK)) {
            return false;
        }
        let has_newer_number = seg.seq.after(self.rcv_nxt());
        match seg.options.timestamps {
            Some(timestamps) if self.flag(Flag::Timestamps) => {
                let age = timestamps.value.wrapping_sub(self.ts_recent()) as i32;
                age > 0 || (age == 0 && has_newer_number)
            }
            _ => has_newer_number,
        }
    }

    /// First, the sequence number: the four cases of section 3.4.
    #[inline]
    fn check_sequence(
        &mut self,
        seg: &Segment,
        window: u32,
        environment: &Environment,
        now: Millis,
    ) -> Option<Disposition> {
        let nxt = self.rcv_nxt();
        let len = seg.len();
        let acceptable = match (len, window) {
            (0, 0) => seg.seq == nxt,
            (0, _) => seg.seq.is_within(nxt, window),
            (_, 0) => false,
            _ => seg.seq.is_within(nxt, window) || (seg.seq + (len - 1)).is_within(nxt, window),
        };
        // With the window shut, text is not acceptable, but a valid ACK, URG or RST still is (section 3.10.7.4).
        if mostly(acceptable || (window == 0 && seg.seq == nxt)) {
            return None;
        }
        if seg.flags.has(Flags::RST) {
            return Some(Disposition::Drop(DropReason::RstOutOfWindow));
        }
        // A SYN,ACK that crossed ours in a simultaneous open wants an ACK: SYN,ACK for SYN,ACK would never end.
        let is_old_syn = seg.flags.has(Flags::SYN) && !seg.flags.has(Flags::ACK) && seg.seq + 1 == nxt;
        if self.state() == State::SynReceived && is_old_syn {
            // Karn's rule.
            self.set_flag(Flag::Timed, false);
            return Some(Disposition::RepeatHandshake);
        }
        if self.state() == State::TimeWait && seg.flags.has(Flags::FIN) && seg.end() == nxt {
            // The peer has not seen our last acknowledgement: it goes again, and 2 MSL start again.
            self.enter_time_wait(environment.time_wait_ms, now);
        }
        Some(Disposition::Acknowledge)
    }

    /// Second, the RST bit: only the very next number resets; others in the window get a challenge (RFC 5961 section 3.2).
    fn check_rst(&self, seg: &Segment) -> Option<Disposition> {
        if mostly(!seg.flags.has(Flags::RST)) {
            return None;
        }
        if seg.seq != self.rcv_nxt() {
            return Some(Disposition::Acknowledge);
        }
        // In TIME-WAIT both directions are closed already: the wait is cut short, nothing is lost.
        Some(Disposition::End(if self.state() == State::TimeWait { End::Closed } else { End::ResetByPeer }))
    }

    /// Fourth, the SYN bit: in the window it is wrong; the challenge lets a restarted peer reset us (RFC 5961 section 4.2).
    fn check_syn(&self, seg: &Segment) -> Option<Disposition> {
        seldom(seg.flags.has(Flags::SYN)).then_some(Disposition::Acknowledge)
    }

    /// RFC 7323 section 4.3: the timestamp to echo is that of the segment which the next acknowledgement answers.
    fn note_timestamp(&mut self, seg: &Segment) {
        let Some(timestamps) = seg.options.timestamps else { return };
        let is_newer = (timestamps.value.wrapping_sub(self.ts_recent()) as i32) >= 0;
        if self.flag(Flag::Timestamps)
            && is_newer
            && seg.seq.at_or_before(self.rcv_nxt())
            && !self.flag(Flag::AckPending)
        {
            self.set_ts_recent(timestamps.value);
        }
    }

    /// Fifth, the ACK field.
    #[inline(always)]
    fn check_ack(
        &mut self,
        transfer: Option<&mut Transfer>,
        seg: &Segment,
        environment: &Environment,
        now: Millis,
        arrival: &mut Arrival,
    ) -> Option<Disposition> {
        if self.state() == State::SynReceived {
            if seldom(seg.ack != self.snd_nxt()) {
                return Some(refuse(seg).disposition);
            }
            arrival.syn_was_lost = self.establish(seg, now);
            self.take_window(seg);
            return None;
        }
        if seldom(seg.ack.after(self.snd_nxt())) {
            // It acknowledges what was never sent.
            return Some(Disposition::Acknowledge);
        }
        if seg.ack.after(self.snd_una()) {
            return self.advance(transfer, seg, environment, now, arrival);
        }
        if seg.ack == self.snd_una() {
            let same_window = seg.window.bytes(self.snd_scale()) == self.snd_wnd();
            arrival.is_duplicate_ack =
                seg.is_empty() && self.flight() > 0 && same_window && self.state() != State::TimeWait;
            if seg.seq.at_or_after(self.rcv_nxt()) {
                self.take_window(seg);
                self.answer_to_probe();
            }
        }
        None
    }

    /// Our SYN is acknowledged: ESTABLISHED. Whether it went more than once.
    fn establish(&mut self, seg: &Segment, now: Millis) -> bool {
        let syn_was_lost = !self.flag(Flag::Timed);
        if !self.sample_from_ack(None, seg, now) && seldom(self.backoff() > 0) {
            self.expect_slow_peer();
        }
        self.set_snd_una(seg.ack);
        self.set_backoff(0);
        self.clear_timer();
        self.set_state(State::Established);
        syn_was_lost
    }

    /// New numbers are acknowledged.
    #[inline(always)]
    fn advance(
        &mut self,
        mut transfer: Option<&mut Transfer>,
        seg: &Segment,
        environment: &Environment,
        now: Millis,
        arrival: &mut Arrival,
    ) -> Option<Disposition> {
        let acked = seg.ack - self.snd_una();
        let is_all = seg.ack == self.snd_nxt();
        let fin_acked = is_all && self.state().fin_is_out();
        arrival.acked = acked - u32::from(fin_acked);
        let sampled = self.sample_from_ack(transfer.as_deref_mut(), seg, now);
        if seldom(!sampled && self.backoff() > 0) && (is_all || transfer.is_some()) {
            self.keep_backoff(transfer.as_deref_mut());
        }
        self.set_snd_una(seg.ack);
        self.take_window(seg);
        let mss = u32::from(self.mss());
        let flight = self.flight();
        let resend = match transfer.as_deref_mut() {
            Some(transfer) => {
                cold_path();
                transfer.on_ack(acked, seg.ack, flight, mss)
            }
            // Without a record, a repair after a timeout goes on segment by segment.
            None => seldom(self.backoff() > 0) && !is_all,
        };
        self.set_flag(Flag::Resend, resend);
        self.set_flag(Flag::Timed, false);
        if mostly(is_all) {
            self.set_backoff(0);
            self.clear_timer();
        } else {
            let backoff = if transfer.is_none() && resend { 1 } else { 0 };
            self.set_backoff(backoff);
            self.start_retransmit(transfer.as_deref(), now);
        }
        if fin_acked {
            match self.state() {
                State::FinWait1 => {
                    self.set_state(State::FinWait2);
                    self.set_timer(Timer::Linger, now + FIN_WAIT_2_MS);
                }
                State::Closing => self.enter_time_wait(environment.time_wait_ms, now),
                State::LastAck => return Some(Disposition::End(End::Closed)),
                _ => {}
            }
        }
        None
    }

    /// A round trip was measured: by the timestamp's echo, or by how long the timer of a number sent once has run
    /// (Karn's rule, RFC 6298 section 3). Whether there was one to take.
    fn sample_from_ack(&mut self, transfer: Option<&mut Transfer>, seg: &Segment, now: Millis) -> bool {
        let sample = match seg.options.timestamps {
            Some(timestamps) if self.flag(Flag::Timestamps) && timestamps.echo != 0 => {
                Some(now.since(Millis(timestamps.echo)))
            }
            _ => match self.timer() {
                (Timer::Retransmit, deadline) if self.flag(Flag::Timed) && self.backoff() == 0 => {
                    let rto = self.rtt(transfer.as_deref()).rto_ms(0);
                    Some(rto.saturating_sub(deadline.since(now)))
                }
                _ => None,
            },
        };
        if let Some(sample_ms) = sample {
            self.sample_rtt(transfer, sample_ms);
        }
        sample.is_some()
    }

    /// SND.WND takes the segment's word. Only called for segments that are not older than the last: that stands in for SND.WL1
    /// and SND.WL2.
    fn take_window(&mut self, seg: &Segment) {
        self.set_snd_wnd(WireWindow(seg.window.0));
    }

    /// The peer lives: what goes unanswered is counted anew while its window is shut, whether that is probed by a probe or by text
    /// that was out before (section 3.8.6.1). An open window needs no probe.
    fn answer_to_probe(&mut self) {
        let probes = self.timer().0 == Timer::Persist;
        if probes && self.snd_wnd() > 0 {
            self.clear_timer();
        }
        if probes || self.snd_wnd() == 0 {
            let most = if self.state().fin_is_out() { FIN_RETRIES - 1 } else { PROBE_BACKOFF };
            self.set_backoff(self.backoff().min(most));
        }
    }

    /// Seventh and eighth: which text lies in the window, and whether FIN does. Urgent data is delivered in line.
    #[inline(always)]
    fn check_text(&self, seg: &Segment, window: u32, arrival: &mut Arrival) {
        let takes_text = self.state().may_receive();
        if !takes_text || (seg.text_len == 0 && !seg.flags.has(Flags::FIN)) {
            return;
        }
        let nxt = self.rcv_nxt();
        let right = nxt + window;
        let end = seg.seq + u32::from(seg.text_len);
        if seg.flags.has(Flags::FIN) && end.at_or_after(nxt) && end.at_or_before(right) {
            arrival.fin = Some(end);
        }
        let start = if seg.seq.before(nxt) { nxt } else { seg.seq };
        let end = if end.after(right) { right } else { end };
        if start.before(end) {
            arrival.text =
                Some(Text { seq: start, skip: (start - seg.seq) as u16, len: (end - start) as u16 });
        } else {
            // A probe of a shut window, or numbers received before beside a FIN.
            arrival.must_acknowledge = seg.text_len > 0;
        }
    }

    /// One more acknowledgement of the same number: a third starts the repair. For the transfer's record.
    pub fn on_duplicate_ack(&mut self, transfer: &mut Transfer) {
        if transfer.on_duplicate_ack(self.snd_una(), self.snd_nxt(), u32::from(self.mss())) {
            self.set_flag(Flag::Resend, true);
            // Karn's rule.
            self.set_flag(Flag::Timed, false);
        }
    }
}
