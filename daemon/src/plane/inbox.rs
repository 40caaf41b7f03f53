//! The queue of commands from the control side to the data thread.
//!
//! # Contract
//!
//! - Commands arrive in the order in which they were pushed.
//! - The descriptor is readable while commands wait, or once the inbox is closed.
//! - [`Inbox::push`] waits when the queue is full, but not for long: a thread that takes nothing for
//!   [`PATIENCE`] is stuck, and its watchdog will say so.

use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

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

#[derive(Debug, Default)]
struct Queue {
    commands: VecDeque<PlaneCommand>,
    closed: bool,
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

    /// Adds a command and wakes the reader; does nothing once the inbox is closed
    pub(super) fn push(&self, command: PlaneCommand) {
        let full = |queue: &mut Queue| queue.commands.len() >= CAPACITY && !queue.closed;
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
        queue.commands.push_back(command);
        if queue.commands.len() == 1 {
            self.wake();
        }
    }

    /// Moves at most `limit` commands to `taken`; returns whether the inbox is closed and empty
    pub(super) fn take(&self, taken: &mut Vec<PlaneCommand>, limit: usize) -> bool {
        let mut queue = self.lock();
        let count = limit.min(queue.commands.len());
        taken.extend(queue.commands.drain(..count));
        if queue.commands.is_empty() && !queue.closed {
            // Nothing to read means that nobody has woken us.
            let _ = rustix::io::read(&self.wake, &mut [0u8; 8]);
        }
        self.room.notify_all();
        queue.closed && queue.commands.is_empty()
    }

    /// Takes no more commands; those that wait can still be taken
    pub(super) fn close(&self) {
        self.lock().closed = true;
        self.room.notify_all();
        self.wake();
    }

    fn wake(&self) {
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

/// Commands that may wait: a push to each member of a large hub, with room to spare
pub(super) const CAPACITY: usize = 4096;
/// How long a full queue is waited for
const PATIENCE: Duration = Duration::from_millis(100);

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::thread;
    use std::time::Instant;

    use rustix::event::{PollFd, PollFlags, poll};
    use rustix::time::Timespec;

    use super::*;

    #[test]
    fn command_wakes_the_reader_and_taking_all_lets_it_sleep() {
        let inbox = Inbox::new().unwrap();
        assert!(!readable(&inbox));

        inbox.push(PlaneCommand::Carry(true));
        inbox.push(PlaneCommand::CloseTun);

        assert!(readable(&inbox));
        let mut taken = Vec::new();
        assert!(!inbox.take(&mut taken, 1));
        assert!(readable(&inbox), "one command still waits");
        assert!(!inbox.take(&mut taken, 1));
        assert!(!readable(&inbox));
        assert!(matches!(taken[..], [PlaneCommand::Carry(true), PlaneCommand::CloseTun]));
    }

    #[test]
    fn closed_inbox_wakes_gives_what_waits_and_takes_no_more() {
        let inbox = Inbox::new().unwrap();
        inbox.push(PlaneCommand::Stop { drain: Duration::ZERO });

        inbox.close();
        inbox.push(PlaneCommand::Stats);

        let mut taken = Vec::new();
        assert!(readable(&inbox));
        assert!(inbox.take(&mut taken, 8));
        assert!(readable(&inbox), "a closed inbox never sleeps");
        assert!(matches!(taken[..], [PlaneCommand::Stop { .. }]));
    }

    #[test]
    fn full_inbox_makes_the_writer_wait_for_room() {
        let inbox = Arc::new(Inbox::new().unwrap());
        for _ in 0..CAPACITY {
            inbox.push(PlaneCommand::Stats);
        }

        let writer = thread::spawn({
            let inbox = Arc::clone(&inbox);
            move || inbox.push(PlaneCommand::CloseTun)
        });
        thread::sleep(PATIENCE / 10);
        let mut taken = Vec::new();
        inbox.take(&mut taken, CAPACITY);
        writer.join().unwrap();
        inbox.take(&mut taken, CAPACITY);

        assert_eq!(taken.len(), CAPACITY + 1);
        assert!(matches!(taken.last(), Some(PlaneCommand::CloseTun)));
    }

    #[test]
    fn stuck_reader_does_not_hold_the_writer_for_long() {
        let inbox = Inbox::new().unwrap();
        for _ in 0..CAPACITY {
            inbox.push(PlaneCommand::Stats);
        }

        let start = Instant::now();
        inbox.push(PlaneCommand::CloseTun);

        assert!(start.elapsed() < Duration::from_secs(5));
        let mut taken = Vec::new();
        inbox.take(&mut taken, usize::MAX);
        assert_eq!(taken.len(), CAPACITY);
    }

    fn readable(inbox: &Inbox) -> bool {
        let mut fds = [PollFd::new(inbox, PollFlags::IN)];
        poll(&mut fds, Some(&Timespec { tv_sec: 0, tv_nsec: 0 })).unwrap() == 1
    }
}
