//! `ashlar volume show --why`: for each replica why its disk was taken, and why each of the others was not.

use crate::output::line;
use crate::view::Choices;
use std::time::{Duration, UNIX_EPOCH};

pub(super) fn show(choices: &Choices) {
    for choice in &choices.replicas {
        let when = match choice.chosen_ms {
            Some(ms) => humantime::format_rfc3339_seconds(UNIX_EPOCH + Duration::from_millis(ms)).to_string() + " ",
            None => String::new(),
        };
        line(&format!("disk {} on node {}: {when}{}", choice.disk, choice.node, choice.occasion));
        if let Some(taken) = &choice.taken {
            line(&format!("  taken: {taken}"));
        }
        for left in &choice.left_out {
            line(&format!("  not {} on node {}: {}", left.disk, left.node, left.reason));
        }
        if choice.more > 0 {
            line(&format!("  nor {} more", choice.more));
        }
    }
}
