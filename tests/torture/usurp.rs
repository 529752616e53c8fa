//! The zombie writer: a datapath is stopped, cut off or killed, its volume is taken by force and attached elsewhere,
//! its guests go on asking it, and it comes back. From the moment at which the new writer serves, nothing that is begun
//! at the old one may be acknowledged, and its reads must be none or right.
//!
//! Cut off means, as in the directed schedules of the simulator: the old writer hears one replica only, and the new one
//! cannot reach that one.

use crate::arena::{NODES, Way};
use crate::fault::{Fault, datapath_and_control, wire};
use crate::rounds::Play;
use anyhow::{Context, Result};
use ashlar_tests::wait_until;
use std::time::Duration;

/// Three missed reports make a datapath silent; then leases are waited for.
const SERVES_LIMIT: Duration = Duration::from_secs(60);
const LAST_WORDS: u32 = 24;
const WRITES_UNDER_ZOMBIE: u64 = 40;
const ZOMBIE_LIMIT: Duration = Duration::from_secs(60);

pub fn play(play: &mut Play, round: u32) -> Result<String> {
    let at = play.rng.index(play.keepers.len());
    let old = play.keepers[at].node.clone();
    let others: Vec<&str> = NODES.into_iter().filter(|node| *node != old).collect();
    let new = *play.rng.pick(&others);
    let fault = draw(play, &old, new);
    let name = play.keepers[at].record.name.clone();
    // With a replica that is out still, the new writer might reach too few.
    play.in_sync(&name)?;
    let told = format!("usurp {name} from {old} to {new}, {fault}");
    play.note(round, "usurp volume", &told);
    play.strike(round, &fault)?;
    let is_killed = matches!(fault, Fault::Kill { .. });
    if !is_killed {
        let silent = || Ok((!play.api.hears_datapath(&old)?).then_some(()));
        wait_until("the old datapath to be silent", SERVES_LIMIT, silent)?;
    }
    let keeper = &mut play.keepers[at];
    let epoch = keeper.record.serving_epoch();
    keeper.usurp(new)?;
    let serves = || Ok((keeper.record.serving_epoch() > epoch).then_some(()));
    wait_until("the new writer to serve", SERVES_LIMIT, serves)
        .with_context(|| format!("{told}; the last trouble of its keeper: {}", keeper.trouble()))?;
    // Writes and reads that begin now, at a writer that does not know yet.
    keeper.zombies().iter().for_each(|zombie| zombie.speak(LAST_WORDS));
    more_writes(play, at)?;
    play.heal()?;
    more_writes(play, at)?;
    let zombies = std::mem::take(&mut *play.keepers[at].zombies());
    let refused = || Ok(zombies.iter().all(|zombie| zombie.has_ended()).then_some(()));
    wait_until("the old writer to refuse its guests", ZOMBIE_LIMIT, refused).context(told.clone())?;
    play.report.zombies += zombies.len() as u64;
    for zombie in zombies {
        // How it ended is no matter: all that it was told is in the record.
        let _ = zombie.hang_up();
    }
    Ok(told)
}

fn draw(play: &mut Play, old: &str, new: &str) -> Fault {
    let datapath = format!("datapath-{old}");
    match play.rng.below(5) {
        0 => Fault::Kill { daemon: datapath },
        1 | 2 => Fault::PauseLong { daemon: datapath, length: Duration::ZERO },
        _ => {
            let heard = *play.rng.pick(&NODES);
            let mut wires = datapath_and_control(&datapath);
            for node in NODES {
                let client = if node == heard { format!("datapath-{new}") } else { datapath.clone() };
                wires.push(wire(&client, &format!("chunkserver-{node}"), Way::Both));
            }
            Fault::Cut { what: "cut datapath off", wires, length: Duration::ZERO }
        }
    }
}

fn more_writes(play: &Play, at: usize) -> Result<()> {
    let record = &play.keepers[at].record;
    let enough = record.acknowledged_writes() + WRITES_UNDER_ZOMBIE;
    let more = || Ok((record.acknowledged_writes() >= enough).then_some(()));
    wait_until("writes at the new writer", SERVES_LIMIT, more)
}
