//! Whether to sleep at once or to look again for a moment.
//!
//! Between two questions and answers on a near path there is less time than it takes to wake a
//! processor that sleeps, and each of them wakes four data threads. A [`Vigil`] keeps the thread awake
//! for [`VIGIL`] where little comes, and comes quickly: what it looks at then is there at once. It
//! offers the processor to others at each look, which costs them little. Where much comes at a time, or
//! the next thing is far, it sleeps.

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
    /// Until when the last turn that brought much is remembered
    much_until: Instant,
    /// Turns in a row that followed quickly and brought little
    quick: u32,
}

impl Vigil {
    /// Records that a turn begins
    pub(super) fn on_turn(&mut self, now: Instant) {
        let soon = now.since(self.began) <= VIGIL;
        let little = (1..=LITTLE).contains(&self.came);
        if self.came > LITTLE {
            self.much_until = self.began + MUCH;
        }
        let calm = now >= self.much_until;
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
            Credential::Nothing | Credential::Key => {}
        }
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
}
