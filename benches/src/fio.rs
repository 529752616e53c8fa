//! fio (3.33) where our own loop cannot go: through librbd; and once through NBD, to see that the loop says what fio
//! says.

use crate::histogram::Histogram;
use crate::job::{Job, Outcome, Pattern, Until};
use anyhow::{Context, Result};
use ashlar_tests::run_ok;
use serde::Deserialize;
use std::collections::BTreeMap;
use std::time::Duration;

/// Through what fio reaches its device.
#[derive(Clone, Debug)]
pub(crate) enum Engine {
    Nbd { uri: String },
    Rbd { conf: String, image: String },
}

impl Engine {
    fn arguments(&self) -> Vec<String> {
        match self {
            Engine::Nbd { uri } => vec!["--ioengine=nbd".to_owned(), format!("--uri={uri}")],
            Engine::Rbd { image, .. } => {
                vec!["--ioengine=rbd".to_owned(), "--pool=rbd".to_owned(), format!("--rbdname={image}")]
            }
        }
    }
}

/// The job in fio's words.
pub(crate) fn arguments(job: &Job, span_bytes: u64, seed: u64) -> Vec<String> {
    let random = job.pattern != Pattern::Sequential;
    let kind = match (random, job.read_percent) {
        (true, 0) => "randwrite",
        (true, 100) => "randread",
        (true, _) => "randrw",
        (false, 0) => "write",
        (false, 100) => "read",
        (false, _) => "rw",
    };
    let mut arguments = vec![
        "--name=cell".to_owned(),
        format!("--rw={kind}"),
        format!("--bs={}", job.bytes),
        format!("--iodepth={}", job.depth),
        format!("--size={span_bytes}"),
        format!("--randseed={seed}"),
    ];
    if let Until::Elapsed(duration) = job.until {
        arguments.extend(["--time_based".to_owned(), format!("--runtime={}", duration.as_secs_f64().ceil())]);
    }
    if !matches!(job.read_percent, 0 | 100) {
        arguments.push(format!("--rwmixread={}", job.read_percent));
    }
    if job.pattern == Pattern::Zipf {
        arguments.push("--random_distribution=zipf:1.1".to_owned());
    }
    if let Some(rate) = job.per_second {
        arguments.push(format!("--rate_iops={rate}"));
    }
    arguments
}

pub(crate) fn run(engine: &Engine, job: &Job, span_bytes: u64, seed: u64) -> Result<Outcome> {
    let fixed = [
        "--direct=1",
        "--norandommap",
        "--refill_buffers",
        "--thread",
        "--output-format=json+",
        "--lat_percentiles=1",
        "--clat_percentiles=0",
    ];
    let mut command: Vec<String> = fixed.map(str::to_owned).into();
    command.extend(engine.arguments());
    command.extend(arguments(job, span_bytes, seed));
    let printed = match engine {
        Engine::Nbd { .. } => run_ok("fio", command)?,
        // fio has no option for the configuration's place; librados looks into the environment.
        Engine::Rbd { conf, .. } => {
            command.splice(0..0, [format!("CEPH_CONF={conf}"), "fio".to_owned()]);
            run_ok("env", command)?
        }
    };
    outcome(&printed).with_context(|| format!("read what fio said: {printed:.300}"))
}

#[derive(Deserialize)]
struct Printed {
    jobs: Vec<PrintedJob>,
}

#[derive(Deserialize)]
struct PrintedJob {
    read: Direction,
    write: Direction,
    usr_cpu: f64,
    sys_cpu: f64,
    ctx: u64,
    /// Milliseconds.
    job_runtime: u64,
}

#[derive(Deserialize)]
struct Direction {
    total_ios: u64,
    /// Milliseconds.
    runtime: u64,
    lat_ns: Latencies,
}

#[derive(Deserialize)]
struct Latencies {
    max: u64,
    /// Nanoseconds -> operations.
    #[serde(default)]
    bins: BTreeMap<u64, u64>,
}

/// fio's JSON, which librbd's warnings may precede.
fn outcome(printed: &str) -> Result<Outcome> {
    let start = printed.find('{').context("there is no JSON")?;
    let printed: Printed = serde_json::from_str(&printed[start..])?;
    let job = printed.jobs.first().context("one job was asked for")?;
    let mut latencies = Histogram::default();
    for direction in [&job.read, &job.write] {
        direction.lat_ns.bins.iter().for_each(|(&ns, &count)| latencies.add_many(Duration::from_nanos(ns), count));
    }
    anyhow::ensure!(latencies.count() == job.read.total_ios + job.write.total_ios, "not every operation has a latency");
    let cpu = Duration::from_millis(job.job_runtime).mul_f64((job.usr_cpu + job.sys_cpu) / 100.0);
    Ok(Outcome {
        elapsed: Duration::from_millis(job.read.runtime.max(job.write.runtime).max(1)),
        latencies,
        // With one operation after the other under way, no answer for so long is a latency as long.
        longest_gap: Duration::from_nanos(job.read.lat_ns.max.max(job.write.lat_ns.max)),
        seconds: vec![],
        asker: (cpu, job.ctx),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_job_is_told_in_fios_words() {
        let job = Job::write(4096, 32).lasting(Duration::from_secs(8));
        let words = arguments(&job, 1 << 30, 7).join(" ");
        assert!(words.contains("--rw=randwrite --bs=4096 --iodepth=32 --size=1073741824 --randseed=7 --time_based"));
        assert!(words.ends_with("--runtime=8"));
        let words = |job: Job| arguments(&job, 1 << 30, 7).join(" ");
        assert!(words(Job::read(4096, 1)).contains("--rw=randread"));
        assert!(words(Job::write(8192, 1).pattern(Pattern::Sequential)).contains("--rw=write"));
        assert!(words(job.mixed(70)).ends_with("--rwmixread=70"));
        assert!(words(job.pattern(Pattern::Zipf)).ends_with("--random_distribution=zipf:1.1"));
        assert!(words(Job { per_second: Some(100), ..job }).ends_with("--rate_iops=100"));
    }

    #[test]
    fn what_fio_prints_is_understood() {
        let none = r#"{"total_ios": 0, "runtime": 0, "lat_ns": {"max": 0}}"#;
        let write =
            r#"{"total_ios": 3, "runtime": 2000, "lat_ns": {"max": 900000, "bins": {"100000": 2, "900000": 1}}}"#;
        let job = format!(
            r#"{{"read": {none}, "write": {write}, "usr_cpu": 10.0, "sys_cpu": 15.0, "ctx": 12, "job_runtime": 2000}}"#
        );
        let outcome = outcome(&format!("a warning\n{{\"jobs\": [{job}]}}")).unwrap();
        assert_eq!(outcome.per_second(), 1.5);
        assert_eq!(outcome.asker, (Duration::from_millis(500), 12));
        assert_eq!(outcome.longest_gap, Duration::from_micros(900));
        assert!((outcome.latencies.percentile_us(50.0) - 100.0).abs() < 3.2);
        let lost = write.replace("\"total_ios\": 3", "\"total_ios\": 4");
        let job = job.replace(write, &lost);
        assert!(super::outcome(&format!("{{\"jobs\": [{job}]}}")).is_err(), "an operation without a latency");
        assert!(super::outcome("no JSON").is_err());
    }
}
