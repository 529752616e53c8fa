//! The limit of open files: every link, file and mount of a process takes of it.

use nix::sys::resource::{Resource, getrlimit, setrlimit};
use std::io;

/// Takes as many descriptors as the process may have (by default it begins with 1024 of them); gives how many.
pub fn raise_descriptor_limit() -> io::Result<u64> {
    let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE)?;
    if soft < hard {
        setrlimit(Resource::RLIMIT_NOFILE, hard, hard)?;
    }
    Ok(hard)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn afterwards_there_is_nothing_more_to_take() {
        let all = raise_descriptor_limit().unwrap();
        assert_eq!(getrlimit(Resource::RLIMIT_NOFILE).unwrap(), (all, all));
        assert_eq!(raise_descriptor_limit().unwrap(), all);
    }
}
