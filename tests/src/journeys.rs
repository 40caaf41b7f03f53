//! The journeys of the README, as steps that can be followed.
//!
//! A journey is a section of level 3 below [`CHAPTER`]. What a reader types stands in its blocks of
//! kind `console`: a line `HOST$ COMMAND` is typed on that machine, the lines below it are what is
//! seen there then.
//!
//! # Contract
//!
//! - A block of another kind in a journey, a block that does not begin with a command, and a prompt
//!   that names no machine are mistakes, told with their line.
//! - [`ELLIPSIS`] in a line that is shown stands for any text, alone on a line for any lines. Blanks
//!   and empty lines do not matter. A command below which nothing is shown may say anything.
//! - [`INVITATION`] in a command stands for the invitation that was printed last.
//!
//! # Not here
//!
//! The systems on which the journeys are followed are in the suite `booted`.

use anyhow::{Context, Result, bail};

/// A section of the README that leads somewhere
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Journey {
    /// Its heading
    pub title: String,
    /// What to do, in order
    pub steps: Vec<Step>,
}

/// A command on a machine
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Step {
    /// Line of the file
    pub line: usize,
    /// Which machine, by the prompt
    pub host: String,
    /// What is typed
    pub command: String,
    /// What is shown below it; nothing where that does not matter
    pub shown: Vec<String>,
}

/// A block of code
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Block {
    /// Line of its fence
    pub line: usize,
    /// What stands behind the fence
    pub kind: String,
    /// What is in it
    pub lines: Vec<String>,
}

/// Heading of the journeys
pub const CHAPTER: &str = "## Three journeys";
/// Stands for what differs, or is left out
pub const ELLIPSIS: &str = "…";
/// Stands for an invitation in a command
pub const INVITATION: &str = "INVITATION";

/// Returns the journeys of a README
///
/// # Errors
/// If there are none, or one of them cannot be followed.
pub fn journeys(text: &str) -> Result<Vec<Journey>> {
    let mut found: Vec<Journey> = Vec::new();
    let blocks = blocks(text)?;
    let inside = |line: usize| blocks.iter().any(|block| block.holds(line));
    let mut in_chapter = false;
    for (index, line) in text.lines().enumerate() {
        let number = index + 1;
        if let Some(block) = blocks.iter().find(|block| block.line == number) {
            if let (true, Some(journey)) = (in_chapter, found.last_mut()) {
                journey.steps.extend(steps(block)?);
            }
        } else if inside(number) {
            // nothing in a block is a heading
        } else if line.starts_with("## ") {
            in_chapter = line == CHAPTER;
        } else if let (true, Some(title)) = (in_chapter, line.strip_prefix("### ")) {
            found.push(Journey { title: title.to_owned(), steps: Vec::new() });
        }
    }
    if found.is_empty() {
        bail!("there is no section below {CHAPTER:?}");
    }
    if let Some(journey) = found.iter().find(|journey| journey.steps.is_empty()) {
        bail!("{:?} has no steps", journey.title);
    }
    Ok(found)
}

/// Returns the blocks of code of a text
///
/// # Errors
/// If one does not end.
pub fn blocks(text: &str) -> Result<Vec<Block>> {
    let mut blocks = Vec::new();
    let mut open: Option<Block> = None;
    for (index, line) in text.lines().enumerate() {
        match (line.strip_prefix("```"), &mut open) {
            (Some(kind), None) => {
                open = Some(Block {
                    line: index + 1,
                    kind: kind.trim().to_owned(),
                    lines: Vec::new(),
                });
            }
            (Some(_), Some(_)) => blocks.extend(open.take()),
            (None, Some(block)) => block.lines.push(line.to_owned()),
            (None, None) => {}
        }
    }
    match open {
        Some(block) => bail!("line {}: the block does not end", block.line),
        None => Ok(blocks),
    }
}

impl Block {
    /// Tells whether a line of the file is in the block, its fences included
    const fn holds(&self, line: usize) -> bool {
        line >= self.line && line <= self.line + self.lines.len() + 1
    }
}

impl Step {
    /// Returns the command, with the invitation in it where it needs one
    ///
    /// # Errors
    /// If it needs one and there is none.
    pub fn command(&self, invitation: Option<&str>) -> Result<String> {
        if !self.command.contains(INVITATION) {
            return Ok(self.command.clone());
        }
        let invitation =
            invitation.with_context(|| format!("line {}: nobody was invited", self.line))?;
        Ok(self.command.replace(INVITATION, invitation))
    }

    /// Tells whether a command said what is shown
    pub fn fits(&self, output: &str) -> bool {
        let shown: Vec<_> = self.shown.iter().map(|line| squeezed(line)).collect();
        let output = output.lines().map(squeezed).filter(|line| !line.is_empty());
        let output: Vec<_> = output.collect();
        let any = |line: &String| line == ELLIPSIS;
        shown.is_empty() || like(&shown, &output, any, |shown, line| line_fits(shown, line))
    }
}

/// Returns the invitation in what a command has printed
pub fn invitation(output: &str) -> Option<&str> {
    output.split_whitespace().rfind(|word| word.starts_with("FASTVPN:"))
}

/// Reads the commands of a block, and what is shown below each
fn steps(block: &Block) -> Result<Vec<Step>> {
    if block.kind != "console" {
        bail!("line {}: a block of kind {:?} cannot be followed", block.line, block.kind);
    }
    let mut steps: Vec<Step> = Vec::new();
    for (index, line) in block.lines.iter().enumerate() {
        let number = block.line + 1 + index;
        match (prompt(line), steps.last_mut()) {
            (Some((host, command)), _) if is_name(host) && !command.is_empty() => {
                let (host, command) = (host.to_owned(), command.to_owned());
                steps.push(Step { line: number, host, command, shown: Vec::new() });
            }
            (Some(_), _) => bail!("line {number}: the prompt has to be HOST$, with a command"),
            (None, None) => bail!("line {number}: a block has to begin with HOST$ COMMAND"),
            (None, Some(_)) if line.trim().is_empty() => {}
            (None, Some(step)) => step.shown.push(line.clone()),
        }
    }
    Ok(steps)
}

/// Splits a line at its prompt: the first `$ `, if nothing but a word is before it
fn prompt(line: &str) -> Option<(&str, &str)> {
    let (host, command) = line.split_once("$ ")?;
    (!host.contains(char::is_whitespace)).then(|| (host, command.trim()))
}

fn is_name(host: &str) -> bool {
    !host.is_empty()
        && host.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
}

fn squeezed(line: &str) -> String {
    line.split_whitespace().collect::<Vec<_>>().join(" ")
}

fn line_fits(shown: &str, line: &str) -> bool {
    let shown: Vec<_> = shown.chars().collect();
    let line: Vec<_> = line.chars().collect();
    like(&shown, &line, |c| ELLIPSIS.starts_with(*c), |shown, c| shown == c)
}

/// Tells whether items are as a pattern says, in which some elements stand for any items
fn like<P, T>(
    pattern: &[P],
    items: &[T],
    any: impl Fn(&P) -> bool,
    fits: impl Fn(&P, &T) -> bool,
) -> bool {
    // reached[n]: what was looked at of the pattern may stand for the first n items
    let mut reached = vec![false; items.len() + 1];
    reached[0] = true;
    for element in pattern {
        let before = reached;
        reached = vec![false; items.len() + 1];
        for n in 0..=items.len() {
            reached[n] = if any(element) {
                before[n] || (n > 0 && reached[n - 1])
            } else {
                n > 0 && before[n - 1] && fits(element, &items[n - 1])
            };
        }
    }
    reached[items.len()]
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::fs;
    use std::path::Path;

    use super::*;

    #[test]
    fn block_becomes_commands_with_what_is_shown() {
        let text = "## Three journeys\n\n### To the sea\n\nGo.\n\n```console\nrome$ ls | wc\n2\nPC$\noslo-1$ id  # who\n```\n\
                    ## Other\n### No journey\n```toml\na = 1\n```\n";

        let found = journeys(text).unwrap();

        assert_eq!(found.len(), 1);
        assert_eq!(found[0].title, "To the sea");
        let steps: Vec<_> =
            found[0].steps.iter().map(|s| (s.line, &*s.host, &*s.command)).collect();
        assert_eq!(steps, [(8, "rome", "ls | wc"), (11, "oslo-1", "id  # who")]);
        assert_eq!(found[0].steps[0].shown, ["2", "PC$"]);
    }

    #[test]
    fn what_cannot_be_followed_is_told_with_its_line() {
        let journey = |block: &str| format!("## Three journeys\n### One\n{block}\n");
        for (block, line) in [
            ("```console\nhome is up\n```", "line 4"),
            ("```console\n$ fastvpnctl\n```", "line 4"),
            ("```console\nrome$ id\nRome$ id\n```", "line 5"),
            ("```toml\na = 1\n```", "line 3"),
            ("```console\nrome$ id", "line 3"),
            ("no block", "One"),
        ] {
            let error = format!("{:#}", journeys(&journey(block)).unwrap_err());
            assert!(error.contains(line), "{error}");
        }
        assert!(journeys("# Nothing\n").is_err());
    }

    #[test]
    fn shown_lines_fit_what_was_said() {
        let said = "NAME  STATE\n\nhome  up 12 ms\ntokyo up 7 ms\n";
        for (shown, fits) in [
            (&[][..], true),
            (&["NAME STATE", "home up … ms", "tokyo   up … ms"][..], true),
            (&["…", "tokyo up … ms"][..], true),
            (&["…", "home up … ms", "…"][..], true),
            (&["home up … ms", "…"][..], false),
            (&["…", "home up … ms"][..], false),
            (&["NAME STATE"][..], false),
            (&["…", "home down … ms", "…"][..], false),
            (&["…", "tokyo up", "…"][..], false),
        ] {
            let shown = shown.iter().map(|line| (*line).to_owned()).collect();
            let step = Step { line: 1, host: "rome".to_owned(), command: String::new(), shown };
            assert_eq!(step.fits(said), fits, "{step:?}");
        }
    }

    #[test]
    fn invitation_goes_from_one_machine_to_the_other() {
        let step = Step {
            line: 3,
            host: "rome".to_owned(),
            command: "fastvpnctl join INVITATION".to_owned(),
            shown: Vec::new(),
        };
        let said = "On the new machine:\n\n  sudo fastvpnctl join FASTVPN:ABC\n█▀█\n";

        assert_eq!(step.command(invitation(said)).unwrap(), "fastvpnctl join FASTVPN:ABC");
        assert!(step.command(invitation("")).is_err());
    }

    #[test]
    fn readme_has_three_journeys_that_can_be_followed() {
        let found = journeys(&read("README.md")).unwrap();

        assert_eq!(found.len(), 3);
        for journey in &found {
            let machines: BTreeSet<_> = journey.steps.iter().map(|step| &step.host).collect();
            assert!(machines.len() > 1, "{}: {machines:?}", journey.title);
        }
    }

    #[test]
    fn chinese_readme_has_the_same_commands() {
        let consoles = |file: &str| {
            let blocks = blocks(&read(file)).unwrap();
            let consoles = blocks.into_iter().filter(|block| block.kind == "console");
            consoles.map(|block| block.lines.join("\n")).collect::<Vec<_>>()
        };

        let (english, chinese) = (consoles("README.md"), consoles("man/README.zh-CN.md"));

        for (english, chinese) in english.iter().zip(&chinese) {
            assert_eq!(english, chinese);
        }
        assert_eq!(english.len(), chinese.len());
    }

    fn read(file: &str) -> String {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(file);
        fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
    }
}
