//! The story of a block: everything that touched it while what cannot be true was going on, and what happened to the
//! cluster meanwhile.

use super::{Inner, Note};
use ashlar_sim::checker::Violation;
use ashlar_sim::{Access, Kind, NEVER, Point, Stamp, checker};
use std::fmt::Write;

/// Lines of a story; what is left out is the middle.
const LINES_MAX: usize = 80;

pub(super) fn tell(volume: &str, inner: &Inner, found: &Violation) -> String {
    let Some(block) = found.block else { return format!("volume {volume}: {}", found.text) };
    let mut story = format!("volume {volume}, block {block}: {}\n", found.text);
    let accesses = inner.history.accesses(block);
    let (from, to) = span(accesses);
    let mut lines: Vec<(Point, String)> = vec![];
    for access in accesses.iter().filter(|access| access.start <= to && (access.end >= from || access.end == NEVER)) {
        lines.push((access.start, line(inner, access)));
    }
    lines.extend(inner.marks.iter().filter(|(point, _)| (from..=to).contains(point)).cloned());
    lines.sort_by_key(|(point, _)| *point);
    let left_out = lines.len().saturating_sub(LINES_MAX);
    for (at, (point, text)) in lines.iter().enumerate() {
        match at {
            at if left_out > 0 && at == LINES_MAX / 2 => writeln!(story, "  ... {left_out} lines"),
            at if left_out > 0 && (LINES_MAX / 2..LINES_MAX / 2 + left_out).contains(&at) => Ok(()),
            _ => writeln!(story, "  {point:>10}  {text}"),
        }
        .expect("a string takes everything");
    }
    story
}

/// The points between which the two values that contradict each other were written and seen; all, where what is wrong
/// is no such contradiction.
fn span(accesses: &[Access]) -> (Point, Point) {
    let Err(found) = checker::check(accesses) else { return (0, NEVER) };
    let of = |access: &&Access| found.stamps.contains(&access.stamp);
    let named = || accesses.iter().filter(of).filter(|access| access.stamp != Stamp::ZERO || access.kind == Kind::Read);
    let from = named().map(|access| access.start).min().unwrap_or(0);
    let to = named().map(|access| if access.end == NEVER { access.start } else { access.end }).max().unwrap_or(NEVER);
    (from, to)
}

fn line(inner: &Inner, access: &Access) -> String {
    let who = inner.notes.binary_search_by_key(&access.start, |note| note.point).map(|at| inner.notes[at]);
    let who = match who {
        Ok(Note { connection, epoch, .. }) => format!("connection {}, epoch {epoch}", connection.0),
        Err(_) => "nobody known".to_owned(),
    };
    let what = match (access.kind, access.stamp) {
        (Kind::Write, Stamp::ZERO) => "trim".to_owned(),
        (Kind::Write, stamp) => format!("write {}", stamp.0),
        (Kind::Read, Stamp::ZERO) => "read of zeros".to_owned(),
        (Kind::Read, stamp) => format!("read of {}", stamp.0),
    };
    match access.end {
        NEVER => format!("{what} begins and is never acknowledged ({who})"),
        end => format!("{what} begins, ends at {end} ({who})"),
    }
}
