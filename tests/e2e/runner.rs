//! Runs cases, each in a process of its own, and says what came of them.

use std::collections::VecDeque;
use std::fs::{self, File};
use std::panic;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, ExitStatus, Stdio};
use std::sync::Mutex;
use std::time::{Duration, Instant};

use fastvpn_tests::lab;
use tempfile::TempDir;

use crate::options::Options;

/// One test
#[derive(Clone, Copy)]
pub(crate) struct Case {
    /// Module and function
    pub(crate) name: &'static str,
    /// Programs it cannot do without
    pub(crate) tools: &'static [&'static str],
    /// What to run; it fails by panicking
    pub(crate) test: fn(),
}

/// Lists functions of a module as its cases, with the programs that each needs
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
pub(crate) use cases;

/// Ends the running case as skipped
pub(crate) fn skip(reason: &str) -> ! {
    panic::panic_any(Skip(reason.to_owned()))
}

struct Skip(String);

/// What came of a case
enum Outcome {
    Failed(String),
    Passed,
    Skipped(String),
}

/// A case may take this long
const PATIENCE: Duration = Duration::from_secs(180);
const SKIPPED: i32 = 77;
const FAILED: i32 = 101;

/// Runs what the options ask for
pub(crate) fn run(cases: &[Case], options: &Options) -> ExitCode {
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
    let missing = lab::privileged().err();
    println!("running {} end-to-end tests, {} at a time", wanted.len(), options.jobs);
    let queue = Mutex::new(VecDeque::from(wanted));
    let results = Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for _ in 0..options.jobs {
            scope.spawn(|| {
                while let Some(case) = take(&queue) {
                    let began = Instant::now();
                    let outcome = match &missing {
                        Some(reason) => Outcome::Skipped(reason.clone()),
                        None => run_apart(&case, options),
                    };
                    announce(&case, &outcome, began.elapsed());
                    results.lock().unwrap().push((name(&case), outcome));
                }
            });
        }
    });
    conclude(&results.into_inner().unwrap(), start.elapsed())
}

fn take(queue: &Mutex<VecDeque<Case>>) -> Option<Case> {
    queue.lock().unwrap().pop_front()
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
fn run_apart(case: &Case, options: &Options) -> Outcome {
    if let Some(tool) = case.tools.iter().find(|tool| !lab::has(tool)) {
        return Outcome::Skipped(format!("needs {tool}"));
    }
    let directory = match TempDir::with_prefix("fastvpn-e2e-") {
        Ok(directory) => directory,
        Err(error) => return Outcome::Failed(error.to_string()),
    };
    match run_process(case, options, directory.path()) {
        Ok((status, output)) => judge(status, output, directory.path()),
        Err(error) => Outcome::Failed(error.to_string()),
    }
}

fn run_process(
    case: &Case,
    options: &Options,
    directory: &Path,
) -> std::io::Result<(Option<ExitStatus>, String)> {
    use std::os::unix::fs::PermissionsExt;
    fs::set_permissions(directory, fs::Permissions::from_mode(0o755))?;
    let output = directory.join("output");
    let mut command = Command::new(std::env::current_exe()?);
    command.args(["--one", name(case)]).stdin(Stdio::null()).env("TMPDIR", directory);
    if !options.show_output {
        let file = File::create(&output)?;
        command.stdout(file.try_clone()?).stderr(file);
    }
    let mut child = command.spawn()?;
    let mut status = None;
    lab::until(PATIENCE, || {
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

fn judge(status: Option<ExitStatus>, output: String, directory: &Path) -> Outcome {
    match status {
        Some(status) if status.success() => Outcome::Passed,
        Some(status) if status.code() == Some(SKIPPED) => {
            Outcome::Skipped(output.trim().lines().last().unwrap_or("").to_owned())
        }
        Some(status) if status.code() == Some(FAILED) => Outcome::Failed(output),
        Some(status) => Outcome::Failed(format!("{output}\nended by {status}")),
        None => {
            let logs = logs(directory);
            Outcome::Failed(format!("{output}\nnot done after {PATIENCE:?}, killed\n{logs}"))
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

fn conclude(results: &[(&str, Outcome)], took: Duration) -> ExitCode {
    let (mut passed, mut failed, mut skipped) = (0, 0, 0);
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
    println!("\nend-to-end tests took {:.0} s", took.as_secs_f64());
    println!("{passed} passed, {failed} failed, {skipped} skipped");
    if failed > 0 { ExitCode::FAILURE } else { ExitCode::SUCCESS }
}
