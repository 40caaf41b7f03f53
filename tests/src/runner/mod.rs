//! Runs cases, each in a process of its own, and says what came of them.
//!
//! A test program without the usual harness lists its cases by [`cases!`](crate::cases) in each
//! module and gives them to [`run`], with a [`Suite`] that says what they have in common.
//!
//! # Contract
//!
//! - A case that panics has failed, one that calls [`skip`] or lacks a program is skipped, with the
//!   reason, and neither takes another case along.
//! - What a case prints is shown when it fails.
//! - A case that takes longer than the suite's patience is killed, and has failed.

mod options;

use std::collections::VecDeque;
use std::fs::{self, File};
use std::os::unix::fs::PermissionsExt;
use std::panic;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, ExitStatus, Stdio};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tempfile::TempDir;

use options::Options;

use crate::lab;

/// One test
#[derive(Clone, Copy, Debug)]
pub struct Case {
    /// Module and function
    pub name: &'static str,
    /// Programs it cannot do without
    pub tools: &'static [&'static str],
    /// What to run; it fails by panicking
    pub test: fn(),
}

/// What the cases of a program have in common
#[derive(Clone, Copy, Debug)]
pub struct Suite {
    /// What to call them: "end-to-end tests"
    pub title: &'static str,
    /// How long a case may take
    pub patience: Duration,
    /// Prepares what all cases need, in a directory that is gone after the last of them and that
    /// [`shared`] names to each
    pub ready: fn(&Path) -> Result<(), Unready>,
}

/// Why no case of a suite can run
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Unready {
    /// What this machine or user lacks: all are skipped
    Cannot(String),
    /// What went wrong: all have failed
    Failed(String),
}

/// Lists functions of a module as its cases, with the programs that each needs
#[macro_export]
macro_rules! cases {
    ($($name:ident $([$($tool:literal),*])?,)*) => {
        /// The cases of this module
        pub(crate) const CASES: &[$crate::runner::Case] = &[$($crate::runner::Case {
            name: concat!(module_path!(), "::", stringify!($name)),
            tools: &[$($($tool),*)?],
            test: $name,
        }),*];
    };
}

/// Returns the directory that the suite prepared, in a case that the suite started
pub fn shared() -> Option<PathBuf> {
    std::env::var_os(SHARED).map(PathBuf::from)
}

/// Ends the running case as skipped
pub fn skip(reason: &str) -> ! {
    panic::panic_any(Skip(reason.to_owned()))
}

struct Skip(String);

/// What came of a case
enum Outcome {
    Failed(String),
    Passed,
    Skipped(String),
}

/// Names the suite's directory to its cases
const SHARED: &str = "FASTVPN_SUITE_DIR";
const SKIPPED: i32 = 77;
const FAILED: i32 = 101;

/// Runs what the command line asks for; ends with 2 where that makes no sense, and with 77 where nothing
/// can run
pub fn run(suite: &Suite, cases: &[Case]) -> ExitCode {
    match Options::read(std::env::args().skip(1)) {
        Ok(options) => run_with(suite, cases, &options),
        Err(problem) => {
            eprintln!("{problem}");
            ExitCode::from(2)
        }
    }
}

fn run_with(suite: &Suite, cases: &[Case], options: &Options) -> ExitCode {
    if let Some(one) = &options.one {
        return run_here(cases, one);
    }
    let wanted: Vec<Case> =
        cases.iter().copied().filter(|case| options.wants(name(case))).collect();
    if options.list {
        wanted.iter().for_each(|case| println!("{}: test", name(case)));
        return ExitCode::SUCCESS;
    }
    let start = Instant::now();
    println!("running {} {}, {} at a time", wanted.len(), suite.title, options.jobs);
    let prepared = prepare(suite);
    let results = run_all(suite, wanted, options, &prepared);
    conclude(suite, &results, start.elapsed())
}

fn prepare(suite: &Suite) -> Result<TempDir, Unready> {
    let failed = |error: std::io::Error| Unready::Failed(error.to_string());
    let directory = TempDir::with_prefix("fastvpn-suite-").map_err(failed)?;
    // for daemons of other users
    fs::set_permissions(directory.path(), fs::Permissions::from_mode(0o755)).map_err(failed)?;
    (suite.ready)(directory.path())?;
    Ok(directory)
}

fn run_all(
    suite: &Suite,
    wanted: Vec<Case>,
    options: &Options,
    prepared: &Result<TempDir, Unready>,
) -> Vec<(&'static str, Outcome)> {
    let queue = Mutex::new(VecDeque::from(wanted));
    let results = Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for _ in 0..options.jobs {
            scope.spawn(|| {
                while let Some(case) = take(&queue) {
                    let began = Instant::now();
                    let outcome = match prepared {
                        Ok(shared) => run_apart(suite, &case, options, shared.path()),
                        Err(Unready::Cannot(reason)) => Outcome::Skipped(reason.clone()),
                        Err(Unready::Failed(reason)) => Outcome::Failed(reason.clone()),
                    };
                    announce(&case, &outcome, began.elapsed());
                    held(&results).push((name(&case), outcome));
                }
            });
        }
    });
    results.into_inner().unwrap_or_else(PoisonError::into_inner)
}

fn take(queue: &Mutex<VecDeque<Case>>) -> Option<Case> {
    held(queue).pop_front()
}

/// What a mutex guards; that another thread panicked says nothing against it
fn held<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Name of a case without that of the program
fn name(case: &Case) -> &'static str {
    case.name.split_once("::").map_or(case.name, |(_, name)| name)
}

/// Runs one case in this very process
fn run_here(cases: &[Case], wanted: &str) -> ExitCode {
    let Some(case) = cases.iter().find(|case| name(case) == wanted) else {
        eprintln!("no test {wanted}");
        return ExitCode::from(2);
    };
    let usual = panic::take_hook();
    panic::set_hook(Box::new(move |info| {
        if info.payload().downcast_ref::<Skip>().is_none() {
            usual(info);
        }
    }));
    match panic::catch_unwind(case.test) {
        Ok(()) => ExitCode::SUCCESS,
        Err(payload) => match payload.downcast_ref::<Skip>() {
            Some(Skip(reason)) => {
                println!("{reason}");
                ExitCode::from(SKIPPED as u8)
            }
            None => ExitCode::from(FAILED as u8),
        },
    }
}

/// Runs one case in another process
fn run_apart(suite: &Suite, case: &Case, options: &Options, shared: &Path) -> Outcome {
    if let Some(tool) = case.tools.iter().find(|tool| !lab::has(tool)) {
        return Outcome::Skipped(format!("needs {tool}"));
    }
    let directory = match TempDir::with_prefix("fastvpn-case-") {
        Ok(directory) => directory,
        Err(error) => return Outcome::Failed(error.to_string()),
    };
    match run_process(suite, case, options, [directory.path(), shared]) {
        Ok((status, output)) => judge(suite, status, output, directory.path()),
        Err(error) => Outcome::Failed(error.to_string()),
    }
}

fn run_process(
    suite: &Suite,
    case: &Case,
    options: &Options,
    [directory, shared]: [&Path; 2],
) -> std::io::Result<(Option<ExitStatus>, String)> {
    fs::set_permissions(directory, fs::Permissions::from_mode(0o755))?;
    let output = directory.join("output");
    let mut command = Command::new(std::env::current_exe()?);
    command.args(["--one", name(case)]).stdin(Stdio::null());
    command.env("TMPDIR", directory).env(SHARED, shared);
    if !options.show_output {
        let file = File::create(&output)?;
        command.stdout(file.try_clone()?).stderr(file);
    }
    let mut child = command.spawn()?;
    let mut status = None;
    lab::until(suite.patience, || {
        status = child.try_wait().ok().flatten();
        status.is_some()
    });
    if status.is_none() {
        // the daemons go with their parent
        child.kill()?;
        child.wait()?;
    }
    Ok((status, fs::read_to_string(&output).unwrap_or_default()))
}

fn judge(suite: &Suite, status: Option<ExitStatus>, output: String, directory: &Path) -> Outcome {
    match status {
        Some(status) if status.success() => Outcome::Passed,
        Some(status) if status.code() == Some(SKIPPED) => {
            Outcome::Skipped(output.trim().lines().last().unwrap_or("").to_owned())
        }
        Some(status) if status.code() == Some(FAILED) => Outcome::Failed(output),
        Some(status) => Outcome::Failed(format!("{output}\nended by {status}")),
        None => {
            let (logs, patience) = (logs(directory), suite.patience);
            Outcome::Failed(format!("{output}\nnot done after {patience:?}, killed\n{logs}"))
        }
    }
}

/// Ends of all daemons' logs that a killed case left
fn logs(directory: &Path) -> String {
    let below = |directory: PathBuf| {
        fs::read_dir(directory).into_iter().flatten().flatten().map(|entry| entry.path())
    };
    let mut text = String::new();
    for log in below(directory.to_owned()).flat_map(below).map(|node| node.join("log")) {
        let Ok(content) = fs::read_to_string(&log) else { continue };
        let lines: Vec<&str> = content.lines().collect();
        text += &format!("--- {}\n", log.display());
        text += &lines[lines.len().saturating_sub(60)..].join("\n");
        text.push('\n');
    }
    text
}

fn announce(case: &Case, outcome: &Outcome, took: Duration) {
    let seconds = took.as_secs_f64();
    match outcome {
        Outcome::Failed(_) => println!("test {} ... FAILED ({seconds:.1} s)", name(case)),
        Outcome::Passed => println!("test {} ... ok ({seconds:.1} s)", name(case)),
        Outcome::Skipped(reason) => println!("test {} ... skipped: {reason}", name(case)),
    }
}

fn conclude(suite: &Suite, results: &[(&str, Outcome)], took: Duration) -> ExitCode {
    let (mut passed, mut failed, mut skipped) = (0_u32, 0_u32, 0_u32);
    for (name, outcome) in results {
        match outcome {
            Outcome::Passed => passed += 1,
            Outcome::Skipped(_) => skipped += 1,
            Outcome::Failed(output) => {
                failed += 1;
                println!("\n---- {name} ----\n{}", output.trim_end());
            }
        }
    }
    println!("\n{} took {:.0} s", suite.title, took.as_secs_f64());
    println!("{passed} passed, {failed} failed, {skipped} skipped");
    match (passed, failed, skipped) {
        (_, 1.., _) => ExitCode::FAILURE,
        (0, 0, 1..) => ExitCode::from(SKIPPED as u8),
        (_, 0, _) => ExitCode::SUCCESS,
    }
}
