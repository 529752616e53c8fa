//! Messages of the control API and of CSI, as bytes, and the conversions into our own types. What converts survives
//! the way back and forth.
//!
//! ```text
//! | kind 1 | message |
//! ```

use crate::reach;
use ashlar_rpc::convert::{
    answer_from_proto, answer_to_proto, disks, proposal_from_proto, proposal_to_proto, record_from_proto,
    record_to_proto,
};
use ashlar_rpc::{control, csi};
use ashlar_types::Geometry;
use prost::Message;

pub(crate) fn run(input: &[u8]) {
    let [kind, bytes @ ..] = input else { return };
    match kind % 8 {
        0 => record(bytes),
        1 => proposal(bytes),
        2 => answer(bytes),
        3 => reencoded::<control::AttachVolumeRequest>(bytes),
        4 => reencoded::<control::HeartbeatRequest>(bytes),
        5 => reencoded::<control::CreateVolumeRequest>(bytes),
        6 => reencoded::<csi::CreateVolumeRequest>(bytes),
        _ => reencoded::<csi::NodeStageVolumeRequest>(bytes),
    }
}

fn record(bytes: &[u8]) {
    let Ok(message) = control::VolumeRecord::decode(bytes) else { return };
    let Ok(record) = record_from_proto(&message) else { return };
    reach::note("converted", &record);
    let chunks = Geometry::new(record.size).expect("the size was checked").chunk_count();
    assert_eq!(record.chunks.iter().map(|run| run.count).sum::<u32>(), chunks);
    // What the datapath asks of a record must not depend on who made it.
    for run in &record.chunks {
        assert_eq!(record.members_of(run.first), run.members);
    }
    assert!(record.members_of(ashlar_types::ChunkIndex(chunks)).is_empty());
    record.fewest_in_sync_without(&[]);
    let again = record_from_proto(&record_to_proto(&record, |_| String::new()));
    assert_eq!(again, Ok(record));
}

fn proposal(bytes: &[u8]) {
    let Ok(message) = control::Proposal::decode(bytes) else { return };
    let Ok((epoch, version, change)) = proposal_from_proto(&message) else { return };
    reach::note("change", &change);
    let again = proposal_to_proto(message.volume, epoch, version, &change);
    assert_eq!(proposal_from_proto(&again), Ok((epoch, version, change)));
}

fn answer(bytes: &[u8]) {
    let Ok(message) = control::ProposalAnswer::decode(bytes) else { return };
    let Ok(answer) = answer_from_proto(&message) else { return };
    reach::note("answer", &answer);
    assert_eq!(answer_from_proto(&answer_to_proto(&answer, |_| String::new())), Ok(answer));
}

/// What decodes decodes again from its own bytes, and is then the same.
fn reencoded<M: Message + Default + PartialEq + std::fmt::Debug>(bytes: &[u8]) {
    if let Ok(message) = M::decode(bytes) {
        reach::note("decoded", &message);
        let encoded = message.encode_to_vec();
        assert_eq!(M::decode(&encoded[..]), Ok(message));
    }
    if let Ok(text) = std::str::from_utf8(bytes) {
        let texts: Vec<String> = text.split('\n').map(str::to_owned).collect();
        if let Ok(disks) = disks(&texts) {
            let again: Vec<String> = disks.iter().map(ToString::to_string).collect();
            assert_eq!(self::disks(&again), Ok(disks));
        }
    }
}
