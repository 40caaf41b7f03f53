//! The end of a node that will be back: nothing that was acknowledged may end with it.
//!
//! From [`Connections::drain`] on nothing more is taken from our kernel, which keeps what it says and
//! says it again later. What was taken before leaves; when all of it is with the other node, ours has
//! nothing that anybody would miss, and its successor can split the connections again (`rejoin`).

use super::Connections;
use super::connection::{Connection, Stage};

impl Connections {
    /// Takes nothing more from our kernel from now on
    pub fn drain(&mut self) {
        self.draining = true;
        for connection in self.lanes.values_mut() {
            connection.near.frozen = true;
        }
    }

    /// Tells whether nothing would be missed that is here, once [`Connections::drain`] was called
    pub fn is_drained(&self) -> bool {
        self.inquiries.is_empty() && self.lanes.values().all(Connection::is_drained)
    }
}

impl Connection {
    fn is_drained(&self) -> bool {
        match self.stage {
            // The other kernel's bytes are kept at its node; but that one may end as well.
            Stage::Accepted | Stage::Answered | Stage::Open => {
                self.near.sent >= self.near.kept.edge()
                    && self.pieces.all_arrived()
                    && self.far.is_delivered()
            }
            Stage::Resuming | Stage::Rejoining => false,
            // Kernels begin anew, or have all that they will get.
            Stage::Opening | Stage::Answering | Stage::Parting | Stage::Closed | Stage::Reset => {
                true
            }
        }
    }
}
