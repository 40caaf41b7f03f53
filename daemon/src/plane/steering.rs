//! Which of several sockets with one address gets a message.
//!
//! The kernel asks a program of its classic machine (SO_ATTACH_REUSEPORT_CBPF, socket(7)) that looks at the message as
//! [`fastvpn_proto::node::steer`] does: the index in it names the thread that has the session. All else, inits
//! among it, is for the first one. A message that nobody can have been meant for goes to any.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

use fastvpn_proto::node::SHARD_BITS;
use fastvpn_proto::wire::message::RECEIVERS;

/// Has the kernel steer what arrives for all sockets that share the address of this one, in the order in
/// which they were bound
///
/// # Errors
/// If the kernel cannot.
#[allow(unsafe_code)]
pub(super) fn attach(socket: BorrowedFd<'_>) -> io::Result<()> {
    let mut program = program();
    let len = libc::c_ushort::try_from(program.len()).map_err(io::Error::other)?;
    let attached = libc::sock_fprog { len, filter: program.as_mut_ptr() };
    // SAFETY: the descriptor is open, and the kernel copies the program, which lives until then.
    let result = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_ATTACH_REUSEPORT_CBPF,
            (&raw const attached).cast(),
            size_of::<libc::sock_fprog>() as libc::socklen_t,
        )
    };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Returns the program: it is given a UDP payload, and returns the number of a socket
fn program() -> Vec<libc::sock_filter> {
    let mut program = vec![step(libc::BPF_LD | libc::BPF_B | libc::BPF_ABS, 0)];
    for (kind, at) in RECEIVERS {
        // To the next kind where it is not this one. What is too short for an index ends the program, with zero.
        let mut jump = step(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K, kind.into());
        jump.jf = 3;
        program.extend([
            jump,
            step(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, at as u32),
            step(libc::BPF_ALU | libc::BPF_AND | libc::BPF_K, SHARD_BITS),
            step(libc::BPF_RET | libc::BPF_A, 0),
        ]);
    }
    program.push(step(libc::BPF_RET | libc::BPF_K, 0));
    program
}

fn step(code: u32, k: u32) -> libc::sock_filter {
    libc::sock_filter { code: code as u16, jt: 0, jf: 0, k }
}

#[cfg(test)]
mod tests {
    use std::net::UdpSocket;
    use std::time::Duration;

    use fastvpn_proto::node::steer;

    use super::super::buffers::Slots;
    use super::super::udp::{self, Udp};

    #[test]
    fn kernel_hands_each_message_to_the_thread_that_it_names() {
        for listen in ["127.0.0.1:0", "[::]:0"] {
            let (first, listening) = Udp::bind(listen.parse().unwrap()).unwrap();
            let mut sockets = first.siblings(2).unwrap();
            sockets.insert(0, first);
            let stranger = UdpSocket::bind("127.0.0.1:0").unwrap();
            let port = listening.addr.port();
            let mut sent = Vec::new();
            for kind in 0..6 {
                for index in 0..8_u8 {
                    for len in [1, 6, 12, 100] {
                        let mut message = vec![index; len];
                        message[0] = kind;
                        stranger.send_to(&message, ("127.0.0.1", port)).unwrap();
                        sent.push(message);
                    }
                }
            }

            let mut got = 0;
            for (at, socket) in sockets.iter().enumerate() {
                for message in received(socket) {
                    let steered = steer(&message, 3);
                    let named = steer(&message, 16).is_some();
                    assert!(steered == Some(at) || steered.is_none() && (named || at == 0));
                    got += 1;
                }
            }
            assert_eq!(got, sent.len());
        }
    }

    #[test]
    fn address_is_for_one_process_alone() {
        let (first, listening) = Udp::bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let _siblings = first.siblings(1).unwrap();

        assert!(Udp::bind(listening.addr).is_err());
    }

    fn received(socket: &Udp) -> Vec<Vec<u8>> {
        let mut slots = Slots::new();
        let mut all = Vec::new();
        for _ in 0..20 {
            let filled = socket.receive(&mut slots);
            for (meta, bytes) in slots.filled(filled) {
                udp::messages(&meta, bytes, |message| all.push(message.to_vec()));
            }
            std::thread::sleep(Duration::from_millis(1));
        }
        all
    }
}
