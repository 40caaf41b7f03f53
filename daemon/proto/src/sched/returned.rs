//! What becomes of the buffers of packets that waited, where those were read into them.

use super::tests::{Bench, packet};
use super::*;
use crate::ip::Share;

#[test]
fn packet_is_marked_where_it_was_read_unless_somebody_else_reads_it() {
    for shared in [false, true] {
        let mut bench = Bench::new(0);
        bench.capacity.rate = Some(1_000_000);
        let (mut others, mut marked) = (Vec::new(), 0);
        for step in 0..3000 {
            let mut bytes = packet(9, 1000);
            bytes[1] = 2;
            let kept = kept(&bytes);
            let place = kept.bytes().as_ptr();
            others.extend(shared.then(|| kept.clone()));
            bench.load.push_packet(Stowed::Kept(kept).into(), bench.now);
            if step % 3 == 0 {
                bench.pass(1);
                continue;
            }
            let named = bench.load.next(&bench.capacity, bench.now);
            assert!(matches!(named, Some(Next::Datagram { .. })));
            let packet = bench.load.take_alone(1000, bench.now).unwrap().bytes;
            let is_marked = packet[1] == 3;
            marked += u32::from(is_marked);
            assert_eq!(matches!(packet, Stowed::Copied(_)), is_marked && shared);
            assert!(step > 0 || packet.as_ptr() == place);
            bench.pass(1);
        }

        assert!(marked > 10, "{marked}");
        assert!(others.iter().all(|other| other.bytes()[1] == 2));
    }
}

#[test]
fn whatever_becomes_of_a_packet_its_buffer_comes_back_once() {
    for (seed, loss) in [(1, 0), (2, 5), (3, 20), (4, 60)] {
        let mut bench = Bench::new(loss);
        let mut state: u64 = seed;
        let mut chance = move |below: u64| {
            state = state.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(0x1405_7b7e_f767_814f);
            (state >> 33) % below
        };
        let (mut pushed, mut gone) = (Vec::new(), Vec::new());
        for round in 0..3000 {
            // Now and then more than there is room for.
            let (burst, len) = if chance(200) == 0 { (1600, 1400) } else { (chance(4), 200) };
            for _ in 0..burst {
                let mut bytes = packet(chance(20) as u16, len);
                bytes[1] = chance(3) as u8;
                let kept = kept(&bytes);
                pushed.push(kept.piece().as_ptr());
                bench.load.push_packet(Stowed::Kept(kept).into(), bench.now);
            }
            if chance(50) == 0 {
                bench.relay(5, 300);
            }
            bench.load.set_copies(if round % 500 < 400 { 10 } else { 0 });
            for _ in 0..chance(12) {
                let (bytes, alone) = match bench.load.next(&bench.capacity, bench.now) {
                    Some(Next::Datagram { packet, id }) => (packet.len(), id.is_none()),
                    Some(Next::Copied { packet, .. }) => (packet.len(), chance(50) == 0),
                    Some(Next::Relay { message, .. }) => (message.len(), false),
                    Some(Next::Super(_) | Next::Lane(_) | Next::Copy(_)) => unreachable!(),
                    None => break,
                };
                match chance(20) {
                    0 => bench.load.take(None, 0, bench.now),
                    _ if alone => gone.extend(bench.load.take_alone(bytes, bench.now)),
                    _ => bench.load.take(None, bytes, bench.now),
                }
            }
            let recent = bench.load.next_id.wrapping_sub(chance(100) as u32);
            (0..chance(3)).for_each(|more| bench.load.on_acked(recent.wrapping_add(more as u32)));
            bench.pass(chance(4));
            gone.extend(core::iter::from_fn(|| bench.load.poll_gone()));
        }
        bench.run(5000);
        gone.extend(core::iter::from_fn(|| bench.load.poll_gone()));

        let (kept, copied): (Vec<_>, Vec<_>) =
            gone.iter().partition(|gone| matches!(gone.bytes, Stowed::Kept(_)));
        let mut back: Vec<_> = kept.iter().map(|kept| place(&kept.bytes)).collect();
        back.sort_unstable();
        pushed.sort_unstable();
        assert!(back == pushed, "{} of {}", back.len(), pushed.len());
        assert!(bench.load.take_dropped() > 1000 && copied.iter().all(|gone| gone.bytes[0] == 5));
    }
}

#[test]
fn packets_of_which_there_is_no_room_for_copies_leave_their_buffers() {
    let mut bench = Bench::new(20);
    for port in 0..5000 {
        bench.load.push_packet(Stowed::Kept(kept(&packet(port, 1400))).into(), bench.now);
        bench.next();
    }
    bench.run(5000);

    assert_eq!(core::iter::from_fn(|| bench.load.poll_gone()).count(), 5000);
}

/// Lets a packet lie where it was read
fn kept(bytes: &[u8]) -> Share {
    Share::new(&bytes.into(), 0..bytes.len()).unwrap()
}

/// Returns where a packet was read
fn place(bytes: &Stowed) -> *const u8 {
    match bytes {
        Stowed::Kept(bytes) => bytes.piece().as_ptr(),
        Stowed::Copied(_) => panic!("it was copied"),
    }
}
