//! Frames of the lanes of split TCP connections.
//!
//! A lane carries one connection; its *conv* names it in the session. PROTOCOL.md, section "Lanes".

use super::frame::Malformed;

/// A frame of the lane of one split connection
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum LaneFrame<'a> {
    /// Opens a lane with a SYN
    Open {
        /// The lane
        conv: u32,
        /// Bytes of the stream to the sender that it accepts
        credit: u32,
        /// The whole packet with the SYN
        packet: &'a [u8],
    },
    /// Agrees to split, with the SYN-ACK
    Accept {
        /// The lane
        conv: u32,
        /// Bytes of the stream to the sender that it accepts
        credit: u32,
        /// The whole packet with the SYN-ACK
        packet: &'a [u8],
    },
    /// Bytes of the stream
    Data {
        /// The lane
        conv: u32,
        /// Sequence number of the first byte
        seq: u32,
        /// What else is to be known of these bytes
        marks: Marks,
        /// The bytes; may be none where the marks say enough
        data: &'a [u8],
    },
    /// How far the other direction has come
    State {
        /// The lane
        conv: u32,
        /// Sequence number before which the sender's kernel has acknowledged all
        ack: u32,
        /// Sequence number before which the sender accepts all
        credit: u32,
        /// Whether the sender is done with the connection
        closed: bool,
    },
    /// The connection is reset
    Reset {
        /// The lane
        conv: u32,
        /// Whether the sender's kernel had the connection open before
        opened: bool,
    },
    /// Asks whether the other end's kernel is there, or says so
    Probe {
        /// The lane
        conv: u32,
        /// Whether it is the answer
        answer: bool,
    },
    /// After a restart of the receiver: where a connection of the sender stands
    Resume {
        /// The lane that would go on
        conv: u32,
        /// Sequence number before which all to the sender's kernel was delivered
        delivered: u32,
        /// Sequence number that the receiver's kernel has certainly acknowledged
        acked: u32,
        /// Addresses: the sender's, the receiver's; IPv4 ones are mapped
        addrs: [[u8; 16]; 2],
        /// Ports of the two
        ports: [u16; 2],
        /// What it takes to split the connection again
        memory: Memory,
    },
    /// The answer to a resume: where the kernel of the restarted node stands
    Resumed {
        /// The lane
        conv: u32,
        /// Next sequence number of that kernel
        seq: u32,
        /// Next sequence number that it expects
        ack: u32,
        /// Sequence number before which the sender accepts all, where it splits again
        credit: u32,
        /// Whether it knows the connection at all, and what is to become of it
        standing: Standing,
    },
    /// What is not known yet
    Other {
        /// Type of the frame
        kind: u8,
        /// Its body
        body: &'a [u8],
    },
}

/// What a node that lived on knows of a connection, so that the restarted one can split it again
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Memory {
    /// Sequence number before which the sender has all that the receiver's kernel said
    pub edge: u32,
    /// Sequence number before which the sender accepts all
    pub credit: u32,
    /// Sequence number of the FIN of the sender's kernel, where it has come
    pub end: Option<u32>,
    /// Whether the stream of the receiver's kernel ends at the edge
    pub ended: bool,
    /// Whether both kernels take selective acknowledgements
    pub sack: bool,
    /// Largest segment that both kernels take
    pub mss: u16,
    /// Shifts of windows: those of the sender's kernel, and of the receiver's
    pub scales: [u8; 2],
}

/// What became of a connection at the node that restarted
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Standing {
    /// The kernel does not know it
    Dead,
    /// The kernel knows it; the node does not split it
    Plain,
    /// The node splits it again from here on
    Split,
}

/// What else is to be known of the bytes of a [`LaneFrame::Data`]
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Marks {
    /// The stream ends with these bytes
    pub fin: bool,
    /// The sender would have more if it had more credit
    pub starved: bool,
    /// Sequence number after the last urgent byte
    pub urgent: Option<u32>,
}

/// First type of a frame of a lane
pub const LANE_FIRST: u8 = 0x10;
/// Last type of a frame of a lane
pub const LANE_LAST: u8 = 0x1f;
/// Bytes that bytes of a stream need in a message besides themselves, urgent ones left out
pub const LANE_DATA_OVERHEAD: usize = super::frame::FRAME_HEADER + 9;

impl<'a> LaneFrame<'a> {
    /// Returns the lane, where the type is known
    pub fn conv(&self) -> Option<u32> {
        match self {
            Self::Open { conv, .. }
            | Self::Accept { conv, .. }
            | Self::Data { conv, .. }
            | Self::State { conv, .. }
            | Self::Reset { conv, .. }
            | Self::Probe { conv, .. }
            | Self::Resume { conv, .. }
            | Self::Resumed { conv, .. } => Some(*conv),
            Self::Other { .. } => None,
        }
    }

    /// Reads the body of a frame
    pub(super) fn parse(kind: u8, body: &'a [u8]) -> Result<Self, Malformed> {
        if !(OPEN..=RESUMED).contains(&kind) {
            return Ok(Self::Other { kind, body });
        }
        let mut rest = body;
        let conv = word(&mut rest)?;
        let frame = match kind {
            OPEN => {
                let credit = word(&mut rest)?;
                return Ok(Self::Open { conv, credit, packet: rest });
            }
            ACCEPT => {
                let credit = word(&mut rest)?;
                return Ok(Self::Accept { conv, credit, packet: rest });
            }
            DATA => {
                let seq = word(&mut rest)?;
                let marks = Marks::parse(&mut rest)?;
                return Ok(Self::Data { conv, seq, marks, data: rest });
            }
            STATE => {
                let (ack, credit) = (word(&mut rest)?, word(&mut rest)?);
                Self::State { conv, ack, credit, closed: flag(&mut rest)? }
            }
            RESET => Self::Reset { conv, opened: flag(&mut rest)? },
            PROBE => Self::Probe { conv, answer: flag(&mut rest)? },
            RESUME => Self::parse_resume(conv, &mut rest)?,
            _ => {
                let [seq, ack, credit] = [word(&mut rest)?, word(&mut rest)?, word(&mut rest)?];
                Self::Resumed { conv, seq, ack, credit, standing: Standing::parse(&mut rest)? }
            }
        };
        if rest.is_empty() { Ok(frame) } else { Err(Malformed) }
    }

    fn parse_resume(conv: u32, rest: &mut &'a [u8]) -> Result<Self, Malformed> {
        let (delivered, acked) = (word(rest)?, word(rest)?);
        let addrs = [array(rest)?, array(rest)?];
        let ports = [array(rest)?, array(rest)?].map(u16::from_be_bytes);
        Ok(Self::Resume { conv, delivered, acked, addrs, ports, memory: Memory::parse(rest)? })
    }

    /// Returns the type of the frame
    pub(super) fn kind(&self) -> u8 {
        match self {
            Self::Open { .. } => OPEN,
            Self::Accept { .. } => ACCEPT,
            Self::Data { .. } => DATA,
            Self::State { .. } => STATE,
            Self::Reset { .. } => RESET,
            Self::Probe { .. } => PROBE,
            Self::Resume { .. } => RESUME,
            Self::Resumed { .. } => RESUMED,
            Self::Other { kind, .. } => *kind,
        }
    }

    /// Appends the body
    pub(super) fn encode(&self, out: &mut Vec<u8>) {
        if let Some(conv) = self.conv() {
            out.extend_from_slice(&conv.to_be_bytes());
        }
        match self {
            Self::Open { conv: _, credit, packet } | Self::Accept { conv: _, credit, packet } => {
                out.extend_from_slice(&credit.to_be_bytes());
                out.extend_from_slice(packet);
            }
            Self::Data { conv: _, seq, marks, data } => {
                out.extend_from_slice(&seq.to_be_bytes());
                marks.encode(out);
                out.extend_from_slice(data);
            }
            Self::State { conv: _, ack, credit, closed } => {
                out.extend_from_slice(&ack.to_be_bytes());
                out.extend_from_slice(&credit.to_be_bytes());
                out.push((*closed).into());
            }
            Self::Reset { conv: _, opened: flag } | Self::Probe { conv: _, answer: flag } => {
                out.push((*flag).into());
            }
            Self::Resume { conv: _, delivered, acked, addrs, ports, memory } => {
                for word in [delivered, acked] {
                    out.extend_from_slice(&word.to_be_bytes());
                }
                out.extend_from_slice(addrs.as_flattened());
                for port in ports {
                    out.extend_from_slice(&port.to_be_bytes());
                }
                memory.encode(out);
            }
            Self::Resumed { conv: _, seq, ack, credit, standing } => {
                for word in [seq, ack, credit] {
                    out.extend_from_slice(&word.to_be_bytes());
                }
                out.push(*standing as u8);
            }
            Self::Other { body, .. } => out.extend_from_slice(body),
        }
    }

    /// Returns the length of the body
    pub(super) fn len(&self) -> usize {
        match self {
            Self::Open { packet, .. } | Self::Accept { packet, .. } => 8 + packet.len(),
            Self::Data { marks, data, .. } => 8 + marks.len() + data.len(),
            Self::State { .. } => 13,
            Self::Resumed { .. } => 17,
            Self::Reset { .. } | Self::Probe { .. } => 5,
            Self::Resume { .. } => 12 + 32 + 4 + MEMORY_LEN,
            Self::Other { body, .. } => body.len(),
        }
    }
}

impl Memory {
    fn parse(rest: &mut &[u8]) -> Result<Self, Malformed> {
        let [edge, credit, end] = [word(rest)?, word(rest)?, word(rest)?];
        let mss = u16::from_be_bytes(array(rest)?);
        let scales: [u8; 2] = array(rest)?;
        let [bits] = array(rest)?;
        if bits & !(HAS_END | ENDED | SACK) != 0 || scales.iter().any(|scale| *scale > SCALE_MAX) {
            return Err(Malformed);
        }
        let end = (bits & HAS_END != 0).then_some(end);
        let (ended, sack) = (bits & ENDED != 0, bits & SACK != 0);
        Ok(Self { edge, credit, end, ended, sack, mss, scales })
    }

    fn encode(self, out: &mut Vec<u8>) {
        for word in [self.edge, self.credit, self.end.unwrap_or(0)] {
            out.extend_from_slice(&word.to_be_bytes());
        }
        out.extend_from_slice(&self.mss.to_be_bytes());
        out.extend_from_slice(&self.scales);
        let bit = |set: bool, bit: u8| if set { bit } else { 0 };
        let end = bit(self.end.is_some(), HAS_END);
        out.push(end | bit(self.ended, ENDED) | bit(self.sack, SACK));
    }
}

impl Standing {
    fn parse(rest: &mut &[u8]) -> Result<Self, Malformed> {
        match array(rest)? {
            [0] => Ok(Self::Dead),
            [1] => Ok(Self::Plain),
            [2] => Ok(Self::Split),
            _ => Err(Malformed),
        }
    }
}

impl Marks {
    fn parse(rest: &mut &[u8]) -> Result<Self, Malformed> {
        let [bits] = array(rest)?;
        if bits & !(FIN | STARVED | URGENT) != 0 {
            return Err(Malformed);
        }
        let urgent = if bits & URGENT != 0 { Some(word(rest)?) } else { None };
        Ok(Self { fin: bits & FIN != 0, starved: bits & STARVED != 0, urgent })
    }

    fn encode(self, out: &mut Vec<u8>) {
        let bit = |set: bool, bit: u8| if set { bit } else { 0 };
        let urgent = bit(self.urgent.is_some(), URGENT);
        out.push(bit(self.fin, FIN) | bit(self.starved, STARVED) | urgent);
        if let Some(urgent) = self.urgent {
            out.extend_from_slice(&urgent.to_be_bytes());
        }
    }

    fn len(self) -> usize {
        if self.urgent.is_some() { 5 } else { 1 }
    }
}

fn array<const N: usize>(rest: &mut &[u8]) -> Result<[u8; N], Malformed> {
    let (head, tail) = rest.split_first_chunk().ok_or(Malformed)?;
    *rest = tail;
    Ok(*head)
}

fn word(rest: &mut &[u8]) -> Result<u32, Malformed> {
    array(rest).map(u32::from_be_bytes)
}

fn flag(rest: &mut &[u8]) -> Result<bool, Malformed> {
    match array(rest)? {
        [0] => Ok(false),
        [1] => Ok(true),
        _ => Err(Malformed),
    }
}

const OPEN: u8 = 0x10;
const ACCEPT: u8 = 0x11;
const DATA: u8 = 0x12;
const STATE: u8 = 0x13;
const RESET: u8 = 0x14;
const PROBE: u8 = 0x15;
const RESUME: u8 = 0x16;
const RESUMED: u8 = 0x17;
/// Bytes of a [`Memory`]
const MEMORY_LEN: usize = 17;
/// Largest shift of a window (RFC 7323)
const SCALE_MAX: u8 = 14;
const HAS_END: u8 = 1;
const ENDED: u8 = 2;
const SACK: u8 = 4;
const FIN: u8 = 1;
const STARVED: u8 = 2;
const URGENT: u8 = 4;
