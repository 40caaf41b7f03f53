//! What `top` shows, as lines: pure, for any size.
//!
//! From top to bottom: the networks, totals, a line for each peer, the selected peer in full, the
//! keys. What has no room is left out, the least important first.

use fastvpn_dbus::tree::{Network, Peer, Tree};

use super::graph::{Glyphs, Scale, graph};
use super::history::{History, Sample};
use crate::commands::peers::{carrier, road, title};
use crate::json::known;
use crate::render::{
    Cell, Colour, Column, Screen, Table, Tone, milliseconds, painted, percent, plain, rate,
    shortened, times, tone_of,
};

/// What is looked at, and how
#[derive(Debug)]
pub(super) struct View<'a> {
    pub(super) tree: &'a Tree,
    pub(super) history: &'a History,
    /// Whether the daemon runs
    pub(super) running: bool,
    /// The only network to show
    pub(super) network: Option<&'a str>,
    pub(super) sort: Sort,
    /// Object path of the selected peer
    pub(super) selected: Option<&'a str>,
}

/// Where it is shown
#[derive(Clone, Copy, Debug)]
pub(super) struct Place {
    pub(super) columns: usize,
    /// Nothing: as many as it takes, for paper
    pub(super) rows: Option<usize>,
    pub(super) colour: Colour,
    pub(super) glyphs: Glyphs,
}

/// By what peers are ordered
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq, clap::ValueEnum)]
pub(crate) enum Sort {
    /// By network and name
    #[default]
    Name,
    /// Who sends most to us comes first
    Down,
    /// Whom we send most to comes first
    Up,
    /// The longest round-trip time comes first
    Rtt,
    /// The largest loss comes first
    Loss,
}

impl Sort {
    /// Returns the order whose column is to the right
    pub(super) fn next(self) -> Self {
        match self {
            Self::Name => Self::Down,
            Self::Down => Self::Up,
            Self::Up => Self::Rtt,
            Self::Rtt => Self::Loss,
            Self::Loss => Self::Name,
        }
    }

    /// Returns the order whose column is to the left
    pub(super) fn previous(self) -> Self {
        match self {
            Self::Name => Self::Loss,
            Self::Down => Self::Name,
            Self::Up => Self::Down,
            Self::Rtt => Self::Up,
            Self::Loss => Self::Rtt,
        }
    }
}

impl View<'_> {
    /// Returns the peers that are shown, in their order, with their object paths
    pub(super) fn peers(&self) -> Vec<(&str, &Peer)> {
        let wanted =
            |peer: &Peer| self.network.is_none_or(|network| self.tree.network_of(peer) == network);
        let peers = self.tree.peers.iter().map(|(path, peer)| (path.as_str(), peer));
        let mut peers: Vec<_> = peers.filter(|(_, peer)| wanted(peer)).collect();
        peers.sort_by_cached_key(|(path, peer)| {
            let network = self.tree.network_of(peer).to_owned();
            (network, peer.facts.name.clone(), (*path).to_owned())
        });
        let by = |value: fn(&Sample) -> f64| {
            move |(one, _): &(&str, &Peer), (other, _): &(&str, &Peer)| {
                let of = |path| value(&self.history.latest(path));
                of(other).total_cmp(&of(one))
            }
        };
        match self.sort {
            Sort::Name => {}
            Sort::Down => peers.sort_by(by(|sample| sample.down)),
            Sort::Up => peers.sort_by(by(|sample| sample.up)),
            Sort::Rtt => peers.sort_by(by(|sample| sample.rtt.unwrap_or(-1.0))),
            Sort::Loss => peers.sort_by(by(|sample| sample.loss.unwrap_or(-1.0))),
        }
        peers
    }

    /// Returns all lines; where there are rows, as many as these, or a few more where they are few
    pub(super) fn frame(&self, place: Place) -> Vec<String> {
        let lines = self.lines(place);
        match place.glyphs {
            Glyphs::Ascii => lines.iter().map(|line| line.replace('…', "~")).collect(),
            Glyphs::Blocks => lines,
        }
    }

    fn lines(&self, place: Place) -> Vec<String> {
        let peers = self.peers();
        let mut lines = self.head(&peers, place);
        if !self.running {
            lines.truncate(1);
            return lines;
        }
        let selected = peers.iter().position(|(path, _)| Some(*path) == self.selected);
        let Some(rows) = place.rows else {
            lines.extend(self.table(&peers, None, place));
            return lines;
        };
        let full = match selected {
            Some(index) if rows >= ROWS_FOR_ALL => self.in_full(peers[index], place),
            Some(_) | None => Vec::new(),
        };
        let keys = usize::from(rows >= ROWS_FOR_KEYS);
        let room = rows.saturating_sub(lines.len() + full.len() + keys + 1);
        let first = selected.map_or(0, |index| (index + 1).saturating_sub(room.max(1)));
        let shown = &peers[first..peers.len().min(first + room)];
        let marked = selected.map(|index| index - first);
        if shown.len() < peers.len() && !shown.is_empty() {
            let part = format!(", {} to {} shown", first + 1, first + shown.len());
            lines[1] = shortened(&format!("{}{part}", lines[1]), place.columns);
        }
        lines.extend(self.table(shown, marked, place));
        lines.resize(rows.saturating_sub(full.len() + keys), String::new());
        lines.extend(full);
        if keys > 0 {
            lines.push(painted(&shortened(KEYS, place.columns), Tone::Faint, place.colour));
        }
        lines
    }

    fn head(&self, peers: &[(&str, &Peer)], place: Place) -> Vec<String> {
        let wanted =
            |network: &&Network| self.network.is_none_or(|name| network.facts.name == name);
        let networks: Vec<_> = self.tree.networks.values().filter(wanted).collect();
        let (text, tone) = if self.running {
            let states = networks.iter().map(|network| state(network));
            let worst = networks.iter().map(|network| tone_of(&network.facts.state));
            let tone = worst.max_by_key(|tone| severity(*tone)).unwrap_or(Tone::Plain);
            (format!("fastvpn  {}", states.collect::<Vec<_>>().join("  ")), tone)
        } else {
            ("fastvpnd is not running; waiting for it".to_owned(), Tone::Bad)
        };
        let first = painted(&shortened(&plain(&text), place.columns), tone, place.colour);
        let connected = peers.iter().filter(|(_, peer)| peer.facts.state == "connected").count();
        let sum = |value: fn(&Sample) -> f64| -> f64 {
            peers.iter().map(|(path, _)| value(&self.history.latest(path))).sum()
        };
        let counted =
            |network: &&Network| network.figures.statistics.get("wire-rx-overflowed").copied();
        let overflowed = match networks.iter().filter_map(counted).sum::<u64>() {
            0 => String::new(),
            messages => format!(", {messages} overflowed"),
        };
        let totals = format!(
            "{connected} of {} peers connected, down {}, up {}{overflowed}",
            peers.len(),
            bits(sum(|sample| sample.down)),
            bits(sum(|sample| sample.up)),
        );
        vec![first, shortened(&totals, place.columns)]
    }

    fn table(&self, peers: &[(&str, &Peer)], marked: Option<usize>, place: Place) -> Vec<String> {
        let names = peers.iter().map(|(_, peer)| self.name(peer).chars().count());
        let fixed = FIXED_COLUMNS + names.max().unwrap_or(0);
        let cells = place.columns.saturating_sub(fixed) / 4;
        let cells = cells.clamp(GRAPH_MIN, GRAPH_MAX);
        let mut table = Table::new(&self.columns());
        for (index, (path, peer)) in peers.iter().enumerate() {
            let now = self.history.latest(path);
            let small = |value: fn(&Sample) -> Option<f64>, scale: fn(&[Option<f64>]) -> Scale| {
                let values = self.history.values(path, cells, LIST_SECONDS, value);
                Cell::new(graph(&values, scale(&values), 1, place.glyphs).concat())
            };
            table.row(vec![
                Cell::new(if marked == Some(index) { ">" } else { " " }),
                Cell::toned(self.name(peer), tone_of(&peer.facts.state)),
                Cell::new(carrier(&peer.facts.path_kind)),
                Cell::new(short_bits(now.down)),
                small(|sample| Some(sample.down), rates),
                Cell::new(short_bits(now.up)),
                small(|sample| Some(sample.up), rates),
                Cell::new(format!("{:>7}", milliseconds(now.rtt))),
                small(|sample| sample.rtt, times_of),
                Cell::new(format!("{:>5}", now.loss.map_or("-".to_owned(), percent))),
                small(|sample| sample.loss, losses),
            ]);
        }
        let screen = Screen { width: Some(place.columns), colour: place.colour };
        table.render(screen).lines().map(str::to_owned).collect()
    }

    /// The columns, the one that orders them marked
    fn columns(&self) -> [Column; 11] {
        let title = |sort, plain, marked| if self.sort == sort { marked } else { plain };
        [
            Column::left(" ", 0),
            Column::left(title(Sort::Name, "NAME", "NAME*"), 0),
            Column::left("CARRIER", 7),
            Column::right(title(Sort::Down, "DOWN", "DOWN*"), 0),
            Column::left("", 6),
            Column::right(title(Sort::Up, "UP", "UP*"), 1),
            Column::left("", 5),
            Column::right(title(Sort::Rtt, "RTT", "RTT*"), 0),
            Column::left("", 3),
            Column::right(title(Sort::Loss, "LOSS", "LOSS*"), 2),
            Column::left("", 4),
        ]
    }

    /// What people call the peer, with its network where several are shown
    fn name(&self, peer: &Peer) -> String {
        let several = self.network.is_none() && self.tree.networks.len() > 1;
        let network = if several { self.tree.network_of(peer) } else { "" };
        let slash = if several { "/" } else { "" };
        format!("{network}{slash}{}", title(peer))
    }

    /// All that is known of one peer, with graphs as wide as the screen
    fn in_full(&self, (path, peer): (&str, &Peer), place: Place) -> Vec<String> {
        let (facts, figures) = (&peer.facts, &peer.figures);
        let now = self.history.latest(path);
        let way = match facts.path_kind.as_str() {
            "" => "no path".to_owned(),
            kind => format!("{} {}", carrier(kind), road(self.tree, kind, &facts.endpoint)),
        };
        let who = [self.name(peer), facts.state.clone(), facts.addresses.join(", "), way];
        let measured = [
            format!("rate {}", known(figures.rate).map_or("-".to_owned(), rate)),
            format!("queue {}", milliseconds(Some(figures.queue_delay_us as f64 / 1000.0))),
            format!("own loss {}", percent(figures.own_loss)),
            format!("wire {}", times(self.history.overhead(path))),
            causes(peer),
            format!("MTU {}", facts.path_mtu),
        ];
        let text = |parts: &[String]| shortened(&plain(&parts.join("  ")), place.columns);
        let mut lines = vec![String::new(), text(&who), text(&measured)];
        let cells = place.columns.saturating_sub(LABEL);
        let mut draw = |label: &str, value: String, values: &[Option<f64>], scale, height| {
            let drawn = graph(values, scale, height, place.glyphs);
            for (line, drawn) in drawn.iter().enumerate() {
                let last = line + 1 == height;
                let (label, value) = if last { (label, value.as_str()) } else { ("", "") };
                lines.push(format!("{label:<5}{value:>12} {drawn}").trim_end().to_owned());
            }
        };
        let values = |value: fn(&Sample) -> Option<f64>| {
            self.history.values(path, cells, FULL_SECONDS, value)
        };
        let (down, up) = (values(|sample| Some(sample.down)), values(|sample| Some(sample.up)));
        let (rtt, loss) = (values(|sample| sample.rtt), values(|sample| sample.loss));
        draw("down", bits(now.down), &down, rates(&down), 2);
        draw("up", bits(now.up), &up, rates(&up), 2);
        draw("RTT", milliseconds(now.rtt), &rtt, times_of(&rtt), 1);
        draw("loss", now.loss.map_or("-".to_owned(), percent), &loss, losses(&loss), 1);
        lines
    }
}

/// A network's name and state, with the reason where it is not well
fn state(network: &Network) -> String {
    let known = &network.facts;
    let detail =
        if known.detail.is_empty() { String::new() } else { format!(" ({})", known.detail) };
    format!("{} {}{detail}", known.name, known.state)
}

fn severity(tone: Tone) -> u8 {
    match tone {
        Tone::Faint => 0,
        Tone::Plain => 1,
        Tone::Good => 2,
        Tone::Uneasy => 3,
        Tone::Bad => 4,
    }
}

/// What share of a path's load was sent again, and what share in case it is lost
fn causes(peer: &Peer) -> String {
    let count = |name| peer.figures.path_statistics.get(name).copied().unwrap_or(0);
    let fresh = count("fresh-bytes");
    if fresh == 0 {
        return "repeats -  copies -".to_owned();
    }
    let share = |name| percent(count(name) as f64 / fresh as f64);
    format!("repeats {}  copies {}", share("repeat-bytes"), share("copy-bytes"))
}

fn bits(rate_of: f64) -> String {
    rate(rate_of.round() as u64)
}

/// A rate without its unit, always as wide: columns must not move
fn short_bits(rate_of: f64) -> String {
    format!("{:>6}", bits(rate_of).trim_end_matches("bit/s").trim_end())
}

fn rates(values: &[Option<f64>]) -> Scale {
    Scale::from_zero(values, 10_000.0)
}

/// Round-trip times: what matters is how they change
fn times_of(values: &[Option<f64>]) -> Scale {
    let low = values.iter().flatten().copied().fold(f64::INFINITY, f64::min);
    Scale::around(values, if low.is_finite() { (low * 0.5).max(2.0) } else { 2.0 })
}

fn losses(values: &[Option<f64>]) -> Scale {
    Scale::from_zero(values, 0.1)
}

/// Seconds that the small graphs show
const LIST_SECONDS: usize = 120;
/// Seconds that the graphs of the selected peer show
const FULL_SECONDS: usize = 300;
/// Columns of the table without graphs and names, gaps included
const FIXED_COLUMNS: usize = 52;
/// Narrowest and widest small graph
const GRAPH_MIN: usize = 4;
const GRAPH_MAX: usize = 24;
/// Columns before a graph of the selected peer
const LABEL: usize = 18;
/// Rows from which on the selected peer is shown in full
const ROWS_FOR_ALL: usize = 16;
/// Rows from which on the keys are shown
const ROWS_FOR_KEYS: usize = 8;
const KEYS: &str = "q quit   up/down select   left/right sort   graphs: 2 minutes, below 5 minutes";

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::render::samples::{tokyo, tree};

    const PLAIN: Place =
        Place { columns: 80, rows: Some(24), colour: Colour::Never, glyphs: Glyphs::Blocks };

    #[test]
    fn frame_fills_any_terminal_and_never_more() {
        let world = World::new(40);
        for (columns, rows) in [(80, 24), (200, 60), (40, 10), (20, 5), (10, 3), (1, 1)] {
            let place = Place { columns, rows: Some(rows), ..PLAIN };

            let frame = world.view(Sort::Name, Some("/peer/07")).frame(place);

            assert!(frame.len() <= rows.max(3), "{columns}x{rows}: {frame:#?}");
            if columns >= 40 {
                let wide = |line: &&String| line.chars().count() > columns;
                assert_eq!(frame.iter().find(wide), None, "{columns}x{rows}");
            }
        }
    }

    #[test]
    fn eighty_columns_show_names_rates_times_losses_and_graphs() {
        let world = World::new(2);

        let frame = world.view(Sort::Down, Some("/peer/01")).frame(PLAIN);

        let text = frame.join("\n");
        assert_eq!(frame.len(), 24);
        assert!(frame[0].starts_with("fastvpn  office up"), "{text}");
        assert!(frame[1].starts_with("2 of 2 peers connected, down 12.0 Mbit/s"), "{text}");
        let titles: Vec<_> = frame[2].split_whitespace().collect();
        assert_eq!(titles, ["NAME", "CARRIER", "DOWN*", "UP", "RTT", "LOSS"], "{text}");
        assert!(frame[3].starts_with(">  peer-01"), "{text}");
        assert!(frame[3].contains("8.00 M      █"), "{text}");
        assert!(frame[3].contains('█') && frame[3].contains("31.2 ms"), "{text}");
        assert!(frame[3].contains("25 %"), "{text}");
        assert!(text.contains("rate 100 Mbit/s  queue 0.70 ms  own loss 5.0 %"), "{text}");
        assert!(text.contains("udp 203.0.113.5:8796"), "{text}");
    }

    #[test]
    fn messages_that_nobody_read_are_told_above() {
        let mut world = World::new(1);
        let office = world.tree.networks.values_mut().next().unwrap();
        office.figures.statistics.insert("wire-rx-overflowed".to_owned(), 7);

        let frame = world.view(Sort::Name, None).frame(PLAIN);

        assert!(frame[1].ends_with(", 7 overflowed"), "{}", frame[1]);
        assert!(!World::new(1).view(Sort::Name, None).frame(PLAIN)[1].contains("overflowed"));
    }

    #[test]
    fn wide_terminal_has_longer_graphs_and_a_narrow_one_none() {
        let world = World::new(1);
        let view = world.view(Sort::Name, None);

        let wide = view.frame(Place { columns: 140, ..PLAIN });
        let narrow = view.frame(Place { columns: 50, ..PLAIN });

        let width = |frame: &[String]| frame[3].chars().count();
        assert!(width(&wide) > 130, "{wide:#?}");
        assert!(!narrow[3].contains('█') && narrow[3].contains("31.2 ms"), "{narrow:#?}");
    }

    #[test]
    fn columns_stay_where_they_are_when_figures_change() {
        let world = World::new(3);
        let idle = World::new(1);
        let ends = |world: &World| {
            let frame = world.view(Sort::Up, Some("/peer/00")).frame(PLAIN);
            let title = |title| frame[2].find(title).unwrap();
            [title("CARRIER"), title("DOWN"), title("UP*"), title("RTT"), title("LOSS")]
        };

        assert_eq!(ends(&world), ends(&idle));
    }

    #[test]
    fn ascii_is_all_that_some_terminals_get() {
        let world = World::new(2);

        let frame = world
            .view(Sort::Name, Some("/peer/00"))
            .frame(Place { glyphs: Glyphs::Ascii, ..PLAIN });

        assert!(frame.join("").is_ascii(), "{frame:#?}");
    }

    #[test]
    fn selected_peer_is_always_in_sight() {
        let world = World::new(40);

        let frame = world.view(Sort::Name, Some("/peer/39")).frame(PLAIN);

        assert!(frame.iter().any(|line| line.starts_with(">  peer-39")), "{frame:#?}");
        assert!(frame[1].ends_with(" to 40 shown"), "{frame:#?}");
    }

    #[test]
    fn order_is_that_of_the_column_and_of_names_within() {
        let world = World::new(3);
        let order = |sort| -> Vec<String> {
            let view = world.view(sort, None);
            view.peers().iter().map(|(_, peer)| peer.facts.name.clone()).collect()
        };

        assert_eq!(order(Sort::Name), ["peer-00", "peer-01", "peer-02"]);
        assert_eq!(order(Sort::Down), ["peer-02", "peer-01", "peer-00"]);
        assert_eq!(order(Sort::Rtt), ["peer-00", "peer-01", "peer-02"]);
        assert_eq!(Sort::Name.next().next().next().next().next(), Sort::Name);
        assert_eq!(Sort::Up.next().previous(), Sort::Up);
    }

    #[test]
    fn daemon_that_is_gone_is_said_and_paper_is_as_long_as_it_takes() {
        let world = World::new(40);
        let gone = View { running: false, ..world.view(Sort::Name, None) };

        let frame = gone.frame(Place { rows: None, ..PLAIN });

        assert!(frame[0].contains("not running"));
        assert_eq!(frame.len(), 1);
        let frame = world.view(Sort::Name, None).frame(Place { rows: None, ..PLAIN });
        assert_eq!(frame.len(), 2 + 1 + 40);
    }

    #[test]
    fn narrow_terminal_keeps_names_and_whole_figures() {
        let world = World::new(3);

        let frame = world.view(Sort::Down, None).frame(Place { columns: 32, ..PLAIN });

        assert!(frame[3].contains("peer-02") && frame[3].contains("31.2 ms"), "{frame:#?}");
        assert!(!frame[2].contains("LOSS"), "{frame:#?}");
    }

    /// Peers of which each receives 4 Mbit/s more than the one before
    struct World {
        tree: Tree,
        history: History,
    }

    impl World {
        fn new(peers: u64) -> Self {
            let mut tree = tree();
            tree.peers.clear();
            let mut history = History::default();
            for second in 0..3 {
                let now = Duration::from_secs(second);
                for number in 0..peers {
                    let mut peer = tokyo();
                    peer.facts.name = format!("peer-{number:02}");
                    let received = 500_000 * (number + 1) * second;
                    peer.figures.statistics.insert("rx-bytes".to_owned(), received);
                    let path = format!("/peer/{number:02}");
                    history.on_peer(&path, &peer, now);
                    tree.peers.insert(path, peer);
                }
                history.sample(&tree, now);
            }
            Self { tree, history }
        }

        fn view<'a>(&'a self, sort: Sort, selected: Option<&'a str>) -> View<'a> {
            let (tree, history) = (&self.tree, &self.history);
            View { tree, history, running: true, network: None, sort, selected }
        }
    }
}
