//! What is taken, what is refused and how, and what a change leaves as it is.

use super::*;
use ashlar_catalog::{Class, Limit};

fn map(given: &[(&str, &str)]) -> BTreeMap<String, String> {
    given.iter().map(|&(key, value)| (key.to_owned(), value.to_owned())).collect()
}

fn parsed(given: &[(&str, &str)]) -> Result<Params, Vec<String>> {
    parse(&map(given))
}

fn copies(given: &[(&str, &str)]) -> (u8, u8) {
    let params = parsed(given).unwrap();
    (params.replicas, params.min_replicas)
}

fn changed(before: Settings, given: &[(&str, &str)]) -> Settings {
    parse_changes(&map(given)).unwrap().apply(before).unwrap()
}

#[test]
fn defaults_and_given_values() {
    assert_eq!(copies(&[]), (3, 2));
    assert_eq!(copies(&[("replicas", "1")]), (1, 1));
    assert_eq!(copies(&[("replicas", "2"), ("minReplicas", "1")]), (2, 1));
    assert_eq!(parsed(&[]).unwrap().settings, Settings::default());
    let given = [("class", "critical"), ("iopsLimit", "500"), ("bandwidthLimit", "200Mi"), ("bandwidthBurst", "1Gi")];
    let settings = parsed(&given).unwrap().settings;
    assert_eq!(settings.class, Class::Critical);
    assert_eq!(settings.operations, Some(Limit { per_second: 500, burst: None }));
    assert_eq!(settings.bytes, Some(Limit { per_second: 200 << 20, burst: Some(1 << 30) }));
    assert_eq!(settings.operations.map(Limit::burst), Some(500));
}

#[test]
fn zones_and_spread_are_typed_and_must_be_possible() {
    let any = parsed(&[]).unwrap();
    assert!(any.zones.is_empty() && any.spread == Spread::Node && !any.wish().spread_zones);
    let spread = parsed(&[("zones", "c,a,b"), ("spread", "zone")]).unwrap();
    assert_eq!(spread.zones.iter().map(ZoneName::as_str).collect::<Vec<_>>(), ["a", "b", "c"]);
    assert!(spread.wish().spread_zones && spread.wish().zones == spread.zones);
    assert!(!parsed(&[("spread", "zone-preferred")]).unwrap().wish().spread_zones);
    for bad in ["", ",", "a,", "a,a", "a b", "../z", &vec!["z"; 40].join(",")] {
        let faults = parsed(&[("zones", bad)]).unwrap_err();
        assert!(faults.len() == 1 && faults[0].contains("parameter zones"), "{bad:?}: {faults:?}");
    }
    assert!(parsed(&[("spread", "rack")]).unwrap_err()[0].contains("zone-preferred"));
    let faults = parsed(&[("zones", "a,b"), ("spread", "zone")]).unwrap_err();
    assert!(faults[0].contains("parameter zones names 2") && faults[0].contains("zone-preferred"), "{faults:?}");
    assert!(parsed(&[("zones", "a,b"), ("spread", "zone"), ("replicas", "2")]).is_ok());
    let fixed = parse_changes(&map(&[("zones", "a"), ("spread", "node")])).unwrap_err();
    assert!(fixed.len() == 2 && fixed.iter().all(|fault| fault.contains("is fixed")), "{fixed:?}");
}

#[test]
fn keys_of_the_provisioner_are_allowed() {
    assert!(parsed(&[("csi.storage.k8s.io/pvc/name", "x"), ("csi.storage.k8s.io/pv/name", "y")]).is_ok());
}

#[test]
fn everything_that_is_wrong_is_reported_at_once() {
    let faults = parsed(&[("replicas", "9"), ("minReplicas", "-1"), ("Replicas", "3"), ("type", "fast")]).unwrap_err();
    assert_eq!(faults.len(), 4, "{faults:?}");
    assert_eq!(parsed(&[("replicas", "2"), ("minReplicas", "3")]).unwrap_err().len(), 1);
    let faults = parsed(&[("class", "gold"), ("iopsBurst", "5"), ("bandwidthBurst", "1Gi")]).unwrap_err();
    assert_eq!(faults.len(), 3, "{faults:?}");
}

#[test]
fn nonsense_is_refused_with_what_is_allowed() {
    for bad in ["", "0", "-1", "1.5", "1e3", "unlimited", "None", "1000000001", "10k", " 5"] {
        for key in ["iopsLimit", "iopsBurst"] {
            let faults = parse_changes(&map(&[(key, bad)])).unwrap_err();
            assert!(faults.len() == 1 && faults[0].contains(key) && faults[0].contains("1 to"), "{bad:?}: {faults:?}");
        }
    }
    for bad in ["", "0", "1", "4095", "-4096", "1.5Gi", "2Ti", "200MB", "200 Mi", "fast"] {
        for key in ["bandwidthLimit", "bandwidthBurst"] {
            let faults = parse_changes(&map(&[(key, bad)])).unwrap_err();
            assert!(faults.len() == 1 && faults[0].contains(key) && faults[0].contains("200Mi"), "{bad:?}: {faults:?}");
        }
    }
}

#[test]
fn hostile_values_are_cut_short_in_messages() {
    let faults = parsed(&[(&"k".repeat(100_000), "v"), ("replicas", &"9".repeat(100_000))]).unwrap_err();
    assert!(faults.iter().all(|fault| fault.len() < 300));
}

#[test]
fn what_a_change_does_not_name_stays_as_it_is() {
    let before = changed(Settings::default(), &[("class", "low"), ("iopsLimit", "100"), ("iopsBurst", "7")]);
    let faster = changed(before, &[("iopsLimit", "900")]);
    assert_eq!(faster, Settings { operations: Some(Limit { per_second: 900, burst: Some(7) }), ..before });
    let usual = changed(faster, &[("iopsBurst", "none")]);
    assert_eq!(usual.operations.map(Limit::burst), Some(900));
    assert_eq!(changed(faster, &[("iopsLimit", "none")]), Settings { operations: None, ..before });
    assert_eq!(changed(before, &[]), before);
    assert_eq!(changed(Settings::default(), &[("iopsLimit", "none"), ("iopsBurst", "none")]), Settings::default());
}

#[test]
fn a_burst_without_a_limit_is_refused() {
    let changes = parse_changes(&map(&[("iopsLimit", "none"), ("iopsBurst", "7")])).unwrap();
    let faults = changes.apply(changed(Settings::default(), &[("iopsLimit", "5")])).unwrap_err();
    assert!(faults[0].contains("iopsBurst"), "{faults:?}");
}

#[test]
fn what_cannot_change_is_told_from_what_is_not_known() {
    let faults = parse_changes(&map(&[("replicas", "2"), ("iops", "5")])).unwrap_err();
    assert!(faults[0].contains("\"iops\" is not known") && faults[1].contains("replicas is fixed"), "{faults:?}");
    let both = parse_with(&map(&[("replicas", "2")]), &map(&[("replicas", "3")])).unwrap_err();
    assert_eq!(both.len(), 1, "{both:?}");
}

#[test]
fn mutable_parameters_count_where_a_key_is_in_both() {
    let both = parse_with(&map(&[("class", "low"), ("iopsLimit", "5")]), &map(&[("class", "high")])).unwrap();
    assert_eq!(both, parsed(&[("class", "high"), ("iopsLimit", "5")]).unwrap());
}
