//! Deliberate bugs, one flag each, that show whether the simulator would find their like. Each stands where the real
//! bug would be, as one short condition on [`Mutant::is_on`].
//!
//! Without the feature `mutants` that is a constant `false`, and the compiler leaves nothing of it. Only the program
//! `ashlar-sim-mutants` turns the feature on, and one mutant at a time.

macro_rules! mutants {
    ($($(#[$doc:meta])* $variant:ident $name:literal $bug:literal,)*) => {
        /// One deliberate bug.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        #[repr(u8)]
        pub enum Mutant {
            $(#[doc = $bug] $(#[$doc])* $variant,)*
        }

        impl Mutant {
            /// Every one, in the order of the protocol: write, read, fence, reconcile, return, catalog, disk.
            pub const ALL: &[Mutant] = &[$(Mutant::$variant,)*];

            /// Its name on the command line and in tables.
            pub const fn name(self) -> &'static str {
                match self { $(Mutant::$variant => $name,)* }
            }

            /// What it does wrong.
            pub const fn bug(self) -> &'static str {
                match self { $(Mutant::$variant => $bug,)* }
            }

            /// The variant's identifier in the sources.
            pub const fn identifier(self) -> &'static str {
                match self { $(Mutant::$variant => stringify!($variant),)* }
            }
        }
    };
}

mutants! {
    /// P1.
    AckBeforeLastReplica "ack-before-last-replica" "a write is acknowledged while one in-sync replica is not durable",
    /// Eject: writes that miss a disk wait for the catalog's yes.
    AckBeforeEjectionKnown "ack-before-ejection-known"
        "a write is acknowledged without a replica whose ejection is only proposed",
    /// Retry: sent again in lsn order.
    ResendNewestFirst "resend-newest-first" "unanswered writes go again on a new session newest first",
    /// Writes of a chunk travel in lsn order.
    SmallOvertakesLarge "small-overtakes-large" "a small write overtakes a large one in the chunkserver's queue",
    /// P4: an lsn names one write.
    LsnReused "lsn-reused" "a new writer counts on from the start of the epoch before its own",
    /// P4.
    ReadNotHeldBehindWrite "read-not-held-behind-write"
        "a read does not wait for the write of its blocks that is in flight",
    /// P4.
    WriteNotHeldBehindRead "write-not-held-behind-read"
        "a write does not wait for the read of its blocks that is in flight",
    /// Lease: a read completes only under unexpired leases.
    LeaseIgnored "lease-ignored" "reads complete without leases",
    /// Lease: dated from when the request was sent.
    LeaseFromReply "lease-from-reply" "a lease is dated from the reply instead of the request",
    /// Leave before publish.
    ReadsWhileEjectionUnknown "reads-while-ejection-unknown"
        "a replica is read while its ejection is proposed and not answered",
    /// P4: only in-sync replicas are read.
    OutServesReads "out-serves-reads" "a replica that is out is read",
    /// P5.
    BitFlipReturned "bit-flip-returned" "no checksum is compared on the way from the disk to the reader",
    /// Fence: the wait covers leases of older writers.
    NoLeaseWait "no-lease-wait" "the fence ejects who did not promise without waiting for old leases to end",
    /// Fence: first the wait, then the ejection.
    EjectBeforeLeaseWait "eject-before-lease-wait" "the fence ejects first and waits for old leases afterwards",
    /// Reconcile after every unclean end.
    ReconcileSkipped "reconcile-skipped" "nothing is made equal after an unclean end",
    /// Reconcile: only complete replicas count.
    CutOffReconcileComplete "cut-off-reconcile-complete"
        "a replica whose reconcile was cut off is taken for complete",
    /// Reconcile: every attempt asks anew.
    OldReportsReused "old-reports-reused" "a reconcile that begins again uses the reports of the attempt before",
    /// Return, step 3.
    ListBeforeOlderWrites "list-before-older-writes"
        "the source of a return lists before writes in flight have come to it, and they are not sent to the target",
    /// Return, step 2.
    ReturnMissesNewWrites "return-misses-new-writes"
        "a returning disk gets new writes only once everything is copied",
    /// Becoming in-sync: the joint phase.
    JoinWithoutJointPhase "join-without-joint-phase" "in-sync is recorded before the writer waits for the disk",
    /// Becoming in-sync: the disk says durably that it is complete.
    JoinBeforeFinishDurable "join-before-finish-durable"
        "in-sync is proposed before the disk has said durably that it is complete",
    /// Copies carry the source's stamps.
    CopyLosesStamp "copy-loses-stamp" "a copy does not carry the source's stamp",
    /// C1: compare-and-swap on the version.
    CatalogComparesNoVersion "catalog-compares-no-version" "a late proposal is applied to a record that has moved on",
    /// Epochs are never reused.
    EpochReused "epoch-reused" "an attach on the node that holds the volume gets the epoch that was granted before",
    /// Fence: every lower epoch is refused.
    OpenComparesNoEpoch "open-compares-no-epoch" "a chunkserver lets a writer of a lower epoch open a session",
    /// Fence: a fenced writer gets no data.
    ReadComparesNoEpoch "read-compares-no-epoch" "a fenced writer's session goes on serving reads",
    /// One session.
    OlderSessionNotEnded "older-session-not-ended" "a new session of a volume leaves the older one alive",
    /// Fence: durable before answering.
    PromiseNotDurable "promise-not-durable" "a promise is forgotten in a crash",
    /// Fence: answered from durable state only.
    OpenFromVolatileState "open-from-volatile-state"
        "an open is answered before the promise and what came before it are durable",
    /// Persist, then publish.
    JournalNotDurable "journal-not-durable" "the journal is written without a flush",
    /// Apply, flush, commit, trim.
    TrimBeforeFlush "trim-before-flush" "the journal is trimmed before the data in place is flushed",
    /// Persist, then publish.
    ReachNotDurable "reach-not-durable" "the journal goes on before the index says how far it may",
    /// Apply, flush, commit, trim.
    CheckpointAheadOfData "checkpoint-ahead-of-data" "a checkpoint covers a batch whose data is not in place",
    /// One mechanism: the slots' stamps say what changed.
    StampsNotDurable "stamps-not-durable" "a checkpoint forgets which write a slot was changed by",
    /// Torn batches end the replay.
    TornBatchAccepted "torn-batch-accepted"
        "replay takes the newest batch without looking at its payload's checksums",
    /// A crash is not corruption.
    CorruptionAsTornTail "corruption-as-torn-tail"
        "damage below the durable mark is cut off as if it were a torn tail",
    /// Replay leaves the same state however often it is cut off.
    ReplayWorksOnce "replay-works-once" "recovery moves the journal's start before what it replayed is in place",
    /// P1: a discard is a write.
    DiscardNotReplayed "discard-not-replayed" "replay of a discard leaves the old data where it was",
    /// Stale marks are durable.
    StaleMarksNotDurable "stale-marks-not-durable"
        "stale marks, and that a chunk is incomplete, are forgotten in a crash",
    /// Return, step 3: the disk's own tail is stale too.
    OwnTailNotStale "own-tail-not-stale" "a returning disk keeps its own unacknowledged tail",
    /// Copies fill stale blocks, never fresh ones.
    FillsFreshBlocks "fills-fresh-blocks" "a copy fills blocks that were written since the return began",
    /// A failed flush ends the disk's life.
    FlushRetried "flush-retried" "a flush that failed is tried again, and its success believed",
    /// A failed write ends the disk's life.
    JournalErrorIgnored "journal-error-ignored" "a journal write that failed counts as done",
    /// Disk full: refused before the journal takes the write.
    DiskFullHalfWrite "disk-full-half-write"
        "a write that finds too little space is journalled as far as it goes, and refused",
    /// Disk full: no later write before the refused one.
    RefusedWriteOvertaken "refused-write-overtaken"
        "writes after one that was refused for want of space are taken before its retry",
    /// What a clone shows outlives the source's snapshots.
    MergeIgnoresClones "merge-ignores-clones" "versions are merged across the point that a clone on the disk reads by",
    /// A source's replica goes with the last clone that reads it.
    DeleteIgnoresClones "delete-ignores-clones" "deleting a source takes away what clones on the disk read",
    /// Persist, then publish.
    CloneForgetsBase "clone-forgets-base" "a checkpoint forgets of a clone what it is a clone of",
    /// A clone's own content hides its base.
    FlattenOverwrites "flatten-overwrites" "what a base shows is copied over what the clone has itself",
    /// What replicas are told to keep changes in no return; and a point that is given up is so for good.
    KeepUnderWriter "keep-under-writer" "the control plane tells what to keep of a volume that has a writer",
    /// A point that is given up is so for good.
    KeepReachesAhead "keep-reaches-ahead"
        "what the control plane tells to keep reaches to points that are still to be made",
    /// One mechanism: what changed, by the floors of versions.
    ListingLeavesOutOldest "listing-leaves-out-oldest"
        "a listing of what changed leaves out what was written right after the older snapshot",
    /// Zeros are content.
    ListingForgetsDiscards "listing-forgets-discards"
        "a listing of what changed names no block that reads as zeros now",
    /// Of any range of floors a clone says what it will say when it is flat.
    ListingForgetsBase "listing-forgets-base" "a listing of a clone's snapshot leaves out what its base shows",
    /// Who moves away goes when nobody is missing afterwards.
    LeavesTooEarly "leaves-too-early"
        "a replica that moves away goes before the one that takes its place is in-sync",
    /// P4: a replica is read only if no write is acknowledged without it.
    NearNotAwaited "near-not-awaited"
        "a replica that returns is read while writes are acknowledged without it",
    /// P3: who reads with leases of a replaced writer has ended when the next one serves.
    FenceForgetsReturning "fence-forgets-returning" "the fence does not wait for a replica that returns",
    /// Zeros are content.
    DiscardShowsBase "discard-shows-base" "a discard of a clone leaves nothing that hides its base",
    /// Scrub: every block is verified.
    ScrubSkipsOldVersions "scrub-skips-old-versions" "scrub looks at the newest version of each slot only",
    /// Scrub: what is found is healed.
    ScrubNotHealed "scrub-not-healed" "a writer does not ask what scrub has found",
    /// Comparison: a slot is judged only if nothing was written to it meanwhile.
    DigestIgnoresInFlight "digest-ignores-in-flight" "replicas are compared in slots that are being written",
}

#[cfg(feature = "mutants")]
mod active {
    use super::Mutant;
    use std::sync::atomic::{AtomicU8, Ordering};

    const NONE: u8 = u8::MAX;
    static ACTIVE: AtomicU8 = AtomicU8::new(NONE);

    impl Mutant {
        /// Whether this bug is on, in this process.
        pub fn is_on(self) -> bool {
            ACTIVE.load(Ordering::Relaxed) == self as u8
        }

        /// Turns this bug on and every other one off; `None` turns all off.
        pub fn activate(mutant: Option<Mutant>) {
            ACTIVE.store(mutant.map_or(NONE, |mutant| mutant as u8), Ordering::Relaxed);
        }
    }
}

#[cfg(not(feature = "mutants"))]
impl Mutant {
    /// Deliberate bugs are not compiled in.
    pub const fn is_on(self) -> bool {
        false
    }
}
