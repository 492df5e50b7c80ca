//! The house is in order: imports point down, each layer keeps to its business, and the text is fit to be read anywhere.
//!
//! Method: the sources are read as text, comments set aside. Each rule is also shown a source that breaks it.
#![cfg(not(miri))]

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

const ROOT: &str = env!("CARGO_MANIFEST_DIR");

/// The modules of `src/`, from the bottom up. A module may use what is in the rows above its own here, and nothing in its own row.
const LAYERS: [&[&str]; 13] = [
    &["offset", "sync", "user_code"],
    &["time", "models"],
    &["ring", "wait", "log"],
    &["message", "delivery"],
    &["events"],
    &["environment"],
    &["error"],
    &["names"],
    &["topic"],
    &["journal"],
    &["broker"],
    &["engine", "testing"],
    &["lib", "bin"],
];

/// The one knot: the error of the cold paths wraps those of the hot paths, which stand beside their verbs.
const KNOTS: [(&str, &str); 1] = [("error", "topic")];

const LINES_MAX: usize = 600;
/// Where unsafe code may stand.
const UNSAFE_IN: [&str; 2] = ["ring", "wait"];

struct Source {
    /// From the repository's root, with forward slashes.
    path: String,
    text: String,
}

impl Source {
    /// The lines without comments and string contents, numbered from 1.
    fn code(&self) -> Vec<(usize, String)> {
        self.text.lines().zip(1..).map(|(line, number)| (number, strip(line))).collect()
    }

    /// `ring` for `src/ring/queue.rs` and `src/ring.rs`.
    fn module(&self) -> Option<&str> {
        let inside = self.path.strip_prefix("src/")?;
        Some(inside.split('/').next()?.trim_end_matches(".rs"))
    }

    fn is_module_root(&self) -> bool {
        let inside = self.path.strip_prefix("src/").unwrap_or_default();
        !inside.contains('/') || (inside.matches('/').count() == 1 && inside.ends_with("/mod.rs"))
    }

    fn complain(&self, line: usize, what: impl std::fmt::Display) -> String {
        format!("{}:{line}: {what}", self.path)
    }
}

/// A line without what stands in quotes and behind `//`. Good enough for code that rustfmt has laid out.
fn strip(line: &str) -> String {
    let mut code = String::new();
    let mut in_text = false;
    let line = line.replace("'\"'", "''");
    let mut characters = line.chars().peekable();
    while let Some(c) = characters.next() {
        match c {
            '\\' if in_text => drop(characters.next()),
            '"' => in_text = !in_text,
            '/' if !in_text && characters.peek() == Some(&'/') => break,
            _ if in_text => {}
            _ => code.push(c),
        }
    }
    code
}

fn is_word(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

/// Whether `word` stands there as a whole word.
fn has_word(code: &str, word: &str) -> bool {
    code.match_indices(word).any(|(at, _)| {
        // A lifetime is no word.
        let before = code[..at].chars().next_back().is_some_and(|c| is_word(c) || c == '\'');
        let after = code[at + word.len()..].chars().next().is_some_and(is_word);
        !before && !after
    })
}

/// All files below these folders with these endings.
fn files(folders: &[&str], endings: &[&str]) -> Vec<Source> {
    let mut sources = Vec::new();
    let mut open: Vec<PathBuf> = folders.iter().map(|folder| Path::new(ROOT).join(folder)).collect();
    while let Some(path) = open.pop() {
        if path.is_dir() {
            let entries = fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().path());
            open.extend(entries.filter(|path| !path.ends_with("target")));
        } else if endings.iter().any(|ending| path.to_string_lossy().ends_with(ending)) {
            let inside = path.strip_prefix(ROOT).unwrap().to_string_lossy().replace('\\', "/");
            let text = fs::read_to_string(&path).unwrap_or_else(|error| panic!("{inside}: {error}"));
            sources.push(Source { path: inside, text });
        }
    }
    sources.sort_by(|a, b| a.path.cmp(&b.path));
    sources
}

fn library() -> Vec<Source> {
    files(&["src"], &[".rs"])
}

/// Everything that is written by hand.
fn everything() -> Vec<Source> {
    let folders = ["src", "tests", "examples", "benches", ".ci"];
    let mut all = files(&folders, &[".rs", ".md", ".toml", ".sh", "run"]);
    all.extend(files(&["README.md", "CHANGELOG.md", "Cargo.toml", "rustfmt.toml"], &[""]));
    all
}

#[track_caller]
fn none(complaints: impl IntoIterator<Item = String>) {
    let complaints: Vec<_> = complaints.into_iter().collect();
    assert!(complaints.is_empty(), "\n{}", complaints.join("\n"));
}

fn source(path: &str, text: &str) -> Source {
    Source {
        path: path.to_owned(),
        text: text.to_owned(),
    }
}

fn layer_of(module: &str) -> Option<usize> {
    LAYERS.iter().position(|layer| layer.contains(&module))
}

/// Which module each name that `lib.rs` exports comes from.
fn exports(sources: &[Source]) -> BTreeMap<String, String> {
    let lib = sources
        .iter()
        .find(|source| source.path == "src/lib.rs")
        .expect("there is a lib.rs");
    let code: String = lib.code().into_iter().map(|(_, code)| code + " ").collect();
    let mut exports = BTreeMap::new();
    for item in code.split("pub use ").skip(1) {
        let item = item.split(';').next().unwrap_or_default();
        let module = item.split("::").next().unwrap_or_default().to_owned();
        let names = item.rsplit("::").next().unwrap_or_default();
        for name in names.split(|c: char| !is_word(c)).filter(|name| !name.is_empty()) {
            exports.insert(name.to_owned(), module.clone());
        }
    }
    exports
}

/// The names that follow `crate::` in this code, those in a group included.
fn crate_paths(code: &str) -> Vec<String> {
    let mut paths = Vec::new();
    for (at, found) in code.match_indices("crate::") {
        if code[..at].chars().next_back().is_some_and(is_word) {
            continue;
        }
        let rest = &code[at + found.len()..];
        let name: String = rest.chars().take_while(|&c| is_word(c)).collect();
        if !rest.starts_with('{') {
            paths.push(name);
            continue;
        }
        let mut depth = 0;
        let mut name = String::new();
        let mut heads = true;
        for c in rest.chars() {
            match c {
                '{' => depth += 1,
                '}' => depth -= 1,
                ',' if depth == 1 => heads = true,
                c if is_word(c) && heads && depth == 1 => {
                    name.push(c);
                    continue;
                }
                _ => {}
            }
            if !name.is_empty() {
                paths.push(std::mem::take(&mut name));
                heads = false;
            }
            if depth == 0 {
                break;
            }
        }
    }
    paths
}

fn imports_that_do_not_point_down(source: &Source, exports: &BTreeMap<String, String>) -> Vec<String> {
    // Models are tests that stand beside what they check: they may come in by the front door.
    let Some(module) = source
        .module()
        .filter(|&module| module != "lib" && !source.path.contains("/models"))
    else {
        return Vec::new();
    };
    let Some(layer) = layer_of(module) else {
        return vec![source.complain(1, format!("{module} stands in no layer"))];
    };
    let mut complaints = Vec::new();
    let code = source.code();
    for (at, (number, line)) in code.iter().enumerate() {
        // An import may run over several lines.
        let line = if line.contains("crate::{") {
            code[at..]
                .iter()
                .map(|(_, line)| line.as_str())
                .take_while(|line| !line.is_empty())
                .collect()
        } else {
            line.clone()
        };
        for name in crate_paths(&line) {
            let used = exports.get(&name).unwrap_or(&name).as_str();
            let is_knot = KNOTS.contains(&(module, used));
            match layer_of(used) {
                None => complaints.push(source.complain(*number, format!("crate::{name} stands in no layer"))),
                Some(below) if below < layer || used == module || is_knot => {}
                Some(_) => complaints.push(source.complain(*number, format!("{module} must not know {used}"))),
            }
        }
    }
    complaints
}

#[test]
fn imports_point_down_only_and_neighbours_do_not_know_each_other() {
    let sources = library();
    let exports = exports(&sources);
    assert_eq!(exports["Broker"], "broker");
    assert_eq!(exports["RecvError"], "topic");
    none(sources.iter().flat_map(|source| imports_that_do_not_point_down(source, &exports)));

    for wrong in [
        source("src/ring/slots.rs", "use crate::topic::Topic;"),
        source("src/ring/slots.rs", "    crate::wait::Event"),
        source("src/delivery/lag.rs", "fn f(_: crate::Broker) {}"),
        source(
            "src/wait/event.rs",
            "use crate::{\n    sync::{Arc, Mutex},\n    time::Clock,\n    events::Feed,\n};",
        ),
        source("src/nowhere.rs", "//! x"),
    ] {
        assert_eq!(imports_that_do_not_point_down(&wrong, &exports).len(), 1, "{}", wrong.text);
    }
}

/// What a state machine does not do: lock, wait, read a clock, start a thread, write.
fn impurities(source: &Source) -> Vec<String> {
    let words = [
        "Mutex",
        "RwLock",
        "Condvar",
        "OnceLock",
        "Instant",
        "SystemTime",
        "Clock",
        "thread",
        "park",
        "sleep",
        "println",
        "tracing",
        "fs",
        "static",
        "unsafe",
    ];
    let mut complaints = Vec::new();
    if source.module() != Some("delivery") {
        return complaints;
    }
    for (number, code) in source.code().iter().filter(|(_, code)| !code.starts_with("#!")) {
        for word in words.iter().filter(|word| has_word(code, word)) {
            complaints.push(source.complain(*number, format!("{word} in a state machine")));
        }
        if code.contains("Atomic") || (code.contains("crate::sync::") && !code.contains("crate::sync::Arc;")) {
            complaints.push(source.complain(*number, "synchronisation in a state machine"));
        }
    }
    complaints
}

#[test]
fn the_rules_of_delivery_take_no_lock_clock_or_thread() {
    none(library().iter().flat_map(impurities));

    let wrong = "use crate::sync::Mutex;\nlet now = Instant::now();\nstd::thread::spawn(f);";
    assert_eq!(impurities(&source("src/delivery/ack.rs", wrong)).len(), 4);
    assert_eq!(
        impurities(&source("src/delivery/ack.rs", "// no clock, no thread\nuse crate::sync::Arc;")).len(),
        0
    );
}

/// Ways to atomics, cells and locks that a model checker does not see.
fn back_doors(source: &Source) -> Vec<String> {
    let doors = [
        "std::sync::atomic",
        "core::sync::atomic",
        "cell::UnsafeCell",
        "parking_lot::",
        "crossbeam_utils::",
        "loom::",
    ];
    let mut complaints = Vec::new();
    // What only the models use may name their checker.
    let is_free = source.module() == Some("sync") || source.path.contains("models");
    for (number, code) in source.code().iter().filter(|_| !is_free) {
        for door in doors.iter().filter(|door| code.contains(*door)) {
            complaints.push(source.complain(*number, format!("{door} is reached through sync.rs")));
        }
    }
    complaints
}

#[test]
fn sync_is_the_only_door_to_atomics_cells_and_locks() {
    none(library().iter().flat_map(back_doors));
    assert_eq!(
        back_doors(&source("src/ring/mod.rs", "use std::sync::atomic::AtomicBool;")).len(),
        1
    );
}

/// Unsafe code in the wrong place, without a reason, or not forbidden where there is none.
fn unsafe_mistakes(source: &Source) -> Vec<String> {
    let module = source.module().unwrap_or_default();
    let lines: Vec<_> = source.text.lines().collect();
    let code = source.code();
    let mut complaints = Vec::new();
    let forbids = code.iter().any(|(_, code)| code == "#![forbid(unsafe_code)]");
    if source.is_module_root() && module != "lib" && !UNSAFE_IN.contains(&module) && !forbids {
        complaints.push(source.complain(1, "#![forbid(unsafe_code)] is missing"));
    }
    for (at, (number, _)) in code.iter().enumerate().filter(|(_, (_, code))| has_word(code, "unsafe")) {
        if !UNSAFE_IN.contains(&module) {
            complaints.push(source.complain(*number, "unsafe code outside of ring/ and wait/"));
        }
        // The reason stands above the statement, or above its `unsafe`.
        let above = lines[..at].iter().rev().take_while(|line| {
            let line = line.trim();
            line.starts_with("//") || line.starts_with("#[") || !line.ends_with([';', '{', '}'])
        });
        let has_reason = above
            .chain([&lines[at]])
            .any(|line| line.contains("SAFETY:") || line.contains("# Safety"));
        if !has_reason {
            complaints.push(source.complain(*number, "unsafe without SAFETY"));
        }
    }
    complaints
}

#[test]
fn unsafe_code_stands_only_in_ring_and_wait_and_says_why_it_is_sound() {
    none(library().iter().flat_map(unsafe_mistakes));

    let unfounded = "fn f() {\n    unsafe { g() }\n}";
    assert_eq!(unsafe_mistakes(&source("src/ring/slots.rs", unfounded)).len(), 1);
    assert_eq!(unsafe_mistakes(&source("src/topic/core.rs", unfounded)).len(), 2);
    assert_eq!(unsafe_mistakes(&source("src/topic/mod.rs", "//! x")).len(), 1);
    let founded = "fn f() {\n    // SAFETY: I1.\n    let x =\n        unsafe { g() };\n}";
    assert_eq!(unsafe_mistakes(&source("src/ring/slots.rs", founded)).len(), 0);
}

#[test]
fn a_file_is_one_noun_and_opens_by_saying_which() {
    none(library().iter().flat_map(|source| {
        // The tests at the end aside.
        let lines = source.text.lines().take_while(|line| *line != "#[cfg(test)]").count();
        let long = (lines > LINES_MAX).then(|| source.complain(lines, format!("more than {LINES_MAX} lines: probably two nouns")));
        let mute = (!source.text.starts_with("//! ")).then(|| source.complain(1, "a file opens with //! and what it is"));
        long.into_iter().chain(mute)
    }));
}

#[test]
fn the_crate_root_lists_and_explains_and_does_nothing() {
    let sources = library();
    let lib = sources
        .iter()
        .find(|source| source.path == "src/lib.rs")
        .expect("there is a lib.rs");
    none(
        lib.code()
            .into_iter()
            .filter(|(_, code)| has_word(code, "fn"))
            .map(|(line, _)| lib.complain(line, "logic")),
    );
}

/// The tests that this text names, as ``module::name`` in backticks.
fn tests_named(text: &str) -> impl Iterator<Item = (&str, &str)> {
    let is_name = |word: &str| !word.is_empty() && word.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_');
    let quoted = text.split('`').skip(1).step_by(2);
    quoted
        .filter_map(|words| words.rsplit_once("::"))
        .filter(move |(path, name)| path.split("::").all(is_name) && is_name(name))
}

#[test]
fn every_test_that_a_row_names_is_there() {
    assert_eq!(
        tests_named("by `a::b_2`, `c::d::e` and `a::*`, `F::g`").collect::<Vec<_>>(),
        [("a", "b_2"), ("c::d", "e")]
    );
    let code = files(&["src", "tests"], &[".rs"]);
    let is_there = |(path, name): (&str, &str)| {
        let module = path.rsplit("::").next().unwrap();
        let function = format!("fn {name}(");
        code.iter()
            .any(|source| source.path.contains(module) && source.text.contains(&function))
    };
    let rows = files(&["tests"], &[".md"]);
    let named = rows.iter().flat_map(|row| tests_named(&row.text).map(move |test| (row, test)));
    none(
        named
            .filter(|(_, test)| !is_there(*test))
            .map(|(row, (path, name))| format!("{}: no test {path}::{name}", row.path)),
    );
}

#[test]
fn nothing_is_left_undone() {
    let marks = ["todo!(", "unimplemented!(", "dbg!("];
    let words = ["TODO", "FIXME", "XXX"];
    none(
        everything()
            .iter()
            .filter(|source| source.path != "tests/tidy.rs")
            .flat_map(|source| {
                let is_open = |line: &str| marks.iter().any(|mark| line.contains(mark)) || words.iter().any(|word| has_word(line, word));
                let open = source.text.lines().zip(1..).filter(move |(line, _)| is_open(line));
                open.map(|(line, number)| source.complain(number, line.trim())).collect::<Vec<_>>()
            }),
    );
}

#[test]
fn no_path_of_one_machine_is_written_down() {
    let parent = Path::new(ROOT).parent().map(|parent| format!("{}/", parent.display()));
    let own = parent.filter(|parent| parent != "//");
    let mut paths = vec!["/home/".to_owned(), "/Users/".to_owned(), "/root/".to_owned()];
    paths.extend(own);
    none(
        everything()
            .iter()
            .filter(|source| source.path != "tests/tidy.rs")
            .flat_map(|source| {
                let named = source
                    .text
                    .lines()
                    .zip(1..)
                    .filter(|(line, _)| paths.iter().any(|path| line.contains(path)));
                named.map(|(line, number)| source.complain(number, line.trim())).collect::<Vec<_>>()
            }),
    );
}

#[test]
fn the_text_is_ascii() {
    none(everything().iter().flat_map(|source| {
        let foreign = source.text.lines().zip(1..).filter(|(line, _)| !line.is_ascii());
        foreign
            .map(|(line, number)| source.complain(number, line.trim()))
            .collect::<Vec<_>>()
    }));
}
