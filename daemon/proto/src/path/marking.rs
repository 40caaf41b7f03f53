//! Whether what leaves on a path may be marked by its routers instead of dropped.
//!
//! Outer messages are ECN-capable (RFC 3168) only where that is known to do no harm: some networks
//! drop what is capable, clear the mark or set it always. So a few messages are tried first, and the
//! other node's counts must agree with what it acknowledges (RFC 9000 section 13.4.2). Where what is
//! capable is dropped, the others between them get through, so that a quiet session does not fall
//! silent. PROTOCOL.md, section "Marks of congestion".
//!
//! # Contract
//!
//! - Counts run on while a path has its number, and never fall.
//! - Only messages that ask for an acknowledgement are capable: of others it is never told what became.
//! - Of each acknowledgement first the losses that it told, then the acknowledgement itself.
//!
//! # Not here
//!
//! What a mark means for the rate is for `rate` to know.

use crate::node::Ecn;
use crate::time::{Duration, Instant};
use crate::wire::frame::Marks;

/// Decides which messages of a path are ECN-capable
#[derive(Clone, Debug)]
pub struct Marking {
    state: State,
    /// Highest counts that the other node told
    told: Marks,
    /// Those of them when the trial began; nothing before the first acknowledgement
    base: Option<Marks>,
    /// Capable messages that were acknowledged since
    acked: u64,
    /// Capable messages of this trial that were lost
    lost: u64,
    /// Probes of a silent tail since any message was acknowledged
    probes: u32,
    /// Times that capable messages vanished, since marks last came through
    vanished: u32,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum State {
    /// So many more may be capable until the other node has told what became of them; so many leave
    /// incapable before the next
    Trial { left: u32, wait: u32 },
    /// Marks come through as they should
    Sound,
    /// They do not; tried again then
    Resting { until: Instant },
}

impl Marking {
    /// Begins a trial on a path whose first message has number zero
    pub fn new() -> Self {
        Self { base: Some(Marks::default()), ..Self::going_on() }
    }

    /// Begins a trial on a path that goes on with the numbers of another one
    pub fn going_on() -> Self {
        let state = State::Trial { left: TRIAL, wait: BETWEEN };
        let told = Marks::default();
        Self { state, told, base: None, acked: 0, lost: 0, probes: 0, vanished: 0 }
    }

    /// Returns how the next message is to leave
    pub fn next(&mut self, now: Instant) -> Ecn {
        if let State::Resting { until } = self.state
            && now >= until
        {
            let (told, vanished) = (self.told, self.vanished);
            // Before the first acknowledgement nothing is known of earlier counts.
            let base = self.base.map(|_| told);
            *self = Self { base, told, vanished, ..Self::going_on() };
        }
        match &mut self.state {
            State::Trial { left: 0, .. } | State::Resting { .. } => Ecn::Incapable,
            State::Trial { wait, .. } if *wait > 0 => {
                *wait -= 1;
                Ecn::Incapable
            }
            State::Trial { left, wait } => {
                *left -= 1;
                *wait = BETWEEN;
                Ecn::Capable
            }
            State::Sound => Ecn::Capable,
        }
    }

    /// Records that so many capable messages were lost
    pub fn on_lost(&mut self, capable: u32, now: Instant) {
        self.lost += u64::from(capable);
        let tried = matches!(self.state, State::Trial { .. });
        if tried && self.acked == 0 && self.lost >= LOSSES {
            self.on_vanished(now);
        }
    }

    /// Records that nothing was acknowledged for so long that the tail is probed
    pub fn on_probe(&mut self, now: Instant) {
        self.probes = self.probes.saturating_add(1);
        let blamed = match self.state {
            State::Trial { left, .. } => self.acked == 0 && left < TRIAL,
            State::Sound => true,
            State::Resting { .. } => false,
        };
        if blamed && self.probes >= PROBES {
            // Whatever is the reason, what is not capable may get through.
            self.on_vanished(now);
        }
    }

    /// Takes the counts of an acknowledgement that newly acknowledged so many capable messages;
    /// returns how many more met congestion, as far as that can be believed
    pub fn on_ack(&mut self, told: Marks, capable: u32, now: Instant) -> u64 {
        self.probes = 0;
        let news = told.congested.saturating_sub(self.told.congested);
        self.told.capable = self.told.capable.max(told.capable);
        self.told.congested = self.told.congested.max(told.congested);
        let Some(base) = self.base else {
            self.base = Some(self.told);
            if let State::Trial { left, .. } = &mut self.state {
                // What came before cannot be judged.
                *left += capable;
            }
            return 0;
        };
        self.acked += u64::from(capable);
        let clean = self.told.capable.saturating_sub(base.capable);
        let congested = self.told.congested.saturating_sub(base.congested);
        let cleared = clean + congested < self.acked;
        let all_tried = !matches!(self.state, State::Trial { left: 1.., .. });
        let always = clean == 0 && all_tried && self.acked + self.lost >= u64::from(TRIAL);
        match self.state {
            State::Resting { .. } => 0,
            State::Trial { .. } | State::Sound if cleared || always => {
                self.state = State::Resting { until: now + MANGLED };
                0
            }
            State::Trial { .. } => {
                if self.acked > 0 && clean > 0 {
                    self.state = State::Sound;
                    self.vanished = 0;
                }
                0
            }
            State::Sound => news,
        }
    }

    /// Returns how many messages met congestion, as the other node says
    pub fn congested(&self) -> u64 {
        self.told.congested
    }

    fn on_vanished(&mut self, now: Instant) {
        let pause = VANISHED * 2u32.pow(self.vanished.min(DOUBLINGS));
        self.vanished = self.vanished.saturating_add(1);
        self.state = State::Resting { until: now + pause };
    }
}

impl Default for Marking {
    fn default() -> Self {
        Self::new()
    }
}

/// Messages of a trial
const TRIAL: u32 = 16;
/// Messages of a trial that leave incapable before each capable one
const BETWEEN: u32 = 3;
/// Capable messages of a trial that were lost, and none acknowledged, before marking is blamed
const LOSSES: u64 = 8;
/// Probes without an answer before marking is blamed
const PROBES: u32 = 2;
/// Time without marking where capable messages vanished for the first time
const VANISHED: Duration = Duration::from_secs(60);
/// How often it is doubled where they vanish again and again, to some two hours
const DOUBLINGS: u32 = 7;
/// Time without marking where marks were cleared, or set always
const MANGLED: Duration = Duration::from_secs(600);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn trial_is_short_and_an_honest_answer_ends_it_well() {
        let mut marking = Marking::new();
        assert_eq!(capable(&mut marking, 100), 16);

        assert_eq!(marking.on_ack(marks(3, 0), 3, at(1)), 0);

        assert_eq!(capable(&mut marking, 100), 100);
        assert_eq!(marking.on_ack(marks(90, 5), 92, at(2)), 5);
        assert_eq!(marking.on_ack(marks(40, 2), 0, at(3)), 0, "an old one came late");
        assert_eq!(marking.congested(), 5);
    }

    #[test]
    fn cleared_marks_end_it_for_a_long_time() {
        for sound in [false, true] {
            let mut marking = Marking::new();
            capable(&mut marking, 64);
            if sound {
                marking.on_ack(marks(3, 0), 3, at(1));
            }

            marking.on_ack(marks(3, 0), 4, at(2));

            assert_eq!(capable(&mut marking, 100), 0);
            assert!(tries_again(&mut marking, at(2) + MANGLED));
        }
    }

    #[test]
    fn marks_that_are_always_set_are_not_believed() {
        let mut marking = Marking::new();
        capable(&mut marking, 64);

        let news: u64 = (1..=16).map(|n| marking.on_ack(marks(0, n), 1, at(n))).sum();

        assert_eq!((news, capable(&mut marking, 100)), (0, 0));
    }

    #[test]
    fn lost_message_of_a_trial_does_not_hide_that_marks_are_always_set() {
        for mut marking in [Marking::new(), Marking::going_on()] {
            capable(&mut marking, 64);
            marking.on_ack(marks(0, 2), 2, at(1));
            capable(&mut marking, 64);

            marking.on_lost(1, at(2));
            for n in 3..=17 {
                marking.on_ack(marks(0, n), 1, at(n));
            }

            assert_eq!(capable(&mut marking, 100), 0);
            assert!(tries_again(&mut marking, at(17) + MANGLED));
        }
    }

    #[test]
    fn capable_messages_that_vanish_end_it_for_a_while() {
        let mut marking = Marking::new();
        capable(&mut marking, 64);

        marking.on_lost(8, at(2));

        assert_eq!(capable(&mut marking, 100), 0);
        assert!(tries_again(&mut marking, at(2) + VANISHED));
    }

    #[test]
    fn what_leaves_between_capable_messages_of_a_trial_gets_through() {
        let mut marking = Marking::new();

        let marks: Vec<_> = (0..8).map(|_| marking.next(at(1)) == Ecn::Capable).collect();

        assert_eq!(marks, [false, false, false, true, false, false, false, true]);
    }

    #[test]
    fn silence_in_a_trial_ends_it_once_anything_was_capable() {
        let mut marking = Marking::new();
        capable(&mut marking, 3);
        marking.on_probe(at(1));
        marking.on_probe(at(1));
        assert_eq!(capable(&mut marking, 1), 1, "nothing was capable yet");

        marking.on_probe(at(2));

        assert_eq!(capable(&mut marking, 100), 0);
        assert!(tries_again(&mut marking, at(2) + VANISHED));
    }

    #[test]
    fn where_they_vanish_again_and_again_it_is_tried_ever_more_rarely() {
        let mut marking = Marking::new();
        let mut now = at(1);
        let mut pauses = Vec::new();
        for _ in 0..10 {
            marking.on_lost(8, now);
            let begun = now;
            while !tries_again(&mut marking, now) {
                now += VANISHED;
            }
            pauses.push(now.since(begun).as_secs() / 60);
        }
        assert_eq!(pauses, [1, 2, 4, 8, 16, 32, 64, 128, 128, 128]);

        marking.on_ack(marks(1, 0), 1, now);
        marking.on_probe(now);
        marking.on_probe(now);

        assert!(tries_again(&mut marking, now + VANISHED), "they came through meanwhile");
    }

    #[test]
    fn trial_after_silence_takes_no_counts_of_an_earlier_path_for_its_own() {
        let mut marking = Marking::going_on();
        marking.on_lost(8, at(1));
        assert!(tries_again(&mut marking, at(1) + VANISHED));

        assert_eq!(marking.on_ack(marks(1000, 70), 0, at(99)), 0);
        marking.on_ack(marks(1000, 70), 1, at(99));

        assert_eq!(capable(&mut marking, 100), 0);
    }

    #[test]
    fn silence_ends_it_for_a_while_and_losses_beside_what_arrives_do_not() {
        let mut marking = Marking::new();
        capable(&mut marking, 64);
        marking.on_ack(marks(16, 0), 16, at(1));

        marking.on_lost(1000, at(2));
        marking.on_probe(at(2));
        marking.on_ack(marks(17, 0), 1, at(2));
        marking.on_probe(at(2));
        assert_eq!(capable(&mut marking, 1), 1);
        marking.on_probe(at(2));

        assert_eq!(capable(&mut marking, 100), 0);
        assert!(tries_again(&mut marking, at(2) + VANISHED));
    }

    #[test]
    fn counts_of_an_earlier_path_are_not_taken_for_its_own() {
        let mut marking = Marking::going_on();
        capable(&mut marking, 64);
        assert_eq!(marking.on_ack(marks(1000, 70), 2, at(1)), 0);

        marking.on_ack(marks(1000, 70), 3, at(2));

        assert_eq!(capable(&mut marking, 100), 0);
    }

    fn capable(marking: &mut Marking, messages: u32) -> usize {
        (0..messages).filter(|_| marking.next(at(1)) == Ecn::Capable).count()
    }

    fn tries_again(marking: &mut Marking, now: Instant) -> bool {
        (0..4).any(|_| marking.next(now) == Ecn::Capable)
    }

    fn marks(capable: u64, congested: u64) -> Marks {
        Marks { capable, congested }
    }

    fn at(secs: u64) -> Instant {
        Instant::ZERO + Duration::from_secs(secs)
    }
}
