//! What the other node sends on one of its paths.
//!
//! It numbers its messages for each path by itself. Here is what we must remember of one such
//! sequence: which numbers came, which we must still acknowledge, and from where the highest came.

use super::received::Received;
use super::replay::Replay;
use crate::node::Way;

/// One of the other node's paths, as it reaches us
#[derive(Debug)]
pub struct Inbound {
    /// Which numbers came
    pub replay: Replay,
    /// What is to be acknowledged
    pub received: Received,
    /// Highest number so far
    pub highest: u64,
    /// Where the highest number came from
    pub way: Way,
}

/// All of them, by number: there are no more than [`crate::limits::PATHS_MAX`]
#[derive(Debug, Default)]
pub struct Inbounds {
    list: Vec<(u8, Inbound)>,
}

impl Inbounds {
    /// Returns a path's, where anything came on it
    pub fn get_mut(&mut self, number: u8) -> Option<&mut Inbound> {
        self.iter_mut().find(|(at, _)| *at == number).map(|(_, inbound)| inbound)
    }

    /// Returns a path's, which begins with a message from `way` if it is new
    pub fn enter(&mut self, number: u8, way: Way) -> &mut Inbound {
        let known = self.list.iter().position(|(at, _)| *at == number);
        let at = known.unwrap_or_else(|| {
            let at = self.list.partition_point(|(at, _)| *at < number);
            self.list.insert(at, (number, Inbound::new(way)));
            at
        });
        &mut self.list[at].1
    }

    /// Goes through all, the lowest number first
    pub fn iter_mut(&mut self) -> impl Iterator<Item = (u8, &mut Inbound)> {
        self.list.iter_mut().map(|(number, inbound)| (*number, inbound))
    }

    /// The same, to look at
    pub fn values(&self) -> impl Iterator<Item = &Inbound> {
        self.list.iter().map(|(_, inbound)| inbound)
    }
}

impl Inbound {
    /// Begins with the first message, from `way`
    pub fn new(way: Way) -> Self {
        Self { replay: Replay::new(), received: Received::new(), highest: 0, way }
    }
}
