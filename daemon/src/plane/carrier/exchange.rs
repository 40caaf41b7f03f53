//! What connections and the data thread have for each other.
//!
//! Towards the plane there is one queue for all connections ([`Exchange`]) with a descriptor that
//! wakes the plane; who finds it full waits, and so reads no more from its socket. Towards a
//! connection there is a queue of its own ([`Outbox`], [`Orders`]), which never makes the plane
//! wait: how much is in it is bounded by what the node is told of as written.

use std::collections::VecDeque;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use fastvpn_proto::node::{Carrier, Credential};
use rustix::event::{EventfdFlags, eventfd};
use tokio::sync::{Notify, mpsc, watch};

/// Names a connection
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub(super) struct Id(pub(super) u64);

/// From a connection to the plane
#[derive(Debug)]
pub(super) enum News {
    /// A connection is gone, or was not made
    Closed(Id),
    /// Whole messages, each behind its length
    Messages(Id, Vec<u8>),
    /// A connection was accepted
    Opened(Opened),
    /// So many bytes of messages have left
    Written(Id, usize),
}

/// A connection that was accepted
#[derive(Debug)]
pub(super) struct Opened {
    pub(super) id: Id,
    pub(super) carrier: Carrier,
    pub(super) remote: SocketAddr,
    pub(super) local: Option<IpAddr>,
    pub(super) outbox: Outbox,
    /// The message that it began with; the connection is only made if the node takes it
    pub(super) knock: Option<Vec<u8>>,
}

/// The queue of all connections to the plane
#[derive(Debug)]
pub(super) struct Exchange {
    queue: Mutex<Queue>,
    room: Notify,
    wake: OwnedFd,
}

#[derive(Debug, Default)]
struct Queue {
    news: VecDeque<News>,
    /// Bytes of messages in it
    bytes: usize,
}

/// Messages of one size for a connection
#[derive(Debug)]
pub(super) struct Train {
    pub(super) bytes: Vec<u8>,
    pub(super) segment: usize,
}

/// The plane's end of a connection; the connection ends when it is dropped
#[derive(Debug)]
pub(super) struct Outbox {
    queue: mpsc::UnboundedSender<Train>,
    held: Arc<AtomicUsize>,
    verdict: watch::Sender<Credential>,
}

/// The connection's end
#[derive(Debug)]
pub(super) struct Orders {
    pub(super) queue: mpsc::UnboundedReceiver<Train>,
    pub(super) held: Arc<AtomicUsize>,
    /// What the node knows of who is at the other end
    pub(super) verdict: watch::Receiver<Credential>,
}

impl Exchange {
    /// Makes an empty one
    pub(super) fn new() -> io::Result<Self> {
        Ok(Self {
            queue: Mutex::default(),
            room: Notify::new(),
            wake: eventfd(0, EventfdFlags::NONBLOCK | EventfdFlags::CLOEXEC)?,
        })
    }

    /// Brings messages, once there is room for them
    pub(super) async fn bring(&self, id: Id, messages: Vec<u8>) {
        loop {
            // Made before looking, so that no call is missed in between.
            let room = self.room.notified();
            {
                let mut queue = self.lock();
                if queue.bytes < BYTES_MAX {
                    queue.bytes += messages.len();
                    self.push(&mut queue, News::Messages(id, messages));
                    return;
                }
            }
            room.await;
        }
    }

    /// Tells of something that takes no room to speak of
    pub(super) fn tell(&self, news: News) {
        let mut queue = self.lock();
        if let (News::Written(id, more), Some(News::Written(last, bytes))) =
            (&news, queue.news.back_mut())
            && id == last
        {
            *bytes += more;
            return;
        }
        self.push(&mut queue, news);
    }

    /// Moves everything to `taken`
    pub(super) fn take(&self, taken: &mut VecDeque<News>) {
        let mut queue = self.lock();
        taken.append(&mut queue.news);
        queue.bytes = 0;
        // Nothing to read means that nobody has woken us.
        let _ = rustix::io::read(&self.wake, &mut [0u8; 8]);
        drop(queue);
        self.room.notify_waiters();
    }

    fn push(&self, queue: &mut Queue, news: News) {
        queue.news.push_back(news);
        if queue.news.len() == 1 {
            // A full counter would fail, and is readable all the same.
            let _ = rustix::io::write(&self.wake, &1u64.to_ne_bytes());
        }
    }

    fn lock(&self) -> MutexGuard<'_, Queue> {
        // A queue is whole between any two statements above, whoever panicked.
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl AsFd for Exchange {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.wake.as_fd()
    }
}

impl Outbox {
    /// Makes the queue of one connection
    pub(super) fn new() -> (Self, Orders) {
        let (queue, trains) = mpsc::unbounded_channel();
        let held = Arc::new(AtomicUsize::new(0));
        let (verdict, known) = watch::channel(Credential::Nothing);
        let orders = Orders { queue: trains, held: Arc::clone(&held), verdict: known };
        (Self { queue, held, verdict }, orders)
    }

    /// Gives a train to the connection; tells whether it was taken
    pub(super) fn give(&self, train: Train) -> bool {
        let len = train.bytes.len();
        if self.held.load(Ordering::Relaxed) + len > HELD_MAX {
            return false;
        }
        self.held.fetch_add(len, Ordering::Relaxed);
        self.queue.send(train).is_ok()
    }

    /// Tells whether something was given that has not left yet
    pub(super) fn is_busy(&self) -> bool {
        self.held.load(Ordering::Relaxed) > 0 && !self.queue.is_closed()
    }

    /// Learns what a message of it proved
    pub(super) fn credit(&self, proven: Credential) {
        self.verdict.send_if_modified(|known| {
            let more = proven > *known;
            if more {
                *known = proven;
            }
            more
        });
    }

    /// Tells whether it is known who is at the other end
    pub(super) fn is_proven(&self) -> bool {
        *self.verdict.borrow() == Credential::Identity
    }
}

/// Bytes of messages that may wait for the plane, more or less
const BYTES_MAX: usize = 1 << 20;
/// Bytes that may wait for one connection: more than the node ever gives without being told that
/// some were written
const HELD_MAX: usize = 1 << 20;

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use rustix::event::{PollFd, PollFlags, poll};
    use rustix::time::Timespec;

    use super::*;

    #[tokio::test]
    async fn who_finds_the_queue_full_waits_until_the_plane_has_taken() {
        let exchange = Arc::new(Exchange::new().unwrap());
        exchange.bring(Id(1), vec![0; BYTES_MAX]).await;
        assert!(readable(&exchange));

        let late = tokio::spawn({
            let exchange = Arc::clone(&exchange);
            async move { exchange.bring(Id(2), vec![0; 10]).await }
        });
        tokio::time::sleep(Duration::from_millis(20)).await;
        assert!(!late.is_finished());
        exchange.tell(News::Closed(Id(3)));
        let mut taken = VecDeque::new();
        exchange.take(&mut taken);
        late.await.unwrap();

        assert_eq!(taken.len(), 2, "only messages wait");
        assert!(readable(&exchange));
        exchange.take(&mut taken);
        assert_eq!(taken.len(), 3);
        assert!(!readable(&exchange));
    }

    #[test]
    fn written_bytes_of_one_connection_are_told_as_one() {
        let exchange = Exchange::new().unwrap();

        for (id, bytes) in [(1, 10), (1, 20), (2, 5), (1, 7)] {
            exchange.tell(News::Written(Id(id), bytes));
        }

        let mut taken = VecDeque::new();
        exchange.take(&mut taken);
        let told: Vec<_> = taken
            .iter()
            .map(|news| match news {
                News::Written(id, bytes) => (id.0, *bytes),
                other => panic!("{other:?}"),
            })
            .collect();
        assert_eq!(told, [(1, 30), (2, 5), (1, 7)]);
    }

    #[test]
    fn connection_that_takes_nothing_is_given_no_more_than_there_is_room_for() {
        let (outbox, orders) = Outbox::new();
        let train = || Train { bytes: vec![0; 48 * 1024], segment: 1400 };

        let given = (0..100).take_while(|_| outbox.give(train())).count();

        assert_eq!(given, HELD_MAX / (48 * 1024));
        assert!(outbox.is_busy());
        drop(orders);
        assert!(!outbox.is_busy());
    }

    #[test]
    fn what_was_proven_once_stays_proven() {
        let (outbox, orders) = Outbox::new();

        outbox.credit(Credential::Identity);
        outbox.credit(Credential::Nothing);

        assert!(outbox.is_proven());
        assert_eq!(*orders.verdict.borrow(), Credential::Identity);
    }

    fn readable(exchange: &Exchange) -> bool {
        let mut fds = [PollFd::new(exchange, PollFlags::IN)];
        poll(&mut fds, Some(&Timespec { tv_sec: 0, tv_nsec: 0 })).unwrap() == 1
    }
}
