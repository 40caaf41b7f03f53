//! Two nodes' connections, with kernels that say what a test has them say.

use super::segment::Segment;
use super::*;
use crate::buffers::PacketBuffer;
use crate::limits::MEMORY_DEFAULT;
use crate::time::Duration;
use crate::wire::frame::{Frame, frames};

/// Two nodes, and what they said to their kernels and to each other as plain packets
pub(super) struct Pair {
    pub(super) now: Instant,
    pub(super) nodes: [Connections; 2],
    pub(super) pools: [Pool; 2],
    /// Segments that a kernel was written, and that no test has looked at
    pub(super) written: [VecDeque<Seen>; 2],
    pub(super) ends: Ends,
    /// Messages that came when there was no memory for them
    pub(super) refused: u32,
    /// Lanes that may have more to send
    awake: [VecDeque<u32>; 2],
    /// Whether the last packet of a kernel was in a buffer to keep
    lends: bool,
}

/// A segment as a kernel sees it
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct Seen {
    pub(super) seq: u32,
    pub(super) ack: u32,
    pub(super) flags: u8,
    pub(super) window: u16,
    pub(super) urgent: u16,
    pub(super) options: Vec<u8>,
    pub(super) data: Vec<u8>,
}

/// A segment for a kernel to say, but for its addresses
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Say<'a> {
    pub(super) seq: u32,
    pub(super) ack: u32,
    pub(super) flags: u8,
    pub(super) urgent: u16,
    pub(super) options: &'a [u8],
    pub(super) data: &'a [u8],
    pub(super) window: Option<u16>,
}

pub(super) const CLIENT: usize = 0;
pub(super) const SERVER: usize = 1;
/// Initial sequence numbers of the two; the client's numbers wrap soon
pub(super) const ISN: [u32; 2] = [u32::MAX - 2000, 5000];
/// MSS 1000, window scale 7
pub(super) const OPTIONS: [u8; 8] = [2, 4, 3, 232, 1, 3, 3, 7];

impl Pair {
    pub(super) fn new() -> Self {
        Self::with_memory(MEMORY_DEFAULT)
    }

    pub(super) fn with_memory(size: usize) -> Self {
        Self {
            now: Instant::ZERO + Duration::from_secs(1),
            nodes: [Connections::new(Parity::Even), Connections::new(Parity::Odd)],
            pools: [size; 2].map(Pool::new),
            written: [VecDeque::new(), VecDeque::new()],
            ends: Ends {
                local: "10.0.0.1:1000".parse().unwrap(),
                remote: "10.0.0.2:80".parse().unwrap(),
            },
            refused: 0,
            awake: Default::default(),
            lends: false,
        }
    }

    /// Two kernels that have a connection
    pub(super) fn open() -> Self {
        let mut pair = Self::new();
        pair.connect();
        pair
    }

    pub(super) fn connect(&mut self) {
        let (syn, syn_ack) = (SYN, SYN | ACK);
        let say = Say { seq: ISN[0], flags: syn, options: &OPTIONS, ..Say::default() };
        assert_eq!(self.say(CLIENT, say), Handling::Taken);
        self.pump();
        let ack = ISN[0].wrapping_add(1);
        let say = Say { seq: ISN[1], ack, flags: syn_ack, options: &OPTIONS, ..Say::default() };
        assert_eq!(self.say(SERVER, say), Handling::Taken);
        self.pump();
        self.says(CLIENT, 0, 0, &[]);
        self.pump();
        self.written.iter_mut().for_each(VecDeque::clear);
    }

    /// A kernel says something
    pub(super) fn say(&mut self, at: usize, say: Say<'_>) -> Handling {
        let ends = if at == CLIENT { self.ends } else { self.ends.turned() };
        let Say { seq, ack, flags, urgent, options, data, window } = say;
        let window = window.unwrap_or(60_000);
        let segment = Segment { ends, seq, ack, flags, window, urgent, options, data, class: 0 };
        // Every other one lies in a buffer that may be kept.
        let mut buffer = PacketBuffer::from(segment.encode());
        self.lends = !self.lends;
        if self.lends {
            self.pools[at].shelf.lend(&buffer);
        }
        let handling = self.nodes[at].handle_packet(&buffer, None, &mut self.pools[at], self.now);
        self.pools[at].shelf.renew(&mut buffer);
        self.collect(at);
        handling
    }

    /// A kernel of an open connection says bytes, and acknowledges so many
    pub(super) fn says(&mut self, at: usize, sent: u32, acked: u32, data: &[u8]) {
        let seq = ISN[at].wrapping_add(1).wrapping_add(sent);
        let ack = ISN[1 - at].wrapping_add(1).wrapping_add(acked);
        let say = Say { seq, ack, flags: ACK, data, ..Say::default() };
        assert_eq!(self.say(at, say), Handling::Taken);
    }

    /// Takes all that the two nodes have to say to each other, until they are silent
    pub(super) fn pump(&mut self) {
        while self.carry(CLIENT, true) | self.carry(SERVER, true) {}
    }

    /// Takes what one node has to say to the other, which hears it or not
    pub(super) fn carry(&mut self, at: usize, heard: bool) -> bool {
        let mut any = false;
        self.nodes[at].flush(&mut self.pools[at], self.now);
        while let Some(conv) = self.nodes[at].poll_ready() {
            self.awake[at].push_back(conv);
        }
        while let Some(conv) = self.awake[at].front().copied() {
            let mut out = Vec::new();
            while let Some(written) = self.nodes[at].write_frame(conv, 1300, &mut out, self.now) {
                any = true;
                let taken = !heard || {
                    frames(&out).fold(true, |taken, frame| {
                        match self.hear(1 - at, frame.unwrap()) {
                            Ok(()) => taken,
                            Err(Fault::NoRoom) => false,
                            Err(Fault::Malformed) => panic!("{frame:?} breaks the protocol"),
                        }
                    })
                };
                if !heard || !taken {
                    self.nodes[at].on_lost(written.piece);
                    self.refused += u32::from(!taken);
                    return taken;
                }
                self.nodes[at].on_acked(written.piece, self.now);
                out.clear();
            }
            self.awake[at].pop_front();
            self.nodes[at].flush(&mut self.pools[at], self.now);
            while let Some(conv) = self.nodes[at].poll_ready() {
                self.awake[at].push_back(conv);
            }
        }
        self.collect(at);
        any
    }

    pub(super) fn hear(&mut self, at: usize, frame: Frame<'_>) -> Result<(), Fault> {
        let Frame::Lane(frame) = frame else { panic!("{frame:?}") };
        let result = self.nodes[at].handle_frame(&frame, &mut self.pools[at], self.now);
        self.collect(at);
        result
    }

    /// Lets time pass, and the nodes talk
    pub(super) fn pass(&mut self, time: Duration) {
        let end = self.now + time;
        loop {
            let due = self.nodes.iter().filter_map(Connections::deadline).min();
            let Some(due) = due.filter(|due| *due <= end) else { break };
            self.now = self.now.max(due);
            for at in [CLIENT, SERVER] {
                self.nodes[at].handle_timeout(&mut self.pools[at], self.now);
                self.collect(at);
                assert!(self.nodes[at].deadline().is_none_or(|due| due > self.now));
            }
            self.pump();
        }
        self.now = end;
    }

    pub(super) fn collect(&mut self, at: usize) {
        self.nodes[at].flush(&mut self.pools[at], self.now);
        while self.nodes[at].poll_change().is_some() {}
        while let Some(packet) = self.nodes[at].poll_packet() {
            packet.each(&mut Vec::new(), |packet| {
                let view = Packet::parse(packet).unwrap();
                let segment = Segment::parse(&view, None).unwrap();
                self.written[at].push_back(Seen {
                    seq: segment.seq,
                    ack: segment.ack,
                    flags: segment.flags,
                    window: segment.window,
                    urgent: segment.urgent,
                    options: segment.options.to_vec(),
                    data: segment.data.to_vec(),
                });
            });
        }
    }

    /// Takes all that a kernel was written, and returns the last of it
    pub(super) fn last(&mut self, at: usize) -> Option<Seen> {
        self.written[at].drain(..).next_back()
    }

    /// Takes all bytes of streams that a kernel was written
    pub(super) fn bytes(&mut self, at: usize) -> Vec<u8> {
        self.written[at].drain(..).flat_map(|seen| seen.data).collect()
    }
}

/// A segment of a kernel of an open connection, as a packet
pub(super) fn packet_from(pair: &Pair, at: usize, sent: u32, data: &[u8]) -> Vec<u8> {
    let ends = if at == CLIENT { pair.ends } else { pair.ends.turned() };
    let seq = ISN[at].wrapping_add(1).wrapping_add(sent);
    let ack = ISN[1 - at].wrapping_add(1);
    let (window, urgent, options, class) = (60_000, 0, &[][..], 0);
    Segment { ends, seq, ack, flags: ACK, window, urgent, options, data, class }.encode()
}
