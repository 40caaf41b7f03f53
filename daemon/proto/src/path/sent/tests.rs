use std::collections::BTreeSet;

use proptest::prelude::*;

use super::*;
use crate::limits::ACK_DELAY;

#[test]
fn acknowledgement_gives_back_what_was_carried_and_measures_the_round_trip() {
    let mut path = Bench::new();
    (0..3).for_each(|_| path.send(at(0)));

    let result = path.ack(&[0..=2], ms(5), at(205));

    assert_eq!((result.newly, result.largest, result.spurious), (true, 2, 0));
    assert_eq!(path.acked(), [0, 1, 2]);
    assert_eq!(path.rtt.smoothed(), Some(ms(200)), "less what the far end held it back");
    assert_eq!((path.sent.in_flight(), path.sent.deadline(&path.rtt)), (0, None));
}

#[test]
fn repeated_acknowledgement_tells_nothing_new() {
    let mut path = Bench::new();
    (0..3).for_each(|_| path.send(at(0)));
    path.ack(&[0..=2], ms(0), at(200));

    let result = path.ack(&[0..=2], ms(0), at(900));

    assert!(!result.newly);
    assert_eq!(path.rtt.latest(), Some(ms(200)));
    assert_eq!(path.acked(), [0, 1, 2]);
}

#[test]
fn what_was_never_sent_cannot_be_acknowledged() {
    let mut path = Bench::new();
    path.send(at(0));

    let result = path.ack(&[0..=1], ms(0), at(100));

    assert!(result.invalid && !result.newly);
    assert_eq!((path.acked(), path.sent.in_flight()), (vec![], SIZE));
}

#[test]
fn three_later_arrivals_prove_a_loss() {
    let mut path = Bench::new();
    (0..4).for_each(|_| path.send(at(0)));

    path.ack(&[1..=2], ms(0), at(100));
    assert_eq!(path.lost(), []);
    path.ack(&[1..=3], ms(0), at(100));

    assert_eq!(path.lost(), [0]);
    assert_eq!((path.sent.loss_ppm(), path.sent.lost_total()), (250_000, 1));
}

#[test]
fn time_proves_a_loss_where_too_little_follows() {
    let mut path = Bench::new();
    path.send(at(0));
    path.send(at(5));
    path.ack(&[1..=1], ms(0), at(85));
    assert_eq!(path.lost(), []);

    let due = path.sent.deadline(&path.rtt).unwrap();
    assert_eq!(due, at(90), "80 ms and an eighth after it was sent");
    let probe = path.timeout(due);

    assert!(!probe);
    assert_eq!(path.lost(), [0]);
}

#[test]
fn late_arrival_is_no_loss_and_teaches_patience() {
    let mut path = Bench::new();
    (0..5).for_each(|_| path.send(at(0)));
    path.ack(&[1..=4], ms(0), at(100));
    assert_eq!(path.lost(), [0]);

    let result = path.ack(&[0..=4], ms(0), at(140));
    assert_eq!((result.newly, result.spurious), (true, 1));
    assert_eq!((path.sent.lost_total(), path.sent.loss_ppm()), (0, 0));

    (5..10).for_each(|_| path.send(at(1000)));
    path.ack(&[6..=9], ms(0), at(1100));
    assert_eq!(path.lost(), [0], "40 ms of disorder are expected now");
    path.timeout(at(1149));
    assert_eq!(path.lost(), [0]);
    path.timeout(at(1150));
    assert_eq!(path.lost(), [0, 5]);
}

#[test]
fn late_word_after_an_interruption_teaches_no_patience() {
    let mut path = Bench::new();
    path.send(at(0));
    path.ack(&[0..=0], ms(0), at(100));
    (0..5).for_each(|_| path.send(at(100)));
    path.send(at(1100));
    path.ack(&[6..=6], ms(0), at(1200));
    assert_eq!(path.lost(), [1, 2, 3, 4, 5]);
    assert_eq!(path.ack(&[1..=6], ms(0), at(1210)).spurious, 5);

    (0..4).for_each(|_| path.send(at(1300)));
    path.ack(&[8..=10], ms(0), at(1400));

    assert_eq!(path.lost(), [1, 2, 3, 4, 5, 7]);
}

#[test]
fn word_that_failed_to_come_says_nothing_of_the_way() {
    let mut path = Bench::new();
    // 1 MB/s over a path of 100 ms, for as long as it takes to find that out
    for now in 0..5_000 {
        path.send(at(now));
        if now >= 100 {
            path.ack(&[now - 100..=now - 100], ms(0), at(now));
        }
    }
    path.ack(&[4_900..=4_999], ms(0), at(5_099));
    let before = path.window();

    // nothing of what is sent is acknowledged for a minute, then all of it, then it is as before
    for now in (6_000..66_000).step_by(500) {
        path.send(at(now));
    }
    let last = path.sent.next_count() - 1;
    path.ack(&[last - 119..=last], ms(0), at(66_000));
    let mut widest = path.window();
    for now in (66_100..86_100).step_by(200) {
        path.send(at(now));
        let count = path.sent.next_count() - 1;
        path.ack(&[count..=count], ms(0), at(now + 100));
        widest = widest.max(path.window());
    }

    assert!(widest < 3 * before, "{widest} may be in flight, {before} before");
}

#[test]
fn patience_wears_off_where_order_returns() {
    let mut path = Bench::new();
    (0..5).for_each(|_| path.send(at(0)));
    path.ack(&[1..=4], ms(0), at(100));
    path.ack(&[0..=4], ms(0), at(140));

    for round in 1..=10 {
        path.send(at(round * 31_000));
        let next = path.sent.next_count();
        path.ack(&[next - 1..=next - 1], ms(0), at(round * 31_000 + 100));
    }

    assert!(!path.sent.reordering.seen());
}

#[test]
fn silent_tail_is_probed_ever_more_seldom_but_never_given_up() {
    let mut path = Bench::new();
    path.send(at(0));
    path.ack(&[0..=0], ms(0), at(200));
    path.send(at(200));

    let mut now = at(200);
    let mut waits = Vec::new();
    for _ in 0..12 {
        let due = path.sent.deadline(&path.rtt).unwrap();
        waits.push(due.since(now));
        now = due;
        assert!(path.timeout(now), "a probe is due");
        assert!(!path.timeout(now), "but only one");
    }

    assert_eq!(waits[0], ms(600) + ACK_DELAY);
    assert_eq!(waits[1], waits[0] * 3 / 2);
    assert_eq!(waits[11], PROBE_MAX);
    assert_eq!(path.lost(), []);
}

#[test]
fn answer_ends_the_back_off() {
    let mut path = Bench::new();
    path.send(at(0));
    path.timeout(path.sent.deadline(&path.rtt).unwrap());
    assert_eq!(path.sent.probes, 1);

    path.ack(&[0..=0], ms(0), at(2000));

    assert_eq!(path.sent.probes, 0);
}

#[test]
fn quiet_messages_are_never_in_flight_lost_or_waited_for() {
    let mut path = Bench::new();
    path.quiet(at(0));
    assert_eq!((path.sent.in_flight(), path.sent.deadline(&path.rtt)), (0, None));
    assert_eq!(path.sent.unanswered_since(), None);

    (1..5).for_each(|_| path.send(at(0)));
    path.ack(&[1..=4], ms(0), at(100));

    assert_eq!((path.lost(), path.sent.lost_total()), (vec![], 0));
}

#[test]
fn acknowledged_quiet_message_gives_back_what_it_carried() {
    let mut path = Bench::new();
    path.quiet(at(0));
    path.send(at(0));

    path.ack(&[0..=1], ms(0), at(100));

    assert_eq!(path.acked(), [0, 1]);
}

#[test]
fn endless_quiet_messages_are_forgotten_after_a_while() {
    let mut path = Bench::new();
    for n in 0..20_000 {
        path.quiet(at(n));
    }
    assert!(path.sent.ring.len() < 3100, "{}", path.sent.ring.len());
}

#[test]
fn liveness_counts_from_the_first_message_after_the_last_one_that_arrived() {
    let mut path = Bench::new();
    (0..4).for_each(|n| path.send(at(n * 10)));
    assert_eq!(path.sent.unanswered_since(), Some(at(0)));

    path.ack(&[1..=1], ms(0), at(100));
    assert_eq!(path.sent.unanswered_since(), Some(at(20)), "the lost one before it does not count");
    path.ack(&[1..=3], ms(0), at(120));
    assert_eq!(path.sent.unanswered_since(), None);
    path.send(at(500));

    assert_eq!(path.sent.unanswered_since(), Some(at(500)));
}

#[test]
fn moved_path_gives_back_what_was_in_flight_without_calling_it_lost() {
    let mut path = Bench::new();
    path.send(at(0));
    path.quiet(at(0));
    path.send(at(0));

    path.sent.forget_in_flight(&mut path.lost);

    assert_eq!(path.lost(), [0, 2]);
    assert_eq!((path.sent.in_flight(), path.sent.lost_total()), (0, 0));
    assert_eq!((path.sent.deadline(&path.rtt), path.sent.unanswered_since()), (None, None));
    assert!(!path.ack(&[0..=2], ms(0), at(100)).newly, "nothing is measured across the move");
    assert_eq!(path.rtt.smoothed(), None);
}

#[test]
fn full_ring_gives_up_the_oldest() {
    let mut path = Bench::new();
    (0..MESSAGES_MAX + 2).for_each(|_| path.send(at(7)));

    assert_eq!(path.sent.deadline(&path.rtt), Some(at(7)), "somebody must take what was given up");
    path.timeout(at(7));

    assert_eq!(path.lost(), [0, 1]);
    assert_eq!(path.sent.in_flight(), MESSAGES_MAX * SIZE);
    assert_eq!(path.sent.unanswered_since(), Some(at(7)));
}

#[test]
fn numbers_go_on_from_an_earlier_path() {
    let mut path = Bench { sent: Sent::starting_at(1000), ..Bench::new() };
    path.send(at(0));
    assert_eq!(path.sent.next_count(), 1001);

    let old = path.ack(&[990..=999], ms(0), at(10));
    let new = path.ack(&[1000..=1000, 900..=910], ms(0), at(10));

    assert!(!old.newly && !old.invalid && new.newly);
}

#[test]
fn acknowledgements_that_repeat_a_long_run_cost_little() {
    let mut path = Bench::new();
    // The first message stays unresolved, so that nothing leaves the ring.
    path.sent.reordering = Reordering { window: Duration::from_secs(1000), changed: at(0) };
    (0..60_000).for_each(|_| path.send(at(0)));

    for last in 1..60_000 {
        path.ack(&[1..=last], ms(0), at(1));
    }

    assert_eq!(path.acked.len(), 59_999);
    assert!(path.sent.steps < 3 * 60_000, "{} steps", path.sent.steps);
}

#[test]
fn emptied_ring_gives_memory_back() {
    let mut path = Bench::new();
    (0..50_000).for_each(|_| path.send(at(0)));
    path.ack(&[0..=49_999], ms(0), at(1));

    assert!(path.sent.ring.capacity() <= 2 * SPARE, "{}", path.sent.ring.capacity());
}

proptest! {
    /// Whatever is acknowledged or lost: each content comes back at most once, and what is in
    /// flight is what has not come back
    #[test]
    fn each_message_comes_back_once(
        steps in prop::collection::vec((0..6_u8, 0..40_u64, 0..12_u64, 0..60_u64), 1..200),
    ) {
        let mut path = Bench::new();
        let (mut now, mut model) = (at(0), Truth::default());
        for (kind, back, len, wait) in steps {
            now += ms(wait);
            let next = path.sent.next_count();
            match kind {
                0 | 1 => {
                    model.open.insert(next);
                    path.send(now);
                }
                2 => path.quiet(now),
                3 | 4 => {
                    let Some(end) = (next).checked_sub(1 + back.min(next.saturating_sub(1))) else { continue };
                    if next == 0 { continue }
                    let low = end.saturating_sub(len);
                    let below = low.checked_sub(3).map(|end| end.saturating_sub(len)..=end);
                    let ranges: Vec<_> = [Some(low..=end), below].into_iter().flatten().collect();
                    path.ack(&ranges, ms(0), now);
                }
                _ => { path.timeout(now); }
            }
            model.take(&mut path);
            prop_assert!(model.sound, "content came back twice");
            prop_assert_eq!(path.sent.in_flight(), model.open.len() * SIZE);
            if let Some(due) = path.sent.deadline(&path.rtt) {
                prop_assert!(!model.open.is_empty(), "due at {:?} for nothing", due);
            } else {
                prop_assert!(model.open.is_empty(), "nothing would ever happen");
            }
        }
    }
}

#[derive(Default)]
struct Truth {
    open: BTreeSet<u64>,
    seen: BTreeSet<u64>,
    sound: bool,
}

impl Truth {
    fn take(&mut self, path: &mut Bench) {
        self.sound = true;
        for content in path.acked.drain(..).chain(path.lost.drain(..)) {
            self.sound &= self.seen.insert(content);
            self.open.remove(&content);
        }
    }
}

/// A path whose messages carry their own numbers
struct Bench {
    sent: Sent<u64>,
    rtt: Rtt,
    rate: Rate,
    acked: Vec<u64>,
    lost: Vec<u64>,
}

impl Bench {
    fn new() -> Self {
        Self {
            sent: Sent::new(),
            rtt: Rtt::new(),
            rate: Rate::new(),
            acked: Vec::new(),
            lost: Vec::new(),
        }
    }

    fn send(&mut self, now: Instant) {
        let count = self.sent.next_count();
        assert_eq!(self.sent.on_sent(SIZE, true, count, &mut self.rate, now), count);
    }

    fn quiet(&mut self, now: Instant) {
        let count = self.sent.next_count();
        self.sent.on_sent(SIZE, false, count, &mut self.rate, now);
    }

    fn ack(&mut self, ranges: &[RangeInclusive<u64>], delay: Duration, now: Instant) -> AckResult {
        let ranges = ranges.iter().cloned();
        let written = (now.as_nanos() / 1000) as u32;
        let stamp = Stamp { written, delay };
        let model = Model { rtt: &mut self.rtt, rate: &mut self.rate };
        self.sent.on_ack(ranges, stamp, model, now, &mut self.acked, &mut self.lost)
    }

    fn timeout(&mut self, now: Instant) -> bool {
        let model = Model { rtt: &mut self.rtt, rate: &mut self.rate };
        self.sent.handle_timeout(model, now, &mut self.lost)
    }

    /// Returns about the most bytes that may be in flight
    fn window(&self) -> usize {
        let sizes = (0..20_000).map(|messages| messages * SIZE);
        sizes.take_while(|bytes| self.rate.send_at(*bytes).is_some()).last().unwrap_or(0)
    }

    fn acked(&self) -> Vec<u64> {
        let mut acked = self.acked.clone();
        acked.sort_unstable();
        acked
    }

    fn lost(&self) -> Vec<u64> {
        self.lost.clone()
    }
}

fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

fn at(millis: u64) -> Instant {
    Instant::ZERO + ms(millis)
}

const SIZE: usize = 1000;
