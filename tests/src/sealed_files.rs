//! Files that say what they are: a line with name, length and checksum, then that many bytes. Several threads write
//! them, each in a folder of its own, one after another, each file synced with its folder before the next is begun.
//!
//! Invariant per thread, whatever becomes of the filesystem: the files `1..=synced` are there and whole, and none
//! above `begun` is there.

use crate::wait_until;
use anyhow::{Context, Result, anyhow, ensure};
use ashlar_types::Crc32;
use std::{
    fs::{self, File},
    io::Write,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread::JoinHandle,
    time::Duration,
};

const PROGRESS_LIMIT: Duration = Duration::from_secs(120);
const FILE_BYTES_MAX: usize = 32 << 10;
/// A file is written in pieces of this, so that it can be met half done.
const PIECE_BYTES: usize = 6000;

#[derive(Default)]
struct Progress {
    begun: AtomicU64,
    synced: AtomicU64,
}

/// Threads at work; they end by themselves when the value is dropped.
pub struct FileLoad {
    progress: Arc<[Progress]>,
    stopping: Arc<AtomicBool>,
    threads: Vec<JoinHandle<Result<()>>>,
}

impl FileLoad {
    /// Makes the folder `dir` and so many folders in it.
    pub fn start(dir: &Path, threads: usize) -> Result<FileLoad> {
        let progress: Arc<[Progress]> = (0..threads).map(|_| Progress::default()).collect();
        let stopping = Arc::new(AtomicBool::new(false));
        for thread in 0..threads {
            fs::create_dir_all(folder(dir, thread)).context("make a folder for files")?;
        }
        for made in [dir, dir.parent().context("the folder is in another")?] {
            sync(made)?;
        }
        let spawned = (0..threads).map(|thread| {
            let (dir, progress, stopping) = (folder(dir, thread), progress.clone(), stopping.clone());
            std::thread::spawn(move || write_files(&dir, thread, &progress[thread], &stopping))
        });
        Ok(FileLoad { threads: spawned.collect(), progress, stopping })
    }

    /// The last file of each thread that was synced.
    pub fn synced(&self) -> Vec<u64> {
        self.progress.iter().map(|progress| progress.synced.load(Ordering::SeqCst)).collect()
    }

    /// The last file of each thread that was begun.
    pub fn begun(&self) -> Vec<u64> {
        self.progress.iter().map(|progress| progress.begun.load(Ordering::SeqCst)).collect()
    }

    /// Waits until each thread has synced so many more than now.
    pub fn wait_for_more(&self, files: u64) -> Result<()> {
        let from = self.synced();
        wait_until("files to be synced", PROGRESS_LIMIT, || {
            if self.synced().iter().zip(&from).all(|(now, before)| *now >= before + files) {
                return Ok(Some(Ok(())));
            }
            Ok(self.threads.iter().any(JoinHandle::is_finished).then(|| Err(anyhow!("a thread has ended"))))
        })
        .flatten()
    }

    /// Each thread ends after its present file; an error that one met is given now.
    pub fn stop(mut self) -> Result<Vec<u64>> {
        self.stopping.store(true, Ordering::SeqCst);
        for thread in self.threads.drain(..) {
            thread.join().expect("a thread that writes files does not panic").context("write files")?;
        }
        Ok(self.synced())
    }
}

impl Drop for FileLoad {
    fn drop(&mut self) {
        self.stopping.store(true, Ordering::SeqCst);
    }
}

/// Checks what [`FileLoad`] promises of its folder; gives the number of whole files that had to be there.
pub fn check_files(dir: &Path, synced: &[u64], begun: &[u64]) -> Result<u64> {
    for (thread, (&synced, &begun)) in synced.iter().zip(begun).enumerate() {
        let dir = folder(dir, thread);
        for number in 1..=synced {
            let path = dir.join(number.to_string());
            let bytes = fs::read(&path).with_context(|| format!("{} was synced", path.display()))?;
            ensure!(bytes == sealed(thread, number), "{} is not what was written to it", path.display());
            check_seal(&bytes).with_context(|| path.display().to_string())?;
        }
        for entry in fs::read_dir(&dir).context("list a folder of files")? {
            let name = entry?.file_name();
            let number: u64 = name.to_str().and_then(|name| name.parse().ok()).context("a file has a number")?;
            ensure!(number <= begun, "file {number} of thread {thread} is there, and {begun} was begun last");
        }
    }
    Ok(synced.iter().sum())
}

fn folder(dir: &Path, thread: usize) -> PathBuf {
    dir.join(format!("t{thread}"))
}

fn write_files(dir: &Path, thread: usize, progress: &Progress, stopping: &AtomicBool) -> Result<()> {
    for number in 1.. {
        if stopping.load(Ordering::SeqCst) {
            break;
        }
        progress.begun.store(number, Ordering::SeqCst);
        let mut file = File::create_new(dir.join(number.to_string())).context("make a file")?;
        for piece in sealed(thread, number).chunks(PIECE_BYTES) {
            file.write_all(piece).context("write to a file")?;
        }
        file.sync_all().context("sync a file")?;
        sync(dir)?;
        progress.synced.store(number, Ordering::SeqCst);
    }
    Ok(())
}

fn sync(dir: &Path) -> Result<()> {
    File::open(dir).and_then(|dir| dir.sync_all()).with_context(|| format!("sync {}", dir.display()))
}

/// The whole content of a file; its body follows from its number (splitmix64, Steele and others 2014).
fn sealed(thread: usize, number: u64) -> Vec<u8> {
    let mut state = (thread as u64) << 32 | number;
    let mut next = move || {
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    };
    let length = next() as usize % FILE_BYTES_MAX;
    let body: Vec<u8> = (0..length.div_ceil(8)).flat_map(|_| next().to_le_bytes()).take(length).collect();
    let head = format!("t{thread}/{number} {length} {:08x}\n", Crc32::of(&body).0);
    [head.as_bytes(), &body].concat()
}

/// What a file says of itself is true.
fn check_seal(bytes: &[u8]) -> Result<()> {
    let end = bytes.iter().position(|&byte| byte == b'\n').context("a file begins with a line")?;
    let head = std::str::from_utf8(&bytes[..end]).context("a file begins with a line of text")?;
    let body = &bytes[end + 1..];
    let said = format!("{} {:08x}", body.len(), Crc32::of(body).0);
    ensure!(head.ends_with(&said), "{head:?} is said, {said} is there");
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Three whole files of one thread.
    fn three_files() -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(folder(dir.path(), 0)).unwrap();
        for number in 1..=3 {
            fs::write(dir.path().join(format!("t0/{number}")), sealed(0, number)).unwrap();
        }
        dir
    }

    #[test]
    fn what_was_synced_must_be_there_and_whole() {
        let dir = three_files();
        assert_eq!(check_files(dir.path(), &[3], &[3]).unwrap(), 3);
        assert!(check_files(dir.path(), &[4], &[4]).is_err(), "a missing file");
        fs::write(dir.path().join("t0/2"), sealed(0, 3)).unwrap();
        assert!(check_files(dir.path(), &[3], &[3]).is_err(), "a file of another number");
        let whole = sealed(0, 2);
        fs::write(dir.path().join("t0/2"), &whole[..whole.len() - 1]).unwrap();
        assert!(check_files(dir.path(), &[3], &[3]).is_err(), "a torn file");
        assert!(check_seal(&whole).is_ok() && check_seal(&whole[..whole.len() - 1]).is_err());
    }

    #[test]
    fn nothing_may_be_there_that_was_begun_later() {
        let dir = three_files();
        fs::write(dir.path().join("t0/4"), b"half").unwrap();
        check_files(dir.path(), &[3], &[4]).unwrap();
        assert!(check_files(dir.path(), &[3], &[3]).is_err());
    }
}
