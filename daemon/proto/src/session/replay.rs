//! Which message numbers of one path were used before.
//!
//! A [`Replay`] remembers the last [`REPLAY_WINDOW`] numbers below the highest one it took. Numbers
//! below those are too old to tell and count as used. The window is a ring of words (RFC 6479), which
//! grows with the highest number until it is whole, so that a path that says little costs little.
//!
//! # Contract
//!
//! Insert a number only after its message has opened: forged numbers must not move the window.

use crate::limits::REPLAY_WINDOW;

/// Sliding window over the message numbers of one path
#[derive(Clone, Debug, Default)]
pub struct Replay {
    /// One more than the highest number taken; zero before the first
    next: u64,
    /// Bit `n % 64` of word `n / 64 % WORDS` tells whether `n` was taken
    words: Vec<u64>,
}

impl Replay {
    /// Makes a window that has seen nothing
    pub const fn new() -> Self {
        Self { next: 0, words: Vec::new() }
    }

    /// Takes `count`, and tells whether it was fresh
    pub fn insert(&mut self, count: u64) -> bool {
        if !self.check(count) {
            return false;
        }
        if count >= self.next {
            self.advance(count);
        }
        self.words[slot(count)] |= bit(count);
        true
    }

    /// Tells whether `count` would be fresh
    pub fn check(&self, count: u64) -> bool {
        if count >= self.next {
            return count < u64::MAX;
        }
        self.next - count <= REPLAY_WINDOW
            && self.words.get(slot(count)).is_none_or(|word| word & bit(count) == 0)
    }

    /// Returns the highest number taken
    pub fn highest(&self) -> Option<u64> {
        self.next.checked_sub(1)
    }

    /// Moves the window so that `count` is its highest number
    fn advance(&mut self, count: u64) {
        let word = count / WORD_BITS;
        // The word of the present highest number keeps its bits; those after it begin empty.
        let first = self.next.div_ceil(WORD_BITS);
        let whole = WORDS as u64;
        let needed = usize::try_from(word + 1).unwrap_or(WORDS).min(WORDS);
        if self.words.len() < needed {
            self.words.resize(needed.next_power_of_two().min(WORDS), 0);
        }
        for word in first.max((word + 1).saturating_sub(whole))..=word {
            self.words[slot(word * WORD_BITS)] = 0;
        }
        self.next = count + 1;
    }
}

fn slot(count: u64) -> usize {
    (count / WORD_BITS % WORDS as u64) as usize
}

fn bit(count: u64) -> u64 {
    1 << (count % WORD_BITS)
}

const WORD_BITS: u64 = u64::BITS as u64;
/// One more than the window needs, as it rarely begins at the first bit of a word
const WORDS: usize = (REPLAY_WINDOW / WORD_BITS) as usize + 1;

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn number_is_fresh_once_and_only_within_the_window() {
        let mut replay = Replay::new();

        assert!(replay.insert(5) && !replay.insert(5));
        assert!(replay.insert(0) && !replay.check(0));
        assert!(replay.insert(5 + REPLAY_WINDOW));
        assert!(!replay.check(5), "just out of the window");
        assert!(replay.check(6), "just inside");
        assert_eq!(replay.highest(), Some(5 + REPLAY_WINDOW));
    }

    #[test]
    fn quiet_path_costs_little_memory() {
        let mut replay = Replay::new();
        (0..1000).for_each(|count| assert!(replay.insert(count)));

        assert!(replay.words.capacity() <= 16);
    }

    #[test]
    fn extreme_numbers_are_harmless() {
        let mut replay = Replay::new();

        assert!(!replay.insert(u64::MAX));
        assert!(replay.insert(u64::MAX - 1) && !replay.insert(u64::MAX - 1));
        assert!(replay.insert(u64::MAX - REPLAY_WINDOW));
        assert!(!replay.insert(0));
    }

    proptest! {
        #[test]
        fn window_agrees_with_a_set(steps in prop::collection::vec(step(), 1..400)) {
            let mut replay = Replay::new();
            let mut model = BTreeSet::new();
            let mut highest = 0_u64;
            for (forward, distance) in steps {
                let count = if forward { highest + distance } else { highest.saturating_sub(distance) };
                let in_window = model.last().is_none_or(|last| count + REPLAY_WINDOW > *last);

                let fresh = in_window && !model.contains(&count);
                prop_assert_eq!(replay.check(count), fresh);
                prop_assert_eq!(replay.insert(count), fresh);
                if fresh {
                    model.insert(count);
                    highest = highest.max(count);
                }
            }
        }
    }

    fn step() -> impl Strategy<Value = (bool, u64)> {
        let distance = prop_oneof![
            8 => 0..80_u64,
            2 => 0..2000_u64,
            1 => REPLAY_WINDOW - 70..REPLAY_WINDOW + 70,
            1 => 0..4 * REPLAY_WINDOW,
        ];
        (any::<bool>(), distance)
    }
}
