//! The UDP socket: batches in and out, both address families in one.
//!
//! Where the machine has IPv6 the socket is dual-stack. The rest of the program never sees that:
//! IPv4-mapped addresses are turned into IPv4 on the way in and back on the way out.
//!
//! Several threads have a socket each, with one address; the kernel hands messages out by [`steering`].
//!
//! A send never fails for good. A message that is too big is told to the node; any other error is
//! one more lost message, counted and traced.

use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, SocketAddrV6};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};

use fastvpn_proto::node::{Arrival, Carrier, Ecn, Transmit};
use quinn_udp::{EcnCodepoint, RecvMeta, UdpSockRef, UdpSocketState};
use rustix::io::Errno;
use rustix::net::sockopt;
use socket2::{Domain, Protocol, Socket, Type};
use tracing::{debug, trace, warn};

use super::buffers::Slots;
use super::{Buffers, Listening, steering};

/// A bound UDP socket
#[derive(Debug)]
pub(super) struct Udp {
    socket: Socket,
    state: UdpSocketState,
    family: Family,
    /// Whether the kernel cuts trains into messages for us
    trains: bool,
    /// Messages that the kernel refused to send
    refused: u64,
    /// Messages that the kernel dropped before anybody read them, and its own count, which wraps
    overflowed: (u64, u32),
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Family {
    V4,
    /// IPv6, and IPv4 as mapped addresses
    Dual,
}

/// What became of the first messages of a train
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Sent {
    /// That many bytes are done with: sent, or lost with an error
    Bytes(usize),
    /// Messages of `len` bytes do not pass; `bytes` of the train are done with
    TooBig {
        /// Size of each message
        len: usize,
        /// How much of the train that was
        bytes: usize,
    },
    /// The kernel cuts no trains on the way to this address; `bytes` of it, the first message, left alone
    Uncut {
        /// How much of the train is done with
        bytes: usize,
    },
    /// Nothing went out; wait until the socket is writable
    Blocked,
}

impl Udp {
    /// Binds to `listen`, or to IPv4 where IPv6 was asked for in general and the machine has none
    pub(super) fn bind(listen: SocketAddr) -> io::Result<(Self, Listening)> {
        let (socket, family, fell_back) = match listen {
            SocketAddr::V4(_) => (bound(listen, Family::V4)?, Family::V4, false),
            SocketAddr::V6(_) => match bound(listen, Family::Dual) {
                Ok(socket) => (socket, Family::Dual, false),
                Err(error) if listen.ip().is_unspecified() && no_ipv6(&error) => {
                    warn!(%error, "this machine has no IPv6; listening on IPv4 only");
                    let listen = (Ipv4Addr::UNSPECIFIED, listen.port()).into();
                    (bound(listen, Family::V4)?, Family::V4, true)
                }
                Err(error) => return Err(error),
            },
        };
        let addr = socket.local_addr()?.as_socket().ok_or(io::ErrorKind::Unsupported)?;
        let (udp, buffers) = Self::with(socket, family)?;
        // Once for all sockets of a plane.
        if buffers.receive.min(buffers.send) < BUFFER_ENOUGH {
            warn!(
                receive = buffers.receive,
                send = buffers.send,
                "socket buffers are small, which costs speed on long paths; \
                 raise net.core.rmem_max and net.core.wmem_max, or grant CAP_NET_ADMIN"
            );
        }
        if udp.state.may_fragment() {
            debug!("the kernel may fragment messages");
        }
        Ok((udp, Listening { addr: plain(addr), fell_back, buffers }))
    }

    /// Makes as many sockets more with the same address, and has the kernel hand out what arrives
    ///
    /// Nobody else can have the address: it was free when the first socket took it, for itself alone.
    ///
    /// # Errors
    /// If the kernel cannot do that.
    pub(super) fn siblings(&self, count: usize) -> io::Result<Vec<Self>> {
        let addr = self.socket.local_addr()?;
        // From here on others of this user could have it as well, if they asked for that before they had it alone.
        // Nobody of us does: see `carrier::kcp`.
        self.socket.set_reuse_port(true)?;
        let sibling = || {
            let socket = opened(self.family)?;
            socket.set_reuse_port(true)?;
            socket.bind(&addr)?;
            Ok(Self::with(socket, self.family)?.0)
        };
        let siblings = (0..count).map(|_| sibling()).collect::<io::Result<_>>()?;
        steering::attach(self.as_fd())?;
        Ok(siblings)
    }

    fn with(socket: Socket, family: Family) -> io::Result<(Self, Buffers)> {
        let state = UdpSocketState::new(UdpSockRef::from(&socket))?;
        let buffers = enlarge(&socket);
        let trains = state.max_gso_segments() > 1;
        Ok((Self { socket, state, family, trains, refused: 0, overflowed: (0, 0) }, buffers))
    }

    /// Receives one batch; returns how many slots are filled, none if nothing waits
    pub(super) fn receive(&self, slots: &mut Slots) -> usize {
        let (mut buffers, metas) = slots.free();
        match self.state.recv(UdpSockRef::from(&self.socket), &mut buffers, metas) {
            Ok(count) => count,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => 0,
            Err(error) => {
                trace!(%error, "nothing received");
                0
            }
        }
    }

    /// Sends the first messages of `train`, as many as one system call can
    pub(super) fn send(&mut self, transmit: &Transmit, train: &[u8]) -> Sent {
        let len = transmit.segment.unwrap_or(train.len()).clamp(1, train.len().max(1));
        let whole = self.trains && transmit.offload;
        let count = if whole { (TRAIN_BYTES / len).clamp(1, TRAIN_MESSAGES) } else { 1 };
        let head = &train[..train.len().min(count * len)];
        let Some(remote) = self.family.reach(transmit.remote) else {
            return self.lose(&Errno::AFNOSUPPORT.into(), transmit, head);
        };
        let local = source(transmit);
        match self.attempt(remote, (local, transmit.ecn), head, len) {
            Ok(()) => Sent::Bytes(head.len()),
            Err(error) => self.recover(error, transmit, (remote, local), head, len),
        }
    }

    /// Returns how many messages the kernel refused to send
    pub(super) fn refused(&self) -> u64 {
        self.refused
    }

    /// Returns how many messages the kernel dropped before they were read
    ///
    /// Mostly because the socket's buffer was full; but those with a bad checksum, or for which there was
    /// no memory, are counted as well.
    /// Nobody misses any of 2^32 between two calls.
    pub(super) fn overflowed(&mut self) -> u64 {
        let (total, before) = self.overflowed;
        let count = drops(&self.socket).unwrap_or(before);
        self.overflowed = (total + u64::from(count.wrapping_sub(before)), count);
        self.overflowed.0
    }

    /// Finds out what was wrong with `head`, and sends what can be sent
    ///
    /// A source address that is not ours any more shows as `EINVAL` or `ENETUNREACH`, a train whose
    /// messages exceed the device's MTU as `EMSGSIZE` or (older kernels) `EINVAL`, and a way on which
    /// nobody cuts trains (some devices, IPsec) as `EIO` or `EINVAL`. quinn-udp takes these for a kernel that
    /// never does, so the attempts here decide for themselves.
    fn recover(
        &mut self,
        error: io::Error,
        transmit: &Transmit,
        (remote, local): (SocketAddr, Option<IpAddr>),
        head: &[u8],
        len: usize,
    ) -> Sent {
        match Errno::from_io_error(&error) {
            Some(Errno::AGAIN) => return Sent::Blocked,
            Some(Errno::MSGSIZE) => return Sent::TooBig { len, bytes: head.len() },
            _ => {}
        }
        if local.is_some() {
            trace!(%error, ?local, "trying without source address");
            return match self.attempt(remote, (None, transmit.ecn), head, len) {
                Ok(()) => Sent::Bytes(head.len()),
                Err(error) => self.recover(error, transmit, (remote, None), head, len),
            };
        }
        let train = head.len() > len;
        if !train || !matches!(Errno::from_io_error(&error), Some(Errno::INVAL | Errno::IO)) {
            return self.lose(&error, transmit, head);
        }
        let first = &head[..len];
        let single = self
            .attempt(remote, (source(transmit), transmit.ecn), first, len)
            .or_else(|_| self.attempt(remote, (None, transmit.ecn), first, len));
        match single {
            Ok(()) => {
                debug!(%error, %remote, "no segmentation offload on this way");
                Sent::Uncut { bytes: len }
            }
            Err(error) => match Errno::from_io_error(&error) {
                Some(Errno::AGAIN) => Sent::Blocked,
                Some(Errno::MSGSIZE) => Sent::TooBig { len, bytes: head.len() },
                _ => self.lose(&error, transmit, head),
            },
        }
    }

    fn attempt(
        &self,
        destination: SocketAddr,
        (src_ip, ecn): (Option<IpAddr>, Ecn),
        contents: &[u8],
        len: usize,
    ) -> io::Result<()> {
        let segment_size = (contents.len() > len).then_some(len);
        let ecn = (ecn == Ecn::Capable).then_some(EcnCodepoint::Ect0);
        let transmit = quinn_udp::Transmit { destination, ecn, contents, segment_size, src_ip };
        self.state.try_send(UdpSockRef::from(&self.socket), &transmit)
    }

    fn lose(&mut self, error: &io::Error, transmit: &Transmit, head: &[u8]) -> Sent {
        trace!(%error, remote = %transmit.remote, bytes = head.len(), "not sent");
        let len = transmit.segment.unwrap_or(head.len()).max(1);
        self.refused += head.len().div_ceil(len).max(1) as u64;
        Sent::Bytes(head.len())
    }
}

impl AsFd for Udp {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

impl Family {
    /// Returns `remote` as a socket of this family must name it, if it can
    fn reach(self, remote: SocketAddr) -> Option<SocketAddr> {
        match (self, remote) {
            (Self::V4, SocketAddr::V4(_)) | (Self::Dual, SocketAddr::V6(_)) => Some(remote),
            (Self::V4, SocketAddr::V6(_)) => None,
            (Self::Dual, SocketAddr::V4(v4)) => {
                let mapped = v4.ip().to_ipv6_mapped();
                Some(SocketAddrV6::new(mapped, v4.port(), 0, 0).into())
            }
        }
    }
}

/// Tells where the messages of a slot came from
pub(super) fn arrival(meta: &RecvMeta) -> Arrival {
    let local = meta.dst_ip.map(|local| local.to_canonical());
    let ecn = match meta.ecn {
        Some(EcnCodepoint::Ect0) => Ecn::Capable,
        Some(EcnCodepoint::Ce) => Ecn::Congested,
        // Nobody of us sends ECT(1).
        Some(EcnCodepoint::Ect1) | None => Ecn::Incapable,
    };
    Arrival { carrier: Carrier::Udp, remote: plain(meta.addr), local, ecn }
}

/// Returns the source address to ask for, unless it cannot be one for this remote
fn source(transmit: &Transmit) -> Option<IpAddr> {
    transmit.local.filter(|local| local.is_ipv4() == transmit.remote.is_ipv4())
}

/// Cuts a slot into the messages that the kernel has joined in it
pub(super) fn messages(meta: &RecvMeta, bytes: &mut [u8], mut each: impl FnMut(&mut [u8])) {
    if bytes.is_empty() {
        each(bytes);
        return;
    }
    for message in bytes.chunks_mut(meta.stride.max(1)) {
        each(message);
    }
}

/// Turns an IPv4-mapped address into IPv4, and drops the flow label, which names nobody
pub(super) fn plain(addr: SocketAddr) -> SocketAddr {
    match addr {
        SocketAddr::V4(_) => addr,
        SocketAddr::V6(v6) => match v6.ip().to_ipv4_mapped() {
            Some(v4) => (v4, v6.port()).into(),
            None => SocketAddrV6::new(*v6.ip(), v6.port(), 0, v6.scope_id()).into(),
        },
    }
}

fn bound(listen: SocketAddr, family: Family) -> io::Result<Socket> {
    let socket = opened(family)?;
    socket.bind(&listen.into())?;
    Ok(socket)
}

fn opened(family: Family) -> io::Result<Socket> {
    let domain = match family {
        Family::V4 => Domain::IPV4,
        Family::Dual => Domain::IPV6,
    };
    let socket = Socket::new(domain, Type::DGRAM, Some(Protocol::UDP))?;
    if family == Family::Dual {
        socket.set_only_v6(false)?;
    }
    Ok(socket)
}

/// Tells whether a socket could not be made because the machine has no IPv6
fn no_ipv6(error: &io::Error) -> bool {
    matches!(Errno::from_io_error(error), Some(Errno::AFNOSUPPORT | Errno::ADDRNOTAVAIL))
}

/// Makes room for what arrives and leaves between two turns on a fast and long path; returns how much
/// there is
///
/// The limits of the machine bind only those without CAP_NET_ADMIN; what they allow is taken then.
fn enlarge(socket: &Socket) -> Buffers {
    if sockopt::set_socket_recv_buffer_size_force(socket, BUFFER).is_err() {
        let _ = sockopt::set_socket_recv_buffer_size(socket, BUFFER);
    }
    if sockopt::set_socket_send_buffer_size_force(socket, BUFFER).is_err() {
        let _ = sockopt::set_socket_send_buffer_size(socket, BUFFER);
    }
    // The kernel reports twice what it grants, its own overhead included.
    let receive = sockopt::socket_recv_buffer_size(socket).unwrap_or(0) / 2;
    let send = sockopt::socket_send_buffer_size(socket).unwrap_or(0) / 2;
    Buffers { receive: receive as u64, send: send as u64 }
}

/// Returns the kernel's count of messages that it dropped in front of a socket
///
/// The same number as SO_RXQ_OVFL would attach to each message, without a control message for each.
#[allow(unsafe_code)]
fn drops(socket: &Socket) -> Option<u32> {
    const DROPS: usize = libc::SK_MEMINFO_DROPS as usize;
    let mut info = [0u32; DROPS + 1];
    let mut len = size_of_val(&info) as libc::socklen_t;
    // SAFETY: the descriptor lives as long as `socket`, and the kernel writes at most `len` bytes, all
    // of which are ours; any bytes are good numbers.
    let result = unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_MEMINFO,
            info.as_mut_ptr().cast(),
            &raw mut len,
        )
    };
    // Kernels that know less write less.
    (result == 0 && len as usize == size_of_val(&info)).then(|| info[DROPS])
}

/// Socket buffer that is asked for, in bytes for each direction
const BUFFER: usize = 4 << 20;
/// Socket buffer below which we warn
const BUFFER_ENOUGH: u64 = 1 << 20;
/// Messages that the kernel cuts from one train (UDP_MAX_SEGMENTS of older kernels)
const TRAIN_MESSAGES: usize = 64;
/// Bytes in one train: one IPv4 packet, with room for headers
const TRAIN_BYTES: usize = 65_000;

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use fastvpn_proto::crypto::PublicKey;
    use rtnetlink::{LinkUnspec, LinkVeth};
    use rustix::event::{PollFd, PollFlags, poll};
    use rustix::time::Timespec;

    use super::*;
    use crate::netns::in_namespace;

    #[test]
    fn mapped_addresses_become_ipv4_and_flow_labels_go() {
        let meta = |addr: &str, dst: &str| {
            let mut meta = RecvMeta::default();
            meta.addr = addr.parse().unwrap();
            meta.dst_ip = Some(dst.parse().unwrap());
            meta
        };

        let mapped = arrival(&meta("[::ffff:192.0.2.1]:7", "::ffff:192.0.2.2"));
        let labelled = SocketAddrV6::new("fe80::1".parse().unwrap(), 7, 99, 3);

        assert_eq!(mapped.remote, "192.0.2.1:7".parse().unwrap());
        assert_eq!(mapped.local, Some("192.0.2.2".parse().unwrap()));
        assert_eq!(plain(labelled.into()), "[fe80::1%3]:7".parse().unwrap());
    }

    #[test]
    fn dual_socket_reaches_ipv4_as_mapped_and_ipv4_socket_reaches_no_ipv6() {
        let v4 = "192.0.2.1:7".parse().unwrap();
        let v6 = "[2001:db8::1]:7".parse().unwrap();

        assert_eq!(Family::Dual.reach(v4), Some("[::ffff:192.0.2.1]:7".parse().unwrap()));
        assert_eq!(Family::Dual.reach(v6), Some(v6));
        assert_eq!(Family::V4.reach(v4), Some(v4));
        assert_eq!(Family::V4.reach(v6), None);
    }

    #[test]
    fn only_a_machine_without_ipv6_makes_us_fall_back() {
        assert!(no_ipv6(&Errno::AFNOSUPPORT.into()));
        assert!(no_ipv6(&Errno::ADDRNOTAVAIL.into()));
        assert!(!no_ipv6(&Errno::ADDRINUSE.into()));
        assert!(!no_ipv6(&Errno::ACCESS.into()));
    }

    #[test]
    fn busy_port_is_an_error() {
        let (_held, listening) = Udp::bind("127.0.0.1:0".parse().unwrap()).unwrap();

        let error = Udp::bind(listening.addr).unwrap_err();

        assert_eq!(error.kind(), io::ErrorKind::AddrInUse);
    }

    #[test]
    fn room_that_the_system_granted_is_told_as_it_is() {
        let (udp, listening) = Udp::bind("127.0.0.1:0".parse().unwrap()).unwrap();

        // The kernel counts its own overhead, as much again.
        let receive = udp.socket.recv_buffer_size().unwrap() as u64 / 2;
        let send = udp.socket.send_buffer_size().unwrap() as u64 / 2;

        assert_eq!(listening.buffers, Buffers { receive, send });
    }

    #[test]
    fn train_arrives_as_its_messages_with_both_addresses() {
        let (mut near, from) = Udp::bind("[::]:0".parse().unwrap()).unwrap();
        let (far, to) = Udp::bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let train: Vec<u8> = (0..2500u32).map(|at| (at / 1000) as u8).collect();

        let sent = near.send(&transmit(to.addr, Some(1000)), &train);

        assert!(matches!(sent, Sent::Bytes(2500 | 1000)), "{sent:?}");
        let Sent::Bytes(bytes) = sent else { unreachable!() };
        if bytes < train.len() {
            assert_eq!(
                near.send(&transmit(to.addr, Some(1000)), &train[1000..2000]),
                Sent::Bytes(1000)
            );
            assert_eq!(near.send(&transmit(to.addr, None), &train[2000..]), Sent::Bytes(500));
        }
        let got = gather(&far, 3);
        let sizes: Vec<_> = got.iter().map(|(_, bytes)| (bytes[0], bytes.len())).collect();
        assert_eq!(sizes, [(0, 1000), (1, 1000), (2, 500)]);
        assert_eq!(got[0].0.local, Some("127.0.0.1".parse().unwrap()));
        assert_eq!(got[0].0.remote, (Ipv4Addr::LOCALHOST, from.addr.port()).into());
    }

    #[test]
    fn train_that_the_kernel_may_not_cut_goes_to_it_message_by_message() {
        let (mut near, _) = Udp::bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let (far, to) = Udp::bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let singly = Transmit { offload: false, ..transmit(to.addr, Some(1000)) };
        let train: Vec<u8> = (0..2500u32).map(|at| (at / 1000) as u8).collect();

        let mut sent = Vec::new();
        while sent.iter().sum::<usize>() < train.len() {
            match near.send(&singly, &train[sent.iter().sum()..]) {
                Sent::Bytes(bytes) => sent.push(bytes),
                other => panic!("{other:?}"),
            }
        }

        assert_eq!(sent, [1000, 1000, 500]);
        let got: Vec<_> =
            gather(&far, 3).iter().map(|(_, bytes)| (bytes[0], bytes.len())).collect();
        assert_eq!(got, [(0, 1000), (1, 1000), (2, 500)]);
    }

    #[test]
    fn train_that_is_cut_on_no_way_of_the_system_is_said_and_its_first_message_leaves() {
        let (mut near, _) = Udp::bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let (far, to) = Udp::bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let train = vec![7; 2500];
        if near.send(&transmit(to.addr, Some(1000)), &train) != Sent::Bytes(2500) {
            return println!("skipped: this kernel cuts no trains");
        }
        gather(&far, 3);

        // Without checksums nothing can be cut, wherever it goes.
        without_checksums(&near.socket, true);
        let uncut = near.send(&transmit(to.addr, Some(1000)), &train);
        without_checksums(&near.socket, false);

        assert_eq!(uncut, Sent::Uncut { bytes: 1000 });
        assert_eq!(gather(&far, 1)[0].1.len(), 1000);
        let elsewhere = near.send(&transmit(to.addr, Some(1000)), &train);
        assert_eq!(elsewhere, Sent::Bytes(2500), "other ways keep it");
        assert_eq!(near.refused(), 0);
    }

    #[allow(unsafe_code)]
    fn without_checksums(socket: &Socket, without: bool) {
        let value = libc::c_int::from(without);
        // SAFETY: the descriptor is open, and the kernel reads one number.
        let result = unsafe {
            libc::setsockopt(
                socket.as_raw_fd(),
                libc::SOL_SOCKET,
                libc::SO_NO_CHECK,
                (&raw const value).cast(),
                size_of_val(&value) as libc::socklen_t,
            )
        };
        assert_eq!(result, 0);
    }

    #[test]
    fn capable_messages_arrive_as_such_over_both_families() {
        for (from, to) in
            [("[::]:0", "127.0.0.1:0"), ("[::]:0", "[::1]:0"), ("127.0.0.1:0", "[::]:0")]
        {
            let (mut near, _) = Udp::bind(from.parse().unwrap()).unwrap();
            let (far, listening) = Udp::bind(to.parse().unwrap()).unwrap();
            let mut addr = listening.addr;
            if addr.ip().is_unspecified() {
                addr.set_ip(Ipv4Addr::LOCALHOST.into());
            }
            for ecn in [Ecn::Capable, Ecn::Incapable] {
                let transmit = Transmit { ecn, ..transmit(addr, None) };

                near.send(&transmit, b"message");

                assert_eq!(gather(&far, 1)[0].0.ecn, ecn, "{from} to {to}");
            }
        }
    }

    #[test]
    fn messages_that_find_the_buffer_full_are_counted() {
        let (mut near, _) = Udp::bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let (mut far, to) = Udp::bind("127.0.0.1:0".parse().unwrap()).unwrap();
        far.socket.set_recv_buffer_size(4096).unwrap();
        assert_eq!(far.overflowed(), 0);

        let mut sent = 0;
        while sent < 100 {
            // A message that nobody reads is done with as well.
            sent += u64::from(near.send(&transmit(to.addr, None), &[7; 1000]) == Sent::Bytes(1000));
        }
        let kept = gather(&far, 1).len() as u64;

        assert_eq!((far.overflowed(), far.overflowed()), (sent - kept, sent - kept));
    }

    #[test]
    fn long_train_takes_several_calls_and_loses_nothing() {
        let (mut near, _) = Udp::bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let (far, to) = Udp::bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let train = vec![7; 150 * 100 + 30];

        let mut at = 0;
        while at < train.len() {
            match near.send(&transmit(to.addr, Some(100)), &train[at..]) {
                Sent::Bytes(bytes) => at += bytes,
                other => panic!("{other:?}"),
            }
        }

        let got = gather(&far, 151);
        assert!(got[..150].iter().all(|(_, bytes)| bytes.len() == 100));
        assert_eq!(got[150].1.len(), 30);
    }

    #[test]
    fn source_address_that_is_not_ours_does_not_stop_a_message() {
        let (mut near, _) = Udp::bind("[::]:0".parse().unwrap()).unwrap();
        let (far, to) = Udp::bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let mut stale = transmit(to.addr, None);
        stale.local = Some("192.0.2.77".parse().unwrap());

        assert_eq!(near.send(&stale, b"hello"), Sent::Bytes(5));

        assert_eq!(gather(&far, 1)[0].1, b"hello");
    }

    #[test]
    fn unreachable_family_is_a_lost_message_and_no_more() {
        let (mut near, _) = Udp::bind("127.0.0.1:0".parse().unwrap()).unwrap();

        let sent = near.send(&transmit("[2001:db8::1]:7".parse().unwrap(), None), b"hello");

        assert_eq!(sent, Sent::Bytes(5));
        assert_eq!(near.refused(), 1);
    }

    #[test]
    fn message_beyond_the_mtu_is_too_big_alone_and_in_a_train() {
        in_namespace(|| async {
            let (connection, netlink, _) = rtnetlink::new_connection().unwrap();
            tokio::spawn(connection);
            let lo = LinkUnspec::new_with_name("lo").mtu(1300).up().build();
            netlink.link().set(lo).execute().await.unwrap();
            let (mut near, _) = Udp::bind("[::]:0".parse().unwrap()).unwrap();
            let (far, to) = Udp::bind("127.0.0.1:0".parse().unwrap()).unwrap();

            let alone = near.send(&transmit(to.addr, None), &[0; 1400]);
            let train = near.send(&transmit(to.addr, Some(1400)), &[0; 2900]);

            assert_eq!(alone, Sent::TooBig { len: 1400, bytes: 1400 });
            assert_eq!(train, Sent::TooBig { len: 1400, bytes: 2900 });
            assert_eq!(near.send(&transmit(to.addr, Some(1200)), &[0; 2400]), Sent::Bytes(2400));
            assert_eq!(gather(&far, 2).len(), 2);
            assert_eq!(near.refused(), 0);
        });
    }

    #[test]
    fn socket_that_is_full_blocks_until_there_is_room() {
        in_namespace(|| async {
            let (connection, netlink, _) = rtnetlink::new_connection().unwrap();
            tokio::spawn(connection);
            netlink.link().add(LinkVeth::new("near", "far").build()).execute().await.unwrap();
            for end in ["near", "far"] {
                let up = LinkUnspec::new_with_name(end).up().build();
                netlink.link().set(up).execute().await.unwrap();
            }
            let index = rustix::net::netdevice::name_to_index(
                rustix::net::socket(
                    rustix::net::AddressFamily::INET,
                    rustix::net::SocketType::DGRAM,
                    None,
                )
                .unwrap(),
                "near",
            )
            .unwrap();
            let address = netlink.address().add(index, "10.9.0.1".parse().unwrap(), 24);
            address.execute().await.unwrap();
            let (mut near, _) = Udp::bind("0.0.0.0:0".parse().unwrap()).unwrap();
            near.socket.set_send_buffer_size(1).unwrap();
            let mut send = || near.send(&transmit("10.9.0.9:9".parse().unwrap(), None), &[0; 1000]);

            // What waits until the neighbour is found fills the socket.
            let full = (0..100).find(|_| send() == Sent::Blocked);
            assert!(full.is_some_and(|sent| sent > 0), "{full:?}");
            assert_eq!(send(), Sent::Blocked);

            let neighbour = netlink.neighbours().add(index, "10.9.0.9".parse().unwrap());
            neighbour.link_layer_address(&[2, 0, 0, 0, 0, 9]).replace().execute().await.unwrap();
            let room = (0..100).find(|_| {
                std::thread::sleep(Duration::from_millis(10));
                send() == Sent::Bytes(1000)
            });
            assert!(room.is_some());
        });
    }

    #[test]
    fn empty_message_is_received_as_one() {
        let (mut near, _) = Udp::bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let (far, to) = Udp::bind("127.0.0.1:0".parse().unwrap()).unwrap();

        assert_eq!(near.send(&transmit(to.addr, None), b""), Sent::Bytes(0));

        assert_eq!(gather(&far, 1)[0].1, b"");
    }

    #[test]
    fn ipv6_reaches_ipv6() {
        let Ok((mut near, _)) = Udp::bind("[::1]:0".parse().unwrap()) else {
            println!("skipped: no IPv6 on this machine");
            return;
        };
        let (far, to) = Udp::bind("[::]:0".parse().unwrap()).unwrap();
        let remote = SocketAddr::new("::1".parse().unwrap(), to.addr.port());

        near.send(&transmit(remote, None), b"six");

        let got = gather(&far, 1);
        assert_eq!(got[0].1, b"six");
        assert_eq!(got[0].0.local, Some("::1".parse().unwrap()));
    }

    fn transmit(remote: SocketAddr, segment: Option<usize>) -> Transmit {
        Transmit {
            carrier: Carrier::Udp,
            peer: PublicKey::from_bytes([7; 32]),
            remote,
            local: None,
            ecn: Ecn::Incapable,
            segment,
            offload: true,
        }
    }

    /// Receives until `count` messages are there
    fn gather(udp: &Udp, count: usize) -> Vec<(Arrival, Vec<u8>)> {
        let mut slots = Slots::new();
        let mut got = Vec::new();
        while got.len() < count {
            let mut fds = [PollFd::new(udp, PollFlags::IN)];
            let limit = Timespec::try_from(Duration::from_secs(5)).unwrap();
            assert_eq!(poll(&mut fds, Some(&limit)).unwrap(), 1, "only {} arrived", got.len());
            let filled = udp.receive(&mut slots);
            for (meta, bytes) in slots.filled(filled) {
                messages(&meta, bytes, |bytes| got.push((arrival(&meta), bytes.to_vec())));
            }
        }
        got
    }
}
