//! Packets in the memory of whoever reads and writes them: buffers that go round.

use super::Node;
use crate::buffers::PacketBuffer;
use crate::ip::{Gso, Parcel};
use crate::time::Instant;

impl Node {
    /// Takes the inner packet or super-packet in a buffer
    ///
    /// As [`Node::handle_packet`] does, but what has to be kept of it may stay where it is. That part of the buffer is
    /// exchanged for another one then.
    pub fn handle_buffer(&mut self, buffer: &mut PacketBuffer, gso: Option<Gso>, now: Instant) {
        self.shared.pool.shelf.lend(buffer);
        self.handle_packet(buffer, gso, now);
        self.shared.pool.shelf.renew(buffer);
    }

    /// Takes back the buffer of a packet that was written to the TUN, for others
    pub fn give_back(&mut self, packet: Parcel) {
        self.shared.pool.buffers.give(packet.into_buffer());
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{Net, millis, secs, segment_with};
    use super::*;
    use crate::ip::numbers::{ACK, TCP};
    use crate::ip::testing::packet;
    use crate::limits::PACKET_MAX;

    /// A segment of one of two kernels, which are at the nodes 1 and 2
    fn segment(from: usize, numbers: [u32; 2], flags: u8, data: &[u8]) -> Vec<u8> {
        segment_with([from, 3 - from], numbers, flags, data)
    }

    fn say(net: &mut Net, from: usize, numbers: [u32; 2], flags: u8) {
        net.say([from, 3 - from], numbers, flags);
        net.run(millis(200));
    }

    /// Reads a packet into a buffer and gives it to the first node; tells whether the buffer was kept
    fn read(net: &mut Net, bytes: &[u8], gso: Option<Gso>, buffer: &mut PacketBuffer) -> bool {
        buffer.put(bytes);
        let place = buffer.as_ptr();
        net.nodes[1].handle_buffer(buffer, gso, net.now);
        let kept = buffer.as_ptr() != place;
        // What is read next.
        buffer.put(&[0xee; PACKET_MAX]);
        net.drain(1);
        net.run(secs(1));
        kept
    }

    const GSO: Option<Gso> = Some(Gso { size: 536, transport: 20 });

    #[test]
    fn super_packet_that_stays_where_it_was_read_comes_out_at_the_other_end() {
        let mut net = Net::connected(millis(10));
        let (mut buffer, mut said) = (PacketBuffer::for_mtu(1400), 0);
        buffer.put(&[0; PACKET_MAX]);
        let place = buffer.as_ptr();
        let lens = [(60_000, true), (20_000, false), (59_000, true), (1300, false), (300, false)];
        for (len, kept) in lens {
            let data: Vec<u8> = (said..said + len).map(|at| (at * 7 + at / 251) as u8).collect();
            let packet = segment(1, [101 + said as u32, 901], ACK, &data);
            let gso = GSO.filter(|_| len > 536);

            assert_eq!(read(&mut net, &packet, gso, &mut buffer), kept, "{len}");

            // The other kernel says what it has until it has all: then the buffer is free, and the next one.
            let mut came = Vec::new();
            for _ in 0..100 {
                for packet in net.packets[2].drain(..).filter(|packet| packet[9] == TCP) {
                    let seq = u32::from_be_bytes(packet[24..28].try_into().unwrap()) as usize;
                    if seq == 101 + said + came.len() {
                        came.extend_from_slice(&packet[40..]);
                    }
                }
                say(&mut net, 2, [901, (101 + said + came.len()) as u32], ACK);
            }
            assert!(came == data, "{} of {len}", came.len());
            said += len;
        }

        assert_eq!((buffer.len(), buffer.as_ptr()), (PACKET_MAX, place));
    }

    #[test]
    fn buffer_of_what_travels_as_it_is_stays_with_whoever_reads() {
        let mut net = Net::connected(millis(10));
        let mut buffer = PacketBuffer::default();
        let mut other = segment(1, [5, 5], ACK, &[7; 60_000]);
        other[21] ^= 1;
        let datagram = packet(false, crate::ip::numbers::UDP, 0, 0, &[7; 60_000]);

        for packet in [other, datagram, vec![0x45; 65_000], vec![]] {
            assert!(!read(&mut net, &packet, GSO, &mut buffer));
        }
    }
}
