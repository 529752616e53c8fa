//! A live chunkserver and peers that lie: spoiled, foreign, replayed and fenced frames get a clear refusal or a
//! closed link, never change a byte, and disturb nobody else.

use anyhow::{Context, Result, bail, ensure};
use ashlar_rpc::control::{Member, VolumeRecord};
use ashlar_tests::{NbdClient, Peer, Scene, StampedGuest, nbd_socket, on_cluster, on_cluster_with};
use ashlar_types::{BlockCount, BlockIndex, ChunkIndex, ChunkRange, Epoch, Lsn, SessionId, VolumeId};
use ashlar_wire::{BlockData, Open, Reply, Request, Status};
use std::sync::atomic::AtomicU64;

const GUEST_BLOCKS: usize = 8192;

struct Target {
    record: VolumeRecord,
    member: Member,
}

impl Target {
    fn of(scene: &Scene) -> Result<Target> {
        let record = scene.cluster.volume("v")?.record.context("a volume has a record")?;
        let member = record.members.iter().find(|member| member.node == "n2").context("a replica is on n2")?.clone();
        Ok(Target { record, member })
    }

    fn open(&self) -> Result<Open> {
        Peer::open(&self.record.cluster, &self.member.disk, &self.record.volume, self.record.size_bytes)
    }

    fn connect(&self, session: u64, epoch: u32) -> Result<Peer> {
        Peer::connect(&self.member.address, SessionId(session), Epoch::new(epoch).context("an epoch")?)
    }
}

fn one_block() -> ChunkRange {
    ChunkRange { chunk: ChunkIndex(0), start: BlockIndex(0), count: BlockCount(1) }
}

fn a_write(lsn: Lsn) -> Request {
    let blocks = BlockData::seal(vec![0xee; 4096].into());
    Request::Write { range: one_block(), lsn, floor: Lsn::ZERO, blocks }
}

fn status_of(reply: &Reply) -> Result<Status> {
    match reply {
        Reply::Refused(refusal) => Ok(refusal.status),
        other => bail!("not refused, but {other:?}"),
    }
}

/// With a guest at work on the volume before and after, `attack` must change nothing that it sees.
fn undisturbed(label: &str, attack: impl FnOnce(&Target) -> Result<()>) -> Result<()> {
    on_cluster(label, |scene| {
        scene.cluster.cli(&["volume", "create", "v", "--size", "64M", "--node", "n1"])?;
        // Twice, so that there is an epoch before the present one.
        scene.cluster.attach("v", "n1", "nbd")?;
        scene.cluster.detach("v")?;
        let mut client = NbdClient::connect(&nbd_socket(&scene.cluster.attach("v", "n1", "nbd")?)?)?;
        let mut guest = StampedGuest::new(GUEST_BLOCKS, 11);
        guest.write(&mut client, 100, &AtomicU64::new(0))?;
        let pid = scene.cluster.daemon("chunkserver-n2")?.pid;
        attack(&Target::of(scene)?)?;
        guest.write(&mut client, 100, &AtomicU64::new(0)).context("the guest goes on")?;
        guest.verify(&mut client)?;
        ensure!(scene.cluster.daemon("chunkserver-n2")?.pid == pid, "the chunkserver lives on");
        let compared: serde_json::Value = {
            client.close()?;
            scene.cluster.detach("v")?;
            scene.cluster.cli_json(&["volume", "compare", "v"])?
        };
        ensure!(compared["differing"] == 0 && compared["replicas"] == 3, "compared: {compared}");
        Ok(())
    })
}

#[test]
fn spoiled_frames_close_the_link_and_nothing_else() -> Result<()> {
    undisturbed("spoiled", |target| {
        let observe = Request::Observe(target.open()?);
        let whole = Peer::bytes(&target.connect(1, 0)?.frame(observe));
        let mut spoiled: Vec<(&str, Vec<u8>)> = vec![
            ("noise", (0..4096u32).map(|at| (at.wrapping_mul(2_654_435_761) >> 24) as u8).collect()),
            ("another magic", changed(&whole, 0)),
            ("another version", changed(&whole, 4)),
            ("an unknown opcode", changed(&whole, 5)),
            ("a length that is too large", changed(&whole, 11)),
            ("a bit of the header", changed(&whole, 20)),
            ("a bit of the body", changed(&whole, whole.len() - 1)),
        ];
        spoiled.extend((1..whole.len()).step_by(13).map(|length| ("a truncated frame", whole[..length].to_vec())));
        for (what, bytes) in spoiled {
            let mut peer = target.connect(1, 0)?;
            peer.send_raw(&bytes).with_context(|| what.to_owned())?;
            peer.finish_sending()?;
            let replies = peer.receive_to_the_end().with_context(|| format!("after {what} the link is closed"))?;
            ensure!(replies.iter().all(|reply| matches!(reply.message, Reply::Refused(_))), "{what}: {replies:?}");
        }
        Ok(())
    })
}

fn changed(bytes: &[u8], at: usize) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    bytes[at] ^= 0x10;
    bytes
}

#[test]
fn a_frame_before_any_session_and_a_stranger_are_refused() -> Result<()> {
    undisturbed("strangers", |target| {
        let mut peer = target.connect(2, target.record.epoch)?;
        let frame = peer.frame(a_write(Lsn::MAX));
        peer.send_raw(&Peer::bytes(&frame))?;
        let replies = peer.receive_to_the_end()?;
        ensure!(
            replies.iter().all(|reply| matches!(reply.message, Reply::Refused(_))),
            "a write comes first: {replies:?}"
        );

        let mut other_cluster = target.open()?;
        other_cluster.cluster = ashlar_types::ClusterId::from_u128(7);
        let reply = target.connect(3, target.record.epoch + 1)?.ask(Request::Open(other_cluster))?;
        ensure!(status_of(&reply)? == Status::WrongDisk, "another cluster: {reply:?}");

        let mut other_disk = target.open()?;
        other_disk.disk = ashlar_types::DiskId::from_u128(7);
        let reply = target.connect(4, target.record.epoch + 1)?.ask(Request::Open(other_disk))?;
        ensure!(status_of(&reply)? == Status::WrongDisk, "another disk: {reply:?}");
        Ok(())
    })
}

#[test]
fn a_writer_of_an_old_epoch_is_fenced() -> Result<()> {
    undisturbed("fenced", |target| {
        let old = target.record.epoch - 1;
        let reply = target.connect(5, old)?.ask(Request::Open(target.open()?))?;
        ensure!(status_of(&reply)? == Status::Fenced, "an old epoch opens: {reply:?}");
        let mut observer = target.connect(6, 0)?;
        let reply = observer.ask(Request::Observe(target.open()?))?;
        ensure!(matches!(reply, Reply::Opened(_)), "an observer is let in: {reply:?}");
        let reply = observer.ask(a_write(Lsn::MAX))?;
        ensure!(matches!(status_of(&reply)?, Status::Fenced | Status::BadRequest), "an observer writes: {reply:?}");
        Ok(())
    })
}

#[test]
fn replayed_frames_of_an_ended_session_are_refused() -> Result<()> {
    on_cluster("replay", |scene| {
        scene.cluster.cli(&["volume", "create", "v", "--size", "64M", "--node", "n1"])?;
        let target = Target::of(scene)?;
        // A whole session of epoch 1, recorded, on a volume that no datapath holds.
        let mut writer = target.connect(7, 1)?;
        let frames = [Request::Open(target.open()?), a_write(Lsn::start_of(Epoch::new(1).context("an epoch")?).next())];
        let recorded: Vec<Vec<u8>> = frames.into_iter().map(|message| Peer::bytes(&writer.frame(message))).collect();
        for bytes in &recorded {
            writer.send_raw(bytes)?;
            let reply = writer.receive()?.context("an answer")?;
            ensure!(!matches!(reply.message, Reply::Refused(_)), "{reply:?}");
        }
        let mut next = target.connect(8, 2)?;
        let reply = next.ask(Request::Open(target.open()?))?;
        ensure!(matches!(reply, Reply::Opened(_)), "{reply:?}");
        // The recording, played again under the next epoch: refused as a session, and its write alone as well.
        for bytes in [&recorded[..], &recorded[1..]] {
            let mut replayer = target.connect(7, 1)?;
            replayer.send_raw(&bytes.concat())?;
            replayer.finish_sending()?;
            let replies = replayer.receive_to_the_end()?;
            ensure!(replies.iter().all(|reply| matches!(reply.message, Reply::Refused(_))), "{replies:?}");
        }
        // The older session's own link is dead, too.
        writer.send_raw(&recorded[1]).ok();
        let replies = writer.receive_to_the_end()?;
        ensure!(replies.iter().all(|reply| matches!(reply.message, Reply::Refused(_))), "{replies:?}");
        Ok(())
    })
}

#[test]
fn a_full_disk_refuses_writes_before_it_takes_them_and_keeps_what_it_has() -> Result<()> {
    on_cluster_with("full", "512M", |scene| {
        scene.cluster.cli(&["volume", "create", "v", "--size", "64M", "--node", "n1"])?;
        let target = Target::of(scene)?;
        // A volume larger than the disk, of which only this peer knows.
        let volume = VolumeId::from_u128(0x5afe).to_string();
        let open = Peer::open(&target.record.cluster, &target.member.disk, &volume, 4 << 30)?;
        let mut writer = target.connect(9, 1)?;
        let reply = writer.ask(Request::Open(open))?;
        ensure!(matches!(reply, Reply::Opened(_)), "{reply:?}");
        let mut lsn = Lsn::start_of(Epoch::new(1).context("an epoch")?);
        let mut taken = 0;
        let refused = loop {
            lsn = lsn.next();
            match writer.ask(Request::Write { range: mebibyte(taken), lsn, floor: Lsn::ZERO, blocks: filled(taken) })? {
                Reply::Done => taken += 1,
                other => break other,
            }
            ensure!(taken <= 512, "a disk of 512 MiB took {taken} MiB");
        };
        ensure!(status_of(&refused)? == Status::NoSpace, "{refused:?}");
        ensure!(taken > 100, "a disk of 512 MiB took only {taken} MiB");
        for at in 0..taken {
            let reply = writer.ask(Request::Read { range: mebibyte(at), below: Lsn::MAX })?;
            ensure!(
                matches!(&reply, Reply::Data(blocks) if *blocks == filled(at)),
                "mebibyte {at} is as it was written"
            );
        }
        let beyond = writer.ask(Request::Read { range: mebibyte(taken), below: Lsn::MAX })?;
        let zeros = BlockData::seal(vec![0; 1 << 20].into());
        ensure!(matches!(&beyond, Reply::Data(blocks) if *blocks == zeros), "a refused write leaves nothing");
        Ok(())
    })
}

/// The n-th MiB of a volume.
fn mebibyte(number: u32) -> ChunkRange {
    let start = BlockIndex(u64::from(number % 64) * 256);
    ChunkRange { chunk: ChunkIndex(number / 64), start, count: BlockCount(256) }
}

fn filled(number: u32) -> BlockData {
    BlockData::seal(number.to_le_bytes().repeat((1 << 20) / 4).into())
}
