//! The world's event heap: for each source of events, when it is due next.

use std::collections::{BTreeMap, BTreeSet};

use fastvpn_proto::time::Instant;

/// Orders sources by due time; each has at most one
#[derive(Debug)]
pub(super) struct Schedule<S> {
    due: BTreeMap<S, Instant>,
    order: BTreeSet<(Instant, S)>,
}

impl<S: Copy + Ord> Schedule<S> {
    pub(super) fn new() -> Self {
        Self { due: BTreeMap::new(), order: BTreeSet::new() }
    }

    /// Sets when `source` is due, or that it is not
    pub(super) fn set(&mut self, source: S, due: Option<Instant>) {
        let before = match due {
            Some(due) => self.due.insert(source, due),
            None => self.due.remove(&source),
        };
        if before == due {
            return;
        }
        if let Some(before) = before {
            self.order.remove(&(before, source));
        }
        if let Some(due) = due {
            self.order.insert((due, source));
        }
    }

    /// Returns what is due first
    pub(super) fn first(&self) -> Option<(Instant, S)> {
        self.order.first().copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn source_moves_when_its_due_time_does() {
        let mut schedule = Schedule::new();
        schedule.set('a', Some(Instant::from_nanos(5)));
        schedule.set('b', Some(Instant::from_nanos(7)));

        schedule.set('a', Some(Instant::from_nanos(9)));
        assert_eq!(schedule.first(), Some((Instant::from_nanos(7), 'b')));

        schedule.set('b', None);
        assert_eq!(schedule.first(), Some((Instant::from_nanos(9), 'a')));
    }
}
