//! Open files: with as many volumes as a node says it takes, a datapath needs more than a process may have by default.

use ashlar_reactor::raise_descriptor_limit;
use std::io;

/// Of one volume: FUSE and its threads, the links to its replicas and to what replaces them, an NBD socket.
const PER_VOLUME: u64 = 16;
/// Of the process itself.
const BASE: u64 = 512;
const NEEDED: u64 = BASE + PER_VOLUME * ashlar_rpc::NODE_VOLUMES_MAX as u64;

/// Takes as many as the system lets us, and says so if they are too few.
pub(crate) fn allow() -> io::Result<()> {
    let allowed = raise_descriptor_limit()?;
    if allowed < NEEDED {
        let volumes = allowed.saturating_sub(BASE) / PER_VOLUME;
        tracing::warn!(
            allowed,
            needed = NEEDED,
            volumes,
            "too few open files are allowed: raise the hard limit (NOFILE)"
        );
    }
    Ok(())
}
