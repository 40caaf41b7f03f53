//! Packets that travel as they are: a super-packet whole, or cut here and joined again at the far end.

use super::{Output, Session, Shared};
use crate::ip::Inner;
use crate::ip::gso::Cutter;
use crate::ip::merge::{Merged, merge};
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
        let Some(mut cutter) = cutter else {
            let mut bytes = shared.buffers.take();
            bytes.extend_from_slice(packet);
            self.load.push_packet(bytes.into(), now);
            return;
        };
        if self.carries_whole() {
            let mut bytes = shared.pool.buffers.take();
            bytes.extend_from_slice(packet);
            self.load.push_packet(Inner { bytes, gso: Some(cutter.gso()) }, now);
            return;
        }
        for _ in 0..cutter.segments() {
            let mut own = shared.buffers.take();
            cutter.next(&mut own);
            self.load.push_packet(own.into(), now);
        }
    }

    /// Takes an inner packet or super-packet of the other node that came in parts
    pub(super) fn on_whole(&mut self, packet: Inner, shared: &mut Shared) {
        // Nobody sends super-packets of crumbs.
        let sane = |cutter: Cutter<'_>| cutter.segments() <= SEGMENTS_MAX;
        let fits = packet.gso.is_none_or(|gso| Cutter::new(&packet.bytes, gso).is_some_and(sane));
        if fits && self.tcp.on_plain(&packet.bytes, packet.gso) {
            self.output.push_back(Output::Packet(packet));
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
            let Output::Packet(inner) = earlier else { continue };
            match merge(inner, packet) {
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
        self.active().is_some_and(|path| {
            let clean = path.sent.knows_loss() && path.sent.loss_ppm() < WHOLE_PPM;
            clean && path.capacity().rate.is_some_and(|rate| rate >= WHOLE_RATE)
        })
    }
}

/// Segments of one super-packet: 64 KiB of the shortest that TCP uses
const SEGMENTS_MAX: usize = 750;
/// Loss in a million under which super-packets travel whole
const WHOLE_PPM: u32 = 500;
/// Bytes a second from which on they do: the largest takes a millisecond
const WHOLE_RATE: u64 = 64_000_000;
/// Packets that are looked at for the one that another packet goes on from
const MERGE_DEPTH: usize = 8;
