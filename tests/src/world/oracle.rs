//! What must hold after each step, whatever happened.
//!
//! - A packet arrives at most once, unchanged, at the host that owns its destination, and never if
//!   its source was not its sender's.
//! - Control messages arrive in the order in which they were written; none is missing between two
//!   that arrived, unless the session was made anew in between.
//! - No two data messages of one host have the same receiver index and number (a nonce twice).
//! - Nothing readable is ever on a wire.
//!
//! That no deadline lies in the past and nothing loops without time passing is watched by
//! [`World`](super::World) where it drains nodes.

use std::collections::{BTreeMap, HashSet};
use std::net::IpAddr;

use fastvpn_proto::time::{Duration, Instant};

use super::HostId;
use super::packet;

/// A violated promise, as a sentence
pub(super) type Fault = String;

/// An inner packet that a test sent
#[derive(Clone, Copy, Debug)]
pub(super) struct Sent {
    pub(super) from: HostId,
    pub(super) to: HostId,
    src: IpAddr,
    dst: IpAddr,
    len: usize,
    pub(super) stream: Option<usize>,
    pub(super) honesty: Honesty,
    pub(super) at: Instant,
    pub(super) arrived: Option<Instant>,
    /// Packet that this one answers
    answers: Option<u64>,
    /// When the answer to it arrived
    pub(super) answered: Option<Instant>,
}

/// Whether a packet's source is its sender's
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Honesty {
    /// It is
    Honest,
    /// It is not, so nobody may deliver it
    Forged,
}

/// Remembers what was sent and judges what arrives
#[derive(Debug, Default)]
pub(super) struct Oracle {
    packets: Vec<Sent>,
    lanes: BTreeMap<(HostId, HostId), Lane>,
    nonces: HashSet<(HostId, [u8; 12])>,
}

#[derive(Debug, Default)]
struct Lane {
    written: Vec<Vec<u8>>,
    arrived: usize,
    /// Messages before this one may be missing: the session was made anew after them
    excused: usize,
}

impl Oracle {
    /// Builds the next packet of a test
    #[allow(clippy::too_many_arguments)] // one for each field of what is remembered
    pub(super) fn send(
        &mut self,
        (from, src): (HostId, IpAddr),
        (to, dst): (HostId, IpAddr),
        len: usize,
        stream: Option<usize>,
        honesty: Honesty,
        at: Instant,
    ) -> (u64, Vec<u8>) {
        let id = self.packets.len() as u64;
        let sent = Sent {
            from,
            to,
            src,
            dst,
            len,
            stream,
            honesty,
            at,
            arrived: None,
            answers: None,
            answered: None,
        };
        self.packets.push(sent);
        (id, sent.build(id))
    }

    /// Builds the answer to a packet that arrived
    pub(super) fn answer(&mut self, request: u64, at: Instant) -> (HostId, Vec<u8>) {
        let id = self.packets.len() as u64;
        let sent = self.packets[request as usize];
        let answer = Sent {
            from: sent.to,
            to: sent.from,
            src: sent.dst,
            dst: sent.src,
            len: sent.len,
            stream: None,
            honesty: Honesty::Honest,
            at,
            arrived: None,
            answers: Some(request),
            answered: None,
        };
        self.packets.push(answer);
        (answer.from, answer.build(id))
    }

    /// Judges a packet that `host` received; returns its number if it was one of ours
    pub(super) fn on_packet(
        &mut self,
        host: HostId,
        bytes: &[u8],
        now: Instant,
    ) -> Result<Option<u64>, Fault> {
        let Some(id) = packet::id_of(bytes) else {
            return Ok(None);
        };
        let Some(sent) = self.packets.get_mut(id as usize) else {
            return Err(format!("packet {id} was never sent"));
        };
        if sent.honesty == Honesty::Forged {
            return Err(format!("packet {id} with the forged source {} arrived", sent.src));
        }
        if sent.to != host {
            return Err(format!(
                "packet {id} of {:?} for {:?} arrived at {host:?}",
                sent.from, sent.to
            ));
        }
        if let Some(before) = sent.arrived.replace(now) {
            return Err(format!("packet {id} arrived twice, first at {before:?}"));
        }
        if sent.build(id) != bytes {
            return Err(format!("packet {id} of {} bytes was changed on its way", sent.len));
        }
        if let Some(request) = sent.answers {
            self.packets[request as usize].answered = Some(now);
        }
        Ok(Some(id))
    }

    /// Remembers a control message
    pub(super) fn write(&mut self, from: HostId, to: HostId, message: Vec<u8>) {
        self.lanes.entry((from, to)).or_default().written.push(message);
    }

    /// Judges a control message that arrived
    pub(super) fn on_control(
        &mut self,
        from: HostId,
        to: HostId,
        message: &[u8],
    ) -> Result<(), Fault> {
        let lane = self.lanes.entry((from, to)).or_default();
        let last = lane.excused.max(lane.arrived).min(lane.written.len().saturating_sub(1));
        let found = (lane.arrived..=last)
            .find(|index| lane.written.get(*index).is_some_and(|written| written == message));
        let Some(index) = found else {
            let place = lane.written.iter().position(|written| written == message);
            return Err(format!(
                "control message {place:?} from {from:?} to {to:?} arrived, {} was due",
                lane.arrived
            ));
        };
        lane.arrived = index + 1;
        Ok(())
    }

    /// Learns that a session between the two began or ended: unacknowledged messages may be lost
    pub(super) fn on_session_change(&mut self, one: HostId, other: HostId) {
        for pair in [(one, other), (other, one)] {
            let lane = self.lanes.entry(pair).or_default();
            lane.excused = lane.written.len();
        }
    }

    /// Judges a message that `host` sent over the network
    pub(super) fn on_message(&mut self, host: HostId, bytes: &[u8]) -> Result<(), Fault> {
        if packet::shows_plaintext(bytes) {
            return Err(format!("{host:?} sent a message in which plaintext can be read"));
        }
        if bytes.len() >= 16 && bytes[0] == DATA {
            let nonce = bytes[4..16].try_into().unwrap_or_default();
            if !self.nonces.insert((host, nonce)) {
                return Err(format!("{host:?} used index and number {nonce:02x?} twice"));
            }
        }
        Ok(())
    }

    pub(super) fn packet(&self, id: u64) -> Sent {
        self.packets[id as usize]
    }

    pub(super) fn packets(&self) -> &[Sent] {
        &self.packets
    }

    pub(super) fn controls_arrived(&self, from: HostId, to: HostId) -> usize {
        self.lanes.get(&(from, to)).map_or(0, |lane| lane.arrived)
    }

    /// Forgets numbers of messages, where a test is too long to keep them all
    pub(super) fn forget_nonces(&mut self) {
        self.nonces.clear();
    }
}

impl Sent {
    fn build(&self, id: u64) -> Vec<u8> {
        let flow = self.stream.map_or(0, |stream| stream as u16 + 1);
        packet::build_in(flow, id, self.src, self.dst, self.len)
    }

    pub(super) fn latency(&self) -> Option<Duration> {
        self.arrived.map(|arrived| arrived.since(self.at))
    }
}

/// First byte of data messages
pub(super) const DATA: u8 = 4;

#[cfg(test)]
mod tests {
    use super::*;

    const A: HostId = HostId(0);
    const B: HostId = HostId(1);

    #[test]
    fn packet_twice_changed_astray_or_forged_is_a_fault() {
        let mut oracle = Oracle::default();
        let (_, mut bytes) = send(&mut oracle, Honesty::Honest);
        assert!(oracle.on_packet(A, &bytes, Instant::ZERO).is_err());
        assert_eq!(oracle.on_packet(B, &bytes, Instant::ZERO), Ok(Some(0)));
        assert!(oracle.on_packet(B, &bytes, Instant::ZERO).is_err());

        let (_, fresh) = send(&mut oracle, Honesty::Honest);
        bytes.clone_from(&fresh);
        bytes[60] ^= 1;
        assert!(oracle.on_packet(B, &bytes, Instant::ZERO).is_err());

        let (_, forged) = send(&mut oracle, Honesty::Forged);
        assert!(oracle.on_packet(B, &forged, Instant::ZERO).is_err());
    }

    #[test]
    fn control_messages_may_only_be_missing_across_sessions() {
        let mut oracle = Oracle::default();
        for message in 0..4u8 {
            oracle.write(A, B, vec![message]);
        }
        assert_eq!(oracle.on_control(A, B, &[0]), Ok(()));
        assert!(oracle.on_control(A, B, &[2]).is_err());

        oracle.on_session_change(A, B);
        assert_eq!(oracle.on_control(A, B, &[2]), Ok(()));
        assert!(oracle.on_control(A, B, &[1]).is_err());
    }

    #[test]
    fn number_used_twice_is_a_fault() {
        let mut oracle = Oracle::default();
        let mut message = [0; 40];
        message[0] = DATA;

        assert_eq!(oracle.on_message(A, &message), Ok(()));
        assert_eq!(oracle.on_message(B, &message), Ok(()));
        assert!(oracle.on_message(A, &message).is_err());
    }

    fn send(oracle: &mut Oracle, honesty: Honesty) -> (u64, Vec<u8>) {
        let (src, dst) = ("10.0.0.1".parse().unwrap(), "10.0.0.2".parse().unwrap());
        oracle.send((A, src), (B, dst), 100, None, honesty, Instant::ZERO)
    }
}
