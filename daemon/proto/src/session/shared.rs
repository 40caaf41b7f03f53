//! What all sessions of a node share, or those of one of its shards.

use crate::buffers::{Buffers, Stowed};
use crate::ip::{Gso, Inner};
use crate::limits::MEMORY_DEFAULT;
use crate::sched::Shaper;
use crate::tcp::Pool;
use crate::time::Instant;

/// What all sessions of a node share
#[derive(Debug)]
pub struct Shared {
    /// How the engine is set
    pub engine: Engine,
    /// Memory of split connections
    pub pool: Pool,
    /// Bounds of what the node sends
    pub shaper: Shaper,
    /// What packets wait in that travel as they are, where they do not wait where they were read
    pub buffers: Buffers,
}

/// How the engine is set; may change while the node runs
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Engine {
    /// How TCP connections are carried, where nothing else is said of the peer
    pub tcp: TcpMode,
    /// Bytes of memory for split connections
    pub memory: usize,
    /// Most bytes a second that leave, on all paths together
    pub rate: Option<u64>,
    /// Most messages a second that leave, on all paths together
    pub packet_rate: Option<u32>,
    /// Most that spare copies may take of a path's rate, in percent over ten seconds; nothing: no
    /// copies at all
    pub copies: u8,
}

/// How new TCP connections are carried
#[derive(Clone, Copy, Debug, Default, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub enum TcpMode {
    /// Split; over a path that is near and clean as packets where memory is short
    #[default]
    Auto,
    /// As packets
    Plain,
    /// Split
    Split,
}

impl TcpMode {
    /// Returns its name in configurations and tables
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Auto => "auto",
            Self::Plain => "plain",
            Self::Split => "split",
        }
    }
}

impl Default for Engine {
    fn default() -> Self {
        let (tcp, memory) = (TcpMode::Auto, MEMORY_DEFAULT);
        Self { tcp, memory, rate: None, packet_rate: None, copies: 10 }
    }
}

impl Shared {
    /// Makes what the sessions of a node share
    pub fn new(engine: Engine, now: Instant) -> Self {
        let mut shared = Self {
            engine,
            pool: Pool::default(),
            shaper: Shaper::new(now),
            buffers: Buffers::new(BUFFERS),
        };
        shared.configure(engine, now);
        shared
    }

    /// Makes what the sessions of another shard of the same node share: memory and bounds are the same
    #[must_use]
    pub fn share(&self) -> Self {
        Self {
            engine: self.engine,
            pool: self.pool.share(),
            shaper: self.shaper.share(),
            buffers: Buffers::new(BUFFERS),
        }
    }

    /// Stows a packet or super-packet away until it leaves: where it was read, if it fills most of that buffer
    pub fn stow(&mut self, packet: &[u8], gso: Option<Gso>) -> Inner<Stowed> {
        let bytes = self.pool.shelf.keep_packet(packet).map_or_else(
            || {
                let mut bytes = self.buffers_for(gso).take();
                bytes.extend_from_slice(packet);
                Stowed::Copied(bytes)
            },
            Stowed::Kept,
        );
        Inner { bytes, gso }
    }

    /// Takes back the buffer of what has left, or is not to leave any more
    pub fn give(&mut self, packet: Inner<Stowed>) {
        match packet.bytes {
            Stowed::Copied(bytes) => self.buffers_for(packet.gso).give(bytes),
            Stowed::Kept(bytes) => self.pool.shelf.give(bytes),
        }
    }

    /// Returns the buffers in which such packets wait: those of super-packets are large
    pub fn buffers_for(&mut self, gso: Option<Gso>) -> &mut Buffers {
        match gso {
            Some(_) => &mut self.pool.buffers,
            None => &mut self.buffers,
        }
    }

    /// Takes other settings
    pub fn configure(&mut self, engine: Engine, now: Instant) {
        self.engine = engine;
        self.pool.size = engine.memory;
        self.shaper.set(engine.rate, engine.packet_rate, now);
    }
}

/// Buffers of packets that are kept
const BUFFERS: usize = 1024;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::buffers::PacketBuffer;
    use crate::limits::PACKET_MAX;

    #[test]
    fn packet_waits_where_it_was_read_if_it_fills_that_and_in_a_copy_elsewhere() {
        let mut shared = Shared::new(Engine::default(), Instant::ZERO);
        let (mut buffer, least) = (PacketBuffer::for_mtu(1400), PACKET_MAX - PACKET_MAX / 4);
        let gso = Some(Gso { size: 1000, transport: 20 });
        let lens = [(least, true), (least - 1, false), (1401, false), (1050, true), (1049, false)];
        for (len, stays) in lens {
            buffer.put(&vec![len as u8; len]);
            let place = buffer.as_ptr();
            shared.pool.shelf.lend(&buffer);

            let packet = shared.stow(&buffer, gso);
            shared.pool.shelf.renew(&mut buffer);

            assert_eq!((packet.bytes.as_ptr() == place, buffer.as_ptr() == place), (stays, !stays));
            buffer.put(&[0xee; PACKET_MAX]);
            assert!(packet.gso == gso && packet.bytes[..] == vec![len as u8; len]);
            shared.give(packet);
        }
        // What stayed is free.
        assert_eq!((shared.pool.shelf.free(), shared.pool.shelf.free_small()), (1, 1));
    }

    #[test]
    fn large_buffers_are_for_super_packets_again() {
        let mut shared = Shared::new(Engine::default(), Instant::ZERO);
        let gso = Some(Gso { size: 1000, transport: 20 });
        for (gso, len) in [(gso, 40_000), (None, 100)] {
            let packet = shared.stow(&vec![1; len], gso);
            let place = packet.bytes.as_ptr();
            shared.give(packet);

            assert_eq!(shared.stow(&[2], gso).bytes.as_ptr(), place);
        }
    }
}
