//! The process as others meet it: its ports, its disks, its exit.

mod client;
mod clones;
mod daemon;
mod disks;
mod offline;
mod ports;
mod sessions;
mod smart;
