//! Connections over TCP, to the port that has the number of the UDP port.
//!
//! The kernel's queue is kept short (`TCP_NOTSENT_LOWAT`): what waits there cannot be overtaken by
//! anything, and the node believes that it has left.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use fastvpn_proto::node::Carrier;
use socket2::{Domain, Protocol, SockRef, Socket, Type};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::{sleep, timeout};
use tracing::{Instrument, debug, trace};

use super::super::udp::plain;
use super::Ground;

/// Accepts connections for ever
pub(super) async fn accept(listener: TcpListener, ground: Arc<Ground>) {
    loop {
        let (stream, remote) = match listener.accept().await {
            Ok(accepted) => accepted,
            Err(error) => {
                // The next one fails likewise where descriptors have run out.
                debug!(%error, "no connection accepted");
                sleep(PAUSE).await;
                continue;
            }
        };
        let remote = plain(remote);
        let Some(pass) = ground.door.admit(remote.ip()) else {
            trace!(%remote, "too many connections");
            continue;
        };
        let local = stream.local_addr().ok().map(|local| plain(local).ip());
        if let Err(error) = prepare(&stream) {
            trace!(%remote, %error, "connection is gone already");
            continue;
        }
        let (opened, connection) = ground.open(Carrier::Tcp, remote, local, pass, None);
        ground.exchange.tell(opened);
        // The kernel itself gives up on what is not acknowledged.
        let served = Arc::clone(&ground).serve(stream, connection, || true);
        tokio::spawn(served.in_current_span());
    }
}

/// Makes a connection
///
/// # Errors
/// If nobody answers there.
pub(super) async fn dial(remote: SocketAddr) -> io::Result<TcpStream> {
    let stream = timeout(DIAL_LIMIT, TcpStream::connect(remote)).await??;
    prepare(&stream)?;
    Ok(stream)
}

/// Makes a socket that takes connections on `listen`, IPv4 as well where that is any address
///
/// # Errors
/// If the port is busy.
pub(super) fn bind(listen: SocketAddr) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(listen), Type::STREAM, Some(Protocol::TCP))?;
    if listen.is_ipv6() {
        socket.set_only_v6(false)?;
    }
    // What is left of closed connections does not keep the port.
    socket.set_reuse_address(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&listen.into())?;
    socket.listen(BACKLOG)?;
    TcpListener::from_std(socket.into())
}

fn prepare(stream: &TcpStream) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let socket = SockRef::from(stream);
    socket.set_tcp_notsent_lowat(NOT_SENT)?;
    socket.set_tcp_user_timeout(Some(STALLED))
}

/// Bytes that wait in the kernel before more is taken
const NOT_SENT: u32 = 32 * 1024;
/// Connections that wait to be accepted
const BACKLOG: i32 = 128;
/// Time without an acknowledgement after which the kernel gives a connection up
const STALLED: Duration = Duration::from_secs(10);
/// Time for a connection to be made
const DIAL_LIMIT: Duration = Duration::from_secs(8);
/// Time after which accepting is tried again
const PAUSE: Duration = Duration::from_millis(200);
