//! The keys of a session, generation by generation.
//!
//! An epoch enters when both nodes are known to have its keys: at the initiator with the response,
//! at the responder with the first message that opened under them. The newest one seals; each one
//! opens until it is too old. So keys change without a gap, and crossing handshakes do no harm: both
//! of their epochs enter. PROTOCOL.md, section "Keys".

use crate::handshake::Established;
use crate::limits::{
    EPOCHS_MAX, REJECT_AFTER, REJECT_AFTER_MESSAGES, REKEY_AFTER, REKEY_AFTER_MESSAGES,
    REKEY_PATIENCE,
};
use crate::time::Instant;

/// All generations of keys of one session, the newest last
#[derive(Debug, Default)]
pub struct Epochs {
    list: Vec<Epoch>,
}

/// One generation of keys
#[derive(Debug)]
pub struct Epoch {
    /// Keys and indices
    pub keys: Established,
    since: Instant,
    sealed: u64,
}

impl Epochs {
    /// Lets the next epoch in; returns the index of one that had to go for it
    #[must_use]
    pub fn enter(&mut self, keys: Established, now: Instant) -> Option<u32> {
        self.list.push(Epoch { keys, since: now, sealed: 0 });
        (self.list.len() > EPOCHS_MAX).then(|| self.list.remove(0).keys.local_index)
    }

    /// Forgets what is too old; returns the index of one, until there are none
    #[must_use]
    pub fn expire(&mut self, now: Instant) -> Option<u32> {
        let at = self.list.iter().position(|epoch| epoch.is_spent(now))?;
        Some(self.list.remove(at).keys.local_index)
    }

    /// Returns the epoch to seal with
    pub fn sealing(&mut self, now: Instant) -> Option<&mut Epoch> {
        self.list.last_mut().filter(|epoch| !epoch.is_spent(now))
    }

    /// Returns the epoch that messages to `index` are sealed under
    pub fn opening(&self, index: u32) -> Option<&Epoch> {
        self.list.iter().find(|epoch| epoch.keys.local_index == index)
    }

    /// Tells whether a new epoch should be made by us now
    pub fn is_stale(&self, now: Instant) -> bool {
        self.list
            .last()
            .is_none_or(|epoch| now >= epoch.renew_at() || epoch.sealed >= REKEY_AFTER_MESSAGES)
    }

    /// Tells whether there is an epoch to seal with
    pub fn can_seal(&self, now: Instant) -> bool {
        self.list.last().is_some_and(|epoch| !epoch.is_spent(now))
    }

    /// Returns when [`Epochs::is_stale`] or [`Epochs::expire`] will have something to say
    pub fn deadline(&self, now: Instant) -> Option<Instant> {
        let renew = self.list.last().map(Epoch::renew_at).filter(|at| *at > now);
        let expire = self.list.iter().map(|epoch| epoch.since + REJECT_AFTER).min();
        [renew, expire].into_iter().flatten().min()
    }

    /// Returns when the newest epoch began
    pub fn newest(&self) -> Option<Instant> {
        self.list.last().map(|epoch| epoch.since)
    }

    /// Goes through the indices by which the other node addresses us
    pub fn indices(&self) -> impl Iterator<Item = u32> + '_ {
        self.list.iter().map(|epoch| epoch.keys.local_index)
    }
}

impl Epoch {
    /// Counts a message that is sealed now
    pub fn on_sealed(&mut self) {
        self.sealed += 1;
    }

    fn renew_at(&self) -> Instant {
        let patience = if self.keys.initiator { REKEY_AFTER } else { REKEY_AFTER + REKEY_PATIENCE };
        self.since + patience
    }

    fn is_spent(&self, now: Instant) -> bool {
        now >= self.since + REJECT_AFTER || self.sealed >= REJECT_AFTER_MESSAGES
    }
}
