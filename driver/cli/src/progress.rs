//! Shows on stderr that something goes on, when a person looks at it. Silent in scripts, and for whatever is over soon.

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use std::io::IsTerminal;
use std::time::Duration;

const TICK: Duration = Duration::from_millis(120);

/// A spinner with a line of text; gone when dropped.
pub struct Progress(ProgressBar);

impl Progress {
    pub fn spinner(text: impl Into<String>) -> Progress {
        let bar = ProgressBar::new_spinner();
        if !std::io::stderr().is_terminal() {
            bar.set_draw_target(ProgressDrawTarget::hidden());
        }
        let style = ProgressStyle::with_template("{spinner} {msg} ({elapsed})").expect("the template is constant");
        bar.set_style(style);
        bar.set_message(text.into());
        bar.enable_steady_tick(TICK);
        Progress(bar)
    }

    pub fn say(&self, text: impl Into<String>) {
        self.0.set_message(text.into());
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.0.finish_and_clear();
    }
}
