//! Packets for the device, whose payload may still lie where it was put in order.
//!
//! A [`Parcel`] is what a node hands to its device: a packet or super-packet as any other, or one of which
//! only the headers were written and the [`Body`] is shared with whoever keeps its bytes (a window of a split
//! connection). So nobody but the kernel copies the bytes of a stream once they are in order.
//!
//! # Contract
//!
//! - What is shared does not change while a [`Share`] of it lives: whoever keeps it writes elsewhere.
//! - All headers are in the head. A body is the rest of a payload, never a part of a header.
//! - A parcel is made by the node itself: what comes from elsewhere is an [`Inner`].

use core::ops::Range;
use std::sync::Arc;

use super::gso::{Cutter, Inner};
use super::merge::{Merged, merge};
use super::packet::{Packet, PacketError};

/// A packet or super-packet on its way to the device
#[derive(Clone, Debug, Default)]
pub struct Parcel {
    head: Inner,
    body: Body,
}

/// Bytes that follow each other, shared with whoever keeps them
#[derive(Clone, Debug, Default)]
pub struct Body {
    shares: [Option<Share>; SHARES_MAX],
}

/// Some bytes of one piece of memory
#[derive(Clone, Debug)]
pub struct Share {
    piece: Arc<[u8]>,
    start: u32,
    end: u32,
}

impl From<Inner> for Parcel {
    fn from(head: Inner) -> Self {
        Self { head, body: Body::default() }
    }
}

impl From<Vec<u8>> for Parcel {
    fn from(bytes: Vec<u8>) -> Self {
        Inner::from(bytes).into()
    }
}

/// The same packet is the same, wherever its bytes lie
impl PartialEq for Parcel {
    fn eq(&self, other: &Self) -> bool {
        self.head.gso == other.head.gso && self.pieces().flatten().eq(other.pieces().flatten())
    }
}

impl Eq for Parcel {}

impl Parcel {
    /// Puts a packet together of what begins it, all headers included, and the rest
    #[must_use]
    pub fn new(head: Inner, body: Body) -> Self {
        Self { head, body }
    }

    /// Joins a packet to it if it goes on where this one ends, and nothing of this one lies elsewhere
    pub(crate) fn merge(&mut self, next: &[u8]) -> Merged {
        // To headers without payload nothing is ever joined.
        merge(&mut self.head, next)
    }

    /// Returns the buffer of what begins it, for others
    #[must_use]
    pub fn into_buffer(self) -> Vec<u8> {
        self.head.bytes
    }

    /// Returns what begins it: all headers, and whatever was written behind them
    #[must_use]
    pub fn head(&self) -> &[u8] {
        &self.head.bytes
    }

    /// Returns how many bytes it has in all
    #[must_use]
    pub fn len(&self) -> usize {
        self.head.bytes.len() + self.body.len()
    }

    /// Tells whether there is nothing in it
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Reads its headers; of the payload the view has only what is in the head
    ///
    /// # Errors
    /// If the bytes are shorter or longer than the packet says it is, or no IP packet at all.
    pub fn view(&self) -> Result<Packet<'_>, PacketError> {
        Packet::parse_head(&self.head.bytes, self.len())
    }

    /// Goes through the pieces of memory that it lies in, in order: never more than [`PIECES_MAX`]
    pub fn pieces(&self) -> impl Iterator<Item = &[u8]> {
        core::iter::once(self.head()).chain(self.body.pieces())
    }

    /// Tells whether it is a super-packet
    #[must_use]
    pub fn is_super(&self) -> bool {
        self.head.gso.is_some()
    }

    /// Looks at how it is to be cut; nothing where it is an ordinary packet, or its headers make no sense
    #[must_use]
    pub fn cutter(&self) -> Option<Cutter<'_>> {
        Cutter::of(self.view().ok()?, Some(&self.body), self.head.gso?)
    }

    /// Returns how many packets it consists of
    #[must_use]
    pub fn packets(&self) -> usize {
        self.cutter().map_or(1, |cutter| cutter.segments())
    }

    /// Goes through the packets that it consists of, each in one piece; `space` is reused
    pub fn each(&self, space: &mut Vec<u8>, mut each: impl FnMut(&[u8])) {
        if self.is_super() {
            let Some(mut cutter) = self.cutter() else { return };
            while cutter.next(space) {
                each(space);
            }
        } else if self.body.is_empty() {
            each(&self.head.bytes);
        } else {
            space.clear();
            self.pieces().for_each(|piece| space.extend_from_slice(piece));
            each(space);
        }
    }
}

impl Body {
    /// Appends a share; false, and the body is as before, where there are as many as there can be
    #[must_use]
    pub fn push(&mut self, share: Share) -> bool {
        let place = self.shares.iter_mut().find(|place| place.is_none());
        place.map(|place| *place = Some(share)).is_some()
    }

    /// Returns how many bytes there are
    #[must_use]
    pub fn len(&self) -> usize {
        self.shares.iter().flatten().map(Share::len).sum()
    }

    /// Tells whether there are none
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Goes through the pieces of memory that it lies in, in order
    pub fn pieces(&self) -> impl Iterator<Item = &[u8]> {
        self.shares.iter().flatten().map(Share::bytes)
    }
}

impl Share {
    /// Shares some bytes of a piece; nothing where it has not so many
    #[must_use]
    pub fn new(piece: &Arc<[u8]>, range: Range<usize>) -> Option<Self> {
        piece.get(range.clone())?;
        let (start, end) = (range.start.try_into().ok()?, range.end.try_into().ok()?);
        Some(Self { piece: Arc::clone(piece), start, end })
    }

    /// Shares some of the same bytes; nothing where there are not so many
    #[must_use]
    pub fn part(&self, range: Range<usize>) -> Option<Self> {
        self.bytes().get(range.clone())?;
        let start = self.start as usize;
        Self::new(&self.piece, start + range.start..start + range.end)
    }

    /// Returns the bytes
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        // They were there, and a piece that is shared does not change.
        self.piece.get(self.start as usize..self.end as usize).unwrap_or_default()
    }

    /// Returns the bytes, to be changed; nothing where somebody else has them as well
    #[must_use]
    pub fn bytes_mut(&mut self) -> Option<&mut [u8]> {
        let range = self.start as usize..self.end as usize;
        Arc::get_mut(&mut self.piece)?.get_mut(range)
    }

    /// Returns how many bytes there are
    #[must_use]
    pub fn len(&self) -> usize {
        self.end.saturating_sub(self.start) as usize
    }

    /// Tells whether there are none
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Returns the whole piece that the bytes lie in
    #[must_use]
    pub fn piece(&self) -> &[u8] {
        &self.piece
    }

    /// Returns the piece itself
    #[must_use]
    pub fn into_piece(self) -> Arc<[u8]> {
        self.piece
    }
}

/// Shares of one body: what the largest packet for a kernel has, if each but the first and the last is a
/// whole piece of a window
pub const SHARES_MAX: usize = 5;
/// Pieces of memory that one packet lies in at most
pub const PIECES_MAX: usize = 1 + SHARES_MAX;

#[cfg(test)]
mod tests {
    use super::super::gso::Gso;
    use super::super::gso::testing::packet;
    use super::super::numbers::{ACK, PSH, TCP, UDP};
    use super::*;

    /// Takes a packet apart: what is behind `head` bytes becomes shares of at most `most` bytes
    fn apart(whole: &Inner, head: usize, most: usize) -> Parcel {
        let mut body = Body::default();
        for part in whole.bytes[head..].chunks(most) {
            // It lies somewhere in a piece.
            let piece = Arc::from([&[9; 7], part, &[9; 3]].concat());
            assert!(body.push(Share::new(&piece, 7..7 + part.len()).unwrap()));
        }
        Parcel::new(Inner { bytes: whole.bytes[..head].to_vec(), gso: whole.gso }, body)
    }

    fn row(len: u32) -> Vec<u8> {
        (0..len).map(|at| (at * 7 + at / 256) as u8).collect()
    }

    #[test]
    fn packet_in_pieces_is_the_packet_that_it_was() {
        for (v6, header) in [(false, 40), (true, 60)] {
            for gso in [None, Some(Gso { size: 1000, transport: header - 20 })] {
                let bytes = packet(v6, TCP, 5, ACK | PSH, &row(4321));
                let whole = Inner { bytes, gso };
                let mut expected = Vec::new();
                let parcel = Parcel::from(whole.clone());
                parcel.each(&mut Vec::new(), |packet| expected.push(packet.to_vec()));

                for (head, most) in [(header.into(), 1000), (header.into(), 5000), (100, 900)] {
                    let parcel = apart(&whole, head, most);

                    let mut seen = Vec::new();
                    parcel.each(&mut vec![1; 10], |packet| seen.push(packet.to_vec()));
                    assert_eq!(seen, expected, "{head} {most}");
                    assert_eq!(parcel.packets(), expected.len());
                    assert_eq!(parcel.len(), whole.bytes.len());
                    assert_eq!(parcel, whole.clone().into());
                    let view = Packet::parse(&whole.bytes).unwrap();
                    assert_eq!(parcel.view().unwrap().dst(), view.dst());
                }
            }
        }
    }

    #[test]
    fn body_that_is_not_as_long_as_the_headers_say_makes_no_packet() {
        let gso = Some(Gso { size: 1000, transport: 20 });
        let whole = Inner { bytes: packet(false, TCP, 5, ACK, &row(4000)), gso };
        let mut parcel = apart(&whole, 40, 1000);
        assert!(parcel.view().is_ok());

        parcel.body.shares[2] = None;

        assert!(parcel.view().is_err() && parcel.cutter().is_none());
        parcel.each(&mut Vec::new(), |_| panic!("a packet of what is not there"));
    }

    #[test]
    fn body_holds_no_more_shares_than_it_can() {
        let piece: Arc<[u8]> = Arc::from([1; 10]);
        let share = |range| Share::new(&piece, range);
        let mut body = Body::default();
        assert!(body.is_empty());
        for number in 1..=SHARES_MAX {
            assert!(body.push(share(2..5).unwrap()));
            assert_eq!(body.len(), 3 * number);
        }

        assert!(!body.push(share(0..1).unwrap()));
        assert_eq!(body.len(), 3 * SHARES_MAX);
        assert!(share(5..11).is_none());
    }

    #[test]
    fn part_of_a_share_has_none_but_its_bytes() {
        let piece: Arc<[u8]> = Arc::from([0, 1, 2, 3, 4, 5, 6, 7, 8, 9]);
        let share = Share::new(&piece, 2..8).unwrap();

        assert_eq!(share.part(1..4).unwrap().bytes(), [3, 4, 5]);
        assert_eq!(share.part(0..6).unwrap().bytes(), share.bytes());
        assert!(share.part(6..6).is_some_and(|none| none.is_empty()));
        assert!(share.part(1..7).is_none() && share.part(7..7).is_none());
    }

    #[test]
    fn what_is_shared_is_changed_by_nobody() {
        let mut share = Share::new(&Arc::from([7; 10]), 2..5).unwrap();
        let other = share.clone();
        assert!(share.bytes_mut().is_none());

        drop(other);
        share.bytes_mut().unwrap().fill(1);

        assert_eq!(share.into_piece()[..], [7, 7, 1, 1, 1, 7, 7, 7, 7, 7]);
    }

    #[test]
    fn nothing_is_joined_to_headers_whose_payload_lies_elsewhere() {
        for v6 in [false, true] {
            let gso = Some(Gso { size: 1000, transport: if v6 { 40 } else { 20 } });
            let whole = Inner { bytes: packet(v6, TCP, 0, ACK, &row(4000)), gso };
            let header = if v6 { 60 } else { 40 };
            let next = packet(v6, TCP, 4000, ACK, &[3; 1000]);
            let at_once = packet(v6, TCP, 0, ACK, &[3; 1000]);
            let mut other = packet(v6, UDP, 0, 0, &[3; 1000]);
            other[header - 18] ^= 1;
            let mut parcel = apart(&whole, header, 1000);

            assert_eq!(parcel.merge(&next), Merged::Behind);
            assert_eq!(parcel.merge(&at_once), Merged::Behind);
            assert_eq!(parcel.merge(&other), Merged::Apart);

            assert_eq!(parcel, whole.clone().into());
            assert_eq!(merge(&mut whole.clone(), &next), Merged::Joined);
        }
    }
}
