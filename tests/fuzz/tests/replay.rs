//! Every input of every corpus, once, within the memory that its target may take. What was ever found stays found.

use ashlar_fuzz::{TARGETS, corpus, seeds};
use cap::Cap;
use std::alloc::System;
use std::collections::BTreeSet;

#[global_allocator]
static MEMORY: Cap<System> = Cap::new(System, usize::MAX);

/// One test, as the bound on memory is the process's.
#[test]
fn the_corpora_find_nothing() {
    for target in TARGETS {
        let inputs = corpus::inputs(target.name).unwrap();
        assert!(!inputs.is_empty(), "{} has no corpus", target.name);
        for (path, input) in &inputs {
            println!("{}", path.display());
            assert!(input.len() <= target.input_bytes_max, "{} is too long", path.display());
            MEMORY.set_limit(MEMORY.allocated() + target.memory_bytes_max).unwrap();
            (target.run)(input);
            MEMORY.set_limit(usize::MAX).unwrap();
        }
        let bytes: usize = inputs.iter().map(|(_, input)| input.len()).sum();
        assert!(inputs.len() <= corpus::FILES_MAX && bytes <= corpus::BYTES_MAX, "{} is too large", target.name);
    }
    for (target, inputs) in seeds::all() {
        let kept: BTreeSet<Vec<u8>> = corpus::inputs(target).unwrap().into_iter().map(|(_, input)| input).collect();
        assert!(inputs.iter().any(|input| kept.contains(input)), "{target}: `ashlar-fuzz seed` was not run");
    }
}
