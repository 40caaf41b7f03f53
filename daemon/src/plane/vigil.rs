//! Whether to sleep at once or to look again for a moment.
//!
//! Between two questions and answers on a near path there is less time than it takes to wake a
//! processor that sleeps, and each of them wakes four data threads. A [`Vigil`] keeps the thread awake
//! for [`VIGIL`] where little comes, and comes quickly: what it looks at then is there at once. It
//! offers the processor to others at each look, which costs them little. Where much comes at a time, or
//! the next thing is far, it sleeps; so it does where others use what they are offered, as whoever has slept
//! is served before them, and whoever has yielded after.

use std::time::Duration;

use fastvpn_proto::node::Credential;
use fastvpn_proto::time::Instant;

/// Watches how soon one thing follows another
#[derive(Debug, Default)]
pub(super) struct Vigil {
    /// When the last turn began
    began: Instant,
    /// Bytes that came in it
    came: usize,
    /// Until when there is no vigil, whatever comes
    off_until: Instant,
    /// Turns in a row that followed quickly and brought little
    quick: u32,
    /// Times that others used the processor for long, since they did not for a while
    crowded: u32,
    /// Offers since the last of these that took little time
    calm: u32,
}

impl Vigil {
    /// Records that a turn begins
    pub(super) fn on_turn(&mut self, now: Instant) {
        let soon = now.since(self.began) <= VIGIL;
        let little = (1..=LITTLE).contains(&self.came);
        if self.came > LITTLE {
            self.off_until = self.off_until.max(self.began + MUCH);
        }
        let calm = now >= self.off_until;
        self.quick = if soon && little && calm { self.quick.saturating_add(1) } else { 0 };
        self.began = now;
        self.came = 0;
    }

    /// Records that so many bytes came
    pub(super) fn on_bytes(&mut self, bytes: usize) {
        self.came += bytes;
    }

    /// Records that a message of so many bytes came, and what it proved; what strangers send is no reason to
    /// stay awake
    pub(super) fn on_message(&mut self, proved: Credential, bytes: usize) {
        match proved {
            Credential::Identity => self.on_bytes(bytes),
            Credential::Unknown | Credential::Nothing | Credential::Key => {}
        }
    }

    /// Records that the processor was offered to others at one time and came back at another
    pub(super) fn on_yield(&mut self, from: Instant, to: Instant) {
        let gone = to.since(from);
        if gone <= CROWDED {
            self.calm += 1;
            if self.calm >= CALM {
                (self.calm, self.crowded) = (0, 0);
            }
            return;
        }
        self.quick = 0;
        // A machine that slept meanwhile was not crowded all night.
        let pause = (gone * 2_u32.pow(self.crowded)).min(CROWDED_MOST);
        self.off_until = self.off_until.max(to + pause);
        self.crowded = (self.crowded + 1).min(DOUBLINGS);
        self.calm = 0;
    }

    /// Returns until when it is worth to look again before sleeping
    pub(super) fn until(&self) -> Option<Instant> {
        (self.quick >= QUICK && self.came <= LITTLE).then(|| self.began + VIGIL)
    }
}

/// Time for which the thread stays awake: several times what waking takes
const VIGIL: Duration = Duration::from_micros(150);
/// Bytes in a turn that are little
const LITTLE: usize = 4096;
/// Time for which a turn that brought more is remembered: what comes in between is part of that
const MUCH: Duration = Duration::from_millis(20);
/// Time without the processor that is long: whoever asks or answers takes a tenth of it
const CROWDED: Duration = Duration::from_micros(300);
/// Longest time without a vigil for that
const CROWDED_MOST: Duration = Duration::from_secs(1);
/// How often the time without vigil after that, as long again at first, is doubled: so little is lost by one
/// who runs now and then, and by trying beside one who always does
const DOUBLINGS: u32 = 5;
/// Offers in a row that cost little after which that begins anew
const CALM: u32 = 100;
/// Such turns after which more of them are expected
const QUICK: u32 = 3;

#[cfg(test)]
mod tests {
    use super::*;

    fn after(vigil: &mut Vigil, start: Instant, turns: u32, apart: Duration, bytes: usize) -> bool {
        for turn in 0..turns {
            vigil.on_turn(start + apart * turn);
            vigil.on_bytes(bytes);
        }
        vigil.until().is_some()
    }

    #[test]
    fn strangers_keep_nobody_awake() {
        let start = Instant::from_nanos(1_000_000_000);
        let awake = |proved| {
            let mut vigil = Vigil::default();
            for turn in 0..10 {
                vigil.on_turn(start + Duration::from_micros(40) * turn);
                vigil.on_message(proved, 60);
            }
            vigil.until().is_some()
        };

        assert!(awake(Credential::Identity));
        assert!(!awake(Credential::Key) && !awake(Credential::Nothing));
    }

    #[test]
    fn little_that_comes_quickly_is_awaited_and_nothing_else() {
        let start = Instant::from_nanos(1_000_000_000);
        let (soon, late) = (Duration::from_micros(40), Duration::from_millis(1));

        assert!(after(&mut Vigil::default(), start, 10, soon, 60));
        assert!(!after(&mut Vigil::default(), start, 2, soon, 60));
        assert!(!after(&mut Vigil::default(), start, 10, late, 60));
        assert!(!after(&mut Vigil::default(), start, 10, soon, 60_000));
        assert!(!after(&mut Vigil::default(), start, 10, soon, 0));
        let mut vigil = Vigil::default();
        assert!(!after(&mut vigil, start, 1, soon, 60_000));
        assert!(!after(&mut vigil, start + soon, 10, soon, 60), "part of a transfer");
    }

    #[test]
    fn who_gets_the_processor_late_sleeps_for_a_while_instead_of_yielding() {
        let start = Instant::from_nanos(1_000_000_000);
        let (soon, slice) = (Duration::from_micros(40), Duration::from_millis(3));
        let mut vigil = Vigil::default();
        assert!(after(&mut vigil, start, 10, soon, 60));

        vigil.on_yield(start, start + soon * 3);
        assert!(vigil.until().is_some(), "one question of somebody else");
        vigil.on_yield(start, start + slice);

        assert!(vigil.until().is_none());
        assert!(!after(&mut vigil, start + slice, 10, soon, 60));
        assert!(after(&mut vigil, start + slice * 2, 10, soon, 60), "as long again");

        let mut at = start + slice * 2;
        for times in [2, 4, 8, 16, 32, 32] {
            vigil.on_yield(at, at + slice);
            at += slice * (1 + times);
            assert!(!after(&mut vigil, at - slice, 10, soon, 60), "{times}");
            assert!(after(&mut vigil, at, 10, soon, 60), "{times}");
        }
        for _ in 0..CALM {
            vigil.on_yield(at, at + soon);
        }
        vigil.on_yield(at, at + slice);
        assert!(after(&mut vigil, at + slice * 2, 10, soon, 60), "forgotten");
    }

    #[test]
    fn machine_that_slept_in_a_vigil_keeps_others_a_second_later() {
        let start = Instant::from_nanos(1_000_000_000);
        let (soon, night) = (Duration::from_micros(40), Duration::from_secs(8 * 3600));
        let mut vigil = Vigil::default();

        vigil.on_yield(start, start + night);

        assert!(after(&mut vigil, start + night + CROWDED_MOST, 10, soon, 60));
    }
}
