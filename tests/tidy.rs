//! The rules that keep the picture in ARCHITECTURE.md true: the directions of imports, the modules with `unsafe`, no locks, file budgets.
//!
//! Each rule is a function from a file to its violations, shown to find one in a sample before it is applied to the tree.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

#[path = "tidy/circles.rs"]
mod circles;
#[path = "tidy/english.rs"]
mod english;

/// The modules that each module of the library may import.
const IMPORTS: [(&str, &[&str]); 20] = [
    ("sync", &[]),
    ("timer", &[]),
    (CODEC, &[]),
    ("drpc", &[]),
    ("addr", &["drpc"]),
    ("config", &["addr", "drpc"]),
    ("pace", &["sync"]),
    ("queue", &["sync"]),
    ("error", &[CODEC, "drpc"]),
    ("core", &["queue", "config", "error"]),
    ("wire", &["core", "queue", "config", "error", "drpc", CODEC]),
    (
        "bridge",
        &[
            "wire", "core", "queue", "sync", "config", "error", "addr", "pace",
        ],
    ),
    (
        "driver",
        &[
            "bridge", "wire", "queue", "sync", "config", "error", "pace", "timer",
        ],
    ),
    (
        "handle",
        &["bridge", "queue", CODEC, "error", "addr", "sync"],
    ),
    (
        "connect",
        &[
            "sync", CODEC, "addr", "config", "drpc", "pace", "queue", "error", "core", "wire",
            "bridge", "driver", "handle", "timer",
        ],
    ),
    (
        "manage",
        &[
            "connect", "handle", "error", "config", "addr", "queue", "sync", "pace", "timer",
        ],
    ),
    (
        "common",
        &["connect", "manage", "rpc", "error", CODEC, "config", "addr"],
    ),
    (
        "rpc",
        &[
            "connect", "handle", "manage", "error", "addr", "drpc", "pace", "sync", "timer",
        ],
    ),
    (
        "fuzzing",
        &[
            "wire", "bridge", "handle", "rpc", CODEC, "error", "config", "addr", "drpc",
        ],
    ),
    ("metrics", &["connect", "bridge", "manage", "rpc"]),
];

/// The codec of the native wire: a leaf, though it lies inside of its wire.
const CODEC: &str = "wire/native/frame";

/// Names that a module must not use, each unambiguous.
const ABSENT: [(&str, &[&str]); 9] = [
    (
        CODEC,
        &[
            "std::io",
            "std::net",
            "tokio",
            "Instant",
            "AtomicU32",
            "AtomicU64",
            "Waker",
        ],
    ),
    ("queue", &["tokio", "std::net", "StreamId"]),
    (
        "core",
        &[
            "Instant::now",
            "SystemTime",
            "std::net",
            "tokio",
            "tokio_uring",
            "std::thread",
            "Waker",
            "rand",
            "Lane",
            "SessionLink",
            "StreamId",
            "Role",
            "Header",
            "FRAME_COST",
        ],
    ),
    (
        "wire",
        &[
            "Instant::now",
            "SystemTime",
            "std::net",
            "tokio",
            "std::thread",
            "Waker",
            "Lane",
            "SessionLink",
        ],
    ),
    ("bridge", &["tokio", "std::net"]),
    ("driver", &["Frame", "Header"]),
    (
        "handle",
        &["std::net", "std::thread", "tokio_uring", "Instant::now"],
    ),
    (
        // Its clock is tokio's, which tests can stop.
        "manage",
        &["std::net", "std::thread", "std::time::Instant"],
    ),
    ("rpc", &["std::net", "std::time::Instant"]),
];

/// The packages beside the library.
const CRATES: [&str; 8] = [
    "crates/build",
    "crates/cli",
    "crates/interop",
    "crates/macros",
    "crates/measure",
    "crates/testing",
    "examples/proto",
    "perf",
];
const LOCKS: [&str; 4] = ["Mutex", "RwLock", "Condvar", "parking_lot"];
const UNFINISHED: [&str; 3] = ["todo!", "unimplemented!", "dbg!"];

/// Lines of a file, its tests left out.
const BUDGET_LINES: usize = 600;
/// The maximum of the median.
const BUDGET_MEDIAN_LINES: usize = 250;
/// Methods of a type over all its `impl` blocks, those of traits and tests left out.
const METHODS_MAX: usize = 40;
/// Lines of a function.
const FUNCTION_LINES: usize = 70;
/// Functions above it.
const FUNCTIONS_EXCEPTED: [(&str, &str); 0] = [];
/// How far above a block its SAFETY line may begin.
const SAFETY_REACH_LINES: usize = 10;

// ---- the tree -------------------------------------------------------------------------------

#[test]
fn imports_go_one_way() {
    let exports = exports(&library_root());
    check(library(), |file| wrong_imports(file, &exports));
}

#[test]
fn the_table_of_imports_is_the_one_in_the_architecture_page() {
    let page = fs::read_to_string(root().join("ARCHITECTURE.md")).unwrap();
    let shown = imports_shown(&page);
    for (module, imports) in IMPORTS {
        let imports: BTreeSet<String> = imports.iter().map(|&name| name.to_owned()).collect();
        assert_eq!(
            shown.get(module),
            Some(&imports),
            "ARCHITECTURE.md on {module}"
        );
    }
    let modules: BTreeSet<&str> = IMPORTS.iter().map(|(module, _)| *module).collect();
    let shown: BTreeSet<&str> = shown.keys().map(String::as_str).collect();
    assert_eq!(shown, modules);
}

#[test]
fn every_module_of_the_library_is_in_the_table() {
    let modules: BTreeSet<String> = library().iter().map(File::module).collect();
    let listed: BTreeSet<String> = IMPORTS.iter().map(|(name, _)| (*name).to_owned()).collect();
    assert_eq!(modules, listed);
}

#[test]
fn modules_do_without_what_they_promise_to() {
    check(library(), absent_words);
}

#[test]
fn unsafe_is_in_the_named_modules_only() {
    check(code_of_all(), stray_unsafe);
}

#[test]
fn every_unsafe_block_says_why_it_is_sound() {
    check(everything(), unexplained_unsafe);
}

#[test]
fn no_lock_is_between_a_handle_and_the_socket() {
    check(library(), locks);
}

#[test]
fn nothing_unfinished_is_left() {
    check(everything(), unfinished);
}

#[test]
fn every_file_says_what_it_is() {
    check(everything(), no_introduction);
}

#[test]
fn files_keep_to_their_budget() {
    let files = code_of_all();
    let mut lengths: Vec<usize> = files
        .iter()
        .filter(|file| !file.is_test())
        .map(|file| without_tests(&file.text).lines().count())
        .collect();
    lengths.sort_unstable();
    let median = lengths[lengths.len() / 2];
    println!(
        "{} files, median {median} lines, longest {}",
        lengths.len(),
        lengths[lengths.len() - 1]
    );
    assert!(median < BUDGET_MEDIAN_LINES, "median {median} lines");
    check(files, over_budget);
}

#[test]
fn no_type_has_more_methods_than_can_be_held_in_mind() {
    check_none(&too_many_methods(&library()));
}

#[test]
fn functions_fit_a_screen() {
    check(library(), long_functions);
}

#[test]
fn every_test_that_the_safety_page_names_exists() {
    let page = fs::read_to_string(root().join("SAFETY.md")).unwrap();
    let mut files = sources("src");
    files.extend(sources("tests"));
    files.extend(sources("crates/cli/tests"));
    let names = tests_named(&page);
    println!("{} tests are named", names.len());
    assert!(names.len() > 50, "{names:?}");
    let missing: Vec<&String> = names
        .iter()
        .filter(|name| !files.iter().any(|file| has_test(file, name)))
        .collect();
    assert!(missing.is_empty(), "{missing:#?}");
}

#[test]
fn every_path_that_the_architecture_page_names_exists() {
    let page = fs::read_to_string(root().join("ARCHITECTURE.md")).unwrap();
    let is_path = |name: &String| {
        let plain = |c: char| c.is_ascii_alphanumeric() || "_./-".contains(c);
        name.contains('/') && name.chars().all(plain)
    };
    let paths: Vec<String> = quoted(&page).into_iter().filter(is_path).collect();
    assert!(paths.len() > 50, "{paths:?}");
    let exists = |path: &String| {
        let tried = [
            path.clone(),
            format!("src/{path}"),
            format!("src/{path}.rs"),
        ];
        tried.iter().any(|path| root().join(path).exists())
    };
    let missing: Vec<&String> = paths.iter().filter(|path| !exists(path)).collect();
    assert!(missing.is_empty(), "{missing:#?}");
}

/// Applies a rule to every file and shows all violations.
fn check(files: Vec<File>, rule: impl Fn(&File) -> Vec<String>) {
    assert!(!files.is_empty(), "the rule is applied to nothing");
    let broken: Vec<String> = files
        .iter()
        .flat_map(|file| {
            let path = file.path.clone();
            rule(file)
                .into_iter()
                .map(move |what| format!("{path}: {what}"))
        })
        .collect();
    check_none(&broken);
}

fn check_none(broken: &[String]) {
    assert!(broken.is_empty(), "\n{}\n", broken.join("\n"));
}

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

struct File {
    /// From the root, such as `src/core/state.rs`.
    path: String,
    text: String,
}

impl File {
    fn new(path: &str, text: &str) -> Self {
        let (path, text) = (path.to_owned(), text.to_owned());
        Self { path, text }
    }

    /// A file of nothing but tests.
    fn is_test(&self) -> bool {
        self.path
            .split('/')
            .any(|part| part.trim_end_matches(".rs").ends_with("tests"))
    }

    /// `core` of `src/core/state.rs`, `addr` of `src/addr.rs`; and the codec, which is a module of its own.
    fn module(&self) -> String {
        let inner = self.path.strip_prefix("src/").unwrap_or(&self.path);
        if inner.starts_with(CODEC) {
            return CODEC.to_owned();
        }
        let first = inner.split('/').next().unwrap_or(inner);
        first.trim_end_matches(".rs").to_owned()
    }

    /// How many `super`s lead from it to the crate's root.
    fn depth(&self) -> usize {
        let inner = self.path.strip_prefix("src/").unwrap_or(&self.path);
        inner
            .trim_end_matches(".rs")
            .trim_end_matches("/mod")
            .split('/')
            .count()
    }
}

/// All Rust files below a directory, but for those that cargo makes.
fn sources(top: &str) -> Vec<File> {
    let mut files = Vec::new();
    let mut directories = vec![root().join(top)];
    while let Some(directory) = directories.pop() {
        for entry in fs::read_dir(&directory).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                if path.file_name() != Some("target".as_ref()) {
                    directories.push(path);
                }
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                files.push(read(&path));
            }
        }
    }
    files.sort_by(|a, b| a.path.cmp(&b.path));
    files
}

fn read(path: &Path) -> File {
    let shown = path.strip_prefix(root()).unwrap().to_str().unwrap();
    File::new(shown, &fs::read_to_string(path).unwrap())
}

/// The library's files: neither tests nor the list of exports.
fn library() -> Vec<File> {
    let mut files = sources("src");
    files.retain(|file| file.path != "src/lib.rs" && !file.is_test());
    files
}

/// The files of the library and of the packages beside it, without their integration tests and examples.
fn code_of_all() -> Vec<File> {
    let mut files = sources("src");
    for package in CRATES {
        files.extend(sources(&format!("{package}/src")));
    }
    files
}

/// Every file that is compiled, but for those of `fuzz`.
fn everything() -> Vec<File> {
    let mut files = Vec::new();
    for top in ["src", "tests", "benches", "examples", "crates", "perf"] {
        files.extend(sources(top));
    }
    files
}

fn library_root() -> String {
    fs::read_to_string(root().join("src/lib.rs")).unwrap()
}

// ---- rules ----------------------------------------------------------------------------------

fn wrong_imports(file: &File, exports: &BTreeMap<String, String>) -> Vec<String> {
    let module = file.module();
    let code = code(&without_tests(&file.text));
    let allowed = IMPORTS
        .iter()
        .find(|(name, _)| *name == module)
        .map_or(&[][..], |(_, allowed)| *allowed);
    let mut wrong = Vec::new();
    for name in crate_paths(&code) {
        let Some(target) = resolve(&name, exports) else {
            wrong.push(format!("crate::{name} is of no module of the table"));
            continue;
        };
        if target != module && !allowed.contains(&target) {
            wrong.push(format!("{module} may not import {target} (crate::{name})"));
        }
    }
    if supers(&code) >= file.depth() {
        wrong.push("super:: reaches the crate's root: name it crate::".to_owned());
    }
    wrong
}

/// The module that a path behind `crate::` belongs to.
fn resolve(path: &str, exports: &BTreeMap<String, String>) -> Option<&'static str> {
    if path.replace("::", "/").starts_with(CODEC) {
        return Some(CODEC);
    }
    let name = path.split("::").next().unwrap_or(path);
    let home = exports.get(name).map_or(name, String::as_str);
    IMPORTS
        .iter()
        .map(|(module, _)| *module)
        .find(|module| *module == home)
}

/// The paths behind every `crate::`, also of groups.
fn crate_paths(code: &str) -> Vec<String> {
    let mut names = Vec::new();
    for (at, _) in code.match_indices("crate::") {
        if code[..at].ends_with(|c: char| is_word(c) || c == '$') {
            continue;
        }
        let rest = code[at + "crate::".len()..].trim_start();
        match rest.strip_prefix('{') {
            Some(group) => names.extend(group_names(group)),
            None => names.push(first_name(rest)),
        }
    }
    names
}

/// The first names of the entries of a group whose brace is open.
fn group_names(group: &str) -> Vec<String> {
    let (mut depth, mut start, mut names) = (0, 0, Vec::new());
    for (at, c) in group.char_indices() {
        match c {
            '{' => depth += 1,
            '}' if depth > 0 => depth -= 1,
            ',' | '}' if depth == 0 => {
                names.push(first_name(group[start..at].trim()));
                start = at + 1;
                if c == '}' {
                    break;
                }
            }
            _ => {}
        }
    }
    names.retain(|name| !name.is_empty());
    names
}

/// The names up to a group. `*` for a glob, so that it is found in no table.
fn first_name(path: &str) -> String {
    match path.chars().next() {
        Some('*') => "*".to_owned(),
        _ => {
            let names = path.chars().take_while(|&c| is_word(c) || c == ':');
            names.collect::<String>().trim_end_matches(':').to_owned()
        }
    }
}

/// The longest chain of `super::`.
fn supers(code: &str) -> usize {
    let mut longest = 0;
    let mut rest = code;
    while let Some(at) = rest.find("super::") {
        let outside = rest[..at].ends_with(is_word);
        rest = &rest[at..];
        let mut chain = 0;
        while let Some(after) = rest.strip_prefix("super::") {
            rest = after;
            chain += 1;
        }
        if !outside {
            longest = longest.max(chain);
        }
    }
    longest
}

/// The module of each name that the library exports at its root.
fn exports(lib: &str) -> BTreeMap<String, String> {
    let code = code(lib);
    let mut exports = BTreeMap::new();
    for (at, _) in code.match_indices("pub use ") {
        let path = &code[at + "pub use ".len()..];
        let path = &path[..path.find(';').unwrap_or(path.len())];
        let Some((module, names)) = path.split_once("::") else {
            continue;
        };
        for name in names.trim_matches(['{', '}']).split(',') {
            let name = name
                .rsplit(' ')
                .find(|part| !part.is_empty())
                .unwrap_or(name);
            exports.insert(name.trim().to_owned(), module.trim().to_owned());
        }
    }
    exports
}

/// The rows of the table: module and imports. `everything above` stands for the modules of the rows before.
fn imports_shown(page: &str) -> BTreeMap<String, BTreeSet<String>> {
    let mut shown: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    let rows = page
        .lines()
        .skip_while(|line| !line.starts_with("| module | may import"));
    for row in rows.skip(2).take_while(|line| line.starts_with('|')) {
        let cells: Vec<&str> = row.split('|').map(str::trim).collect();
        let imports: BTreeSet<String> = match cells[2] {
            "everything above" => shown.keys().cloned().collect(),
            // The program: it is another crate and cannot reach further.
            "the public API" => continue,
            cell => quoted(cell),
        };
        for module in quoted(cells[1]) {
            shown.insert(module, imports.clone());
        }
    }
    shown
}

/// The names between backticks.
fn quoted(cell: &str) -> BTreeSet<String> {
    cell.split('`')
        .skip(1)
        .step_by(2)
        .map(str::to_owned)
        .collect()
}

/// The tests that a page names, as `target::path::name`, or `target::path::*` for all of a module.
fn tests_named(page: &str) -> BTreeSet<String> {
    let targets = [
        "lib::",
        "it::",
        "alone::",
        "process::",
        "outage::",
        "rpc::",
        "attack::",
        "forward::",
    ];
    let mut names = quoted(page);
    names.retain(|name| targets.iter().any(|target| name.starts_with(target)));
    names
}

/// Whether a file is of the target, and has the function, the module, or the row of a table of tests, that the name ends
/// with.
fn has_test(file: &File, name: &str) -> bool {
    let name = name.trim_end_matches("::*");
    let (target, path) = name.split_once("::").unwrap_or((name, ""));
    let top = match target {
        "lib" => "src/".to_owned(),
        "attack" => "crates/cli/tests/attack/".to_owned(),
        "forward" => "crates/cli/tests/it/forward/".to_owned(),
        target => format!("tests/{target}/"),
    };
    let last = path.rsplit("::").next().unwrap_or(path);
    // This check suffices for most files; blanking their comments takes a hundred times as long.
    if !file.path.starts_with(&top) || !file.text.contains(last) {
        return false;
    }
    let code = code(&file.text);
    let forms = [
        format!("fn {last}"),
        format!("mod {last}"),
        format!("    {last}:"),
    ];
    let declared = |form: &String| !lines_with(&code, form).is_empty();
    forms.iter().any(declared)
}

fn absent_words(file: &File) -> Vec<String> {
    let module = file.module();
    let code = code(&without_tests(&file.text));
    // Items built only for tests of other modules do not count.
    ABSENT
        .iter()
        .filter(|(name, _)| *name == module)
        .flat_map(|(_, words)| *words)
        .filter(|word| !lines_with(&code, word).is_empty())
        .map(|word| format!("{module} does without {word}"))
        .collect()
}

fn stray_unsafe(file: &File) -> Vec<String> {
    let named = file.path.starts_with("src/queue/")
        || file.path == "src/bridge/session/lane.rs"
        || file.path == "src/bridge/session/sides.rs"
        || file.path == "src/driver/queued.rs"
        || file.path == "src/driver/tokio_uring.rs"
        || file.path == "src/timer/recent.rs"
        || file.path.starts_with("src/driver/uring/")
        // Allocators that count.
        || file.path == "crates/testing/src/allocator.rs"
        || file.path == "perf/src/allocations.rs";
    if named {
        return Vec::new();
    }
    let lines = lines_with(&code(&file.text), "unsafe");
    lines
        .iter()
        .map(|line| format!("unsafe in line {line}"))
        .collect()
}

fn unexplained_unsafe(file: &File) -> Vec<String> {
    let code = code(&file.text);
    let raw: Vec<&str> = file.text.lines().collect();
    lines_with(&code, "unsafe")
        .into_iter()
        .filter(|line| {
            let here = code.lines().nth(line - 1).unwrap_or_default();
            // A declaration states its contract in its documentation.
            let declares = here.contains("unsafe fn") || here.contains("unsafe trait");
            let above = line.saturating_sub(1 + SAFETY_REACH_LINES)..*line;
            !declares && !raw[above].iter().any(|text| text.contains("SAFETY:"))
        })
        .map(|line| format!("no SAFETY line above line {line}"))
        .collect()
}

fn locks(file: &File) -> Vec<String> {
    let code = code(&without_tests(&file.text));
    let found = LOCKS
        .iter()
        .filter(|word| !lines_with(&code, word).is_empty());
    found.map(|word| (*word).to_owned()).collect()
}

fn unfinished(file: &File) -> Vec<String> {
    let code = code(&file.text);
    let found = UNFINISHED
        .iter()
        .filter(|word| !lines_with(&code, word).is_empty());
    found.map(|word| (*word).to_owned()).collect()
}

fn no_introduction(file: &File) -> Vec<String> {
    if file.text.starts_with("//! ") {
        Vec::new()
    } else {
        vec!["does not begin with //!".to_owned()]
    }
}

fn over_budget(file: &File) -> Vec<String> {
    let lines = without_tests(&file.text).lines().count();
    if file.is_test() || lines <= BUDGET_LINES {
        Vec::new()
    } else {
        vec![format!("{lines} lines without tests, of {BUDGET_LINES}")]
    }
}

/// Types of a module with more than [`METHODS_MAX`] methods.
fn too_many_methods(files: &[File]) -> Vec<String> {
    let mut counts: BTreeMap<(String, String), usize> = BTreeMap::new();
    for file in files {
        let code = code(&without_tests(&file.text));
        for (head, body) in blocks(&code, |line| {
            line.starts_with("impl ") || line.starts_with("impl<")
        }) {
            let Some(name) = inherent(&head) else {
                continue;
            };
            let methods = body.lines().filter(|line| {
                line.starts_with("    ") && !line.starts_with("     ") && function(line).is_some()
            });
            let place = counts.entry((file.module(), name)).or_default();
            *place += methods.count();
        }
    }
    counts
        .into_iter()
        .filter(|(_, count)| *count > METHODS_MAX)
        .map(|((module, name), count)| {
            format!("{module}: {name} has {count} methods, of {METHODS_MAX}")
        })
        .collect()
}

fn long_functions(file: &File) -> Vec<String> {
    let code = code(&without_tests(&file.text));
    blocks(&code, |line| function(line).is_some())
        .into_iter()
        .filter_map(|(head, body)| {
            let lines = head.lines().count() + body.lines().count() - 1;
            let name = function(head.lines().next()?)?;
            let excepted = FUNCTIONS_EXCEPTED.contains(&(file.path.as_str(), name.as_str()));
            (lines > FUNCTION_LINES && !excepted)
                .then(|| format!("fn {name} has {lines} lines, of {FUNCTION_LINES}"))
        })
        .collect()
}

/// The type of an `impl` that is not of a trait.
fn inherent(head: &str) -> Option<String> {
    if !lines_with(head, "for").is_empty() {
        return None;
    }
    let mut depth = 0_usize;
    let after = head.trim_start_matches("impl");
    let at = after.char_indices().find_map(|(at, c)| {
        match c {
            '<' => depth += 1,
            '>' => depth = depth.saturating_sub(1),
            c if depth == 0 && is_word(c) => return Some(at),
            _ => {}
        }
        None
    })?;
    Some(after[at..].chars().take_while(|&c| is_word(c)).collect())
}

/// The name of the function that a line begins.
fn function(line: &str) -> Option<String> {
    let line = line.trim_start();
    // `pub(in crate::handle)` has a space.
    let line = match line.strip_prefix("pub(") {
        Some(rest) => rest.split_once(')')?.1,
        None => line,
    };
    let mut words = line.split_whitespace();
    let before = ["pub", "const", "async", "unsafe", "extern"];
    let word = words.find(|word| !before.contains(word))?;
    let name = (word == "fn").then(|| words.next()).flatten()?;
    Some(name.chars().take_while(|&c| is_word(c)).collect())
}

/// The blocks that begin in lines of a kind: what stands before the brace, and what is inside of it with the brace that
/// ends it.
fn blocks(code: &str, begins: impl Fn(&str) -> bool) -> Vec<(String, String)> {
    let mut found = Vec::new();
    let mut at = 0;
    for line in code.split_inclusive('\n') {
        let from = at;
        at += line.len();
        if !begins(line.trim_end_matches('\n')) {
            continue;
        }
        let mut nested = 0_usize;
        let open = code[from..].char_indices().find(|(_, c)| {
            match c {
                '(' | '[' => nested += 1,
                ')' | ']' => nested = nested.saturating_sub(1),
                _ => {}
            }
            nested == 0 && matches!(c, '{' | ';')
        });
        let Some((open, '{')) = open.map(|(at, c)| (from + at, c)) else {
            continue;
        };
        let mut depth = 0_usize;
        let close = code[open..].char_indices().find_map(|(at, c)| {
            match c {
                '{' => depth += 1,
                '}' => depth -= 1,
                _ => {}
            }
            (depth == 0).then_some(open + at + 1)
        });
        let close = close.unwrap_or(code.len());
        found.push((code[from..open].to_owned(), code[open..close].to_owned()));
    }
    found
}

// ---- reading Rust ---------------------------------------------------------------------------

const fn is_word(c: char) -> bool {
    c.is_ascii_alphanumeric() || c == '_'
}

/// Numbers of the lines, from 1, with `word` as a whole word.
fn lines_with(code: &str, word: &str) -> Vec<usize> {
    let whole = |line: &str| {
        line.match_indices(word).any(|(at, _)| {
            let before = line[..at].chars().next_back();
            let after = line[at + word.len()..].chars().next();
            let goes_on = word.ends_with(is_word) && after.is_some_and(is_word);
            !(goes_on || before.is_some_and(is_word))
        })
    };
    let lines = code.lines().enumerate().filter(|(_, line)| whole(line));
    lines.map(|(n, _)| n + 1).collect()
}

/// The text without the items that are compiled for tests only: those behind `#[cfg(test)]` or
/// `#[cfg(all(test, ..))]` at the beginning of a line.
fn without_tests(text: &str) -> String {
    let mut kept = String::new();
    let mut lines = text.lines();
    while let Some(line) = lines.next() {
        if !(line.starts_with("#[cfg(test)]") || line.starts_with("#[cfg(all(test,")) {
            kept.push_str(line);
            kept.push('\n');
            continue;
        }
        // Further attributes, then an item in one line or one that ends with a brace of its own.
        let item = lines
            .by_ref()
            .find(|line| line.ends_with(';') || line.ends_with('{'));
        if item.is_some_and(|item| item.ends_with('{')) {
            lines.by_ref().find(|line| *line == "}");
        }
    }
    kept
}

/// The text with comments and the content of literals blanked; lines stay where they are.
fn code(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(c) = rest.chars().next() {
        let after_word = out.ends_with(is_word);
        let len = match c {
            '/' if rest.starts_with("//") => rest.find('\n').unwrap_or(rest.len()),
            '/' if rest.starts_with("/*") => block_comment(rest),
            '"' => quoted_len(rest, '"'),
            '\'' => char_len(rest),
            'r' | 'b' | 'c' if !after_word => raw_string_len(rest),
            _ => 0,
        };
        if len == 0 {
            // A word at a time: no literal begins inside of one.
            let word = rest.find(|c| !is_word(c)).unwrap_or(rest.len());
            let kept = word.max(c.len_utf8());
            out.push_str(&rest[..kept]);
            rest = &rest[kept..];
        } else {
            out.extend(
                rest[..len]
                    .chars()
                    .map(|c| if c == '\n' { '\n' } else { ' ' }),
            );
            rest = &rest[len..];
        }
    }
    out
}

/// Block comments nest.
fn block_comment(text: &str) -> usize {
    let mut depth = 0;
    let mut at = 0;
    while at < text.len() {
        if text[at..].starts_with("/*") {
            depth += 1;
            at += 2;
        } else if text[at..].starts_with("*/") {
            depth -= 1;
            at += 2;
            if depth == 0 {
                return at;
            }
        } else {
            at += text[at..].chars().next().map_or(1, char::len_utf8);
        }
    }
    text.len()
}

/// The length of a literal that begins with a quote and may have escapes.
fn quoted_len(text: &str, quote: char) -> usize {
    let mut escaped = false;
    for (at, c) in text.char_indices().skip(1) {
        match c {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            c if c == quote => return at + 1,
            _ => {}
        }
    }
    text.len()
}

/// 0 for a lifetime.
fn char_len(text: &str) -> usize {
    let mut chars = text.char_indices().skip(1);
    match (chars.next(), chars.next()) {
        (Some((_, '\\')), _) => quoted_len(text, '\''),
        (Some(_), Some((at, '\''))) => at + 1,
        _ => 0,
    }
}

/// 0 if the text does not begin with a raw string.
fn raw_string_len(text: &str) -> usize {
    let after_prefix = text.trim_start_matches(['b', 'c']);
    let Some(after_r) = after_prefix.strip_prefix('r') else {
        return 0;
    };
    let hashes = after_r.len() - after_r.trim_start_matches('#').len();
    if text.len() - after_prefix.len() > 1 || !after_r[hashes..].starts_with('"') {
        return 0;
    }
    let begin = text.len() - after_r.len() + hashes + 1;
    let end = format!("\"{}", "#".repeat(hashes));
    text[begin..]
        .find(&end)
        .map_or(text.len(), |at| begin + at + end.len())
}

// ---- each rule finds its violations ---------------------------------------------------------

mod on_samples {
    use super::*;

    fn no_exports() -> BTreeMap<String, String> {
        BTreeMap::new()
    }

    fn imports(path: &str, text: &str) -> Vec<String> {
        wrong_imports(&File::new(path, text), &no_exports())
    }

    #[test]
    fn a_wrong_way_import_is_found_however_it_is_written() {
        for text in [
            "use crate::wire::Batch;",
            "use crate::{error::X, wire::Batch};",
            "use crate::{\n    error::{X, Y},\n    wire::Batch,\n};",
            "fn f() { crate::driver::go() }",
            "pub(in crate::wire) fn f() {}",
            "use crate::*;",
            "use crate::unheard_of::X;",
        ] {
            assert_eq!(imports("src/handle/send.rs", text).len(), 1, "{text}");
        }
    }

    #[test]
    fn a_right_way_import_a_comment_and_a_test_are_none() {
        for text in [
            "use crate::error::X;",
            "use crate::{error::X, bridge::{Lane, Y}};",
            "// use crate::wire::Batch;",
            "/// See [`wire`](crate::wire).\nfn f() {}",
            "const X: &str = \"crate::wire\";",
            "use crate::handle::wait::Wait;",
            "use super::wait::Wait;",
            "macro_rules! m { () => { $crate::wire::X }; }",
            "#[cfg(test)]\nmod tests {\n    use crate::wire::X;\n}\n",
        ] {
            assert!(imports("src/handle/send.rs", text).is_empty(), "{text}");
        }
    }

    #[test]
    fn an_import_behind_the_tests_is_found() {
        let text = "#[cfg(test)]\nmod tests;\n\nuse crate::wire::X;\n";
        assert_eq!(imports("src/handle/mod.rs", text).len(), 1);
        let text =
            "#[cfg(all(test, x))]\nmod tests {\n    fn f() {\n    }\n}\nuse crate::wire::X;\n";
        assert_eq!(imports("src/handle/mod.rs", text).len(), 1);
    }

    #[test]
    fn the_codec_is_a_module_of_its_own() {
        let path = "src/wire/native/frame/kind.rs";
        assert_eq!(imports(path, "use crate::wire::native::Native;").len(), 1);
        let codec = "use crate::wire::native::frame::{Frame, StreamId};";
        assert!(imports("src/error.rs", codec).is_empty());
        assert!(imports(path, codec).is_empty());
        assert_eq!(imports("src/core/x.rs", codec).len(), 1);
    }

    #[test]
    fn a_type_with_too_many_methods_is_found_over_all_its_blocks() {
        let block = |methods: usize| {
            let methods = "    pub(crate) fn f(&self) {\n    }\n".repeat(methods);
            format!(
                "impl<T: Into<Vec<u8>>> X<T> {{\n{methods}}}\nimpl Clone for X {{\n    fn g() {{}}\n}}\n"
            )
        };
        let found = |texts: &[String]| {
            let file = |text: &String| File::new("src/core/x.rs", text);
            too_many_methods(&texts.iter().map(file).collect::<Vec<_>>()).len()
        };
        let (some, rest) = (block(METHODS_MAX - 1), block(1));
        assert_eq!(found(&[some.clone(), rest.clone()]), 0);
        assert_eq!(found(&[some, rest.clone(), rest]), 1);
    }

    #[test]
    fn a_long_function_is_found() {
        let function = |lines: usize| {
            format!(
                "    fn f(x: &str) -> u8 {{\n{}    }}\n",
                "        g();\n".repeat(lines - 2)
            )
        };
        let found = |text: &str| long_functions(&File::new("src/core/x.rs", text)).len();
        assert_eq!(found(&function(FUNCTION_LINES)), 0);
        assert_eq!(found(&function(FUNCTION_LINES + 1)), 1);
        assert_eq!(found(&function(FUNCTION_LINES - 1).repeat(3)), 0);
    }

    #[test]
    fn a_name_exported_at_the_root_counts_as_its_module() {
        let exports = exports("pub use wire::{Pool, Key as Name};\npub use error::One;\n");
        let wrong = |text| wrong_imports(&File::new("src/handle/send.rs", text), &exports).len();
        assert_eq!(wrong("fn f(x: crate::Pool) {}"), 1);
        assert_eq!(wrong("fn f(x: crate::Name) {}"), 1);
        assert_eq!(wrong("fn f(x: crate::One) {}"), 0);
    }

    #[test]
    fn a_way_round_through_super_is_found() {
        assert_eq!(
            imports("src/handle/send.rs", "use super::super::wire::X;").len(),
            1
        );
        assert_eq!(imports("src/handle/mod.rs", "use super::wire::X;").len(), 1);
        assert_eq!(imports("src/addr.rs", "use super::wire::X;").len(), 1);
        assert!(imports("src/queue/ring/reader.rs", "use super::super::Payload;").is_empty());
    }

    #[test]
    fn a_forbidden_word_is_found_and_longer_words_are_not() {
        let found = |text| absent_words(&File::new("src/core/x.rs", text)).len();
        assert_eq!(found("let now = Instant::now();"), 1);
        assert_eq!(found("let x: tokio::time::Sleep;"), 1);
        assert_eq!(found("let now: Instant = other::now();"), 0);
        assert_eq!(found("operand(); // Instant::now()"), 0);
    }

    #[test]
    fn unsafe_elsewhere_is_found() {
        let found = |path, text| stray_unsafe(&File::new(path, text)).len();
        assert_eq!(found("src/core/x.rs", "fn f() {\n    unsafe { g() }\n}"), 1);
        assert_eq!(
            found("src/bridge/session.rs", "unsafe impl Send for X {}"),
            1
        );
        assert_eq!(
            found("src/bridge/session/lane.rs", "unsafe impl Send for X {}"),
            0
        );
        assert_eq!(found("src/queue/ring.rs", "unsafe { g() }"), 0);
        assert_eq!(
            found("src/core/x.rs", "#![forbid(unsafe_code)] // unsafe"),
            0
        );
    }

    #[test]
    fn unsafe_without_a_reason_is_found() {
        let found = |text: &str| unexplained_unsafe(&File::new("src/queue/x.rs", text)).len();
        assert_eq!(found("fn f() {\n    unsafe { g() }\n}"), 1);
        assert_eq!(found("unsafe impl Send for X {}"), 1);
        assert_eq!(
            found("// SAFETY: one thread.\nunsafe impl Send for X {}"),
            0
        );
        assert_eq!(found("unsafe fn f();"), 0);
        let far = format!("// SAFETY: far.\n{}unsafe {{ g() }}", "\n".repeat(20));
        assert_eq!(found(&far), 1);
    }

    #[test]
    fn a_lock_is_found_but_not_in_tests() {
        let found = |text| locks(&File::new("src/bridge/x.rs", text)).len();
        assert_eq!(found("use std::sync::Mutex;"), 1);
        assert_eq!(found("x: tokio::sync::RwLock<u8>,"), 1);
        assert_eq!(found("use std::sync::MutexFree; // Mutex"), 0);
        assert_eq!(
            found("#[cfg(test)]\nmod tests {\n    use std::sync::Mutex;\n}\n"),
            0
        );
    }

    #[test]
    fn unfinished_work_is_found() {
        let found = |text: &str| unfinished(&File::new("src/x.rs", text)).len();
        for macro_name in ["todo", "unimplemented", "dbg"] {
            assert_eq!(found(&format!("fn f() {{ {macro_name}!() }}")), 1);
        }
        assert_eq!(found("let text = \"todo!\"; // dbg!"), 0);
    }

    #[test]
    fn a_file_without_introduction_is_found() {
        assert_eq!(
            no_introduction(&File::new("src/x.rs", "use std::fmt;\n//! late")).len(),
            1
        );
        assert!(no_introduction(&File::new("src/x.rs", "//! What it is.\n")).is_empty());
    }

    #[test]
    fn a_long_file_is_found_and_its_tests_do_not_count() {
        let line = "fn f() {}\n";
        let found = |text: &str| over_budget(&File::new("src/x.rs", text)).len();
        assert_eq!(found(&line.repeat(BUDGET_LINES + 1)), 1);
        assert_eq!(found(&line.repeat(BUDGET_LINES)), 0);
        let tests = format!(
            "#[cfg(test)]\nmod tests {{\n{}}}\n",
            "    // x\n".repeat(500)
        );
        assert_eq!(found(&(line.repeat(BUDGET_LINES) + &tests)), 0);
        assert_eq!(found(&(tests + &line.repeat(BUDGET_LINES + 1))), 1);
    }

    #[test]
    fn literals_and_comments_are_not_code() {
        for text in [
            "\"unsafe\"",
            "b\"unsafe\"",
            "r\"unsafe\"",
            "r#\"un\"unsafe\"#",
            "br##\"unsafe\"##",
            "/* a /* b */ unsafe */",
            "// unsafe",
            "\"\\\"unsafe\"",
        ] {
            assert!(lines_with(&code(text), "unsafe").is_empty(), "{text}");
        }
        for text in [
            "fn f<'a>(x: &'a u8) { unsafe {} }",
            "let c = '\"'; unsafe {} // \"",
            "let c = '\\''; unsafe {}",
            "let r = 1; unsafe {}",
            "let url = \"http://x\"; unsafe {}",
        ] {
            assert_eq!(lines_with(&code(text), "unsafe"), [1], "{text}");
        }
        assert_eq!(lines_with(&code("\"a\nb\"\nunsafe {}"), "unsafe"), [3]);
    }

    #[test]
    fn a_test_that_a_page_names_is_found_in_its_target_only() {
        let names = tests_named("`it::a::b`, `lib::c::*`, `src/x.rs`, `attack::d::*`");
        assert_eq!(names.len(), 3);
        let file = |path, text| File::new(path, text);
        assert!(has_test(
            &file("tests/it/a.rs", "async fn b(net: Net) {}"),
            "it::a::b"
        ));
        assert!(!has_test(&file("tests/it/a.rs", "fn bb() {}"), "it::a::b"));
        assert!(!has_test(
            &file("tests/alone/a.rs", "fn b() {}"),
            "it::a::b"
        ));
        assert!(has_test(&file("src/c.rs", "mod c;"), "lib::c::*"));
        assert!(has_test(
            &file("crates/cli/tests/attack/main.rs", "    d: 1 Two;"),
            "attack::d::*"
        ));
    }

    #[test]
    fn the_pages_table_is_read() {
        let page = "\
| module | may import | deliberately absent |
|---|---|---|
| `a`, `b` | nothing | |
| `c` | `a`, `b` | `d` |
| `e` | everything above | |
| `bin` | the public API | |

| `f` | `a` | |
";
        let set = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
        let shown: BTreeMap<String, BTreeSet<String>> = [
            ("a".to_owned(), set(&[])),
            ("b".to_owned(), set(&[])),
            ("c".to_owned(), set(&["a", "b"])),
            ("e".to_owned(), set(&["a", "b", "c"])),
        ]
        .into();
        assert_eq!(imports_shown(page), shown);
    }
}
