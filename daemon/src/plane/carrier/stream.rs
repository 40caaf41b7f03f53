//! One connection of a stream carrier, whatever it is made of.
//!
//! [`serve`] carries sealed messages between a byte stream and the plane until one of them ends it.
//! Reading waits while the plane has too much to do, writing is told of byte by byte, so that the
//! node gives no more than can leave soon.
//!
//! # When a connection ends
//!
//! - The plane drops its end: what it gave is still written.
//! - The stream ends or breaks, or a length is none that a message has.
//! - Whoever made it proves nothing in time, or sends too much before; or must leave for others.
//! - What was written has not arrived, and nothing has come, for [`STALLED`]; or nothing has come for
//!   [`DEAF`], wherever it arrives. (Stock KCP has no other end than this.)
//! - Nobody has used it for [`IDLE`]: a path that lives beats more often.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use fastvpn_proto::node::Credential;
use thiserror::Error;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::sync::watch;
use tokio::time::{Instant, MissedTickBehavior, interval, timeout};

use super::door::Pass;
use super::exchange::{Exchange, Id, News, Orders};
use super::frame::{self, BadLength, FRAME_MAX};

/// What is to be served
#[derive(Debug)]
pub(super) struct Connection {
    pub(super) id: Id,
    pub(super) orders: Orders,
    /// The place that a stranger was given; nothing where we called
    pub(super) pass: Option<Pass>,
    /// Messages at the beginning that the plane has already
    pub(super) skip: usize,
}

/// Why a connection ended
#[derive(Debug, Error)]
pub(super) enum Ended {
    /// The plane needs it no more
    #[error("not needed any more")]
    Dismissed,
    /// The stream ended
    #[error("closed by the other end")]
    Closed,
    /// The door was full
    #[error("had to make room")]
    Displaced,
    /// Nobody used it
    #[error("idle")]
    Idle,
    /// The stream broke
    #[error(transparent)]
    Io(#[from] std::io::Error),
    /// This is not our protocol
    #[error(transparent)]
    Length(#[from] BadLength),
    /// Nothing came for what was sent
    #[error("no answer")]
    Stalled,
    /// Nobody knows who that is
    #[error("proved nothing")]
    Unproven,
}

/// Carries messages until the connection ends; returns why
///
/// `delivered` tells whether all that was written has arrived, as far as the stream knows.
pub(super) async fn serve<S>(
    stream: S,
    connection: Connection,
    exchange: &Exchange,
    delivered: impl Fn() -> bool,
) -> Ended
where
    S: AsyncRead + AsyncWrite,
{
    let Connection { id, mut orders, pass, skip } = connection;
    let (mut from, mut to) = tokio::io::split(stream);
    let pulse = Pulse::new();
    let verdict = orders.verdict.clone();
    let ended = tokio::select! {
        ended = read(&mut from, id, skip, &verdict, &pulse, exchange) => ended,
        ended = write(&mut to, id, &mut orders, &pulse, exchange) => ended,
        ended = watch(pass.as_ref(), verdict.clone(), &pulse, &delivered) => ended,
    };
    if matches!(ended, Ended::Dismissed) {
        // Closing on bytes that nobody read would take away what was written last.
        let _ = timeout(LINGER, tokio::io::copy(&mut from, &mut tokio::io::sink())).await;
    }
    ended
}

/// Brings messages to the plane
async fn read(
    from: &mut (impl AsyncRead + Unpin),
    id: Id,
    mut skip: usize,
    verdict: &watch::Receiver<Credential>,
    pulse: &Pulse,
    exchange: &Exchange,
) -> Ended {
    let mut space = vec![0; SPACE_GUEST];
    let (mut filled, mut total) = (0, 0);
    loop {
        let known = *verdict.borrow();
        if known > Credential::Nothing && space.len() < SPACE {
            space.resize(SPACE, 0);
        }
        if total > allowance(known) || filled == space.len() {
            return Ended::Unproven;
        }
        match from.read(&mut space[filled..]).await {
            Ok(0) => return Ended::Closed,
            Ok(len) => {
                filled += len;
                total += len;
            }
            Err(error) => return error.into(),
        }
        pulse.on_heard();
        let whole = match frame::whole(&space[..filled]) {
            Ok(whole) => whole,
            Err(error) => return error.into(),
        };
        let mut messages = &mut space[..whole];
        while skip > 0 && frame::take(&mut messages).is_some() {
            skip -= 1;
        }
        if !messages.is_empty() {
            exchange.bring(id, messages.to_vec()).await;
        }
        space.copy_within(whole..filled, 0);
        filled -= whole;
    }
}

/// Writes what the plane gives
async fn write(
    to: &mut (impl AsyncWrite + Unpin),
    id: Id,
    orders: &mut Orders,
    pulse: &Pulse,
    exchange: &Exchange,
) -> Ended {
    while let Some(train) = orders.queue.recv().await {
        let framed = frame::framed(&train.bytes, train.segment);
        let mut progress = Progress { len: train.bytes.len(), segment: train.segment, told: 0 };
        let mut done = 0;
        while done < framed.len() {
            pulse.on_sent();
            match to.write(&framed[done..]).await {
                Ok(0) => return Ended::Closed,
                Ok(len) => done += len,
                Err(error) => return error.into(),
            }
            let bytes = progress.advance(done);
            orders.held.fetch_sub(bytes, Ordering::Relaxed);
            exchange.tell(News::Written(id, bytes));
        }
        if orders.queue.is_empty()
            && let Err(error) = to.flush().await
        {
            return error.into();
        }
    }
    match to.shutdown().await {
        Ok(()) => Ended::Dismissed,
        Err(error) => error.into(),
    }
}

/// Watches the clock, and what the node says of who is there
async fn watch(
    pass: Option<&Pass>,
    mut verdict: watch::Receiver<Credential>,
    pulse: &Pulse,
    delivered: &impl Fn() -> bool,
) -> Ended {
    let mut ticks = interval(TICK);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            _ = ticks.tick() => {}
            Ok(()) = verdict.changed() => {}
            () = called_off(pass) => return Ended::Displaced,
        }
        let known = *verdict.borrow();
        if let (Some(pass), Credential::Identity) = (pass, known) {
            pass.prove();
        }
        let age = pulse.age();
        let late = match known {
            Credential::Unknown | Credential::Nothing => age >= KEY_WITHIN,
            Credential::Key => age >= IDENTITY_WITHIN,
            Credential::Identity => false,
        };
        if late && pass.is_some() {
            return Ended::Unproven;
        }
        if delivered() {
            pulse.on_delivered();
        }
        if pulse.unanswered() >= STALLED || pulse.unheard() >= DEAF {
            return Ended::Stalled;
        }
        if pulse.quiet() >= IDLE {
            return Ended::Idle;
        }
    }
}

async fn called_off(pass: Option<&Pass>) {
    match pass {
        Some(pass) => pass.called_off().await,
        None => std::future::pending().await,
    }
}

/// Returns the bytes that may come from who has proven this much
fn allowance(known: Credential) -> usize {
    match known {
        Credential::Unknown | Credential::Nothing => BYTES_GUEST,
        Credential::Key => BYTES_HALF_KNOWN,
        Credential::Identity => usize::MAX,
    }
}

/// How much of a train has left
#[derive(Debug)]
struct Progress {
    len: usize,
    segment: usize,
    told: usize,
}

impl Progress {
    /// Returns the bytes of messages that left since the last call, now that `done` bytes of the
    /// framed train have
    fn advance(&mut self, done: usize) -> usize {
        let frame = frame::PREFIX + self.segment;
        let begun = (done % frame).saturating_sub(frame::PREFIX);
        let left = (done / frame * self.segment + begun).min(self.len);
        let news = left - self.told;
        self.told = left;
        news
    }
}

/// When something was last sent and heard, in milliseconds since just before the beginning
#[derive(Debug)]
struct Pulse {
    start: Instant,
    heard: AtomicU64,
    sent: AtomicU64,
    /// When the first thing was sent that nothing has come for; [`NEVER`] where there is none
    waiting: AtomicU64,
}

impl Pulse {
    fn new() -> Self {
        Self {
            start: Instant::now(),
            heard: AtomicU64::new(0),
            sent: AtomicU64::new(0),
            waiting: AtomicU64::new(NEVER),
        }
    }

    fn on_heard(&self) {
        self.heard.store(self.now(), Ordering::Relaxed);
        self.waiting.store(NEVER, Ordering::Relaxed);
    }

    fn on_sent(&self) {
        let now = self.now();
        self.sent.store(now, Ordering::Relaxed);
        if self.waiting.load(Ordering::Relaxed) == NEVER {
            self.waiting.store(now, Ordering::Relaxed);
        }
    }

    fn on_delivered(&self) {
        self.waiting.store(NEVER, Ordering::Relaxed);
    }

    fn age(&self) -> Duration {
        self.start.elapsed()
    }

    /// Returns for how long something has been waiting for an answer
    fn unanswered(&self) -> Duration {
        Duration::from_millis(self.now().saturating_sub(self.waiting.load(Ordering::Relaxed)))
    }

    /// Returns for how long nothing has come although something was sent after that
    fn unheard(&self) -> Duration {
        let heard = self.heard.load(Ordering::Relaxed);
        let sent = self.sent.load(Ordering::Relaxed);
        Duration::from_millis(if sent > heard { self.now().saturating_sub(heard) } else { 0 })
    }

    fn quiet(&self) -> Duration {
        let last = self.heard.load(Ordering::Relaxed).max(self.sent.load(Ordering::Relaxed));
        Duration::from_millis(self.now().saturating_sub(last))
    }

    fn now(&self) -> u64 {
        // Nothing happens at zero: that is when nothing was heard yet.
        u64::try_from(self.start.elapsed().as_millis()).unwrap_or(NEVER).saturating_add(1)
    }
}

const NEVER: u64 = u64::MAX;
/// Time to the first message that shows knowledge of the node's key
const KEY_WITHIN: Duration = Duration::from_secs(5);
/// Time to the first message that only the other node can have made
const IDENTITY_WITHIN: Duration = Duration::from_secs(20);
/// Bytes that are read before either
const BYTES_GUEST: usize = 8 * 1024;
/// Bytes that are read between the two
const BYTES_HALF_KNOWN: usize = 256 * 1024;
/// Time without an acknowledgement or an answer after which nobody is there
const STALLED: Duration = Duration::from_secs(6);
/// Time without any message after which it does not matter that what was sent arrives: a node that
/// is there beats every ten seconds
const DEAF: Duration = Duration::from_secs(25);
/// Time without use
const IDLE: Duration = Duration::from_secs(60);
/// How long the other end may take to read what was written last
const LINGER: Duration = Duration::from_secs(1);
/// How often the clock is looked at
const TICK: Duration = Duration::from_millis(500);
/// Bytes read at one time
const SPACE: usize = 64 * 1024;
/// The same while nothing is proven: handshakes and challenges fit
const SPACE_GUEST: usize = 4 * 1024;

const _: () = assert!(SPACE >= FRAME_MAX, "the largest message fits");

#[cfg(test)]
mod tests;
