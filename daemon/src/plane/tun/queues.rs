//! Devices with several queues, one for each thread.
//!
//! The `tun` crate makes devices with one queue only, so that the request for each is made here.

use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};

use rustix::fs::{Mode, OFlags};
use tracing::trace;

use super::{Kernel, QUEUES, TunError, describe, explain, offer, open, request, valid};

/// Makes the TUN device `interface` with so many queues and returns them as [`open`] does
///
/// The kernel hands out packets by flow, and those of a flow to the queue to which its answers were written.
/// The device is gone when all descriptors are closed.
///
/// # Errors
/// If the device cannot be made; the error says what to do.
pub fn open_queues(interface: &str, count: usize) -> Result<Vec<OwnedFd>, TunError> {
    if count < 2 {
        return Ok(vec![one_of(interface)?]);
    }
    if !valid(interface) {
        return Err(TunError::Name(interface.to_owned()));
    }
    let first = match make(interface, NEW | FLAGS) {
        // There is one already. If it has one queue for whoever comes, that is it.
        Err(TunError::Busy(_)) => return one_of(interface).map(|queue| vec![queue]),
        first => first?,
    };
    offer(&first, Kernel::ABLE);
    let mut queues = vec![first];
    queues.extend(more_queues(&queues[0], interface, count - 1)?);
    Ok(queues)
}

/// Makes so many queues more for the device of a queue; none where the device can have one only
///
/// # Errors
/// If they cannot be made; the error says what to do.
pub fn more_queues(
    queue: &OwnedFd,
    interface: &str,
    count: usize,
) -> Result<Vec<OwnedFd>, TunError> {
    match describe(queue) {
        Some((_, flags)) if flags & QUEUES != 0 => {
            (0..count).map(|_| make(interface, flags & FLAGS)).collect()
        }
        _ => Ok(Vec::new()),
    }
}

/// Makes a device with one queue, or opens the one that is there already
fn one_of(interface: &str) -> Result<OwnedFd, TunError> {
    match open(interface) {
        // Who may have one more queue of it has none of his own.
        Err(TunError::Foreign(_)) if make(interface, FLAGS).is_ok() => {
            Err(TunError::Busy(interface.to_owned()))
        }
        opened => opened,
    }
}

/// Makes one more queue of a device, or the device with its first one
#[allow(unsafe_code)]
fn make(interface: &str, flags: libc::c_short) -> Result<OwnedFd, TunError> {
    let mode = OFlags::RDWR | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let queue = rustix::fs::open("/dev/net/tun", mode, Mode::empty())
        .map_err(|error| explain(interface, error.into()))?;
    let mut request = request();
    for (place, byte) in request.ifr_name.iter_mut().zip(interface.bytes()) {
        *place = byte as libc::c_char;
    }
    request.ifr_ifru.ifru_flags = flags;
    // SAFETY: the descriptor is open, and TUNSETIFF reads and fills in one `ifreq`; its name ends with a zero, as
    // those that are `valid` are shorter than the field.
    let result = unsafe { libc::ioctl(queue.as_raw_fd(), libc::TUNSETIFF, &raw mut request) };
    if result < 0 {
        return Err(explain(interface, io::Error::last_os_error()));
    }
    Ok(queue)
}

/// Has the kernel hand packets to a queue, or to the others of its device alone; does nothing where it does so already,
/// or there can be no others
///
/// What waits in a queue that gets no more is lost.
#[allow(unsafe_code)]
pub(super) fn attach(queue: impl AsFd, attached: bool) {
    let mut request = request();
    let flag = if attached { libc::IFF_ATTACH_QUEUE } else { libc::IFF_DETACH_QUEUE };
    request.ifr_ifru.ifru_flags = flag.try_into().unwrap_or_default();
    let fd = queue.as_fd().as_raw_fd();
    // SAFETY: the descriptor is open, and TUNSETQUEUE reads one `ifreq`.
    let result = unsafe { libc::ioctl(fd, libc::TUNSETQUEUE, &raw mut request) };
    if result < 0 {
        let error = io::Error::last_os_error();
        trace!(%error, attached, "queue stays as it is");
    }
}

/// A device that may have several queues, with headers
const FLAGS: libc::c_short =
    (libc::IFF_TUN | libc::IFF_NO_PI | libc::IFF_VNET_HDR) as libc::c_short | QUEUES;
/// There must be no such device yet
const NEW: libc::c_short = libc::IFF_TUN_EXCL as libc::c_short;

#[cfg(test)]
mod tests {
    use std::net::UdpSocket;
    use std::time::Duration;

    use fastvpn_proto::node::{Command, Contact, Engine, shard_of};
    use rtnetlink::LinkUnspec;
    use rustix::net::{AddressFamily, SocketType, netdevice};

    use super::*;
    use crate::netns::in_namespace;
    use crate::plane::tests::{known, start_with, tun};
    use crate::plane::tun::DETACHED;
    use crate::plane::tun::adopt;
    use crate::plane::{PlaneCommand, PlaneEvent};

    const NAME: &str = "fvpn-queues";

    #[test]
    fn packets_go_to_the_queues_that_are_attached() {
        in_namespace(|| async {
            let queues = open_queues(NAME, 3).unwrap();
            bring_up().await;
            let sockets: Vec<_> = (0..60).map(|_| UdpSocket::bind("10.9.0.1:0").unwrap()).collect();
            let seen_by = |attached: [bool; 3]| {
                queues.iter().zip(attached).for_each(|(queue, attached)| attach(queue, attached));
                let _before: usize = queues.iter().map(drained).sum();
                sockets.iter().for_each(|socket| drop(socket.send_to(b"x", "10.9.0.2:9")));
                [0, 1, 2].map(|at: usize| drained(&queues[at]))
            };

            assert!(seen_by([true; 3]).into_iter().all(|seen| seen > 0));
            assert_eq!(seen_by([false, true, false]), [0, 60, 0]);
            assert_eq!(seen_by([true, false, false]), [60, 0, 0]);
            assert!(seen_by([true; 3]).into_iter().all(|seen| seen > 0));
        });
    }

    #[test]
    fn device_is_in_use_while_somebody_has_a_queue_whoever_asks_for_how_many() {
        in_namespace(|| async {
            for (ours, theirs) in [(1, 1), (1, 3), (3, 1), (3, 3)] {
                let queues = open_queues(NAME, ours).unwrap();
                let error = open_queues(NAME, theirs).unwrap_err();
                assert!(matches!(error, TunError::Busy(_)), "{ours}, {theirs}: {error}");
                drop(queues);
            }
        });
    }

    #[test]
    fn kept_queue_is_attached_again_and_gets_as_many_beside_it_as_its_device_can_have() {
        in_namespace(|| async {
            let mut queues = open_queues(NAME, 2).unwrap();
            attach(&queues[0], false);
            let kept = adopt(queues.remove(0), NAME).unwrap();
            drop(queues);
            bring_up().await;
            let socket = UdpSocket::bind("10.9.0.1:0").unwrap();
            socket.send_to(b"x", "10.9.0.2:9").unwrap();
            assert!(drained(&kept) > 0);

            assert_eq!(more_queues(&kept, NAME, 3).unwrap().len(), 3);
            drop(kept);
            let alone = open(NAME).unwrap();
            assert_eq!(more_queues(&alone, NAME, 3).unwrap().len(), 0);
        });
    }

    #[test]
    fn what_waits_in_the_kept_queue_is_carried_by_whoever_has_the_peer() {
        in_namespace(|| async {
            let queues = open_queues(NAME, 2).unwrap();
            attach(&queues[1], false);
            bring_up().await;
            let socket = UdpSocket::bind("10.9.0.1:0").unwrap();
            (0..60).for_each(|_| drop(socket.send_to(b"x", "10.9.0.2:9")));

            let (handle, mut events, _) = start_with(1, Engine::default(), 2);
            let [first, second] = [2, 3].map(|key| start_with(key, Engine::default(), 1));
            let peer = [&first, &second].map(|peer| (peer.0.public_key(), &peer.0, peer.2.addr));
            let (key, peer, at) = peer.iter().find(|(key, ..)| shard_of(key, 2) == 1).unwrap();
            let known = || PlaneCommand::Node(known(peer, *at, "10.9.0.2", Contact::OnDemand));
            let first = queues[0].try_clone().unwrap();
            handle.send(known());
            handle.send(tun(1, queues));

            let mut carried = 0;
            for _ in 0..5 {
                for event in events.recv().await.unwrap() {
                    if let PlaneEvent::Stats { node, .. } = event {
                        carried = node.packets_sent.packets;
                    }
                }
                if carried >= 60 {
                    break;
                }
            }
            assert!(carried >= 60, "{carried}");
            assert!(becomes(&first, false), "the first thread has no peers");

            handle.send(PlaneCommand::Node(Command::RemovePeer(*key)));
            assert!(becomes(&first, true), "somebody has to have it");
            handle.send(known());
            assert!(becomes(&first, false));
            handle.send(PlaneCommand::Stop { drain: Duration::ZERO });
            while events.recv().await.is_some() {}
            assert!(becomes(&first, true), "packets wait for the next daemon");
        });
    }

    /// Tells whether a queue is attached soon, or is not
    fn becomes(queue: &OwnedFd, attached: bool) -> bool {
        let is = || describe(queue).is_some_and(|(_, flags)| flags & DETACHED == 0);
        (0..300).any(|_| {
            let done = is() == attached;
            if !done {
                std::thread::sleep(Duration::from_millis(10));
            }
            done
        })
    }

    async fn bring_up() {
        let (connection, netlink, _) = rtnetlink::new_connection().unwrap();
        tokio::spawn(connection);
        for name in [NAME, "lo"] {
            let up = LinkUnspec::new_with_name(name).up().build();
            netlink.link().set(up).execute().await.unwrap();
        }
        let socket = rustix::net::socket(AddressFamily::INET, SocketType::DGRAM, None).unwrap();
        let index = netdevice::name_to_index(socket, NAME).unwrap();
        let address = "10.9.0.1".parse().unwrap();
        netlink.address().add(index, address, 24).execute().await.unwrap();
    }

    /// Reads what waits in a queue; returns how many packets of IPv4 that was
    fn drained(queue: &OwnedFd) -> usize {
        let mut bytes = [0; 2000];
        let packets =
            std::iter::from_fn(|| rustix::io::read(queue, &mut bytes).ok().map(|_| bytes));
        // Each has a header before it, of 10 bytes.
        packets.filter(|packet| packet[10] >> 4 == 4).count()
    }
}
