//! Thousands of TCP connections at once, by one process at each end.
//!
//! [`Many`] opens them and keeps them open. The far end says back whatever it hears, and closes when
//! it hears the end; the near end looks at every byte.
//!
//! # Contract
//!
//! - Whatever takes longer than it may is an error that says how many connections are stuck.

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::fd::OwnedFd;
use std::process::Child;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use rustix::event::Timespec;
use rustix::event::epoll::{self, EventData, EventFlags};
use rustix::io::Errno;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use socket2::{Domain, Protocol, Socket, Type};

use super::netns::Host;
use super::wait::until;

/// Connections from one host to another, all open
#[derive(Debug)]
pub struct Many {
    epoll: OwnedFd,
    streams: Vec<Option<TcpStream>>,
    _server: Server,
}

/// What one connection still has to hear
type Owed = Vec<Vec<u8>>;

impl Many {
    /// Opens `count` connections from one host to `target`, an address of the other; a few bytes go
    /// there and back on each
    ///
    /// # Errors
    /// If there are not enough descriptors, or a connection fails or is not open in time.
    pub fn open(
        from: &Host,
        to: &Host,
        target: SocketAddr,
        count: usize,
        patience: Duration,
    ) -> Result<Self> {
        raise_limit()?;
        let server = Server::start(to, target)?;
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        let mut many = Self { epoll, streams: Vec::new(), _server: server };
        many.streams.resize_with(count, || None);
        let end = Instant::now() + patience;
        for first in (0..count).step_by(AT_ONCE) {
            let part = first..(first + AT_ONCE).min(count);
            many.connect(from, target, part.clone(), end)?;
            let says = |number: usize| format!("{number:06}").into_bytes();
            many.converse(part, says, end).context("greeting")?;
        }
        Ok(many)
    }

    /// Says so many bytes on each connection, and hears them again
    ///
    /// # Errors
    /// If one fails, or has not heard all in time.
    pub fn exchange(&mut self, bytes: usize, patience: Duration) -> Result<()> {
        let says = |number: usize| vec![number as u8; bytes];
        self.converse(0..self.streams.len(), says, Instant::now() + patience)
    }

    /// Ends all connections, and waits until the far end has ended them as well
    ///
    /// # Errors
    /// If one fails, or has not ended in time.
    pub fn close(mut self, patience: Duration) -> Result<()> {
        for stream in self.streams.iter().flatten() {
            stream.shutdown(std::net::Shutdown::Write)?;
        }
        let end = Instant::now() + patience;
        let mut left = self.streams.len();
        while left > 0 {
            for number in self.ready(end).with_context(|| format!("{left} are not closed"))? {
                let Some(stream) = &mut self.streams[number] else { continue };
                let read = stream.read(&mut [0; 8]).context("closing")?;
                ensure!(read == 0, "connection {number} says more");
                self.streams[number] = None;
                left -= 1;
            }
        }
        Ok(())
    }

    fn connect(
        &mut self,
        from: &Host,
        target: SocketAddr,
        part: std::ops::Range<usize>,
        end: Instant,
    ) -> Result<()> {
        let count = part.len();
        let sockets = from.run(move |_| {
            let connect = |_| {
                let domain = Domain::for_address(target);
                let socket = Socket::new(domain, Type::STREAM, Some(Protocol::TCP))?;
                socket.set_nonblocking(true)?;
                match socket.connect(&target.into()) {
                    Err(error) if Errno::from_io_error(&error) != Some(Errno::INPROGRESS) => {
                        Err(error)
                    }
                    Ok(()) | Err(_) => Ok(TcpStream::from(socket)),
                }
            };
            (0..count).map(connect).collect::<std::io::Result<Vec<_>>>()
        })?;
        for (number, stream) in part.clone().zip(sockets) {
            let data = EventData::new_u64(number as u64);
            epoll::add(&self.epoll, &stream, data, EventFlags::OUT)?;
            self.streams[number] = Some(stream);
        }
        let mut left = count;
        while left > 0 {
            for number in self.ready(end).with_context(|| format!("{left} are not open"))? {
                let Some(stream) = &self.streams[number] else { continue };
                if let Some(error) = stream.take_error()? {
                    return Err(error).with_context(|| format!("connection {number}"));
                }
                let data = EventData::new_u64(number as u64);
                epoll::modify(&self.epoll, stream, data, EventFlags::IN)?;
                left -= 1;
            }
        }
        Ok(())
    }

    fn converse(
        &mut self,
        part: std::ops::Range<usize>,
        says: impl Fn(usize) -> Vec<u8>,
        end: Instant,
    ) -> Result<()> {
        let first = part.start;
        let mut owed: Owed = Vec::new();
        for number in part {
            let words = says(number);
            let Some(stream) = &mut self.streams[number] else { bail!("{number} is closed") };
            stream.write_all(&words).with_context(|| format!("connection {number}"))?;
            owed.push(words);
        }
        let mut left = owed.len();
        while left > 0 {
            for number in self.ready(end).with_context(|| format!("{left} hear nothing"))? {
                let Some(stream) = &mut self.streams[number] else { continue };
                let mut buffer = [0; 256];
                let read = match stream.read(&mut buffer) {
                    Ok(0) => bail!("connection {number} was closed"),
                    Ok(read) => read,
                    Err(error) if error.kind() == ErrorKind::WouldBlock => continue,
                    Err(error) => return Err(error).context(format!("connection {number}")),
                };
                let Some(words) = number.checked_sub(first).and_then(|at| owed.get_mut(at)) else {
                    bail!("connection {number} was not asked");
                };
                ensure!(words.starts_with(&buffer[..read]), "connection {number} hears else");
                words.drain(..read);
                left -= usize::from(words.is_empty());
            }
        }
        Ok(())
    }

    /// Waits for connections on which something has happened
    fn ready(&self, end: Instant) -> Result<Vec<usize>> {
        ensure!(Instant::now() < end, "too late");
        let events = wait(&self.epoll)?;
        Ok(events.into_iter().map(|number| number as usize).collect())
    }
}

/// The far end: a process of its own, so that each end has as many descriptors as it may
#[derive(Debug)]
struct Server(Child);

impl Server {
    fn start(host: &Host, at: SocketAddr) -> Result<Self> {
        let mut command = host.command(super::daemon::program("lab")?);
        command.args(["echo", &at.to_string()]);
        let server = Self(host.spawn(command)?);
        let listens = until(Duration::from_secs(5), || super::load::listens(host, at.port()));
        ensure!(listens, "the far end does not listen");
        Ok(server)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Says back whatever comes over connections to `at`, for ever
///
/// # Errors
/// If it cannot listen there.
pub fn echo(at: SocketAddr) -> Result<()> {
    raise_limit()?;
    let socket = Socket::new(Domain::for_address(at), Type::STREAM, Some(Protocol::TCP))?;
    socket.bind(&at.into())?;
    socket.listen(4 * AT_ONCE as i32)?;
    socket.set_nonblocking(true)?;
    serve(&socket)
}

/// Has this process open as many descriptors as it ever may
fn raise_limit() -> Result<()> {
    let maximum = getrlimit(Resource::Nofile).maximum;
    Ok(setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum })?)
}

fn serve(listener: &Socket) -> Result<()> {
    let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
    epoll::add(&epoll, listener, EventData::new_u64(LISTENER), EventFlags::IN)?;
    let mut streams: Vec<Option<TcpStream>> = Vec::new();
    loop {
        for number in wait(&epoll)? {
            if number == LISTENER {
                while let Ok((socket, _)) = listener.accept() {
                    socket.set_nonblocking(true)?;
                    let data = EventData::new_u64(streams.len() as u64);
                    epoll::add(&epoll, &socket, data, EventFlags::IN)?;
                    streams.push(Some(socket.into()));
                }
                continue;
            }
            let place = &mut streams[number as usize];
            if !place.as_mut().is_some_and(answer) {
                *place = None;
            }
        }
    }
}

/// Says back what is there; tells whether there may be more
fn answer(stream: &mut TcpStream) -> bool {
    let mut buffer = [0; 256];
    match stream.read(&mut buffer) {
        Ok(0) => false,
        // so few bytes always find room
        Ok(read) => stream.write_all(&buffer[..read]).is_ok(),
        Err(error) => error.kind() == ErrorKind::WouldBlock,
    }
}

fn wait(epoll: &OwnedFd) -> Result<Vec<u64>> {
    let mut events = Vec::with_capacity(512);
    let time = Timespec { tv_sec: 0, tv_nsec: 100_000_000 };
    match epoll::wait(epoll, rustix::buffer::spare_capacity(&mut events), Some(&time)) {
        Ok(_) | Err(Errno::INTR) => {}
        Err(error) => return Err(error.into()),
    }
    Ok(events.iter().map(|event| event.data.u64()).collect())
}

/// Connections that begin at the same time
const AT_ONCE: usize = 250;
const LISTENER: u64 = u64::MAX;
