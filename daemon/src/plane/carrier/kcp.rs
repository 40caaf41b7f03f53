//! Connections over stock KCP (crate tokio_kcp, in its fast mode), on the UDP port above ours.
//!
//! A listener of tokio_kcp makes a session of 100 KiB for every 24 bytes that anybody sends. So we
//! listen ourselves, for first segments only: the message in it is shown to the node, and nothing is
//! kept of who does not prove knowledge of the node's key with it. Who does gets a socket of its
//! own, connected to its address, and a session on that. The first segment is not given to the
//! session; KCP sends it again, and the message in it is skipped then.
//!
//! The kernel lets sockets of one user share a port if each asks for that, whatever they are for. So the
//! listener takes its port alone, and lets only its own sessions share it; it keeps it while any of them lives.

use std::collections::BTreeSet;
use std::io::{self, IoSliceMut};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::task::{Context, Poll};
use std::time::Duration;

use fastvpn_proto::node::{Carrier, Credential};
use quinn_udp::{RecvMeta, UdpSockRef, UdpSocketState};
use socket2::{Domain, Protocol, Socket, Type};
use tokio::io::{AsyncRead, AsyncWrite, Interest, ReadBuf};
use tokio::net::UdpSocket;
use tokio::time::{sleep, timeout};
use tokio_kcp::{KcpConfig, KcpNoDelayConfig, KcpStream};
use tracing::{Instrument, debug, trace};

use super::super::udp::plain;
use super::stream::Connection;
use super::{Ground, frame};

/// A bound socket that waits for first segments
#[derive(Debug)]
pub(super) struct Listener {
    socket: UdpSocket,
    state: UdpSocketState,
    port: u16,
    known: Known,
}

/// The port of a plane's listener: it may be listened at again while sessions that began there go on
#[derive(Debug, Default)]
pub(super) struct Port(Mutex<Weak<Listener>>);

/// Whose first segments were shown to the node, and who has a session
#[derive(Debug, Default)]
struct Known(Mutex<BTreeSet<SocketAddr>>);

/// A stream that tells whether everything has arrived
#[derive(Clone, Debug)]
pub(super) struct Session(Arc<Mutex<KcpStream>>);

impl Session {
    async fn over(socket: UdpSocket, conversation: u32, remote: SocketAddr) -> io::Result<Self> {
        let config = config();
        let stream = KcpStream::connect_with_socket_conv(&config, conversation, socket, remote);
        let stream = stream.await.map_err(io::Error::other)?;
        Ok(Self(Arc::new(Mutex::new(stream))))
    }

    /// Tells whether all that was written was acknowledged
    pub(super) fn is_delivered(&self) -> bool {
        self.lock().session().kcp_socket().lock().can_close()
    }

    fn lock(&self) -> MutexGuard<'_, KcpStream> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl AsyncRead for Session {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut *self.lock()).poll_read(cx, buffer)
    }
}

impl AsyncWrite for Session {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        // More than some hundred segments at one time are refused.
        let some = &bytes[..bytes.len().min(WRITE_MAX)];
        Pin::new(&mut *self.lock()).poll_write(cx, some)
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut *self.lock()).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut *self.lock()).poll_shutdown(cx)
    }
}

/// Makes a session with the node whose UDP port is that of `remote`
///
/// # Errors
/// If this machine cannot reach it.
pub(super) async fn dial(remote: SocketAddr) -> io::Result<Session> {
    let remote = above(remote).ok_or(io::ErrorKind::AddrNotAvailable)?;
    let any: IpAddr = match remote {
        SocketAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        SocketAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    };
    let socket = opened((any, 0).into())?;
    let socket = connected(socket, (any, 0).into(), remote)?;
    let conversation = conversation()?;
    Session::over(socket, conversation, remote).await
}

impl Port {
    /// Takes first segments on the port above that of `listen`, or goes on to
    ///
    /// # Errors
    /// If the port is busy, whoever has it and whether or not it is shared.
    pub(super) fn bind(&self, listen: SocketAddr) -> io::Result<Arc<Listener>> {
        let mut last = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(listener) = last.upgrade() {
            return Ok(listener);
        }
        let listen = above(listen).ok_or(io::ErrorKind::AddrNotAvailable)?;
        let socket = opened(listen)?;
        socket.bind(&listen.into())?;
        // It is ours alone by now. Who joins it must ask for that, as only its own sessions do.
        socket.set_reuse_port(true)?;
        let state = UdpSocketState::new(UdpSockRef::from(&socket))?;
        let socket = UdpSocket::from_std(socket.into())?;
        let listener =
            Arc::new(Listener { socket, state, port: listen.port(), known: Known::default() });
        *last = Arc::downgrade(&listener);
        Ok(listener)
    }
}

/// Shows first segments to the node for ever
pub(super) async fn accept(listener: Arc<Listener>, ground: Arc<Ground>) {
    let Listener { socket, state, known, port: _ } = &*listener;
    let mut space = vec![0; SPACE];
    loop {
        let mut metas = [RecvMeta::default()];
        let received = socket
            .async_io(Interest::READABLE, || {
                let mut buffers = [IoSliceMut::new(&mut space)];
                state.recv(UdpSockRef::from(socket), &mut buffers, &mut metas)
            })
            .await;
        if let Err(error) = received {
            debug!(%error, "nothing received");
            sleep(PAUSE).await;
            continue;
        }
        let [meta] = metas;
        let bytes = &space[..meta.len.min(meta.stride).min(space.len())];
        let remote = plain(meta.addr);
        let Some((conversation, message)) = first_message(bytes) else { continue };
        if !known.insert(remote) {
            continue;
        }
        let local = meta.dst_ip.map(|local| local.to_canonical());
        let Some(pass) = ground.door.admit(remote.ip()) else {
            known.remove(&remote);
            continue;
        };
        let knock = Some(message.to_vec());
        let (opened, connection) = ground.open(Carrier::Kcp, remote, local, pass, knock);
        ground.exchange.tell(opened);
        let guest = Guest { listener: Arc::clone(&listener), remote, local, conversation };
        tokio::spawn(guest.wait(Arc::clone(&ground), connection).in_current_span());
    }
}

/// Somebody whose first message the node looks at
#[derive(Debug)]
struct Guest {
    listener: Arc<Listener>,
    remote: SocketAddr,
    local: Option<IpAddr>,
    conversation: u32,
}

impl Guest {
    /// Makes the session if the node says so
    async fn wait(self, ground: Arc<Ground>, mut connection: Connection) {
        let verdict = &mut connection.orders.verdict;
        let taken = verdict.wait_for(|known| *known > Credential::Nothing);
        // The plane drops its end of who proves nothing.
        let taken = matches!(timeout(DECISION, taken).await, Ok(Ok(_)));
        let session =
            if taken { self.session().await } else { Err(io::ErrorKind::PermissionDenied.into()) };
        match session {
            Ok(session) => {
                connection.skip = 1;
                let watched = session.clone();
                ground.serve(session, connection, move || watched.is_delivered()).await;
            }
            Err(error) => {
                trace!(remote = %self.remote, %error, "no session");
                ground.close(connection.id);
            }
        }
    }

    async fn session(&self) -> io::Result<Session> {
        let any: IpAddr = match self.remote {
            SocketAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
            SocketAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
        };
        let local = self.local.filter(|local| local.is_ipv4() == self.remote.is_ipv4());
        let local = (local.unwrap_or(any), self.listener.port).into();
        let socket = opened(local)?;
        socket.set_reuse_port(true)?;
        let socket = connected(socket, local, self.remote)?;
        Session::over(socket, self.conversation, self.remote).await
    }
}

impl Drop for Guest {
    fn drop(&mut self) {
        self.listener.known.remove(&self.remote);
    }
}

impl Known {
    fn insert(&self, remote: SocketAddr) -> bool {
        let mut known = self.lock();
        known.len() < SESSIONS_MAX && known.insert(remote)
    }

    fn remove(&self, remote: &SocketAddr) {
        self.lock().remove(remote);
    }

    fn lock(&self) -> MutexGuard<'_, BTreeSet<SocketAddr>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Reads the first segment of a conversation: its number, and the message that it begins with
fn first_message(bytes: &[u8]) -> Option<(u32, &[u8])> {
    let (header, data) = bytes.split_first_chunk::<SEGMENT_HEADER>()?;
    let word = |at: usize| {
        let bytes = header.get(at..at + 4).and_then(|word| word.try_into().ok());
        bytes.map_or(0, u32::from_le_bytes)
    };
    let (conversation, number, heard, len) = (word(0), word(12), word(16), word(20));
    let (command, fragment) = (header[4], header[5]);
    let data = data.get(..usize::try_from(len).ok()?)?;
    // Who has heard something in this conversation had it with somebody else: us, before a restart.
    let fresh = number == 0 && heard == 0 && conversation != 0;
    let first = command == PUSH && fragment == 0 && fresh;
    let len = data.first_chunk().map(|prefix| usize::from(u16::from_be_bytes(*prefix)))?;
    let message = data.get(frame::PREFIX..frame::PREFIX + len)?;
    (first && frame::whole(data).is_ok_and(|whole| whole > 0)).then_some((conversation, message))
}

/// Has a socket hear nobody but `remote`
fn connected(socket: Socket, local: SocketAddr, remote: SocketAddr) -> io::Result<UdpSocket> {
    socket.bind(&local.into())?;
    socket.connect(&remote.into())?;
    UdpSocket::from_std(socket.into())
}

/// Makes a socket for a local address
fn opened(local: SocketAddr) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(local), Type::DGRAM, Some(Protocol::UDP))?;
    if local.is_ipv6() {
        socket.set_only_v6(!local.ip().is_unspecified())?;
    }
    socket.set_nonblocking(true)?;
    Ok(socket)
}

fn above(addr: SocketAddr) -> Option<SocketAddr> {
    Some(SocketAddr::new(addr.ip(), addr.port().checked_add(1)?))
}

fn conversation() -> io::Result<u32> {
    let mut bytes = [0; 4];
    rustix::rand::getrandom(&mut bytes, rustix::rand::GetRandomFlags::empty())?;
    Ok(u32::from_ne_bytes(bytes).max(1))
}

/// The fastest that stock KCP is; its windows are fixed, and that is why it is not the default
fn config() -> KcpConfig {
    KcpConfig {
        mtu: MTU,
        nodelay: KcpNoDelayConfig::fastest(),
        wnd_size: (WINDOW_SEND, WINDOW_RECEIVE),
        flush_write: true,
        flush_acks_input: true,
        stream: true,
        ..KcpConfig::default()
    }
}

/// Header of a segment
const SEGMENT_HEADER: usize = 24;
/// The command of a segment with data
const PUSH: u8 = 81;
/// Largest UDP payload, header included: kcptun's
const MTU: usize = 1350;
/// Segments in flight: 5 Mbit at a round trip of 100 ms make 50 Mbit/s
const WINDOW_SEND: u16 = 512;
/// Segments that a receiver keeps
const WINDOW_RECEIVE: u16 = 1024;
/// Bytes written at one time
const WRITE_MAX: usize = 16 * 1024;
/// Sessions that others have made, at one time
const SESSIONS_MAX: usize = 512;
/// Time for the node to look at a first message
const DECISION: Duration = Duration::from_secs(1);
/// Room for what arrives: the rest of a longer one is of no interest
const SPACE: usize = 2048;
/// Time after which receiving is tried again
const PAUSE: Duration = Duration::from_millis(200);

const _: () = assert!(
    MTU - SEGMENT_HEADER >= fastvpn_proto::limits::MESSAGE_MIN + frame::PREFIX,
    "a first message, init or challenge, fits into a first segment"
);

#[cfg(test)]
mod tests {
    use rtnetlink::LinkUnspec;

    use super::super::super::udp::Udp;
    use super::*;
    use crate::netns::in_namespace;

    #[tokio::test]
    async fn port_that_the_data_threads_of_another_network_share_is_busy() {
        let (first, listening) = Udp::bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let _siblings = first.siblings(1).unwrap();

        let busy = Port::default().bind(below(listening.addr)).unwrap_err();

        assert_eq!(busy.kind(), io::ErrorKind::AddrInUse);
    }

    #[tokio::test]
    async fn port_is_kept_for_another_listener_while_a_session_has_it_and_is_nobody_elses() {
        for any in ["127.0.0.1:0", "[::]:0"] {
            let free = std::net::UdpSocket::bind::<SocketAddr>(any.parse().unwrap()).unwrap();
            let (ours, at) = (Port::default(), below(free.local_addr().unwrap()));
            drop(free);
            let listener = ours.bind(at).unwrap();
            let remote = "127.0.0.1:9".parse().unwrap();
            let guest = Guest { listener, remote, local: None, conversation: 7 };
            let session = guest.session().await.unwrap();

            assert_eq!(Port::default().bind(at).unwrap_err().kind(), io::ErrorKind::AddrInUse);
            let again = ours.bind(at).unwrap();
            assert!(Arc::ptr_eq(&again, &guest.listener));

            drop((session, guest, again));
            while let Err(error) = Port::default().bind(at) {
                assert_eq!(error.kind(), io::ErrorKind::AddrInUse);
                sleep(Duration::from_millis(10)).await;
            }
        }
    }

    #[test]
    fn nobody_is_called_from_a_port_that_data_threads_share() {
        in_namespace(|| async {
            let (connection, netlink, _) = rtnetlink::new_connection().unwrap();
            tokio::spawn(connection);
            let lo = LinkUnspec::new_with_name("lo").up().build();
            netlink.link().set(lo).execute().await.unwrap();
            let range = "/proc/sys/net/ipv4/ip_local_port_range";
            if let Err(error) = std::fs::write(range, "40000 40001") {
                return println!("skipped: no range of ports can be set: {error}");
            }
            // All that a random port can be.
            let (first, _) = Udp::bind("0.0.0.0:40000".parse().unwrap()).unwrap();
            let (other, _) = Udp::bind("0.0.0.0:40001".parse().unwrap()).unwrap();
            let _siblings = [first.siblings(1).unwrap(), other.siblings(1).unwrap()];

            let busy = dial("127.0.0.1:7".parse().unwrap()).await.unwrap_err();

            assert_eq!(busy.kind(), io::ErrorKind::AddrInUse);
        });
    }

    fn below(addr: SocketAddr) -> SocketAddr {
        SocketAddr::new(addr.ip(), addr.port() - 1)
    }

    #[test]
    fn first_segment_with_a_whole_message_is_one_to_look_at() {
        let segment = segment(7, PUSH, 0, &frame::framed(&[9; 1024], 1024));

        let found = first_message(&segment);

        assert_eq!(found, Some((7, &[9; 1024][..])));
    }

    #[test]
    fn other_segments_and_rubbish_are_not_looked_at() {
        let whole = frame::framed(&[9; 1024], 1024);
        let acknowledgement = segment(7, PUSH + 1, 0, &[]);
        let later = segment(7, PUSH, 1, &whole);
        let unnumbered = segment(0, PUSH, 0, &whole);
        let mut old = segment(7, PUSH, 0, &whole);
        old[16] = 1;
        let half = segment(7, PUSH, 0, &whole[..800]);
        let empty = segment(7, PUSH, 0, &[]);
        let cut = &segment(7, PUSH, 0, &whole)[..500];

        let all = [&acknowledgement, &later, &unnumbered, &old, &half, &empty, cut, &[0; 24], &[]];
        for bytes in all {
            assert_eq!(first_message(bytes), None, "{bytes:?}");
        }
    }

    fn segment(conversation: u32, command: u8, number: u32, data: &[u8]) -> Vec<u8> {
        let mut bytes = conversation.to_le_bytes().to_vec();
        bytes.extend([command, 0, 0, 1, 0, 0, 0, 0]);
        bytes.extend(number.to_le_bytes());
        bytes.extend([0; 4]);
        bytes.extend(u32::try_from(data.len()).unwrap().to_le_bytes());
        bytes.extend(data);
        bytes
    }
}
