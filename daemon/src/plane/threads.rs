//! What the data threads of one network have in common.
//!
//! Each thread has a shard of the node, and an [`Inbox`]: for commands, and for what the other threads hand over.
//! Besides that nothing passes between them but numbers that are told as one ([`Threads::tell`]), and what it
//! takes to end together: none ends before all are drained, have parted from those behind a relay, or
//! have to ([`Threads::close`]).

use std::io;
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use fastvpn_proto::node::{Command, Handover, NodeStats, Traffic, shard_of};
use fastvpn_proto::time::Instant;
use tracing::error;

use super::inbox::{Inbox, Order};
use super::{DeviceNumber, PlaneCommand};

/// All data threads of one network
#[derive(Debug)]
pub(super) struct Threads {
    inboxes: Vec<Inbox>,
    pulses: Vec<Pulse>,
    numbers: Mutex<Vec<Numbers>>,
    /// What each has sent, as of its last turn
    sent: Vec<Sent>,
    /// Whether each has a queue of the TUN
    queues: AtomicBool,
    /// The newest device that is known to be gone
    lost: AtomicU64,
    /// A bit for each that would miss nothing if it ended
    drained: AtomicU64,
    /// A bit for each that has nothing more to say by others, at each step of the end
    parted: [AtomicU64; 2],
    /// How many have not ended
    alive: AtomicUsize,
    /// Why the first one ended that was not told to
    failure: Mutex<Option<io::Error>>,
}

/// How far a thread has come with its goodbyes
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Step {
    /// They are said to those behind a relay, which another thread may have
    Relayed,
    /// They are said to all: over stream carriers too, which the first thread has
    All,
}

/// Numbers of a thread, or of all
#[derive(Clone, Debug, Default)]
pub(super) struct Numbers {
    pub(super) node: NodeStats,
    pub(super) overflowed: u64,
}

/// What a thread has sent
#[derive(Debug, Default)]
struct Sent {
    packets: AtomicU64,
    bytes: AtomicU64,
}

impl Threads {
    /// Begins with so many
    ///
    /// # Errors
    /// If the system has no descriptors left.
    pub(super) fn new(count: usize, now: Instant) -> io::Result<Self> {
        Ok(Self {
            inboxes: (0..count).map(|_| Inbox::new()).collect::<io::Result<_>>()?,
            pulses: (0..count).map(|_| Pulse::new(now)).collect(),
            numbers: Mutex::new(vec![Numbers::default(); count]),
            sent: (0..count).map(|_| Sent::default()).collect(),
            queues: AtomicBool::new(false),
            lost: AtomicU64::new(0),
            drained: AtomicU64::new(0),
            parted: Default::default(),
            alive: AtomicUsize::new(count),
            failure: Mutex::default(),
        })
    }

    /// Returns how many there are
    pub(super) fn count(&self) -> usize {
        self.inboxes.len()
    }

    /// Returns the inbox of one of them
    pub(super) fn inbox(&self, at: usize) -> &Inbox {
        &self.inboxes[at]
    }

    /// Gives a command to those that it concerns
    pub(super) fn send(&self, command: PlaneCommand) {
        match command {
            PlaneCommand::Accept(_) => self.give(0, command),
            PlaneCommand::Node(Command::Ping { peer, .. } | Command::Send { peer, .. }) => {
                self.give(shard_of(&peer, self.count()), command);
            }
            PlaneCommand::Node(command) => self.to_all(|| PlaneCommand::Node(command.clone())),
            PlaneCommand::Tun { device, queues, mtu } => {
                self.queues.store(queues.len() > 1, Ordering::Relaxed);
                let mut queues = self.for_all(queues).into_iter();
                self.to_all(|| {
                    let queues: Vec<OwnedFd> = queues.next().into_iter().collect();
                    PlaneCommand::Tun { device, queues, mtu }
                });
            }
            PlaneCommand::CloseTun => self.to_all(|| PlaneCommand::CloseTun),
            PlaneCommand::Carry(carry) => self.to_all(|| PlaneCommand::Carry(carry)),
            PlaneCommand::Stats => self.to_all(|| PlaneCommand::Stats),
            PlaneCommand::Stop { drain } => self.to_all(|| PlaneCommand::Stop { drain }),
        }
    }

    /// Returns a queue of the TUN for each thread: the only one for all, so that each can write to it
    fn for_all(&self, mut queues: Vec<OwnedFd>) -> Vec<OwnedFd> {
        if let [only] = &queues[..] {
            let others =
                (1..self.count()).map(|_| only.try_clone()).collect::<io::Result<Vec<_>>>();
            match others {
                Ok(others) => queues.extend(others),
                Err(error) => error!(%error, "only some nodes can send to this one"),
            }
        }
        queues
    }

    fn give(&self, at: usize, command: PlaneCommand) {
        self.inboxes[at].push(Order::Command(command));
    }

    fn to_all(&self, mut command: impl FnMut() -> PlaneCommand) {
        (0..self.count()).for_each(|at| self.give(at, command()));
    }

    /// Hands something over to another thread; returns it where that has no room for it
    pub(super) fn hand_over(&self, handover: Handover) -> Option<Handover> {
        let Some(inbox) = self.inboxes.get(handover.to()) else { return Some(handover) };
        match inbox.offer(Order::Handover(handover)) {
            Some(Order::Handover(handover)) => Some(handover),
            Some(Order::Command(_)) | None => None,
        }
    }

    /// Has all threads end, told to or not
    pub(super) fn close(&self) {
        self.inboxes.iter().for_each(Inbox::close);
    }

    /// Records that a thread makes a turn, and what it has sent by now
    pub(super) fn beat(&self, at: usize, sent: Traffic, now: Instant) {
        self.pulses[at].beat(now);
        self.sent[at].record(sent);
    }

    /// Tells whether each thread has made a turn since `limit`
    pub(super) fn beat_after(&self, limit: Instant) -> bool {
        self.pulses.iter().all(|pulse| pulse.beat_after(limit))
    }

    /// Takes the numbers of one thread; returns those of all where it is the one that tells them
    ///
    /// Others have the first one tell them soon, if it is `urgent`.
    pub(super) fn tell(&self, at: usize, numbers: Numbers, urgent: bool) -> Option<Numbers> {
        let all = {
            let mut all = lock(&self.numbers);
            all[at] = numbers;
            (at == 0).then(|| all.clone())
        };
        if urgent && at != 0 {
            // Where there is no room, it wakes anyway.
            self.inboxes[0].offer(Order::Command(PlaneCommand::Stats));
        }
        let mut all = all?;
        for (one, sent) in all.iter_mut().zip(&self.sent) {
            // Rates are taken of this, and the others' numbers may be a second old, or two.
            one.node.sent = sent.by_now();
        }
        let overflowed = all.iter().map(|one| one.overflowed).sum();
        let node = NodeStats::of_shards(all.into_iter().map(|one| one.node));
        Some(Numbers { node, overflowed })
    }

    /// Tells whether each thread has a queue of the TUN, or there is one for all
    pub(super) fn have_queues(&self) -> bool {
        self.queues.load(Ordering::Relaxed)
    }

    /// Tells whether this is the first to see that a device is gone, or a later one
    pub(super) fn lose_tun(&self, device: DeviceNumber) -> bool {
        self.lost.fetch_max(device.0, Ordering::Relaxed) < device.0
    }

    /// Records whether a thread would miss nothing if it ended; tells whether none would
    pub(super) fn drain(&self, at: usize, drained: bool) -> bool {
        let bit = 1 << at;
        let before = if drained {
            self.drained.fetch_or(bit, Ordering::Relaxed) | bit
        } else {
            self.drained.fetch_and(!bit, Ordering::Relaxed) & !bit
        };
        before == self.everybody()
    }

    /// Wakes all threads but one
    pub(super) fn wake_others(&self, at: usize) {
        let others = (0..self.count()).filter(|other| *other != at);
        others.for_each(|other| self.inboxes[other].wake());
    }

    /// Records that a thread has nothing more to say by others
    pub(super) fn part(&self, step: Step, at: usize) {
        self.parted[step as usize].fetch_or(1 << at, Ordering::Relaxed);
    }

    /// Tells whether no thread has
    pub(super) fn have_parted(&self, step: Step) -> bool {
        self.parted[step as usize].load(Ordering::Relaxed) == self.everybody()
    }

    /// A bit for each thread
    fn everybody(&self) -> u64 {
        (1 << self.count()) - 1
    }

    /// Records that a thread ends, and why if it was not told to; all others end then
    pub(super) fn fail(&self, error: io::Error) {
        lock(&self.failure).get_or_insert(error);
    }

    /// Records that a thread has ended; returns why all have, if it was the last one
    pub(super) fn leave(&self, at: usize) -> Option<Option<io::Error>> {
        self.pulses[at].stop();
        let last = self.alive.fetch_sub(1, Ordering::AcqRel) == 1;
        last.then(|| lock(&self.failure).take())
    }
}

impl Sent {
    fn record(&self, sent: Traffic) {
        self.packets.store(sent.packets, Ordering::Relaxed);
        self.bytes.store(sent.bytes, Ordering::Relaxed);
    }

    fn by_now(&self) -> Traffic {
        let packets = self.packets.load(Ordering::Relaxed);
        Traffic { packets, bytes: self.bytes.load(Ordering::Relaxed) }
    }
}

/// When a thread made its last turn; zero once it has ended
#[derive(Debug)]
struct Pulse(AtomicU64);

impl Pulse {
    fn new(now: Instant) -> Self {
        Self(AtomicU64::new(now.as_nanos()))
    }

    fn beat(&self, now: Instant) {
        self.0.store(now.as_nanos(), Ordering::Relaxed);
    }

    fn stop(&self) {
        self.0.store(0, Ordering::Relaxed);
    }

    fn beat_after(&self, limit: Instant) -> bool {
        let last = self.0.load(Ordering::Relaxed);
        last > 0 && last >= limit.as_nanos()
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // All is whole between any two statements above, whoever panicked.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn threads(count: usize) -> Threads {
        Threads::new(count, Instant::ZERO + Duration::from_secs(1)).unwrap()
    }

    fn taken(threads: &Threads, at: usize) -> usize {
        let mut taken = Vec::new();
        threads.inbox(at).take(&mut taken, usize::MAX);
        taken.len()
    }

    #[test]
    fn command_goes_to_all_whom_it_concerns() {
        let threads = threads(3);

        threads.send(PlaneCommand::Carry(true));
        threads.send(PlaneCommand::Accept(fastvpn_proto::node::Choice::Tcp));

        assert_eq!([0, 1, 2].map(|at| taken(&threads, at)), [2, 1, 1]);
    }

    #[test]
    fn ping_goes_to_the_thread_that_has_the_peer() {
        let threads = threads(3);

        for first in 0..6 {
            let peer = fastvpn_proto::crypto::PublicKey::from_bytes([first; 32]);
            let ping = Command::Ping { peer, id: 1, timeout: Duration::ZERO };
            threads.send(PlaneCommand::Node(ping));
            let expected = [0, 1, 2].map(|at| usize::from(at == shard_of(&peer, 3)));
            assert_eq!([0, 1, 2].map(|at| taken(&threads, at)), expected);
        }
    }

    #[test]
    fn numbers_are_told_by_the_first_and_are_those_of_all() {
        let threads = threads(2);
        let numbers = |dropped, overflowed| Numbers {
            node: NodeStats { dropped, ..NodeStats::default() },
            overflowed,
        };

        assert!(threads.tell(1, numbers(5, 1), true).is_none());
        assert_eq!(taken(&threads, 0), 1, "it is asked to");
        let sent = |packets| Traffic { packets, bytes: packets * 1000 };
        threads.beat(0, sent(20), Instant::ZERO);
        threads.beat(1, sent(3), Instant::ZERO);
        let told = threads.tell(0, numbers(2, 7), false).unwrap();

        assert_eq!((told.node.dropped, told.overflowed), (7, 8));
        assert_eq!(told.node.sent, sent(23), "what the other one has sent since it told");
    }

    #[test]
    fn others_are_woken_and_find_nothing_to_do() {
        let threads = threads(3);

        threads.wake_others(1);

        let woken = [0, 1, 2].map(|at| rustix::io::read(threads.inbox(at), &mut [0_u8; 8]).is_ok());
        assert_eq!(woken, [true, false, true]);
        assert_eq!([0, 1, 2].map(|at| taken(&threads, at)), [0; 3]);
    }

    #[test]
    fn all_are_drained_when_each_is_at_one_time() {
        let threads = threads(2);

        assert!(!threads.drain(0, true));
        assert!(!threads.drain(0, false));
        assert!(!threads.drain(1, true));
        assert!(threads.drain(0, true));
    }

    #[test]
    fn last_one_to_end_says_why_the_first_one_did() {
        let threads = threads(3);
        assert!(threads.beat_after(Instant::ZERO));
        threads.fail(io::Error::other("first"));
        threads.fail(io::Error::other("second"));

        assert!(threads.leave(1).is_none() && threads.leave(0).is_none());
        assert!(!threads.beat_after(Instant::ZERO));
        let reason = threads.leave(2).flatten().unwrap();

        assert_eq!(reason.to_string(), "first");
    }

    #[test]
    fn loss_of_the_device_is_told_once_for_each_device() {
        let threads = threads(2);

        let lost = [1, 1, 2, 1, 2].map(|device| threads.lose_tun(DeviceNumber(device)));

        assert_eq!(lost, [true, false, true, false, false]);
    }
}
