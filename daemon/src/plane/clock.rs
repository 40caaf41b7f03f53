//! Boot time, which runs on while the machine sleeps.
//!
//! [`now`] is the daemon's only source of [`Instant`]s; a `Timer` is a descriptor that becomes
//! readable at one of them.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use fastvpn_proto::time::Instant;
use rustix::time::{
    ClockId, Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, clock_gettime,
    timerfd_create, timerfd_settime,
};

/// Reads the clock
pub fn now() -> Instant {
    let time = clock_gettime(ClockId::Boottime);
    // Boot time is never negative, and reaches 64 bits of nanoseconds after 584 years.
    let secs = u64::try_from(time.tv_sec).unwrap_or(0);
    let nanos = u64::try_from(time.tv_nsec).unwrap_or(0);
    Instant::from_nanos(secs.saturating_mul(NANOS).saturating_add(nanos))
}

/// Descriptor that is readable once an instant has come
#[derive(Debug)]
pub(super) struct Timer {
    fd: OwnedFd,
    armed: Option<Instant>,
}

impl Timer {
    /// Makes a timer that is not armed
    pub(super) fn new() -> io::Result<Self> {
        let flags = TimerfdFlags::NONBLOCK | TimerfdFlags::CLOEXEC;
        Ok(Self { fd: timerfd_create(TimerfdClockId::Boottime, flags)?, armed: None })
    }

    /// Makes the descriptor readable at `at`, or before where it was armed for an earlier instant
    ///
    /// Deadlines mostly move away, message by message: whoever is woken for one that is gone looks at
    /// the clock and sleeps again, which costs less than a system call for each move.
    pub(super) fn arm(&mut self, at: Instant, now: Instant) -> io::Result<()> {
        if self.armed.is_some_and(|armed| armed <= at && armed > now) {
            return Ok(());
        }
        let zero = Timespec { tv_sec: 0, tv_nsec: 0 };
        let value = Itimerspec { it_interval: zero, it_value: timespec(at) };
        timerfd_settime(&self.fd, TimerfdTimerFlags::ABSTIME, &value)?;
        self.armed = Some(at);
        Ok(())
    }

    /// Takes note that the descriptor was readable; it is not any more
    pub(super) fn clear(&mut self) {
        // Nothing to read means that it was armed anew in the meantime.
        let _ = rustix::io::read(&self.fd, &mut [0u8; 8]);
        self.armed = None;
    }
}

impl AsFd for Timer {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

/// Turns an instant into what the kernel wants; zero would disarm, so that it becomes one
fn timespec(at: Instant) -> Timespec {
    let nanos = at.as_nanos().max(1);
    Timespec {
        tv_sec: i64::try_from(nanos / NANOS).unwrap_or(i64::MAX),
        tv_nsec: (nanos % NANOS).try_into().unwrap_or(0),
    }
}

const NANOS: u64 = 1_000_000_000;

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use rustix::event::{PollFd, PollFlags, poll};

    use super::*;

    #[test]
    fn clock_does_not_run_backwards() {
        let first = now();
        let second = now();

        assert!(second >= first);
        assert!(first > Instant::ZERO);
    }

    #[test]
    fn timer_is_readable_from_its_instant_on_until_cleared() {
        let mut timer = Timer::new().unwrap();
        let start = now();

        timer.arm(start + Duration::from_millis(20), start).unwrap();
        assert!(!readable(&timer, 0));
        assert!(readable(&timer, 5));
        assert!(now().since(start) >= Duration::from_millis(20));

        timer.clear();
        assert!(!readable(&timer, 0));
    }

    #[test]
    fn timer_in_the_past_is_readable_at_once() {
        let mut timer = Timer::new().unwrap();

        timer.arm(Instant::ZERO, now()).unwrap();

        assert!(readable(&timer, 1));
    }

    fn readable(timer: &Timer, secs: i64) -> bool {
        let mut fds = [PollFd::new(timer, PollFlags::IN)];
        let limit = Timespec { tv_sec: secs, tv_nsec: 0 };
        poll(&mut fds, Some(&limit)).unwrap() == 1
    }
}
