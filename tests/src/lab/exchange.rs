//! Short transfers: how long one takes from the first packet to the last byte.
//!
//! [`fetches`] opens a connection for each object, as a browser does; [`answers`] asks and answers
//! on connections that stay open, as a terminal or a database does.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow};
use socket2::{Domain, Protocol, SockRef, Socket, Type};

use super::netns::Host;
use super::stream::Congestion;

/// What to ask for, and how often
#[derive(Clone, Copy, Debug)]
pub struct ExchangePlan {
    /// Where the client connects to
    pub target: SocketAddr,
    /// Port at which the server listens
    pub port: u16,
    /// Congestion control of both ends
    pub congestion: Congestion,
    /// Bytes of a request
    pub request: usize,
    /// Bytes of an answer
    pub answer: usize,
    /// How many requests
    pub count: usize,
    /// Time from an answer to the next request
    pub pause: Duration,
    /// What takes longer has failed
    pub patience: Duration,
    /// No request begins later than this
    pub limit: Duration,
}

/// Fetches objects one after the other, each over a new connection
///
/// Returns how long each took from the first SYN to the last byte; nothing for one that failed.
///
/// # Errors
/// If the server cannot listen.
pub fn fetches(from: &Host, to: &Host, plan: &ExchangePlan) -> Result<Vec<Option<Duration>>> {
    let _server = Server::start(to, plan)?;
    let start = Instant::now();
    let mut times = Vec::new();
    while times.len() < plan.count && start.elapsed() < plan.limit {
        let begun = Instant::now();
        let fetched = connect(from, plan, begun)
            .and_then(|mut stream| ask(&mut stream, plan, begun + plan.patience));
        times.push(fetched.ok().map(|()| begun.elapsed()));
        std::thread::sleep(plan.pause);
    }
    Ok(times)
}

/// Asks on `connections` open connections at once; returns how long each answer took
///
/// A connection that fails is opened anew.
///
/// # Errors
/// If the server cannot listen.
pub fn answers(
    from: &Arc<Host>,
    to: &Host,
    plan: &ExchangePlan,
    connections: usize,
) -> Result<Vec<Option<Duration>>> {
    let _server = Server::start(to, plan)?;
    let start = Instant::now();
    let threads: Vec<_> = (0..connections)
        .map(|number| {
            let (from, plan) = (Arc::clone(from), *plan);
            std::thread::spawn(move || {
                // not all at the same moment
                std::thread::sleep(plan.pause * number as u32 / 4);
                converse(&from, &plan, start)
            })
        })
        .collect();
    let mut times = Vec::new();
    for thread in threads {
        times.extend(thread.join().map_err(|_| anyhow!("a client panicked"))?);
    }
    Ok(times)
}

fn converse(from: &Host, plan: &ExchangePlan, start: Instant) -> Vec<Option<Duration>> {
    let mut times = Vec::new();
    let mut open = None;
    while times.len() < plan.count && start.elapsed() < plan.limit {
        let stream = match open.take() {
            Some(stream) => Ok(stream),
            None => connect(from, plan, Instant::now()),
        };
        let begun = Instant::now();
        let answered = stream.and_then(|mut stream| {
            ask(&mut stream, plan, begun + plan.patience)?;
            Ok(stream)
        });
        times.push(answered.is_ok().then(|| begun.elapsed()));
        open = answered.ok();
        std::thread::sleep(plan.pause);
    }
    times
}

fn connect(from: &Host, plan: &ExchangePlan, begun: Instant) -> io::Result<TcpStream> {
    let domain = Domain::for_address(plan.target);
    let socket = from.run(move |_| Socket::new(domain, Type::STREAM, Some(Protocol::TCP)))?;
    socket.set_tcp_congestion(plan.congestion.name().as_bytes())?;
    let left = (begun + plan.patience).saturating_duration_since(Instant::now());
    socket.connect_timeout(&plan.target.into(), left.max(LEAST))?;
    let stream = TcpStream::from(socket);
    stream.set_nodelay(true)?;
    Ok(stream)
}

/// Sends a request and reads its answer
fn ask(stream: &mut TcpStream, plan: &ExchangePlan, deadline: Instant) -> io::Result<()> {
    stream.write_all(&vec![b'?'; plan.request])?;
    let mut left = plan.answer;
    let mut buffer = vec![0; 64 * 1024];
    while left > 0 {
        let time = deadline.saturating_duration_since(Instant::now());
        if time.is_zero() {
            return Err(ErrorKind::TimedOut.into());
        }
        stream.set_read_timeout(Some(time.max(LEAST)))?;
        let room = left.min(buffer.len());
        match stream.read(&mut buffer[..room])? {
            0 => return Err(ErrorKind::UnexpectedEof.into()),
            read => left -= read,
        }
    }
    Ok(())
}

/// Answers each request on each connection until it is dropped
struct Server {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Server {
    fn start(host: &Host, plan: &ExchangePlan) -> Result<Self> {
        let at: SocketAddr = match plan.target {
            SocketAddr::V4(_) => ([0, 0, 0, 0], plan.port).into(),
            SocketAddr::V6(_) => ([0u16; 8], plan.port).into(),
        };
        let listener = host.run(move |_| TcpListener::bind(at)).context("server")?;
        listener.set_nonblocking(true)?;
        // connections inherit it
        SockRef::from(&listener).set_tcp_congestion(plan.congestion.name().as_bytes())?;
        let stop = Arc::new(AtomicBool::new(false));
        let (ended, plan) = (Arc::clone(&stop), *plan);
        let thread = std::thread::spawn(move || {
            while !ended.load(Ordering::Acquire) {
                let Ok((stream, _)) = listener.accept() else {
                    std::thread::sleep(Duration::from_micros(200));
                    continue;
                };
                let ended = Arc::clone(&ended);
                std::thread::spawn(move || serve(stream, &plan, &ended));
            }
        });
        Ok(Self { stop, thread: Some(thread) })
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Release);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn serve(mut stream: TcpStream, plan: &ExchangePlan, ended: &AtomicBool) {
    let answer = vec![b'!'; plan.answer];
    let mut request = vec![0; plan.request];
    let mut filled = 0;
    let prepared = stream.set_nonblocking(false).is_ok()
        && stream.set_nodelay(true).is_ok()
        && stream.set_read_timeout(Some(Duration::from_millis(500))).is_ok()
        && stream.set_write_timeout(Some(plan.patience)).is_ok();
    while prepared && !ended.load(Ordering::Acquire) {
        match stream.read(&mut request[filled..]) {
            Ok(0) => return,
            Ok(read) => filled += read,
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {}
            Err(_) => return,
        }
        if filled == request.len() {
            filled = 0;
            if stream.write_all(&answer).is_err() {
                return;
            }
        }
    }
}

/// Shortest timeout that a socket takes
const LEAST: Duration = Duration::from_millis(1);
