//! What a real device does with packets and super-packets, whatever its kernel lacks.

use std::io::{Read, Write};
use std::net::{IpAddr, Shutdown, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::time::Duration;
use std::{panic, thread};

use fastvpn_proto::buffers::PacketBuffer;
use fastvpn_proto::crypto::PublicKey;
use fastvpn_proto::ip::checksum::{add, finish, pseudo};
use fastvpn_proto::ip::numbers::{TCP, UDP};
use fastvpn_proto::ip::{Body, Inner, Packet, SHARES_MAX, Share};
use fastvpn_proto::node::{Carrier, Contact, Ecn, Engine, Event as NodeEvent, TcpMode, Transmit};
use rtnetlink::LinkUnspec;
use rtnetlink::packet_route::address::AddressHeaderFlags;
use rustix::event::{PollFd, PollFlags, poll};
use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};
use rustix::time::Timespec;
use socket2::{Domain, SockRef, Type};

use super::*;
use crate::netns::in_namespace;
use crate::plane::DeviceNumber;
use crate::plane::tests::{known, start_with, wait_for};
use crate::plane::udp::{Sent, Udp};
use crate::plane::{PlaneCommand, PlaneEvent};

#[test]
fn names_that_the_kernel_would_refuse_or_change_are_refused_first() {
    for name in ["", ".", "..", "a/b", "a b", "fvpn-%d", "eth0:1", "sixteen-bytes-xx", "a\n"] {
        assert!(matches!(open(name), Err(TunError::Name(_))), "{name:?}");
    }
    assert!(valid("fvpn-home") && valid("fifteen-bytes-x"));
}

#[test]
fn queue_without_offload_gets_super_packets_as_the_packets_that_they_are() {
    let (far, near) = queue();
    let mut tun = Tun::new(near);
    let whole = super_packet(2500);
    let mut expected = Vec::new();
    Parcel::from(whole.clone()).each(&mut Vec::new(), |packet| expected.push(packet.to_vec()));
    let mut bytes = [0; 2000];

    for packet in [whole.clone().into(), in_pieces(&whole)] {
        assert!(tun.write(&packet).unwrap());

        for packet in &expected {
            let len = rustix::io::read(&far, &mut bytes).unwrap();
            assert_eq!(bytes[..len], packet[..]);
        }
        assert!(rustix::io::read(&far, &mut bytes).is_err(), "nothing follows");
    }
    rustix::io::write(&far, &whole.bytes[..1000]).unwrap();
    let mut buffer = PacketBuffer::for_mtu(600);
    assert_eq!(tun.read(&mut buffer).unwrap(), Some((1000, None)));
    assert!(*buffer == whole.bytes[..1000]);
}

#[test]
fn packet_in_as_many_pieces_as_there_can_be_arrives_whole() {
    let (far, near) = queue();
    let mut tun = Tun::new(near);
    let mut packet = super_packet(1400);
    packet.gso = None;
    packet.bytes[28..].copy_from_slice(&content(4, 1400));
    let parcel = in_pieces(&packet);
    assert_eq!(parcel.pieces().count(), PIECES_MAX);

    assert!(tun.write(&parcel).unwrap());

    let mut bytes = [0; 2000];
    let len = rustix::io::read(&far, &mut bytes).unwrap();
    assert!(bytes[..len] == packet.bytes, "{len} bytes, or others");
}

#[test]
fn kernel_that_cuts_no_datagrams_is_asked_rarely_and_one_that_refuses_some_as_before() {
    let mut uncut = Uncut::default();
    let mut asked = 0;
    for _ in 0..100_000 {
        asked += u32::from(uncut.asks());
        uncut.on_refused();
    }

    assert!((50..150).contains(&asked), "{asked}");
    let mut odd = Uncut::default();
    (1..UNCUT).for_each(|_| odd.on_refused());
    assert!(odd.asks());
}

#[test]
fn device_that_is_down_takes_nothing_and_is_not_lost_for_that() {
    in_namespace(|| async {
        for (number, (lacking, kernel)) in KERNELS.into_iter().enumerate() {
            let mut tun = Tun::on(open_on(&format!("fvpn-o{number}"), kernel).unwrap(), kernel);

            assert!(!tun.write(&super_packet(2500).into()).unwrap(), "{lacking}");
            assert_eq!(tun.read(&mut PacketBuffer::for_mtu(MTU)).unwrap(), None, "{lacking}");
        }
    });
}

#[test]
fn bytes_come_through_two_devices_right_whatever_either_kernel_lacks() {
    for (lacking, kernel) in KERNELS {
        let pairs = [(kernel, kernel), (kernel, Kernel::ABLE), (Kernel::ABLE, kernel)];
        let of_family = |pair| [(pair, V4), (pair, V6)];
        for ((near, far), family) in pairs.into_iter().flat_map(of_family) {
            let Some([mut near, mut far]) = sites((near, far), family) else { continue };
            let mut tuns = [Tun::on(near.queue, near.kernel), Tun::on(far.queue, far.kernel)];
            let stop = AtomicBool::new(false);

            let seen = thread::scope(|scope| {
                let shuttle = scope.spawn(|| shuttle(&mut tuns, &stop));
                let talk = panic::catch_unwind(panic::AssertUnwindSafe(|| {
                    near.speech.talk_with(&far.speech);
                    near.speech.say_trains_to(&far.speech);
                    far.speech.say_trains_to(&near.speech);
                }));
                stop.store(true, Ordering::Relaxed);
                let seen = shuttle.join().unwrap();
                talk.unwrap_or_else(|_| panic!("without {lacking}: {seen:?}"));
                seen
            });

            for (seen, tun) in seen.iter().zip(&tuns) {
                let has = |flags| tun.headers && tun.kernel.offload & flags == flags;
                assert_eq!(seen.streams > 0, has(libc::TUN_F_TSO4), "without {lacking}: {seen:?}");
                assert_eq!(seen.trains > 0, has(TUN_F_USO4), "without {lacking}: {seen:?}");
            }
            // Who was given trains and cannot cut them has refused them.
            for (other, tun) in seen.iter().rev().zip(&tuns) {
                let able = tun.kernel.offload & TUN_F_USO4 != 0;
                assert_eq!(
                    tun.uncut == Uncut::default(),
                    able || other.trains == 0 || !tun.headers,
                    "{lacking}"
                );
            }
        }
    }
}

#[test]
fn packet_of_any_length_is_read_whole_whatever_its_kernel_lacks() {
    for (family, headers) in [(V4, 28), (V6, 48)] {
        let [near_at, far_at]: [IpAddr; 2] = family.map(|address| address.parse().unwrap());
        if !has_family(near_at) {
            continue;
        }
        for (lacking, kernel) in KERNELS {
            // Its packets are as long as packets can be.
            let open = move || vec![open_on(DEVICE, kernel).unwrap()];
            let Some((mut queues, speech)) = inhabited(near_at, u16::MAX, open) else { return };
            let tun = Tun::on(queues.remove(0), kernel);
            for small in [0, MTU, 9000] {
                let mut buffer = PacketBuffer::for_mtu(small);
                let around = usize::from(small).max(100);
                for len in [around - 1, around, around + 1, 2 * around, 65_535] {
                    let said = content(5, len - headers);
                    buffer.put(&[0xee; 65_535]);

                    speech.datagrams.send_to(&said, (far_at, 9)).unwrap();
                    let gso = read_datagram(&tun, far_at, &mut buffer);

                    assert_eq!((buffer.len(), gso), (len, None), "without {lacking}");
                    let packet = Packet::parse(&buffer).unwrap();
                    assert!(packet.payload()[8..] == said, "{len} bytes without {lacking}");
                    let pseudo = pseudo(near_at, far_at, UDP, packet.payload().len());
                    assert_eq!(finish(add(pseudo, packet.payload())), 0, "without {lacking}");
                }
            }
        }
    }
}

/// Waits for the next datagram to an address
fn read_datagram(tun: &Tun, to: IpAddr, buffer: &mut PacketBuffer) -> Option<Gso> {
    loop {
        let limit = Timespec::try_from(PATIENCE).unwrap();
        let mut fds = [PollFd::new(tun, PollFlags::IN)];
        assert_eq!(poll(&mut fds, Some(&limit)).unwrap(), 1, "nothing came");
        let Some((_, gso)) = tun.read(buffer).unwrap() else { continue };
        let packet = Packet::parse(buffer).unwrap();
        // The kernel has things of its own to say.
        if packet.dst() == to && packet.protocol() == UDP {
            return gso;
        }
    }
}

#[test]
fn bytes_come_through_two_planes_right_whatever_a_device_lacks() {
    for (lacking, kernel) in KERNELS {
        for mode in [TcpMode::Plain, TcpMode::Split] {
            let Some([near, far]) = sites((kernel, Kernel::ABLE), V4) else { return };
            let between = [near.queue, far.queue].map(|queue| vec![queue]);
            println!("without {lacking}, {}", mode.as_str());
            talk_through_planes(between, &[near.speech, far.speech], mode);
        }
    }
}

#[test]
fn bytes_come_through_two_planes_of_several_threads_right() {
    for (near_count, far_count) in [(2, 2), (3, 1)] {
        for mode in [TcpMode::Plain, TcpMode::Split] {
            let [near_at, far_at] = V4.map(|address| address.parse().unwrap());
            let made = [made(near_at, near_count), made(far_at, far_count)];
            let [Some(near), Some(far)] = made else { return };
            println!("{near_count} and {far_count} threads, {}", mode.as_str());
            talk_through_planes([near.0, far.0], &[near.1, far.1], mode);
        }
    }
}

/// Has two kernels talk through planes, each with a thread for each queue of its device
fn talk_through_planes(queues: [Vec<OwnedFd>; 2], speech: &[Speech; 2], mode: TcpMode) {
    let mut key = 0;
    let mut planes = queues.map(|queues| {
        key += 1;
        let engine = Engine { tcp: mode, ..Engine::default() };
        let started = start_with(key, engine, queues.len());
        started.0.send(PlaneCommand::Tun { device: DeviceNumber(1), queues, mtu: MTU });
        started
    });
    let [(near_plane, .., near_at), (far_plane, .., far_at)] = &planes;
    let near_known = known(near_plane, near_at.addr, V4[0], Contact::OnDemand);
    far_plane.send(PlaneCommand::Node(near_known));
    let far_known = known(far_plane, far_at.addr, V4[1], Contact::Always);
    near_plane.send(PlaneCommand::Node(far_known));
    for (_, events, _) in &mut planes {
        let up =
            |event: &PlaneEvent| matches!(event, PlaneEvent::Node(NodeEvent::SessionUp { .. }));
        assert!(wait_for(events, up).is_some());
    }
    speech[0].talk_with(&speech[1]);
}

/// A kernel of its own, as far as the network is concerned, behind a device
struct Site {
    queue: OwnedFd,
    kernel: Kernel,
    speech: Speech,
}

/// What programs say there
struct Speech {
    listener: TcpListener,
    /// Not connected yet
    client: socket2::Socket,
    /// For trains, which that kernel leaves to its device to cut where it may
    trains: Udp,
    datagrams: UdpSocket,
}

/// Makes two of them; nothing where there can be none
fn sites((near, far): (Kernel, Kernel), family: [&str; 2]) -> Option<[Site; 2]> {
    let [near_at, far_at]: [IpAddr; 2] = family.map(|address| address.parse().unwrap());
    has_family(near_at).then_some(())?;
    Some([site(near_at, near)?, site(far_at, far)?])
}

/// Tells whether this machine knows addresses of a kind
fn has_family(address: IpAddr) -> bool {
    let has = address.is_ipv4() || Path::new("/proc/net/if_inet6").exists();
    if !has {
        println!("skipped: no IPv6 on this machine");
    }
    has
}

fn site(address: IpAddr, kernel: Kernel) -> Option<Site> {
    let open = move || vec![open_on(DEVICE, kernel).unwrap()];
    let (mut queues, speech) = inhabited(address, MTU, open)?;
    Some(Site { queue: queues.pop()?, kernel, speech })
}

/// Makes such a kernel with so many queues of its device
fn made(address: IpAddr, count: usize) -> Option<(Vec<OwnedFd>, Speech)> {
    inhabited(address, MTU, move || open_queues(DEVICE, count).unwrap())
}

fn inhabited(
    address: IpAddr,
    mtu: u16,
    open: impl FnOnce() -> Vec<OwnedFd> + Send + 'static,
) -> Option<(Vec<OwnedFd>, Speech)> {
    let (sender, made) = mpsc::channel();
    // Descriptors stay in the namespace that they were made in, and keep it.
    in_namespace(move || async move {
        let queues = open();
        let (connection, netlink, _) = rtnetlink::new_connection().unwrap();
        tokio::spawn(connection);
        let up = LinkUnspec::new_with_name(DEVICE).mtu(mtu.into()).up().build();
        netlink.link().set(up).execute().await.unwrap();
        let listing = rustix::net::socket(AddressFamily::INET, SocketType::DGRAM, None).unwrap();
        let index = rustix::net::netdevice::name_to_index(listing, DEVICE).unwrap();
        let prefix = if address.is_ipv4() { 24 } else { 64 };
        let mut request = netlink.address().add(index, address, prefix);
        // Nobody else can have it; without a doubt it can be used at once.
        request.message_mut().header.flags |= AddressHeaderFlags::Nodad;
        request.execute().await.unwrap();
        let any = SocketAddr::new(address, 0);
        let speech = Speech {
            listener: TcpListener::bind(any).unwrap(),
            client: socket2::Socket::new(Domain::for_address(any), Type::STREAM, None).unwrap(),
            trains: Udp::bind(any).unwrap().0,
            datagrams: UdpSocket::bind(any).unwrap(),
        };
        speech.datagrams.set_read_timeout(Some(PATIENCE)).unwrap();
        // Whoever connects may believe that it did before the listener has heard of it.
        SockRef::from(&speech.listener).set_read_timeout(Some(PATIENCE)).unwrap();
        sender.send((queues, speech)).unwrap();
    });
    made.recv().ok()
}

impl Speech {
    /// Both say something, and hear what the other one says, at the same time
    fn talk_with(&self, other: &Self) {
        let to = other.listener.local_addr().unwrap();
        // Kernels connect by themselves: who cannot fails here, and nobody waits for ever.
        self.client.connect_timeout(&to.into(), PATIENCE).unwrap();
        let (stream, _) = other.listener.accept().unwrap();
        thread::scope(|scope| {
            scope.spawn(|| exchange(&stream, 2, 1));
            exchange(&self.client.try_clone().unwrap().into(), 1, 2);
        });
    }

    /// Says what its kernel or device cuts into datagrams
    fn say_trains_to(&mut self, other: &Self) {
        let said = content(3, 2500);
        let transmit = Transmit {
            carrier: Carrier::Udp,
            peer: PublicKey::from_bytes([7; 32]),
            remote: other.datagrams.local_addr().unwrap(),
            local: None,
            ecn: Ecn::Incapable,
            segment: Some(1000),
            offload: true,
        };
        for _ in 0..3 {
            assert_eq!(self.trains.send(&transmit, &said), Sent::Bytes(said.len()));
            for datagram in said.chunks(1000) {
                let mut heard = [0; 2000];
                let len = other.datagrams.recv(&mut heard).unwrap();
                assert!(heard[..len] == *datagram, "{len} bytes, and not what was said");
            }
        }
    }
}

/// Writes a stream and reads another one, and looks at each byte
///
/// What a device spoils is repeated by kernels until it has come little by little, which may take for
/// ever: the limit is on all of it.
fn exchange(stream: &TcpStream, own: u32, other: u32) {
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.set_write_timeout(Some(PATIENCE)).unwrap();
    let mut heard = Vec::new();
    let (writing, ended) = mpsc::channel::<()>();
    let reading = writing.clone();
    thread::scope(|scope| {
        scope.spawn(move || {
            if ended.recv_timeout(LIMIT) == Err(RecvTimeoutError::Timeout) {
                stream.shutdown(Shutdown::Both).unwrap();
            }
        });
        scope.spawn(move || {
            let written = (&*stream).write_all(&content(own, STREAM));
            drop(writing);
            written.unwrap();
            stream.shutdown(Shutdown::Write).unwrap();
        });
        let read = (&*stream).read_to_end(&mut heard);
        drop(reading);
        read.unwrap();
    });
    assert!(heard == content(other, STREAM), "{} bytes, and not what was said", heard.len());
}

/// Bytes that repeat nowhere
fn content(seed: u32, len: usize) -> Vec<u8> {
    let word = |at: u32| (at ^ seed << 28).wrapping_mul(0x9e37_79b9).to_ne_bytes();
    (0..).flat_map(word).take(len).collect()
}

/// Super-packets that a device has handed over, and packets
#[derive(Clone, Copy, Debug, Default)]
struct Seen {
    streams: usize,
    trains: usize,
    packets: usize,
}

/// Writes to each device what the other one hands over, until told to stop
fn shuttle(tuns: &mut [Tun; 2], stop: &AtomicBool) -> [Seen; 2] {
    let (mut seen, mut buffer) = ([Seen::default(); 2], PacketBuffer::for_mtu(MTU));
    while !stop.load(Ordering::Relaxed) {
        let mut fds = tuns.each_ref().map(|tun| PollFd::new(tun, PollFlags::IN));
        let limit = Timespec::try_from(Duration::from_millis(10)).unwrap();
        poll(&mut fds, Some(&limit)).unwrap();
        for from in [0, 1] {
            while let Some((len, gso)) = tuns[from].read(&mut buffer).unwrap() {
                assert_eq!(buffer.len(), len);
                let inner = Inner { bytes: buffer.to_vec(), gso };
                let protocol = inner.bytes[if inner.bytes[0] >> 4 == 4 { 9 } else { 6 }];
                match (gso, protocol) {
                    (None, _) => seen[from].packets += 1,
                    (Some(_), TCP) => seen[from].streams += 1,
                    (Some(_), _) => seen[from].trains += 1,
                }
                tuns[1 - from].write(&in_pieces(&inner)).unwrap();
            }
        }
    }
    seen
}

/// Kernels of which each has a little less than the one before, and what that is
const KERNELS: [(&str, Kernel); 5] = [
    ("nothing", Kernel::ABLE),
    ("USO", Kernel { offload: OFFERS[1], ..Kernel::ABLE }),
    ("TSO", Kernel { offload: OFFERS[2], ..Kernel::ABLE }),
    ("checksums", Kernel { offload: OFFERS[3], ..Kernel::ABLE }),
    ("headers", Kernel { headers: false, offload: OFFERS[3] }),
];
/// Addresses of two sites
const V4: [&str; 2] = ["10.9.0.1", "10.9.0.2"];
const V6: [&str; 2] = ["fd09::1", "fd09::2"];
/// Name of the one device in a namespace
const DEVICE: &str = "fvpn-site";
const MTU: u16 = 1400;
/// Bytes that are said in each direction
const STREAM: usize = 2_000_000;
/// Time after which nothing will come any more
const PATIENCE: Duration = Duration::from_secs(20);
/// Time in which all of a stream has come; a tenth of a second is enough, where nobody else wants the machine
const LIMIT: Duration = Duration::from_secs(60);

/// Makes a super-packet of UDP with so much payload, to be cut at 1000 bytes
fn super_packet(len: u16) -> Inner {
    let mut bytes = vec![7; 28 + usize::from(len)];
    bytes[..12].copy_from_slice(&[0x45, 0, 0, 0, 0, 1, 0x40, 0, 64, UDP, 0, 0]);
    bytes[2..4].copy_from_slice(&(28 + len).to_be_bytes());
    bytes[12..20].copy_from_slice(&[10, 0, 0, 1, 10, 0, 0, 2]);
    bytes[24..26].copy_from_slice(&(8 + len).to_be_bytes());
    Inner { bytes, gso: Some(Gso { size: 1000, transport: 20 }) }
}

/// Makes a parcel of a packet whose payload lies here and there, like that of a split connection
fn in_pieces(packet: &Inner) -> Parcel {
    let (head, rest) = packet.bytes.split_at(packet.bytes.len().min(HEADERS_MAX));
    let mut body = Body::default();
    for part in rest.chunks(rest.len().div_ceil(SHARES_MAX).max(1)) {
        let piece = Arc::from([&[0xee; 5], part, &[0xee; 9]].concat());
        assert!(body.push(Share::new(&piece, 5..5 + part.len()).unwrap()));
    }
    Parcel::new(Inner { bytes: head.to_vec(), gso: packet.gso }, body)
}

/// Bytes that all headers have at most
const HEADERS_MAX: usize = 100;

/// Makes something that behaves like a plain TUN queue, and its other end
fn queue() -> (OwnedFd, OwnedFd) {
    let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
    socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None).unwrap()
}

#[test]
fn each_refusal_of_the_system_says_what_to_do() {
    let said = |errno: Errno| explain("fvpn-x", errno.into()).to_string();

    assert!(said(Errno::NOENT).contains("modprobe tun"));
    assert!(said(Errno::PERM).contains("CAP_NET_ADMIN"));
    assert!(said(Errno::BUSY).contains("fvpn-x is in use"));
    assert!(said(Errno::INVAL).contains("another kind"));
    assert!(said(Errno::MFILE).contains("fvpn-x"));
}
