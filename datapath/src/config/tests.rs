//! Tests of `config`.

use super::*;

fn flags() -> RunFlags {
    RunFlags {
        node: Some("node-1".to_owned()),
        control: Some("http://127.0.0.1:7000".to_owned()),
        run_dir: Some(PathBuf::from("/run/x")),
        state_file: Some(PathBuf::from("/run/x.json")),
        ..RunFlags::default()
    }
}

#[test]
fn defaults_are_loopback_with_a_free_port() {
    let config = Config::checked(flags(), RunFlags::default()).unwrap();
    assert_eq!(config.rpc_listen, "127.0.0.1:0".parse().unwrap());
    assert_eq!(config.metrics_listen, config.rpc_listen);
    assert!(config.allows("127.0.0.1:1".parse().unwrap()) && !config.allows("10.0.0.1:1".parse().unwrap()));
}

#[test]
fn other_addresses_need_the_insecure_flag() {
    let mut open = flags();
    open.rpc_listen = Some("0.0.0.0:1".parse().unwrap());
    let refused = Config::checked(open.clone(), RunFlags::default());
    assert!(matches!(refused, Err(ConfigError::NotLoopback { flag: "rpc-listen", .. })));
    open.insecure_allow_any_address = true;
    assert!(Config::checked(open, RunFlags::default()).is_ok());
    let remote = RunFlags { control: Some("http://control.example:1".to_owned()), ..flags() };
    assert!(matches!(Config::checked(remote, RunFlags::default()), Err(ConfigError::NotLoopback { .. })));
}

#[test]
fn flags_win_over_the_file() {
    let file: RunFlags = toml::from_str("node = 'from-file'\nzone = 'z1'").unwrap();
    let config = Config::checked(flags(), file).unwrap();
    assert_eq!((config.node.as_str(), config.zone.unwrap().as_str()), ("node-1", "z1"));
    assert!(toml::from_str::<RunFlags>("nodde = 'x'").is_err());
}

#[test]
fn replicas_are_compared_within_a_fortnight_unless_told_otherwise() {
    let period = |text: Option<&str>| {
        let given = RunFlags { scrub_period: text.map(str::to_owned), ..flags() };
        Config::checked(given, RunFlags::default()).unwrap().scrub_period
    };
    assert_eq!(period(None), Some(Duration::from_secs(14 * 86_400)));
    assert_eq!([period(Some("36h")), period(Some("0"))], [Some(Duration::from_secs(36 * 3600)), None]);
}

#[test]
fn bad_values_are_refused() {
    for bad in [
        RunFlags { node: Some("../x".to_owned()), ..flags() },
        RunFlags { node: None, ..flags() },
        RunFlags { control: Some("127.0.0.1:7000".to_owned()), ..flags() },
        RunFlags { control: Some("https://127.0.0.1:1".to_owned()), ..flags() },
        RunFlags { state_file: None, ..flags() },
        RunFlags { scrub_period: Some("1.5h".to_owned()), ..flags() },
    ] {
        assert!(Config::checked(bad.clone(), RunFlags::default()).is_err(), "{bad:?}");
    }
}
