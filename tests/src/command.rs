//! Running other programs, without a shell.

use anyhow::{Context, Result, bail};
use std::{
    ffi::OsStr,
    path::PathBuf,
    process::{Command, Stdio},
};

/// What a program that has ended left.
pub struct Output {
    pub success: bool,
    pub stdout: String,
    pub stderr: String,
}

/// Path of one of Ashlar's programs, beside the one that runs now.
pub fn program(name: &str) -> Result<PathBuf> {
    let here = std::env::current_exe().context("own path")?;
    let dir = here.parent().context("own folder")?;
    let dir = if dir.ends_with("deps") { dir.parent().context("target folder")? } else { dir };
    let path = dir.join(name);
    if !path.exists() {
        bail!("{} is not built: run `make build`", path.display());
    }
    Ok(path)
}

/// Runs to the end and gives what was printed.
pub fn run<S: AsRef<OsStr>>(program: impl AsRef<OsStr>, args: impl IntoIterator<Item = S>) -> Result<Output> {
    let program = program.as_ref();
    let output = Command::new(program)
        .args(args)
        .stdin(Stdio::null())
        .output()
        .with_context(|| format!("run {}", program.to_string_lossy()))?;
    Ok(Output {
        success: output.status.success(),
        stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
        stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
    })
}

/// As `run`; a failure is an error that holds what was printed.
pub fn run_ok<S: AsRef<OsStr>>(program: impl AsRef<OsStr>, args: impl IntoIterator<Item = S>) -> Result<String> {
    let name = program.as_ref().to_string_lossy().into_owned();
    let args: Vec<_> = args.into_iter().collect();
    let shown: Vec<_> = args.iter().map(|arg| arg.as_ref().to_string_lossy().into_owned()).collect();
    let output = run(program, &args)?;
    if !output.success {
        bail!("{name} {} failed:\n{}{}", shown.join(" "), output.stdout, output.stderr);
    }
    Ok(output.stdout)
}
