//! The data threads of a network: each has a shard of the node, a UDP socket and a TUN queue; the first one also has
//! the connections of stream carriers.
//!
//! A [`Plane`] owns its threads. The control side holds a [`PlaneHandle`]: commands go through
//! bounded queues with wake-up descriptors, events come back in batches. The threads never wait for
//! the control side, nor for each other.
//!
//! Nothing here decides anything: what arrives goes to the node, what the node has goes out.

mod buffers;
mod carrier;
pub mod clock;
mod inbox;
mod outlet;
#[cfg(test)]
mod several;
mod steering;
mod threads;
pub mod tun;
mod turn;
mod udp;
mod unread;
mod vigil;
mod vnet;
mod watch;

use std::any::Any;
use std::io;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use fastvpn_proto::crypto::PublicKey;
use fastvpn_proto::node::{
    BootId, Choice, Command as NodeCommand, Event as NodeEvent, Node, NodeConfig, NodeStats,
};
use tokio::sync::mpsc;
use tracing::{Span, debug, error, info_span};

use carrier::Carriers;
pub use carrier::Streams;
use threads::{Step, Threads};
use turn::{Place, Turn};
use udp::Udp;

/// What the control side asks of a plane
#[derive(Debug)]
pub enum PlaneCommand {
    /// Accept connections of these carriers, and no others
    Accept(Choice),
    /// For the node
    Node(NodeCommand),
    /// Serve this TUN from now on; replaces the one before
    Tun {
        /// Its number: greater than that of any before
        device: DeviceNumber,
        /// Non-blocking descriptors of the device's queues: one for each thread, or one for all
        queues: Vec<OwnedFd>,
        /// Its MTU, in bytes
        mtu: u16,
    },
    /// Stop serving the TUN: its descriptors are closed
    CloseTun,
    /// Whether packets of the TUN are carried; `false` reads and drops them (the hub is lost)
    Carry(bool),
    /// Send a [`PlaneEvent::Stats`] soon
    Stats,
    /// Say goodbye to all peers and end the threads
    Stop {
        /// How long to wait until nothing is left here of split connections, for a process that will
        /// be back; at once where nothing is
        drain: Duration,
    },
}

/// What a plane tells the control side
#[derive(Debug)]
pub enum PlaneEvent {
    /// From the node
    Node(NodeEvent),
    /// All numbers, once a second and when asked for
    Stats {
        /// Those of the node
        node: Box<NodeStats>,
        /// Messages that the system dropped before they were read
        overflowed: u64,
    },
    /// A TUN device is gone or broken; told once of each
    TunLost {
        /// Which one: another one may be served by now
        device: DeviceNumber,
        /// What the system says
        error: io::Error,
    },
    /// The threads ended; with an error unless they were told to stop
    Ended(Option<io::Error>),
}

/// Which of the TUN devices that a network has, one after the other; the first has 1
#[derive(Clone, Copy, Debug, Default, Eq, Ord, PartialEq, PartialOrd)]
pub struct DeviceNumber(pub u64);

impl DeviceNumber {
    /// Returns the number of the device that follows this one
    #[must_use]
    pub fn next(self) -> Self {
        Self(self.0 + 1)
    }
}

/// Where a plane listens
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Listening {
    /// The socket's address, with the port it got
    pub addr: SocketAddr,
    /// Whether IPv6 was asked for, but this machine has none
    pub fell_back: bool,
    /// Room that the system has granted
    pub buffers: Buffers,
}

/// Room in the system for messages that wait on a socket, in bytes
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Buffers {
    /// For those that arrived
    pub receive: u64,
    /// For those that are to leave
    pub send: u64,
}

/// The data threads of one network
#[derive(Debug)]
pub struct Plane;

/// The control side's end of a plane; the plane stops when it is dropped
#[derive(Debug)]
pub struct PlaneHandle {
    threads: Arc<Threads>,
    public_key: PublicKey,
    boot_id: BootId,
}

impl Plane {
    /// Binds to `listen` and starts `count` threads for network `name`, or one where the kernel cannot hand messages
    /// out to several
    ///
    /// Without `streams` messages travel over UDP alone.
    ///
    /// Events come in batches through the channel. The last one is [`PlaneEvent::Ended`]; sockets and
    /// TUN are closed by then.
    ///
    /// # Errors
    /// If the socket cannot be bound (the port is busy, …), or the system has no descriptors or
    /// threads left.
    pub fn start(
        name: &str,
        node: &NodeConfig,
        listen: SocketAddr,
        streams: Option<&Streams>,
        count: usize,
    ) -> io::Result<(PlaneHandle, mpsc::Receiver<Vec<PlaneEvent>>, Listening)> {
        let span = info_span!("plane", network = name);
        let (sockets, listening) = span.in_scope(|| bind(listen, count))?;
        let now = clock::now();
        let shards = Node::shards(node, sockets.len(), now);
        let threads = Arc::new(Threads::new(shards.len(), now)?);
        let first = &shards[0];
        debug!(parent: &span, threads = shards.len(), addr = %listening.addr, "data threads");
        let (public_key, boot_id) = (first.public_key(), first.boot_id());
        let handle = PlaneHandle { threads: Arc::clone(&threads), public_key, boot_id };
        let (sender, events) = mpsc::channel(BATCHES);
        for (at, (shard, socket)) in shards.into_iter().zip(sockets).enumerate() {
            // All connections are with the first one.
            let streams = streams.filter(|_| at == 0);
            let carriers = span.in_scope(|| Carriers::new(streams, listening.addr))?;
            let place = Place { at, threads: Arc::clone(&threads) };
            let turn = Turn::new(shard, (socket, carriers), place, sender.clone(), now)?;
            spawn(name, at, &span, turn, sender.clone())?;
        }
        Ok((handle, events, listening))
    }
}

/// Binds to `listen` with a socket for each of `count` threads, or with one
fn bind(listen: SocketAddr, count: usize) -> io::Result<(Vec<Udp>, Listening)> {
    let (first, listening) = Udp::bind(listen)?;
    let mut sockets = vec![first];
    if count > 1 {
        match sockets[0].siblings(count - 1) {
            Ok(siblings) => sockets.extend(siblings),
            Err(error) => {
                debug!(%error, "one thread only: the kernel hands nothing out to several")
            }
        }
    }
    Ok((sockets, listening))
}

fn spawn(
    name: &str,
    at: usize,
    span: &Span,
    turn: Turn,
    events: mpsc::Sender<Vec<PlaneEvent>>,
) -> io::Result<()> {
    let span = span.clone();
    let live = move || span.in_scope(|| live(turn, &events));
    thread::Builder::new().name(thread_name(name, at)).spawn(live).map(drop)
}

impl PlaneHandle {
    /// Gives a command to the threads; does nothing once they have ended
    ///
    /// Waits only when thousands of commands are in a queue, and then for a tenth of a second at
    /// most.
    pub fn send(&self, command: PlaneCommand) {
        self.threads.send(command);
    }

    /// Returns how many threads there are, and with that how many queues of a TUN they can serve
    pub fn threads(&self) -> usize {
        self.threads.count()
    }

    /// Tells whether each thread made a turn during the last `within`
    ///
    /// It makes one each second at least. Time that the machine slept counts, so that the answer may
    /// be wrong for an instant after it woke.
    pub fn healthy(&self, within: Duration) -> bool {
        self.threads.beat_after(clock::now() - within)
    }

    /// Returns the node's public key
    pub fn public_key(&self) -> PublicKey {
        self.public_key
    }

    /// Returns the node's boot id
    pub fn boot_id(&self) -> BootId {
        self.boot_id
    }
}

impl Drop for PlaneHandle {
    fn drop(&mut self) {
        self.threads.close();
    }
}

/// Returns the processor time that threads of this name have used
#[cfg(test)]
pub(crate) fn spent_by(thread: &str) -> Duration {
    let tasks = std::fs::read_dir("/proc/self/task").unwrap().flatten();
    let spent = tasks.filter_map(|task| {
        let read = |file: &str| std::fs::read_to_string(task.path().join(file)).ok();
        let named = read("comm")?.trim() == thread;
        let nanos = read("schedstat")?.split(' ').next()?.parse().ok()?;
        named.then(|| Duration::from_nanos(nanos))
    });
    spent.sum()
}

/// What a thread does
fn live(mut turn: Turn, events: &mpsc::Sender<Vec<PlaneEvent>>) {
    let result = catch_unwind(AssertUnwindSafe(|| turn.run()))
        .unwrap_or_else(|panic| Err(io::Error::other(words_of(&*panic))));
    let (last, Place { at, threads }) = turn.end();
    if let Err(error) = result {
        error!(%error, "a data thread ends");
        threads.fail(error);
        for step in [Step::Relayed, Step::All] {
            threads.part(step, at);
        }
    }
    // What one has, the others cannot do without.
    threads.close();
    // Only here threads wait for the control side. If that is gone, nobody wants to know.
    let _ = events.blocking_send(last);
    if let Some(reason) = threads.leave(at) {
        let _ = events.blocking_send(vec![PlaneEvent::Ended(reason)]);
    }
}

fn words_of(panic: &(dyn Any + Send)) -> String {
    let words = panic
        .downcast_ref::<&str>()
        .copied()
        .or_else(|| panic.downcast_ref::<String>().map(String::as_str));
    format!("panic in the data thread: {}", words.unwrap_or("no words"))
}

/// Makes a thread's name: the kernel keeps 15 bytes of it
fn thread_name(network: &str, at: usize) -> String {
    let number = if at == 0 { String::new() } else { at.to_string() };
    format!("plane{number}-{network}").chars().filter(char::is_ascii_graphic).take(15).collect()
}

/// Batches of events that may wait for the control side; what is more is merged into the next
const BATCHES: usize = 64;

#[cfg(test)]
mod tests {
    use std::io::ErrorKind;

    use fastvpn_proto::crypto::{NetworkKey, PrivateKey};
    use fastvpn_proto::node::{Admission, Contact, Engine, PeerConfig};
    use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};

    use super::*;

    #[test]
    fn plane_tells_numbers_by_itself_and_is_healthy() {
        let (handle, mut events, _) = start("home");

        let told = wait_for(&mut events, |event| matches!(event, PlaneEvent::Stats { .. }));

        assert!(told.is_some());
        assert!(handle.healthy(Duration::from_secs(2)));
    }

    #[test]
    fn told_to_stop_the_thread_ends_without_error_and_frees_its_port() {
        let (handle, mut events, listening) = start("home");

        handle.send(PlaneCommand::Stop { drain: Duration::ZERO });

        let end = wait_for(&mut events, |event| matches!(event, PlaneEvent::Ended(_)));
        assert!(matches!(end, Some(PlaneEvent::Ended(None))), "{end:?}");
        assert!(events.blocking_recv().is_none(), "nothing follows the end");
        assert!(!handle.healthy(Duration::from_secs(3600)));
        handle.send(PlaneCommand::Stats);
        Plane::start("home", &config(), listening.addr, None, 1).unwrap();
    }

    #[test]
    fn plane_stops_when_its_handle_is_dropped() {
        let (handle, mut events, _) = start("home");

        drop(handle);

        let end = wait_for(&mut events, |event| matches!(event, PlaneEvent::Ended(_)));
        assert!(matches!(end, Some(PlaneEvent::Ended(None))), "{end:?}");
    }

    #[test]
    fn plane_stops_when_nobody_listens_to_it() {
        let (handle, events, listening) = start("home");

        drop(events);

        for _ in 0..50 {
            handle.send(PlaneCommand::Stats);
            thread::sleep(Duration::from_millis(20));
            if Plane::start("home", &config(), listening.addr, None, 1).is_ok() {
                return;
            }
        }
        panic!("the port is still in use");
    }

    #[test]
    fn busy_port_shows_at_once() {
        let (_handle, _events, listening) = start("home");

        let error = Plane::start("work", &config(), listening.addr, None, 1).unwrap_err();

        assert_eq!(error.kind(), ErrorKind::AddrInUse);
    }

    #[test]
    fn packets_that_are_not_carried_are_read_and_counted() {
        let (handle, mut events, _) = start("home");
        let (far, near) = queue();
        handle.send(PlaneCommand::Carry(false));
        handle.send(tun(1, vec![near]));

        for _ in 0..300 {
            while rustix::io::write(&far, &[0x45; 100]).is_err() {
                thread::sleep(Duration::from_millis(1));
            }
        }

        let dropped = (0..500).find_map(|_| {
            handle.send(PlaneCommand::Stats);
            let told = wait_for(&mut events, |event| matches!(event, PlaneEvent::Stats { .. }));
            match told {
                Some(PlaneEvent::Stats { node, .. }) if node.dropped == 300 => Some(node.dropped),
                _ => None,
            }
        });
        assert_eq!(dropped, Some(300));
    }

    #[test]
    fn tun_that_is_gone_is_told_of_once_and_the_plane_goes_on() {
        let (handle, mut events, _) = start("home");
        let (far, near) = queue();
        handle.send(tun(1, vec![near]));

        drop(far);

        let lost = wait_for(&mut events, |event| matches!(event, PlaneEvent::TunLost { .. }));
        assert!(lost.is_some());
        handle.send(PlaneCommand::Stop { drain: Duration::ZERO });
        let next = wait_for(&mut events, |event| !matches!(event, PlaneEvent::Stats { .. }));
        assert!(matches!(next, Some(PlaneEvent::Ended(None))), "{next:?}");
    }

    #[test]
    fn closed_or_replaced_tun_is_let_go() {
        let (handle, _events, _) = start("home");
        let (first_far, first) = queue();
        let (second_far, second) = queue();

        handle.send(tun(1, vec![first]));
        handle.send(tun(2, vec![second]));
        assert!(is_let_go(&first_far));
        assert_eq!(rustix::io::write(&second_far, b"x"), Ok(1));

        handle.send(PlaneCommand::CloseTun);
        assert!(is_let_go(&second_far));
    }

    #[test]
    fn descriptor_that_cannot_be_waited_for_is_a_lost_tun() {
        let (handle, mut events, _) = start("home");
        let file = tempfile::tempfile().unwrap();

        handle.send(tun(1, vec![file.into()]));

        let lost = wait_for(&mut events, |event| matches!(event, PlaneEvent::TunLost { .. }));
        assert!(lost.is_some());
    }

    #[test]
    fn messages_of_strangers_do_no_harm() {
        let (handle, mut events, listening) = start("home");
        let stranger = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();

        for len in [0, 1, 16, 1472, 65_000] {
            stranger.send_to(&vec![0xff; len], listening.addr).unwrap();
        }
        handle.send(PlaneCommand::Stop { drain: Duration::ZERO });

        let end = wait_for(&mut events, |event| matches!(event, PlaneEvent::Ended(_)));
        assert!(matches!(end, Some(PlaneEvent::Ended(None))), "{end:?}");
    }

    #[test]
    fn packet_from_any_queue_comes_out_of_the_other_end_whatever_threads_and_queues_there_are() {
        for (threads, queues) in [(1, 1), (2, 1), (3, 3), (16, 16)] {
            let (near, mut near_events, near_at) = start_as(1, threads);
            let (far, mut far_events, far_at) = start_as(2, threads);
            assert_eq!((near.threads(), far.threads()), (threads, threads));
            far.send(PlaneCommand::Node(known(&near, near_at.addr, "10.9.0.1", Contact::OnDemand)));
            let far_tun = serve(&far, queues);
            near.send(PlaneCommand::Node(known(&far, far_at.addr, "10.9.0.2", Contact::Always)));
            // No thread reads packets before it knows whose they are.
            let near_tun = serve(&near, queues);
            for events in [&mut near_events, &mut far_events] {
                let up = wait_for(events, |event| {
                    matches!(event, PlaneEvent::Node(NodeEvent::SessionUp { .. }))
                });
                assert!(up.is_some());
            }

            for round in 0..4 {
                // As many as a far queue holds while nobody reads it.
                let packets: Vec<_> = (0..50).map(|number| packet(round * 50 + number)).collect();
                for (packet, tun) in packets.iter().zip(near_tun.iter().cycle()) {
                    while rustix::io::write(tun, packet).is_err() {
                        thread::sleep(Duration::from_millis(1));
                    }
                }
                let got: Vec<_> = packets.iter().map_while(|_| read(&far_tun)).collect();
                assert!(packets.iter().all(|packet| got.contains(packet)), "{} came", got.len());
            }
            let seen = wait_for(&mut far_events, |event| match event {
                PlaneEvent::Stats { node, .. } => {
                    node.peers.len() == 1 && node.packets_received.packets == 200
                }
                _ => false,
            });
            assert!(seen.is_some(), "numbers are those of all threads");

            near.send(PlaneCommand::Stop { drain: Duration::ZERO });
            let down = wait_for(&mut far_events, |event| {
                matches!(event, PlaneEvent::Node(NodeEvent::SessionDown { .. }))
            });
            assert!(down.is_some(), "the last message is the goodbye");
            let end = wait_for(&mut near_events, |event| matches!(event, PlaneEvent::Ended(_)));
            assert!(matches!(end, Some(PlaneEvent::Ended(None))));
            assert!(near_events.blocking_recv().is_none(), "nothing follows the end");
        }
    }

    #[test]
    fn idle_plane_sleeps() {
        let (handle, _events, _) = start("idle");
        let (_far, near) = queue();
        handle.send(tun(1, vec![near]));

        thread::sleep(Duration::from_millis(1200));

        let spent = spent_by("plane-idle");
        assert!(spent < Duration::from_millis(100), "{spent:?}");
    }

    #[test]
    fn name_of_the_thread_fits_into_what_the_kernel_keeps() {
        assert_eq!(thread_name("home", 0), "plane-home");
        assert_eq!(thread_name("a-very-long-one", 12), "plane12-a-very-");
    }

    #[test]
    fn words_of_a_panic_are_kept() {
        let panic = catch_unwind(|| panic!("no {}", "way")).unwrap_err();

        assert_eq!(words_of(&*panic), "panic in the data thread: no way");
    }

    fn start(name: &str) -> (PlaneHandle, mpsc::Receiver<Vec<PlaneEvent>>, Listening) {
        Plane::start(name, &config(), "127.0.0.1:0".parse().unwrap(), None, 2).unwrap()
    }

    pub(super) fn start_as(
        key: u8,
        threads: usize,
    ) -> (PlaneHandle, mpsc::Receiver<Vec<PlaneEvent>>, Listening) {
        start_with(key, Engine::default(), threads)
    }

    /// Makes the command to serve a device with these queues
    pub(super) fn tun(number: u64, queues: Vec<OwnedFd>) -> PlaneCommand {
        PlaneCommand::Tun { device: DeviceNumber(number), queues, mtu: 1400 }
    }

    /// Has a plane serve a device with so many queues; returns their other ends
    pub(super) fn serve(plane: &PlaneHandle, count: usize) -> Vec<OwnedFd> {
        let (far, queues) = (0..count).map(|_| queue()).unzip();
        plane.send(tun(1, queues));
        far
    }

    pub(super) fn start_with(
        key: u8,
        engine: Engine,
        threads: usize,
    ) -> (PlaneHandle, mpsc::Receiver<Vec<PlaneEvent>>, Listening) {
        let config = NodeConfig {
            private_key: PrivateKey::from_bytes([key; 32]),
            seed: [key; 32],
            engine,
            ..config()
        };
        Plane::start("home", &config, "127.0.0.1:0".parse().unwrap(), None, threads).unwrap()
    }

    pub(super) fn known(
        peer: &PlaneHandle,
        endpoint: SocketAddr,
        overlay: &str,
        contact: Contact,
    ) -> NodeCommand {
        NodeCommand::SetPeer(PeerConfig {
            key: peer.public_key(),
            prefixes: vec![overlay.parse().unwrap()],
            endpoints: vec![endpoint],
            carrier: Choice::Udp,
            tcp: None,
            relay: None,
            contact,
            hello: Vec::new(),
            boot: None,
        })
    }

    /// Makes an IPv4 packet from 10.9.0.1 to 10.9.0.2
    pub(super) fn packet(number: u8) -> Vec<u8> {
        let mut packet = vec![number; 1000];
        packet[..10].copy_from_slice(&[0x45, 0, 3, 232, 0, number, 0, 0, 64, 253]);
        packet[10..20].copy_from_slice(&[0, 0, 10, 9, 0, 1, 10, 9, 0, 2]);
        let sum = packet[..20].chunks(2).map(|pair| u32::from(pair[0]) << 8 | u32::from(pair[1]));
        let sum: u32 = sum.sum();
        let sum = !((sum & 0xffff) + (sum >> 16)) as u16;
        packet[10..12].copy_from_slice(&sum.to_be_bytes());
        packet
    }

    /// Reads one packet, or nothing if none comes for a while
    pub(super) fn read(queues: &[OwnedFd]) -> Option<Vec<u8>> {
        let mut bytes = vec![0; 2000];
        (0..500).find_map(|_| {
            let len = queues.iter().find_map(|queue| rustix::io::read(queue, &mut bytes).ok());
            if len.is_none() {
                thread::sleep(Duration::from_millis(10));
            }
            Some(bytes[..len?].to_vec())
        })
    }

    pub(super) fn config() -> NodeConfig {
        NodeConfig {
            private_key: PrivateKey::from_bytes([1; 32]),
            network_key: NetworkKey::default(),
            seed: [2; 32],
            aes: false,
            admission: Admission::Known,
            relay: false,
            silence: Duration::from_secs(15),
            engine: Engine::default(),
        }
    }

    /// Makes something that behaves like a TUN queue, and its other end
    pub(super) fn queue() -> (OwnedFd, OwnedFd) {
        let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
        socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None).unwrap()
    }

    fn is_let_go(far: &OwnedFd) -> bool {
        (0..200).any(|_| {
            thread::sleep(Duration::from_millis(10));
            rustix::io::write(far, b"x").is_err_and(|error| error == rustix::io::Errno::PIPE)
        })
    }

    /// Returns the first event that `wanted` likes; nothing if the channel ends before
    pub(super) fn wait_for(
        events: &mut mpsc::Receiver<Vec<PlaneEvent>>,
        mut wanted: impl FnMut(&PlaneEvent) -> bool,
    ) -> Option<PlaneEvent> {
        while let Some(batch) = events.blocking_recv() {
            if let Some(found) = batch.into_iter().find(&mut wanted) {
                return Some(found);
            }
        }
        None
    }
}
