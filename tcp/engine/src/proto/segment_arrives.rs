//! SEGMENT ARRIVES, RFC 9293 section 3.10.7: what a segment means to a connection, check by check in the RFC's order.
//!
//! The checks only judge text and FIN. The endpoint finds a place for text and reports through [`Tcb::receive`] and
//! [`Tcp::receive_fin`].

use std::hint::cold_path;

use super::tcb::{FIN_WAIT_2_MS, Flag, Tcb};
use super::tcp::Tcp;
use super::timeouts::{DATA_RETRIES, FIN_RETRIES};
use super::{End, Flags, Rtt, Segment, SeqNum, State, Timer};
use crate::hint::{mostly, seldom};
use crate::stats::DropReason;
use crate::time::Millis;

/// Doublings of a probe's interval that remain after an answer: the interval stays near its ceiling, and [`DATA_RETRIES`] less
/// these may find no answer.
const PROBE_BACKOFF: u8 = 9;
const _: () = assert!(PROBE_BACKOFF < DATA_RETRIES, "a peer that answers has probes left");

/// The values that all connections of an endpoint and a family share.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Environment {
    /// The largest text that fits our MTU without options, in bytes.
    pub local_mss: u16,
    /// 2 MSL in milliseconds.
    pub time_wait_ms: u32,
}

/// The fate of a segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Disposition {
    /// It is acceptable: its acknowledgement is taken, its text and FIN wait to be received.
    Accepted,
    /// It is not acceptable: the answer is an acknowledgement.
    Acknowledge,
    /// It is an old SYN of this very handshake: SYN,ACK is retransmitted.
    RepeatHandshake,
    /// The answer is an RST, see [`refusal`]; the connection stays as it is.
    Refuse,
    /// It ends the connection.
    End(End),
    /// A SYN that may open a new connection in place of this one in TIME-WAIT.
    Reopen,
    /// It is dropped.
    Drop(DropReason),
}

/// Text that lies in the window: `len` bytes from `skip` bytes into the segment's text, the first with number `seq`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Text {
    /// The number of its first byte.
    pub seq: SeqNum,
    /// Bytes of the segment's text before it: received earlier.
    pub skip: u16,
    /// Bytes.
    pub len: u16,
}

/// The judgement on a segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Arrival {
    /// The segment's fate.
    pub disposition: Disposition,
    /// Bytes of our stream that it acknowledges for the first time.
    pub acked: u32,
    /// Is this a duplicate acknowledgement (RFC 5681 section 2), or does it carry SACK blocks? See [`Tcp::on_duplicate_ack`].
    pub is_duplicate_ack: bool,
    /// The handshake is complete, and we retransmitted our SYN or SYN,ACK: see [`Tcp::on_syn_lost`].
    pub syn_was_lost: bool,
    /// It carries text, all of it outside the window: an acknowledgement tells the peer what lies inside.
    pub must_acknowledge: bool,
    /// Text to be received.
    pub text: Option<Text>,
    /// The number of a FIN to be received after all text before it.
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

/// Returns the RST for a segment that belongs to no connection, section 3.10.7.1; `None` for an RST.
#[must_use]
pub fn refusal(seg: &Segment) -> Option<Segment> {
    if seg.flags.has(Flags::RST) {
        None
    } else if seg.flags.has(Flags::ACK) {
        Some(Segment { seq: seg.ack, flags: Flags::RST, ..Segment::default() })
    } else {
        Some(Segment { ack: seg.end(), flags: Flags::RST_ACK, ..Segment::default() })
    }
}

fn refuse(seg: &Segment) -> Arrival {
    let is_rst = seg.flags.has(Flags::RST);
    Arrival::of(if is_rst { Disposition::Drop(DropReason::NoConnection) } else { Disposition::Refuse })
}

impl Tcp<'_> {
    /// Judges a segment of this connection and takes its acknowledgement: sections 3.10.7.3 and 3.10.7.4.
    #[inline(always)]
    pub fn segment_arrives(&mut self, seg: &Segment, environment: &Environment, now: Millis) -> Arrival {
        if self.tcb.state() == State::SynSent {
            return self.reborrow().arrives_in_syn_sent(seg, environment, now);
        }
        if seldom(self.tcb.state() == State::TimeWait) && self.tcb.may_reopen(seg) {
            return Arrival::of(Disposition::Reopen);
        }
        let window = self.rcv_wnd();
        let tcb = &mut *self.tcb;
        if let Some(disposition) = tcb
            .check_sequence(seg, window, environment, now)
            .or_else(|| tcb.check_rst(seg))
            .or_else(|| check_syn(seg))
        {
            cold_path();
            return Arrival::of(disposition);
        }
        if seldom(!seg.flags.has(Flags::ACK)) {
            return Arrival::of(Disposition::Drop(DropReason::NoAck));
        }
        tcb.note_timestamp(seg);
        let mut arrival = Arrival::of(Disposition::Accepted);
        if let Some(disposition) = self.check_ack(seg, environment, now, &mut arrival) {
            return Arrival { disposition, ..arrival };
        }
        self.tcb.check_text(seg, window, &mut arrival);
        arrival
    }

    /// Section 3.10.7.3.
    fn arrives_in_syn_sent(mut self, seg: &Segment, environment: &Environment, now: Millis) -> Arrival {
        let has_ack = seg.flags.has(Flags::ACK);
        // First, the ACK bit: it must acknowledge our SYN and nothing else.
        if has_ack && seg.ack != self.tcb.snd_nxt {
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
        self.tcb.learn(seg, environment.local_mss);
        if has_ack {
            let syn_was_lost = self.establish(seg, now);
            self.tcb.set_flag(Flag::AckPending, true);
            Arrival { syn_was_lost, ..Arrival::of(Disposition::Accepted) }
        } else {
            // Simultaneous open: our SYN and theirs have crossed.
            self.tcb.state = State::SynReceived;
            self.tcb.set_backoff(0);
            self.start_retransmit(now);
            Arrival::of(Disposition::RepeatHandshake)
        }
    }

    /// Fifth, the ACK field.
    #[inline(always)]
    fn check_ack(
        &mut self,
        seg: &Segment,
        environment: &Environment,
        now: Millis,
        arrival: &mut Arrival,
    ) -> Option<Disposition> {
        if self.tcb.state() == State::SynReceived {
            if seldom(seg.ack != self.tcb.snd_nxt) {
                return Some(refuse(seg).disposition);
            }
            arrival.syn_was_lost = self.establish(seg, now);
            // SND.WND takes the window of segments that are not older than the last one: that stands in for SND.WL1 and SND.WL2.
            self.tcb.snd_wnd = seg.window;
            return None;
        }
        if seldom(seg.ack.after(self.tcb.snd_nxt)) {
            // It acknowledges numbers that were never sent.
            return Some(Disposition::Acknowledge);
        }
        if seg.ack.after(self.tcb.snd_una) {
            return self.advance(seg, environment, now, arrival);
        }
        if seg.ack == self.tcb.snd_una {
            let tcb = &mut *self.tcb;
            let same_window = seg.window.bytes(tcb.snd_scale()) == tcb.snd_wnd();
            arrival.is_duplicate_ack =
                seg.is_empty() && tcb.flight() > 0 && same_window && tcb.state() != State::TimeWait;
            arrival.is_duplicate_ack |= tcb.is_report(seg);
            if seg.seq.at_or_after(tcb.rcv_nxt) {
                tcb.snd_wnd = seg.window;
                tcb.answer_to_probe();
            }
        }
        None
    }

    /// Enters ESTABLISHED: our SYN is acknowledged. Returns whether it was retransmitted.
    #[inline(always)]
    fn establish(&mut self, seg: &Segment, now: Millis) -> bool {
        let syn_was_lost = !self.tcb.flag(Flag::Timed);
        if !self.sample_from_ack(seg, now) && seldom(self.tcb.backoff() > 0) {
            self.update_rtt(|rtt| *rtt = Rtt::AFTER_LOST_SYN);
        }
        self.tcb.snd_una = seg.ack;
        self.tcb.set_backoff(0);
        self.tcb.clear_timer();
        self.tcb.state = State::Established;
        syn_was_lost
    }

    /// Takes an acknowledgement of new numbers.
    #[inline(always)]
    fn advance(
        &mut self,
        seg: &Segment,
        environment: &Environment,
        now: Millis,
        arrival: &mut Arrival,
    ) -> Option<Disposition> {
        let acked = seg.ack - self.tcb.snd_una;
        let is_all = seg.ack == self.tcb.snd_nxt;
        let fin_acked = is_all && self.tcb.state().fin_is_out();
        arrival.acked = acked - u32::from(fin_acked);
        let backoff = self.tcb.backoff();
        let sampled = self.sample_from_ack(seg, now);
        if seldom(!sampled && backoff > 0) && (is_all || self.transfer.is_some()) {
            // Without a sample the timeout stays as long as it has become.
            self.update_rtt(|rtt| rtt.keep(backoff));
        }
        self.tcb.snd_una = seg.ack;
        self.tcb.snd_wnd = seg.window;
        let mss = u32::from(self.tcb.mss());
        let flight = self.tcb.flight();
        let resend = match &mut self.transfer {
            Some(transfer) => {
                cold_path();
                arrival.is_duplicate_ack = self.tcb.is_report(seg);
                transfer.on_ack(acked, seg.ack, flight, mss, !seg.options.sack.is_empty(), now)
            }
            // Without a record, the repair after a timeout goes on segment by segment.
            None => seldom(backoff > 0) && !is_all,
        };
        self.tcb.set_flag(Flag::Resend, resend);
        self.tcb.set_flag(Flag::Timed, false);
        if mostly(is_all) {
            self.tcb.set_backoff(0);
            self.tcb.clear_timer();
        } else {
            let backoff = if self.transfer.is_none() && resend { 1 } else { 0 };
            self.tcb.set_backoff(backoff);
            self.start_retransmit(now);
        }
        if fin_acked {
            match self.tcb.state() {
                State::FinWait1 => {
                    self.tcb.state = State::FinWait2;
                    self.tcb.set_timer(Timer::Linger, now + FIN_WAIT_2_MS);
                }
                State::Closing => self.tcb.enter_time_wait(environment.time_wait_ms, now),
                State::LastAck => return Some(Disposition::End(End::Closed)),
                _ => {}
            }
        }
        None
    }

    /// Takes a round-trip sample: from the timestamp's echo, or from the running time of the retransmission timer if its number
    /// was sent once (Karn's rule, RFC 6298 section 3). Returns whether there was one.
    #[inline(always)]
    fn sample_from_ack(&mut self, seg: &Segment, now: Millis) -> bool {
        let tcb = &*self.tcb;
        let sample = match seg.options.timestamps {
            Some(timestamps) if tcb.flag(Flag::Timestamps) && timestamps.echo != 0 => {
                Some(now.since(Millis(timestamps.echo)))
            }
            _ => match tcb.timer() {
                (Timer::Retransmit, deadline) if tcb.flag(Flag::Timed) && tcb.backoff() == 0 => {
                    Some(self.timeout_ms().saturating_sub(deadline.since(now)))
                }
                _ => None,
            },
        };
        if let Some(sample_ms) = sample {
            self.update_rtt(|rtt| rtt.sample(sample_ms));
        }
        sample.is_some()
    }
}

/// Fourth, the SYN bit: a SYN in the window is wrong; the challenge lets a restarted peer reset us (RFC 5961 section 4.2).
fn check_syn(seg: &Segment) -> Option<Disposition> {
    seldom(seg.flags.has(Flags::SYN)).then_some(Disposition::Acknowledge)
}

impl Tcb {
    /// May this SYN replace a connection in TIME-WAIT? It must not be an old one: RFC 1122 section 4.2.2.13 compares its number,
    /// RFC 6191 its timestamp.
    fn may_reopen(&self, seg: &Segment) -> bool {
        if !seg.flags.has(Flags::SYN) || seg.flags.has_any(Flags::RST_ACK) {
            return false;
        }
        let has_newer_number = seg.seq.after(self.rcv_nxt);
        match seg.options.timestamps {
            Some(timestamps) if self.flag(Flag::Timestamps) => {
                let age = timestamps.value.wrapping_sub(self.ts_recent) as i32;
                age > 0 || (age == 0 && has_newer_number)
            }
            _ => has_newer_number,
        }
    }

    /// Does the segment carry SACK blocks that mean something?
    #[inline]
    fn is_report(&self, seg: &Segment) -> bool {
        seldom(!seg.options.sack.is_empty()) && self.flag(Flag::Sack) && self.flight() > 0
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
        let nxt = self.rcv_nxt;
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
        // A SYN,ACK that crossed ours in a simultaneous open gets an ACK: SYN,ACK for SYN,ACK would never end.
        let is_old_syn = seg.flags.has(Flags::SYN) && !seg.flags.has(Flags::ACK) && seg.seq + 1 == nxt;
        if self.state() == State::SynReceived && is_old_syn {
            // Karn's rule.
            self.set_flag(Flag::Timed, false);
            return Some(Disposition::RepeatHandshake);
        }
        if self.state() == State::TimeWait && seg.flags.has(Flags::FIN) && seg.end() == nxt {
            // The peer has not seen our last acknowledgement: repeat it and start 2 MSL again.
            self.enter_time_wait(environment.time_wait_ms, now);
        }
        Some(Disposition::Acknowledge)
    }

    /// Second, the RST bit: only the very next number resets; another in the window gets a challenge (RFC 5961 section 3.2).
    fn check_rst(&self, seg: &Segment) -> Option<Disposition> {
        if mostly(!seg.flags.has(Flags::RST)) {
            return None;
        }
        if seg.seq != self.rcv_nxt {
            return Some(Disposition::Acknowledge);
        }
        // In TIME-WAIT both directions are closed: the RST cuts the wait short, and nothing is lost.
        Some(Disposition::End(if self.state() == State::TimeWait { End::Closed } else { End::ResetByPeer }))
    }

    /// RFC 7323 section 4.3: the timestamp to echo is that of the segment which the next acknowledgement answers.
    fn note_timestamp(&mut self, seg: &Segment) {
        let Some(timestamps) = seg.options.timestamps else { return };
        let is_newer = (timestamps.value.wrapping_sub(self.ts_recent) as i32) >= 0;
        if self.flag(Flag::Timestamps)
            && is_newer
            && seg.seq.at_or_before(self.rcv_nxt)
            && !self.flag(Flag::AckPending)
        {
            self.ts_recent = timestamps.value;
        }
    }

    /// Starts the count of unanswered probes anew: the peer lives, whether it answered a probe or text that was in flight before
    /// its window shut (section 3.8.6.1). An open window ends the probing.
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
        let nxt = self.rcv_nxt;
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
}
