//! Chooses ports that stay ours. They are kept for the life of the cluster, and a daemon that was killed must get its
//! port back: so they lie below the range from which the kernel gives ports to outgoing connections.

use anyhow::ensure;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};

/// First port ever chosen, and the first of the kernel's default range for outgoing connections.
const FIRST: u16 = 20_000;
const END: u16 = 32_768;

/// `count` loopback addresses on which nobody listens now, all different.
pub fn choose(count: usize) -> anyhow::Result<Vec<SocketAddr>> {
    // Two clusters that are made at the same moment begin at different places.
    let start = uuid::Uuid::new_v4().as_u128() as u16 % (END - FIRST);
    let candidates = (0..END - FIRST).map(|i| FIRST + (start + i) % (END - FIRST));
    let mut held: Vec<TcpListener> = Vec::with_capacity(count);
    for port in candidates {
        if held.len() == count {
            break;
        }
        held.extend(TcpListener::bind((Ipv4Addr::LOCALHOST, port)));
    }
    ensure!(held.len() == count, "{count} free ports are needed on loopback, and {} were found", held.len());
    Ok(held.iter().map(TcpListener::local_addr).collect::<Result<_, _>>()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_in_use_are_not_chosen_and_none_twice() {
        let taken = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().local_addr().unwrap();
        let mut chosen = choose(200).unwrap();
        assert!(!chosen.contains(&taken));
        assert!(chosen.iter().all(|address| address.ip().is_loopback() && (FIRST..END).contains(&address.port())));
        chosen.sort();
        chosen.dedup();
        assert_eq!(chosen.len(), 200);
    }
}
