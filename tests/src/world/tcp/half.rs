//! What one end of a connection has gone through so far.

use std::fmt;

use fastvpn_proto::time::{Duration, Instant};
use smoltcp::socket::tcp::State;

/// One end of a connection, as its application saw it
#[derive(Clone, Debug)]
pub struct Half {
    /// Bytes that its kernel has taken from its application
    pub written: u64,
    /// Bytes that its application has read
    pub read: u64,
    /// When the connection was established here
    pub opened: Option<Instant>,
    /// When the application said that nothing more comes
    pub shut: Option<Instant>,
    /// When the application read that nothing more comes
    pub ended: Option<Instant>,
    /// When the application reset the connection
    pub aborted: Option<Instant>,
    /// When the application learnt that the connection was reset or refused
    pub reset: Option<Instant>,
    /// When the kernel forgot the connection
    pub closed: Option<Instant>,
    /// When each step was done
    pub marks: Vec<Instant>,
    /// How the kernel's state stands
    pub(super) state: State,
    /// How many bytes had been read when, in steps of [`STEP`]
    progress: Vec<(Instant, u64)>,
}

impl Half {
    pub(super) fn new() -> Self {
        Self {
            written: 0,
            read: 0,
            opened: None,
            shut: None,
            ended: None,
            aborted: None,
            reset: None,
            closed: None,
            marks: Vec::new(),
            state: State::Closed,
            progress: Vec::new(),
        }
    }

    /// Remembers how much was read by now
    pub(super) fn progress(&mut self, now: Instant) {
        match self.progress.last_mut() {
            Some((at, read)) if now.since(*at) < STEP => *read = self.read,
            Some(_) | None => self.progress.push((now, self.read)),
        }
    }

    /// Returns how many bytes were read by `time`, within a few milliseconds
    pub fn read_by(&self, time: Instant) -> u64 {
        let after = self.progress.partition_point(|(at, _)| *at <= time);
        after.checked_sub(1).map_or(0, |index| self.progress[index].1)
    }

    /// Returns the mean rate at which the application read between two instants, in bits a second
    pub fn goodput(&self, from: Instant, to: Instant) -> f64 {
        let bytes = self.read_by(to) - self.read_by(from);
        bytes as f64 * 8.0 / to.since(from).as_secs_f64()
    }

    /// Returns the longest time between two instants in which nothing was read
    pub fn longest_gap(&self, from: Instant, to: Instant) -> Duration {
        let inner = self.progress.iter().map(|(at, _)| *at).filter(|at| *at > from && *at < to);
        let all: Vec<_> = std::iter::once(from).chain(inner).chain([to]).collect();
        all.windows(2).map(|pair| pair[1].since(pair[0])).max().unwrap_or_default()
    }

    /// Returns when `bytes` had been read, within a few milliseconds
    pub fn when_read(&self, bytes: u64) -> Option<Instant> {
        let index = self.progress.partition_point(|(_, read)| *read < bytes);
        self.progress.get(index).map(|(at, _)| *at)
    }

    /// Tells whether a reset means nothing, since the far end had got everything and is gone: the last
    /// acknowledgement was lost, and nobody is left to repeat it
    pub fn is_late(&self, far: &Self) -> bool {
        let told = far.closed.is_some() && far.reset.is_none() && far.aborted.is_none();
        told && self.shut.is_some() && self.ended.is_some() && far.read == self.written
    }

    /// Tells whether the application is through with the connection, one way or the other
    pub fn is_over(&self) -> bool {
        let over = matches!(self.state, State::Closed | State::TimeWait);
        self.reset.is_some() || self.aborted.is_some() || (over && self.shut.is_some())
    }
}

impl fmt::Display for Half {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{}: wrote {}, read {} (last at {:?}), did {} steps (last at {:?})",
            self.state,
            self.written,
            self.read,
            self.progress.last().map(|(at, _)| *at),
            self.marks.len(),
            self.marks.last(),
        )?;
        let facts = [("opened", self.opened), ("shut", self.shut), ("ended", self.ended)];
        let ends = [("aborted", self.aborted), ("reset", self.reset), ("closed", self.closed)];
        for (what, at) in facts.into_iter().chain(ends) {
            if let Some(at) = at {
                write!(f, ", {what} {at:?}")?;
            }
        }
        Ok(())
    }
}

/// How exactly the time of reading is kept
const STEP: Duration = Duration::from_millis(2);
