//! What is wrong with the configuration, said so that it can be mended.
//!
//! A [`Problem`] names file, line and key, what is wrong, and how to mend it. [`Notes`] collects
//! those of one file. Texts never hold a secret: what looks like a key is not repeated.

use std::fmt;
use std::ops::Range;
use std::path::{Path, PathBuf};

/// All problems of all files, ordered by file and line
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Problems(Vec<Problem>);

/// One problem
#[derive(Clone, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub struct Problem {
    /// In which file
    pub file: PathBuf,
    /// In which line, counted from 1; none if the file as a whole is meant
    pub line: Option<usize>,
    /// In which column, counted from 1; only where the text is no TOML
    pub column: Option<usize>,
    /// At which key, `member.name` for one in a `[[member]]`; none if no key is meant
    pub key: Option<String>,
    /// What is wrong
    pub what: String,
    /// How to mend it
    pub remedy: String,
}

/// What is wrong with a value, and how to mend it
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct Wrong {
    pub(super) what: String,
    pub(super) remedy: String,
}

/// The problems of one file, with what is needed to place them
pub(super) struct Notes<'a> {
    file: &'a Path,
    text: &'a str,
    /// Where each line begins
    lines: Vec<usize>,
    problems: Vec<Problem>,
}

impl Problems {
    /// Orders the problems by file and line
    pub(super) fn new(mut problems: Vec<Problem>) -> Self {
        problems.sort();
        problems.dedup();
        Self(problems)
    }

    /// Returns the problems
    pub fn iter(&self) -> impl Iterator<Item = &Problem> {
        self.0.iter()
    }
}

impl std::error::Error for Problems {}

impl fmt::Display for Problems {
    /// Shows one problem on each line
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, problem) in self.0.iter().enumerate() {
            if index > 0 {
                f.write_str("\n")?;
            }
            problem.fmt(f)?;
        }
        Ok(())
    }
}

impl Problem {
    /// Makes a problem of a file as a whole
    pub(super) fn of_file(file: &Path, what: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self {
            file: file.to_owned(),
            line: None,
            column: None,
            key: None,
            what: what.into(),
            remedy: remedy.into(),
        }
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:", self.file.display())?;
        if let Some(line) = self.line {
            write!(f, "{line}:")?;
        }
        if let Some(column) = self.column {
            write!(f, "{column}:")?;
        }
        if let Some(key) = &self.key {
            write!(f, " {key}:")?;
        }
        write!(f, " {}; {}", self.what, self.remedy)
    }
}

impl Wrong {
    pub(super) fn new(what: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self { what: what.into(), remedy: remedy.into() }
    }
}

impl<'a> Notes<'a> {
    pub(super) fn new(file: &'a Path, text: &'a str) -> Self {
        let lines = text.match_indices('\n').map(|(newline, _)| newline + 1);
        Self { file, text, lines: std::iter::once(0).chain(lines).collect(), problems: Vec::new() }
    }

    /// Notes a problem of the value or key at `span`
    pub(super) fn at(&mut self, span: &Range<usize>, key: &str, wrong: Wrong) {
        let line = Some(self.line(span));
        self.add(line, None, Some(key), wrong);
    }

    /// Notes that a key of the file itself is missing
    pub(super) fn missing(&mut self, key: &str, remedy: impl Into<String>) {
        self.add(Some(1), None, Some(key), Wrong::new("is missing", remedy));
    }

    /// Notes that the text at `offset` is no TOML
    pub(super) fn syntax(&mut self, offset: usize, wrong: Wrong) {
        let offset = self.floor(offset);
        let line = self.line(&(offset..offset));
        let column = self.text[self.lines[line - 1]..offset].chars().count() + 1;
        self.add(Some(line), Some(column), None, wrong);
    }

    /// Returns the line in which `span` begins, counted from 1
    pub(super) fn line(&self, span: &Range<usize>) -> usize {
        self.lines.partition_point(|start| *start <= span.start)
    }

    /// Returns the file's path
    pub(super) fn file(&self) -> &'a Path {
        self.file
    }

    /// Returns how many problems there are so far
    pub(super) fn count(&self) -> usize {
        self.problems.len()
    }

    /// Returns the problems
    pub(super) fn into_problems(self) -> Vec<Problem> {
        self.problems
    }

    fn add(&mut self, line: Option<usize>, column: Option<usize>, key: Option<&str>, wrong: Wrong) {
        self.problems.push(Problem {
            file: self.file.to_owned(),
            line,
            column,
            key: key.map(str::to_owned),
            what: wrong.what,
            remedy: wrong.remedy,
        });
    }

    fn floor(&self, offset: usize) -> usize {
        let mut offset = offset.min(self.text.len());
        while !self.text.is_char_boundary(offset) {
            offset -= 1;
        }
        offset
    }
}

/// Quotes a text of the administrator's; one that may be a key is not shown, a long one is cut
pub(super) fn quoted(text: &str) -> String {
    if may_be_key(text) {
        return "what looks like a key".to_owned();
    }
    let cut: String = text.chars().take(QUOTE_MAX).collect();
    if cut.len() < text.len() { format!("{cut:?}…") } else { format!("{cut:?}") }
}

/// Tells whether a text is, or holds, what may be a key in base64 or hexadecimal
pub(super) fn may_be_key(text: &str) -> bool {
    if holds_padded_key(text) {
        return true;
    }
    let digit = |c: char| c.is_ascii_alphanumeric() || matches!(c, '+' | '/');
    text.split(|c: char| !digit(c)).any(|run| {
        let has = |kind: fn(&char) -> bool| run.chars().any(|c| kind(&c));
        let mixed = has(char::is_ascii_uppercase)
            && has(char::is_ascii_lowercase)
            && has(char::is_ascii_digit);
        let hex = run.len() == 64 && run.chars().all(|c| c.is_ascii_hexdigit());
        run.len() >= 43 && mixed || hex
    })
}

/// Tells whether a text holds 32 bytes in base64, with the sign at their end
pub(super) fn holds_padded_key(text: &str) -> bool {
    let digit = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'/');
    let bytes = text.as_bytes();
    bytes.windows(44).any(|run| run[43] == b'=' && run[..43].iter().all(digit))
}

/// Characters of a quoted text that are shown
const QUOTE_MAX: usize = 80;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn problem_reads_file_line_key_what_remedy() {
        let text = "a = 1\nb = 2\n";
        let mut notes = Notes::new(Path::new("/etc/fastvpn/home.toml"), text);

        notes.at(&(6..7), "b", Wrong::new("is wrong", "mend it"));

        let problems = Problems::new(notes.into_problems());
        assert_eq!(problems.to_string(), "/etc/fastvpn/home.toml:2: b: is wrong; mend it");
    }

    #[test]
    fn syntax_problem_counts_columns_in_characters() {
        let text = "# ä\nö = ?\n";
        let mut notes = Notes::new(Path::new("x.toml"), text);

        notes.syntax(text.find('?').unwrap(), Wrong::new("no value", "write one"));

        assert_eq!(
            Problems::new(notes.into_problems()).to_string(),
            "x.toml:2:5: no value; write one"
        );
    }

    #[test]
    fn quoting_hides_what_may_be_a_key() {
        let key = "yAnz5TF+lXXJte14tji3zlMNq+hd2rYUIgJBgB3fBmk=";
        let hex = "0123456789abcdef".repeat(4);
        for text in [key, &key[..43], &format!("{key}\n"), &format!("/keys/{key}"), &hex] {
            assert_eq!(quoted(text), "what looks like a key");
        }
        assert_eq!(quoted("/etc/fastvpn/home"), "\"/etc/fastvpn/home\"");
    }
}
