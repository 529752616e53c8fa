//! Every deliberate bug stands in a core: a variant that no source uses would count as a bug that was looked for.

use ashlar_types::Mutant;
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

const CORES: &[&str] = &["datapath/volume/src", "chunkserver/engine/src", "driver/plan/src"];

fn sources(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder).expect("the folder of a core") {
        let path = entry.expect("an entry of it").path();
        match path.is_dir() {
            true => sources(&path, found),
            false if path.extension().is_some_and(|extension| extension == "rs") => found.push(path),
            false => {}
        }
    }
}

#[test]
fn every_mutant_is_used_in_a_core() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).ancestors().nth(2).expect("the repository");
    let mut files = Vec::new();
    CORES.iter().for_each(|core| sources(&root.join(core), &mut files));
    let text: String = files.iter().map(|file| std::fs::read_to_string(file).expect("a source file")).collect();
    let is_unused = |mutant: &&Mutant| !text.contains(&format!("Mutant::{}.is_on()", mutant.identifier()));
    let unused: Vec<&str> = Mutant::ALL.iter().filter(is_unused).map(|mutant| mutant.name()).collect();
    assert!(unused.is_empty(), "used nowhere: {unused:?}");
    assert!(Mutant::ALL.len() >= 32, "{} deliberate bugs", Mutant::ALL.len());
}

#[test]
fn every_mutant_is_described() {
    let table = include_str!("../MUTANTS.md");
    let missing: Vec<&str> =
        Mutant::ALL.iter().map(|mutant| mutant.name()).filter(|name| !table.contains(&format!("`{name}`"))).collect();
    assert!(missing.is_empty(), "not in MUTANTS.md: {missing:?}");
    let names: BTreeSet<&str> = Mutant::ALL.iter().map(|mutant| mutant.name()).collect();
    assert_eq!(names.len(), Mutant::ALL.len(), "two of one name");
}
