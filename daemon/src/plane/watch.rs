//! What a data thread waits for between two turns.
//!
//! A [`Watch`] tells which of the thread's descriptors have something, and ends the wait when the next turn is due.
//! While a train waits for room in the socket, it watches for that, and not for packets.

use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};

use fastvpn_proto::time::Instant;
use rustix::event::epoll;
use rustix::io::Errno;
use rustix::time::Timespec;

use super::carrier::Carriers;
use super::clock::{self, Timer};
use super::inbox::Inbox;
use super::tun::Tun;
use super::udp::Udp;
use super::vigil::Vigil;

/// The descriptors of a data thread, and the time of its next turn
#[derive(Debug)]
pub(super) struct Watch {
    epoll: OwnedFd,
    timer: Timer,
    /// When the next turn begins at the latest
    wake: Instant,
    /// Whether a train waits for room in the socket
    held: bool,
}

/// Which descriptors have something
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Ready {
    pub(super) inbox: bool,
    pub(super) udp: bool,
    pub(super) carriers: bool,
    pub(super) tun: bool,
}

impl Watch {
    /// Watches all descriptors but that of the TUN; the first turn begins at `now`
    pub(super) fn new(
        inbox: &Inbox,
        udp: &Udp,
        carriers: &Carriers,
        now: Instant,
    ) -> io::Result<Self> {
        let timer = Timer::new()?;
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        watch(&epoll, inbox, INBOX)?;
        watch(&epoll, udp, UDP)?;
        watch(&epoll, carriers, CARRIERS)?;
        watch(&epoll, &timer, TIMER)?;
        Ok(Self { epoll, timer, wake: now, held: false })
    }

    /// Has the next turn begin at `wake`, if nothing comes before
    pub(super) fn wake_at(&mut self, wake: Instant) {
        self.wake = wake;
    }

    /// Waits until a descriptor has something or the next turn is due: awake for a moment, where that is worth it
    ///
    /// The timer is armed before sleep only: that costs more than all else in a turn that brings little.
    pub(super) fn wait(&mut self, vigil: &mut Vigil) -> io::Result<Ready> {
        let zero = Timespec { tv_sec: 0, tv_nsec: 0 };
        let mut now = clock::now();
        while vigil.until().is_some_and(|until| now < until.min(self.wake)) {
            if let Some(ready) = self.look(Some(&zero))? {
                return Ok(ready);
            }
            std::thread::yield_now();
            let back = clock::now();
            vigil.on_yield(now, back);
            now = back;
        }
        self.timer.arm(self.wake, now)?;
        Ok(self.look(None)?.unwrap_or_default())
    }

    /// Returns which descriptors have something, if any has within `limit`
    fn look(&mut self, limit: Option<&Timespec>) -> io::Result<Option<Ready>> {
        let mut events = [MaybeUninit::uninit(); 5];
        let events = match epoll::wait(&self.epoll, &mut events, limit) {
            Ok(([], _)) | Err(Errno::INTR) => return Ok(None),
            Ok((events, _)) => events,
            Err(error) => return Err(error.into()),
        };
        let mut ready = Ready::default();
        for event in events {
            let flags = event.flags;
            match event.data.u64() {
                INBOX => ready.inbox = true,
                CARRIERS => ready.carriers = true,
                TIMER => self.timer.clear(),
                TUN => ready.tun = true,
                // Errors too are taken away by reading.
                UDP => ready.udp = flags != epoll::EventFlags::OUT,
                _ => {}
            }
        }
        Ok(Some(ready))
    }

    /// Watches a TUN queue as well
    ///
    /// # Errors
    /// If it is nothing that can be waited for.
    pub(super) fn add_tun(&self, tun: &Tun) -> io::Result<()> {
        Ok(epoll::add(&self.epoll, tun, data(TUN), interest(TUN, self.held))?)
    }

    /// Watches a TUN queue no more, if it was watched
    ///
    /// Others may have it as well, and then it would be watched on when it is closed here.
    pub(super) fn remove_tun(&self, tun: &Tun) {
        // Who does not read it has no watch.
        let _ = epoll::delete(&self.epoll, tun);
    }

    /// Watches for room in the socket while `hold`, and not for packets of the TUN queue that is watched
    pub(super) fn hold(&mut self, hold: bool, udp: &Udp, tun: Option<&Tun>) -> io::Result<()> {
        if hold == self.held {
            return Ok(());
        }
        self.held = hold;
        epoll::modify(&self.epoll, udp, data(UDP), interest(UDP, hold))?;
        if let Some(tun) = tun {
            epoll::modify(&self.epoll, tun, data(TUN), interest(TUN, hold))?;
        }
        Ok(())
    }
}

fn watch(epoll: &OwnedFd, fd: impl AsFd, token: u64) -> io::Result<()> {
    Ok(epoll::add(epoll, fd, data(token), interest(token, false))?)
}

fn data(token: u64) -> epoll::EventData {
    epoll::EventData::new_u64(token)
}

/// Returns what to wait for; `held` while a train waits for room in the socket
fn interest(token: u64, held: bool) -> epoll::EventFlags {
    match (token, held) {
        (UDP, true) => epoll::EventFlags::IN | epoll::EventFlags::OUT,
        // Its end is told of all the same.
        (TUN, true) => epoll::EventFlags::empty(),
        _ => epoll::EventFlags::IN,
    }
}

const INBOX: u64 = 0;
const UDP: u64 = 1;
const TUN: u64 = 2;
const TIMER: u64 = 3;
const CARRIERS: u64 = 4;
