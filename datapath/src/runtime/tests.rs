//! Commands, on a real reactor, over a volume whose chunkservers are nowhere.

use super::*;
use crate::settings::Settings;
use ashlar_types::{ByteCount, ChangeAnswer, ChunkIndex, ChunkRun, ClusterId, Member, MemberState, VolumeRecord};

/// As granted, of a volume of one chunk on two disks.
pub(super) fn record(epoch: u32) -> VolumeRecord {
    let member = |disk: u128| Member {
        disk: DiskId::from_u128(disk),
        node: "a".parse().unwrap(),
        zone: None,
        state: MemberState::InSync,
    };
    VolumeRecord {
        cluster: ClusterId::from_u128(1),
        volume: VolumeId::from_u128(2),
        size: ByteCount(1 << 26),
        epoch: Epoch::new(epoch).unwrap(),
        version: u64::from(epoch) * 10,
        holder: None,
        served: Epoch::NONE,
        clean: true,
        min_replicas: 1,
        members: vec![member(3), member(4)],
        chunks: vec![ChunkRun { first: ChunkIndex(0), count: 1, members: vec![0, 1] }],
        declared_lost: vec![],
        snapshots: vec![],
        clones: Vec::new(),
        origin: None,
        last_change: None,
    }
}

fn runtime() -> (Runtime, mpsc::Receiver<Ask>) {
    let (asks_in, asks) = mpsc::channel(64);
    let reactor = Reactor::new(ReactorConfig::default()).unwrap();
    let node: ashlar_types::NodeName = "a".parse().unwrap();
    let core_config = ashlar_volume::Config::new(node.clone(), None);
    let (links, listeners) = (HashMap::new(), HashMap::new());
    let io = Io { reactor, companion: None, node, asks: Outbox::new(asks_in), links, listeners, gone: Vec::new() };
    let (commands, fuse_calls) = (mpsc::channel(1).1, sync_channel(1).1);
    (Runtime { io, commands, fuse_calls, volumes: BTreeMap::new(), core_config, metrics: Metrics::new() }, asks)
}

fn open(runtime: &mut Runtime, epoch: u32) -> oneshot::Receiver<Result<Epoch, OpenFailure>> {
    let (done, opened) = oneshot::channel();
    let (addresses, settings) = (Addresses::new(), Settings::default());
    let granted = Granted { record: record(epoch), addresses, io_timeout: None, settings };
    runtime.obey(Command::Open { granted, role: Role::Writer, done });
    opened
}

#[test]
fn a_volume_that_is_detached_can_be_attached_anew_in_the_same_turn() {
    let (mut runtime, mut asks) = runtime();
    let volume = record(1).volume;
    let _never_served = open(&mut runtime, 1);
    let (done, mut detached) = oneshot::channel();
    runtime.obey(Command::Detach { volume, done });
    let proposal = std::iter::from_fn(|| asks.try_recv().ok()).find_map(|ask| match ask {
        Ask::Propose { proposal, .. } => Some(proposal),
        _ => None,
    });
    let closed = VolumeRecord { version: 11, ..record(1) };
    let (epoch, answer) = (closed.epoch, ChangeAnswer::Applied { record: closed });
    let addresses = Addresses::new();
    runtime.obey(Command::Answered { volume, epoch, proposal: proposal.unwrap(), answer, addresses });
    assert_eq!(detached.try_recv(), Ok(Detached::Clean));

    let mut opened = open(&mut runtime, 2);
    assert!(opened.try_recv().is_err(), "it is neither refused nor forgotten");
    runtime.forget_gone();
    assert_eq!(runtime.volumes[&volume].epoch, record(2).epoch);
}

#[test]
fn who_is_told_of_a_newer_record_asks_for_it_though_it_has_just_asked() {
    let (mut runtime, mut asks) = runtime();
    let volume = record(1).volume;
    let mut questions = || {
        let asked = std::iter::from_fn(|| asks.try_recv().ok());
        asked.filter(|ask| matches!(ask, Ask::Record { volume: of } if *of == volume)).count()
    };
    let _never_served = open(&mut runtime, 1);
    assert_eq!(questions(), 1, "nobody knows where its disks are");
    for _ in 0..2 {
        runtime.obey(Command::Refresh { volume });
        assert_eq!(questions(), 1);
    }
}
