//! The queue of orders to a data thread: commands from the control side, and what other threads hand over.
//!
//! # Contract
//!
//! - Orders arrive in the order in which they came in.
//! - The descriptor is readable while orders wait, once after [`Inbox::wake`], or once the inbox is closed.
//! - [`Inbox::push`] waits when the queue is full, but not for long: a thread that takes nothing for
//!   [`PATIENCE`] is stuck, and its watchdog will say so. [`Inbox::offer`] never waits.

use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use fastvpn_proto::node::Handover;
use rustix::event::{EventfdFlags, eventfd};
use tracing::error;

use super::PlaneCommand;

/// Bounded queue with a descriptor that wakes its reader
#[derive(Debug)]
pub(super) struct Inbox {
    queue: Mutex<Queue>,
    room: Condvar,
    wake: OwnedFd,
}

/// What a data thread is to do
#[derive(Debug)]
pub(super) enum Order {
    /// For the control side
    Command(PlaneCommand),
    /// For another thread, which got what belongs to this one
    Handover(Handover),
}

#[derive(Debug, Default)]
struct Queue {
    orders: VecDeque<Order>,
    /// Bytes of what was handed over
    weight: usize,
    closed: bool,
}

impl Order {
    fn weight(&self) -> usize {
        match self {
            Self::Command(_) => 0,
            Self::Handover(handover) => handover.weight(),
        }
    }

    fn must_arrive(&self) -> bool {
        match self {
            Self::Command(_) => false,
            Self::Handover(handover) => handover.must_arrive(),
        }
    }
}

impl Inbox {
    /// Makes an empty inbox
    pub(super) fn new() -> io::Result<Self> {
        Ok(Self {
            queue: Mutex::default(),
            room: Condvar::new(),
            wake: eventfd(0, EventfdFlags::NONBLOCK | EventfdFlags::CLOEXEC)?,
        })
    }

    /// Adds an order and wakes the reader; does nothing once the inbox is closed
    pub(super) fn push(&self, order: Order) {
        let full = |queue: &mut Queue| queue.orders.len() >= CAPACITY && !queue.closed;
        let (mut queue, wait) = self
            .room
            .wait_timeout_while(self.lock(), PATIENCE, full)
            .unwrap_or_else(PoisonError::into_inner);
        if queue.closed {
            return;
        }
        if wait.timed_out() {
            error!("the data thread takes no commands; one was dropped");
            return;
        }
        self.add(&mut queue, order);
    }

    /// Adds an order if there is room, or it must arrive; returns it where there is none
    ///
    /// Even when the inbox is closed: what others have to say at the end is still to be taken.
    pub(super) fn offer(&self, order: Order) -> Option<Order> {
        let mut queue = self.lock();
        // Commands have room beyond.
        let room = queue.orders.len() < CAPACITY / 2 && queue.weight <= WEIGHT;
        if !room && !order.must_arrive() {
            return Some(order);
        }
        self.add(&mut queue, order);
        None
    }

    fn add(&self, queue: &mut Queue, order: Order) {
        queue.weight += order.weight();
        queue.orders.push_back(order);
        if queue.orders.len() == 1 {
            self.wake();
        }
    }

    /// Moves at most `limit` orders to `taken`; returns whether the inbox is closed and empty
    pub(super) fn take(&self, taken: &mut Vec<Order>, limit: usize) -> bool {
        let mut queue = self.lock();
        let count = limit.min(queue.orders.len());
        let first = taken.len();
        taken.extend(queue.orders.drain(..count));
        queue.weight -= taken[first..].iter().map(Order::weight).sum::<usize>();
        if queue.orders.is_empty() && !queue.closed {
            // Nothing to read means that nobody has woken us.
            let _ = rustix::io::read(&self.wake, &mut [0u8; 8]);
        }
        self.room.notify_all();
        queue.closed && queue.orders.is_empty()
    }

    /// Takes no more commands; orders that wait can still be taken
    pub(super) fn close(&self) {
        self.lock().closed = true;
        self.room.notify_all();
        self.wake();
    }

    /// Wakes the reader, whether there is an order for it or not
    pub(super) fn wake(&self) {
        // A full counter would fail, and is readable all the same.
        let _ = rustix::io::write(&self.wake, &1u64.to_ne_bytes());
    }

    fn lock(&self) -> MutexGuard<'_, Queue> {
        // A queue is whole between any two statements above, whoever panicked.
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl AsFd for Inbox {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.wake.as_fd()
    }
}

/// Orders that may wait: a push to each member of a large hub, with room to spare
pub(super) const CAPACITY: usize = 4096;
/// Bytes beyond which nothing more is handed over: what a thread gets done in some milliseconds
const WEIGHT: usize = 4 << 20;
/// How long a full queue is waited for
const PATIENCE: Duration = Duration::from_millis(100);

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::thread;
    use std::time::Instant;

    use fastvpn_proto::node::{Arrival, Carrier, Ecn, Node};
    use rustix::event::{PollFd, PollFlags, poll};
    use rustix::time::Timespec;

    use super::super::tests::config;
    use super::*;

    #[test]
    fn command_wakes_the_reader_and_taking_all_lets_it_sleep() {
        let inbox = Inbox::new().unwrap();
        assert!(!readable(&inbox));

        inbox.push(Order::Command(PlaneCommand::Carry(true)));
        inbox.push(Order::Command(PlaneCommand::CloseTun));

        assert!(readable(&inbox));
        let mut taken = Vec::new();
        assert!(!inbox.take(&mut taken, 1));
        assert!(readable(&inbox), "one command still waits");
        assert!(!inbox.take(&mut taken, 1));
        assert!(!readable(&inbox));
        assert!(matches!(
            taken[..],
            [Order::Command(PlaneCommand::Carry(true)), Order::Command(PlaneCommand::CloseTun)]
        ));
    }

    #[test]
    fn closed_inbox_wakes_gives_what_waits_and_takes_no_more() {
        let inbox = Inbox::new().unwrap();
        inbox.push(Order::Command(PlaneCommand::Stop { drain: Duration::ZERO }));

        inbox.close();
        inbox.push(Order::Command(PlaneCommand::Stats));

        let mut taken = Vec::new();
        assert!(readable(&inbox));
        assert!(inbox.take(&mut taken, 8));
        assert!(readable(&inbox), "a closed inbox never sleeps");
        assert!(matches!(taken[..], [Order::Command(PlaneCommand::Stop { .. })]));
    }

    #[test]
    fn full_inbox_makes_the_writer_wait_for_room() {
        let inbox = Arc::new(Inbox::new().unwrap());
        for _ in 0..CAPACITY {
            inbox.push(Order::Command(PlaneCommand::Stats));
        }

        let writer = thread::spawn({
            let inbox = Arc::clone(&inbox);
            move || inbox.push(Order::Command(PlaneCommand::CloseTun))
        });
        thread::sleep(PATIENCE / 10);
        let mut taken = Vec::new();
        inbox.take(&mut taken, CAPACITY);
        writer.join().unwrap();
        inbox.take(&mut taken, CAPACITY);

        assert_eq!(taken.len(), CAPACITY + 1);
        assert!(matches!(taken.last(), Some(Order::Command(PlaneCommand::CloseTun))));
    }

    #[test]
    fn stuck_reader_does_not_hold_the_writer_for_long() {
        let inbox = Inbox::new().unwrap();
        for _ in 0..CAPACITY {
            inbox.push(Order::Command(PlaneCommand::Stats));
        }

        let start = Instant::now();
        inbox.push(Order::Command(PlaneCommand::CloseTun));

        assert!(start.elapsed() < Duration::from_secs(5));
        let mut taken = Vec::new();
        inbox.take(&mut taken, usize::MAX);
        assert_eq!(taken.len(), CAPACITY);
    }

    #[test]
    fn what_is_offered_never_waits_and_leaves_room_for_commands() {
        let inbox = Inbox::new().unwrap();
        let offer = || inbox.offer(Order::Command(PlaneCommand::Stats)).is_none();

        let taken = (0..CAPACITY).filter(|_| offer()).count();

        assert_eq!(taken, CAPACITY / 2);
        inbox.push(Order::Command(PlaneCommand::CloseTun));
        let mut taken = Vec::new();
        inbox.take(&mut taken, usize::MAX);
        assert!(matches!(taken.last(), Some(Order::Command(PlaneCommand::CloseTun))));
        assert!(offer());
    }

    #[test]
    fn what_must_arrive_finds_room_in_a_full_inbox() {
        let inbox = Inbox::new().unwrap();
        while inbox.offer(Order::Command(PlaneCommand::Stats)).is_none() {}
        let mut shard = Node::shards(&config(), 2, fastvpn_proto::time::Instant::ZERO).remove(0);
        let now = fastvpn_proto::time::Instant::ZERO;
        shard.handle_broken(Carrier::Tcp, "192.0.2.1:1".parse().unwrap(), now);
        let broken = shard.poll_handover().unwrap();

        assert!(inbox.offer(Order::Handover(broken)).is_none());

        let mut taken = Vec::new();
        inbox.take(&mut taken, usize::MAX);
        assert!(matches!(taken.last(), Some(Order::Handover(_))));
    }

    #[test]
    fn no_more_bytes_are_handed_over_than_are_soon_done() {
        let inbox = Inbox::new().unwrap();
        let mut shard = Node::shards(&config(), 2, fastvpn_proto::time::Instant::ZERO).remove(0);
        let arrival = Arrival {
            carrier: Carrier::Udp,
            remote: "192.0.2.1:1".parse().unwrap(),
            local: None,
            ecn: Ecn::Incapable,
        };
        // A message of the other shard.
        let mut message = vec![1; 50_000];
        message[0] = 4;
        let mut offer = || {
            shard.handle_message(arrival, &mut message, fastvpn_proto::time::Instant::ZERO);
            inbox.offer(Order::Handover(shard.poll_handover().unwrap())).is_none()
        };

        for _ in 0..2 {
            let given = (0..1000).take_while(|_| offer()).count();
            assert!((WEIGHT / 51_000..=WEIGHT / 50_000 + 1).contains(&given), "{given}");
            inbox.take(&mut Vec::new(), usize::MAX);
        }
    }

    fn readable(inbox: &Inbox) -> bool {
        let mut fds = [PollFd::new(inbox, PollFlags::IN)];
        poll(&mut fds, Some(&Timespec { tv_sec: 0, tv_nsec: 0 })).unwrap() == 1
    }
}
