//! How long the planner thinks when one of 1,000 nodes is lost, with 1,000,000 chunks on them: in volumes of 1,024
//! chunks (64 GiB), and in volumes of 64 chunks (4 GiB), of which there are 16 times as many. Exit status 1 above the
//! bar.
//!
//! `cargo run --release -p ashlar-plan --example lost_node`

use ashlar_plan::placement::{Ask, Need, Offer, place_among};
use ashlar_plan::repair::{
    Bounds, Copied, DiskSeen, Fate, MemberSeen, NodeSeen, Plan, Planner, Seen, Step, VolumeSeen, Wish, candidates,
    surroundings,
};
use ashlar_types::{
    ByteCount, CHUNK_BYTES, ChunkIndex, ChunkRun, Class, DiskId, Duration, Instant, Lsn, MemberState, NodeName,
    VolumeId,
};
use std::process::ExitCode;

const NODES: u64 = 1_000;
const CHUNKS: u64 = 1_000_000;
const BAR: Duration = Duration::from_secs(2);

fn main() -> ExitCode {
    let mut holds = true;
    for chunks_per_volume in [1_024, 64] {
        let mut seen = cluster(chunks_per_volume);
        let mut planner = Planner::new(Bounds::default());
        let quiet = timed(&mut planner, &mut seen).0;
        lose(&mut seen, &node(7));
        let (mut longest, mut replaced) = (Duration::ZERO, 0);
        for _ in 0..70 {
            let (took, plan) = timed(&mut planner, &mut seen);
            longest = longest.max(took);
            replaced += carry_out(&mut seen, &plan);
        }
        println!(
            "{NODES} nodes, {CHUNKS} chunks, {} volumes: a quiet look {quiet:?}, the longest of 70 after the loss \
             {:.1} ms (bar {BAR:?}), {replaced} replicas replaced",
            seen.volumes.len(),
            longest.as_micros() as f64 / 1e3
        );
        holds &= longest <= BAR && replaced > 0;
    }
    if holds { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn timed(planner: &mut Planner, seen: &mut Seen) -> (Duration, Plan) {
    seen.now = seen.now + Duration::from_secs(1);
    let began = std::time::Instant::now();
    let plan = planner.plan(seen);
    (began.elapsed(), plan)
}

fn node(number: u64) -> NodeName {
    format!("node-{number:04}").parse().expect("a good name")
}

fn cluster(chunks_per_volume: u64) -> Seen {
    let known = NodeSeen { zone: None, is_silent: false, is_draining: false, may_attach: true, foreground: None };
    let disk = |number: u64| DiskSeen {
        node: node(number),
        capacity: ByteCount(8 * CHUNKS / NODES * CHUNK_BYTES),
        claimed: ByteCount(0),
        used: ByteCount(0),
        fate: Fate::Usable,
        busy_permille: 0,
    };
    let mut seen = Seen {
        now: Instant::ZERO,
        nodes: (0..NODES).map(|number| (node(number), known.clone())).collect(),
        disks: (0..NODES).map(|number| (DiskId::from_u128(number.into()), disk(number))).collect(),
        ..Seen::default()
    };
    let bounds = Bounds::default();
    let mut around = surroundings(&seen, bounds.partners_max);
    let mut disks = candidates(&seen, bounds.watermark_permille);
    let claim = chunks_per_volume * CHUNK_BYTES;
    for number in 0..CHUNKS / chunks_per_volume {
        let first_nodes = vec![node(number % NODES)];
        let ask = Ask { size: ByteCount(claim), replicas: 3, first_nodes, strict: false };
        let placed = place_among(&ask, &Need::default(), &disks, &around).expect("there is room");
        around.partners.add(&placed.iter().map(|(candidate, _)| &candidate.node).collect::<Vec<_>>());
        let chosen: Vec<DiskId> = placed.iter().map(|(candidate, _)| candidate.disk).collect();
        for candidate in disks.iter_mut().filter(|candidate| chosen.contains(&candidate.disk)) {
            if let Offer::Room(room) = &mut candidate.offer {
                room.0 -= claim;
            }
            seen.disks.get_mut(&candidate.disk).expect("it is one of them").claimed.0 += claim;
        }
        seen.volumes.insert(VolumeId::from_u128(number.into()), volume(&seen, number, claim, &chosen));
    }
    seen
}

fn volume(seen: &Seen, number: u64, claim: u64, disks: &[DiskId]) -> VolumeSeen {
    let member = |&disk: &DiskId| MemberSeen {
        disk,
        node: seen.disks[&disk].node.clone(),
        state: MemberState::InSync,
        copy: None,
    };
    VolumeSeen {
        class: Class::ALL[number as usize % 4],
        holder: None,
        claim: ByteCount(claim),
        replicas: 3,
        min_replicas: 2,
        wish: Wish::default(),
        is_read: false,
        buried: Vec::new(),
        is_flat: true,
        members: disks.iter().map(member).collect(),
        chunks: vec![ChunkRun { first: ChunkIndex(0), count: (claim / CHUNK_BYTES) as u32, members: vec![0, 1, 2] }],
    }
}

fn lose(seen: &mut Seen, lost: &NodeName) {
    seen.nodes.get_mut(lost).expect("it is one of them").is_silent = true;
    for member in seen.volumes.values_mut().flat_map(|volume| &mut volume.members) {
        if member.node == *lost {
            member.state = MemberState::Out { commit: Lsn::ZERO };
        }
    }
}

fn carry_out(seen: &mut Seen, plan: &Plan) -> usize {
    let mut replaced = 0;
    for step in &plan.steps {
        let node_of = |disk: &DiskId| seen.disks[disk].node.clone();
        match step {
            Step::Replace { volume, gone, with, .. } => {
                let on = node_of(with);
                let volume = seen.volumes.get_mut(volume).expect("it was seen");
                let copy = Some(Copied { done: ByteCount(0), total: volume.claim, rate: None });
                let state = MemberState::Syncing { commit: Lsn::ZERO };
                let from = volume.members.iter().position(|member| member.disk == *gone).expect("a member") as u16;
                let to = volume.members.len() as u16;
                volume.members.push(MemberSeen { disk: *with, node: on, state, copy });
                volume.chunks.iter_mut().flat_map(|run| &mut run.members).for_each(|index| {
                    if *index == from {
                        *index = to;
                    }
                });
                replaced += 1;
            }
            Step::Repair { volume, node, .. } => {
                let holder = ashlar_plan::repair::Holder { node: node.clone(), is_repair: true };
                seen.volumes.get_mut(volume).expect("it was seen").holder = Some(holder);
            }
            _ => {}
        }
    }
    replaced
}
