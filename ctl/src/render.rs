//! What people get: tables that fit the terminal, and times, sizes and shares in words.
//!
//! Pure: width, colours and the time of day are arguments. Text that came from outside (names of
//! peers come from the hub) is freed from control characters before it reaches a terminal.

use std::fmt::Write as _;

/// A table under construction
#[derive(Debug, Default)]
pub(crate) struct Table {
    columns: Vec<Column>,
    rows: Vec<Vec<Cell>>,
}

/// One column
#[derive(Clone, Debug)]
pub(crate) struct Column {
    title: &'static str,
    align: Align,
    /// Dropped in this order where the terminal is narrow, the highest first; 0: never
    expendable: u8,
}

/// On which side text is filled up
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Align {
    Left,
    Right,
}

/// One cell
#[derive(Clone, Debug)]
pub(crate) struct Cell {
    text: String,
    tone: Tone,
}

/// What a text feels like; a colour, where there are any
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Tone {
    /// Broken
    Bad,
    /// Not worth much attention
    Faint,
    /// As it should be
    Good,
    /// Nothing special
    Plain,
    /// On its way, or not quite as it should be
    Uneasy,
}

/// Where tables are shown
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct Screen {
    /// Columns of the terminal; nothing: as many as it takes
    pub(crate) width: Option<usize>,
    /// Whether colours are welcome
    pub(crate) colour: Colour,
}

/// Whether colours are welcome
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Colour {
    /// They are not
    Never,
    /// They are
    Welcome,
}

impl Column {
    pub(crate) const fn left(title: &'static str, expendable: u8) -> Self {
        Self { title, align: Align::Left, expendable }
    }

    pub(crate) const fn right(title: &'static str, expendable: u8) -> Self {
        Self { title, align: Align::Right, expendable }
    }
}

impl Cell {
    pub(crate) fn new(text: impl AsRef<str>) -> Self {
        Self::toned(text, Tone::Plain)
    }

    pub(crate) fn toned(text: impl AsRef<str>, tone: Tone) -> Self {
        Self { text: plain(text.as_ref()), tone }
    }

    /// A word about a state, in its tone
    pub(crate) fn state(word: &str) -> Self {
        Self::toned(word, tone_of(word))
    }
}

impl Table {
    pub(crate) fn new(columns: &[Column]) -> Self {
        Self { columns: columns.to_vec(), rows: Vec::new() }
    }

    /// Adds a row; it has a cell for each column
    pub(crate) fn row(&mut self, cells: Vec<Cell>) {
        debug_assert_eq!(cells.len(), self.columns.len(), "a cell for each column");
        self.rows.push(cells);
    }

    /// Returns the lines, each with its end
    pub(crate) fn render(&self, screen: Screen) -> String {
        let (shown, widths) = self.fit(screen.width);
        let mut text = String::new();
        let titles = self.columns.iter().map(|column| Cell::toned(column.title, Tone::Faint));
        let titles: Vec<_> = titles.collect();
        for row in std::iter::once(&titles).chain(&self.rows) {
            let mut line = String::new();
            for (place, (&index, &width)) in shown.iter().zip(&widths).enumerate() {
                let Some(cell) = row.get(index) else { continue };
                let fill = if place + 1 == shown.len() { Fill::Last } else { Fill::Inner };
                line.push_str(if place == 0 { "" } else { GAP });
                line.push_str(&padded(cell, self.columns[index].align, width, fill, screen.colour));
            }
            text.push_str(line.trim_end());
            text.push('\n');
        }
        text
    }

    /// Which columns are shown, and how wide
    fn fit(&self, screen: Option<usize>) -> (Vec<usize>, Vec<usize>) {
        let mut shown: Vec<_> = (0..self.columns.len()).collect();
        let Some(screen) = screen else {
            return (shown.clone(), shown.iter().map(|&index| self.width(index)).collect());
        };
        let total = |shown: &[usize]| -> usize {
            let text: usize = shown.iter().map(|&index| self.width(index)).sum();
            text + GAP.len() * shown.len().saturating_sub(1)
        };
        while total(&shown) > screen {
            let least = shown.iter().copied().max_by_key(|&index| self.columns[index].expendable);
            match least {
                Some(index) if self.columns[index].expendable > 0 => {
                    shown.retain(|&kept| kept != index);
                }
                Some(_) | None => break,
            }
        }
        let mut widths: Vec<_> = shown.iter().map(|&index| self.width(index)).collect();
        let mut excess = total(&shown).saturating_sub(screen);
        while excess > 0 {
            match widths.iter_mut().max() {
                Some(widest) if *widest > NARROWEST => *widest -= 1,
                Some(_) | None => break,
            }
            excess -= 1;
        }
        (shown, widths)
    }

    fn width(&self, index: usize) -> usize {
        let cells = self.rows.iter().filter_map(|row| row.get(index));
        let texts = cells.map(|cell| cell.text.chars().count());
        texts.max().unwrap_or(0).max(self.columns[index].title.len())
    }
}

/// Where a cell is in its line
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Fill {
    Inner,
    Last,
}

fn padded(cell: &Cell, align: Align, width: usize, fill: Fill, colour: Colour) -> String {
    let text = shortened(&cell.text, width);
    let missing = " ".repeat(width.saturating_sub(text.chars().count()));
    let text = painted(&text, cell.tone, colour);
    match (align, fill) {
        (Align::Right, _) => missing + &text,
        (Align::Left, Fill::Inner) => text + &missing,
        (Align::Left, Fill::Last) => text,
    }
}

/// The first characters of a text that is too long
pub(crate) fn shortened(text: &str, width: usize) -> String {
    if text.chars().count() <= width {
        return text.to_owned();
    }
    text.chars().take(width.saturating_sub(1)).chain(['…']).collect()
}

/// Breaks a text into lines at its spaces; a word that does not fit has a line of its own
pub(crate) fn wrapped(text: &str, width: Option<usize>) -> Vec<String> {
    let width = width.unwrap_or(usize::MAX);
    let mut lines: Vec<String> = Vec::new();
    for word in text.split(' ') {
        match lines.last_mut() {
            Some(line) if line.chars().count() + 1 + word.chars().count() <= width => {
                line.push(' ');
                line.push_str(word);
            }
            Some(_) | None => lines.push(word.to_owned()),
        }
    }
    lines
}

/// Gives a text the colour of its tone
pub(crate) fn painted(text: &str, tone: Tone, colour: Colour) -> String {
    let code = match (colour, tone) {
        (Colour::Never, _) | (_, Tone::Plain) => return text.to_owned(),
        (Colour::Welcome, Tone::Bad) => "31",
        (Colour::Welcome, Tone::Faint) => "2",
        (Colour::Welcome, Tone::Good) => "32",
        (Colour::Welcome, Tone::Uneasy) => "33",
    };
    format!("\x1b[{code}m{text}\x1b[0m")
}

/// Lines of `name: value`, the values below each other; empty values are left out
pub(crate) fn facts(facts: &[(&str, Cell)], colour: Colour) -> String {
    let facts: Vec<_> = facts.iter().filter(|(_, value)| !value.text.is_empty()).collect();
    let width = facts.iter().map(|(name, _)| name.len()).max().unwrap_or(0);
    let mut text = String::new();
    for (name, value) in facts {
        let value = painted(&value.text, value.tone, colour);
        let _ = writeln!(text, "{name:>width$}: {value}");
    }
    text
}

/// The tone of a word about the state of a network or a peer; unknown words are plain
pub(crate) fn tone_of(state: &str) -> Tone {
    match state {
        "up" | "connected" => Tone::Good,
        "connecting" | "pending" | "unresponsive" => Tone::Uneasy,
        "hub-lost" | "failed" => Tone::Bad,
        "down" | "offline" | "idle" => Tone::Faint,
        _ => Tone::Plain,
    }
}

/// Replaces control characters, which could do anything to a terminal
pub(crate) fn plain(text: &str) -> String {
    text.chars().map(|sign| if sign.is_control() { '\u{fffd}' } else { sign }).collect()
}

/// The first characters of a key, enough to tell keys apart
pub(crate) fn short_key(key: &str) -> String {
    if key.chars().count() <= SHORT_KEY { key.to_owned() } else { shortened(key, SHORT_KEY + 1) }
}

/// A number of bytes in a unit of its size
pub(crate) fn bytes(count: u64) -> String {
    let mut units = ["B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"].into_iter();
    let mut unit = units.next().unwrap_or_default();
    let mut value = count as f64;
    // What would be shown as 1024 is 1 of the next unit.
    while value >= 1023.95 {
        match units.next() {
            Some(next) => unit = next,
            None => break,
        }
        value /= 1024.0;
    }
    if unit == "B" { format!("{count} B") } else { format!("{value:.1} {unit}") }
}

/// A number of bytes in a decimal unit of its size, as providers count and quotas are written
pub(crate) fn decimal_bytes(count: u64) -> String {
    format!("{}B", decimal(count, &["", "k", "M", "G", "T", "P", "E"]))
}

/// A rate in bits a second
pub(crate) fn rate(bits: u64) -> String {
    format!("{}bit/s", decimal(bits, &["", "k", "M", "G", "T", "P", "E"]))
}

fn decimal(count: u64, prefixes: &[&str]) -> String {
    let mut value = count as f64;
    let mut prefixes = prefixes.iter();
    let mut prefix = prefixes.next().copied().unwrap_or_default();
    // What would be shown as 1000 is 1 of the next.
    while value >= 999.5 {
        match prefixes.next() {
            Some(next) => prefix = next,
            None => break,
        }
        value /= 1000.0;
    }
    match value {
        _ if prefix.is_empty() => format!("{count} "),
        value if value < 9.995 => format!("{value:.2} {prefix}"),
        value if value < 99.95 => format!("{value:.1} {prefix}"),
        value => format!("{value:.0} {prefix}"),
    }
}

/// A time in milliseconds, or a dash
pub(crate) fn milliseconds(value: Option<f64>) -> String {
    match value {
        None => "-".to_owned(),
        Some(value) if value < 10.0 => format!("{value:.2} ms"),
        Some(value) if value < 100.0 => format!("{value:.1} ms"),
        Some(value) => format!("{value:.0} ms"),
    }
}

/// How many times as much, or a dash
pub(crate) fn times(value: Option<f64>) -> String {
    value.map_or("-".to_owned(), |value| format!("{value:.2}x"))
}

/// A share as percents
pub(crate) fn percent(share: f64) -> String {
    let value = share * 100.0;
    if value > 0.0 && value < 9.95 { format!("{value:.1} %") } else { format!("{value:.0} %") }
}

/// How long ago that was; `now` and `then` in Unix seconds
pub(crate) fn ago(then: Option<u64>, now: u64) -> String {
    let Some(then) = then else { return "never".to_owned() };
    match now.saturating_sub(then) {
        0 => "now".to_owned(),
        seconds @ 1..=119 => format!("{seconds} s ago"),
        seconds @ 120..=7199 => format!("{} min ago", seconds / 60),
        seconds @ 7200..=172_799 => format!("{} h ago", seconds / 3600),
        seconds => format!("{} days ago", seconds / 86_400),
    }
}

/// In how long that is; `now` and `then` in Unix seconds
pub(crate) fn ahead(then: u64, now: u64) -> String {
    match then.saturating_sub(now) {
        seconds @ 0..=119 => format!("in {seconds} s"),
        seconds @ 120..=7199 => format!("in {} min", seconds / 60),
        seconds @ 7200..=172_799 => format!("in {} h", seconds / 3600),
        seconds => format!("in {} days", seconds / 86_400),
    }
}

/// Between two columns
const GAP: &str = "  ";
/// Narrowest that a column is made
const NARROWEST: usize = 6;
/// Characters of a shortened key
const SHORT_KEY: usize = 8;

#[cfg(test)]
pub(crate) mod samples {
    //! A tree as a daemon could show it.

    use std::collections::BTreeMap;

    use fastvpn_dbus::tree::{Network, Peer, Tree};
    use fastvpn_dbus::types::{NetworkFacts, NetworkFigures, PeerFacts, PeerFigures};
    use fastvpn_dbus::{network_path, peer_path};

    pub(crate) fn key(byte: u8) -> String {
        use base64ct::{Base64, Encoding};
        Base64::encode_string(&[byte; 32])
    }

    /// The network `office` with the peer `tokyo`
    pub(crate) fn tree() -> Tree {
        let office = network_path("office");
        let peer = tokyo();
        Tree {
            networks: BTreeMap::from([(office.to_string(), network())]),
            peers: BTreeMap::from([(peer_path("office", &[1; 32]).to_string(), peer)]),
        }
    }

    pub(crate) fn network() -> Network {
        let facts = NetworkFacts {
            addresses: vec!["172.16.97.101/24".to_owned()],
            apply: "self".to_owned(),
            dns_server: "172.16.97.101:53".to_owned(),
            dns_state: "announced".to_owned(),
            dns_suffix: "office.fastvpn".to_owned(),
            hub_alive: true,
            hub_endpoint: "hub.example.net:8796".to_owned(),
            hub_key: key(8),
            interface: "fvpn-office".to_owned(),
            listen: "[::]:8796".to_owned(),
            receive_buffer: 4_194_304,
            send_buffer: 4_194_304,
            mtu: 1380,
            name: "office".to_owned(),
            public_key: key(9),
            quota: 1_000_000,
            quota_period: "month".to_owned(),
            quota_until: 1_701_388_800,
            role: "peer".to_owned(),
            state: "up".to_owned(),
            ..Default::default()
        };
        let mut statistics = statistics();
        statistics.insert("dropped".to_owned(), 1);
        let refusals = BTreeMap::from([("replayed".to_owned(), 4)]);
        Network { facts, figures: NetworkFigures { quota_used: 820_000, refusals, statistics } }
    }

    pub(crate) fn tokyo() -> Peer {
        let facts = PeerFacts {
            addresses: vec!["172.16.97.102".to_owned()],
            endpoint: "203.0.113.5:8796".to_owned(),
            name: "tokyo".to_owned(),
            network: network_path("office"),
            path_kind: "direct".to_owned(),
            path_mtu: 1400,
            path_offload: true,
            public_key: key(1),
            state: "connected".to_owned(),
            subnets: vec!["192.168.7.0/24".to_owned()],
            tcp: "split".to_owned(),
            ..Default::default()
        };
        let figures = PeerFigures {
            last_handshake: 1_700_000_000,
            last_seen: 1_700_000_009,
            loss: 0.25,
            own_loss: 0.05,
            path_statistics: BTreeMap::from([
                ("bytes".to_owned(), 1300),
                ("copy-bytes".to_owned(), 50),
                ("fresh-bytes".to_owned(), 1000),
            ]),
            queue_delay_us: 700,
            rate: 100_000_000,
            rtt_min_us: 30_000,
            rtt_us: 31_200,
            statistics: statistics(),
        };
        Peer { facts, figures }
    }

    fn statistics() -> BTreeMap<String, u64> {
        BTreeMap::from([("rx-bytes".to_owned(), 2048), ("tx-bytes".to_owned(), 300)])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PAPER: Screen = Screen { width: None, colour: Colour::Never };

    #[test]
    fn columns_are_as_wide_as_their_widest_cell() {
        let text = table().render(PAPER);

        assert_eq!(
            text,
            "NAME       RTT  KEY\n\
             tokyo  31.2 ms  AQEBAQEBAQEB\n\
             x            -  y\n"
        );
    }

    #[test]
    fn narrow_terminal_loses_what_matters_least_first() {
        let text = table().render(Screen { width: Some(20), colour: Colour::Never });

        assert_eq!(text, "NAME       RTT\ntokyo  31.2 ms\nx            -\n");
    }

    #[test]
    fn what_cannot_be_dropped_is_shortened() {
        let mut table = Table::new(&[Column::left("NAME", 0), Column::left("STATE", 0)]);
        table.row(vec![Cell::new("a-very-long-name-indeed"), Cell::new("up")]);

        let text = table.render(Screen { width: Some(17), colour: Colour::Never });

        assert_eq!(text, "NAME        STATE\na-very-lo…  up\n");
        assert!(text.lines().all(|line| line.chars().count() <= 17));
    }

    #[test]
    fn impossible_width_still_ends() {
        let text = table().render(Screen { width: Some(1), colour: Colour::Never });

        assert_eq!(text, "NAME\ntokyo\nx\n");
    }

    #[test]
    fn colours_do_not_move_columns() {
        let screen = Screen { width: None, colour: Colour::Welcome };
        let mut table = Table::new(&[Column::left("STATE", 0), Column::left("B", 0)]);
        table.row(vec![Cell::state("up"), Cell::new("b")]);

        let text = table.render(screen);

        assert!(text.contains("\x1b[32mup\x1b[0m     b"), "{text:?}");
    }

    #[test]
    fn names_cannot_play_with_the_terminal() {
        let cell = Cell::new("evil\x1b[2Jname\n\u{9b}31m");

        assert_eq!(cell.text, "evil\u{fffd}[2Jname\u{fffd}\u{fffd}31m");
    }

    #[test]
    fn figures_are_read_at_a_glance() {
        assert_eq!(bytes(0), "0 B");
        assert_eq!(bytes(1023), "1023 B");
        assert_eq!(bytes(1024), "1.0 KiB");
        assert_eq!(bytes(1_048_575), "1.0 MiB");
        assert_eq!(bytes(u64::MAX), "16.0 EiB");
        assert_eq!(milliseconds(Some(0.514)), "0.51 ms");
        assert_eq!(milliseconds(Some(312.4)), "312 ms");
        assert_eq!(milliseconds(None), "-");
        assert_eq!(percent(0.0), "0 %");
        assert_eq!(percent(0.005), "0.5 %");
        assert_eq!(percent(1.0), "100 %");
    }

    #[test]
    fn rates_and_quotas_have_decimal_units() {
        assert_eq!(rate(0), "0 bit/s");
        assert_eq!(rate(999), "999 bit/s");
        assert_eq!(rate(64_000), "64.0 kbit/s");
        assert_eq!(rate(100_000_000), "100 Mbit/s");
        assert_eq!(rate(999_600_000), "1.00 Gbit/s");
        assert_eq!(decimal_bytes(1_500_000_000_000), "1.50 TB");
        assert_eq!(decimal_bytes(u64::MAX), "18.4 EB");
    }

    #[test]
    fn past_is_told_in_words() {
        assert_eq!(ago(None, 1000), "never");
        assert_eq!(ago(Some(1000), 1000), "now");
        assert_eq!(ago(Some(1005), 1000), "now");
        assert_eq!(ago(Some(1000), 1003), "3 s ago");
        assert_eq!(ago(Some(1000), 1240), "4 min ago");
        assert_eq!(ago(Some(0), 7200), "2 h ago");
        assert_eq!(ago(Some(0), 200_000), "2 days ago");
        assert_eq!(ahead(1000, 1001), "in 0 s");
        assert_eq!(ahead(8000, 0), "in 2 h");
        assert_eq!(ahead(259_200, 1), "in 2 days");
    }

    fn table() -> Table {
        let columns = [Column::left("NAME", 0), Column::right("RTT", 1), Column::left("KEY", 2)];
        let mut table = Table::new(&columns);
        table.row(vec![Cell::new("tokyo"), Cell::new("31.2 ms"), Cell::new("AQEBAQEBAQEB")]);
        table.row(vec![Cell::new("x"), Cell::new("-"), Cell::new("y")]);
        table
    }
}
