//! `ashlar-crash-points`: cuts the power at every boundary of every workload.

use ashlar_crash_points::{Depth, Figures, Lie, Work, exhaustive, explore, fixed};
use clap::Parser;
use std::process::ExitCode;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Instant;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Runs the chunkserver's engine on a simulated disk and cuts the power at every boundary of its work.
#[derive(Parser)]
#[command(name = "ashlar-crash-points", version)]
struct Cli {
    /// A minute instead of several.
    #[arg(long)]
    quick: bool,
    /// Threads.
    #[arg(long, default_value_t = 2)]
    jobs: u32,
    /// Only workloads whose name contains this.
    #[arg(long)]
    only: Option<String>,
    /// Turn on one deliberate bug after the other and say which the crash points find.
    #[cfg(feature = "mutants")]
    #[arg(long)]
    mutants: bool,
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    #[cfg(feature = "mutants")]
    if cli.mutants {
        return mutants(&cli);
    }
    let begun = Instant::now();
    let (figures, violations) = explore_all(&cli);
    for violation in &violations {
        println!("VIOLATION {violation}");
    }
    println!(
        "{} workloads, {} boundaries, {} states of the disk recovered and checked, {} of them left by a cut of \
         recovery, {} worked with afterwards, {} violations; {:.0} s",
        figures.workloads,
        figures.boundaries,
        figures.states,
        figures.states_of_recovery,
        figures.gone_on,
        violations.len(),
        begun.elapsed().as_secs_f64()
    );
    if violations.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// Every workload, until the first violation.
fn explore_all(cli: &Cli) -> (Figures, Vec<String>) {
    let (depth, length) = if cli.quick { (Depth::QUICK, 2) } else { (Depth::FULL, 3) };
    let mut works = fixed();
    works.extend((1..=length).flat_map(exhaustive));
    works.retain(|work| cli.only.as_ref().is_none_or(|only| work.name.contains(only.as_str())));
    let (next, stop) = (AtomicUsize::new(0), AtomicBool::new(false));
    let totals = Mutex::new((Figures::default(), Vec::new()));
    std::thread::scope(|scope| {
        for _ in 0..cli.jobs.max(1) {
            scope.spawn(|| {
                while let Some(work) = works.get(next.fetch_add(1, Ordering::Relaxed))
                    && !stop.load(Ordering::Relaxed)
                {
                    run(work, depth, &totals, &stop);
                }
            });
        }
    });
    totals.into_inner().expect("no worker panics")
}

/// A line for each bug of the disk side: `killed`, and by what, or `-`: for the simulator to find.
#[cfg(feature = "mutants")]
fn mutants(cli: &Cli) -> ExitCode {
    use ashlar_types::Mutant;
    std::panic::set_hook(Box::new(|_| {}));
    let mut killed = 0;
    for mutant in Mutant::ALL {
        Mutant::activate(Some(*mutant));
        let found = std::panic::catch_unwind(|| explore_all(cli).1);
        Mutant::activate(None);
        let text = match found {
            Ok(violations) => violations.first().map(|violation| violation.replace('\n', " ")),
            Err(_) => Some("panic".to_owned()),
        };
        killed += u32::from(text.is_some());
        let text = text.map_or_else(|| "-".to_owned(), |text| format!("killed  {}", &text[..text.len().min(90)]));
        println!("{:<32} {text}", mutant.name());
    }
    println!("{killed} of {} deliberate bugs found by the crash points", Mutant::ALL.len());
    if killed > 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn run(work: &Work, depth: Depth, totals: &Mutex<(Figures, Vec<String>)>, stop: &AtomicBool) {
    // A panic of the code under test is a violation like any other.
    let explored = std::panic::catch_unwind(|| explore(work, depth, Lie::None));
    let mut totals = totals.lock().expect("no worker panics");
    match explored {
        Ok(Ok(figures)) => totals.0.add(&figures),
        Ok(Err(violation)) => {
            totals.1.push(violation.to_string());
            stop.store(true, Ordering::Relaxed);
        }
        Err(panic) => {
            let said = panic.downcast_ref::<String>().map_or("panic", String::as_str);
            totals.1.push(format!("{}: {said}", work.name));
            stop.store(true, Ordering::Relaxed);
        }
    }
}
