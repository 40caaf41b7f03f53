//! Events on their way to the control side.
//!
//! Nothing is dropped and nobody waits: while the channel is full, events gather here. Of the
//! numbers only the newest are kept, for they are a snapshot and not a stream.

use tokio::sync::mpsc::Sender;
use tokio::sync::mpsc::error::TrySendError;

use super::PlaneEvent;

/// The plane's end of the channel of events
#[derive(Debug)]
pub(super) struct Outlet {
    channel: Sender<Vec<PlaneEvent>>,
    waiting: Vec<PlaneEvent>,
}

/// What became of the events that wait
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Flushed {
    /// Nothing waits any more
    All,
    /// The channel is full; try again soon
    Full,
    /// Nobody listens any more
    Closed,
}

impl Outlet {
    /// Starts without events
    pub(super) fn new(channel: Sender<Vec<PlaneEvent>>) -> Self {
        Self { channel, waiting: Vec::new() }
    }

    /// Adds an event to the next batch
    pub(super) fn push(&mut self, event: PlaneEvent) {
        let stats = |event: &PlaneEvent| matches!(event, PlaneEvent::Stats { .. });
        if stats(&event) {
            self.waiting.retain(|waiting| !stats(waiting));
        }
        self.waiting.push(event);
    }

    /// Sends what waits as one batch, if there is room for it
    pub(super) fn flush(&mut self) -> Flushed {
        if self.waiting.is_empty() {
            return if self.channel.is_closed() { Flushed::Closed } else { Flushed::All };
        }
        match self.channel.try_send(std::mem::take(&mut self.waiting)) {
            Ok(()) => Flushed::All,
            Err(TrySendError::Full(waiting)) => {
                self.waiting = waiting;
                Flushed::Full
            }
            Err(TrySendError::Closed(_)) => Flushed::Closed,
        }
    }

    /// Gives back what was not sent
    pub(super) fn into_waiting(self) -> Vec<PlaneEvent> {
        self.waiting
    }
}

#[cfg(test)]
mod tests {
    use fastvpn_proto::crypto::PublicKey;
    use fastvpn_proto::node::{Event, NodeStats};
    use tokio::sync::mpsc;

    use super::*;

    #[test]
    fn events_of_a_turn_travel_together() {
        let (channel, mut events) = mpsc::channel(1);
        let mut outlet = Outlet::new(channel);
        outlet.push(silent(1));
        outlet.push(silent(2));

        assert_eq!(outlet.flush(), Flushed::All);

        assert_eq!(events.try_recv().unwrap().len(), 2);
        assert_eq!(outlet.flush(), Flushed::All);
        assert!(events.try_recv().is_err(), "there are no empty batches");
    }

    #[test]
    fn full_channel_loses_nothing_but_old_numbers() {
        let (channel, mut events) = mpsc::channel(1);
        let mut outlet = Outlet::new(channel);
        outlet.push(silent(1));
        outlet.flush();

        outlet.push(silent(2));
        outlet.push(stats(1));
        assert_eq!(outlet.flush(), Flushed::Full);
        outlet.push(silent(3));
        outlet.push(stats(2));
        assert_eq!(outlet.flush(), Flushed::Full);

        events.try_recv().unwrap();
        assert_eq!(outlet.flush(), Flushed::All);
        let merged = events.try_recv().unwrap();
        assert_eq!(merged.iter().filter(|event| matches!(event, PlaneEvent::Node(_))).count(), 2);
        let numbers: Vec<_> = merged
            .iter()
            .filter_map(|event| match event {
                PlaneEvent::Stats { node, .. } => Some(node.dropped),
                _ => None,
            })
            .collect();
        assert_eq!(numbers, [2]);
    }

    #[test]
    fn outlet_notices_that_nobody_listens() {
        let (channel, events) = mpsc::channel(1);
        let mut outlet = Outlet::new(channel);
        drop(events);

        assert_eq!(outlet.flush(), Flushed::Closed);
    }

    fn silent(peer: u8) -> PlaneEvent {
        PlaneEvent::Node(Event::Silent { peer: PublicKey::from_bytes([peer; 32]) })
    }

    fn stats(dropped: u64) -> PlaneEvent {
        let node = NodeStats { dropped, ..NodeStats::default() };
        PlaneEvent::Stats { node: Box::new(node), overflowed: 0 }
    }
}
