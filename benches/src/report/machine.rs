//! What the run stood on: machine, kernel, disk, versions of everything that was measured.

use serde::Serialize;
use std::{fs, path::Path, process::Command};

#[derive(Debug, Serialize)]
pub(crate) struct Machine {
    pub(crate) date: String,
    pub(crate) processor: String,
    pub(crate) cores: usize,
    pub(crate) memory_mib: u64,
    pub(crate) kernel: String,
    /// Of the folder where all files are.
    pub(crate) filesystem: String,
    /// Runnable processes, averaged over the last minute, when the run began: above a few tenths somebody else was at
    /// work.
    pub(crate) load: String,
    /// Program, version.
    pub(crate) versions: Vec<(String, String)>,
}

impl Machine {
    pub(crate) fn look(dir: &Path) -> Machine {
        let file = |path: &str| fs::read_to_string(path).unwrap_or_default();
        let field = |text: &str, name: &str| {
            let line = text.lines().find(|line| line.starts_with(name));
            line.and_then(|line| line.split_once(':')).map(|(_, value)| value.trim().to_owned()).unwrap_or_default()
        };
        let memory = field(&file("/proc/meminfo"), "MemTotal");
        let kib: u64 = memory.trim_end_matches(" kB").parse().unwrap_or(0);
        let dir = dir.to_string_lossy();
        let programs: [(&str, &[&str]); 7] = [
            ("git", &["describe", "--always", "--dirty"]),
            ("fio", &["--version"]),
            ("mariadbd", &["--version"]),
            ("sysbench", &["--version"]),
            ("pgbench", &["--version"]),
            ("ceph-osd", &["--version"]),
            ("rustc", &["--version"]),
        ];
        Machine {
            date: said("date", &["--utc", "+%Y-%m-%d %H:%M UTC"]),
            processor: field(&file("/proc/cpuinfo"), "model name"),
            cores: std::thread::available_parallelism().map_or(0, usize::from),
            memory_mib: kib >> 10,
            kernel: file("/proc/sys/kernel/osrelease").trim().to_owned(),
            filesystem: said("findmnt", &["--noheadings", "--output", "SOURCE,FSTYPE,OPTIONS", "--target", &dir]),
            load: file("/proc/loadavg").split(' ').next().unwrap_or_default().to_owned(),
            versions: programs.iter().map(|(name, args)| ((*name).to_owned(), said(name, args))).collect(),
        }
    }
}

/// The first line that a program prints; told as missing if it cannot be run.
fn said(program: &str, args: &[&str]) -> String {
    match Command::new(program).args(args).output() {
        Ok(output) => String::from_utf8_lossy(&output.stdout).lines().next().unwrap_or_default().trim().to_owned(),
        Err(_) => "not installed".to_owned(),
    }
}
