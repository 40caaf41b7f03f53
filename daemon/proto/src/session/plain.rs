//! Packets that travel as they are: a super-packet whole, or cut here and joined again at the far end.

use super::{Output, Session, Shared};
use crate::buffers::{Buffers, Stowed};
use crate::ip::Inner;
use crate::ip::gso::Cutter;
use crate::ip::merge::Merged;
use crate::limits::SUPER_SEGMENT_MIN;
use crate::time::Instant;

impl Session {
    /// Queues a packet, or those that `cutter` cuts it into
    pub(super) fn send_plain(
        &mut self,
        packet: &[u8],
        cutter: Option<Cutter<'_>>,
        shared: &mut Shared,
        now: Instant,
    ) {
        match cutter {
            Some(cutter) if !is_whole(&cutter) || !self.carries_whole() => {
                self.send_cut(cutter, shared, now);
            }
            cutter => {
                let gso = cutter.as_ref().map(Cutter::gso);
                self.load.push_packet(shared.stow(packet, gso), now);
            }
        }
        self.reclaim(shared);
    }

    /// Queues the packets that a super-packet consists of, each in a buffer of its own
    fn send_cut(&mut self, mut cutter: Cutter<'_>, shared: &mut Shared, now: Instant) {
        for _ in 0..cutter.segments() {
            let mut own = shared.buffers.take();
            cutter.next(&mut own);
            self.load.push_packet(Stowed::Copied(own).into(), now);
        }
    }

    /// Gives back the buffers of packets that have left, or are not to leave any more
    pub(super) fn reclaim(&mut self, shared: &mut Shared) {
        if let Some(packet) = self.fragmenter.take_done() {
            shared.give(packet);
        }
        while let Some(packet) = self.load.poll_gone() {
            shared.give(packet);
        }
    }

    /// Takes an inner packet or super-packet of the other node that came in parts
    pub(super) fn on_whole(&mut self, packet: Inner, shared: &mut Shared) {
        let Some(packet) = settle(packet, &mut shared.pool.buffers) else { return };
        if self.tcp.on_plain(&packet.bytes, packet.gso) {
            self.output.push_back(Output::Packet(packet.into()));
        } else {
            shared.pool.buffers.give(packet.bytes);
        }
    }

    /// Takes an inner packet of the other node; what follows another one of its flow is joined with it
    pub(super) fn on_inner(&mut self, packet: &[u8], shared: &mut Shared) {
        if !self.tcp.on_plain(packet, None) {
            return;
        }
        for earlier in self.output.iter_mut().rev().take(MERGE_DEPTH) {
            let Output::Packet(earlier) = earlier else { continue };
            match earlier.merge(packet) {
                Merged::Joined => return,
                Merged::Behind => break,
                Merged::Apart => {}
            }
        }
        let mut bytes = shared.pool.buffers.take();
        bytes.extend_from_slice(packet);
        self.output.push_back(Output::Packet(bytes.into()));
    }

    /// Tells whether super-packets travel whole: where a lost message, which takes the whole of it along,
    /// is rare, and the rest of the load does not wait for it
    fn carries_whole(&self) -> bool {
        #[cfg(test)]
        if self.always_whole {
            return true;
        }
        self.active().is_some_and(|path| {
            let clean = path.sent.knows_loss() && path.sent.loss_ppm() < WHOLE_PPM;
            clean && path.capacity().rate.is_some_and(|rate| rate >= WHOLE_RATE)
        })
    }
}

/// Tells whether a super-packet may travel whole
fn is_whole(cutter: &Cutter<'_>) -> bool {
    cutter.segments() > 1 && cutter.gso().size >= SUPER_SEGMENT_MIN
}

/// Returns a packet as a kernel takes it: a super-packet that is one packet becomes that; nothing for one
/// that cannot be cut, or is of crumbs, which nobody sends
fn settle(packet: Inner, buffers: &mut Buffers) -> Option<Inner> {
    let Some(gso) = packet.gso else { return Some(packet) };
    let mut one = None;
    match Cutter::new(&packet.bytes, gso) {
        Some(cutter) if is_whole(&cutter) => return Some(packet),
        Some(mut cutter) if cutter.segments() == 1 => {
            let mut bytes = buffers.take();
            cutter.next(&mut bytes);
            one = Some(Inner::from(bytes));
        }
        Some(_) | None => {}
    }
    buffers.give(packet.bytes);
    one
}

/// Loss in a million under which super-packets travel whole
const WHOLE_PPM: u32 = 500;
/// Bytes a second from which on they do: the largest takes a millisecond
const WHOLE_RATE: u64 = 64_000_000;
/// Packets that are looked at for the one that another packet goes on from
const MERGE_DEPTH: usize = 8;
