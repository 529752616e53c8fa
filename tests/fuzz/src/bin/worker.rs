//! The fuzzer proper: libFuzzer around one target, which the variable `ASHLAR_FUZZ_TARGET` names. Started by
//! `ashlar-fuzz`, which also builds it with coverage counters.
#![no_main]

use ashlar_fuzz::Target;
use cap::Cap;
use std::alloc::System;
use std::sync::OnceLock;

#[global_allocator]
static MEMORY: Cap<System> = Cap::new(System, usize::MAX);
static TARGET: OnceLock<&'static Target> = OnceLock::new();

fn target() -> &'static Target {
    let name = std::env::var(ashlar_fuzz::TARGET_VARIABLE).expect("ASHLAR_FUZZ_TARGET names a target");
    Target::named(&name).unwrap_or_else(|| panic!("{name} is no target"))
}

/// The deliberate bug that is to be found, in a worker that has them.
fn make_slip() {
    if let Ok(name) = std::env::var(ashlar_fuzz::slips::SLIP_VARIABLE) {
        #[cfg(feature = "mutants")]
        ashlar_types::Slip::activate(Some(slip(&name)));
        #[cfg(not(feature = "mutants"))]
        panic!("{name} is asked for, and this worker has no bugs");
    }
}

#[cfg(feature = "mutants")]
fn slip(name: &str) -> ashlar_types::Slip {
    let of_name = ashlar_types::Slip::ALL.iter().find(|slip| slip.name() == name);
    *of_name.unwrap_or_else(|| panic!("{name} is no deliberate bug"))
}

libfuzzer_sys::fuzz_target!(init: { make_slip(); TARGET.get_or_init(target); }, |data: &[u8]| {
    let target = TARGET.get().expect("chosen at the start");
    // An allocation beyond the bound fails, which ends the process: a finding like any other.
    MEMORY.set_limit(MEMORY.allocated() + target.memory_bytes_max).expect("above what is in use");
    (target.run)(data);
    MEMORY.set_limit(usize::MAX).expect("without a bound between inputs");
});
