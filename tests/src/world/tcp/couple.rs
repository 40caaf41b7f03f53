//! The two ends of one connection without a world around them.

use std::fmt;
use std::net::SocketAddr;

use fastvpn_proto::time::Instant;
use rand_chacha::rand_core::RngCore;
use smoltcp::socket::tcp::State;

use super::app::App;
use super::end::End;
use super::packet::Tuple;
use super::{Half, Side, TcpPlan, Work};

/// Two kernels with one connection between them, and their applications
///
/// A *place* is where a kernel is: at the first or at the second node.
pub struct Couple {
    ends: [End; 2],
    halves: [Half; 2],
    addresses: [SocketAddr; 2],
    /// Place of the opener
    opener: usize,
    work: Work,
}

impl Couple {
    /// Makes both kernels, and lets the one at the place `opener` open a connection for such work
    pub fn new(
        plan: &TcpPlan,
        work: Work,
        opener: usize,
        addresses: [SocketAddr; 2],
        chance: &mut impl RngCore,
        now: Instant,
    ) -> Self {
        let keys = [chance.next_u64(), chance.next_u64()];
        let [first, second] = work.steps();
        let apps =
            [App::new(first, keys[0], keys[1], now), App::new(second, keys[1], keys[0], now)];
        let mut addresses_left = addresses.into_iter();
        let mut ends = apps.map(|app| {
            let local = addresses_left.next().expect("there are two");
            End::new(plan, local, chance.next_u64(), app, now)
        });
        ends[0].connect(addresses[0], addresses[1]);
        ends[1].listen(addresses[1]);
        Self { ends, halves: [Half::new(), Half::new()], addresses, opener, work }
    }

    /// Lets both kernels and applications do what they can, and returns what they send, by place
    ///
    /// # Panics
    /// If an application reads what was not written, or an end that nobody made.
    pub fn poll(&mut self, now: Instant) -> [Vec<Vec<u8>>; 2] {
        let [first, second] = &mut self.ends;
        let [own, far] = &mut self.halves;
        let opener = first.poll(own, far, now);
        let acceptor = second.poll(far, own, now);
        let [opener, acceptor] = [opener, acceptor].map(|sent| match sent {
            Ok(sent) => sent,
            Err(fault) => panic!("{fault}: {self:?}"),
        });
        if self.opener == 0 { [opener, acceptor] } else { [acceptor, opener] }
    }

    /// Gives a packet to the kernel at a place, if it belongs to this connection
    pub fn receive(&mut self, place: usize, packet: &[u8]) -> bool {
        let side = usize::from(place != self.opener);
        let [local, remote] = [self.addresses[side], self.addresses[1 - side]];
        let own = Tuple::of_arriving(packet) == Some(Tuple { local, remote });
        if own {
            self.ends[side].receive(packet.to_vec());
        }
        own
    }

    /// Returns when to poll again
    pub fn deadline(&mut self, now: Instant) -> Option<Instant> {
        self.ends.iter_mut().filter_map(|end| end.deadline(now)).min()
    }

    /// Returns what one end went through
    pub fn half(&self, side: Side) -> &Half {
        &self.halves[side as usize]
    }

    /// Returns what its applications do
    pub fn work(&self) -> Work {
        self.work
    }

    /// Tells whether both applications are through with it
    pub fn is_over(&self) -> bool {
        let [opener, acceptor] = &self.halves;
        opener.is_over() && (acceptor.is_over() || acceptor.state == State::Listen)
    }
}

impl fmt::Debug for Couple {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [opener, acceptor] = &self.halves;
        write!(f, "{:?}\n    {opener}\n    {acceptor}", self.work)
    }
}
