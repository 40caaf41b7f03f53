//! Answers over UDP and TCP on one address of this node.
//!
//! # Contract
//!
//! - Only those whom [`Known::guests`] names get an answer; all others get nothing.
//! - A flood costs little: what is too much is dropped unread, what is less but more than a guest's
//!   share is read and dropped, so that this host still gets its answers.
//! - The address need not be there yet: whoever makes it may come later.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use fastvpn_proto::ip::Prefix;
use socket2::{Domain, Protocol, Socket, Type};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::sync::watch;
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::{Instant, sleep, sleep_until, timeout};
use tracing::debug;

use super::answer::{Transport, answer};
use super::zone::Zone;

/// Answers on one address until it is dropped; to be made within a tokio runtime
#[derive(Debug)]
pub struct Resolver {
    local: SocketAddr,
    known: watch::Sender<Arc<Known>>,
    tasks: [JoinHandle<()>; 2],
}

/// What is answered, and to whom
#[derive(Clone, Debug, Default)]
pub struct Known {
    /// The names
    pub zone: Zone,
    /// Addresses of this host
    pub own: Vec<IpAddr>,
    /// Where others are who may ask
    pub guests: Vec<Prefix>,
}

/// Who asks
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Asker {
    Guest,
    Host,
}

impl Known {
    fn asker(&self, from: IpAddr) -> Option<Asker> {
        if self.own.contains(&from) {
            return Some(Asker::Host);
        }
        self.guests.iter().any(|guests| guests.contains(from)).then_some(Asker::Guest)
    }
}

impl Resolver {
    /// Starts to answer on `addr`: on port 53, or on the first other one that is to be had
    ///
    /// # Errors
    /// If there is no port on which both UDP and TCP are free.
    pub fn bind(addr: IpAddr, known: Known) -> io::Result<Self> {
        let (udp, tcp, local) = sockets(addr)?;
        let (known, seen) = watch::channel(Arc::new(known));
        let tasks = [
            tokio::spawn(serve_datagrams(udp, seen.clone())),
            tokio::spawn(serve_connections(tcp, seen)),
        ];
        Ok(Self { local, known, tasks })
    }

    /// Returns where it answers
    pub fn local(&self) -> SocketAddr {
        self.local
    }

    /// Answers from something else
    pub fn update(&self, known: Known) {
        self.known.send_replace(Arc::new(known));
    }
}

impl Drop for Resolver {
    fn drop(&mut self) {
        for task in &self.tasks {
            task.abort();
        }
    }
}

fn sockets(addr: IpAddr) -> io::Result<(UdpSocket, TcpListener, SocketAddr)> {
    let mut last = None;
    for port in PORTS {
        let found = socket(addr, port, Type::DGRAM).and_then(|udp| {
            let udp = UdpSocket::from_std(udp.into())?;
            let local = udp.local_addr()?;
            let tcp = socket(addr, local.port(), Type::STREAM)?;
            tcp.listen(CONNECTIONS_MAX as i32)?;
            Ok((udp, TcpListener::from_std(tcp.into())?, local))
        });
        match found {
            Ok(found) => return Ok(found),
            Err(error) => {
                debug!(%addr, port, %error, "cannot answer for names on this port");
                last = Some(error);
            }
        }
    }
    Err(last.unwrap_or_else(|| io::ErrorKind::AddrNotAvailable.into()))
}

fn socket(addr: IpAddr, port: u16, kind: Type) -> io::Result<Socket> {
    let protocol = if kind == Type::STREAM { Protocol::TCP } else { Protocol::UDP };
    let domain = if addr.is_ipv4() { Domain::IPV4 } else { Domain::IPV6 };
    let socket = Socket::new(domain, kind.nonblocking().cloexec(), Some(protocol))?;
    if addr.is_ipv4() {
        socket.set_freebind_v4(true)?;
    } else {
        socket.set_freebind_v6(true)?;
    }
    if kind == Type::STREAM {
        // Connections of before, which the kernel still remembers, are in nobody's way.
        socket.set_reuse_address(true)?;
    }
    socket.bind(&SocketAddr::new(addr, port).into())?;
    Ok(socket)
}

async fn serve_datagrams(socket: UdpSocket, known: watch::Receiver<Arc<Known>>) {
    let mut buffer = [0; DATAGRAM_MAX];
    let mut budget = Budget::new(Instant::now(), READS_MAX);
    loop {
        budget.wait().await;
        let (len, from) = match socket.recv_from(&mut buffer).await {
            Ok(received) => received,
            Err(error) => {
                debug!(%error, "no question can be read");
                sleep(PAUSE).await;
                continue;
            }
        };
        let known = Arc::clone(&known.borrow());
        let Some(asker) = known.asker(from.ip()) else { continue };
        if !budget.has_for(asker) {
            continue;
        }
        if let Some(answer) = answer(&known.zone, &buffer[..len], Transport::Udp) {
            // An answer that finds no room is lost like any datagram; it will be asked for again.
            let _ = socket.try_send_to(&answer, from);
        }
    }
}

async fn serve_connections(listener: TcpListener, known: watch::Receiver<Arc<Known>>) {
    let mut connections: JoinSet<Asker> = JoinSet::new();
    let mut guests = 0;
    loop {
        tokio::select! {
            Some(ended) = connections.join_next() => {
                if matches!(ended, Ok(Asker::Guest)) {
                    guests -= 1;
                }
            }
            accepted = listener.accept(), if connections.len() < CONNECTIONS_MAX => {
                let Ok((stream, from)) = accepted else {
                    sleep(PAUSE).await;
                    continue;
                };
                let asker = known.borrow().asker(from.ip());
                let known = known.clone();
                match asker {
                    None => {}
                    Some(Asker::Guest) if guests >= CONNECTIONS_MAX / 2 => {}
                    Some(asker) => {
                        guests += usize::from(asker == Asker::Guest);
                        connections.spawn(async move {
                            // However it ends: there is nobody to tell.
                            let talk = converse(stream, known, asker);
                            let _ = timeout(CONNECTION_LIFE, talk).await;
                            asker
                        });
                    }
                }
            }
        }
    }
}

/// Answers the questions of one connection, one after the other
async fn converse(
    mut stream: TcpStream,
    known: watch::Receiver<Arc<Known>>,
    asker: Asker,
) -> io::Result<()> {
    let mut budget = Budget::new(Instant::now(), asker.share());
    loop {
        budget.wait().await;
        let mut len = [0; 2];
        timeout(IDLE, stream.read_exact(&mut len)).await??;
        let mut question = vec![0; usize::from(u16::from_be_bytes(len))];
        timeout(IDLE, stream.read_exact(&mut question)).await??;
        let known = Arc::clone(&known.borrow());
        // Who sends what is no question is not served any further.
        let Some(answer) = answer(&known.zone, &question, Transport::Tcp) else { return Ok(()) };
        let Ok(len) = u16::try_from(answer.len()) else { return Ok(()) };
        let mut message = len.to_be_bytes().to_vec();
        message.extend(answer);
        timeout(IDLE, stream.write_all(&message)).await??;
    }
}

impl Asker {
    /// How many questions of such are answered in each span
    const fn share(self) -> u32 {
        match self {
            Self::Guest => QUESTIONS_MAX / 10,
            Self::Host => QUESTIONS_MAX,
        }
    }
}

/// How much may still be read and answered in this span
#[derive(Debug)]
struct Budget {
    until: Instant,
    /// Of how many in each span
    most: u32,
    reads: u32,
    guests: u32,
    host: u32,
}

impl Budget {
    fn new(now: Instant, most: u32) -> Self {
        let (guests, host) = (Asker::Guest.share(), Asker::Host.share());
        Self { until: now + SPAN, most, reads: most, guests, host }
    }

    /// Waits until a question may be read, and counts it
    async fn wait(&mut self) {
        if self.reads == 0 {
            sleep_until(self.until).await;
        }
        let now = Instant::now();
        if now >= self.until {
            *self = Self::new(now, self.most);
        }
        self.reads = self.reads.saturating_sub(1);
    }

    /// Tells whether this one's question may be answered, and counts it
    fn has_for(&mut self, asker: Asker) -> bool {
        let left = match asker {
            Asker::Guest => &mut self.guests,
            Asker::Host => &mut self.host,
        };
        let has = *left > 0;
        *left = left.saturating_sub(1);
        has
    }
}

/// The port of DNS, which needs a capability; that of its relatives; any
const PORTS: [u16; 3] = [53, 5353, 0];
/// Longest question that is read; longer ones are cut, and are wrong then
const DATAGRAM_MAX: usize = 2048;
/// Datagrams that are read in each span, whoever sent them; to drop one costs a microsecond or two
const READS_MAX: u32 = 5000;
/// Questions that are answered in each span
const QUESTIONS_MAX: u32 = 500;
const SPAN: Duration = Duration::from_millis(100);
/// Connections at a time; half of them may be guests'
const CONNECTIONS_MAX: usize = 32;
/// How long a connection may be silent, and how long it may last
const IDLE: Duration = Duration::from_secs(10);
const CONNECTION_LIFE: Duration = Duration::from_secs(120);
/// Pause after an error that may come again at once
const PAUSE: Duration = Duration::from_millis(100);

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;

    const QUESTION: &[u8] = b"\x12\x34\x01\0\0\x01\0\0\0\0\0\0\x04home\x07fastvpn\0\0\x01\0\x01";

    #[tokio::test]
    async fn same_question_has_the_same_answer_over_udp_and_tcp() {
        let resolver = Resolver::bind(LOCAL, known(LOCAL)).unwrap();

        let datagram = ask_udp(resolver.local()).await.unwrap();
        let mut stream = TcpStream::connect(resolver.local()).await.unwrap();
        let mut message = (QUESTION.len() as u16).to_be_bytes().to_vec();
        message.extend(QUESTION);
        for _ in 0..2 {
            stream.write_all(&message).await.unwrap();
            let len = usize::from(stream.read_u16().await.unwrap());
            let mut answer = vec![0; len];
            stream.read_exact(&mut answer).await.unwrap();
            assert_eq!(answer, datagram);
        }

        assert_eq!(datagram[..4], [0x12, 0x34, 0x85, 0x00]);
        assert!(datagram.ends_with(&[0, 4, 10, 9, 0, 2]), "{datagram:?}");
    }

    #[tokio::test]
    async fn strangers_get_no_answer_until_they_are_guests() {
        let resolver = Resolver::bind(LOCAL, known(IpAddr::from([10, 9, 0, 2]))).unwrap();
        assert_eq!(ask_udp(resolver.local()).await, None);
        let mut stream = TcpStream::connect(resolver.local()).await.unwrap();
        let mut byte = [0];
        assert!(matches!(stream.read(&mut byte).await, Ok(0) | Err(_)));

        let guests = vec!["127.0.0.0/8".parse().unwrap()];
        resolver.update(Known { guests, ..known(IpAddr::from([10, 9, 0, 2])) });

        assert!(ask_udp(resolver.local()).await.is_some());
    }

    #[tokio::test]
    async fn second_one_on_an_address_finds_another_port() {
        let first = Resolver::bind(LOCAL, Known::default()).unwrap();
        let second = Resolver::bind(LOCAL, Known::default()).unwrap();

        assert_ne!(first.local(), second.local());
    }

    #[tokio::test]
    async fn address_may_come_later() {
        let nowhere = IpAddr::from([192, 0, 2, 77]);

        assert_eq!(Resolver::bind(nowhere, Known::default()).unwrap().local().ip(), nowhere);
    }

    #[tokio::test(start_paused = true)]
    async fn flood_of_guests_takes_no_answer_from_this_host() {
        let start = Instant::now();
        let mut budget = Budget::new(start, READS_MAX);
        let mut guests = 0;
        for _ in 0..READS_MAX - 1 {
            budget.wait().await;
            guests += u32::from(budget.has_for(Asker::Guest));
        }
        budget.wait().await;
        assert!(budget.has_for(Asker::Host));
        assert_eq!((guests, Instant::now()), (QUESTIONS_MAX / 10, start));

        budget.wait().await;
        assert!(Instant::now() >= start + SPAN);
        assert!(budget.has_for(Asker::Guest));
    }

    #[tokio::test(start_paused = true)]
    async fn connection_of_a_guest_has_the_share_of_guests() {
        let start = Instant::now();
        let mut budget = Budget::new(start, Asker::Guest.share());
        for _ in 0..QUESTIONS_MAX / 10 {
            budget.wait().await;
        }
        assert_eq!(Instant::now(), start);

        budget.wait().await;

        assert!(Instant::now() >= start + SPAN);
    }

    fn known(own: IpAddr) -> Known {
        let suffix = "home.fastvpn".parse().unwrap();
        let zone = Zone::new(&suffix, &[], IpAddr::from([10, 9, 0, 2]), &[], 1);
        Known { zone, own: vec![own], guests: Vec::new() }
    }

    async fn ask_udp(server: SocketAddr) -> Option<Vec<u8>> {
        let socket = UdpSocket::bind((LOCAL, 0)).await.unwrap();
        socket.send_to(QUESTION, server).await.unwrap();
        let mut buffer = [0; 512];
        let received = timeout(Duration::from_millis(500), socket.recv_from(&mut buffer)).await;
        let (len, _) = received.ok()?.unwrap();
        Some(buffer[..len].to_vec())
    }

    const LOCAL: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);
}
