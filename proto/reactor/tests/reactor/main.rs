//! The reactor on real files and real sockets.

mod endings;
mod files;
mod frames;
mod harness;
mod inner;
mod links;
mod turns;
