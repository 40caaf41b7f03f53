//! Whether a path carries less than is believed.
//!
//! The rate is the largest of late, which is slow to forget. So there is a witness against it: all
//! that was sent in one cruise, together. Too much of it did not arrive, or it took longer to arrive
//! than to be sent: then the path carries less, by as much (the short-term bounds of
//! draft-ietf-ccwg-bbr section 5.5.10 are the like).
//!
//! One sample alone says little: losses come by chance, in bursts too. Hence the margin, which
//! narrows with what was seen.

/// Witness of one cruise
#[derive(Clone, Debug, Default)]
pub(super) struct Fall {
    phase: u32,
    /// Bytes that passed or were lost, and those of them that arrived
    bytes: f64,
    arrived: f64,
    /// Seconds in which they were sent, and in which they arrived
    sending: f64,
    arriving: f64,
    samples: u32,
}

/// What a sample adds
#[derive(Clone, Copy, Debug)]
pub(super) struct Evidence {
    /// Bytes, lost ones included
    pub(super) bytes: f64,
    /// Bytes a second that passed, lost ones included
    pub(super) transit: f64,
    /// Bytes a second that arrived
    pub(super) delivered: f64,
    /// Bytes a second that were sent
    pub(super) sent: f64,
}

impl Fall {
    /// Takes a sample of the phase with this number; returns the bytes a second that the path
    /// carries, if that is less than was sent
    ///
    /// `loss` is the path's own, of which `margin` may be chance in so many bytes.
    pub(super) fn on_sample(
        &mut self,
        phase: u32,
        sample: &Evidence,
        loss: f64,
        margin: impl Fn(f64) -> f64,
    ) -> Option<f64> {
        if phase != self.phase {
            *self = Self { phase, ..Self::default() };
        }
        let arriving = sample.bytes / sample.transit.max(1.0);
        self.bytes += sample.bytes;
        self.arrived += sample.delivered * arriving;
        self.arriving += arriving;
        self.sending += sample.bytes / sample.sent.max(1.0);
        self.samples += 1;
        if self.samples < SAMPLES {
            return None;
        }
        let share = (1.0 - loss - margin(self.bytes)).max(0.3);
        let passed = if self.arrived < self.bytes * share {
            self.arrived / (1.0 - loss)
        } else {
            self.bytes
        };
        let carried = passed / self.arriving.max(self.sending).max(1e-6);
        let sent = self.bytes / self.sending.max(1e-6);
        let fallen = passed < self.bytes || carried < sent * FALL;
        if fallen {
            *self = Self { phase, ..Self::default() };
        }
        fallen.then_some(carried)
    }
}

/// Samples that are needed
const SAMPLES: u32 = 3;
/// Share of what was sent under which the path has carried less
const FALL: f64 = 0.93;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn path_that_carries_what_is_sent_has_not_fallen() {
        let mut fall = Fall::default();
        for _ in 0..50 {
            assert_eq!(fall.on_sample(1, &sample(1e6, 0.95e6), 0.05, |_| 0.01), None);
        }
    }

    #[test]
    fn loss_beyond_the_paths_own_shows_how_much_was_too_much() {
        let mut fall = Fall::default();
        let carried = (0..3).find_map(|_| fall.on_sample(1, &sample(1e6, 0.76e6), 0.05, |_| 0.01));

        assert!(
            carried.is_some_and(|carried| (carried / 0.8e6 - 1.0).abs() < 0.001),
            "{carried:?}"
        );
    }

    #[test]
    fn arrival_slower_than_departure_shows_it_too() {
        let mut fall = Fall::default();
        let slow = Evidence { sent: 2e6, ..sample(1e6, 1e6) };
        let carried = (0..3).find_map(|_| fall.on_sample(1, &slow, 0.0, |_| 0.01));

        assert!(carried.is_some_and(|carried| (carried / 1e6 - 1.0).abs() < 0.001), "{carried:?}");
    }

    #[test]
    fn small_excess_is_seen_when_enough_was_sent() {
        let mut fall = Fall::default();
        let margin = |bytes: f64| 0.5 / bytes.sqrt() * 100.0;
        let seen =
            (0..400).position(|_| fall.on_sample(1, &sample(1e6, 0.93e6), 0.05, margin).is_some());
        assert!(seen.is_some_and(|seen| seen > 10), "{seen:?}");
    }

    #[test]
    fn each_phase_begins_anew() {
        let mut fall = Fall::default();
        for phase in 1..50 {
            assert_eq!(fall.on_sample(phase, &sample(1e6, 0.5e6), 0.0, |_| 0.01), None);
        }
    }

    fn sample(transit: f64, delivered: f64) -> Evidence {
        Evidence { bytes: 50_000.0, transit, delivered, sent: transit }
    }
}
