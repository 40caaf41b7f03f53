//! Runs experiments, some of them side by side where they leave room for each other.
//!
//! What needs the whole machine runs alone. Of the others, as many run at once as there are cores,
//! or, of those on idle links, four times as many; so a run takes a fraction of the time, and the
//! machine stays idle enough for its clock, as the lateness in each report shows. `--serial` runs
//! one at a time.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use anyhow::Result;

use super::bulk::Figures;
use super::compare;
use super::contest::Contestant;
use super::experiment::{Effort, Experiment, Need};
use super::measures::Measure;
use super::programs::{missing, version};
use super::report::{Figure, Machine, Report, Skipped, date};
use super::routes::Route;

/// How to run
#[derive(Clone, Copy, Debug)]
pub struct Manner {
    /// Runs of each experiment
    pub runs: usize,
    /// How thorough
    pub effort: Effort,
    /// How much of the machine may be used at once, in quarters of a core
    pub room: usize,
}

impl Manner {
    /// Returns how much of the room an experiment takes
    fn part(self, experiment: Experiment) -> usize {
        match experiment.need() {
            Need::Little => 1,
            Need::Core => 4,
            Need::Machine => self.room,
        }
        .min(self.room)
    }

    fn runs_of(self, experiment: Experiment) -> usize {
        self.runs.min(experiment.most_runs()).max(1)
    }

    /// Returns about how many seconds all experiments take
    pub fn seconds(self, experiments: &[Experiment]) -> f64 {
        let area = |experiment: &Experiment| {
            let seconds = experiment.seconds(self.effort) as usize;
            (seconds * self.part(*experiment) * self.runs_of(*experiment)) as f64
        };
        experiments.iter().map(area).sum::<f64>() / self.room as f64
    }
}

/// Takes out what cannot be measured here, with one line for each program
pub fn possible(experiments: Vec<Experiment>) -> (Vec<Experiment>, Vec<Skipped>) {
    let mut skipped = Vec::new();
    let mut reasons: BTreeMap<Contestant, Option<String>> = BTreeMap::new();
    let left = experiments
        .into_iter()
        .filter(|experiment| {
            let who = experiment.contestant;
            let reason = reasons.entry(who).or_insert_with(|| missing(who));
            reason.is_none()
        })
        .collect();
    for (who, why) in reasons {
        if let Some(why) = why {
            let (link, who) = ("all links".to_owned(), who.name().to_owned());
            skipped.push(Skipped { link, who, why });
        }
    }
    (left, skipped)
}

/// Runs experiments and reports
pub fn run(experiments: &[Experiment], manner: Manner, skipped: Vec<Skipped>) -> Report {
    let start = Instant::now();
    let mut queue = Vec::new();
    for turn in 0..manner.runs {
        let due = experiments.iter().filter(|experiment| turn < manner.runs_of(**experiment));
        queue.extend(due.map(|experiment| (*experiment, turn)));
    }
    // within a turn the longest first, so that none runs alone at the end
    queue.sort_by_key(|(experiment, turn)| {
        (Reverse(experiment.need()), *turn, Reverse(experiment.seconds(manner.effort)))
    });
    let board = Board::new(queue.len(), manner.room);
    std::thread::scope(|scope| {
        for (experiment, turn) in queue {
            let part = manner.part(experiment);
            board.take(part);
            let board = &board;
            scope.spawn(move || {
                let mut outcome = attempt(experiment, manner.effort, turn);
                if let Err(error) = &outcome {
                    // a program that fails once in a while is noted, and measured all the same
                    board.complain(experiment, turn, error);
                    outcome = attempt(experiment, manner.effort, turn + AGAIN);
                }
                board.note(experiment, turn, outcome);
                board.give(part);
            });
        }
    });
    let (figures, problems) = board.results();
    let mut report = Report {
        date: date(SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()),
        machine: Machine::here(),
        versions: versions(experiments),
        runs: manner.runs,
        quick: manner.effort == Effort::Quick,
        minutes: start.elapsed().as_secs_f64() / 60.0,
        figures,
        skipped,
    };
    report.skipped.extend(problems);
    compare::add(&mut report);
    report
}

fn attempt(experiment: Experiment, effort: Effort, turn: usize) -> Result<Figures> {
    let seed =
        std::env::var("FASTVPN_SEED").ok().and_then(|text| text.parse().ok()).unwrap_or(1u64);
    let seed = seed.wrapping_mul(1000) + turn as u64;
    catch_unwind(AssertUnwindSafe(|| experiment.run(effort, seed)))
        .unwrap_or_else(|_| Err(anyhow::anyhow!("it panicked")))
}

fn versions(experiments: &[Experiment]) -> BTreeMap<String, String> {
    experiments
        .iter()
        .map(|experiment| {
            let who = experiment.contestant;
            (who.program().to_owned(), version(who))
        })
        .collect()
}

/// What is running and what came of it
struct Board {
    state: Mutex<State>,
    changed: Condvar,
    all: usize,
    room: usize,
}

#[derive(Default)]
struct State {
    taken: usize,
    done: usize,
    values: BTreeMap<(Route, Measure, Contestant), Vec<f64>>,
    problems: Vec<Skipped>,
}

impl Board {
    fn new(all: usize, room: usize) -> Self {
        Self { state: Mutex::default(), changed: Condvar::new(), all, room }
    }

    /// Waits for room and takes it
    fn take(&self, part: usize) {
        let mut state = self.state();
        while state.taken + part > self.room {
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        state.taken += part;
    }

    fn give(&self, part: usize) {
        self.state().taken -= part;
        self.changed.notify_all();
    }

    fn note(&self, experiment: Experiment, turn: usize, outcome: Result<Figures>) {
        let mut state = self.state();
        state.done += 1;
        let Experiment { route, contestant, .. } = experiment;
        let head = format!("[{}/{}] {}", state.done, self.all, route.name());
        match outcome {
            Ok(figures) => {
                let shown: Vec<String> =
                    figures.iter().map(|(measure, value)| show(*measure, *value)).collect();
                eprintln!("{head}, {}, run {}: {}", contestant.name(), turn + 1, shown.join(", "));
                for (measure, value) in figures {
                    state.values.entry((route, measure, contestant)).or_default().push(value);
                }
            }
            Err(error) => {
                drop(state);
                self.complain(experiment, turn, &error);
            }
        }
    }

    fn complain(&self, experiment: Experiment, turn: usize, error: &anyhow::Error) {
        let Experiment { route, contestant, kind } = experiment;
        let why = format!("{kind:?}, run {}: {error:#}", turn + 1);
        eprintln!("{}, {}: failed: {why}", route.name(), contestant.name());
        let (link, who) = (route.name().to_owned(), contestant.name().to_owned());
        self.state().problems.push(Skipped { link, who, why });
    }

    fn results(self) -> (Vec<Figure>, Vec<Skipped>) {
        let state = self.state.into_inner().unwrap_or_else(PoisonError::into_inner);
        let figures = state
            .values
            .into_iter()
            .map(|((route, measure, who), values)| Figure::new(route, measure, who, values))
            .collect();
        (figures, state.problems)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn show(measure: Measure, value: f64) -> String {
    let unit = measure.unit();
    let space = if unit.is_empty() { "" } else { " " };
    format!("{} {value:.*}{space}{unit}", measure.name(), measure.digits())
}

/// What a second attempt adds to the seed
const AGAIN: usize = 500;
