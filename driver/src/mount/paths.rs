//! Paths that come in requests. All lie below the kubelet's directory, which is opened once and pinned; from there on
//! nothing is reached by a path that somebody could change meanwhile: no `..`, no symlink, no step outside, checked
//! by the kernel (openat2).
//!
//! A [`Place`] is a directory that is held open and a name in it. What is mounted, made or removed goes through
//! `/proc/self/fd/N/NAME`, so that a directory that is swapped for a symlink between check and use leads nowhere.

use super::error::MountError;
use nix::errno::Errno;
use nix::fcntl::{OFlag, OpenHow, ResolveFlag, openat2};
use nix::sys::stat::{FileStat, Mode, SFlag, fstat, mkdirat};
use nix::unistd::{UnlinkatFlags, unlinkat};
use std::ffi::{OsStr, OsString};
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::{Component, Path, PathBuf};

/// Longest path that is looked at.
const PATH_BYTES_MAX: usize = 4095;

/// The directory below which all staging and target paths lie.
#[derive(Debug)]
pub struct KubeletDir {
    /// As requests name it.
    named: PathBuf,
    /// As the kernel names it in the table of mounts: without symlinks.
    real: PathBuf,
    pinned: OwnedFd,
}

impl KubeletDir {
    pub fn open(dir: &Path) -> Result<KubeletDir, MountError> {
        let what = || format!("open the kubelet's directory {}", dir.display());
        let real = dir.canonicalize().map_err(MountError::io(what()))?;
        let pinned = openat2(nix::fcntl::AT_FDCWD, &real, OpenHow::new().flags(directory_flags()));
        let named = std::path::absolute(dir).map_err(MountError::io(what()))?;
        Ok(KubeletDir { named, real, pinned: pinned.map_err(MountError::io(what()))? })
    }

    /// Without symlinks, as in the table of mounts.
    pub fn real(&self) -> &Path {
        &self.real
    }

    /// The place that a request's field names. Its directory must exist; the name in it need not.
    pub fn place(&self, field: &'static str, text: &str) -> Result<Place, MountError> {
        let refuse = |reason: &str| MountError::Path {
            field,
            path: text.chars().take(256).collect(),
            reason: reason.to_owned(),
        };
        let below = self.below(text).map_err(refuse)?;
        let (Some(name), Some(parent)) = (below.file_name(), below.parent()) else {
            return Err(refuse("this is the kubelet's directory itself"));
        };
        let parent = if parent.as_os_str().is_empty() { Path::new(".") } else { parent };
        let real = self.real.join(&below);
        match openat2(&self.pinned, parent, how(directory_flags())) {
            Ok(directory) => Ok(Place { directory, name: name.to_owned(), real }),
            Err(Errno::ENOENT) => Err(MountError::Absent { path: real.parent().unwrap_or(&real).to_owned() }),
            Err(Errno::ELOOP | Errno::EXDEV) => Err(refuse("a symlink is on the way")),
            Err(Errno::ENOTDIR) => Err(refuse("what is on the way is not a directory")),
            Err(error) => Err(MountError::io(format!("open {}", real.display()))(error)),
        }
    }

    /// The part after the kubelet's directory, if the text is well-formed and has one.
    fn below(&self, text: &str) -> Result<PathBuf, &'static str> {
        if text.len() > PATH_BYTES_MAX {
            return Err("the path is too long");
        }
        if text.contains('\0') {
            return Err("the path contains a NUL");
        }
        let path = Path::new(text);
        if !path.is_absolute() {
            return Err("the path is not absolute");
        }
        // `components` hides `.`, so it is looked for in the text.
        let has_dots =
            path.components().any(|part| part == Component::ParentDir) || text.split('/').any(|part| part == ".");
        if has_dots {
            return Err("the path contains . or ..");
        }
        let below = path.strip_prefix(&self.named).or_else(|_| path.strip_prefix(&self.real));
        below.map(Path::to_owned).map_err(|_| "the path is not below the kubelet's directory")
    }
}

fn directory_flags() -> OFlag {
    OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC
}

fn how(flags: OFlag) -> OpenHow {
    let strict = ResolveFlag::RESOLVE_BENEATH | ResolveFlag::RESOLVE_NO_SYMLINKS | ResolveFlag::RESOLVE_NO_MAGICLINKS;
    OpenHow::new().flags(flags).resolve(strict)
}

/// A name in a directory that is held open.
#[derive(Debug)]
pub struct Place {
    directory: OwnedFd,
    name: OsString,
    real: PathBuf,
}

/// What is at a place, held open without being readable. While it lives, a mount on it cannot be unmounted.
#[derive(Debug)]
pub struct Opened {
    fd: OwnedFd,
    pub stat: FileStat,
}

impl Opened {
    /// A path for mount(2) that leads to exactly this.
    pub fn path(&self) -> PathBuf {
        PathBuf::from(format!("/proc/self/fd/{}", self.fd.as_raw_fd()))
    }

    pub fn fd(&self) -> &OwnedFd {
        &self.fd
    }

    pub fn kind(&self) -> SFlag {
        SFlag::from_bits_truncate(self.stat.st_mode) & SFlag::S_IFMT
    }

    pub fn is_dir(&self) -> bool {
        self.kind() == SFlag::S_IFDIR
    }
}

impl Place {
    /// Path as it stands in the table of mounts, and in messages.
    pub fn real(&self) -> &Path {
        &self.real
    }

    /// A path for umount2(2): the directory is pinned, the name is looked up once more and must not be followed if it
    /// is a symlink.
    pub fn path(&self) -> PathBuf {
        Path::new("/proc/self/fd").join(self.directory.as_raw_fd().to_string()).join(&self.name)
    }

    /// What is there; `None` if nothing is.
    pub fn open(&self) -> Result<Option<Opened>, MountError> {
        let what = || format!("open {}", self.real.display());
        let flags = OFlag::O_PATH | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        match openat2(&self.directory, self.name(), how(flags)) {
            Ok(fd) => {
                let stat = fstat(&fd).map_err(MountError::io(what()))?;
                let opened = Opened { fd, stat };
                if opened.kind() == SFlag::S_IFLNK {
                    let path = self.real.display().to_string();
                    return Err(MountError::Path { field: "path", path, reason: "this is a symlink".to_owned() });
                }
                Ok(Some(opened))
            }
            Err(Errno::ENOENT) => Ok(None),
            Err(error) => Err(MountError::io(what())(error)),
        }
    }

    /// The directory there, made if nothing is.
    pub fn open_or_make_dir(&self) -> Result<Opened, MountError> {
        match mkdirat(&self.directory, self.name(), Mode::from_bits_truncate(0o750)) {
            Ok(()) | Err(Errno::EEXIST) => {}
            Err(error) => return Err(MountError::io(format!("make directory {}", self.real.display()))(error)),
        }
        self.expect(SFlag::S_IFDIR, "a directory")
    }

    /// The regular file there, made empty if nothing is.
    pub fn open_or_make_file(&self) -> Result<Opened, MountError> {
        let flags = OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC | OFlag::O_WRONLY;
        let made = openat2(&self.directory, self.name(), how(flags).mode(Mode::from_bits_truncate(0o600)));
        match made {
            Ok(_) | Err(Errno::EEXIST) => {}
            Err(error) => return Err(MountError::io(format!("make file {}", self.real.display()))(error)),
        }
        self.expect(SFlag::S_IFREG, "a regular file")
    }

    fn expect(&self, kind: SFlag, what: &str) -> Result<Opened, MountError> {
        match self.open()? {
            Some(opened) if opened.kind() == kind => Ok(opened),
            Some(_) => Err(MountError::Occupied(format!("{} exists and is not {what}", self.real.display()))),
            None => Err(MountError::Absent { path: self.real.clone() }),
        }
    }

    /// Removes an empty directory or an empty file, and nothing else. Nothing there is fine.
    pub fn remove(&self) -> Result<(), MountError> {
        let Some(opened) = self.open()? else { return Ok(()) };
        let flags = match opened.kind() {
            SFlag::S_IFDIR => UnlinkatFlags::RemoveDir,
            SFlag::S_IFREG if opened.stat.st_size == 0 => UnlinkatFlags::NoRemoveDir,
            _ => {
                let text =
                    format!("{} is neither a directory nor an empty file: it is left alone", self.real.display());
                return Err(MountError::Occupied(text));
            }
        };
        drop(opened);
        match unlinkat(&self.directory, self.name(), flags) {
            Ok(()) | Err(Errno::ENOENT) => Ok(()),
            Err(Errno::ENOTEMPTY | Errno::EEXIST) => {
                Err(MountError::Occupied(format!("{} is not empty: it is left alone", self.real.display())))
            }
            Err(error) => Err(MountError::io(format!("remove {}", self.real.display()))(error)),
        }
    }

    fn name(&self) -> &OsStr {
        &self.name
    }
}

#[cfg(test)]
mod tests;
