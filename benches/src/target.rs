//! What is measured: one local file, three local files, or a volume through NBD; all driven by the same loop over the
//! same reactor.

use crate::job::Access;
use crate::nbd::{self, Replies};
use anyhow::{Context, Result, bail};
use ashlar_reactor::{Completion, FileId, Framing, LinkId, Reactor};
use ashlar_types::{ByteCount, ByteOffset};
use bytes::Bytes;
use std::{
    fs::{File, OpenOptions},
    io::Write,
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
};

/// Every operation is one part, or one part for each file.
const PARTS_MAX: u64 = 4;

pub(crate) enum Target {
    /// Written in parallel, done when the last is; read from the first.
    Files(Vec<FileId>),
    /// One device, or several that take turns.
    Nbd(Vec<Device>),
}

pub(crate) struct Device {
    link: LinkId,
    replies: Replies,
}

impl Target {
    /// Files that are wholly written before they are measured: unwritten extents would double the cost of a durable
    /// write.
    pub(crate) fn files(reactor: &mut Reactor, dir: &Path, count: usize, bytes: u64) -> Result<Target> {
        let paths: Vec<PathBuf> = (0..count).map(|i| dir.join(format!("local-{count}-{i}"))).collect();
        let files = paths.iter().map(|path| Ok(reactor.add_file(prewritten(path, bytes)?)));
        Ok(Target::Files(files.collect::<Result<_>>()?))
    }

    pub(crate) fn nbd(reactor: &mut Reactor, socket: &Path) -> Result<Target> {
        Target::nbd_all(reactor, &[socket.to_owned()])
    }

    /// Operations go to the devices in turns.
    pub(crate) fn nbd_all(reactor: &mut Reactor, sockets: &[PathBuf]) -> Result<Target> {
        let connect = |socket: &PathBuf| {
            let socket = nbd::negotiate(socket)?;
            let link = reactor.adopt_socket(socket.into(), Framing::RawBytes).context("take over the socket")?;
            Ok(Device { link, replies: Replies::default() })
        };
        Ok(Target::Nbd(sockets.iter().map(connect).collect::<Result<_>>()?))
    }

    /// The NBD server of the same reactor that listens at the path, without a socket between.
    pub(crate) fn nbd_inner(reactor: &mut Reactor, socket: &Path) -> Result<Target> {
        let listener =
            reactor.listener_at(socket).with_context(|| format!("nobody listens at {}", socket.display()))?;
        let link = reactor.connect_inner(listener).context("connect within the process")?;
        reactor.send(link, [nbd::negotiation()]);
        Ok(Target::Nbd(vec![Device { link, replies: Replies::after_negotiation() }]))
    }

    /// Whether what comes on the link is its own.
    pub(crate) fn has_link(&self, link: LinkId) -> bool {
        matches!(self, Target::Nbd(devices) if devices.iter().any(|device| device.link == link))
    }

    /// Begins an operation; gives the number of answers that it takes.
    pub(crate) fn begin(
        &mut self,
        reactor: &mut Reactor,
        slot: usize,
        access: Access,
        offset: u64,
        data: &Bytes,
    ) -> usize {
        let bytes = data.len();
        match self {
            Target::Files(files) => {
                let concerned = if access == Access::Read { 1 } else { files.len() };
                for (part, &file) in files.iter().take(concerned).enumerate() {
                    let token = slot as u64 * PARTS_MAX + part as u64;
                    match access {
                        Access::Read => reactor.read(file, ByteOffset(offset), ByteCount(bytes as u64), token),
                        Access::Write => reactor.write(file, ByteOffset(offset), vec![data.clone()], true, token),
                    }
                }
                concerned
            }
            Target::Nbd(devices) => {
                let at = slot % devices.len();
                let Device { link, replies } = &mut devices[at];
                let head = nbd::request(access, slot as u64, offset, bytes as u32);
                if access == Access::Read {
                    replies.expect_data(slot as u64, bytes);
                    reactor.send(*link, [head]);
                } else {
                    reactor.send(*link, [head, data.clone()]);
                }
                1
            }
        }
    }

    /// Which operations a completion answers, one entry an answer.
    pub(crate) fn answers(&mut self, completion: Completion, done: &mut Vec<usize>) -> Result<()> {
        match (self, completion) {
            (Target::Files(_), Completion::Read { token, result }) => {
                result.context("read a local file")?;
                done.push((token / PARTS_MAX) as usize);
            }
            (Target::Files(_), Completion::Write { token, result }) => {
                result.context("write a local file")?;
                done.push((token / PARTS_MAX) as usize);
            }
            (Target::Nbd(devices), Completion::RawBytes { link, bytes }) => {
                let device = devices.iter_mut().find(|device| device.link == link).context("bytes of a known link")?;
                for cookie in device.replies.take(&bytes)? {
                    done.push(cookie as usize);
                }
            }
            (_, Completion::LinkDown { cause, .. }) => bail!("the NBD connection ended: {cause}"),
            _ => {}
        }
        Ok(())
    }

    pub(crate) fn close(self, reactor: &mut Reactor) {
        match self {
            Target::Files(files) => files.into_iter().for_each(|file| reactor.close_file(file)),
            Target::Nbd(devices) => devices.into_iter().for_each(|device| reactor.close(device.link)),
        }
    }
}

pub(crate) fn prewritten(path: &Path, bytes: u64) -> Result<File> {
    let mut file = OpenOptions::new().write(true).create(true).truncate(true).open(path)?;
    let block = vec![0x5A; 8 << 20];
    for _ in 0..bytes / block.len() as u64 {
        file.write_all(&block).with_context(|| format!("write {}", path.display()))?;
    }
    file.sync_all()?;
    let direct = OpenOptions::new().read(true).write(true).custom_flags(nix::libc::O_DIRECT).open(path);
    direct.with_context(|| format!("open {}", path.display()))
}
