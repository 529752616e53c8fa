//! Runs programs of the system: from a list of arguments, never through a shell, with an environment of our own.

use super::error::MountError;
use std::ffi::OsStr;
use std::process::{Command, Stdio};

/// Where the system's programs are; the environment of the daemon does not decide.
const PATH: &str = "/usr/sbin:/usr/bin:/sbin:/bin";
/// Of a program's output this much goes into an error.
const TEXT_CHARS_MAX: usize = 600;

#[derive(Debug)]
pub struct Output {
    /// `None`: ended by a signal.
    pub code: Option<i32>,
    /// What it printed, on either stream.
    pub text: String,
}

pub fn run<I, S>(program: &'static str, arguments: I) -> Result<Output, MountError>
where
    I: IntoIterator<Item = S>,
    S: AsRef<OsStr>,
{
    let mut command = Command::new(program);
    command.args(arguments).env_clear().env("PATH", PATH).env("LC_ALL", "C").stdin(Stdio::null());
    let output = command.output().map_err(MountError::io(format!("run {program}")))?;
    let text = [output.stdout.as_slice(), output.stderr.as_slice()].map(String::from_utf8_lossy).join("\n");
    Ok(Output { code: output.status.code(), text: shorten(&text) })
}

impl Output {
    pub fn expect_success(self, program: &'static str) -> Result<(), MountError> {
        if self.code == Some(0) { Ok(()) } else { Err(self.into_error(program)) }
    }

    pub fn into_error(self, program: &'static str) -> MountError {
        let status = self.code.map_or_else(|| "ended by a signal".to_owned(), |code| format!("exit code {code}"));
        MountError::Tool { program, status, text: self.text }
    }
}

/// One line; the end says why a program gave up, so the beginning is cut off.
fn shorten(text: &str) -> String {
    let line = text.lines().map(str::trim).filter(|line| !line.is_empty()).collect::<Vec<_>>().join("; ");
    let excess = line.chars().count().saturating_sub(TEXT_CHARS_MAX);
    line.chars().skip(excess).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arguments_reach_the_program_as_they_are() {
        let hostile = "$(touch /tmp/x); `id` | *";
        let output = run("printf", ["%s", hostile]).unwrap();
        assert_eq!((output.code, output.text.as_str()), (Some(0), hostile));
    }

    #[test]
    fn the_end_of_a_long_output_is_kept_on_one_line() {
        let output = run("printf", ["%s\n\n%s", &"x".repeat(2000), "why"]).unwrap();
        assert_eq!(output.text.chars().count(), TEXT_CHARS_MAX);
        assert!(output.text.ends_with("x; why"));
    }

    #[test]
    fn a_program_that_is_missing_is_named() {
        let error = run("ashlar-no-such-program", [""; 0]).unwrap_err().to_string();
        assert!(error.contains("ashlar-no-such-program"), "{error}");
    }
}
