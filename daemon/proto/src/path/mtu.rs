//! Largest message of one path: search and black-hole detection.
//!
//! Packetization-layer path MTU discovery (RFC 8899): probes that may get lost find the largest
//! size that arrives; sizes come from a short table of what the world's links have. When full-sized
//! messages stop arriving while small ones do, the path is back at the size that each must carry.
//!
//! All sizes are UDP payloads, in bytes.

use crate::limits::MESSAGE_MIN;
use crate::time::{Duration, Instant};

/// Finds and keeps the largest message of one path
#[derive(Clone, Debug)]
pub struct Mtu {
    current: usize,
    max: usize,
    search: Search,
    /// Messages above the minimum that were lost in a row
    large_lost: u32,
}

#[derive(Clone, Debug, Eq, PartialEq)]
enum Search {
    /// Sizes of the table above `current` and up to this one are still open
    Probing { highest: usize, size: usize, tries: u32, next: Instant },
    /// Nothing above `current` passes for now
    Done { again: Option<Instant> },
}

impl Mtu {
    /// Starts at the size that each path must carry, and searches up to `max`
    pub fn new(max: usize) -> Self {
        let mut mtu = Self {
            current: MESSAGE_MIN,
            max: max.max(MESSAGE_MIN),
            search: Search::Done { again: None },
            large_lost: 0,
        };
        mtu.start(mtu.max, Instant::ZERO);
        mtu
    }

    /// Keeps to one size, which needs no search
    pub fn fixed(size: usize) -> Self {
        Self { current: size, max: size, search: Search::Done { again: None }, large_lost: 0 }
    }

    /// Returns the largest size that is known to pass
    pub fn current(&self) -> usize {
        self.current
    }

    /// Returns the size of a probe to send now
    pub fn next_probe(&mut self, now: Instant) -> Option<usize> {
        if let Search::Done { again: None } = self.search {
            self.search = Search::Done { again: Some(now + SEARCH_AGAIN) };
        }
        if let Search::Done { again: Some(at) } = self.search
            && now >= at
        {
            self.start(self.max, now);
        }
        let Search::Probing { size, next, tries, .. } = &mut self.search else { return None };
        if now < *next {
            return None;
        }
        // The verdict comes with the acknowledgement; this is for a probe that nobody mentions.
        *next = now + PROBE_PATIENCE * (*tries + 1);
        Some(*size)
    }

    /// Records that a probe of `size` arrived
    pub fn on_probe_acked(&mut self, size: usize) {
        if size > self.current {
            self.current = size.min(self.max);
        }
        self.large_lost = 0;
        if let Search::Probing { highest, .. } = self.search {
            self.start(highest, Instant::ZERO);
        }
    }

    /// Records that a probe of `size` was lost, on a path that loses `loss_ppm` of its messages anyway
    pub fn on_probe_lost(&mut self, size: usize, loss_ppm: u32) {
        let Search::Probing { size: probed, tries, next, .. } = &mut self.search else { return };
        if *probed != size {
            return;
        }
        *tries += 1;
        *next = Instant::ZERO;
        if *tries >= PROBES.max(unlikely_run(loss_ppm, DOUBT_PROBE)) {
            self.start(size - 1, Instant::ZERO);
        }
    }

    /// Records that an ordinary message of `size` arrived
    pub fn on_large_acked(&mut self, size: usize) {
        if size > MESSAGE_MIN {
            self.large_lost = 0;
        }
    }

    /// Records that an ordinary message of `size` was lost, on a path that loses `loss_ppm` anyway
    ///
    /// Too many in a row are a black hole: so many that the path's own loss would hardly do it.
    pub fn on_large_lost(&mut self, size: usize, loss_ppm: u32) {
        if size <= MESSAGE_MIN || self.current == MESSAGE_MIN {
            return;
        }
        self.large_lost += 1;
        if self.large_lost >= BLACK_HOLE.max(unlikely_run(loss_ppm, DOUBT_HOLE)) {
            // It may have been bad luck after all: the search begins at the top.
            self.fall(self.max);
        }
    }

    /// Takes the system's word that `size` is too big
    pub fn on_too_big(&mut self, size: usize) {
        if size <= MESSAGE_MIN {
            return;
        }
        if size <= self.current {
            self.fall(size - 1);
        } else if let Search::Probing { highest, .. } = self.search
            && size <= highest
        {
            self.start(size - 1, Instant::ZERO);
        }
    }

    /// Returns when [`Mtu::next_probe`] will next have something to say
    pub fn deadline(&self) -> Option<Instant> {
        match self.search {
            Search::Probing { next, .. } => Some(next),
            Search::Done { again } => Some(again.unwrap_or(Instant::ZERO)),
        }
    }

    fn fall(&mut self, highest: usize) {
        self.current = MESSAGE_MIN;
        self.large_lost = 0;
        self.start(highest, Instant::ZERO);
    }

    /// Looks for the next size to try: the largest first, then the middle of what is open
    fn start(&mut self, highest: usize, next: Instant) {
        let open: Vec<usize> =
            sizes(self.max).filter(|size| *size > self.current && *size <= highest).collect();
        let first = highest >= self.max;
        let size = if first { open.last() } else { open.get(open.len() / 2) };
        self.search = match size {
            Some(size) => Search::Probing { highest, size: *size, tries: 0, next },
            None => Search::Done { again: None },
        };
    }
}

fn sizes(max: usize) -> impl Iterator<Item = usize> {
    let table = TABLE.into_iter().filter(move |size| *size < max);
    table.chain(core::iter::once(max))
}

/// Returns how many losses in a row have a chance of less than 10^-`doubt`, by chance alone
fn unlikely_run(loss_ppm: u32, doubt: f64) -> u32 {
    // What is lost because of its size counts as well; more than half is nobody's own loss.
    let share = (f64::from(loss_ppm) / 1e6).clamp(0.001, 0.5);
    (doubt * core::f64::consts::LN_10 / -share.ln()).ceil() as u32
}

/// UDP payloads of common links: tunnels, PPPoE, mobile networks, Ethernet
const TABLE: [usize; 9] = [1252, 1282, 1312, 1342, 1372, 1392, 1412, 1432, 1444];
/// Probes of one size before it counts as too big
const PROBES: u32 = 3;
/// Full-sized messages lost in a row that make a black hole
const BLACK_HOLE: u32 = 8;
/// Doubt that is left when a size counts as too big
const DOUBT_PROBE: f64 = 3.0;
/// Doubt that is left when a path counts as a black hole
const DOUBT_HOLE: f64 = 8.0;
/// Time after which larger sizes are tried again (RFC 8899's PMTU_RAISE_TIMER)
const SEARCH_AGAIN: Duration = Duration::from_secs(600);
/// Time for which a probe may stay without a verdict, times its tries
const PROBE_PATIENCE: Duration = Duration::from_secs(5);

#[cfg(test)]
mod tests {
    use super::*;

    /// Lets a link that passes up to `limit` answer all probes
    fn settle(mtu: &mut Mtu, limit: usize, now: Instant) -> usize {
        let mut probes = 0;
        while let Some(size) = mtu.next_probe(now) {
            probes += 1;
            if size <= limit { mtu.on_probe_acked(size) } else { mtu.on_probe_lost(size, 0) }
        }
        probes
    }

    #[test]
    fn an_ethernet_path_is_found_with_one_probe() {
        let mut mtu = Mtu::new(1472);

        let probes = settle(&mut mtu, 1472, Instant::ZERO);

        assert_eq!((mtu.current(), probes), (1472, 1));
    }

    #[test]
    fn any_limit_is_found_to_within_the_table() {
        for limit in MESSAGE_MIN..=1472 {
            let mut mtu = Mtu::new(1472);

            let probes = settle(&mut mtu, limit, Instant::ZERO);

            let best = sizes(1472).filter(|size| *size <= limit).last().unwrap_or(MESSAGE_MIN);
            assert_eq!(mtu.current(), best, "limit {limit}");
            assert!(probes <= 20, "{probes} probes for {limit}");
        }
    }

    #[test]
    fn a_black_hole_is_left_at_once_and_searched_anew() {
        let mut mtu = Mtu::new(1472);
        settle(&mut mtu, 1472, Instant::ZERO);

        for _ in 0..BLACK_HOLE {
            mtu.on_large_lost(1472, 0);
        }

        assert_eq!(mtu.current(), MESSAGE_MIN);
        settle(&mut mtu, 1400, Instant::ZERO);
        assert_eq!(mtu.current(), 1392);
    }

    #[test]
    fn a_larger_size_is_tried_again_after_a_while() {
        let mut mtu = Mtu::new(1472);
        settle(&mut mtu, 1300, Instant::ZERO);
        assert_eq!(mtu.current(), 1282);

        let later = Instant::ZERO + SEARCH_AGAIN;
        settle(&mut mtu, 1472, later);

        assert_eq!(mtu.current(), 1472);
    }

    #[test]
    fn heavy_loss_is_no_black_hole() {
        let mut mtu = Mtu::new(1472);
        settle(&mut mtu, 1472, Instant::ZERO);

        for _ in 0..BLACK_HOLE {
            mtu.on_large_lost(1472, 300_000);
        }
        assert_eq!(mtu.current(), 1472);
        for _ in 0..BLACK_HOLE {
            mtu.on_large_lost(1472, 300_000);
        }
        assert_eq!(mtu.current(), MESSAGE_MIN);
    }
}
