//! Writes that are really lost: while everything is down, all disks and the catalog are put back to an older state that
//! was whole in itself. No store can notice that by itself; the history must.

use crate::arena::ALL;
use crate::finish;
use crate::rounds::{Bound, Play};
use anyhow::{Context, Result, bail};
use ashlar_tests::run_ok;
use std::path::{Path, PathBuf};

/// Below the cluster's folder, where a state lies.
const STATE: [&str; 4] = ["control/catalog", "n1/disk", "n2/disk", "n3/disk"];

/// Ends well only if the loss is found.
pub fn play(play: &mut Play, bound: Bound) -> Result<()> {
    let dir = play.arena.cluster.dir().to_owned();
    let older = dir.parent().context("the cluster lies in a folder")?.join("older");
    play.arena.kill(ALL)?;
    copy(&dir, &older).context("copy the state")?;
    play.heal()?;
    play.rounds(bound)?;
    let records = play.dismiss()?;
    play.arena.kill(ALL)?;
    copy(&older, &dir).context("put the state back")?;
    play.heal()?;
    println!("sabotage: disks and catalog are as they were before the rounds");
    for record in &records {
        finish::read_all(play, record).with_context(|| format!("read all of {}", record.name))?;
    }
    match finish::check(&records) {
        Err(found) => println!("the loss is found: {found}"),
        Ok(()) => bail!("the checker is BLIND: writes were lost and it found nothing"),
    }
    Ok(())
}

fn copy(from: &Path, to: &Path) -> Result<()> {
    for part in STATE {
        let (from, to): (PathBuf, PathBuf) = (from.join(part), to.join(part));
        if to.exists() {
            std::fs::remove_dir_all(&to).with_context(|| format!("remove {}", to.display()))?;
        }
        std::fs::create_dir_all(to.parent().context("a part lies in a folder")?)?;
        run_ok("cp", [Path::new("--archive"), &from, &to])?;
    }
    Ok(())
}
