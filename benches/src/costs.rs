//! What work costs beside time: processor time, context switches, bytes written and memory of processes, as /proc says
//! (proc(5)), before and after.

use crate::report::Costs;
use anyhow::{Context, Result};
use std::{fs, os::unix::fs::MetadataExt, path::Path, time::Duration};

/// Whose costs are taken: some processes, and the disk below a folder.
pub(crate) struct Meter {
    pids: Vec<i32>,
    /// Major and minor number.
    disk: (u64, u64),
}

#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Sample {
    cpu: Duration,
    switches: u64,
    written_bytes: u64,
    disk_written_bytes: u64,
    resident_bytes: u64,
}

impl Meter {
    pub(crate) fn new(pids: Vec<i32>, dir: &Path) -> Result<Meter> {
        let device = fs::metadata(dir).with_context(|| format!("look at {}", dir.display()))?.dev();
        Ok(Meter { pids, disk: (nix::sys::stat::major(device), nix::sys::stat::minor(device)) })
    }

    pub(crate) fn sample(&self) -> Result<Sample> {
        let table = fs::read_to_string("/proc/diskstats").context("read diskstats")?;
        let disk_written_bytes = 512 * disk_sectors_written(&table, self.disk).unwrap_or(0);
        let mut sum = Sample { disk_written_bytes, ..Sample::default() };
        for &pid in &self.pids {
            sum.add(of_process(pid).with_context(|| format!("look at process {pid}"))?);
        }
        Ok(sum)
    }
}

impl Sample {
    fn add(&mut self, other: Sample) {
        self.cpu += other.cpu;
        self.switches += other.switches;
        self.written_bytes += other.written_bytes;
        self.resident_bytes += other.resident_bytes;
    }

    /// Per operation and byte, since `before`; `asker` is added: who asked, where it is none of the processes.
    pub(crate) fn since(&self, before: &Sample, operations: u64, user_bytes: f64, asker: (Duration, u64)) -> Costs {
        let operations = operations.max(1) as f64;
        let by_user = |bytes: u64| if user_bytes > 0.0 { bytes as f64 / user_bytes } else { 0.0 };
        let cpu = self.cpu.saturating_sub(before.cpu) + asker.0;
        Costs {
            cpu_us_per_op: cpu.as_secs_f64() * 1e6 / operations,
            switches_per_op: (self.switches.saturating_sub(before.switches) + asker.1) as f64 / operations,
            written_per_user_byte: by_user(self.written_bytes.saturating_sub(before.written_bytes)),
            disk_per_user_byte: by_user(self.disk_written_bytes.saturating_sub(before.disk_written_bytes)),
            memory_mib: self.resident_bytes as f64 / f64::from(1 << 20),
        }
    }
}

fn of_process(pid: i32) -> Result<Sample> {
    let ticks_per_second = nix::unistd::sysconf(nix::unistd::SysconfVar::CLK_TCK)?.context("clock ticks")?;
    let read = |name: &str| fs::read_to_string(format!("/proc/{pid}/{name}"));
    let cpu = Duration::from_secs_f64(ticks(&read("stat")?)? as f64 / ticks_per_second as f64);
    let mut switches = 0;
    for task in fs::read_dir(format!("/proc/{pid}/task"))? {
        // A thread may end while it is looked at.
        let Ok(status) = fs::read_to_string(task?.path().join("status")) else { continue };
        switches += field(&status, "voluntary_ctxt_switches:") + field(&status, "nonvoluntary_ctxt_switches:");
    }
    let written_bytes = field(&read("io")?, "write_bytes:");
    let resident_bytes = field(&read("status")?, "VmRSS:") << 10;
    Ok(Sample { cpu, switches, written_bytes, disk_written_bytes: 0, resident_bytes })
}

/// User and system time: fields 14 and 15 of /proc/PID/stat, the name in brackets being the second.
pub(crate) fn ticks(stat: &str) -> Result<u64> {
    let after_name = stat.rsplit_once(')').context("stat has a name in brackets")?.1;
    let fields: Vec<&str> = after_name.split_whitespace().collect();
    let field = |at: usize| -> Result<u64> { Ok(fields.get(at).context("stat has its fields")?.parse()?) };
    Ok(field(11)? + field(12)?)
}

/// The number behind a name at the beginning of a line; 0 if there is none.
fn field(text: &str, name: &str) -> u64 {
    let value = text.lines().find_map(|line| line.strip_prefix(name));
    value.and_then(|value| value.split_whitespace().next()).and_then(|value| value.parse().ok()).unwrap_or(0)
}

/// Field 10 of the disk's line.
fn disk_sectors_written(table: &str, (major, minor): (u64, u64)) -> Option<u64> {
    let fields = table.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
    let of_disk =
        |fields: &Vec<&str>| fields.len() > 9 && fields[0].parse() == Ok(major) && fields[1].parse() == Ok(minor);
    fields.into_iter().find(of_disk).and_then(|fields| fields[9].parse().ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_proc_says_is_understood() {
        assert_eq!(ticks("7 (a (b) c) S 1 2 3 4 5 6 7 8 9 10 250 50 1 1").unwrap(), 300);
        assert!(ticks("7 (short) S").is_err());
        let status = "Name:\tx\nVmRSS:\t    2048 kB\nvoluntary_ctxt_switches:\t12\nnonvoluntary_ctxt_switches:\t3\n";
        assert_eq!((field(status, "VmRSS:"), field(status, "voluntary_ctxt_switches:")), (2048, 12));
        assert_eq!(field(status, "write_bytes:"), 0);
        let table = " 254 0 vda 1 2 3 4 5 6 700 8 9 10 11\n 7 0 loop0 1 1 1 1 1 1 9 1 1 1 1\n";
        assert_eq!(disk_sectors_written(table, (254, 0)), Some(700));
        assert_eq!(disk_sectors_written(table, (8, 0)), None);
    }

    #[test]
    fn costs_are_per_operation_and_per_byte_and_the_asker_counts() {
        let before = Sample { cpu: Duration::from_secs(1), switches: 10, written_bytes: 100, ..Sample::default() };
        let after = Sample { cpu: Duration::from_secs(2), switches: 110, written_bytes: 900, ..before };
        let costs = after.since(&before, 100, 400.0, (Duration::from_secs(1), 100));
        assert_eq!((costs.cpu_us_per_op, costs.switches_per_op), (20_000.0, 2.0));
        assert_eq!(costs.written_per_user_byte, 2.0);
        assert_eq!(after.since(&before, 0, 0.0, (Duration::ZERO, 0)).written_per_user_byte, 0.0, "reads write nothing");
    }

    #[test]
    fn this_process_has_costs() {
        let meter = Meter::new(vec![std::process::id() as i32], Path::new("/")).unwrap();
        assert!(meter.sample().unwrap().resident_bytes > 0);
    }
}
