use proptest::prelude::*;

use super::*;
use crate::limits::{CONTROL_MAX, LANE_QUEUE, SEGMENT_MAX};

const NOW: Instant = Instant::ZERO;

#[test]
fn messages_of_any_length_arrive_whole_and_in_order() {
    let (mut near, mut far) = pair(0);
    let messages = [vec![1; 10], Vec::new(), vec![2; SEGMENT_MAX], vec![3; CONTROL_MAX]];
    for message in &messages {
        near.write(message, NOW).unwrap();
    }

    let mut arrived = Vec::new();
    while near.has_output() {
        pass(&mut near, &mut far);
        arrived.extend(core::iter::from_fn(|| far.read()));
        if let Some((una, wnd)) = far.take_window() {
            near.on_window(una, wnd);
        }
    }

    assert_eq!(arrived, messages);
    assert_eq!(near.oldest_unacked(), None);
}

#[test]
fn lost_segment_is_sent_again_before_new_ones() {
    let (mut near, mut far) = pair(u32::MAX);
    (0..3).for_each(|n| near.write(&[n], NOW).unwrap());
    let (lost, _) = near.next_segment(ROOM, NOW).unwrap();
    pass(&mut near, &mut far);
    assert_eq!(far.read(), None, "the first one is missing");

    near.on_lost(lost);

    pass(&mut near, &mut far);
    assert_eq!((far.read(), far.read()), (Some(vec![0]), Some(vec![1])));
}

#[test]
fn segment_that_arrived_is_not_lost_with_another_copy() {
    let (mut near, _) = pair(0);
    near.write(b"once", NOW).unwrap();
    let (sn, _) = near.next_segment(ROOM, NOW).unwrap();
    near.on_lost(sn);
    assert!(near.next_segment(ROOM, NOW).is_some());

    near.on_acked(sn, NOW);
    near.on_lost(sn);

    assert!(!near.has_output());
}

#[test]
fn unread_messages_shut_the_window_and_reading_opens_it() {
    let (mut near, mut far) = pair(7);
    (0..=LANE_WINDOW).for_each(|n| near.write(&n.to_be_bytes(), NOW).unwrap());
    while near.has_output() {
        pass(&mut near, &mut far);
    }
    assert_eq!(far.take_window(), None, "nothing has opened");

    assert!(far.read().is_some());
    let (una, wnd) = far.take_window().unwrap();
    assert_eq!((una, wnd), (7 + LANE_WINDOW, 1));
    near.on_window(una, wnd);

    assert!(near.has_output());
}

#[test]
fn news_of_the_window_is_told_again_when_lost() {
    let (mut near, mut far) = pair(0);
    (0..LANE_WINDOW).for_each(|n| near.write(&n.to_be_bytes(), NOW).unwrap());
    while near.has_output() {
        pass(&mut near, &mut far);
        let _ = far.read();
    }
    let told = far.take_window();
    assert!(told.is_some() && far.take_window().is_none());

    far.on_window_lost();

    assert_eq!(far.take_window(), told);
}

#[test]
fn queue_is_bounded_in_bytes_and_in_messages() {
    let mut lane = Lane::new(1);
    assert_eq!(lane.write(&vec![0; CONTROL_MAX + 1], NOW), Err(LaneFull));

    let large = (0..).take_while(|_| lane.write(&vec![0; CONTROL_MAX], NOW).is_ok()).count();
    assert_eq!(large, LANE_QUEUE / CONTROL_MAX);

    lane.reset();
    assert!((0..).take_while(|_| lane.write(&[], NOW).is_ok()).count() < 10_000);
}

#[test]
fn oldest_message_is_told_until_its_last_segment_arrived() {
    let (mut near, _) = pair(0);
    let later = Instant::from_nanos(9);
    near.write(&[0; 2 * SEGMENT_MAX], NOW).unwrap();
    near.write(&[1], later).unwrap();
    let sent: Vec<_> =
        core::iter::from_fn(|| near.next_segment(ROOM, NOW).map(|(sn, _)| sn)).collect();

    near.on_acked(sent[0], later);
    assert_eq!(near.oldest_unacked(), Some(NOW));
    near.on_acked(sent[1], later);
    assert_eq!(near.oldest_unacked(), Some(later));
}

#[test]
fn segments_that_break_the_protocol_are_refused() {
    let good = Segment { conv: 1, sn: 0, una: 0, wnd: 64, frg: 1, data: b"x" };
    let bad = [
        Segment { conv: 2, ..good },
        Segment { sn: LANE_WINDOW, ..good },
        Segment { frg: 64, ..good },
        Segment { data: &[0; SEGMENT_MAX + 1], ..good },
    ];
    for segment in bad {
        assert_eq!(Lane::new(1).on_segment(&segment), Err(Malformed), "{segment:?}");
    }

    let mut lane = Lane::new(1);
    assert_eq!(lane.on_segment(&good), Ok(()));
    assert_eq!(lane.on_segment(&Segment { sn: 1, frg: 1, ..good }), Err(Malformed));
    assert_eq!(lane.on_segment(&Segment { sn: 1, frg: 0, ..good }), Err(Malformed), "for good");
}

#[test]
fn impossible_windows_change_nothing() {
    let (mut near, _) = pair(0);
    near.write(&[0], NOW).unwrap();

    for (una, wnd) in [(1, 64), (u32::MAX, 64), (0, u16::MAX), (1 << 31, 0)] {
        near.on_window(una, wnd);
    }

    assert_eq!(near.next_segment(ROOM, NOW).map(|(sn, _)| sn), Some(0));
    assert!(near.oldest_unacked().is_some());
}

#[test]
fn segment_that_does_not_fit_waits() {
    let (mut near, _) = pair(0);
    near.write(&[0; 100], NOW).unwrap();

    assert!(near.next_segment(115, NOW).is_none());
    assert!(near.next_segment(116, NOW).is_some());
}

/// What may happen to what is under way
#[derive(Clone, Copy, Debug)]
enum Step {
    Write(usize),
    Send,
    Deliver(usize),
    Duplicate(usize),
    Lose(usize),
    Late(usize),
    Read,
    Tell,
    Hear(usize),
    LoseTelling,
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    #[test]
    fn any_network_delivers_what_was_written_in_order(
        start in prop_oneof![Just(0), (u32::MAX - 300)..],
        steps in prop::collection::vec(step(), 1..400),
    ) {
        let mut world = World::new(start);
        for step in steps {
            world.apply(step);
            prop_assert!(world.written.starts_with(&world.read));
        }
        world.finish();
        prop_assert_eq!(&world.read, &world.written);
        prop_assert_eq!(world.near.oldest_unacked(), None);
    }
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        2 => prop_oneof![0..40_usize, 1000..3000_usize, Just(CONTROL_MAX)].prop_map(Step::Write),
        6 => Just(Step::Send),
        4 => (0..8_usize).prop_map(Step::Deliver),
        1 => (0..8_usize).prop_map(Step::Duplicate),
        2 => (0..8_usize).prop_map(Step::Lose),
        1 => (0..8_usize).prop_map(Step::Late),
        1 => Just(Step::Read),
        1 => Just(Step::Tell),
        1 => (0..3_usize).prop_map(Step::Hear),
        1 => Just(Step::LoseTelling),
    ]
}

/// A lane in each direction of a network that does what the steps say
struct World {
    near: Lane,
    far: Lane,
    under_way: Vec<Copy>,
    tellings: Vec<(u32, u16)>,
    written: Vec<Vec<u8>>,
    read: Vec<Vec<u8>>,
}

#[derive(Clone)]
struct Copy {
    sn: u32,
    una: u32,
    wnd: u16,
    frg: u8,
    data: Vec<u8>,
}

impl World {
    fn new(start: u32) -> Self {
        let (near, far) = pair(start);
        let (written, read) = (Vec::new(), Vec::new());
        Self { near, far, under_way: Vec::new(), tellings: Vec::new(), written, read }
    }

    fn apply(&mut self, step: Step) {
        match step {
            Step::Write(len) => {
                let message = vec![self.written.len() as u8; len];
                if self.near.write(&message, NOW).is_ok() {
                    self.written.push(message);
                }
            }
            Step::Send => self.under_way.extend(self.near.next_segment(ROOM, NOW).map(owned)),
            Step::Deliver(at) => {
                if let Some(copy) = self.take(at) {
                    self.deliver(&copy);
                    self.near.on_acked(copy.sn, NOW);
                }
            }
            Step::Duplicate(at) => {
                if let Some(copy) = self.under_way.get(at).cloned() {
                    self.deliver(&copy);
                }
            }
            Step::Lose(at) => {
                if let Some(copy) = self.take(at) {
                    self.near.on_lost(copy.sn);
                }
            }
            Step::Late(at) => {
                if let Some(copy) = self.take(at) {
                    self.near.on_lost(copy.sn);
                    self.deliver(&copy);
                }
            }
            Step::Read => self.read.extend(self.far.read()),
            Step::Tell => self.tellings.extend(self.far.take_window()),
            Step::Hear(at) => {
                if at < self.tellings.len() {
                    let (una, wnd) = self.tellings.remove(at);
                    self.near.on_window(una, wnd);
                }
            }
            Step::LoseTelling => {
                if self.far.take_window().is_some() {
                    self.far.on_window_lost();
                }
            }
        }
    }

    fn finish(&mut self) {
        for _ in 0..200_000 {
            for step in [Step::Send, Step::Deliver(0), Step::Read, Step::Tell, Step::Hear(0)] {
                self.apply(step);
            }
            let idle = self.under_way.is_empty() && !self.near.has_output();
            if idle && self.near.oldest_unacked().is_none() && !self.far.needs_window_update() {
                break;
            }
        }
        self.read.extend(core::iter::from_fn(|| self.far.read()));
    }

    fn take(&mut self, at: usize) -> Option<Copy> {
        (at < self.under_way.len()).then(|| self.under_way.remove(at))
    }

    fn deliver(&mut self, copy: &Copy) {
        let Copy { sn, una, wnd, frg, ref data } = *copy;
        self.far.on_segment(&Segment { conv: 1, sn, una, wnd, frg, data }).unwrap();
    }
}

fn owned((sn, segment): (u32, Segment<'_>)) -> Copy {
    let Segment { una, wnd, frg, data, .. } = segment;
    Copy { sn, una, wnd, frg, data: data.to_vec() }
}

/// Passes one segment from `near` to `far`, and its acknowledgement back
fn pass(near: &mut Lane, far: &mut Lane) {
    let (sn, segment) = near.next_segment(ROOM, NOW).unwrap();
    far.on_segment(&segment).unwrap();
    near.on_acked(sn, NOW);
}

fn pair(start: u32) -> (Lane, Lane) {
    (Lane::starting_at(1, start), Lane::starting_at(1, start))
}

const ROOM: usize = 1200;
