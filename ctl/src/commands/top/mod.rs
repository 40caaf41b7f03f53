//! `fastvpnctl top`: peers with their rates, round-trip times and losses, live.
//!
//! Follows the daemon's signals and draws once a second, and after each key. Where standard output
//! is no terminal, or with `--once`, one frame is printed after two seconds of measuring.

mod graph;
mod history;
mod terminal;
mod view;

use std::cell::RefCell;
use std::time::{Duration, Instant};

use crossterm::event::{Event, EventStream, KeyCode, KeyEvent, KeyEventKind, KeyModifiers};
use fastvpn_dbus::Bus;
use fastvpn_dbus::tree::{Change, Tree};
use futures_util::StreamExt;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::time::{MissedTickBehavior, interval, sleep};

use self::graph::Glyphs;
use self::history::History;
use self::terminal::Terminal;
pub(crate) use self::view::Sort;
use self::view::{Place, View};
use super::follow::{News, follow};
use super::{Absent, Daemon, Patience, chosen};
use crate::args::TopArguments;
use crate::failure::Failure;
use crate::output::{Form, Output};
use crate::render::{Colour, Screen};

pub(super) async fn run(
    bus: &Bus,
    output: &Output,
    arguments: &TopArguments,
) -> Result<(), Failure> {
    if output.form == Form::Json {
        let instead = "top is for people; programs take: fastvpnctl --json peers, or monitor";
        return Err(Failure::failed(instead));
    }
    // To look at what is not there makes no sense; later it may go and come.
    let tree = Daemon::open(bus, Absent::Fail, Patience::Short).await?.tree().await?;
    chosen(&tree, arguments.network.as_deref())?;
    let state = RefCell::new(State::new(arguments));
    let followed = follow(bus, |news| {
        state.borrow_mut().on_news(news);
        Ok(())
    });
    let screen = output.screen;
    tokio::select! {
        ended = followed => ended,
        ended = async {
            if arguments.once || !output.is_terminal() {
                once(&state, output, arguments).await
            } else {
                live(&state, screen, arguments).await.map_err(|error| {
                    Failure::failed(format!("cannot use the terminal: {error}"))
                })
            }
        } => ended,
    }
}

/// Measures for a while and prints one frame
async fn once(
    state: &RefCell<State>,
    output: &Output,
    arguments: &TopArguments,
) -> Result<(), Failure> {
    for _ in 0..2 {
        sleep(SAMPLE).await;
        state.borrow_mut().sample();
    }
    let place = Place {
        columns: output.screen.width.unwrap_or(PAPER_COLUMNS),
        rows: None,
        colour: output.screen.colour,
        glyphs: glyphs(arguments),
    };
    let lines = state.borrow().view().frame(place);
    output.text(&(lines.join("\n") + "\n"))
}

/// Shows frames until somebody wants no more
async fn live(
    state: &RefCell<State>,
    screen: Screen,
    arguments: &TopArguments,
) -> std::io::Result<()> {
    let mut ends = Ends::new()?;
    let mut terminal = Terminal::enter()?;
    let mut events = EventStream::new();
    let mut samples = interval(SAMPLE);
    samples.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let glyphs = glyphs(arguments);
    loop {
        draw(&mut terminal, state, screen.colour, glyphs)?;
        tokio::select! {
            _ = samples.tick() => state.borrow_mut().sample(),
            () = ends.next() => return Ok(()),
            event = events.next() => match event {
                None => return Ok(()),
                Some(Err(error)) => return Err(error),
                Some(Ok(Event::Key(key))) => match wish(key) {
                    Some(Wish::Quit) => return Ok(()),
                    Some(Wish::Suspend) => terminal.suspend()?,
                    Some(wish) => state.borrow_mut().on_wish(wish),
                    None => {}
                },
                Some(Ok(Event::Resize(..))) => terminal.forget()?,
                Some(Ok(_)) => {}
            }
        }
    }
}

fn draw(
    terminal: &mut Terminal,
    state: &RefCell<State>,
    colour: Colour,
    glyphs: Glyphs,
) -> std::io::Result<()> {
    let (columns, rows) = crossterm::terminal::size()?;
    let (columns, rows) = (usize::from(columns), usize::from(rows));
    let place = Place { columns, rows: Some(rows), colour, glyphs };
    let mut lines = state.borrow().view().frame(place);
    lines.truncate(rows);
    terminal.draw(lines)
}

/// Blocks where the terminal is said to understand UTF-8; the Linux console has no such signs
fn glyphs(arguments: &TopArguments) -> Glyphs {
    let locale = ["LC_ALL", "LC_CTYPE", "LANG"].into_iter().filter_map(std::env::var_os);
    let locale = locale.map(|value| value.to_string_lossy().to_ascii_lowercase());
    let locale = locale.into_iter().find(|value| !value.is_empty()).unwrap_or_default();
    let console = std::env::var_os("TERM").is_some_and(|term| term == "linux" || term == "dumb");
    let utf8 = locale.contains("utf-8") || locale.contains("utf8");
    if utf8 && !console && !arguments.ascii { Glyphs::Blocks } else { Glyphs::Ascii }
}

/// Signals that end the program
struct Ends([Signal; 3]);

impl Ends {
    fn new() -> std::io::Result<Self> {
        let hangup = signal(SignalKind::hangup())?;
        let interrupt = signal(SignalKind::interrupt())?;
        Ok(Self([hangup, interrupt, signal(SignalKind::terminate())?]))
    }

    async fn next(&mut self) {
        let [hangup, interrupt, terminate] = &mut self.0;
        tokio::select! {
            _ = hangup.recv() => {}
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
        }
    }
}

/// What somebody wants by a key
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Wish {
    /// Select the peer so many lines below
    Move(isize),
    Quit,
    SortLeft,
    SortRight,
    Suspend,
}

fn wish(key: KeyEvent) -> Option<Wish> {
    if key.kind == KeyEventKind::Release {
        return None;
    }
    match (key.code, key.modifiers.contains(KeyModifiers::CONTROL)) {
        (KeyCode::Char('c' | 'd'), true) => Some(Wish::Quit),
        (KeyCode::Char('z'), true) => Some(Wish::Suspend),
        (_, true) => None,
        (KeyCode::Char('q') | KeyCode::Esc, false) => Some(Wish::Quit),
        (KeyCode::Down | KeyCode::Char('j'), false) => Some(Wish::Move(1)),
        (KeyCode::Up | KeyCode::Char('k'), false) => Some(Wish::Move(-1)),
        (KeyCode::PageDown, false) => Some(Wish::Move(PAGE)),
        (KeyCode::PageUp, false) => Some(Wish::Move(-PAGE)),
        (KeyCode::Home, false) => Some(Wish::Move(isize::MIN)),
        (KeyCode::End, false) => Some(Wish::Move(isize::MAX)),
        (KeyCode::Left | KeyCode::Char('h'), false) => Some(Wish::SortLeft),
        (KeyCode::Right | KeyCode::Char('l' | 's'), false) => Some(Wish::SortRight),
        (_, false) => None,
    }
}

/// All that is known and chosen
#[derive(Debug)]
struct State {
    tree: Tree,
    history: History,
    running: bool,
    network: Option<String>,
    sort: Sort,
    selected: Option<String>,
    started: Instant,
}

impl State {
    fn new(arguments: &TopArguments) -> Self {
        Self {
            tree: Tree::default(),
            history: History::default(),
            running: true,
            network: arguments.network.clone(),
            sort: arguments.sort,
            selected: None,
            started: Instant::now(),
        }
    }

    fn on_news(&mut self, news: News<'_>) {
        let now = self.started.elapsed();
        match news {
            News::Gone => {
                self.running = false;
                self.tree = Tree::default();
            }
            News::Here(tree) => {
                self.running = true;
                self.tree = tree.clone();
                for (path, peer) in &self.tree.peers {
                    self.history.on_peer(path, peer, now);
                }
            }
            News::Changed(tree, change) => self.on_change(tree, change, now),
        }
    }

    /// Takes over what is different
    fn on_change(&mut self, tree: &Tree, change: &Change, now: Duration) {
        match change {
            Change::NetworkAdded(path) | Change::NetworkChanged(path, _) => {
                if let Some(network) = tree.networks.get(path) {
                    self.tree.networks.insert(path.clone(), network.clone());
                }
            }
            Change::NetworkRemoved(_) => {
                self.tree.networks.retain(|path, _| tree.networks.contains_key(path));
            }
            Change::PeerAdded(path) | Change::PeerChanged(path, _) => {
                if let Some(peer) = tree.peers.get(path) {
                    self.history.on_peer(path, peer, now);
                    self.tree.peers.insert(path.clone(), peer.clone());
                }
            }
            Change::PeerRemoved(_) => {
                let gone = |path: &&String| !tree.peers.contains_key(*path);
                let gone: Vec<_> = self.tree.peers.keys().filter(gone).cloned().collect();
                for path in gone {
                    self.tree.peers.remove(&path);
                    self.history.on_removed(&path);
                }
            }
        }
    }

    fn sample(&mut self) {
        self.history.sample(&self.tree, self.started.elapsed());
        if self.selected.as_ref().is_none_or(|path| !self.tree.peers.contains_key(path)) {
            self.selected = self.view().peers().first().map(|(path, _)| (*path).to_owned());
        }
    }

    fn on_wish(&mut self, wish: Wish) {
        match wish {
            Wish::Move(lines) => self.select(lines),
            Wish::SortLeft => self.sort = self.sort.previous(),
            Wish::SortRight => self.sort = self.sort.next(),
            Wish::Quit | Wish::Suspend => {}
        }
    }

    fn select(&mut self, lines: isize) {
        let view = self.view();
        let peers = view.peers();
        let at = peers.iter().position(|(path, _)| Some(*path) == self.selected.as_deref());
        let to = at.map_or(0, |at| at.saturating_add_signed(lines));
        let to = to.min(peers.len().saturating_sub(1));
        self.selected = peers.get(to).map(|(path, _)| (*path).to_owned());
    }

    fn view(&self) -> View<'_> {
        View {
            tree: &self.tree,
            history: &self.history,
            running: self.running,
            network: self.network.as_deref(),
            sort: self.sort,
            selected: self.selected.as_deref(),
        }
    }
}

/// Time between two samples
const SAMPLE: Duration = Duration::from_secs(1);
/// Peers that a page has
const PAGE: isize = 10;
/// Columns where nobody says how many there are
const PAPER_COLUMNS: usize = 100;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::render::samples::{tokyo, tree};

    #[test]
    fn keys_quit_move_and_sort() {
        let of = |code, modifiers| wish(KeyEvent::new(code, modifiers));
        let (plain, control) = (KeyModifiers::NONE, KeyModifiers::CONTROL);

        assert_eq!(of(KeyCode::Char('q'), plain), Some(Wish::Quit));
        assert_eq!(of(KeyCode::Char('c'), control), Some(Wish::Quit));
        assert_eq!(of(KeyCode::Char('z'), control), Some(Wish::Suspend));
        assert_eq!(of(KeyCode::Char('c'), plain), None);
        assert_eq!(of(KeyCode::Down, plain), Some(Wish::Move(1)));
        assert_eq!(of(KeyCode::Left, plain), Some(Wish::SortLeft));
    }

    #[test]
    fn selection_stays_with_its_peer_and_goes_to_another_when_that_is_gone() {
        let mut all = tree();
        for name in ["a", "b", "c"] {
            let mut peer = tokyo();
            peer.facts.name = name.to_owned();
            all.peers.insert(format!("/{name}"), peer);
        }
        let mut state = state();
        state.on_news(News::Here(&all));
        state.sample();
        assert_eq!(state.selected.as_deref(), Some("/a"));

        state.on_wish(Wish::Move(1));
        state.on_wish(Wish::Move(1));
        assert_eq!(state.selected.as_deref(), Some("/c"));
        state.on_wish(Wish::Move(isize::MAX));
        state.on_wish(Wish::Move(isize::MIN));
        assert_eq!(state.selected.as_deref(), Some("/a"));

        let gone = all.peers.remove("/a").unwrap();
        state.on_news(News::Changed(&all, &Change::PeerRemoved(Box::new(gone))));
        state.sample();
        assert_eq!(state.selected.as_deref(), Some("/b"));
    }

    #[test]
    fn daemon_that_goes_takes_everything_with_it() {
        let mut state = state();
        state.on_news(News::Here(&tree()));

        state.on_news(News::Gone);
        state.sample();

        assert!(!state.running && state.view().peers().is_empty());
        assert_eq!(state.selected, None);
    }

    fn state() -> State {
        let arguments = TopArguments { network: None, once: false, ascii: false, sort: Sort::Name };
        State::new(&arguments)
    }
}
