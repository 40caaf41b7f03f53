//! Turns of one byte: how many questions and answers fit into a second on an open TCP connection.

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow};
use socket2::{Domain, Protocol, Socket, Type};

use super::netns::Host;

/// Sends a byte to and fro between two hosts for some time; returns turns a second
///
/// `target` is an address of `to`. One connection, one byte on the way at any time: the next leaves
/// when the last has come back.
///
/// # Errors
/// If the connection cannot be made, breaks, or stands still for a while.
pub fn turns(from: &Host, to: &Host, target: SocketAddr, time: Duration) -> Result<f64> {
    let listener = to.run(move |_| TcpListener::bind(target)).context("server")?;
    let domain = Domain::for_address(target);
    let socket = from
        .run(move |_| Socket::new(domain, Type::STREAM, Some(Protocol::TCP)))
        .context("client")?;
    socket.connect_timeout(&target.into(), PATIENCE).context("connect")?;
    let mut near = TcpStream::from(socket);
    let (far, _) = listener.accept().context("accept")?;
    for end in [&near, &far] {
        end.set_nodelay(true)?;
        end.set_read_timeout(Some(PATIENCE))?;
    }
    let server = std::thread::spawn(move || echo(far));
    let (start, mut done, mut byte) = (Instant::now(), 0u64, [0]);
    while start.elapsed() < time {
        near.write_all(&byte).context("write")?;
        near.read_exact(&mut byte).context("read")?;
        done += 1;
    }
    let took = start.elapsed();
    drop(near);
    server.join().map_err(|_| anyhow!("the server panicked"))?.context("server")?;
    Ok(done as f64 / took.as_secs_f64())
}

/// Returns each byte until the connection ends
fn echo(mut stream: TcpStream) -> std::io::Result<()> {
    let mut byte = [0];
    loop {
        match stream.read_exact(&mut byte) {
            Ok(()) => stream.write_all(&byte)?,
            Err(error) if error.kind() == ErrorKind::UnexpectedEof => return Ok(()),
            Err(error) => return Err(error),
        }
    }
}

/// Time after which a connection is broken
const PATIENCE: Duration = Duration::from_secs(10);
