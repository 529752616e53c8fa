//! The thread that commits to the indexes: a commit waits for the device, and the reactor's thread never does.
//!
//! Bounds: an engine has at most one commit outstanding, so at most one job and one answer per disk are queued;
//! both queues have a place for each, and no send ever waits.

use super::Index;
use crate::Error;
use ashlar_engine::{DiskError, IndexEdit, OpToken};
use ashlar_reactor::Waker;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::{self, JoinHandle};

/// One commit. `disk` counts the disks of the process.
#[derive(Debug)]
pub struct IndexJob {
    pub disk: usize,
    pub op: OpToken,
    pub edits: Vec<IndexEdit>,
}

/// How a commit ended.
#[derive(Debug)]
pub struct IndexDone {
    pub disk: usize,
    pub op: OpToken,
    pub result: Result<(), DiskError>,
}

/// The commits of all disks of a process. Dropping it ends the thread after the commit that it is at.
pub struct IndexWriter {
    /// `Some` until the drop.
    jobs: Option<SyncSender<IndexJob>>,
    done: Receiver<IndexDone>,
    thread: Option<JoinHandle<()>>,
}

impl IndexWriter {
    /// `indexes[disk]` takes the jobs of `disk`. `waker` is woken after every answer.
    pub fn start(indexes: Vec<Index>, waker: Waker) -> Result<IndexWriter, Error> {
        let bound = indexes.len().max(1);
        let (jobs, incoming) = sync_channel::<IndexJob>(bound);
        let (outgoing, done) = sync_channel(bound);
        let run = move || {
            for IndexJob { disk, op, edits } in incoming {
                let result = indexes[disk].commit(&edits).map_err(|error| DiskError { text: error.to_string() });
                if outgoing.send(IndexDone { disk, op, result }).is_err() {
                    return;
                }
                waker.wake();
            }
        };
        let thread = thread::Builder::new().name("index".to_owned()).spawn(run);
        let thread = thread.map_err(|source| Error::Thread { name: "index", source })?;
        Ok(IndexWriter { jobs: Some(jobs), done, thread: Some(thread) })
    }

    /// Hands over one commit. The engine of `job.disk` must have no other outstanding.
    pub fn commit(&self, job: IndexJob) {
        let jobs = self.jobs.as_ref().expect("taken by the drop only");
        jobs.try_send(job).expect("one commit per disk is outstanding, and the thread lives");
    }

    /// The next commit that ended.
    pub fn next_done(&self) -> Option<IndexDone> {
        self.done.try_recv().ok()
    }
}

impl Drop for IndexWriter {
    fn drop(&mut self) {
        self.jobs = None;
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("the index thread ended by a panic");
        }
    }
}
