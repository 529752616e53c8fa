//! The space of a volume, as `volume show` tells it.

use crate::output::{Sheet, Table, or_dash};
use crate::size::format_size;
use crate::view::Space;
use ashlar_types::ByteCount;

pub(super) fn lines(space: &Space, sheet: &mut Sheet) {
    let size = |bytes: u64| format_size(ByteCount(bytes));
    match (space.untold_chunks, space.used_bytes) {
        (0, used) => sheet.line("space", format!("{} on each of {} replicas", size(used), space.replicas)),
        (untold, 0) => sheet.line("space", format!("unknown: no replica tells of its {untold} chunks")),
        (untold, used) => {
            sheet.line("space", format!("{}, and {untold} chunks of which no replica tells", size(used)));
        }
    }
    if space.used_bytes > 0 {
        sheet.line("  unique", format!("{}, needed by the present alone", size(space.unique_bytes)));
        sheet.line("  shared", format!("{}, needed by the present and by snapshots", size(space.shared_bytes)));
        sheet.line("  snapshots", format!("{}, needed by snapshots alone", size(space.snapshots_bytes)));
    }
    if space.pending_bytes > 0 {
        sheet.line(
            "  pending",
            format!("{}, needed by nobody: comes back in the background", size(space.pending_bytes)),
        );
    }
    for fault in &space.faults {
        sheet.line("  no answer", fault);
    }
}

pub(super) fn snapshots(space: &Space) {
    let mut table = Table::new(["SNAPSHOT", "DELETING IT FREES", "ID"]);
    let size = |bytes: u64| format_size(ByteCount(bytes));
    for snapshot in &space.snapshots {
        let name = or_dash(snapshot.name.as_deref().unwrap_or_default());
        table.row([name, size(snapshot.freed_bytes), snapshot.id.clone()]);
    }
    if space.snapshots.len() > 1 {
        table.row(["(all of them)".to_owned(), size(space.freed_by_all_bytes), String::new()]);
    }
    table.print();
}
