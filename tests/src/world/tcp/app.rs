//! One application: does its steps on a socket, reads as its pace allows, and judges what it reads.

use std::collections::VecDeque;

use fastvpn_proto::time::{Duration, Instant};
use smoltcp::socket::tcp::{RecvError, Socket, State};

use super::content;
use super::half::Half;
use super::script::{Pace, Step};
use crate::world::oracle::Fault;

/// An application at one end of a connection
#[derive(Debug)]
pub(super) struct App {
    steps: VecDeque<Step>,
    /// Names what it writes
    writes: u64,
    /// Names what it reads
    reads: u64,
    pace: Pace,
    /// When the pace began, and how much was read until then
    paced: (Instant, u64),
    /// Bytes that the present step has still to write
    left: Option<u64>,
    /// When the present step has waited long enough
    until: Option<Instant>,
    /// How the socket stood when we last looked
    before: State,
}

impl App {
    /// Makes an application whose two directions are named by these keys
    pub(super) fn new(steps: Vec<Step>, writes: u64, reads: u64, now: Instant) -> Self {
        Self {
            steps: steps.into(),
            writes,
            reads,
            pace: Pace::Eager,
            paced: (now, 0),
            left: None,
            until: None,
            before: State::Closed,
        }
    }

    pub(super) fn push(&mut self, steps: impl IntoIterator<Item = Step>) {
        self.steps.extend(steps);
    }

    /// Tells whether all steps are done
    pub(super) fn is_done(&self) -> bool {
        self.steps.is_empty()
    }

    /// Looks at the socket, reads, and does what can be done; tells whether anything was
    pub(super) fn act(
        &mut self,
        socket: &mut Socket<'_>,
        own: &mut Half,
        far: &Half,
        now: Instant,
    ) -> Result<bool, Fault> {
        let mut acted = self.read(socket, own, far, now)?;
        while let Some(step) = self.steps.front().copied() {
            if !self.step(step, socket, own, now) {
                break;
            }
            self.steps.pop_front();
            own.marks.push(now);
            acted = true;
        }
        self.look(socket, own, now);
        Ok(acted)
    }

    /// Returns when to act again, though nothing came
    pub(super) fn deadline(&self, socket: &Socket<'_>, now: Instant) -> Option<Instant> {
        let tick = match self.pace {
            Pace::Slow(_) => {
                // The end may have come with the last bytes, and is still to be read.
                let end = matches!(self.steps.front(), Some(Step::AwaitEnd));
                let more = socket.can_recv() || end && !socket.may_recv();
                more.then_some(now + TICK)
            }
            Pace::Eager | Pace::Stalled => None,
        };
        self.until.into_iter().chain(tick).min()
    }

    /// Reads what the pace allows
    fn read(
        &mut self,
        socket: &mut Socket<'_>,
        own: &mut Half,
        far: &Half,
        now: Instant,
    ) -> Result<bool, Fault> {
        let before = own.read;
        loop {
            let allowed = self.allowed(own.read, now);
            // Who reads slowly still learns at once that nothing more comes.
            if allowed == 0 && (socket.can_recv() || self.pace == Pace::Stalled) {
                break;
            }
            let place = own.read;
            let taken = socket.recv(|bytes| {
                let len = bytes.len().min(usize::try_from(allowed).unwrap_or(usize::MAX));
                (len, (len, content::first_wrong(self.reads, place, &bytes[..len])))
            });
            match taken {
                Ok((0, _)) => break,
                Ok((_, Some(wrong))) => {
                    return Err(format!("byte {wrong} is not what was written"));
                }
                Ok((len, None)) => own.read += len as u64,
                Err(RecvError::Finished) => {
                    return Ok(self.end(own, far, now)? || own.read > before);
                }
                Err(RecvError::InvalidState) => break,
            }
        }
        if own.read > far.written {
            return Err(format!("{} bytes were read, {} written", own.read, far.written));
        }
        if own.read > before {
            own.progress(now);
        }
        Ok(own.read > before)
    }

    /// Takes the far end's word that nothing more comes
    fn end(&mut self, own: &mut Half, far: &Half, now: Instant) -> Result<bool, Fault> {
        own.progress(now);
        if far.shut.is_none() {
            return Err("the end was read, but nobody had said so".to_owned());
        }
        if own.read != far.written {
            return Err(format!("the end was read after {} of {} bytes", own.read, far.written));
        }
        let first = own.ended.is_none();
        own.ended.get_or_insert(now);
        Ok(first)
    }

    fn allowed(&self, read: u64, now: Instant) -> u64 {
        match self.pace {
            Pace::Eager => u64::MAX,
            Pace::Stalled => 0,
            Pace::Slow(rate) => {
                let time = now.since(self.paced.0).as_nanos();
                let all = (u128::from(rate) * time / 1_000_000_000) as u64;
                (self.paced.1 + all).saturating_sub(read)
            }
        }
    }

    /// Does a step, or part of it; tells whether it is done
    fn step(&mut self, step: Step, socket: &mut Socket<'_>, own: &mut Half, now: Instant) -> bool {
        match step {
            Step::Abort => {
                own.aborted = Some(now);
                socket.abort();
                true
            }
            Step::AwaitAcked => own.opened.is_some() && socket.send_queue() == 0,
            Step::AwaitBytes(bytes) => own.read >= bytes,
            Step::AwaitEnd => own.ended.is_some(),
            Step::Pace(pace) => {
                self.pace = pace;
                self.paced = (now, own.read);
                true
            }
            Step::Shutdown => {
                let open = !matches!(socket.state(), State::SynSent | State::Listen);
                if open {
                    own.shut = Some(now);
                    socket.close();
                }
                open
            }
            Step::Wait(time) => {
                let done = *self.until.get_or_insert(now + time) <= now;
                if done {
                    self.until = None;
                }
                done
            }
            Step::Write(bytes) => self.write(bytes, socket, own),
        }
    }

    fn write(&mut self, bytes: u64, socket: &mut Socket<'_>, own: &mut Half) -> bool {
        let mut left = self.left.unwrap_or(bytes);
        while left > 0 && socket.can_send() {
            let place = own.written;
            let sent = socket.send(|room| {
                let len = room.len().min(usize::try_from(left).unwrap_or(usize::MAX));
                content::fill(self.writes, place, &mut room[..len]);
                (len, len)
            });
            let sent = sent.unwrap_or_default() as u64;
            own.written += sent;
            left -= sent;
            if sent == 0 {
                break;
            }
        }
        self.left = (left > 0).then_some(left);
        left == 0
    }

    /// Remembers how the socket stands
    fn look(&mut self, socket: &Socket<'_>, own: &mut Half, now: Instant) {
        let state = socket.state();
        let before = std::mem::replace(&mut self.before, state);
        match state {
            State::Established | State::CloseWait | State::FinWait1 | State::FinWait2 => {
                own.opened.get_or_insert(now);
            }
            State::Closed if before != State::Closed && own.closed.is_none() => {
                let clean = match before {
                    State::Closing | State::TimeWait => true,
                    State::LastAck => socket.send_queue() == 0,
                    _ => false,
                };
                own.closed = Some(now);
                if !clean && own.aborted.is_none() {
                    own.reset = Some(now);
                    self.steps.clear();
                    self.until = None;
                }
            }
            State::Closed
            | State::Closing
            | State::LastAck
            | State::Listen
            | State::SynReceived
            | State::SynSent
            | State::TimeWait => {}
        }
        own.state = state;
    }
}

/// How often a slow reader reads
const TICK: Duration = Duration::from_millis(20);
