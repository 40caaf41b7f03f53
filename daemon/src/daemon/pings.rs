//! Pings that somebody waits for.

use std::collections::BTreeMap;

use fastvpn_proto::crypto::PublicKey;
use fastvpn_proto::node::NodeStats;
use fastvpn_proto::time::{Duration, Instant};

use super::snapshot::path_view;
use super::state::{Answer, RequestId};
use crate::handle::{HandleError, NetworkName, PingReply};

/// Pings under way at one time
const PINGS_MAX: usize = 64;
/// Time beyond its own after which a ping counts as lost even if the node never said so
const GRACE: Duration = Duration::from_secs(1);

/// Pings under way, by the id that the node knows
#[derive(Debug, Default)]
pub(super) struct Pings {
    next: u64,
    open: BTreeMap<u64, Open>,
    done: Vec<(RequestId, Answer)>,
}

#[derive(Debug)]
struct Open {
    request: RequestId,
    peer: PublicKey,
    until: Instant,
}

impl Pings {
    /// Begins a ping; returns the id for the node
    pub(super) fn begin(
        &mut self,
        request: RequestId,
        peer: PublicKey,
        timeout: Duration,
        now: Instant,
    ) -> Result<u64, HandleError> {
        if self.open.len() >= PINGS_MAX {
            return Err(HandleError::Busy("too many pings are under way".to_owned()));
        }
        let id = self.next;
        self.next += 1;
        self.open.insert(id, Open { request, peer, until: now + timeout + GRACE });
        Ok(id)
    }

    /// Takes the node's word on a ping; returns whether it was one of these
    pub(super) fn finish(&mut self, id: u64, rtt: Option<Duration>, stats: &NodeStats) -> bool {
        let Some(open) = self.open.remove(&id) else { return false };
        let known = stats.peers.binary_search_by(|peer| peer.key.cmp(&open.peer));
        let path = known.ok().and_then(|index| stats.peers[index].path.as_ref()).map(path_view);
        let reply = PingReply { rtt, peer: open.peer, path };
        self.done.push((open.request, Answer::Ping(Ok(reply))));
        true
    }

    /// Takes the answers that are there, also of pings of which the node said nothing
    pub(super) fn poll(&mut self, now: Instant) -> Vec<(RequestId, Answer)> {
        let mut done = core::mem::take(&mut self.done);
        self.open.retain(|_, open| {
            let lives = now < open.until;
            if !lives {
                let reply = PingReply { rtt: None, peer: open.peer, path: None };
                done.push((open.request, Answer::Ping(Ok(reply))));
            }
            lives
        });
        done
    }

    /// Ends all pings, because the network is not up any more
    pub(super) fn end(&mut self, network: &NetworkName) -> Vec<(RequestId, Answer)> {
        let open = core::mem::take(&mut self.open);
        let error = || Answer::Ping(Err(HandleError::NotUp(network.clone())));
        open.into_values().map(|open| (open.request, error())).collect()
    }

    /// Returns when [`Self::poll`] will next have something to say
    pub(super) fn deadline(&self) -> Instant {
        self.open.values().map(|open| open.until).min().unwrap_or(Instant::FAR)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::daemon::fixture::{key, ms};

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn answer_goes_to_who_asked() {
        let mut pings = Pings::default();
        let first = pings.begin(RequestId(5), key(1), SECOND, ms(0)).unwrap();
        let second = pings.begin(RequestId(6), key(2), SECOND, ms(0)).unwrap();

        assert!(pings.finish(second, Some(SECOND), &NodeStats::default()));
        assert!(!pings.finish(77, None, &NodeStats::default()));

        let done = pings.poll(ms(1));
        let reply = PingReply { rtt: Some(SECOND), peer: key(2), path: None };
        assert_eq!(done, [(RequestId(6), Answer::Ping(Ok(reply)))]);
        assert_ne!(first, second);
    }

    #[test]
    fn ping_of_which_nothing_is_heard_is_lost_in_the_end() {
        let mut pings = Pings::default();
        pings.begin(RequestId(5), key(1), SECOND, ms(0)).unwrap();

        assert!(pings.poll(ms(1999)).is_empty());
        assert_eq!(pings.deadline(), ms(2000));
        assert_eq!(pings.poll(ms(2000)).len(), 1);
    }

    #[test]
    fn pings_are_bounded() {
        let mut pings = Pings::default();
        for n in 0..PINGS_MAX as u64 {
            pings.begin(RequestId(n), key(1), SECOND, ms(0)).unwrap();
        }

        assert!(pings.begin(RequestId(99), key(1), SECOND, ms(0)).is_err());
    }
}
