//! Plain English: words that comments, documents and texts do without.

use std::fs;

use super::{File, check, code, everything, is_word, root, sources};

/// A comment names the party: the caller, the peer, the engine, the application.
const WORDS: [&str; 5] = ["whoever", "whomever", "nobody", "somebody", "everybody"];
/// After `what`, these make a riddle of a noun: "what comes" are received bytes, "what was queued" are queued messages.
const VERBS: [&str; 15] = [
    "comes", "came", "lies", "lay", "was", "were", "arrives", "arrived", "becomes", "became",
    "handles", "sessions", "streams", "peers", "callers",
];
const DOCUMENTS: [&str; 10] = [
    "ARCHITECTURE.md",
    "CHANGELOG.md",
    "CONTRIBUTING.md",
    "MIGRATING.md",
    "README.md",
    "SAFETY.md",
    "deploy/README.md",
    "deploy/ringmux-forward.service",
    "deploy/ringmux.service",
    "perf/README.md",
];

#[test]
fn prose_does_without_riddles() {
    check(prose_of_all(), riddles);
}

/// The comments and literals of all Rust files but this one, and the documents.
fn prose_of_all() -> Vec<File> {
    let mut files = everything();
    files.extend(sources("fuzz/fuzz_targets"));
    files.retain(|file| file.path != "tests/tidy/english.rs");
    for file in &mut files {
        file.text = prose(&file.text);
    }
    for path in DOCUMENTS {
        let text = fs::read_to_string(root().join(path)).unwrap();
        files.push(File::new(path, &text));
    }
    files
}

/// The comments and literals of a Rust file, each character of code replaced by `|`; lines stay where they are.
fn prose(text: &str) -> String {
    let pairs = text.chars().zip(code(text).chars().collect::<Vec<_>>());
    let kept = pairs.map(|(c, of_code)| match of_code.is_whitespace() {
        true => c,
        false => '|',
    });
    kept.collect()
}

/// The banned words of a text, with their lines.
fn riddles(file: &File) -> Vec<String> {
    let text = file.text.to_lowercase();
    let mut found = Vec::new();
    let mut after_what = false;
    for (at, word) in words(&text) {
        let is_noun = after_what && VERBS.contains(&word);
        if is_noun || WORDS.contains(&word) {
            let line = text[..at].matches('\n').count() + 1;
            let what = if is_noun { "what " } else { "" };
            found.push(format!("line {line}: {what}{word}"));
        }
        // The next word may be in the next line of a comment.
        let rest = text[at + word.len()..].trim_start_matches([' ', '\n', '/', '!', '#']);
        after_what = word == "what" && rest.starts_with(is_word);
    }
    found
}

/// The words of a text and where they begin.
fn words(text: &str) -> impl Iterator<Item = (usize, &str)> {
    text.split(|c| !is_word(c))
        .filter(|word| !word.is_empty())
        .map(|word| (word.as_ptr().addr() - text.as_ptr().addr(), word))
}

// ---- the rule finds violations --------------------------------------------------------------

#[test]
fn a_banned_word_is_found_in_comments_texts_and_documents() {
    let found = |text: &str| riddles(&File::new("src/x.rs", &prose(text)));
    assert_eq!(found("// Whoever waits.\n"), ["line 1: whoever"]);
    assert_eq!(found("\nf(\"nobody waits\");"), ["line 2: nobody"]);
    assert_eq!(
        found("/// Reads what\n/// comes.\n"),
        ["line 2: what comes"]
    );
    let page = File::new("README.md", "for\neverybody");
    assert_eq!(riddles(&page), ["line 2: everybody"]);
}

#[test]
fn names_and_questions_are_not_found() {
    let found = |text: &str| riddles(&File::new("src/x.rs", &prose(text)));
    assert!(found("let nobody = 1; // a name: `resets_count_whoever_makes_them`").is_empty());
    assert!(found("// Asks what to do. Was it done?\n").is_empty());
    assert!(found("/* what */ f(1) /* comes */").is_empty());
}
