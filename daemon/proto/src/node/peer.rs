//! What a node keeps of one other node.

use std::collections::VecDeque;

use super::config::{BootId, Contact, PeerConfig};
use super::event::Why;
use super::parked::Parked;
use super::stats::{PeerState, PeerStats, Traffic};
use super::way::{Carrier, Way};
use crate::handshake::{HalfOpen, Initiator};
use crate::ip::gso::Cutter;
use crate::limits::WAITING_BYTES;
use crate::session::{Session, Shared};
use crate::time::{Duration, Instant};

/// One other node, with or without a session
#[derive(Debug)]
pub(super) struct Peer {
    pub(super) config: PeerConfig,
    pub(super) session: Option<Session>,
    /// Which session of ours with it the present one is, or the next one will be
    pub(super) incarnation: u32,
    pub(super) call: Option<Call>,
    pub(super) half_open: HalfOpen,
    pub(super) waiting: Waiting,
    pub(super) sent: Traffic,
    pub(super) received: Traffic,
    pub(super) silence_told: bool,
    /// Where it stands in the node's schedule
    pub(super) scheduled: Option<(Instant, Why)>,
    /// How often time was given to it at one instant
    pub(super) turns: (Instant, u32),
    /// Split connections that wait for a session
    pub(super) parked: Option<Parked>,
    past: Past,
}

/// A handshake that we started
#[derive(Debug)]
pub(super) struct Call {
    pub(super) initiator: Initiator,
    pub(super) reason: Reason,
    /// When it is given up, unless packets wait
    pub(super) until: Instant,
    /// Indices that its attempts use
    pub(super) indices: Vec<u32>,
    /// Ways that its inits went
    pub(super) ways: Vec<Way>,
}

/// Why we started a handshake
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Reason {
    /// There is no session, or the other node is said to have restarted
    Contact,
    /// The keys are old
    Keys,
    /// The other node does not answer
    Silence,
}

/// Packets that wait for a session
#[derive(Debug, Default)]
pub(super) struct Waiting {
    packets: VecDeque<Vec<u8>>,
    bytes: usize,
}

/// Handshakes of the past, which an attacker might replay
#[derive(Debug, Default)]
struct Past {
    /// Boot ids whose sessions were replaced, the latest last
    boots: VecDeque<BootId>,
    /// The latest boot id, and the highest sequence that was confirmed in it
    latest: Option<(BootId, u64)>,
}

impl Peer {
    pub(super) fn new(config: PeerConfig, incarnation: u32) -> Self {
        Self {
            config,
            session: None,
            incarnation,
            call: None,
            half_open: HalfOpen::default(),
            waiting: Waiting::default(),
            sent: Traffic::default(),
            received: Traffic::default(),
            silence_told: false,
            scheduled: None,
            turns: (Instant::ZERO, 0),
            parked: None,
            past: Past::default(),
        }
    }

    /// Records that a handshake of the other node was confirmed by a message under its keys
    pub(super) fn on_confirmed(&mut self, boot: BootId, sequence: u64) {
        match &mut self.past.latest {
            Some((known, highest)) if *known == boot => *highest = sequence.max(*highest),
            latest => {
                if let Some((old, _)) = latest.replace((boot, sequence)) {
                    self.past.boots.push_back(old);
                }
            }
        }
        if self.past.boots.len() > BOOTS_KEPT {
            self.past.boots.pop_front();
        }
    }

    /// Tells whether an init belongs to the past
    pub(super) fn is_replayed(&self, boot: BootId, sequence: u64) -> bool {
        self.past.boots.contains(&boot)
            || self.past.latest.is_some_and(|(known, highest)| known == boot && sequence <= highest)
    }

    /// Returns all ways that may lead to the node when nothing is known to work
    pub(super) fn ways(&self) -> Vec<Way> {
        let carriers = self.config.carrier.carriers().iter();
        let mut ways: Vec<Way> = carriers.flat_map(|carrier| self.ways_over(*carrier)).collect();
        ways.extend(self.config.relay.map(Way::Relayed));
        ways
    }

    fn ways_over(&self, carrier: Carrier) -> impl Iterator<Item = Way> + '_ {
        let tried = match carrier {
            Carrier::Udp => ENDPOINTS_TRIED,
            Carrier::Tcp | Carrier::Kcp => STREAMS_TRIED,
        };
        self.config.endpoints.iter().take(tried).map(move |at| Way::over(carrier, *at))
    }

    /// Goes through all indices of ours that name it
    pub(super) fn indices(&self) -> impl Iterator<Item = u32> + '_ {
        let session = self.session.iter().flat_map(Session::indices);
        let call = self.call.iter().flat_map(|call| call.indices.iter().copied());
        session.chain(call).chain(self.half_open.indices())
    }

    /// Returns the path in use
    pub(super) fn way(&self) -> Option<Way> {
        self.session.as_ref().and_then(Session::way)
    }

    /// Returns when the node must look at this peer again, and what for
    pub(super) fn deadline(
        &self,
        silence: Duration,
        shared: &Shared,
        now: Instant,
    ) -> Option<(Instant, Why)> {
        let call = self.call.as_ref().map(|call| (call.initiator.deadline(), Why::Handshake));
        let session = self.session.as_ref().map(|session| session.deadline(shared, now));
        let quiet = self.session.as_ref().filter(|_| !self.silence_told);
        let quiet = quiet.map(|session| (session.last_heard() + silence, Why::Silence));
        let half_open = self.half_open.deadline().map(|at| (at, Why::Sweep));
        let parked = self.parked.as_ref().map(|parked| (parked.deadline(), Why::Tcp));
        [call, session, quiet, half_open, parked].into_iter().flatten().min()
    }

    pub(super) fn state(&self, now: Instant) -> PeerState {
        match &self.session {
            Some(session) if session.is_unresponsive(now) => PeerState::Unresponsive,
            Some(_) => PeerState::Connected,
            None if self.call.is_some() && self.config.contact != Contact::Await => {
                PeerState::Connecting
            }
            None => PeerState::Idle,
        }
    }

    /// Returns how many connections are split with it
    pub(super) fn connections(&self) -> usize {
        self.session.as_ref().map(Session::connections).unwrap_or_default()
    }

    pub(super) fn stats(&self, shared: &Shared, now: Instant) -> PeerStats {
        let session = self.session.as_ref();
        PeerStats {
            key: self.config.key,
            state: self.state(now),
            path: session.and_then(Session::path_stats),
            tcp: session.map(|session| session.carriage(shared)),
            sent: self.sent,
            received: self.received,
            last_handshake: session.and_then(Session::last_handshake),
            last_heard: session.map(Session::last_heard),
        }
    }
}

impl Waiting {
    /// Queues a packet, or those that it consists of; tells whether there was room for all
    #[must_use]
    pub(super) fn push_cut(&mut self, packet: &[u8], cutter: Option<Cutter<'_>>) -> bool {
        let Some(mut cutter) = cutter else { return self.push(packet.to_vec()) };
        let (mut next, mut fits) = (Vec::new(), true);
        while cutter.next(&mut next) {
            fits &= self.push(next.clone());
        }
        fits
    }

    /// Queues a packet; tells whether there was room
    #[must_use]
    pub(super) fn push(&mut self, packet: Vec<u8>) -> bool {
        let fits = self.bytes + packet.len() <= WAITING_BYTES;
        if fits {
            self.bytes += packet.len();
            self.packets.push_back(packet);
        }
        fits
    }

    pub(super) fn take(&mut self) -> VecDeque<Vec<u8>> {
        self.bytes = 0;
        core::mem::take(&mut self.packets)
    }
}

/// Boot ids of the past that are remembered
const BOOTS_KEPT: usize = 8;
/// Addresses of one node that are tried at one time
const ENDPOINTS_TRIED: usize = 6;
/// Of these, connections that are tried at one time
const STREAMS_TRIED: usize = 2;
