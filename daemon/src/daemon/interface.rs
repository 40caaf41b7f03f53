//! The TUN interface of one network: what it should be, what it is, what is under way.
//!
//! An [`Interface`] turns a wish (an [`InterfacePlan`]) and the news from the system into one job
//! at a time. It reaches no system; who runs its jobs reports what became of them.

use fastvpn_proto::time::{Duration, Instant};

use crate::plane::DeviceNumber;
use crate::system::InterfacePlan;

/// Shortest time between two jobs that nobody asked for, so that a quarrel with another program
/// over the interface costs little
const SPACING: Duration = Duration::from_secs(1);

/// What the interface of a network should be, and what it is
#[derive(Debug, Default)]
pub(super) struct Interface {
    wanted: Option<InterfacePlan>,
    /// What was made so
    done: Option<InterfacePlan>,
    running: Option<Job>,
    /// The device that was made last, or is being made
    device: DeviceNumber,
    /// Whether the plane has a queue of it
    open: bool,
    /// Whether the plane lost it while a job was under way
    lost: bool,
    /// Whether somebody changed what was done
    drifted: bool,
    not_before: Instant,
}

/// One job for the system
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct Job {
    /// What to make so
    pub(super) plan: InterfacePlan,
    /// The device that has to be made first, if any has to
    pub(super) fresh: Option<DeviceNumber>,
}

impl Interface {
    /// Records what the interface should be
    pub(super) fn want(&mut self, plan: InterfacePlan) {
        self.wanted = Some(plan);
    }

    /// Takes the next job, if one is due
    #[must_use]
    pub(super) fn poll(&mut self, now: Instant) -> Option<Job> {
        if !self.has_work() || now < self.not_before {
            return None;
        }
        let plan = self.wanted.clone()?;
        let fresh = (!self.open).then(|| self.device.next());
        self.device = fresh.unwrap_or(self.device);
        let job = Job { plan, fresh };
        self.running = Some(job.clone());
        self.drifted = false;
        Some(job)
    }

    /// Records that the job under way is done; returns whether it made the device
    pub(super) fn on_applied(&mut self) -> bool {
        let Some(job) = self.running.take() else { return false };
        self.open = !std::mem::take(&mut self.lost);
        self.done = Some(job.plan).filter(|_| self.open);
        job.fresh.is_some()
    }

    /// Records that the device is gone; a job under way makes a new one anyway, or fails
    pub(super) fn on_gone(&mut self, now: Instant) {
        if self.running.is_none() && self.open {
            self.open = false;
            self.done = None;
            self.not_before = self.not_before.max(now) + SPACING / 10;
        }
    }

    /// Records that the plane lost a device; returns whether that is news, and not an earlier device
    pub(super) fn on_lost(&mut self, device: DeviceNumber, now: Instant) -> bool {
        let news = device == self.device && self.may_exist();
        if news && self.running.is_some() {
            self.lost = true;
            self.not_before = self.not_before.max(now) + SPACING / 10;
        } else if news {
            self.on_gone(now);
        }
        news
    }

    /// Records that somebody changed the interface
    pub(super) fn on_drift(&mut self, now: Instant) {
        if self.running.is_none() && self.done.is_some() && !self.drifted {
            self.drifted = true;
            self.not_before = now.max(self.not_before) + SPACING;
        }
    }

    /// Tells whether there is a device that once was as wanted
    pub(super) fn is_open(&self) -> bool {
        self.open
    }

    /// Tells whether a device may exist that must be undone
    pub(super) fn may_exist(&self) -> bool {
        self.open || self.running.is_some()
    }

    /// Returns what the interface is, as far as it was made so
    pub(super) fn done(&self) -> Option<&InterfacePlan> {
        self.done.as_ref()
    }

    /// Returns what the interface should be
    pub(super) fn wanted(&self) -> Option<&InterfacePlan> {
        self.wanted.as_ref()
    }

    /// Returns when [`Self::poll`] will next have something to say
    pub(super) fn deadline(&self) -> Instant {
        if self.has_work() { self.not_before } else { Instant::FAR }
    }

    fn has_work(&self) -> bool {
        let differs = !self.open || self.drifted || self.wanted != self.done;
        self.running.is_none() && self.wanted.is_some() && differs
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn first_job_makes_the_device_and_later_ones_change_it() {
        let mut interface = Interface::default();
        interface.want(plan(1400));

        let first = interface.poll(at(0)).unwrap();
        assert!(interface.poll(at(0)).is_none(), "one job at a time");
        assert!(interface.on_applied());
        interface.want(plan(1300));
        let second = interface.poll(at(0)).unwrap();

        assert!(first.fresh.is_some() && second.fresh.is_none());
        assert_eq!(second.plan, plan(1300));
    }

    #[test]
    fn wish_that_changed_during_a_job_is_another_job() {
        let mut interface = Interface::default();
        interface.want(plan(1400));
        let _ = interface.poll(at(0));

        interface.want(plan(1300));
        interface.on_applied();

        assert_eq!(interface.poll(at(0)).unwrap().plan, plan(1300));
    }

    #[test]
    fn quarrel_over_the_interface_is_slow() {
        let mut interface = Interface::default();
        interface.want(plan(1400));
        let _ = interface.poll(at(0));
        interface.on_applied();

        interface.on_drift(at(10));

        assert!(interface.poll(at(10)).is_none());
        assert_eq!(interface.deadline(), at(11));
        assert!(interface.done().is_some(), "it still carries");
        assert!(interface.poll(at(11)).unwrap().fresh.is_none());
    }

    #[test]
    fn device_that_is_gone_is_made_again() {
        let mut interface = Interface::default();
        interface.want(plan(1400));
        let _ = interface.poll(at(0));
        interface.on_applied();

        interface.on_gone(at(1));
        interface.on_gone(at(1));

        assert!(!interface.is_open());
        assert!(interface.poll(interface.deadline()).unwrap().fresh.is_some());
    }

    #[test]
    fn late_news_of_an_earlier_device_changes_nothing() {
        let mut interface = Interface::default();
        interface.want(plan(1400));
        let first = interface.poll(at(0)).unwrap().fresh.unwrap();
        interface.on_applied();
        interface.on_gone(at(1));

        let second = interface.poll(interface.deadline()).unwrap().fresh.unwrap();
        assert!(!interface.on_lost(first, at(2)), "another one is being made");
        interface.on_applied();

        assert!(!interface.on_lost(first, at(2)) && interface.is_open());
        assert!(interface.on_lost(second, at(2)) && !interface.is_open());
        assert!(!interface.on_lost(second, at(2)), "that is known");
    }

    #[test]
    fn device_that_is_lost_before_it_is_known_to_be_made_is_made_again() {
        let mut interface = Interface::default();
        interface.want(plan(1400));
        let first = interface.poll(at(0)).unwrap().fresh.unwrap();

        assert!(interface.on_lost(first, at(0)));
        assert!(interface.on_applied() && !interface.is_open());

        let second = interface.poll(interface.deadline()).unwrap().fresh.unwrap();
        interface.on_applied();
        assert!(second > first && interface.is_open());
    }

    fn plan(mtu: u16) -> InterfacePlan {
        InterfacePlan { interface: "fvpn-t".into(), mtu, ..InterfacePlan::default() }
    }

    fn at(secs: u64) -> Instant {
        Instant::from_nanos(secs * 1_000_000_000)
    }
}
