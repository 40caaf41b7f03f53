//! What all sessions of a node share, or those of one of its shards.

use crate::buffers::Buffers;
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
    /// What packets wait in that travel as they are
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

    /// Takes other settings
    pub fn configure(&mut self, engine: Engine, now: Instant) {
        self.engine = engine;
        self.pool.size = engine.memory;
        self.shaper.set(engine.rate, engine.packet_rate, now);
    }
}

/// Buffers of packets that are kept
const BUFFERS: usize = 1024;
