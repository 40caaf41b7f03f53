//! What becomes of the news of a life: it changes the network itself, or its role says what follows.

use fastvpn_proto::crypto::PublicKey;
use fastvpn_proto::node::{Event, Way};
use fastvpn_proto::time::Instant;
use tracing::{debug, info, warn};

use super::{Network, Phase, Role, alias};
use crate::config::TicketFile;
use crate::daemon::action::{Action, News, Step};
use crate::daemon::names;
use crate::handle::{Apply, HandleError, NetworkName};
use crate::plane::PlaneEvent;
use crate::system::{Extent, InterfacePlan};

impl Network {
    /// Takes news of this life
    pub(in crate::daemon) fn on_news(&mut self, news: News, now: Instant) {
        match (self.phase, news) {
            (_, News::Recalled(used)) => self.tuning.budget.on_recalled(used),
            (Phase::Stopping, News::Stopped) => self.on_stopped(),
            (Phase::Starting, News::Opened(Ok(members))) => {
                self.opened = Some(members);
                self.start_plane();
            }
            (Phase::Starting, News::Opened(Err(error))) => self.fail(error, now),
            (Phase::Starting, News::Started(Ok(started))) => self.on_started(started, now),
            (Phase::Starting, News::Started(Err(error))) => self.fail(error, now),
            (Phase::Running, News::Applied(Ok(()))) => {
                if self.interface.on_applied() {
                    self.carried = None;
                }
            }
            (Phase::Running, News::Applied(Err(error))) => self.fail(error, now),
            (Phase::Running, News::Drift) => {
                warn!(network = %self.config.name, "interface was changed by somebody else");
                self.interface.on_drift(now);
            }
            (Phase::Running, News::Gone) => self.on_gone(now),
            (Phase::Running, News::Naming(view)) => self.naming = view,
            (Phase::Running, News::Plane(events)) => self.on_plane(events, now),
            (Phase::Stopping, News::Plane(events)) => self.on_ending(events, now),
            (Phase::Running, News::Resolved { endpoint, addresses }) => {
                let mut steps = Vec::new();
                if let Some(Role::Peer(peer)) = &mut self.role {
                    peer.on_resolved(&endpoint, addresses, &mut steps);
                }
                self.take(steps, now);
            }
            (Phase::Running, News::Written(result)) => {
                let mut steps = Vec::new();
                if let Some(Role::Hub(hub)) = &mut self.role {
                    hub.on_written(result, now, &mut steps);
                }
                self.take(steps, now);
            }
            // Not what it says: secrets may be in it.
            (phase, _) => debug!(network = %self.config.name, ?phase, "late news"),
        }
    }

    /// Goes on to let nodes in while the plane ends: two that restart at the same time must meet in
    /// between, or their connections are lost. All else is for the next daemon.
    fn on_ending(&mut self, events: Vec<PlaneEvent>, now: Instant) {
        for event in events {
            let mut steps = Vec::new();
            match (&mut self.ending, event) {
                (Some(Role::Hub(hub)), PlaneEvent::Node(event)) => {
                    hub.on_event(event, now, &mut steps);
                }
                (Some(Role::Peer(peer)), PlaneEvent::Node(event)) => {
                    peer.on_event(event, now, &mut steps);
                }
                (None, _)
                | (
                    Some(_),
                    PlaneEvent::Stats { .. } | PlaneEvent::TunLost { .. } | PlaneEvent::Ended(_),
                ) => {}
            }
            for step in steps {
                if let Step::Node(command) = step {
                    self.out.push(Action::Node(command));
                }
            }
        }
    }

    fn on_gone(&mut self, now: Instant) {
        if self.interface.is_open() {
            self.say_gone();
        }
        self.interface.on_gone(now);
    }

    fn say_gone(&self) {
        warn!(network = %self.config.name, "interface is gone; making it again");
    }

    fn on_plane(&mut self, events: Vec<PlaneEvent>, now: Instant) {
        for event in events {
            // An event may have ended this life.
            if self.phase != Phase::Running {
                return;
            }
            match event {
                PlaneEvent::Node(event) => self.on_event(event, now),
                PlaneEvent::Stats { node: stats, overflowed } => {
                    let mut steps = Vec::new();
                    match &mut self.role {
                        Some(Role::Hub(hub)) => hub.on_stats(&stats, now, &mut steps),
                        Some(Role::Peer(peer)) => peer.on_stats(&stats),
                        None => {}
                    }
                    self.tuning.on_total(stats.sent, now);
                    self.stats = *stats;
                    self.overflowed = overflowed;
                    self.take(steps, now);
                }
                PlaneEvent::TunLost { device, error } => {
                    debug!(network = %self.config.name, ?device, %error, "device is gone");
                    if self.interface.on_lost(device, now) {
                        self.say_gone();
                    }
                }
                PlaneEvent::Ended(reason) => {
                    let reason =
                        reason.map_or_else(|| "no reason".into(), |error| error.to_string());
                    let text = format!("the data thread has ended: {reason}");
                    self.fail(HandleError::System(text), now);
                }
            }
        }
    }

    fn on_event(&mut self, event: Event, now: Instant) {
        let answered = match event {
            Event::Pong { id, rtt, .. } => self.pings.finish(id, Some(rtt), &self.stats),
            Event::PingLost { id, .. } => self.pings.finish(id, None, &self.stats),
            Event::Offload { peer, way, works } => {
                note_offload(&self.config.name, &peer, way, works);
                false
            }
            _ => false,
        };
        if answered {
            return;
        }
        let mut steps = Vec::new();
        match &mut self.role {
            Some(Role::Hub(hub)) => hub.on_event(event, now, &mut steps),
            Some(Role::Peer(peer)) => peer.on_event(event, now, &mut steps),
            None => {}
        }
        self.take(steps, now);
    }

    /// Does what a role asked for
    pub(super) fn take(&mut self, steps: Vec<Step>, now: Instant) {
        for step in steps {
            if names::concern(&step) {
                self.names.touch();
            }
            match step {
                Step::Answer(id, answer) => self.answers.push((id, answer)),
                Step::Fail(error) => {
                    self.fail(error, now);
                    return;
                }
                Step::Node(command) => self.out.push(Action::Node(command)),
                Step::Plan { addresses, routes } => {
                    if !addresses.is_empty() {
                        self.interface.want(InterfacePlan {
                            interface: self.config.interface.clone(),
                            alias: alias(&self.config),
                            mtu: self.config.mtu,
                            dns: names::plan(&self.config, &self.apply, &addresses),
                            addresses,
                            routes,
                            extent: extent(&self.apply),
                        });
                    }
                }
                Step::Resolve(endpoint) => self.out.push(Action::Resolve(endpoint)),
                Step::Welcomed => {
                    let forget = |ticket: &TicketFile| Action::Forget(ticket.file.clone());
                    self.out.extend(self.ticket().map(forget));
                }
                Step::Write(changes) => self.out.push(Action::Write(changes)),
            }
        }
    }
}

/// Says in the log whether trains of messages are given to the kernel whole on a way
fn note_offload(network: &NetworkName, peer: &PublicKey, way: Way, works: bool) {
    // No other has trains.
    let Way::Direct(to) = way else { return };
    if works {
        info!(%network, %peer, %to, "UDP segmentation offload works here by now and is used again");
        return;
    }
    warn!(
        %network, %peer, %to,
        "UDP segmentation offload is refused here, or mangles or loses messages; they are sent one by one, \
         which costs processor time: another kernel or network driver may mend it"
    );
}

/// Returns how much of a plan is ours to make
fn extent(apply: &Apply) -> Extent {
    match apply {
        Apply::Caller(_) => Extent::Device,
        Apply::Daemon => Extent::Whole,
    }
}
