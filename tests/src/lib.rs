//! What the demo and the tests on real daemons share: a dev cluster of one's own, a kubelet's way of calling CSI, and
//! waiting.
//!
//! The programs are looked for beside the running test or demo, where `make build` puts them.
#![forbid(unsafe_code)]

mod clock;
mod cluster;
mod command;
mod fault_play;
pub mod faults;
mod holders;
mod interrupt;
mod kubelet;
mod ledger;
mod loss;
mod mariadb;
mod nbd;
mod peer;
pub mod postgres;
mod scene;
mod sealed_files;
mod snapshot_view;
mod stage;
mod stamped;
mod sweep;
mod wait;

pub use clock::Clock;
pub use cluster::{Compared, Daemon, DevCluster, scratch_dir};
pub use command::{Output, program, run, run_ok};
pub use fault_play::{FaultPlay, ToldEvent};
pub use holders::{holders, in_sync};
pub use interrupt::on_interrupt;
pub use kubelet::{Kubelet, MountedVolume};
pub use ledger::{Ledger, last_row};
pub use loss::{ClassTimes, LossPlan, LossResult, play_loss};
pub use mariadb::{MariaDb, MariaPaths};
pub use nbd::{NbdClient, NbdReply, nbd_socket};
pub use peer::Peer;
pub use scene::{
    Scene, on_cluster, on_cluster_on, on_cluster_with, on_nodes_on, on_placing_cluster, on_repairing_cluster,
    on_repairing_cluster_with, on_scrubbing_cluster, on_single_process_nodes,
};
pub use sealed_files::{FileLoad, check_files};
pub use snapshot_view::SnapshotView;
pub use stage::{Stage, clear_stage};
pub use stamped::{StampBounds, StampedGuest, Stamps};
pub use sweep::{Leftovers, sweep, sweep_devices};
pub use wait::wait_until;
