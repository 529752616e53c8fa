//! `ashlar-sim-mutants`: checks the checker. Turns on one deliberate bug after the other and runs seeds until a rule is
//! violated: a line for each bug, `killed` with the number of seeds it took and the violation, or `ALIVE`.

use ashlar_sim::{Telling, run_seed};
use ashlar_types::Mutant;
use clap::Parser;
use std::process::ExitCode;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Seeds that a bug is given in a quick run.
const QUICK_SEEDS: u64 = 1000;
/// Seeds without any bug, before the bugs: the checker must not see what is not there.
const SOUND_SEEDS: u64 = 40;
const WIDTH: usize = 80;

/// Bugs that take hundreds of seeds, and are left out of a quick run: a change of the simulator must not make it fail
/// by bad luck. `tests/sim/MUTANTS.md` has how long each takes.
const RARE: &[Mutant] = &[
    Mutant::AckBeforeEjectionKnown,
    Mutant::CatalogComparesNoVersion,
    Mutant::CutOffReconcileComplete,
    Mutant::FenceForgetsReturning,
    Mutant::ListingForgetsBase,
    Mutant::MergeIgnoresClones,
    Mutant::NearNotAwaited,
    Mutant::OldReportsReused,
    Mutant::OpenFromVolatileState,
    Mutant::ReachNotDurable,
    Mutant::WriteNotHeldBehindRead,
];

/// Runs the simulator with one deliberate bug at a time.
#[derive(Parser)]
#[command(name = "ashlar-sim-mutants", version)]
struct Cli {
    /// Seeds that each bug is given.
    #[arg(long, default_value_t = 100_000)]
    seeds: u64,
    /// First seed.
    #[arg(long, default_value_t = 1)]
    first: u64,
    /// Threads; each runs one seed at a time.
    #[arg(long, default_value_t = 2)]
    jobs: u32,
    /// Only the bugs that are found fast, each with few seeds.
    #[arg(long)]
    quick: bool,
    /// With one bug and one seed: print the last lines of its story, 0 for all of it.
    #[arg(long, requires = "only")]
    story: Option<usize>,
    /// Only these bugs, by name.
    #[arg(long)]
    only: Vec<String>,
}

/// The first seed that found something, and what.
struct Kill {
    seed: u64,
    text: String,
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    if let Some(unknown) = cli.only.iter().find(|name| Mutant::ALL.iter().all(|mutant| mutant.name() != **name)) {
        eprintln!("there is no bug named {unknown}");
        return ExitCode::FAILURE;
    }
    if let Some(lines) = cli.story {
        return tell(&cli, lines);
    }
    // A panic of the code under test is a violation like any other.
    std::panic::set_hook(Box::new(|_| {}));
    let seeds = if cli.quick { QUICK_SEEDS } else { cli.seeds };
    if let Some(kill) = first_violation(&cli, SOUND_SEEDS.min(seeds)) {
        println!("seed {} fails without any bug: {}", kill.seed, kill.text);
        return ExitCode::FAILURE;
    }
    let chosen = |mutant: &&Mutant| match cli.only.is_empty() {
        true => !(cli.quick && RARE.contains(mutant)),
        false => cli.only.iter().any(|name| name == mutant.name()),
    };
    let mut took = Vec::new();
    let mut alive = Vec::new();
    for &mutant in Mutant::ALL.iter().filter(chosen) {
        let begun = Instant::now();
        Mutant::activate(Some(mutant));
        let killed = first_violation(&cli, seeds);
        Mutant::activate(None);
        if let Some(violation) = killed.as_ref().and_then(|kill| run_seed(kill.seed, Telling::Nothing).violation) {
            println!("seed {} fails without any bug: {}", killed.map_or(0, |kill| kill.seed), violation.text);
            return ExitCode::FAILURE;
        }
        let seconds = begun.elapsed().as_secs_f64();
        match killed {
            Some(Kill { seed, text }) => {
                let after = seed - cli.first + 1;
                println!("killed {:<30} {after:>7} seeds {seconds:>7.1} s  {}", mutant.name(), shortened(&text));
                took.push(after);
            }
            None => {
                println!("ALIVE  {:<30} {seeds:>7} seeds {seconds:>7.1} s  {}", mutant.name(), mutant.bug());
                alive.push(mutant.name());
            }
        }
    }
    summarize(&mut took, &alive)
}

/// What happens in the first seed with the first bug that is named.
fn tell(cli: &Cli, lines_max: usize) -> ExitCode {
    Mutant::activate(Mutant::ALL.iter().copied().find(|mutant| mutant.name() == cli.only[0]));
    let story = run_seed(cli.first, Telling::Story).story;
    let lines: Vec<&str> = story.lines().collect();
    let skipped = if lines_max == 0 { 0 } else { lines.len().saturating_sub(lines_max) };
    lines[skipped..].iter().for_each(|line| println!("{line}"));
    ExitCode::SUCCESS
}

fn summarize(took: &mut [u64], alive: &[&str]) -> ExitCode {
    took.sort_unstable();
    let within_100 = took.iter().filter(|&&seeds| seeds <= 100).count();
    println!(
        "{} of {} killed, {within_100} within 100 seeds; median {}, most {}",
        took.len(),
        took.len() + alive.len(),
        took.get(took.len() / 2).unwrap_or(&0),
        took.last().unwrap_or(&0)
    );
    if alive.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// Runs up to `seeds` seeds; the lowest one that violates a rule.
fn first_violation(cli: &Cli, seeds: u64) -> Option<Kill> {
    let next = AtomicU64::new(cli.first);
    let end = AtomicU64::new(cli.first + seeds);
    let found: Mutex<Option<Kill>> = Mutex::new(None);
    std::thread::scope(|scope| {
        for _ in 0..cli.jobs.max(1) {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= end.load(Ordering::Relaxed) {
                        return;
                    }
                    let Some(violation) = run_seed(seed, Telling::Nothing).violation else { continue };
                    end.fetch_min(seed, Ordering::Relaxed);
                    let mut found = found.lock().expect("nothing panics under the lock");
                    if found.as_ref().is_none_or(|kill| seed < kill.seed) {
                        *found = Some(Kill { seed, text: violation.text });
                    }
                }
            });
        }
    });
    found.into_inner().expect("nothing panics under the lock")
}

/// One line of at most [`WIDTH`] characters.
fn shortened(text: &str) -> String {
    let line: String = text.split_whitespace().collect::<Vec<_>>().join(" ");
    match line.char_indices().nth(WIDTH) {
        Some((end, _)) => format!("{}…", &line[..end]),
        None => line,
    }
}
