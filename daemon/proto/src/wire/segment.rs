//! KCP segments in compact form: conv, sn, una, wnd, frg and data.
//!
//! KCP's command and timestamp are gone: the frame type is the command, and round-trip times come
//! from the numbers of messages. PROTOCOL.md, section "Control lane".

use super::frame::Malformed;

/// Bytes of a segment before its data
pub const SEGMENT_HEADER: usize = 13;

/// One unit of a lane
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Segment<'a> {
    /// Which lane
    pub conv: u16,
    /// Number of this segment in its lane; wraps around
    pub sn: u32,
    /// The sender of this segment has received all segments before this one
    pub una: u32,
    /// How many segments from `una` on the sender of this segment accepts
    pub wnd: u16,
    /// Segments of the same message that follow this one
    pub frg: u8,
    /// A part of a message
    pub data: &'a [u8],
}

impl<'a> Segment<'a> {
    pub(super) fn parse(body: &'a [u8]) -> Result<Self, Malformed> {
        let (header, data) = body.split_first_chunk::<SEGMENT_HEADER>().ok_or(Malformed)?;
        let [c0, c1, s0, s1, s2, s3, u0, u1, u2, u3, w0, w1, frg] = *header;
        Ok(Self {
            conv: u16::from_be_bytes([c0, c1]),
            sn: u32::from_be_bytes([s0, s1, s2, s3]),
            una: u32::from_be_bytes([u0, u1, u2, u3]),
            wnd: u16::from_be_bytes([w0, w1]),
            frg,
            data,
        })
    }

    pub(super) fn encode(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.conv.to_be_bytes());
        out.extend_from_slice(&self.sn.to_be_bytes());
        out.extend_from_slice(&self.una.to_be_bytes());
        out.extend_from_slice(&self.wnd.to_be_bytes());
        out.push(self.frg);
        out.extend_from_slice(self.data);
    }
}
