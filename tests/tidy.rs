//! The house style that a machine can check: what lives where, how long it is, which way the arrows point.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

const TOP_LEVEL: &[&str] = &[
    "ARCHITECTURE.md",
    "CHANGELOG.md",
    "Cargo.lock",
    "Cargo.toml",
    "LICENSE",
    "Makefile",
    "README.md",
    "benches",
    "chunkserver",
    "datapath",
    "deploy",
    "driver",
    "proto",
    "rustfmt.toml",
    "tests",
];
const LINES_MAX: usize = 500;
const COLUMNS_MAX: usize = 120;
const FUNCTION_LINES_MAX: usize = 70;

/// Where `unsafe` may stand: the io_uring crate and the block front-ends.
const UNSAFE_HOMES: &[&str] = &["proto/reactor/src/", "datapath/src/frontend/"];

/// Crates that decide without doing: no clock, socket, file, thread or random source.
const PURE: &[&str] = &["proto/types", "proto/wire", "datapath/volume", "chunkserver/engine", "driver/plan"];
const IMPURE_WORDS: &[&str] = &[
    "std::fs",
    "std::net",
    "std::thread",
    "std::process",
    "std::env",
    "Instant::now",
    "SystemTime",
    "std::io::",
    "rand::",
    "tokio::",
];

/// What may be depended on, by the folder of the crate that depends. Arrows point down only.
const ARROWS: &[(&str, &[&str])] = &[
    ("proto/", &["proto/"]),
    ("driver/", &["proto/", "driver/"]),
    ("datapath/", &["proto/", "datapath/"]),
    ("chunkserver/", &["proto/", "chunkserver/"]),
];

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned()
}

fn tracked() -> Vec<String> {
    let output =
        std::process::Command::new("git").args(["ls-files", "-z"]).current_dir(root()).output().expect("git runs");
    assert!(output.status.success(), "git ls-files");
    let names = String::from_utf8(output.stdout).unwrap();
    names.split('\0').filter(|name| !name.is_empty() && root().join(name).exists()).map(str::to_owned).collect()
}

fn sources() -> Vec<(String, String)> {
    let rust = tracked().into_iter().filter(|name| name.ends_with(".rs"));
    rust.map(|name| (name.clone(), fs::read_to_string(root().join(&name)).unwrap())).collect()
}

fn report(what: &str, found: Vec<String>) {
    assert!(found.is_empty(), "{what}:\n  {}", found.join("\n  "));
}

#[test]
fn the_house_has_exactly_these_rooms() {
    let present: BTreeSet<String> = tracked()
        .iter()
        .map(|name| name.split('/').next().unwrap().to_owned())
        .filter(|name| !name.starts_with('.'))
        .collect();
    let expected: BTreeSet<String> = TOP_LEVEL.iter().map(|name| (*name).to_owned()).collect();
    let differing: Vec<String> = present.symmetric_difference(&expected).cloned().collect();
    report("top-level parts that are missing or not foreseen", differing);
}

#[test]
fn files_are_short() {
    let long = sources().into_iter().filter(|(_, text)| text.lines().count() > LINES_MAX);
    report("files over 500 lines", long.map(|(name, text)| format!("{name}: {}", text.lines().count())).collect());
}

#[test]
fn lines_are_short() {
    let mut found = vec![];
    for (name, text) in sources() {
        let long = text.lines().enumerate().filter(|(_, line)| line.chars().count() > COLUMNS_MAX);
        found.extend(long.map(|(at, line)| format!("{name}:{}: {} columns", at + 1, line.chars().count())));
    }
    report("lines over 120 columns", found);
}

#[test]
fn functions_are_short() {
    let mut found = vec![];
    for (name, text) in sources() {
        found.extend(long_functions(&text).into_iter().map(|(line, length)| format!("{name}:{line}: {length} lines")));
    }
    report("functions over 70 lines", found);
}

/// A function of rustfmt's making ends with a brace at the indentation with which it began.
fn long_functions(text: &str) -> Vec<(usize, usize)> {
    let lines: Vec<&str> = text.lines().collect();
    let mut found = vec![];
    for (start, line) in lines.iter().enumerate() {
        let trimmed = line.trim_start();
        let indent = &line[..line.len() - trimmed.len()];
        let words: Vec<&str> = trimmed.split([' ', '(', '<']).take(6).collect();
        let Some(at) = words.iter().position(|word| *word == "fn") else { continue };
        let qualifiers =
            ["pub", "const", "async", "unsafe", "super)", "pub(super)", "crate)", "pub(crate)", "extern", "\"C\""];
        if !words[..at].iter().all(|word| qualifiers.contains(word)) {
            continue;
        }
        let closing = format!("{indent}}}");
        let body_is_inline = line.trim_end().ends_with('}') || line.trim_end().ends_with(';');
        if body_is_inline {
            continue;
        }
        if let Some(length) = lines[start..].iter().position(|line| *line == closing)
            && length + 1 > FUNCTION_LINES_MAX
        {
            found.push((start + 1, length + 1));
        }
    }
    found
}

#[test]
fn every_file_says_what_it_owns() {
    let silent = sources().into_iter().filter(|(_, text)| !text.starts_with("//!") && !text.starts_with("#!/"));
    report("files that do not begin with //!", silent.map(|(name, _)| name).collect());
}

#[test]
fn unsafe_stays_in_its_rooms() {
    let mut found = vec![];
    for (name, text) in sources() {
        if UNSAFE_HOMES.iter().any(|home| name.starts_with(home)) || name == "tests/tidy.rs" {
            continue;
        }
        let used = text.lines().any(|line| !line.trim_start().starts_with("//") && has_unsafe(line));
        if used {
            found.push(name);
        }
    }
    report("unsafe outside of the io_uring crate and the front-ends", found);
}

fn has_unsafe(line: &str) -> bool {
    ["unsafe {", "unsafe fn", "unsafe impl", "unsafe extern"].iter().any(|form| line.contains(form))
}

#[test]
fn pure_crates_do_not_act() {
    let mut found = vec![];
    for (name, text) in sources() {
        let pure = PURE.iter().any(|dir| name.starts_with(&format!("{dir}/src/")));
        let for_tests = name.contains("/tests") || name.ends_with("testing.rs") || name.contains("/testing/");
        if !pure || for_tests {
            continue;
        }
        let code = text.lines().take_while(|line| *line != "#[cfg(test)]").enumerate();
        let code = code.filter(|(_, line)| !line.trim_start().starts_with("//"));
        for (at, line) in code {
            found.extend(
                IMPURE_WORDS
                    .iter()
                    .filter(|word| line.contains(**word))
                    .map(|word| format!("{name}:{}: {word}", at + 1)),
            );
        }
    }
    report("pure crates that reach for the world", found);
}

#[test]
fn arrows_point_down() {
    let mut found = vec![];
    for name in tracked().into_iter().filter(|name| name.ends_with("Cargo.toml")) {
        let Some((_, allowed)) = ARROWS.iter().find(|(from, _)| name.starts_with(from)) else { continue };
        let manifest = fs::read_to_string(root().join(&name)).unwrap();
        for dependency in production_dependencies(&manifest) {
            let home = crate_home(&dependency);
            if !allowed.iter().any(|to| format!("{home}/").starts_with(to)) {
                found.push(format!("{name} -> {dependency} ({home})"));
            }
        }
    }
    report("arrows that point the wrong way", found);
}

/// Names of our own crates in the tables that a program is built from.
fn production_dependencies(manifest: &str) -> Vec<String> {
    let mut inside = false;
    let mut names = vec![];
    for line in manifest.lines() {
        if line.starts_with('[') {
            inside = line == "[dependencies]" || line == "[build-dependencies]";
        } else if inside && line.starts_with("ashlar-") {
            names.push(line.split(['.', ' ', '=']).next().unwrap().to_owned());
        }
    }
    names
}

fn crate_home(name: &str) -> String {
    let manifest = fs::read_to_string(root().join("Cargo.toml")).unwrap();
    let line = manifest.lines().find(|line| line.starts_with(&format!("{name} =")));
    let line = line.unwrap_or_else(|| panic!("{name} is not a dependency of the workspace"));
    line.split('"').nth(1).expect("a path").to_owned()
}

#[test]
fn nothing_is_left_unfinished() {
    let words = [
        concat!("TO", "DO"),
        concat!("FIX", "ME"),
        concat!("X", "XX"),
        concat!("todo", "!("),
        concat!("unimplemented", "!("),
    ];
    let mut found = vec![];
    for (name, text) in sources() {
        for (at, line) in text.lines().enumerate() {
            let with_issue = line.contains(concat!("TO", "DO(#"));
            if !with_issue && words.iter().any(|word| line.contains(word)) {
                found.push(format!("{name}:{}: {}", at + 1, line.trim()));
            }
        }
    }
    report("unfinished marks without an issue's number", found);
}

#[test]
fn tests_wait_for_conditions_and_not_for_time() {
    let mut found = vec![];
    for (name, text) in sources() {
        let for_tests = name.starts_with("tests/") || name.contains("/tests");
        if !for_tests || name == "tests/tidy.rs" {
            continue;
        }
        let sleeping =
            text.lines().enumerate().filter(|(_, line)| line.contains("thread::sleep") || line.contains("time::sleep"));
        found.extend(sleeping.map(|(at, _)| format!("{name}:{}", at + 1)));
    }
    report("tests that sleep", found);
}

/// Promises in documents name the test that backs them, as `it_file::name`.
#[test]
fn tests_that_documents_name_are_there() {
    let mut found = vec![];
    for name in tracked().into_iter().filter(|name| name.ends_with(".md")) {
        let text = fs::read_to_string(root().join(&name)).unwrap();
        let quoted = text.split('`').skip(1).step_by(2);
        for (file, test) in quoted.filter_map(|word| word.split_once("::").filter(|(file, _)| file.starts_with("it_")))
        {
            let source = fs::read_to_string(root().join(format!("tests/{file}.rs"))).unwrap_or_default();
            if !source.contains(&format!("fn {test}()")) {
                found.push(format!("{name}: {file}::{test}"));
            }
        }
    }
    report("tests that a document names and nobody wrote", found);
}

#[test]
fn every_component_has_a_design() {
    for dir in ["proto", "proto/reactor", "driver", "datapath", "datapath/volume", "chunkserver", "benches", "tests"] {
        let path = root().join(dir).join("DESIGN.md");
        assert!(path.exists(), "{} is missing", path.display());
    }
}
