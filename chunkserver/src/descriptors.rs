//! How many descriptors the process may have, and how many of them links may take.
//!
//! An index that cannot open a file for want of descriptors fails to commit, and a disk whose index fails is a replica
//! no more, until the process is started again. So links, of which there may be more at any time, leave half of the
//! descriptors to everything else.

use crate::Error;
use crate::config::LINKS_MAX;
use ashlar_reactor::raise_descriptor_limit;

/// Takes as many descriptors as the process may have; gives the most links that it may have with them.
pub(crate) fn links_max() -> Result<usize, Error> {
    let descriptors = raise_descriptor_limit().map_err(Error::Descriptors)?;
    let links_max = usize::try_from(descriptors / 2).unwrap_or(LINKS_MAX).clamp(1, LINKS_MAX);
    if links_max < LINKS_MAX {
        tracing::warn!(descriptors, links_max, "the limit of open files is low: fewer links are taken");
    }
    Ok(links_max)
}
