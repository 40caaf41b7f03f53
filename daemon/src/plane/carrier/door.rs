//! Whom a listener lets in, and how long who proves nothing may stay.
//!
//! A connection that was accepted is a *guest* until the node has opened a message of it that only
//! the other node can have made ([`Credential::Identity`]). Guests are few, of one address fewer,
//! and when there are too many the oldest one goes: an honest node proves itself within a round
//! trip, so that who only waits makes room for it.
//!
//! [`Credential::Identity`]: fastvpn_proto::node::Credential::Identity

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

/// Counts connections that strangers made
#[derive(Debug)]
pub(super) struct Door {
    inside: Mutex<Inside>,
    /// Connections at one time
    most: usize,
}

#[derive(Debug, Default)]
struct Inside {
    /// In the order in which they came
    guests: BTreeMap<u64, Guest>,
    last: u64,
    /// Guests, and those who have proven who they are
    open: usize,
}

#[derive(Debug)]
struct Guest {
    from: Source,
    leave: Arc<Notify>,
}

/// Who counts as one: an IPv4 address, or the 64 bits of an IPv6 network
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Source {
    V4([u8; 4]),
    V6([u8; 8]),
}

/// A place inside, until it is dropped
#[derive(Debug)]
pub(super) struct Pass {
    door: Arc<Door>,
    number: u64,
    leave: Arc<Notify>,
}

impl Door {
    /// Lets in as many as the process has descriptors for, its own put aside
    pub(super) fn new() -> Self {
        let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile).current;
        let half = limit.and_then(|limit| usize::try_from(limit / 2).ok()).unwrap_or(OPEN_MAX);
        Self::with_room_for(half.min(OPEN_MAX))
    }

    fn with_room_for(most: usize) -> Self {
        Self { inside: Mutex::default(), most }
    }

    /// Gives a place to who comes from `address`, if there is one
    ///
    /// The guest that has been here longest may have to leave for it.
    pub(super) fn admit(self: &Arc<Self>, address: IpAddr) -> Option<Pass> {
        let from = Source::of(address);
        let mut inside = self.lock();
        let same = inside.guests.values().filter(|guest| guest.from == from).count();
        if same >= GUESTS_OF_ONE {
            return None;
        }
        if inside.guests.len() >= GUESTS_MAX
            && let Some((_, oldest)) = inside.guests.pop_first()
        {
            oldest.leave.notify_one();
        } else if inside.open >= self.most {
            return None;
        }
        inside.last += 1;
        inside.open += 1;
        let (number, leave) = (inside.last, Arc::new(Notify::new()));
        inside.guests.insert(number, Guest { from, leave: Arc::clone(&leave) });
        drop(inside);
        Some(Pass { door: Arc::clone(self), number, leave })
    }

    fn lock(&self) -> MutexGuard<'_, Inside> {
        // The counts are right between any two statements above, whoever panicked.
        self.inside.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Pass {
    /// Has its owner be a guest no more: it is known who that is
    pub(super) fn prove(&self) {
        self.door.lock().guests.remove(&self.number);
    }

    /// Waits until its owner has to leave for another guest
    pub(super) async fn called_off(&self) {
        self.leave.notified().await;
    }
}

impl Drop for Pass {
    fn drop(&mut self) {
        let mut inside = self.door.lock();
        inside.guests.remove(&self.number);
        inside.open = inside.open.saturating_sub(1);
    }
}

impl Source {
    fn of(address: IpAddr) -> Self {
        match address.to_canonical() {
            IpAddr::V4(v4) => Self::V4(v4.octets()),
            IpAddr::V6(v6) => {
                let [a, b, c, d, e, f, g, h, ..] = v6.octets();
                Self::V6([a, b, c, d, e, f, g, h])
            }
        }
    }
}

/// Guests at one time
const GUESTS_MAX: usize = 256;
/// Guests of one address at one time
const GUESTS_OF_ONE: usize = 16;
/// Accepted connections at one time, where there are descriptors enough
const OPEN_MAX: usize = 4096;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_address_has_few_guests_and_leaves_room_for_others() {
        let door = Arc::new(Door::with_room_for(1000));

        let held: Vec<_> = (0..100).filter_map(|_| door.admit(address(1))).collect();

        assert_eq!(held.len(), GUESTS_OF_ONE);
        assert!(door.admit(address(2)).is_some());
        drop(held);
        assert!(door.admit(address(1)).is_some(), "who left makes room");
    }

    #[test]
    fn addresses_of_one_ipv6_network_count_as_one() {
        let door = Arc::new(Door::with_room_for(1000));

        let held: Vec<_> = (0..100)
            .filter_map(|host: u16| door.admit(format!("2001:db8::{host:x}").parse().unwrap()))
            .collect();

        assert_eq!(held.len(), GUESTS_OF_ONE);
        assert!(door.admit("2001:db8:0:1::1".parse().unwrap()).is_some());
    }

    #[tokio::test]
    async fn oldest_guest_leaves_for_a_new_one() {
        let door = Arc::new(Door::with_room_for(1000));
        let held: Vec<_> = (0..GUESTS_MAX as u32).filter_map(|n| door.admit(address(n))).collect();
        assert_eq!(held.len(), GUESTS_MAX);

        let _late = door.admit(address(5000)).unwrap();

        held[0].called_off().await;
        assert_eq!(door.lock().guests.len(), GUESTS_MAX);
    }

    #[test]
    fn proven_connections_are_no_guests_but_count_in_all() {
        let door = Arc::new(Door::with_room_for(50));
        let held: Vec<_> = (0..50)
            .map(|_| {
                let pass = door.admit(address(1)).unwrap();
                pass.prove();
                pass
            })
            .collect();

        assert!(door.admit(address(2)).is_none(), "there are descriptors for 50");
        drop(held);
        assert!(door.admit(address(2)).is_some());
        assert_eq!(door.lock().open, 0);
    }

    fn address(number: u32) -> IpAddr {
        IpAddr::V4((0x0a00_0000 + number).into())
    }
}
