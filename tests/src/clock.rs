//! Seconds since a demo began, in front of every line that it prints.

use std::time::Instant;

#[derive(Clone, Copy)]
pub struct Clock {
    start: Instant,
}

impl Clock {
    pub fn start() -> Clock {
        Clock { start: Instant::now() }
    }

    pub fn seconds(self) -> f64 {
        self.start.elapsed().as_secs_f64()
    }

    pub fn say(self, text: &str) {
        println!("{:7.1} s  {text}", self.seconds());
    }
}
