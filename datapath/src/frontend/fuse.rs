//! A directory with one file, `volume`, that is the volume; a loop device on that file is the block device of kernels
//! without ublk.
//!
//! ```text
//!   /dev/loopN ─► loop driver (direct I/O) ─► FUSE ─► FUSE thread ─FuseCall─► I/O thread ─► volume
//!                                                         reply ◄──────────────┘
//! ```
//!
//! - Everything that names and attributes can be asked is answered on the FUSE thread; reads and changes go to the
//!   I/O thread, which answers them itself. The kernel bounds how many are under way ([`BACKGROUND_MAX`]).
//! - A reply that is dropped answers EIO (fuser does it), so no request is ever left without an answer.
//! - The page cache takes no part (`FOPEN_DIRECT_IO`): what the volume acknowledged is durable, and what it returns
//!   is checked.

mod file_size;

use crate::frontend::loopdev::{LoopDevice, LoopError};
use crate::guest::{GuestRequest, GuestResult};
use crate::runtime::RuntimeHandle;
use ashlar_types::{ByteCount, ByteOffset, Epoch, VolumeId};
use ashlar_volume::GuestError;
use bytes::Bytes;
use file_size::FileSize;
use fuser::{
    AccessFlags, BackgroundSession, Errno, FileAttr, FileHandle, FileType, Filesystem, FopenFlags, Generation, INodeNo,
    InitFlags, KernelConfig, LockOwner, MountOption, OpenAccMode, OpenFlags, ReplyAttr, ReplyData, ReplyDirectory,
    ReplyEmpty, ReplyEntry, ReplyLseek, ReplyOpen, ReplyStatfs, ReplyWrite, ReplyXattr, Request, TimeOrNow, WriteFlags,
};
use nix::errno::Errno as SystemErrno;
use nix::mount::{MntFlags, umount, umount2};
use std::ffi::OsStr;
use std::fs::{self, DirBuilder};
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// The one file.
const FILE_NAME: &str = "volume";
const DIRECTORY: INodeNo = INodeNo(1);
const FILE: INodeNo = INodeNo(2);
/// Names and attributes are asked for each time: the file grows with its volume. No read or write asks for them.
const TTL: Duration = Duration::ZERO;
const WRITE_BYTES_MAX: u32 = 1 << 20;
/// Requests that the kernel may have under way without anybody waiting for each: what the loop driver's direct I/O
/// uses.
const BACKGROUND_MAX: u16 = 128;
const _: () = assert!(BACKGROUND_MAX as usize <= crate::runtime::FUSE_CALLS_MAX);
/// Longest range of one punch or zero call.
const ZERO_BYTES_MAX: u64 = 1 << 40;
/// Two, so that copying one request out of the kernel does not hold up the next.
const THREADS: usize = 2;
/// How long taking down waits for something that has the file or the device open for a moment (udev looks at every
/// new device).
const BUSY_TRIES: u32 = 40;
const BUSY_PAUSE: Duration = Duration::from_millis(50);

/// A request of the kernel for the I/O thread. It is for one attachment: a device that was taken away by force and is
/// mounted still must not reach the next one.
pub(crate) struct FuseCall {
    pub(crate) volume: VolumeId,
    pub(crate) epoch: Epoch,
    pub(crate) request: GuestRequest,
    pub(crate) reply: FuseReply,
}

/// Where the answer goes.
pub(crate) enum FuseReply {
    Data(ReplyData),
    Written(ReplyWrite, u32),
    Done(ReplyEmpty),
}

impl FuseReply {
    pub(crate) fn answer(self, result: GuestResult) {
        match (self, result) {
            (FuseReply::Data(reply), Ok(data)) => reply.data(&data),
            (FuseReply::Written(reply, bytes), Ok(_)) => reply.written(bytes),
            (FuseReply::Done(reply), Ok(_)) => reply.ok(),
            (FuseReply::Data(reply), Err(error)) => reply.error(errno_of(error)),
            (FuseReply::Written(reply, _), Err(error)) => reply.error(errno_of(error)),
            (FuseReply::Done(reply), Err(error)) => reply.error(errno_of(error)),
        }
    }
}

fn errno_of(error: GuestError) -> Errno {
    match error {
        GuestError::NoSpace => Errno::ENOSPC,
        GuestError::OutOfRange => Errno::EINVAL,
        GuestError::ReadOnly => Errno::EROFS,
        GuestError::Fenced | GuestError::Lost | GuestError::Closed | GuestError::TimedOut => Errno::EIO,
    }
}

#[derive(Debug, thiserror::Error)]
pub(crate) enum FuseError {
    #[error("make the mount point {}", path.display())]
    MountPoint { path: PathBuf, source: io::Error },
    #[error("mount FUSE at {}", path.display())]
    Mount { path: PathBuf, source: io::Error },
    #[error(transparent)]
    Loop(#[from] LoopError),
    #[error("{} is in use: it is mounted, or opened exclusively", .0.display())]
    InUse(PathBuf),
    #[error("unmount {}", path.display())]
    Unmount { path: PathBuf, source: io::Error },
}

/// A volume's file system with the loop device on it.
pub(crate) struct FuseLoop {
    /// None once it is detached.
    device: Option<LoopDevice>,
    /// None once it is unmounted.
    session: Option<BackgroundSession>,
    size: Arc<FileSize>,
    mount_point: PathBuf,
}

impl FuseLoop {
    /// Mounts and attaches; the volume must serve already. Blocks: the kernel reads from the new device before this
    /// returns.
    pub(crate) fn bring_up(
        runtime: RuntimeHandle,
        attachment: (VolumeId, Epoch),
        size: ByteCount,
        read_only: bool,
        mount_point: &Path,
    ) -> Result<FuseLoop, FuseError> {
        let make = DirBuilder::new().recursive(true).mode(0o700).create(mount_point);
        make.map_err(|source| FuseError::MountPoint { path: mount_point.to_owned(), source })?;
        let mut options = fuser::Config::default();
        options.mount_options = vec![
            MountOption::FSName("ashlar".to_owned()),
            MountOption::Subtype("ashlar".to_owned()),
            MountOption::NoDev,
            MountOption::NoSuid,
            MountOption::NoExec,
            MountOption::NoAtime,
        ];
        options.n_threads = Some(THREADS);
        let file_size = Arc::new(FileSize::new(size));
        let files = VolumeFiles { runtime, attachment, size: file_size.clone(), read_only, since: SystemTime::now() };
        let session = fuser::spawn_mount(files, mount_point, &options)
            .map_err(|source| FuseError::Mount { path: mount_point.to_owned(), source })?;
        let mut fuse_loop =
            FuseLoop { device: None, session: Some(session), size: file_size, mount_point: mount_point.to_owned() };
        match LoopDevice::attach(&mount_point.join(FILE_NAME), size, read_only) {
            Ok(device) => {
                fuse_loop.device = Some(device);
                Ok(fuse_loop)
            }
            Err(error) => {
                if let Err(error) = fuse_loop.unmount() {
                    tracing::warn!(error = &error as &dyn std::error::Error, "unmount after a loop device failed");
                }
                Err(error.into())
            }
        }
    }

    /// Shows the volume's new size, first on the file, then on the device on it. The volume must have it already.
    /// Blocks.
    pub(crate) fn grow(&self, size: ByteCount) -> Result<(), FuseError> {
        self.size.grow(size);
        match &self.device {
            Some(device) => Ok(device.grow(size)?),
            None => Ok(()),
        }
    }

    pub(crate) fn device_path(&self) -> &Path {
        self.device.as_ref().expect("a front-end that is up has its device").path()
    }

    pub(crate) fn has_device(&self) -> bool {
        self.device.as_ref().is_some_and(LoopDevice::is_attached)
    }

    /// Refuses while somebody uses the device: a mount, another device, an exclusive open.
    pub(crate) fn check_unused(&self) -> Result<(), FuseError> {
        match &self.device {
            Some(device) if device.is_in_use()? => Err(FuseError::InUse(device.path().to_owned())),
            _ => Ok(()),
        }
    }

    /// Detaches the device and unmounts; goes on from where it failed before. Blocks.
    pub(crate) fn take_down(&mut self) -> Result<(), FuseError> {
        if let Some(device) = &self.device {
            device.detach()?;
            self.device = None;
        }
        self.unmount()
    }

    /// Lets go of a device that is in use: it vanishes by itself when its last user is gone, and answers with errors
    /// until then.
    pub(crate) fn abandon(self) {
        if let Some(device) = &self.device
            && let Err(error) = device.detach_when_unused()
        {
            tracing::warn!(device = %device.path().display(), %error, "let go of a loop device");
        }
        if let Err(error) = umount2(&self.mount_point, MntFlags::MNT_DETACH) {
            tracing::warn!(path = %self.mount_point.display(), %error, "detach a FUSE mount");
        }
        remove_mount_point(&self.mount_point);
    }

    fn unmount(&mut self) -> Result<(), FuseError> {
        if self.session.is_none() {
            return Ok(());
        }
        self.try_unmount()?;
        // The file system is unmounted, so its threads end.
        if let Some(Err(error)) = self.session.take().map(BackgroundSession::join) {
            tracing::warn!(%error, "end a FUSE session");
        }
        remove_mount_point(&self.mount_point);
        Ok(())
    }

    fn try_unmount(&self) -> Result<(), FuseError> {
        let mut tries = 0;
        loop {
            match umount(&self.mount_point) {
                Ok(()) => return Ok(()),
                Err(SystemErrno::EBUSY) if tries < BUSY_TRIES => {
                    tries += 1;
                    thread::sleep(BUSY_PAUSE);
                }
                Err(errno) => {
                    return Err(FuseError::Unmount { path: self.mount_point.clone(), source: errno.into() });
                }
            }
        }
    }
}

fn remove_mount_point(path: &Path) {
    if let Err(error) = fs::remove_dir(path) {
        tracing::warn!(path = %path.display(), %error, "remove a mount point");
    }
}

/// What the kernel sees.
struct VolumeFiles {
    runtime: RuntimeHandle,
    attachment: (VolumeId, Epoch),
    size: Arc<FileSize>,
    read_only: bool,
    since: SystemTime,
}

impl VolumeFiles {
    fn attributes(&self, inode: INodeNo) -> Option<FileAttr> {
        let (kind, size, perm) = match inode {
            DIRECTORY => (FileType::Directory, 0, 0o700),
            FILE => (FileType::RegularFile, self.size.bytes(), if self.read_only { 0o400 } else { 0o600 }),
            _ => return None,
        };
        Some(FileAttr {
            ino: inode,
            size,
            blocks: size / 512,
            atime: self.since,
            mtime: self.since,
            ctime: self.since,
            crtime: UNIX_EPOCH,
            kind,
            perm,
            nlink: 1,
            uid: nix::unistd::geteuid().as_raw(),
            gid: nix::unistd::getegid().as_raw(),
            rdev: 0,
            blksize: ashlar_types::BLOCK_BYTES as u32,
            flags: 0,
        })
    }

    fn call(&self, request: GuestRequest, reply: FuseReply) {
        // If the I/O thread has ended, the call is dropped here, and its reply with it: EIO.
        let (volume, epoch) = self.attachment;
        if let Err(error) = self.runtime.call(FuseCall { volume, epoch, request, reply }) {
            tracing::debug!(%error, "a FUSE request is answered with EIO");
        }
    }

    /// Whether a change may be made to the range.
    fn check_change(&self, inode: INodeNo, offset: u64, bytes: u64) -> Result<(), Errno> {
        if inode != FILE {
            return Err(Errno::EISDIR);
        }
        if self.read_only {
            return Err(Errno::EROFS);
        }
        // The size is the volume's: a file cannot be made longer by writing.
        if offset.checked_add(bytes).is_none_or(|end| end > self.size.bytes()) {
            return Err(Errno::EFBIG);
        }
        Ok(())
    }
}

impl Filesystem for VolumeFiles {
    fn init(&mut self, _: &Request, config: &mut KernelConfig) -> io::Result<()> {
        // A kernel that does not know one of these is slower, not wrong.
        for wish in [InitFlags::FUSE_ASYNC_DIO, InitFlags::FUSE_BIG_WRITES, InitFlags::FUSE_PARALLEL_DIROPS] {
            if let Err(unsupported) = config.add_capabilities(wish) {
                tracing::debug!(?unsupported, "the kernel's FUSE lacks a capability");
            }
        }
        let bounds = [
            config.set_max_write(WRITE_BYTES_MAX).map(|_| ()),
            config.set_max_background(BACKGROUND_MAX).map(|_| ()).map_err(u32::from),
        ];
        for bound in bounds {
            bound.map_err(|nearest| io::Error::other(format!("FUSE allows a bound of {nearest} at most")))?;
        }
        Ok(())
    }

    fn lookup(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        match self.attributes(FILE) {
            Some(attributes) if parent == DIRECTORY && name == FILE_NAME => {
                reply.entry(&TTL, &attributes, Generation(0))
            }
            _ => reply.error(Errno::ENOENT),
        }
    }

    fn getattr(&self, _: &Request, inode: INodeNo, _: Option<FileHandle>, reply: ReplyAttr) {
        match self.attributes(inode) {
            Some(attributes) => reply.attr(&TTL, &attributes),
            None => reply.error(Errno::ENOENT),
        }
    }

    fn setattr(
        &self,
        _: &Request,
        inode: INodeNo,
        mode: Option<u32>,
        uid: Option<u32>,
        gid: Option<u32>,
        size: Option<u64>,
        _: Option<TimeOrNow>,
        _: Option<TimeOrNow>,
        _: Option<SystemTime>,
        _: Option<FileHandle>,
        _: Option<SystemTime>,
        _: Option<SystemTime>,
        _: Option<SystemTime>,
        _: Option<fuser::BsdFileFlags>,
        reply: ReplyAttr,
    ) {
        let keeps_size = size.is_none_or(|size| inode == FILE && size == self.size.bytes());
        match self.attributes(inode) {
            // Times are accepted and not kept: nobody relies on those of a device's file.
            Some(attributes) if keeps_size && mode.is_none() && uid.is_none() && gid.is_none() => {
                reply.attr(&TTL, &attributes);
            }
            Some(_) => reply.error(Errno::EPERM),
            None => reply.error(Errno::ENOENT),
        }
    }

    fn open(&self, _: &Request, inode: INodeNo, flags: OpenFlags, reply: ReplyOpen) {
        if inode != FILE {
            reply.error(Errno::EISDIR);
        } else if self.read_only && flags.acc_mode() != OpenAccMode::O_RDONLY {
            reply.error(Errno::EROFS);
        } else {
            // Without the second flag the kernel would let one write at a time through.
            reply.opened(FileHandle(0), FopenFlags::FOPEN_DIRECT_IO | FopenFlags::FOPEN_PARALLEL_DIRECT_WRITES);
        }
    }

    fn read(
        &self,
        _: &Request,
        inode: INodeNo,
        _: FileHandle,
        offset: u64,
        size: u32,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyData,
    ) {
        let bytes = u64::from(size).min(self.size.bytes().saturating_sub(offset));
        if inode != FILE {
            reply.error(Errno::EISDIR);
        } else if bytes == 0 {
            reply.data(&[]);
        } else {
            let request = GuestRequest::Read { offset: ByteOffset(offset), bytes: ByteCount(bytes) };
            self.call(request, FuseReply::Data(reply));
        }
    }

    fn write(
        &self,
        _: &Request,
        inode: INodeNo,
        _: FileHandle,
        offset: u64,
        data: &[u8],
        _: WriteFlags,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyWrite,
    ) {
        match self.check_change(inode, offset, data.len() as u64) {
            Ok(()) if data.is_empty() => reply.written(0),
            Ok(()) => {
                let request = GuestRequest::Write { offset: ByteOffset(offset), data: Bytes::copy_from_slice(data) };
                self.call(request, FuseReply::Written(reply, data.len() as u32));
            }
            Err(errno) => reply.error(errno),
        }
    }

    fn fallocate(
        &self,
        _: &Request,
        inode: INodeNo,
        _: FileHandle,
        offset: u64,
        length: u64,
        mode: i32,
        reply: ReplyEmpty,
    ) {
        let kind = mode & !libc::FALLOC_FL_KEEP_SIZE;
        match self.check_change(inode, offset, length) {
            // All space is the volume's from the beginning.
            Ok(()) if kind == 0 => reply.ok(),
            Ok(()) if kind != libc::FALLOC_FL_PUNCH_HOLE && kind != libc::FALLOC_FL_ZERO_RANGE => {
                reply.error(Errno::EOPNOTSUPP);
            }
            Ok(()) if length == 0 || length > ZERO_BYTES_MAX => reply.error(Errno::EINVAL),
            Ok(()) => {
                let request = GuestRequest::Zero { offset: ByteOffset(offset), bytes: ByteCount(length) };
                self.call(request, FuseReply::Done(reply));
            }
            Err(errno) => reply.error(errno),
        }
    }

    fn fsync(&self, _: &Request, _: INodeNo, _: FileHandle, _: bool, reply: ReplyEmpty) {
        self.call(GuestRequest::Flush, FuseReply::Done(reply));
    }

    fn flush(&self, _: &Request, _: INodeNo, _: FileHandle, _: LockOwner, reply: ReplyEmpty) {
        reply.ok();
    }

    fn readdir(&self, _: &Request, inode: INodeNo, _: FileHandle, offset: u64, mut reply: ReplyDirectory) {
        if inode != DIRECTORY {
            return reply.error(Errno::ENOTDIR);
        }
        let entries = [
            (DIRECTORY, FileType::Directory, "."),
            (DIRECTORY, FileType::Directory, ".."),
            (FILE, FileType::RegularFile, FILE_NAME),
        ];
        for (i, (inode, kind, name)) in entries.into_iter().enumerate().skip(offset as usize) {
            if reply.add(inode, i as u64 + 1, kind, name) {
                break;
            }
        }
        reply.ok();
    }

    /// "Not implemented" makes the kernel ask once and never again: here and below.
    fn getxattr(&self, _: &Request, _: INodeNo, _: &OsStr, _: u32, reply: ReplyXattr) {
        reply.error(Errno::ENOSYS);
    }

    fn access(&self, _: &Request, _: INodeNo, _: AccessFlags, reply: ReplyEmpty) {
        reply.error(Errno::ENOSYS);
    }

    fn lseek(&self, _: &Request, _: INodeNo, _: FileHandle, _: i64, _: i32, reply: ReplyLseek) {
        reply.error(Errno::ENOSYS);
    }

    fn statfs(&self, _: &Request, _: INodeNo, reply: ReplyStatfs) {
        let block = ashlar_types::BLOCK_BYTES;
        reply.statfs(self.size.bytes() / block, 0, 0, 1, 0, block as u32, FILE_NAME.len() as u32, block as u32);
    }
}
