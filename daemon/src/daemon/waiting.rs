//! Requests that wait until a network is up, or down.

use fastvpn_proto::time::{Duration, Instant};

use super::state::{Answer, RequestId};
use crate::handle::{HandleError, Outcome};

/// How long `connect` waits until it says that it took too long; the network goes on trying
const CONNECT_LIMIT: Duration = Duration::from_secs(20);

/// Who waits for one network
#[derive(Debug, Default)]
pub(super) struct Waiting {
    /// With the time at which patience ends
    up: Vec<(RequestId, Instant)>,
    down: Vec<RequestId>,
}

impl Waiting {
    /// Adds a request that waits until the network is up
    pub(super) fn for_up(&mut self, id: RequestId, now: Instant) {
        self.up.push((id, now + CONNECT_LIMIT));
    }

    /// Adds a request that waits until the network is down
    pub(super) fn for_down(&mut self, id: RequestId) {
        self.down.push(id);
    }

    /// Answers who waits for the network to be up: it is, or it cannot
    pub(super) fn on_result(
        &mut self,
        result: &Result<Outcome<()>, HandleError>,
    ) -> Vec<(RequestId, Answer)> {
        let waiting = core::mem::take(&mut self.up);
        waiting.into_iter().map(|(id, _)| (id, Answer::Connect(result.clone()))).collect()
    }

    /// Answers who waits for the network to be down
    pub(super) fn on_down(&mut self) -> Vec<(RequestId, Answer)> {
        let waiting = core::mem::take(&mut self.down);
        let done = Answer::Disconnect(Ok(Outcome::Changed(())));
        waiting.into_iter().map(|id| (id, done.clone())).collect()
    }

    /// Answers whose patience is at its end; `detail` says what the network waits for
    pub(super) fn expire(&mut self, detail: &str, now: Instant) -> Vec<(RequestId, Answer)> {
        let reason = if detail.is_empty() { "it took too long" } else { detail };
        let late = Answer::Connect(Err(HandleError::Timeout(reason.to_owned())));
        let expired = self.up.extract_if(.., |(_, limit)| now >= *limit);
        expired.map(|(id, _)| (id, late.clone())).collect()
    }

    /// Returns when [`Self::expire`] will next have something to say
    pub(super) fn deadline(&self) -> Instant {
        self.up.iter().map(|(_, limit)| *limit).min().unwrap_or(Instant::FAR)
    }
}
