//! One way to a node: its address, its numbers, what we know of it.
//!
//! A [`Path`] joins what belongs to one way in the sending direction: the counter of its messages,
//! what is in flight on it, RTT, MTU and pulse, and the proof that the address is the other node's.
//! It decides what is due *for itself* (challenges, probes, beats); what travels in its messages is
//! decided by `session::outbox`.
//!
//! # Contract
//!
//! - A path that is not proven may send [`AMPLIFICATION`] bytes for each byte heard, no more.
//! - [`Path::next_owed`] names what must be sent now; each thing named is taken by sending it.
//! - After each `on_*` call the deadline may have moved; ask again.
//!
//! # Not here
//!
//! What the other node sends on its own paths is numbered by it, and kept in `session::inbound`.

pub mod flow;
pub mod heartbeat;
mod items;
pub mod marking;
pub mod mtu;
pub mod offload;
pub mod quality;
pub mod rtt;
pub mod select;
pub mod sent;

use core::net::IpAddr;
use std::collections::VecDeque;

use self::flow::Flow;
use self::heartbeat::{Due, Heartbeat};
pub use self::items::Items;
use self::marking::Marking;
use self::mtu::Mtu;
use self::offload::{Offload, Place};
use self::quality::{Progress, Quality};
use self::rtt::Rtt;
use self::sent::{AckResult, Model, Sent};
use crate::limits::{AMPLIFICATION, HEARTBEAT, INITIAL_RTT, MESSAGE_MAX, MESSAGE_MIN};
use crate::node::{Ecn, PathStats, Spent, Traffic, Way, Why};
use crate::rate::{Rate, Stamp};
use crate::sched::Capacity;
use crate::tcp::Piece;
use crate::time::{Duration, Instant};
use crate::wire::frame::{Ack, RELAY_OVERHEAD};

/// One way to a node
#[derive(Debug)]
pub struct Path {
    /// Number in our messages
    pub number: u8,
    /// Where messages go
    pub way: Way,
    /// Our own address that the other node uses, where known
    pub local: Option<IpAddr>,
    /// What was sent, by number
    pub sent: Sent<Content>,
    /// Round-trip time
    pub rtt: Rtt,
    /// Largest message
    pub mtu: Mtu,
    /// How much may leave, where the carrier does not know by itself
    pub rate: Rate,
    /// How much may leave, where the carrier knows
    flow: Option<Flow>,
    /// Whether it is near and clean
    pub quality: Quality,
    /// Whether routers may mark what leaves
    marking: Marking,
    /// Whether trains leave whole
    pub offload: Offload,
    /// Messages sent
    pub traffic: Traffic,
    /// What was in them
    pub spent: Spent,
    /// The way that the other node left for this one, until this one is proven
    pub replaces: Option<Way>,
    /// When anything authentic last came from there
    pub last_heard: Instant,
    proof: Proof,
    /// Whether it is to fall silent
    resting: bool,
    heartbeat: Heartbeat,
    dues: Dues,
}

/// What a message carried that must be known when it is acknowledged or lost
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Content {
    /// What lanes put into it
    pub items: Items,
    /// An acknowledgement: the other node's path, and the largest number acknowledged
    pub ack: Option<(u8, u64)>,
    /// Whether it was an MTU probe
    pub probe: bool,
    /// Size of the message
    pub size: u16,
    /// Whether it could be marked on the way
    pub capable: bool,
    /// Its place in a train, where it has one and that is watched
    pub place: Option<Place>,
}

/// Something of a lane in a message
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Item {
    /// A piece of a split connection's lane
    Lane(Piece),
    /// A segment of the control lane, by `sn`
    Segment(u32),
    /// The window of the control lane
    Window,
    /// An inner packet of which copies may follow, by its number
    Copied(u32),
    /// The news that the node is about to end
    Leaving,
}

/// Whether the address is known to be the other node's
#[derive(Debug)]
enum Proof {
    /// A challenge is open
    Open {
        /// What the answer must say
        challenge: u64,
        /// Challenges sent
        tries: u32,
        /// When the next one is due
        next: Instant,
        /// Bytes that may still be sent
        credit: u64,
    },
    /// Answered
    Done,
}

/// Small things that wait for the next message on this path
#[derive(Debug, Default)]
struct Dues {
    answers: VecDeque<u64>,
    echoes: VecDeque<u64>,
    ping: bool,
    challenge: Option<u64>,
    probe: Option<usize>,
}

/// Something that must be sent on a path now
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Owed {
    /// The answer to a challenge
    Answer(u64),
    /// A challenge, padded
    Challenge(u64),
    /// The reply to an echo
    EchoReply(u64),
    /// Anything that elicits an acknowledgement
    Ping,
    /// A ping padded to this size of message
    Probe(usize),
}

impl Path {
    /// Makes a path that is proven already (the handshake went that way)
    pub fn proven(number: u8, way: Way, local: Option<IpAddr>, now: Instant) -> Self {
        Self {
            number,
            way,
            local,
            sent: sent_on(way, 0),
            rtt: Rtt::new(),
            mtu: match way {
                Way::Stream(..) => Mtu::fixed(MESSAGE_MAX),
                Way::Direct(_) | Way::Relayed(_) => Mtu::new(largest(way)),
            },
            rate: Rate::new(),
            flow: way.is_stream().then(Flow::new),
            quality: Quality::default(),
            marking: Marking::new(),
            offload: Offload::new(),
            traffic: Traffic::default(),
            spent: Spent::default(),
            replaces: None,
            last_heard: now,
            proof: Proof::Done,
            resting: false,
            heartbeat: Heartbeat::new(HEARTBEAT, MISSED, now),
            dues: Dues::default(),
        }
    }

    /// Makes a path whose address is still to be proven
    ///
    /// `heard` bytes came from there; nothing for an address that we only heard of, to which
    /// a challenge or two may go all the same.
    pub fn unproven(
        number: u8,
        way: Way,
        local: Option<IpAddr>,
        challenge: u64,
        heard: usize,
        now: Instant,
    ) -> Self {
        let mut path = Self::proven(number, way, local, now);
        let credit = if heard > 0 { AMPLIFICATION * heard as u64 } else { UNHEARD_CREDIT };
        path.proof = Proof::Open { challenge, tries: 0, next: now, credit };
        path
    }

    /// Stops beating, or beats again: a path that nobody needs is silent, and so is dropped
    pub fn set_resting(&mut self, resting: bool) {
        self.resting = resting;
    }

    /// Goes on with the numbers of an earlier path
    pub fn go_on_from(&mut self, count: u64) {
        self.sent = sent_on(self.way, count);
        self.marking = if count == 0 { Marking::new() } else { Marking::going_on() };
    }

    /// Returns what the IP header of the next message is to say of congestion
    pub fn next_mark(&mut self, now: Instant) -> Ecn {
        match self.way {
            Way::Direct(_) if self.is_proven() => self.marking.next(now),
            // A stream's marks are its own, a relay's those of its sessions.
            Way::Direct(_) | Way::Relayed(_) | Way::Stream(..) => Ecn::Incapable,
        }
    }

    /// Records that a reliable carrier has written `bytes` of what it was given
    pub fn on_written(&mut self, bytes: usize, now: Instant) {
        if let Some(flow) = &mut self.flow {
            flow.on_written(bytes, now);
        }
    }

    /// Records that a message left, with what it carried; returns its number
    pub fn on_sent(&mut self, eliciting: bool, content: Content, now: Instant) -> u64 {
        let bytes = usize::from(content.size);
        self.traffic.count(bytes);
        self.heartbeat.on_sent(now);
        if let Some(flow) = &mut self.flow {
            flow.on_sent(bytes, now);
        }
        if let Proof::Open { credit, .. } = &mut self.proof {
            *credit = credit.saturating_sub(bytes as u64);
        }
        self.sent.on_sent(bytes, eliciting, content, &mut self.rate, now)
    }

    /// Records that an authentic message of `bytes` came from there
    pub fn on_heard(&mut self, bytes: usize, now: Instant) {
        self.last_heard = now;
        self.heartbeat.on_heard(now);
        if let Proof::Open { credit, .. } = &mut self.proof {
            *credit = credit.saturating_add(AMPLIFICATION * bytes as u64);
        }
    }

    /// Takes the answer to a challenge; tells whether it proves the path
    pub fn on_answer(&mut self, answer: u64) -> bool {
        let proven = matches!(self.proof, Proof::Open { challenge, .. } if challenge == answer);
        if proven {
            self.proof = Proof::Done;
        }
        proven
    }

    /// Takes the address as proven: a handshake went that way
    pub fn prove(&mut self) {
        self.proof = Proof::Done;
    }

    /// Owes the other node the answer to a challenge
    pub fn owe_answer(&mut self, challenge: u64) {
        if self.dues.answers.len() < OWED_MAX {
            self.dues.answers.push_back(challenge);
        }
    }

    /// Owes the other node the reply to an echo
    pub fn owe_echo(&mut self, echo: u64) {
        if self.dues.echoes.len() < OWED_MAX {
            self.dues.echoes.push_back(echo);
        }
    }

    /// Owes a message that elicits an acknowledgement
    pub fn owe_ping(&mut self) {
        self.dues.ping = true;
    }

    /// Challenges the address at once, if it is not proven yet
    pub fn hurry(&mut self, now: Instant) {
        if let Proof::Open { next, tries, .. } = &mut self.proof {
            *next = now;
            *tries = 0;
        }
    }

    /// Does what time demands; returns what became of the path
    pub fn handle_timeout(&mut self, lost: &mut Vec<Content>, now: Instant) -> Fate {
        if let Proof::Open { challenge, tries, next, .. } = &mut self.proof
            && now >= *next
        {
            if *tries >= CHALLENGES {
                return Fate::Unproven;
            }
            self.dues.challenge = Some(*challenge);
            *next = now + CHALLENGE_FIRST * 2u32.pow((*tries).min(4));
            *tries += 1;
        }
        let model = Model { rtt: &mut self.rtt, rate: &mut self.rate };
        if self.sent.handle_timeout(model, now, lost) {
            self.dues.ping = true;
            self.marking.on_probe(now);
        }
        self.marking.on_lost(capable(lost), now);
        self.judge_offload(&[], lost, now);
        self.quality.on_resolved(0, load(lost), 0);
        if !self.is_proven() {
            return Fate::Lives;
        }
        if let Some(size) = self.mtu.next_probe(now) {
            self.dues.probe = Some(size);
        }
        match self.heartbeat.poll(now) {
            None => Fate::Lives,
            Some(Due::Beat) => {
                self.dues.ping |= !self.resting;
                Fate::Lives
            }
            Some(Due::Lost) => {
                // The session may have nothing better: beat on.
                self.heartbeat = Heartbeat::new(HEARTBEAT, MISSED, now);
                self.dues.ping = true;
                Fate::Silent
            }
        }
    }

    /// Takes the next thing that must be sent now
    pub fn next_owed(&mut self) -> Option<Owed> {
        if let Some(answer) = self.dues.answers.pop_front() {
            return Some(Owed::Answer(answer));
        }
        if let Some(challenge) = self.dues.challenge.take() {
            return Some(Owed::Challenge(challenge));
        }
        if let Some(echo) = self.dues.echoes.pop_front() {
            return Some(Owed::EchoReply(echo));
        }
        if let Some(size) = self.dues.probe.take() {
            return Some(Owed::Probe(size));
        }
        core::mem::take(&mut self.dues.ping).then_some(Owed::Ping)
    }

    /// Tells whether anything must be sent now
    pub fn owes(&self) -> bool {
        let dues = &self.dues;
        dues.ping
            || dues.challenge.is_some()
            || dues.probe.is_some()
            || !dues.answers.is_empty()
            || !dues.echoes.is_empty()
    }

    /// Tells whether the address is known to be the other node's
    pub fn is_proven(&self) -> bool {
        matches!(self.proof, Proof::Done)
    }

    /// Tells whether a message of `bytes` may be sent to an address in this state of proof
    pub fn affords(&self, bytes: usize) -> bool {
        match self.proof {
            Proof::Open { credit, .. } => credit >= bytes as u64,
            Proof::Done => true,
        }
    }

    /// Tells whether what was sent stays without any answer for too long
    pub fn is_unresponsive(&self, now: Instant) -> bool {
        self.fails_at().is_some_and(|at| now >= at)
    }

    /// Takes an acknowledgement of what was sent here; appends what arrived and what was lost
    ///
    /// Both vectors come empty.
    pub fn on_ack(
        &mut self,
        ack: &Ack<'_>,
        now: Instant,
        acked: &mut Vec<Content>,
        lost: &mut Vec<Content>,
    ) -> AckResult {
        let stamp = Stamp { written: ack.written, delay: ack.delay };
        let model = Model { rtt: &mut self.rtt, rate: &mut self.rate };
        let result = self.sent.on_ack(ack.ranges(), stamp, model, now, acked, lost);
        self.judge_offload(acked, lost, now);
        if result.newly {
            self.quality.on_resolved(acked.len(), load(lost), result.spurious as usize);
            self.quality.judge(self.rtt.min(), now);
            self.marking.on_lost(capable(lost), now);
            let congested = self.marking.on_ack(ack.marks, capable(acked), now);
            if congested > 0 {
                self.rate.on_marks(self.sent.in_flight(), now);
            }
        }
        result
    }

    /// Returns whether the kernel may cut the train of the next message, and what to remember of that;
    /// `before` is so of the train that it follows, and how many messages that has
    pub fn next_in_train(
        &mut self,
        before: Option<(bool, usize)>,
        now: Instant,
    ) -> (bool, Option<Place>) {
        match (self.way, before) {
            (Way::Direct(_), None) => (self.offload.next_train(now), None),
            (Way::Direct(_), Some((whole, messages))) => {
                if messages == 1 {
                    // Only now is it known that the one before is the first of a train.
                    let place = self.offload.place(whole, 1);
                    if let Some(first) = self.sent.newest_mut().filter(|first| !first.probe) {
                        first.place = place;
                    }
                }
                (whole, self.offload.place(whole, messages + 1))
            }
            // Those have trains of their own.
            (Way::Relayed(_) | Way::Stream(..), _) => (true, None),
        }
    }

    /// Takes what became of messages for what it tells of segmentation offload
    fn judge_offload(&mut self, acked: &[Content], lost: &[Content], now: Instant) {
        for place in acked.iter().filter_map(|content| content.place) {
            self.offload.on_acked(place, now);
        }
        for place in lost.iter().filter_map(|content| content.place) {
            self.offload.on_lost(place, now);
        }
    }

    /// Takes how far the other node's messages have come that came this way
    pub fn on_progress(&mut self, progress: Progress) {
        self.quality.on_progress(progress);
    }

    /// Tells whether the path is so near and clean that TCP does well over it by itself
    ///
    /// A stream is never lossy in our eyes, and what lies behind a relay is not known.
    pub fn is_easy(&self) -> bool {
        matches!(self.way, Way::Direct(_)) && self.quality.is_easy()
    }

    /// Returns how many bytes of load may leave now
    ///
    /// Where it is not nothing, a whole message may leave.
    pub fn budget(&self, now: Instant) -> usize {
        match &self.flow {
            Some(flow) => flow.budget(),
            None => self.rate.budget(self.sent.in_flight(), now),
        }
    }

    /// Returns when [`Path::budget`] opens by time alone; nothing where only an acknowledgement can
    pub fn send_at(&self) -> Option<Instant> {
        match self.flow {
            // Only what the carrier writes makes room.
            Some(_) => None,
            None => self.rate.send_at(self.sent.in_flight()),
        }
    }

    /// Records that there was nothing to send although it was allowed
    pub fn on_idle(&mut self, _now: Instant) {
        self.rate.on_idle();
    }

    /// Returns what is known of what the path carries
    pub fn capacity(&self) -> Capacity {
        Capacity {
            rate: match &self.flow {
                Some(flow) => flow.rate(),
                None => self.rate.delivery_rate(),
            },
            proven: self.flow.is_some() || self.rate.is_proven(),
            loss_ppm: self.sent.loss_ppm(),
            rtt: self.rtt.smoothed().unwrap_or(INITIAL_RTT),
        }
    }

    /// Returns the largest message to send, in bytes of sealed message
    pub fn room(&self) -> usize {
        let room = match &self.flow {
            Some(flow) => flow.message(),
            None => inner_size(self.way, self.mtu.current()),
        };
        match self.proof {
            Proof::Open { credit, .. } => room.min(usize::try_from(credit).unwrap_or(room)),
            Proof::Done => room,
        }
    }

    /// Returns the size of a sealed message that makes `outer` bytes of UDP payload on this way
    pub fn inner_size(&self, outer: usize) -> usize {
        inner_size(self.way, outer)
    }

    /// Returns the bytes of UDP payload that a sealed message of `inner` bytes makes on this way
    pub fn outer_size(&self, inner: usize) -> usize {
        match self.way {
            Way::Direct(_) | Way::Stream(..) => inner,
            Way::Relayed(_) => inner + RELAYING,
        }
    }

    /// Returns when [`Path::handle_timeout`] is due next, and what for
    pub fn deadline(&self) -> (Instant, Why) {
        let first = match &self.proof {
            Proof::Open { next, .. } => (*next, Why::Probe),
            Proof::Done => (self.heartbeat.deadline(), Why::Heartbeat),
        };
        let loss = self.sent.deadline(&self.rtt).map(|at| (at, Why::Loss));
        let probe = self.mtu.deadline().filter(|_| self.is_proven()).map(|at| (at, Why::Probe));
        [loss, probe].into_iter().flatten().fold(first, Ord::min)
    }

    /// Returns when what was sent will have stayed without any answer for too long: after three
    /// probe timeouts, and never under half a second (a stream, which repeats by itself: three)
    pub fn fails_at(&self) -> Option<Instant> {
        let since = self.sent.unanswered_since()?;
        let least = if self.flow.is_some() { PATIENCE_STREAM } else { PATIENCE_MIN };
        Some(since + (self.rtt.pto() * 3).max(least))
    }

    /// Returns the numbers that people look at
    pub fn stats(&self) -> PathStats {
        PathStats {
            way: self.way,
            rtt: self.rtt.smoothed(),
            rtt_min: self.rtt.min(),
            rtt_var: self.rtt.var(),
            loss_ppm: self.sent.loss_ppm(),
            mtu: u16::try_from(self.mtu.current()).unwrap_or(u16::MAX),
            sent: self.traffic,
            lost: self.sent.lost_total(),
            congested: self.marking.congested(),
            rate: self.capacity().rate,
            queue_delay: self.rate.queue_delay(),
            own_loss_ppm: self.rate.own_loss_ppm(),
            offload: matches!(self.way, Way::Direct(_)) && self.offload.works(),
            spent: self.spent,
        }
    }
}

/// What became of a path when time passed
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Fate {
    /// It goes on
    Lives,
    /// Nothing came for several beats
    Silent,
    /// The address did not answer any challenge
    Unproven,
}

/// Numbers what is sent on a way, from `count` on
fn sent_on(way: Way, count: u64) -> Sent<Content> {
    let sent = Sent::starting_at(count);
    if way.is_stream() { sent.reliable() } else { sent }
}

/// Returns how many of these messages were no trials of a size that may not pass
fn load(contents: &[Content]) -> usize {
    contents.iter().filter(|content| !content.probe).count()
}

/// Returns how many messages with these contents could be marked
fn capable(contents: &[Content]) -> u32 {
    let count = contents.iter().filter(|content| content.capable).count();
    u32::try_from(count).unwrap_or(u32::MAX)
}

fn inner_size(way: Way, outer: usize) -> usize {
    match way {
        Way::Direct(_) | Way::Stream(..) => outer,
        Way::Relayed(_) => outer.saturating_sub(RELAYING),
    }
}

/// Largest UDP payload that is tried on a way: Ethernet's, less the headers
fn largest(way: Way) -> usize {
    match way {
        Way::Direct(addr) if addr.is_ipv4() => 1500 - 20 - 8,
        Way::Direct(_) => 1500 - 40 - 8,
        // The relay's own path may be IPv6.
        Way::Relayed(_) => 1500 - 40 - 8,
        Way::Stream(..) => MESSAGE_MAX,
    }
}

/// Header and tag of the message to the relay, and the frame in it
const RELAYING: usize = crate::limits::DATA_HEADER_LEN + crate::limits::TAG_LEN + RELAY_OVERHEAD;
/// Beats that may be missed
const MISSED: u32 = 2;
/// Challenges to an address before it is given up
const CHALLENGES: u32 = 6;
/// Time to the second challenge; doubled for each further one
const CHALLENGE_FIRST: Duration = Duration::from_millis(250);
/// Bytes that may go to an address that only the hub or the configuration told us of
const UNHEARD_CREDIT: u64 = 8 * MESSAGE_MIN as u64;
/// Answers and replies that wait at one time
const OWED_MAX: usize = 16;
/// Shortest silence that counts as a failure
const PATIENCE_MIN: Duration = Duration::from_millis(500);
/// The same where the carrier repeats what gets lost
const PATIENCE_STREAM: Duration = Duration::from_secs(3);
