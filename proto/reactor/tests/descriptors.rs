//! A process that has run out of descriptors. Alone in its binary: the limit is the whole process's.

use ashlar_reactor::{Completion, Framing, Reactor, ReactorConfig};
use ashlar_types::Duration;
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use std::fs::File;
use std::net::TcpStream;

#[test]
fn accepting_pauses_without_descriptors_and_goes_on_with_them() {
    let mut reactor = Reactor::new(ReactorConfig::default()).unwrap();
    let (_, address) = reactor.listen_tcp("127.0.0.1:0".parse().unwrap(), Framing::RawBytes).unwrap();
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
    setrlimit(Resource::RLIMIT_NOFILE, 64, hard).unwrap();
    let mut hoard: Vec<File> = std::iter::from_fn(|| File::open("/dev/null").ok()).collect();
    hoard.pop();
    let _peer = TcpStream::connect(address).unwrap();
    assert!(File::open("/dev/null").is_err(), "no descriptor is left");

    let (mut completions, before) = (Vec::new(), reactor.stats().enters);
    reactor.wait(reactor.now() + Duration::from_millis(350), &mut completions).unwrap();
    let enters = reactor.stats().enters - before;
    assert!(completions.is_empty() && enters < 30, "{completions:?} after {enters} calls");
    let refused = reactor.connect_tcp(address, Duration::from_secs(1), Framing::RawBytes);
    assert_eq!(refused.unwrap_err().raw_os_error(), Some(libc::EMFILE));

    drop(hoard);
    reactor.wait(reactor.now() + Duration::from_secs(20), &mut completions).unwrap();
    assert!(matches!(completions[..], [Completion::Accepted { .. }]), "{completions:?}");
}
