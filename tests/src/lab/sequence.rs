//! Where the sequence numbers of a connection begin.
//!
//! A kernel begins at random, and they wrap after 4 GiB only. A socket of ours may begin anywhere, by the
//! means of those who move connections between machines (`TCP_REPAIR` in tcp(7)).

use std::io;
use std::os::fd::AsRawFd;

use socket2::Socket;

/// Has a socket that is not connected yet send its SYN with this sequence number, which is not 0
///
/// # Errors
/// If this process may not, or the socket is connected.
pub fn begin_at(socket: &Socket, number: u32) -> io::Result<()> {
    set(socket, libc::TCP_REPAIR, 1)?;
    let done = set(socket, libc::TCP_REPAIR_QUEUE, SEND_QUEUE)
        .and_then(|()| set(socket, libc::TCP_QUEUE_SEQ, number.cast_signed()));
    // Even if that failed: in repair a socket would connect without a word to anybody.
    done.and(set(socket, libc::TCP_REPAIR, 0))
}

#[allow(unsafe_code)]
fn set(socket: &Socket, option: libc::c_int, value: libc::c_int) -> io::Result<()> {
    let length = size_of_val(&value) as libc::socklen_t;
    // SAFETY: the descriptor is open, and the kernel reads `length` bytes at `value`, which is as long.
    let result = unsafe {
        let value = (&raw const value).cast();
        libc::setsockopt(socket.as_raw_fd(), libc::IPPROTO_TCP, option, value, length)
    };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// TCP_SEND_QUEUE
const SEND_QUEUE: libc::c_int = 2;

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::net::{TcpListener, TcpStream};
    use std::time::Duration;

    use super::*;

    #[test]
    fn connected_socket_is_refused_and_goes_on_as_before() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let near = Socket::from(TcpStream::connect(listener.local_addr().unwrap()).unwrap());
        let (mut far, _) = listener.accept().unwrap();
        far.set_read_timeout(Some(Duration::from_secs(5))).unwrap();

        assert!(begin_at(&near, 7).is_err());

        let queue = set(&near, libc::TCP_REPAIR_QUEUE, SEND_QUEUE);
        assert!(queue.is_err(), "which is for sockets in repair");
        (&near).write_all(b"on").unwrap();
        let mut read = [0; 2];
        far.read_exact(&mut read).unwrap();
        assert_eq!(&read, b"on");
    }
}
