//! The keys of the files, and the kind of value that each takes.
//!
//! Serde stops at the first key it does not know and at the first value of a wrong kind. [`read`]
//! finds them all first, takes them out, and gives serde the rest.

use std::fmt::Write as _;
use std::ops::Range;

use serde::de::DeserializeOwned;
use toml::Spanned;
use toml::de::{DeArray, DeTable, DeValue};

use super::file::{NetworkFile, NodeFile};
use super::problem::{Notes, Wrong, may_be_key, quoted};

/// A key that a file may have
#[derive(Debug)]
pub(super) struct Key {
    pub(super) name: &'static str,
    kind: Kind,
    owner: Owner,
    /// A value of the right kind, as it is written
    example: &'static str,
}

/// What kind of value a key takes
#[derive(Debug)]
enum Kind {
    Flag,
    Number,
    /// A `[[key]]` for each entry, with these keys
    Tables(&'static [Key]),
    Text,
    /// One text, which counts as a list of one
    TextOrTexts,
    Texts,
}

/// In whose files a key makes sense
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Owner {
    Both,
    Hub,
    Peer,
}

/// The keys of a network's file
pub(super) static KEYS: &[Key] = &[
    key("role", Kind::Text, Owner::Both, "\"peer\""),
    key("autoconnect", Kind::Flag, Owner::Both, "true"),
    key("private_key_file", Kind::Text, Owner::Both, "\"/var/lib/fastvpn/keys/home\""),
    key("private_key_credential", Kind::Text, Owner::Both, "\"home\""),
    key("network_key_file", Kind::Text, Owner::Both, "\"/var/lib/fastvpn/keys/home.psk\""),
    key("network_key_credential", Kind::Text, Owner::Both, "\"home.psk\""),
    key("listen", Kind::Text, Owner::Both, "\"[::]:8796\""),
    key("interface", Kind::Text, Owner::Both, "\"fvpn-home\""),
    key("mtu", Kind::Number, Owner::Both, "1400"),
    key("address", Kind::Texts, Owner::Both, "[\"172.16.97.101/24\"]"),
    key("dns", Kind::Flag, Owner::Both, "false"),
    key("dns_suffix", Kind::Text, Owner::Both, "\"home.fastvpn\""),
    key("cipher", Kind::Text, Owner::Both, "\"auto\""),
    key("carrier", Kind::Text, Owner::Both, "\"auto\""),
    key("tcp", Kind::Text, Owner::Both, "\"auto\""),
    key("threads", Kind::Number, Owner::Both, "2"),
    key("memory", Kind::Text, Owner::Both, "\"64MiB\""),
    key("rate", Kind::Text, Owner::Both, "\"100mbit\""),
    key("packet_rate", Kind::Number, Owner::Both, "50000"),
    key("quota", Kind::Text, Owner::Both, "\"1TB/month\""),
    key("redundancy", Kind::Text, Owner::Both, "\"auto\""),
    key("endpoint", Kind::Text, Owner::Hub, "\"hub.example.net:8796\""),
    key("subnet", Kind::Texts, Owner::Hub, "[\"172.16.97.0/24\"]"),
    key("timeout", Kind::Text, Owner::Hub, "\"15s\""),
    key("member", Kind::Tables(MEMBER_KEYS), Owner::Hub, ""),
    key("hub_loss", Kind::Text, Owner::Peer, "\"stop\""),
    key("ticket_file", Kind::Text, Owner::Peer, "\"/var/lib/fastvpn/keys/home.ticket\""),
    key("hub", Kind::Tables(HUB_KEYS), Owner::Peer, ""),
    key("peer", Kind::Tables(PEER_KEYS), Owner::Peer, ""),
];

/// The keys of the node's file
pub(super) static NODE_KEYS: &[Key] = &[
    key("rate", Kind::Text, Owner::Both, "\"100mbit\""),
    key("packet_rate", Kind::Number, Owner::Both, "50000"),
    key("quota", Kind::Text, Owner::Both, "\"1TB/month\""),
];

/// The keys of a `[[member]]`
pub(super) static MEMBER_KEYS: &[Key] = &[
    key("name", Kind::Text, Owner::Both, "\"tokyo\""),
    key("public_key", Kind::Text, Owner::Both, "\"44 characters\""),
    key("address", Kind::Texts, Owner::Both, "[\"172.16.97.101\"]"),
    key("subnet", Kind::Texts, Owner::Both, "[\"192.168.7.0/24\"]"),
    key("carrier", Kind::Text, Owner::Both, "\"auto\""),
    key("tcp", Kind::Text, Owner::Both, "\"auto\""),
];

/// The keys of a `[[hub]]`
pub(super) static HUB_KEYS: &[Key] = &[
    key("endpoint", Kind::TextOrTexts, Owner::Both, "\"hub.example.net:8796\""),
    key("public_key", Kind::Text, Owner::Both, "\"44 characters\""),
    key("carrier", Kind::Text, Owner::Both, "\"auto\""),
    key("tcp", Kind::Text, Owner::Both, "\"auto\""),
];

/// The keys of a `[[peer]]`
pub(super) static PEER_KEYS: &[Key] = &[
    key("name", Kind::Text, Owner::Both, "\"tokyo\""),
    key("public_key", Kind::Text, Owner::Both, "\"44 characters\""),
    key("carrier", Kind::Text, Owner::Both, "\"auto\""),
    key("tcp", Kind::Text, Owner::Both, "\"auto\""),
];

const fn key(name: &'static str, kind: Kind, owner: Owner, example: &'static str) -> Key {
    Key { name, kind, owner, example }
}

/// Reads the shape of a file; what is wrong with it goes to `notes`
///
/// Nothing comes back for what is no TOML at all.
pub(super) fn read(text: &str, notes: &mut Notes<'_>) -> Option<NetworkFile> {
    let mut table = parsed(text, notes)?;
    let role = match table.get_ref().get("role").map(Spanned::get_ref) {
        Some(DeValue::String(role)) if role == "hub" => Owner::Hub,
        Some(DeValue::String(role)) if role == "peer" => Owner::Peer,
        _ => Owner::Both,
    };
    Walk { role, notes: &mut *notes }.table(table.get_mut(), KEYS, None);
    deserialized(table, notes)
}

/// Reads the shape of the node's file, as [`read`] does
pub(super) fn read_node(text: &str, notes: &mut Notes<'_>) -> Option<NodeFile> {
    let mut table = parsed(text, notes)?;
    Walk { role: Owner::Both, notes: &mut *notes }.table(table.get_mut(), NODE_KEYS, None);
    deserialized(table, notes)
}

fn parsed<'a>(text: &'a str, notes: &mut Notes<'_>) -> Option<Spanned<DeTable<'a>>> {
    let (table, errors) = DeTable::parse_recoverable(text);
    if errors.is_empty() {
        return Some(table);
    }
    note_syntax(&errors, notes);
    None
}

fn deserialized<T: DeserializeOwned>(
    table: Spanned<DeTable<'_>>,
    notes: &mut Notes<'_>,
) -> Option<T> {
    match T::deserialize(toml::de::Deserializer::from(table)) {
        Ok(file) => Some(file),
        Err(error) => {
            // serde's own words would repeat the value; the walk above leaves nothing to say
            let offset = error.span().map_or(0, |span| span.start);
            notes.syntax(offset, Wrong::new("cannot be read", "see fastvpn.toml(5)"));
            None
        }
    }
}

fn note_syntax(errors: &[toml::de::Error], notes: &mut Notes<'_>) {
    let mut last_line = None;
    for error in errors.iter().take(SYNTAX_MAX) {
        let offset = error.span().map_or(0, |span| span.start);
        let line = notes.line(&(offset..offset));
        // the rest of a line that begins wrong is mostly wrong for the same reason
        if last_line.replace(line) != Some(line) {
            let what = format!("is no TOML: {}", error.message());
            notes.syntax(offset, Wrong::new(what, "write KEY = VALUE, texts in quotes"));
        }
    }
}

/// A walk over a file's tables that takes out what has no place there
struct Walk<'n, 'a> {
    /// `Both` where it is not known
    role: Owner,
    notes: &'n mut Notes<'a>,
}

impl Walk<'_, '_> {
    fn table(&mut self, table: &mut DeTable<'_>, keys: &'static [Key], within: Option<&str>) {
        for (name, mut value) in std::mem::take(table) {
            let full = match within {
                Some(within) => format!("{within}.{}", shown(name.get_ref())),
                None => shown(name.get_ref()),
            };
            let Some(key) = keys.iter().find(|key| key.name == name.get_ref()) else {
                self.notes.at(&name.span(), &full, self.unknown(name.get_ref(), keys, within));
                continue;
            };
            if !self.takes(key) {
                self.notes.at(&name.span(), &full, foreign(key));
                continue;
            }
            if self.value(key, &mut value, &name.span(), &full) {
                table.insert(name, value);
            }
        }
    }

    /// Tells whether the value may stay
    fn value(
        &mut self,
        key: &'static Key,
        value: &mut Spanned<DeValue<'_>>,
        place: &Range<usize>,
        full: &str,
    ) -> bool {
        let span = value.span();
        let wrong = match (&key.kind, value.get_mut()) {
            (Kind::Flag, DeValue::Boolean(_)) | (Kind::Text, DeValue::String(_)) => return true,
            (Kind::Number, DeValue::Integer(number)) => {
                if i64::from_str_radix(number.as_str(), number.radix()).is_ok() {
                    return true;
                }
                Wrong::new("is too large a number", format!("write {} = {}", key.name, key.example))
            }
            (Kind::TextOrTexts, one @ DeValue::String(_)) => {
                let text = core::mem::replace(one, DeValue::Boolean(false));
                let mut list = DeArray::new();
                list.push(Spanned::new(span, text));
                *one = DeValue::Array(list);
                return true;
            }
            (Kind::Texts | Kind::TextOrTexts, DeValue::Array(items)) => {
                let mut good = true;
                for item in items.iter() {
                    if !item.get_ref().is_str() {
                        self.notes.at(&item.span(), full, wrong_item(key, item.get_ref()));
                        good = false;
                    }
                }
                return good;
            }
            (Kind::Tables(keys), DeValue::Array(items)) => {
                let mut good = true;
                for item in items.iter_mut() {
                    let span = item.span();
                    match item.get_mut() {
                        DeValue::Table(table) => self.table(table, keys, Some(key.name)),
                        other => {
                            self.notes.at(&span, full, wrong_kind(key, other));
                            good = false;
                        }
                    }
                }
                return good;
            }
            (Kind::Tables(_), other @ DeValue::Table(_)) => {
                self.notes.at(place, full, wrong_kind(key, other));
                return false;
            }
            (_, other) => wrong_kind(key, other),
        };
        self.notes.at(&span, full, wrong);
        false
    }

    /// Tells whether a key makes sense in a file of this role
    fn takes(&self, key: &Key) -> bool {
        key.owner == Owner::Both || self.role == Owner::Both || key.owner == self.role
    }

    /// Says what to do about a key that is not known
    fn unknown(&self, name: &str, keys: &[Key], within: Option<&str>) -> Wrong {
        let what = match within {
            Some(within) => format!("is no key of [[{within}]]"),
            None => "is no key of this file".to_owned(),
        };
        if let Some(near) = nearest(name, keys) {
            return Wrong::new(what, format!("did you mean {near}?"));
        }
        if let Some(within) = within
            && KEYS.iter().any(|key| key.name == name)
        {
            return Wrong::new(what, format!("move it above the first [[{within}]]"));
        }
        let mut remedy = "remove it; known are ".to_owned();
        let known = keys.iter().filter(|key| self.takes(key));
        for (index, key) in known.enumerate() {
            let comma = if index == 0 { "" } else { ", " };
            // writing to a text cannot go wrong
            let _ = write!(remedy, "{comma}{}", key.name);
        }
        Wrong::new(what, remedy)
    }
}

fn wrong_kind(key: &Key, value: &DeValue<'_>) -> Wrong {
    let wanted = match key.kind {
        Kind::Flag => "true or false",
        Kind::Number => "a number",
        Kind::Tables(_) => {
            let what = format!("is {}, not a list of tables", article(value));
            return Wrong::new(what, format!("write [[{}]] above the keys of each", key.name));
        }
        Kind::Text => "a text",
        Kind::TextOrTexts => "a text or a list of texts",
        Kind::Texts => "a list of texts",
    };
    let what = format!("is {}, not {wanted}", article(value));
    Wrong::new(what, format!("write {} = {}", key.name, key.example))
}

fn wrong_item(key: &Key, value: &DeValue<'_>) -> Wrong {
    let what = format!("has {} in its list of texts", article(value));
    Wrong::new(what, format!("write {} = {}", key.name, key.example))
}

fn article(value: &DeValue<'_>) -> &'static str {
    match value {
        DeValue::Array(_) => "a list",
        DeValue::Boolean(_) => "true or false",
        DeValue::Datetime(_) => "a date or time",
        DeValue::Float(_) | DeValue::Integer(_) => "a number",
        DeValue::String(_) => "a text",
        DeValue::Table(_) => "a table",
    }
}

fn foreign(key: &Key) -> Wrong {
    let (owner, other) = if key.owner == Owner::Hub { ("hub", "peer") } else { ("peer", "hub") };
    Wrong::new(
        format!("belongs to a {owner}, and this file is of a {other}"),
        format!("remove it, or write role = \"{owner}\""),
    )
}

fn shown(name: &str) -> String {
    let bare = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-';
    if name.is_empty() || !name.chars().all(bare) || name.len() > 40 || may_be_key(name) {
        return quoted(name);
    }
    name.to_owned()
}

/// Returns the known key that somebody who wrote `name` most likely meant
fn nearest(name: &str, keys: &[Key]) -> Option<&'static str> {
    if name.len() < 2 || name.len() > 40 {
        return None;
    }
    let plain = name.to_ascii_lowercase().replace('-', "_");
    let begins = |key: &Key| key.name.starts_with(&plain) || plain.starts_with(key.name);
    keys.iter()
        .map(|key| (distance(&plain, key.name), key))
        .filter(|(far, key)| *far <= 2.min(key.name.len() / 3) || plain.len() > 2 && begins(key))
        .min_by_key(|(far, _)| *far)
        .map(|(_, key)| key.name)
}

/// Returns the number of characters to insert, remove or replace (Levenshtein)
fn distance(from: &str, to: &str) -> usize {
    let to: Vec<char> = to.chars().collect();
    let mut row: Vec<usize> = (0..=to.len()).collect();
    for (index, one) in from.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = index + 1;
        for (column, other) in to.iter().enumerate() {
            let replaced = diagonal + usize::from(one != *other);
            diagonal = row[column + 1];
            row[column + 1] = replaced.min(diagonal + 1).min(row[column] + 1);
        }
    }
    row[to.len()]
}

/// Syntax errors that are reported of one file
const SYNTAX_MAX: usize = 20;

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    #[test]
    fn mirror_takes_every_key_of_the_tables() {
        let mut text = String::new();
        for key in KEYS.iter().filter(|key| !matches!(key.kind, Kind::Tables(_))) {
            writeln!(text, "{} = {}", key.name, key.example).unwrap();
        }
        for (name, keys) in [("member", MEMBER_KEYS), ("hub", HUB_KEYS), ("peer", PEER_KEYS)] {
            writeln!(text, "[[{name}]]").unwrap();
            for key in keys {
                writeln!(text, "{} = {}", key.name, key.example).unwrap();
            }
        }
        // of no role, so that no key is foreign
        let text = text.replace("role = \"peer\"", "role = \"\"");
        let mut notes = Notes::new(Path::new("x.toml"), &text);

        let file = read(&text, &mut notes);

        assert_eq!(notes.into_problems(), []);
        let file = file.unwrap();
        assert_eq!((file.member.len(), file.hub.len(), file.peer.len()), (1, 1, 1));
    }

    #[test]
    fn near_keys_are_suggested() {
        for (name, want) in [
            ("adress", Some("address")),
            ("addresses", Some("address")),
            ("private_key", Some("private_key_file")),
            ("network-key-file", Some("network_key_file")),
            ("members", Some("member")),
            ("roll", Some("role")),
            ("rates", Some("rate")),
            ("colour", None),
            ("x", None),
        ] {
            assert_eq!(nearest(name, KEYS), want, "{name}");
        }
    }
}
