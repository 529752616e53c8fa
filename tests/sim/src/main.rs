//! `ashlar-sim`: runs seeds of the simulator, or replays one.

use ashlar_sim::{Outcome, Telling, coverage, run_seed};
use clap::Parser;
use std::collections::BTreeMap;
use std::process::ExitCode;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Instant;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Runs the replication core, the chunkserver engine and the membership rules under simulated faults.
#[derive(Parser)]
#[command(name = "ashlar-sim", version)]
struct Cli {
    /// Number of seeds to run.
    #[arg(long, default_value_t = 1000)]
    seeds: u64,
    /// First seed.
    #[arg(long, default_value_t = 1)]
    first: u64,
    /// Threads; each runs one seed at a time.
    #[arg(long, default_value_t = 2)]
    jobs: u32,
    /// Run this seed alone.
    #[arg(long)]
    seed: Option<u64>,
    /// With --seed: print every event.
    #[arg(long, requires = "seed")]
    trace: bool,
    /// Do not stop at the first violation; list every one.
    #[arg(long)]
    keep_going: bool,
    /// Lines of a failing seed's story; 0 for all.
    #[arg(long, default_value_t = 400)]
    story_lines: usize,
    /// Run every seed twice and compare the traces.
    #[arg(long)]
    twice: bool,
}

#[derive(Default)]
struct Totals {
    counts: BTreeMap<&'static str, u64>,
    seeds: u64,
    events: u64,
    acknowledged: u64,
    reads: u64,
    simulated_nanos: u64,
    /// In order of seed.
    failures: BTreeMap<u64, String>,
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    // A panic of the code under test is reported as a violation, with its place, and not as noise between others.
    let verbose = cli.seed.is_some();
    std::panic::set_hook(Box::new(move |info| {
        if verbose {
            eprintln!("{info}");
        }
    }));
    match cli.seed {
        Some(seed) => replay(seed, &cli),
        None => sweep(&cli),
    }
}

fn replay(seed: u64, cli: &Cli) -> ExitCode {
    let outcome = run_seed(seed, if cli.trace { Telling::Everything } else { Telling::Story });
    if cli.trace || outcome.violation.is_some() {
        print_tail(&outcome.story, if cli.trace { 0 } else { cli.story_lines });
    }
    for (what, number) in &outcome.counts {
        println!("{number:>10}  {what}");
    }
    println!(
        "seed {seed}: hash {:016x}, {} events, {} writes, {} reads, {:.1} simulated seconds",
        outcome.hash,
        outcome.events,
        outcome.acknowledged,
        outcome.reads,
        outcome.lasted as f64 / 1e9
    );
    verdict(&outcome)
}

fn verdict(outcome: &Outcome) -> ExitCode {
    match &outcome.violation {
        Some(violation) => {
            println!("VIOLATION at {:.6} s: {} {:?}", violation.at as f64 / 1e9, violation.text, violation.block);
            ExitCode::FAILURE
        }
        None => ExitCode::SUCCESS,
    }
}

fn print_tail(story: &str, lines_max: usize) {
    let lines: Vec<&str> = story.lines().collect();
    let skipped = if lines_max == 0 { 0 } else { lines.len().saturating_sub(lines_max) };
    if skipped > 0 {
        println!("({skipped} earlier lines left out)");
    }
    lines[skipped..].iter().for_each(|line| println!("{line}"));
}

fn sweep(cli: &Cli) -> ExitCode {
    let begun = Instant::now();
    let next = AtomicU64::new(cli.first);
    let stop = AtomicBool::new(false);
    let totals = Mutex::new(Totals::default());
    std::thread::scope(|scope| {
        for _ in 0..cli.jobs.max(1) {
            scope.spawn(|| work(cli, &next, &stop, &totals));
        }
    });
    let totals = totals.into_inner().expect("no worker panics outside of a seed");
    report(&totals, begun.elapsed().as_secs_f64());
    let Some(&seed) = totals.failures.keys().next() else { return judge_coverage(&totals) };
    if !cli.keep_going {
        let outcome = run_seed(seed, Telling::Story);
        print_tail(&outcome.story, cli.story_lines);
        println!("replay it: ashlar-sim --seed {seed}");
        return verdict(&outcome);
    }
    ExitCode::FAILURE
}

/// The generator must have reached everything that it claims to.
fn judge_coverage(totals: &Totals) -> ExitCode {
    if totals.seeds < coverage::SEEDS_MIN {
        println!("coverage is judged from {} seeds on", coverage::SEEDS_MIN);
        return ExitCode::SUCCESS;
    }
    let gaps = coverage::gaps(&totals.counts);
    gaps.iter().for_each(|gap| println!("COVERAGE {gap}"));
    if gaps.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn work(cli: &Cli, next: &AtomicU64, stop: &AtomicBool, totals: &Mutex<Totals>) {
    while !stop.load(Ordering::Relaxed) {
        let seed = next.fetch_add(1, Ordering::Relaxed);
        if seed >= cli.first + cli.seeds {
            return;
        }
        let outcome = run_seed(seed, Telling::Nothing);
        let mut failure = outcome.violation.as_ref().map(|violation| violation.text.clone());
        if cli.twice && failure.is_none() {
            let again = run_seed(seed, Telling::Nothing).hash;
            failure = (again != outcome.hash).then(|| "two runs of the seed differ".to_owned());
        }
        if failure.is_some() && !cli.keep_going {
            stop.store(true, Ordering::Relaxed);
        }
        totals.lock().expect("no worker panics outside of a seed").add(&outcome, failure);
    }
}

impl Totals {
    fn add(&mut self, outcome: &Outcome, failure: Option<String>) {
        self.seeds += 1;
        self.events += outcome.events;
        self.acknowledged += outcome.acknowledged;
        self.reads += outcome.reads;
        self.simulated_nanos += outcome.lasted;
        for (what, number) in &outcome.counts {
            *self.counts.entry(what).or_default() += number;
        }
        if let Some(text) = failure {
            // At once: a long run that is interrupted has still said what it found.
            eprintln!("seed {}: {text}", outcome.seed);
            self.failures.insert(outcome.seed, text);
        }
    }
}

fn report(totals: &Totals, seconds: f64) {
    print!("{}", coverage::report(&totals.counts));
    println!(
        "{} seeds, {} violations; {:.0} seeds a minute; {} acknowledged writes, {} reads, {} events, \
         {:.2} simulated hours",
        totals.seeds,
        totals.failures.len(),
        totals.seeds as f64 / seconds * 60.0,
        totals.acknowledged,
        totals.reads,
        totals.events,
        totals.simulated_nanos as f64 / 3.6e12
    );
}
