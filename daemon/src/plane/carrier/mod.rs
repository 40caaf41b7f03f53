//! Stream carriers: TCP, and stock KCP.
//!
//! The plane's end is a [`Carriers`]: which connections there are, and to whom. The connections
//! themselves are tasks of the control runtime (`stream`), that exchange batches with the plane
//! over bounded queues (`exchange`). To the node a connection is a way like any other; it is named
//! by the other end's address: that which was called, or that from which it was accepted.
//!
//! # Contract
//!
//! - What is sent to an address with which there is a connection goes over that connection. Else one
//!   is made, unless the last attempts failed and it is too early for the next.
//! - Each byte given is told to the node as written, or the connection as broken.
//! - What a stranger may cost is bounded: see `door` and `stream`.

mod dialled;
mod door;
mod exchange;
mod frame;
mod kcp;
mod stream;
mod tcp;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use fastvpn_proto::node::{Arrival, Carrier, Choice, Credential, Ecn, Node, Transmit};
use fastvpn_proto::time::Instant;
use fastvpn_proto::wire::message::{Kind, parse_kind};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::runtime::Handle;
use tokio::task::AbortHandle;
use tokio::time::sleep;
use tracing::{Instrument, Span, debug, trace, warn};

use dialled::{Dialled, End};
use door::{Door, Pass};
use exchange::{Exchange, Id, News, Opened, Outbox, Train};
use stream::Connection;

/// Where the tasks of stream carriers run, and which connections they accept
#[derive(Clone, Debug)]
pub struct Streams {
    /// The control side's runtime
    pub runtime: Handle,
    /// Carriers of which connections are accepted
    pub accept: Choice,
}

/// All connections of one plane
#[derive(Debug)]
pub(super) struct Carriers {
    ground: Arc<Ground>,
    runtime: Option<Handle>,
    links: BTreeMap<Id, Link>,
    /// The connection with an address
    by_way: BTreeMap<(Carrier, SocketAddr), Id>,
    /// Those whose first message another thread looks at: nothing is known of them, and nothing done for them
    knocking: BTreeMap<(Carrier, SocketAddr), Opened>,
    dialled: Dialled,
    /// Where connections are accepted
    at: SocketAddr,
    listeners: BTreeMap<Carrier, AbortHandle>,
    news: VecDeque<News>,
}

/// What the tasks share
#[derive(Debug)]
struct Ground {
    exchange: Exchange,
    door: Arc<Door>,
    kcp: kcp::Port,
    last: AtomicU64,
}

/// The plane's end of one connection
#[derive(Debug)]
struct Link {
    carrier: Carrier,
    remote: SocketAddr,
    local: Option<IpAddr>,
    outbox: Outbox,
    began: Began,
}

/// Who made a connection, and what was said first
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Began {
    /// The other end made it
    Accepted,
    /// We made it, for an init
    WithInit,
    /// We made it, for a message of a session
    WithData,
}

impl Carriers {
    /// Begins without connections, and accepts some at `listen`
    ///
    /// Without `streams` there are none, and cannot be made.
    pub(super) fn new(streams: Option<&Streams>, listen: SocketAddr) -> io::Result<Self> {
        let exchange = Exchange::new()?;
        let door = Arc::new(Door::new());
        let ground =
            Arc::new(Ground { exchange, door, kcp: kcp::Port::default(), last: AtomicU64::new(0) });
        let mut carriers = Self {
            ground,
            runtime: streams.map(|streams| streams.runtime.clone()),
            links: BTreeMap::new(),
            by_way: BTreeMap::new(),
            knocking: BTreeMap::new(),
            dialled: Dialled::default(),
            at: listen,
            listeners: BTreeMap::new(),
            news: VecDeque::new(),
        };
        if let Some(streams) = streams {
            carriers.accept(streams.accept);
        }
        Ok(carriers)
    }

    /// Accepts connections of these carriers from now on, and no others
    ///
    /// Connections that there are go on.
    pub(super) fn accept(&mut self, choice: Choice) {
        let Some(runtime) = &self.runtime else { return };
        let (tcp, kcp) = match choice {
            Choice::Auto => (true, true),
            Choice::Udp => (false, false),
            Choice::Tcp => (true, false),
            Choice::Kcp => (false, true),
        };
        for (carrier, wanted) in [(Carrier::Tcp, tcp), (Carrier::Kcp, kcp)] {
            if !wanted {
                if let Some(listener) = self.listeners.remove(&carrier) {
                    listener.abort();
                }
            } else if !self.listeners.contains_key(&carrier) {
                let listener = listen(carrier, self.at, Arc::clone(&self.ground));
                let task = runtime.spawn(listener.instrument(Span::current()));
                self.listeners.insert(carrier, task.abort_handle());
            }
        }
    }

    /// Gives what came from connections to the node
    ///
    /// Only so much waits at one time that this takes no longer than a batch of UDP.
    pub(super) fn receive(&mut self, node: &mut Node, now: Instant) {
        let mut news = std::mem::take(&mut self.news);
        self.ground.exchange.take(&mut news);
        for item in news.drain(..) {
            match item {
                News::Closed(id) => self.on_closed(id, node, now),
                News::Messages(id, mut bytes) => self.on_messages(id, &mut bytes, node, now),
                News::Opened(opened) => self.on_opened(opened, node, now),
                News::Written(id, bytes) => {
                    if let Some(link) = self.links.get(&id) {
                        node.handle_writable(link.carrier, link.remote, bytes, now);
                    }
                }
            }
        }
        self.news = news;
    }

    /// Gives a train to its connection, which is made if there is none
    ///
    /// The node is told where that cannot be.
    pub(super) fn send(
        &mut self,
        transmit: &Transmit,
        train: &[u8],
        node: &mut Node,
        now: Instant,
    ) {
        let way = (transmit.carrier, transmit.remote);
        let init = parse_kind(train) == Ok(Kind::Init);
        let id = match self.by_way.get(&way).copied() {
            Some(id) if init && self.waits_in_vain(id) => {
                self.end(id, Some(End::Renewed), now);
                node.handle_broken(way.0, way.1, now);
                self.dial(way, init, now)
            }
            Some(id) => Some(id),
            None => self.dial(way, init, now),
        };
        let segment = transmit.segment.unwrap_or(train.len()).max(1);
        let link = id.and_then(|id| self.links.get(&id));
        let give = |link: &Link| link.outbox.give(Train { bytes: train.to_vec(), segment });
        if link.is_some_and(give) {
            return;
        }
        if let Some(id) = id {
            debug!(carrier = %way.0, remote = %way.1, "connection takes nothing more");
            self.end(id, None, now);
        }
        node.handle_broken(way.0, way.1, now);
    }

    /// Tells whether a connection began with a message that the other node, if it has forgotten the
    /// session, lets nobody in for: over KCP nothing that comes behind it arrives then
    fn waits_in_vain(&self, id: Id) -> bool {
        self.links.get(&id).is_some_and(|link| {
            link.carrier == Carrier::Kcp
                && link.began == Began::WithData
                && !link.outbox.is_proven()
        })
    }

    /// Tells whether a connection has something that has not left yet
    pub(super) fn are_busy(&self) -> bool {
        self.links.values().any(|link| link.outbox.is_busy())
    }

    fn dial(
        &mut self,
        (carrier, remote): (Carrier, SocketAddr),
        init: bool,
        now: Instant,
    ) -> Option<Id> {
        let runtime = self.runtime.as_ref()?;
        if !self.dialled.may_dial(carrier, remote, now) {
            return None;
        }
        let id = self.ground.next_id();
        let (outbox, orders) = Outbox::new();
        let connection = Connection { id, orders, pass: None, skip: 0 };
        debug!(%carrier, %remote, "connecting");
        let ground = Arc::clone(&self.ground);
        runtime.spawn(ground.call(carrier, remote, connection).instrument(Span::current()));
        let began = if init { Began::WithInit } else { Began::WithData };
        self.insert(id, Link { carrier, remote, local: None, outbox, began });
        Some(id)
    }

    fn on_opened(&mut self, opened: Opened, node: &mut Node, now: Instant) {
        let Opened { id, carrier, remote, local, outbox, mut knock } = opened;
        let arrival = Arrival { carrier, remote, local, ecn: Ecn::Incapable };
        if knock.as_deref().is_some_and(|message| node.is_for_others(message)) {
            if let Some(mut message) = knock.take() {
                node.handle_message(arrival, &mut message, now);
            }
            let waiting = Opened { id, carrier, remote, local, outbox, knock };
            self.knocking.insert((carrier, remote), waiting);
            return;
        }
        if let Some(old) = self.by_way.get(&(carrier, remote)).copied() {
            let works = |link: &Link| link.began != Began::Accepted && link.outbox.is_proven();
            if knock.is_some() && self.links.get(&old).is_some_and(works) {
                // The sender's address of a knock may be forged: what works is not given up for it.
                return;
            }
            self.end(old, None, now);
            node.handle_broken(carrier, remote, now);
        }
        if let Some(mut message) = knock {
            let proven = node.handle_message(arrival, &mut message, now);
            if proven <= Credential::Nothing {
                // Without its outbox the connection ends; nobody is remembered as a caller.
                return;
            }
            outbox.credit(proven);
        }
        trace!(%carrier, %remote, "connection accepted");
        self.insert(id, Link { carrier, remote, local, outbox, began: Began::Accepted });
    }

    fn on_messages(&mut self, id: Id, mut bytes: &mut [u8], node: &mut Node, now: Instant) {
        while let Some(message) = frame::take(&mut bytes) {
            self.take(id, message, node, now);
        }
    }

    /// Gives one message to the node
    fn take(&mut self, id: Id, message: &mut [u8], node: &mut Node, now: Instant) -> Credential {
        let Some(link) = self.links.get(&id) else { return Credential::Nothing };
        let Link { carrier, remote, local, .. } = *link;
        let arrival = Arrival { carrier, remote, local, ecn: Ecn::Incapable };
        let proven = node.handle_message(arrival, message, now);
        self.credit(id, proven);
        proven
    }

    /// Takes the news that who should be at the other end of a connection is there, as another thread has seen
    pub(super) fn on_proved(&mut self, carrier: Carrier, remote: SocketAddr) {
        if let Some(Opened { id, local, outbox, .. }) = self.knocking.remove(&(carrier, remote))
            && !self.by_way.contains_key(&(carrier, remote))
        {
            trace!(%carrier, %remote, "connection accepted");
            self.insert(id, Link { carrier, remote, local, outbox, began: Began::Accepted });
        }
        if let Some(id) = self.by_way.get(&(carrier, remote)).copied() {
            self.credit(id, Credential::Identity);
        }
    }

    /// Records what the other end of a connection has proven
    fn credit(&mut self, id: Id, proven: Credential) {
        let Some(link) = self.links.get(&id) else { return };
        let ours = link.began != Began::Accepted;
        if ours && proven == Credential::Identity && !link.outbox.is_proven() {
            self.dialled.on_proven(link.carrier, link.remote);
        }
        link.outbox.credit(proven);
    }

    fn on_closed(&mut self, id: Id, node: &mut Node, now: Instant) {
        self.knocking.retain(|_, waiting| waiting.id != id);
        if let Some((carrier, remote)) = self.end(id, None, now) {
            node.handle_broken(carrier, remote, now);
        }
    }

    fn insert(&mut self, id: Id, link: Link) {
        self.by_way.insert((link.carrier, link.remote), id);
        self.links.insert(id, link);
    }

    /// Ends a connection, for a reason of ours if there is one; returns whose it was, if it had not
    /// ended before
    fn end(&mut self, id: Id, reason: Option<End>, now: Instant) -> Option<(Carrier, SocketAddr)> {
        let link = self.links.remove(&id)?;
        let way = (link.carrier, link.remote);
        self.by_way.remove(&way);
        let end = match (link.began, link.outbox.is_proven()) {
            (Began::Accepted, _) => End::Accepted,
            (Began::WithInit | Began::WithData, true) => End::Called,
            (Began::WithInit | Began::WithData, false) => End::InVain,
        };
        self.dialled.on_ended(way, reason.unwrap_or(end), now);
        Some(way)
    }
}

impl AsFd for Carriers {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.ground.exchange.as_fd()
    }
}

impl Drop for Carriers {
    fn drop(&mut self) {
        self.listeners.values().for_each(AbortHandle::abort);
    }
}

impl Ground {
    fn next_id(&self) -> Id {
        Id(self.last.fetch_add(1, Ordering::Relaxed))
    }

    /// Makes both ends of a connection that was accepted, with the news of it
    fn open(
        &self,
        carrier: Carrier,
        remote: SocketAddr,
        local: Option<IpAddr>,
        pass: Pass,
        knock: Option<Vec<u8>>,
    ) -> (News, Connection) {
        let id = self.next_id();
        let (outbox, orders) = Outbox::new();
        let opened = Opened { id, carrier, remote, local, outbox, knock };
        (News::Opened(opened), Connection { id, orders, pass: Some(pass), skip: 0 })
    }

    /// Makes the connection that the plane asked for, and serves it
    async fn call(self: Arc<Self>, carrier: Carrier, remote: SocketAddr, connection: Connection) {
        let id = connection.id;
        let error = match carrier {
            Carrier::Udp => return self.close(id),
            Carrier::Tcp => match tcp::dial(remote).await {
                // The kernel itself gives up on what is not acknowledged.
                Ok(stream) => return self.serve(stream, connection, || true).await,
                Err(error) => error,
            },
            Carrier::Kcp => match kcp::dial(remote).await {
                Ok(session) => {
                    let watched = session.clone();
                    return self.serve(session, connection, move || watched.is_delivered()).await;
                }
                Err(error) => error,
            },
        };
        debug!(%carrier, %remote, %error, "no connection");
        self.close(id);
    }

    /// Serves a connection until it ends, and tells the plane of that
    async fn serve(
        self: Arc<Self>,
        stream: impl AsyncRead + AsyncWrite,
        connection: Connection,
        delivered: impl Fn() -> bool,
    ) {
        let id = connection.id;
        let farewell = Farewell { ground: &self, id };
        let ours = connection.pass.is_none();
        let verdict = connection.orders.verdict.clone();
        let ended = stream::serve(stream, connection, &self.exchange, delivered).await;
        if ours || *verdict.borrow() > Credential::Nothing {
            debug!(reason = %ended, "connection ended");
        } else {
            trace!(reason = %ended, "stranger's connection ended");
        }
        drop(farewell);
    }

    fn close(&self, id: Id) {
        self.exchange.tell(News::Closed(id));
    }
}

/// Tells of the end of a connection, however it comes
struct Farewell<'a> {
    ground: &'a Ground,
    id: Id,
}

impl Drop for Farewell<'_> {
    fn drop(&mut self) {
        self.ground.close(self.id);
    }
}

/// Accepts connections of one carrier
async fn listen(carrier: Carrier, at: SocketAddr, ground: Arc<Ground>) {
    match carrier {
        // That is the plane's own socket.
        Carrier::Udp => {}
        Carrier::Tcp => tcp::accept(bound(carrier, at, tcp::bind).await, ground).await,
        Carrier::Kcp => {
            let listener = bound(carrier, at, |at| ground.kcp.bind(at)).await;
            kcp::accept(listener, ground).await;
        }
    }
}

/// Binds, once the port is free: the last plane's socket may just be closing
async fn bound<L>(
    carrier: Carrier,
    listen: SocketAddr,
    bind: impl Fn(SocketAddr) -> io::Result<L>,
) -> L {
    let mut attempts = 0;
    loop {
        match bind(listen) {
            Ok(listener) => return listener,
            Err(error) => {
                attempts += 1;
                if attempts == BINDS_BEFORE_WARNING {
                    warn!(%carrier, %listen, %error, "no connections are accepted");
                }
                sleep(BIND_RETRY).await;
            }
        }
    }
}

/// How soon a busy port is tried again
const BIND_RETRY: Duration = Duration::from_millis(500);
/// Attempts before anybody is told
const BINDS_BEFORE_WARNING: u32 = 4;
