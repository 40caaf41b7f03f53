//! Shows what a network does while a change of it is waited for.

use std::cell::RefCell;
use std::future::{Future, pending};
use std::time::{Duration, Instant};

use fastvpn_dbus::tree::Tree;
use fastvpn_dbus::{Bus, network_path};
use rustix::process::geteuid;
use tokio::time::{MissedTickBehavior, interval};

use super::follow::{News, follow};
use crate::failure::Failure;
use crate::output::Output;
use crate::progress::Progress;

/// Waits for `call`, and meanwhile shows the state of the network to whoever watches
pub(super) async fn beside<T>(
    bus: &Bus,
    output: &Output,
    network: &str,
    call: impl Future<Output = Result<T, Failure>>,
) -> Result<T, Failure> {
    let mut progress = Progress::new(output);
    if !progress.is_seen() {
        return call.await;
    }
    // While somebody may be typing a password on this terminal, it belongs to him.
    let asked = *bus == Bus::System && !geteuid().is_root();
    let seen = RefCell::new(Seen { quiet: asked, ..Seen::default() });
    let followed = async {
        let path = network_path(network);
        // Whoever cannot look can still wait.
        let _ = follow(bus, |news| {
            seen.borrow_mut().on_news(path.as_str(), &news);
            Ok(())
        })
        .await;
        pending::<()>().await;
    };
    let drawn = async {
        let began = Instant::now();
        let mut ticks = interval(TICK);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            if let Some(line) = seen.borrow().line(network, began.elapsed()) {
                progress.show(&line);
            }
        }
    };
    tokio::select! {
        answer = call => answer,
        () = followed => unreachable!("it is pending at its end"),
        () = drawn => unreachable!("it draws for ever"),
    }
}

/// What was seen of the network
#[derive(Debug, Default)]
struct Seen {
    /// Nothing is to be shown until something changes
    quiet: bool,
    /// State and reason
    last: Option<(String, String)>,
}

impl Seen {
    fn on_news(&mut self, path: &str, news: &News<'_>) {
        let tree: &Tree = match news {
            News::Changed(tree, _) | News::Here(tree) => tree,
            News::Gone => return,
        };
        let Some(network) = tree.networks.get(path) else { return };
        let now = Some((network.facts.state.clone(), network.facts.detail.clone()));
        self.quiet &= self.last.is_none() || self.last == now;
        self.last = now;
    }

    fn line(&self, network: &str, elapsed: Duration) -> Option<String> {
        let (state, detail) = self.last.as_ref().filter(|_| !self.quiet)?;
        // What comes soon needs no comfort, and what is so already is no news.
        if elapsed < SOON || state == "down" {
            return None;
        }
        let detail = if detail.is_empty() { String::new() } else { format!(": {detail}") };
        Some(format!("{network} is {state} ({} s){detail}", elapsed.as_secs()))
    }
}

/// How often the line is drawn
const TICK: Duration = Duration::from_millis(250);
/// From when on somebody is waiting
const SOON: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::render::samples;

    #[test]
    fn line_says_state_reason_and_how_long_it_takes() {
        let mut seen = Seen::default();
        look(&mut seen, "connecting", "hub.example.net:8796 does not answer");

        let line = |secs| seen.line("office", Duration::from_secs(secs));
        assert_eq!(line(0), None);
        assert_eq!(
            line(4).as_deref(),
            Some("office is connecting (4 s): hub.example.net:8796 does not answer")
        );
    }

    #[test]
    fn nothing_is_written_where_a_password_may_be_typed() {
        let mut seen = Seen { quiet: true, ..Seen::default() };
        let line = |seen: &Seen| seen.line("office", Duration::from_secs(4));

        look(&mut seen, "connecting", "");
        look(&mut seen, "connecting", "");
        assert_eq!(line(&seen), None);
        look(&mut seen, "connecting", "still");
        assert!(line(&seen).is_some());
    }

    #[test]
    fn network_that_is_down_yet_is_no_news() {
        let mut seen = Seen::default();
        look(&mut seen, "down", "");

        assert_eq!(seen.line("office", Duration::from_secs(4)), None);
    }

    fn look(seen: &mut Seen, state: &str, detail: &str) {
        let mut tree = samples::tree();
        for network in tree.networks.values_mut() {
            network.facts.state = state.to_owned();
            network.facts.detail = detail.to_owned();
        }
        seen.on_news(network_path("office").as_str(), &News::Here(&tree));
    }
}
