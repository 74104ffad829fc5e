//! No circle of imports inside a module, but for a module and those below it.
//!
//! The modules directly below one module are compared, each with all that is below it: an import between two of them is an
//! edge. A path to a name that their parent exports counts as one to the module that has it.

use std::collections::{BTreeMap, BTreeSet};

use super::{File, check_none, code, is_word, library, without_tests};

type Path = Vec<String>;

/// The modules of some files.
struct Tree {
    code: BTreeMap<Path, String>,
    /// The paths behind the names that a module exports.
    exports: BTreeMap<Path, BTreeMap<String, String>>,
}

/// The path of a file's module, such as `["core", "mux", "apply"]`.
fn module_path(file: &File) -> Path {
    let inner = file.path.strip_prefix("src/").unwrap_or(&file.path);
    let inner = inner.trim_end_matches(".rs").trim_end_matches("/mod");
    inner.split('/').map(str::to_owned).collect()
}

impl Tree {
    fn new(files: &[File]) -> Self {
        let code: BTreeMap<Path, String> = files
            .iter()
            .map(|file| (module_path(file), code(&without_tests(&file.text))))
            .collect();
        let exports = code.iter().map(|(module, text)| {
            let named = exported(text)
                .into_iter()
                .map(|path| (last(&path).to_owned(), path));
            (module.clone(), named.collect())
        });
        let exports = exports.collect();
        Self { code, exports }
    }

    /// The module that a path in `from` leads to.
    fn resolve(&self, from: &Path, path: &str, depth: usize) -> Option<Path> {
        let mut names = path.split("::").peekable();
        let mut at = from.clone();
        match *names.peek()? {
            "crate" => {
                at.clear();
                names.next();
            }
            "self" => {
                names.next();
            }
            "super" => {
                while names.next_if_eq(&"super").is_some() {
                    at.pop();
                }
            }
            child => {
                at.push(child.to_owned());
                let is_child = self.code.contains_key(&at);
                at.pop();
                if !is_child {
                    return None;
                }
            }
        }
        while let Some(name) = names.peek() {
            at.push((*name).to_owned());
            if !self.code.contains_key(&at) {
                at.pop();
                break;
            }
            names.next();
        }
        let behind = names
            .peek()
            .and_then(|name| self.exports.get(&at)?.get(*name))
            .filter(|_| depth < 5)
            .and_then(|path| self.resolve(&at, path, depth + 1));
        Some(behind.unwrap_or(at))
    }

    /// For each module, which of those directly below it import which others, and an example.
    fn edges(&self) -> BTreeMap<Path, BTreeMap<String, BTreeMap<String, String>>> {
        let mut edges: BTreeMap<Path, BTreeMap<String, BTreeMap<String, String>>> = BTreeMap::new();
        for (from, text) in &self.code {
            for path in paths(text) {
                let Some(to) = self.resolve(from, &path, 0) else {
                    continue;
                };
                let common = (from.iter().zip(&to)).take_while(|(a, b)| a == b).count();
                // One contains the other, or the table of imports has it.
                if common == 0 || common == from.len() || common == to.len() {
                    continue;
                }
                let of = edges.entry(from[..common].to_vec()).or_default();
                let targets = of.entry(from[common].clone()).or_default();
                let example = || format!("{} uses {path}", from.join("/"));
                targets.entry(to[common].clone()).or_insert_with(example);
            }
        }
        edges
    }
}

/// The last name of a path.
fn last(path: &str) -> &str {
    path.rsplit("::").next().unwrap_or(path)
}

/// Every path of a text, those of `use` without their groups.
fn paths(text: &str) -> Vec<String> {
    let mut found = Vec::new();
    let mut rest = text;
    while let Some(at) = rest.find("::") {
        let start = rest[..at]
            .rfind(|c: char| !is_word(c))
            .map_or(0, |before| before + 1);
        // A macro's, or a generic's.
        let wanted = start < at && !rest[..start].ends_with('$');
        let len = tree_len(&rest[start..]);
        if wanted {
            expand("", &rest[start..start + len], &mut found);
        }
        rest = &rest[start + len.max(at + 2 - start)..];
    }
    found
}

/// The length of a path and its group.
fn tree_len(text: &str) -> usize {
    let mut depth = 0_usize;
    let end = text.char_indices().find(|(at, c)| {
        match c {
            '{' if text[..*at].ends_with("::") || depth > 0 => depth += 1,
            '}' if depth > 0 => {
                depth -= 1;
                return false;
            }
            _ => {}
        }
        depth == 0 && !is_word(*c) && *c != ':'
    });
    end.map_or(text.len(), |(at, _)| at)
}

/// The paths of a tree of `use`.
fn expand(prefix: &str, tree: &str, found: &mut Vec<String>) {
    let Some((path, group)) = tree.split_once('{') else {
        let path = tree.split(" as ").next().unwrap_or(tree).trim();
        let path = format!("{prefix}{}", path.trim_end_matches(':'));
        return found.push(path.trim_end_matches("::self").to_owned());
    };
    let prefix = format!("{prefix}{}", path.trim());
    let (mut depth, mut start) = (0_usize, 0);
    for (at, c) in group.char_indices() {
        match c {
            '{' => depth += 1,
            '}' if depth > 0 => depth -= 1,
            ',' | '}' if depth == 0 => {
                if !group[start..at].trim().is_empty() {
                    expand(&prefix, group[start..at].trim(), found);
                }
                start = at + 1;
            }
            _ => {}
        }
    }
}

/// The paths that a module exports.
fn exported(text: &str) -> Vec<String> {
    let mut found = Vec::new();
    for (at, _) in text.match_indices("use ") {
        let line = text[..at].rfind('\n').map_or(0, |end| end + 1);
        if !text[line..at].trim_start().starts_with("pub") {
            continue;
        }
        let tree = &text[at + "use ".len()..];
        expand(
            "",
            &tree[..tree.find(';').unwrap_or(tree.len())],
            &mut found,
        );
    }
    found
}

/// The nodes that can be reached from one.
fn reached(graph: &BTreeMap<String, BTreeMap<String, String>>, from: &str) -> BTreeSet<String> {
    let mut reached = BTreeSet::new();
    let mut next = vec![from.to_owned()];
    while let Some(node) = next.pop() {
        for target in graph.get(&node).into_iter().flat_map(BTreeMap::keys) {
            if reached.insert(target.clone()) {
                next.push(target.clone());
            }
        }
    }
    reached
}

/// The imports that belong to circles.
fn circles(files: &[File]) -> Vec<String> {
    let mut found = Vec::new();
    for (parent, graph) in Tree::new(files).edges() {
        let within: BTreeMap<&String, BTreeSet<String>> = graph
            .keys()
            .map(|node| (node, reached(&graph, node)))
            .collect();
        for (node, targets) in &graph {
            let path = format!("{}/{node}", parent.join("/"));
            for (target, example) in targets {
                let back = within.get(target).is_some_and(|all| all.contains(node));
                if back {
                    found.push(format!("{path} and {target} are in a circle: {example}"));
                }
            }
        }
    }
    found
}

#[test]
fn inside_a_module_imports_make_no_circle_but_with_those_below_one() {
    check_none(&circles(&library()));
}

mod on_samples {
    use super::*;

    fn found(files: &[(&str, &str)]) -> usize {
        let file = |(path, text): &(&str, &str)| File::new(path, text);
        circles(&files.iter().map(file).collect::<Vec<_>>()).len()
    }

    #[test]
    fn a_circle_of_two_or_three_is_found_however_it_is_written() {
        for back in [
            "use super::a::A;",
            "use crate::top::a::A;",
            "use crate::top::{a::A, c};",
            "use crate::{top::{c, a::{A, B}}, x};",
            "fn f() { super::a::g() }",
            "use super::A;",
        ] {
            let top = (
                "src/top/mod.rs",
                "mod a;\nmod b;\npub(crate) use a::{A, B};",
            );
            let a = ("src/top/a.rs", "use super::b::B;");
            assert_eq!(found(&[top, a, ("src/top/b.rs", back)]), 2, "{back}");
            let [b, c] = [("src/top/b.rs", "use super::c;"), ("src/top/c.rs", back)];
            assert_eq!(found(&[top, a, b, c]), 3, "{back}");
        }
    }

    #[test]
    fn a_parent_and_its_children_are_none_and_neither_is_one_way() {
        let files = [
            ("src/top/mod.rs", "mod a;\nmod b;\npub use a::A;"),
            ("src/top/a.rs", "mod in_a;\nuse in_a::X;\nuse super::Top;"),
            (
                "src/top/a/in_a.rs",
                "use super::A;\nuse super::super::b::B;",
            ),
            ("src/top/b.rs", "use std::fmt;\nuse super::Top;"),
        ];
        assert_eq!(found(&files), 0);
    }

    #[test]
    fn a_circle_between_what_is_below_two_modules_is_found() {
        let files = [
            ("src/top/mod.rs", "mod a;\nmod b;"),
            ("src/top/a.rs", "mod in_a;"),
            ("src/top/a/in_a.rs", "use super::super::b::B;"),
            ("src/top/b.rs", "mod in_b;"),
            ("src/top/b/in_b.rs", "use crate::top::a::A;"),
        ];
        assert_eq!(found(&files), 2);
    }
}
