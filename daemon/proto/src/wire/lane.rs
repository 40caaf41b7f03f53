//! Frames of the lanes of split TCP connections.

use super::frame::Malformed;

/// A frame of the lane of one split connection
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum LaneFrame<'a> {
    /// What is not known yet
    Other {
        /// Type of the frame
        kind: u8,
        /// Its body
        body: &'a [u8],
    },
}

/// First type of a frame of a lane
pub const LANE_FIRST: u8 = 0x10;
/// Last type of a frame of a lane
pub const LANE_LAST: u8 = 0x1f;

impl<'a> LaneFrame<'a> {
    /// Reads the body of a frame
    pub(super) fn parse(kind: u8, body: &'a [u8]) -> Result<Self, Malformed> {
        Ok(Self::Other { kind, body })
    }

    /// Returns the type of the frame
    pub(super) fn kind(&self) -> u8 {
        let Self::Other { kind, .. } = self;
        *kind
    }

    /// Appends the body
    pub(super) fn encode(&self, out: &mut Vec<u8>) {
        let Self::Other { body, .. } = self;
        out.extend_from_slice(body);
    }

    /// Returns the length of the body
    pub(super) fn len(&self) -> usize {
        let Self::Other { body, .. } = self;
        body.len()
    }
}
