//! Frames: the typed items inside a sealed data message.
//!
//! A data message's plaintext is a sequence of frames, each a type, the length of its body and the
//! body. Type zero is padding: the rest of the message is ignored. Types that are not known are
//! skipped. PROTOCOL.md, section "Frames".
//!
//! # Contract
//!
//! Parsing borrows from the message and allocates nothing. A frame that was returned is consistent in
//! itself; whether it makes sense in its session is for others to tell.

use core::ops::RangeInclusive;

use thiserror::Error;

use super::lane::{LANE_FIRST, LANE_LAST, LaneFrame};
use super::segment::{SEGMENT_HEADER, Segment};
use super::varint;
use crate::crypto::PublicKey;
use crate::ip::Gso;
use crate::limits::ACK_RANGES_MAX;
use crate::time::Duration;

/// Bytes of a frame before its body: the type and the length
pub const FRAME_HEADER: usize = 3;
/// Bytes that a datagram needs in a message besides its packet
pub const DATAGRAM_OVERHEAD: usize = FRAME_HEADER;
/// Bytes that a datagram needs in a message besides its packet, where copies may follow
pub const COPIED_OVERHEAD: usize = FRAME_HEADER + 4;
/// Bytes that a fragment needs in a message besides its data
pub const FRAGMENT_OVERHEAD: usize = FRAME_HEADER + FRAGMENT_HEADER;
/// The same for a part of a super-packet
pub const SUPER_OVERHEAD: usize = FRAGMENT_OVERHEAD + GSO_LEN;
/// Bytes that a relayed message needs in the message that carries it
pub const RELAY_OVERHEAD: usize = FRAME_HEADER + 32;
/// Bytes that a segment needs in a message besides its data
pub const SEGMENT_OVERHEAD: usize = FRAME_HEADER + SEGMENT_HEADER;
/// Whole length of a window frame
pub const WINDOW_LEN: usize = FRAME_HEADER + 8;
/// Largest number of a message on its path
pub const COUNT_MAX: u64 = (1 << 56) - 1;

/// Why bytes are no frame, or make no sense as one
#[derive(Clone, Copy, Debug, Eq, Error, PartialEq)]
#[error("malformed frame")]
pub struct Malformed;

/// One typed item inside a data message
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Frame<'a> {
    /// Nothing but a wish for an acknowledgement
    Ping,
    /// Which messages have arrived
    Ack(Ack<'a>),
    /// Asks whoever reads this to prove that it does
    Challenge(u64),
    /// The proof: the number of the challenge
    Answer(u64),
    /// A part of a lane's message
    Segment(Segment<'a>),
    /// How far a lane has come and what it accepts
    Window {
        /// Which lane
        conv: u16,
        /// All segments before this one have been received
        una: u32,
        /// How many segments from `una` on are accepted
        wnd: u16,
    },
    /// One inner packet
    Datagram(&'a [u8]),
    /// A part of an inner packet
    Fragment(Fragment<'a>),
    /// A message for, or from, a third node
    Relay {
        /// On the way to the relay the destination, on the way from it the origin
        node: PublicKey,
        /// The sealed message
        message: &'a [u8],
    },
    /// Asks for an [`Frame::EchoReply`] at once
    Echo(u64),
    /// The answer to an [`Frame::Echo`]
    EchoReply(u64),
    /// The sender ends the session; the byte tells why
    Close(u8),
    /// An inner packet of which copies may come; the number tells them from other packets
    Copied {
        /// The number that all copies share, and no other of the last 2^16 packets
        id: u32,
        /// The packet
        packet: &'a [u8],
    },
    /// The sender is about to end, and says goodbye when this has been acknowledged
    Leaving,
    /// A frame of the lane of a split connection
    Lane(LaneFrame<'a>),
}

/// A part of an inner packet
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Fragment<'a> {
    /// Which packet of the session
    pub id: u32,
    /// Where in the packet the data begins
    pub offset: u16,
    /// Length of the whole packet
    pub total: u16,
    /// How the packet is to be cut, where it is a super-packet
    pub gso: Option<Gso>,
    /// At least one byte, and none beyond `total`
    pub data: &'a [u8],
}

/// Which messages have arrived on a path of the receiver of this frame
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Ack<'a> {
    /// The path that the numbers belong to
    pub path: u8,
    /// Time between the arrival of the largest number and this acknowledgement, up to 71 minutes
    pub delay: Duration,
    /// When it was written, in microseconds since some zero; wraps after 71 minutes
    pub written: u32,
    /// Largest number that arrived
    pub largest: u64,
    /// How many messages of the path came with marks, so far
    pub marks: Marks,
    /// First run, then gaps and runs
    runs: &'a [u8],
}

/// What an acknowledgement says besides its ranges; as in [`Ack`]
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct AckHead {
    /// The path that the numbers belong to
    pub path: u8,
    /// Time between the arrival of the largest number and this acknowledgement
    pub delay: Duration,
    /// When it is written, in microseconds
    pub written: u32,
    /// How many messages of the path came with marks, so far
    pub marks: Marks,
}

/// How many messages came with which mark of explicit congestion notification
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Marks {
    /// ECT(0): they could have been marked
    pub capable: u64,
    /// CE: they met congestion
    pub congested: u64,
}

/// Frames of a message, one after another
#[derive(Clone, Debug)]
pub struct Frames<'a> {
    rest: &'a [u8],
    unknown: u32,
}

/// Goes through the frames of a data message's plaintext
///
/// Stops after the first error, and where padding begins.
pub fn frames(bytes: &[u8]) -> Frames<'_> {
    Frames { rest: bytes, unknown: 0 }
}

/// Appends an acknowledgement of the newest [`ACK_RANGES_MAX`] ranges, and returns how many they were
///
/// The ranges descend and do not touch one another. Without a range nothing is appended.
pub fn encode_ack(
    head: AckHead,
    ranges_descending: impl Iterator<Item = RangeInclusive<u64>>,
    out: &mut Vec<u8>,
) -> usize {
    encode_ack_within(head, ranges_descending, usize::MAX, out)
}

/// Appends an acknowledgement of at most `room` bytes; otherwise as [`encode_ack`]
pub fn encode_ack_within(
    head: AckHead,
    mut ranges_descending: impl Iterator<Item = RangeInclusive<u64>>,
    room: usize,
    out: &mut Vec<u8>,
) -> usize {
    let Some(first) = ranges_descending.next() else { return 0 };
    let run = first.end().saturating_sub(*first.start());
    let mut left = room.min(usize::from(u16::MAX));
    let needed = FRAME_HEADER + ACK_HEADER + head.marks.len() + varint::len(run);
    if left < needed {
        return 0;
    }
    left -= needed;

    let begin = out.len();
    out.extend_from_slice(&[ACK, 0, 0, head.path]);
    let delay = u32::try_from(head.delay.as_micros()).unwrap_or(u32::MAX);
    out.extend_from_slice(&delay.to_be_bytes());
    out.extend_from_slice(&head.written.to_be_bytes());
    out.extend_from_slice(&first.end().to_be_bytes());
    head.marks.encode(out);
    varint::write(run, out);
    let mut lowest = *first.start();
    let mut count = 1;
    for range in ranges_descending.take(ACK_RANGES_MAX - 1) {
        let Some(gap) = lowest.checked_sub(*range.end()).and_then(|gap| gap.checked_sub(2)) else {
            debug_assert!(false, "ranges overlap or touch");
            break;
        };
        let run = range.end().saturating_sub(*range.start());
        let needed = varint::len(gap) + varint::len(run);
        if left < needed {
            break;
        }
        left -= needed;
        varint::write(gap, out);
        varint::write(run, out);
        lowest = *range.start();
        count += 1;
    }
    finish(begin, out);
    count
}

impl<'a> Frame<'a> {
    /// Appends the frame
    ///
    /// A body of more than 65,535 bytes fits no frame; nothing is appended then.
    pub fn encode(&self, out: &mut Vec<u8>) {
        if self.encoded_len() > FRAME_HEADER + usize::from(u16::MAX) {
            debug_assert!(false, "body is too long for a frame");
            return;
        }
        let begin = out.len();
        out.extend_from_slice(&[self.kind(), 0, 0]);
        match self {
            Self::Ping | Self::Leaving => {}
            Self::Ack(ack) => ack.encode(out),
            Self::Challenge(number)
            | Self::Answer(number)
            | Self::Echo(number)
            | Self::EchoReply(number) => out.extend_from_slice(&number.to_be_bytes()),
            Self::Segment(segment) => segment.encode(out),
            Self::Window { conv, una, wnd } => {
                out.extend_from_slice(&conv.to_be_bytes());
                out.extend_from_slice(&una.to_be_bytes());
                out.extend_from_slice(&wnd.to_be_bytes());
            }
            Self::Datagram(packet) => out.extend_from_slice(packet),
            Self::Fragment(fragment) => fragment.encode(out),
            Self::Relay { node, message } => {
                out.extend_from_slice(node.as_bytes());
                out.extend_from_slice(message);
            }
            Self::Close(reason) => out.push(*reason),
            Self::Copied { id, packet } => {
                out.extend_from_slice(&id.to_be_bytes());
                out.extend_from_slice(packet);
            }
            Self::Lane(frame) => frame.encode(out),
        }
        finish(begin, out);
    }

    /// Appends a frame of a lane with `len` bytes of its stream, which `fill` appends: no copy of them is
    /// needed
    pub fn encode_data(
        (conv, seq, marks): (u32, u32, super::lane::Marks),
        out: &mut Vec<u8>,
        fill: impl FnOnce(&mut Vec<u8>),
    ) {
        let begin = out.len();
        let frame = LaneFrame::Data { conv, seq, marks, data: &[] };
        out.extend_from_slice(&[frame.kind(), 0, 0]);
        frame.encode(out);
        fill(out);
        finish(begin, out);
    }

    /// Returns how many bytes [`Frame::encode`] appends
    pub fn encoded_len(&self) -> usize {
        FRAME_HEADER
            + match self {
                Self::Ping | Self::Leaving => 0,
                Self::Ack(ack) => ACK_HEADER + ack.marks.len() + ack.runs.len(),
                Self::Challenge(_) | Self::Answer(_) | Self::Echo(_) | Self::EchoReply(_) => 8,
                Self::Segment(segment) => SEGMENT_HEADER + segment.data.len(),
                Self::Window { .. } => WINDOW_LEN - FRAME_HEADER,
                Self::Datagram(packet) => packet.len(),
                Self::Fragment(fragment) => {
                    let super_packet = if fragment.gso.is_some() { GSO_LEN } else { 0 };
                    FRAGMENT_HEADER + super_packet + fragment.data.len()
                }
                Self::Relay { message, .. } => 32 + message.len(),
                Self::Close(_) => 1,
                Self::Copied { packet, .. } => 4 + packet.len(),
                Self::Lane(frame) => frame.len(),
            }
    }

    /// Tells whether a message with this frame is to be acknowledged
    pub fn is_eliciting(&self) -> bool {
        match self {
            Self::Ack(_) | Self::Close(_) => false,
            Self::Ping
            | Self::Challenge(_)
            | Self::Answer(_)
            | Self::Segment(_)
            | Self::Window { .. }
            | Self::Datagram(_)
            | Self::Fragment(_)
            | Self::Relay { .. }
            | Self::Echo(_)
            | Self::EchoReply(_)
            | Self::Copied { .. }
            | Self::Leaving
            | Self::Lane(_) => true,
        }
    }

    fn kind(&self) -> u8 {
        match self {
            Self::Ping => PING,
            Self::Ack(_) => ACK,
            Self::Challenge(_) => CHALLENGE,
            Self::Answer(_) => ANSWER,
            Self::Segment(_) => SEGMENT,
            Self::Window { .. } => WINDOW,
            Self::Datagram(_) => DATAGRAM,
            Self::Fragment(Fragment { gso: Some(_), .. }) => SUPER_FRAGMENT,
            Self::Fragment(_) => FRAGMENT,
            Self::Relay { .. } => RELAY,
            Self::Echo(_) => ECHO,
            Self::EchoReply(_) => ECHO_REPLY,
            Self::Close(_) => CLOSE,
            Self::Copied { .. } => COPIED,
            Self::Leaving => LEAVING,
            Self::Lane(frame) => frame.kind(),
        }
    }

    /// Reads the body of a frame; nothing where the type is not known
    fn parse(kind: u8, body: &'a [u8]) -> Result<Option<Self>, Malformed> {
        Ok(Some(match kind {
            PING => exact::<0>(body).map(|_| Self::Ping)?,
            ACK => Self::Ack(Ack::parse(body)?),
            CHALLENGE => Self::Challenge(number(body)?),
            ANSWER => Self::Answer(number(body)?),
            SEGMENT => Self::Segment(Segment::parse(body)?),
            WINDOW => {
                let [c0, c1, u0, u1, u2, u3, w0, w1] = exact(body)?;
                Self::Window {
                    conv: u16::from_be_bytes([c0, c1]),
                    una: u32::from_be_bytes([u0, u1, u2, u3]),
                    wnd: u16::from_be_bytes([w0, w1]),
                }
            }
            DATAGRAM => Self::Datagram(body),
            FRAGMENT => Self::Fragment(Fragment::parse(body)?),
            SUPER_FRAGMENT => Self::Fragment(Fragment::parse_super(body)?),
            RELAY => {
                let (node, message) = body.split_first_chunk().ok_or(Malformed)?;
                Self::Relay { node: PublicKey::from_bytes(*node), message }
            }
            ECHO => Self::Echo(number(body)?),
            ECHO_REPLY => Self::EchoReply(number(body)?),
            CLOSE => exact::<1>(body).map(|[reason]| Self::Close(reason))?,
            COPIED => {
                let (id, packet) = body.split_first_chunk().ok_or(Malformed)?;
                Self::Copied { id: u32::from_be_bytes(*id), packet }
            }
            LEAVING => exact::<0>(body).map(|_| Self::Leaving)?,
            LANE_FIRST..=LANE_LAST => Self::Lane(LaneFrame::parse(kind, body)?),
            _ => return Ok(None),
        }))
    }
}

impl<'a> Iterator for Frames<'a> {
    type Item = Result<Frame<'a>, Malformed>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            let (kind, rest) = self.rest.split_first()?;
            if *kind == PADDING {
                self.rest = &[];
                return None;
            }
            let body = rest
                .split_first_chunk()
                .and_then(|(len, rest)| rest.split_at_checked(u16::from_be_bytes(*len).into()));
            let Some((body, rest)) = body else {
                self.rest = &[];
                return Some(Err(Malformed));
            };
            self.rest = rest;
            match Frame::parse(*kind, body) {
                Ok(Some(frame)) => return Some(Ok(frame)),
                Ok(None) => self.unknown += 1,
                Err(malformed) => {
                    self.rest = &[];
                    return Some(Err(malformed));
                }
            }
        }
    }
}

impl Frames<'_> {
    /// Returns how many frames of unknown type were skipped so far
    ///
    /// A message with such a frame is to be acknowledged, as its sender expects that.
    pub fn unknown(&self) -> u32 {
        self.unknown
    }
}

impl<'a> Ack<'a> {
    fn parse(body: &'a [u8]) -> Result<Self, Malformed> {
        let (header, mut runs) = body.split_first_chunk::<ACK_HEADER>().ok_or(Malformed)?;
        let [path, d0, d1, d2, d3, w0, w1, w2, w3, largest @ ..] = *header;
        let delay = Duration::from_micros(u32::from_be_bytes([d0, d1, d2, d3]).into());
        let written = u32::from_be_bytes([w0, w1, w2, w3]);
        let largest = u64::from_be_bytes(largest);
        let marks = Marks::parse(&mut runs).ok_or(Malformed)?;
        let ack = Self { path, delay, written, largest, marks, runs };
        ack.validate().ok_or(Malformed)?;
        Ok(ack)
    }

    /// Goes through the ranges that arrived, from [`Self::largest`] downwards
    ///
    /// They do not overlap, and between two of them at least one number is missing.
    pub fn ranges(&self) -> impl Iterator<Item = RangeInclusive<u64>> + use<'a> {
        let mut runs = self.runs;
        let mut next = Some(self.largest);
        core::iter::from_fn(move || {
            let end = next.take()?;
            let start = end.checked_sub(varint::read(&mut runs)?)?;
            if let Some(gap) = varint::read(&mut runs) {
                next = start.checked_sub(gap).and_then(|end| end.checked_sub(2));
            }
            Some(start..=end)
        })
    }

    fn encode(&self, out: &mut Vec<u8>) {
        out.push(self.path);
        let delay = u32::try_from(self.delay.as_micros()).unwrap_or(u32::MAX);
        out.extend_from_slice(&delay.to_be_bytes());
        out.extend_from_slice(&self.written.to_be_bytes());
        out.extend_from_slice(&self.largest.to_be_bytes());
        self.marks.encode(out);
        out.extend_from_slice(self.runs);
    }

    fn validate(&self) -> Option<()> {
        let mut runs = self.runs;
        let mut start = self.largest.checked_sub(varint::read(&mut runs)?)?;
        let mut ranges = 1;
        while !runs.is_empty() {
            let end = start.checked_sub(varint::read(&mut runs)?)?.checked_sub(2)?;
            start = end.checked_sub(varint::read(&mut runs)?)?;
            ranges += 1;
        }
        (self.largest <= COUNT_MAX && ranges <= ACK_RANGES_MAX).then_some(())
    }
}

impl Marks {
    fn parse(bytes: &mut &[u8]) -> Option<Self> {
        Some(Self { capable: varint::read(bytes)?, congested: varint::read(bytes)? })
    }

    fn encode(&self, out: &mut Vec<u8>) {
        varint::write(self.capable, out);
        varint::write(self.congested, out);
    }

    fn len(&self) -> usize {
        varint::len(self.capable) + varint::len(self.congested)
    }
}

impl<'a> Fragment<'a> {
    fn parse(body: &'a [u8]) -> Result<Self, Malformed> {
        let (header, data) = body.split_first_chunk::<FRAGMENT_HEADER>().ok_or(Malformed)?;
        let [i0, i1, i2, i3, o0, o1, t0, t1] = *header;
        let fragment = Self {
            id: u32::from_be_bytes([i0, i1, i2, i3]),
            offset: u16::from_be_bytes([o0, o1]),
            total: u16::from_be_bytes([t0, t1]),
            gso: None,
            data,
        };
        let end = usize::from(fragment.offset) + data.len();
        if data.is_empty() || end > usize::from(fragment.total) {
            return Err(Malformed);
        }
        Ok(fragment)
    }

    fn parse_super(body: &'a [u8]) -> Result<Self, Malformed> {
        let (header, rest) = body.split_first_chunk::<GSO_LEN>().ok_or(Malformed)?;
        let [s0, s1, t0, t1] = *header;
        let (size, transport) = (u16::from_be_bytes([s0, s1]), u16::from_be_bytes([t0, t1]));
        if size == 0 {
            return Err(Malformed);
        }
        Ok(Self { gso: Some(Gso { size, transport }), ..Self::parse(rest)? })
    }

    fn encode(&self, out: &mut Vec<u8>) {
        if let Some(Gso { size, transport }) = self.gso {
            out.extend_from_slice(&size.to_be_bytes());
            out.extend_from_slice(&transport.to_be_bytes());
        }
        out.extend_from_slice(&self.id.to_be_bytes());
        out.extend_from_slice(&self.offset.to_be_bytes());
        out.extend_from_slice(&self.total.to_be_bytes());
        out.extend_from_slice(self.data);
    }
}

/// Writes the length of the frame that began at `begin` and ends here
fn finish(begin: usize, out: &mut [u8]) {
    let len = u16::try_from(out.len() - begin - FRAME_HEADER).unwrap_or(u16::MAX);
    out[begin + 1..begin + FRAME_HEADER].copy_from_slice(&len.to_be_bytes());
}

fn exact<const N: usize>(body: &[u8]) -> Result<[u8; N], Malformed> {
    body.try_into().map_err(|_| Malformed)
}

fn number(body: &[u8]) -> Result<u64, Malformed> {
    exact(body).map(u64::from_be_bytes)
}

const ACK_HEADER: usize = 17;
const FRAGMENT_HEADER: usize = 8;
/// Bytes that say how a super-packet is to be cut
const GSO_LEN: usize = 4;

const PADDING: u8 = 0x00;
const PING: u8 = 0x01;
const ACK: u8 = 0x02;
const CHALLENGE: u8 = 0x03;
const ANSWER: u8 = 0x04;
const SEGMENT: u8 = 0x05;
const WINDOW: u8 = 0x06;
const DATAGRAM: u8 = 0x07;
const FRAGMENT: u8 = 0x08;
const RELAY: u8 = 0x09;
const ECHO: u8 = 0x0a;
const ECHO_REPLY: u8 = 0x0b;
const CLOSE: u8 = 0x0c;
const COPIED: u8 = 0x0d;
const SUPER_FRAGMENT: u8 = 0x0e;
const LEAVING: u8 = 0x0f;

#[cfg(test)]
mod tests;
