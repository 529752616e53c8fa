//! How deep inputs come: what was decoded, answered, noticed, by name. Counted only where somebody asks, so that the
//! fuzzer does not pay for it.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::fmt::Debug;

thread_local! {
    static REACHED: RefCell<Option<BTreeSet<String>>> = const { RefCell::new(None) };
}

/// What `work` reaches in this thread.
pub fn during(work: impl FnOnce()) -> BTreeSet<String> {
    REACHED.set(Some(BTreeSet::new()));
    work();
    REACHED.take().unwrap_or_default()
}

/// The variant's name, or the whole of a text, behind `what`.
pub(crate) fn note(what: &str, value: &impl Debug) {
    REACHED.with_borrow_mut(|reached| {
        if let Some(reached) = reached {
            let shown = format!("{value:?}");
            let name: String =
                shown.trim_start_matches('"').chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect();
            reached.insert(format!("{what} {name}"));
        }
    });
}
