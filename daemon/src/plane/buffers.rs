//! The memory of a plane: allocated once, never grown.
//!
//! What the node returns (packets, events) is the node's own, and bounded there. So are the buffers for packets
//! from the TUN: it keeps those whose bytes it needs, and gives others for them.

use std::io::IoSliceMut;

use fastvpn_proto::limits::PACKET_MAX;
use quinn_udp::RecvMeta;

/// Room for one batch of received UDP payloads
///
/// The kernel may join the payloads of one sender into a slot, so that each slot has the size of
/// the largest UDP payload there is.
#[derive(Debug)]
pub(super) struct Slots {
    bytes: Box<[u8]>,
    metas: [RecvMeta; SLOTS],
}

impl Slots {
    /// Allocates all slots; pages that are never used cost no memory
    pub(super) fn new() -> Self {
        Self {
            bytes: vec![0; SLOTS * SLOT_LEN].into_boxed_slice(),
            metas: [RecvMeta::default(); SLOTS],
        }
    }

    /// Returns all slots for the kernel to fill, with the place for what it says of each
    pub(super) fn free(&mut self) -> ([IoSliceMut<'_>; SLOTS], &mut [RecvMeta; SLOTS]) {
        let mut slots = self.bytes.chunks_exact_mut(SLOT_LEN);
        let buffers = std::array::from_fn(|_| IoSliceMut::new(slots.next().unwrap_or_default()));
        (buffers, &mut self.metas)
    }

    /// Goes through the first `count` slots as they were filled
    pub(super) fn filled(
        &mut self,
        count: usize,
    ) -> impl Iterator<Item = (RecvMeta, &mut [u8])> + '_ {
        self.metas.iter().copied().zip(self.bytes.chunks_exact_mut(SLOT_LEN)).take(count).map(
            |(meta, slot)| {
                let len = meta.len.min(SLOT_LEN);
                (meta, &mut slot[..len])
            },
        )
    }
}

/// Makes the buffer for one train of messages to send
pub(super) fn train() -> Vec<u8> {
    Vec::with_capacity(TRAIN_LEN)
}

/// Payloads that one system call receives
pub(super) const SLOTS: usize = 16;
/// Size of each
const SLOT_LEN: usize = 1 << 16;
/// Largest train of messages
const TRAIN_LEN: usize = 1 << 16;

/// Largest MTU of a device
const MTU_MAX: usize = 9000;

/// Worst-case memory of a plane's own buffers, with the one that a packet of the TUN is read into
const TOTAL: usize = SLOTS * SLOT_LEN + MTU_MAX + PACKET_MAX + TRAIN_LEN;
const _: () = assert!(TOTAL <= 5 << 18, "a plane's buffers must fit into 1.25 MiB");
const _: () = assert!(SLOTS <= quinn_udp::BATCH_SIZE);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn filled_slots_are_as_long_as_the_kernel_said() {
        let mut slots = Slots::new();
        let (mut buffers, metas) = slots.free();
        buffers[1][..3].copy_from_slice(b"abc");
        metas[0].len = 0;
        metas[1].len = 3;

        let filled: Vec<_> = slots.filled(2).map(|(_, bytes)| bytes.to_vec()).collect();

        assert_eq!(filled, [b"".to_vec(), b"abc".to_vec()]);
    }
}
