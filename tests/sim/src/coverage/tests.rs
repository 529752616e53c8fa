//! The gate closes.

use super::{GROUPS, RARE, gaps, report};
use std::collections::BTreeMap;

fn everything() -> BTreeMap<&'static str, u64> {
    GROUPS.iter().flat_map(|(_, names)| names.iter().map(|name| (*name, 1))).collect()
}

#[test]
fn nothing_is_missing_when_everything_was_reached() {
    assert_eq!(gaps(&everything()), Vec::<String>::new());
}

#[test]
fn what_never_happens_is_a_gap() {
    for name in everything().into_keys() {
        let mut counts = everything();
        counts.insert(name, 0);
        assert_eq!(gaps(&counts), [format!("never reached: {name}")]);
        counts.remove(name);
        assert_eq!(gaps(&counts), [format!("never reached: {name}")]);
    }
}

#[test]
fn what_is_counted_must_be_listed_and_what_is_rare_need_not_happen() {
    let mut counts = everything();
    counts.insert(RARE[0], 2);
    assert!(gaps(&counts).is_empty() && report(&counts).contains(RARE[0]));
    counts.insert("state: of no list", 1);
    assert_eq!(gaps(&counts), ["not listed: state: of no list"]);
}

#[test]
fn no_name_stands_in_two_lists() {
    let names = GROUPS.iter().flat_map(|(_, names)| names.iter()).chain(&RARE);
    assert_eq!(names.count(), everything().len() + RARE.len());
}
