//! What is on a disk that no process uses. Nothing is changed: the journal is replayed in memory, as the next
//! start would replay it.

mod offline;
mod report;

use crate::Error;
use crate::config::InspectConfig;
use crate::disk::{Access, OpenDisk};
use ashlar_types::VolumeId;
use offline::Offline;
use report::{DiskReport, VolumeDigest};
use std::io::Write;

/// Writes the report on the disk to `out`.
pub fn inspect(config: &InspectConfig, out: &mut impl Write) -> Result<(), Error> {
    let disk = OpenDisk::open(&config.disk, None, Access::ReadOnly).map_err(|failure| failure.error)?;
    let path = config.disk.disk.clone();
    let (superblock, index_entries) = (disk.superblock, disk.rows.count());
    let mut offline = Offline::recover(disk)?;
    let report = DiskReport::new(&path, &superblock, index_entries, &offline, config.volume);
    if let Some(volume) = config.volume
        && report.replicas.is_empty()
    {
        return Err(Error::Inspect(format!("the disk has no replica of volume {volume}")));
    }
    let digest = match config.volume.filter(|_| config.digest) {
        Some(volume) => Some(digest_of(&mut offline, volume)?),
        None => None,
    };
    let written =
        if config.json { report.write_json(digest.as_ref(), out) } else { report.write_text(digest.as_ref(), out) };
    written.map_err(|source| Error::File { doing: "write the report on", path, source })
}

fn digest_of(offline: &mut Offline, volume: VolumeId) -> Result<VolumeDigest, Error> {
    let mut digest = VolumeDigest::new(volume);
    offline.each_block(volume, |block, content| digest.add(block, content))?;
    digest.finish();
    Ok(digest)
}
