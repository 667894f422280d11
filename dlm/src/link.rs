//! Delivery between two incarnations: once, in order, whatever happens to the TCP connection (section 6).
//!
//! Each peer has a go-back-N window. A message stays until it is acknowledged and is sent again after a reconnect or
//! when nothing was acknowledged for a while. A new incarnation at either end starts from nothing: what it must know
//! it asks for.

use crate::event::PeerFault;
use crate::limits::{LINK_ACK_EVERY, LINK_WINDOW};
use crate::time::BootTime;
use mxlock_format::{Epoch, Incarnation, NodeId};
use mxlock_proto::peer::{PeerFrame, PeerMessage};
use std::collections::VecDeque;
use std::time::Duration;

/// The state of the conversation with one peer.
#[derive(Debug)]
pub(crate) struct Link {
    peer: NodeId,
    incarnation: Incarnation,
    up: bool,
    /// Number of the first message in `unacked`.
    first: u64,
    unacked: VecDeque<(Epoch, PeerMessage)>,
    /// Messages of `unacked` that have been sent at least once on this connection.
    sent: usize,
    received: u64,
    unacknowledged: u64,
    ack_due: Option<BootTime>,
    resend_due: Option<BootTime>,
    /// Since when there has been no connection.
    pub(crate) down_since: BootTime,
}

/// Times of a link, derived from the renewal interval.
#[derive(Clone, Copy, Debug)]
pub(crate) struct LinkTiming {
    /// An acknowledgement waits this long for a message to ride on.
    pub(crate) ack_delay: Duration,
    /// Without progress for this long, everything unacknowledged is sent again.
    pub(crate) resend: Duration,
}

/// Who speaks, and in which view.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Identity {
    pub(crate) node: NodeId,
    pub(crate) incarnation: Incarnation,
}

impl Link {
    pub(crate) fn new(peer: NodeId, incarnation: Incarnation, now: BootTime) -> Link {
        Link {
            peer,
            incarnation,
            up: false,
            first: 1,
            unacked: VecDeque::new(),
            sent: 0,
            received: 0,
            unacknowledged: 0,
            ack_due: None,
            resend_due: None,
            down_since: now,
        }
    }

    pub(crate) fn incarnation(&self) -> Incarnation {
        self.incarnation
    }

    pub(crate) fn is_up(&self) -> bool {
        self.up
    }

    pub(crate) fn connected(&mut self, now: BootTime, timing: LinkTiming, me: Identity, out: &mut Vec<PeerFrame>) {
        self.up = true;
        self.sent = 0;
        self.transmit(now, timing, me, out);
    }

    pub(crate) fn disconnected(&mut self, now: BootTime) {
        if self.up {
            self.up = false;
            self.down_since = now;
        }
        self.ack_due = None;
        self.resend_due = None;
    }

    /// Queues a message and sends what the window allows.
    pub(crate) fn send(
        &mut self,
        now: BootTime,
        timing: LinkTiming,
        me: Identity,
        epoch: Epoch,
        message: PeerMessage,
        out: &mut Vec<PeerFrame>,
    ) {
        self.unacked.push_back((epoch, message));
        self.transmit(now, timing, me, out);
    }

    fn transmit(&mut self, now: BootTime, timing: LinkTiming, me: Identity, out: &mut Vec<PeerFrame>) {
        if !self.up {
            return;
        }
        while self.sent < self.unacked.len().min(LINK_WINDOW) {
            let (epoch, message) = &self.unacked[self.sent];
            out.push(PeerFrame {
                from: me.node,
                from_incarnation: me.incarnation,
                to_incarnation: self.incarnation,
                seq: self.first + self.sent as u64,
                ack: self.received,
                epoch: *epoch,
                message: Some(message.clone()),
            });
            self.sent += 1;
            self.acknowledged();
        }
        if self.sent > 0 && self.resend_due.is_none() {
            self.resend_due = Some(now + timing.resend);
        }
    }

    fn acknowledged(&mut self) {
        self.unacknowledged = 0;
        self.ack_due = None;
    }

    fn acknowledge(&mut self, me: Identity, out: &mut Vec<PeerFrame>) {
        self.acknowledged();
        out.push(PeerFrame {
            from: me.node,
            from_incarnation: me.incarnation,
            to_incarnation: self.incarnation,
            seq: 0,
            ack: self.received,
            epoch: Epoch(0),
            message: None,
        });
    }

    /// Takes a frame in; returns its message when it is the next one in order.
    pub(crate) fn receive(
        &mut self,
        now: BootTime,
        timing: LinkTiming,
        me: Identity,
        frame: PeerFrame,
        out: &mut Vec<PeerFrame>,
    ) -> Result<Option<(Epoch, PeerMessage)>, PeerFault> {
        if frame.from != self.peer
            || frame.from_incarnation != self.incarnation
            || frame.to_incarnation != me.incarnation
        {
            return Err(PeerFault::WrongIncarnation);
        }
        // Acknowledgements of what was never sent are ignored, not believed.
        let acked = (frame.ack + 1).saturating_sub(self.first).min(self.sent as u64) as usize;
        if acked > 0 {
            self.unacked.drain(..acked);
            self.first += acked as u64;
            self.sent -= acked;
            self.resend_due = None;
            self.transmit(now, timing, me, out);
            if self.sent > 0 {
                self.resend_due = Some(now + timing.resend);
            }
        }
        let Some(message) = frame.message else {
            return Ok(None);
        };
        if frame.seq <= self.received {
            // Sent again because an acknowledgement was lost: repeat it.
            self.acknowledge(me, out);
            return Ok(None);
        }
        if frame.seq != self.received + 1 {
            return Err(PeerFault::Gap);
        }
        self.received = frame.seq;
        self.unacknowledged += 1;
        if self.unacknowledged >= LINK_ACK_EVERY {
            self.acknowledge(me, out);
        } else if self.ack_due.is_none() {
            self.ack_due = Some(now + timing.ack_delay);
        }
        Ok(Some((frame.epoch, message)))
    }

    /// When [`Link::on_time`] wants to be called.
    pub(crate) fn deadline(&self) -> Option<BootTime> {
        if !self.up {
            return None;
        }
        [self.ack_due, self.resend_due].into_iter().flatten().min()
    }

    pub(crate) fn on_time(&mut self, now: BootTime, timing: LinkTiming, me: Identity, out: &mut Vec<PeerFrame>) {
        if !self.up {
            return;
        }
        if self.ack_due.is_some_and(|due| due <= now) {
            self.acknowledge(me, out);
        }
        if self.resend_due.is_some_and(|due| due <= now) {
            self.resend_due = None;
            self.sent = 0;
            self.transmit(now, timing, me, out);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TIMING: LinkTiming = LinkTiming { ack_delay: Duration::from_millis(25), resend: Duration::from_millis(100) };

    fn at(ms: u64) -> BootTime {
        BootTime(ms * 1_000_000)
    }

    fn pair() -> (Link, Identity, Link, Identity) {
        let a = Identity { node: NodeId::new(0).unwrap(), incarnation: Incarnation(10) };
        let b = Identity { node: NodeId::new(1).unwrap(), incarnation: Incarnation(20) };
        (Link::new(b.node, b.incarnation, at(0)), a, Link::new(a.node, a.incarnation, at(0)), b)
    }

    fn mark(n: u64) -> PeerMessage {
        PeerMessage::Join { above: Epoch(n) }
    }

    /// Section 6: re-sending is harmless, nothing is lost or doubled, whatever frames are dropped or repeated.
    #[test]
    fn delivers_once_and_in_order_over_a_bad_network() {
        let (mut a, me_a, mut b, me_b) = pair();
        let mut wire = Vec::new();
        let mut back = Vec::new();
        a.connected(at(0), TIMING, me_a, &mut wire);
        b.connected(at(0), TIMING, me_b, &mut back);
        let mut delivered = Vec::new();
        for n in 1..=50 {
            a.send(at(n), TIMING, me_a, Epoch(7), mark(n), &mut wire);
        }
        for round in 0..200_u64 {
            let now = at(100 + round * 60);
            // Drop every third frame, double every fifth.
            for (i, frame) in std::mem::take(&mut wire).into_iter().enumerate() {
                let copies =
                    if (i as u64 + round).is_multiple_of(3) { 0 } else { 1 + usize::from(i.is_multiple_of(5)) };
                for _ in 0..copies {
                    if let Ok(Some((epoch, PeerMessage::Join { above }))) =
                        b.receive(now, TIMING, me_b, frame.clone(), &mut back)
                    {
                        assert_eq!(epoch, Epoch(7));
                        delivered.push(above.0);
                    }
                }
            }
            for (i, frame) in std::mem::take(&mut back).into_iter().enumerate() {
                if (i as u64 + round).is_multiple_of(2) {
                    a.receive(now, TIMING, me_a, frame, &mut wire).unwrap();
                }
            }
            if round == 20 {
                a.disconnected(now);
                wire.clear();
                a.connected(now, TIMING, me_a, &mut wire);
            }
            a.on_time(now, TIMING, me_a, &mut wire);
            b.on_time(now, TIMING, me_b, &mut back);
        }
        assert_eq!(delivered, (1..=50).collect::<Vec<_>>());
        assert!(a.unacked.is_empty());
    }

    /// Section 6: every message carries the sender's incarnation; one for or from another is refused.
    #[test]
    fn refuses_other_incarnations() {
        let (mut a, me_a, mut b, me_b) = pair();
        let mut wire = Vec::new();
        a.connected(at(0), TIMING, me_a, &mut wire);
        a.send(at(0), TIMING, me_a, Epoch(1), mark(1), &mut wire);
        let frame = wire.pop().unwrap();
        let stale = PeerFrame { to_incarnation: Incarnation(19), ..frame.clone() };
        assert_eq!(b.receive(at(1), TIMING, me_b, stale, &mut wire), Err(PeerFault::WrongIncarnation));
        let forged = PeerFrame { from_incarnation: Incarnation(9), ..frame };
        assert_eq!(b.receive(at(1), TIMING, me_b, forged, &mut wire), Err(PeerFault::WrongIncarnation));
    }
}
