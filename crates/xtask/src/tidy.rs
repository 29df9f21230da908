//! The rules of writing that neither compiler nor clippy knows.
//!
//! Looks at every file that git would commit. The rules are about text, line by line, and know
//! no syntax: each is chosen so that a false alarm is rarer than a true one.

use std::path::Path;

use crate::command::{self, Outcome};

/// Lines of production code that a file may have.
const FILE_LINES_MAX: usize = 1000;
/// Bytes that a committed file may have; larger ones are fetched or made.
const FILE_BYTES_MAX: usize = 512 * 1024;
/// Minutes that listing the files may take.
const LIST_MINUTES: u64 = 1;

/// Crates that may hold unsafe code; all others forbid it at their root.
const UNSAFE_CRATES: [&str; 4] =
    ["crates/platform/", "crates/fuse/", "crates/preload/", "crates/capi/"];

/// The file that has to spell the forbidden words.
const THIS_FILE: &str = "crates/xtask/src/tidy.rs";

/// Words no code may hold, and what to write instead.
const CODE_BANS: [(&str, &str); 5] = [
    ("todo!", "finish it, or return an error"),
    ("unimplemented!", "finish it, or return an error"),
    ("dbg!", "use tracing"),
    ("#[ignore", "a test that does not run is no test"),
    ("thread_rng", "randomness comes from ringfs_platform"),
];

/// Words no comment may hold, in lower case: comments say what is and why, commits say what was.
const COMMENT_BANS: [&str; 11] = [
    "todo",
    "fixme",
    "xxx",
    "previously",
    "formerly",
    "for now",
    "at the moment",
    "in a later version",
    "refactored",
    "backwards compatibility with the old",
    "pull request",
];

/// Check every file that git knows or would add.
pub(crate) fn run() -> Outcome {
    let listed = command::capture(command::program("git", LIST_MINUTES).args([
        "ls-files",
        "--cached",
        "--others",
        "--exclude-standard",
        "--deduplicate",
    ]))?;
    let root = command::root();
    let mut findings = Vec::new();
    for path in listed.lines() {
        // A listed file that is gone is a deletion on its way into a commit.
        let Ok(bytes) = std::fs::read(root.join(path)) else { continue };
        if bytes.len() > FILE_BYTES_MAX {
            findings.push(format!("{path}: {} bytes; the limit is {FILE_BYTES_MAX}", bytes.len()));
        }
        if path.ends_with(".rs") {
            findings.extend(check(path, &String::from_utf8_lossy(&bytes)));
        }
    }
    command::outcome(findings)
}

/// What is wrong with one source file.
fn check(path: &str, text: &str) -> Vec<String> {
    let mut findings = Vec::new();
    if !text.starts_with("//!") && !text.starts_with("#![no_main]") {
        findings.push(format!("{path}:1: open with a //! line that says what the file owns"));
    }
    let count = production_lines(path, text);
    if count > FILE_LINES_MAX {
        findings.push(format!("{path}: {count} lines; the limit is {FILE_LINES_MAX}"));
    }
    if is_crate_root(path) && !text.contains("#![forbid(unsafe_code)]") {
        findings.push(format!("{path}: a crate without unsafe code says #![forbid(unsafe_code)]"));
    }
    if path != THIS_FILE {
        for (index, line) in text.lines().enumerate() {
            let wrong = check_line(line);
            findings.extend(wrong.map(|wrong| format!("{path}:{}: {wrong}", index + 1)));
        }
    }
    findings
}

/// The first thing wrong with one line.
fn check_line(line: &str) -> Option<String> {
    let (code, comment) = line.find("//").map_or((line, ""), |at| line.split_at(at));
    if let Some((word, instead)) = CODE_BANS.iter().find(|(word, _)| code.contains(word)) {
        return Some(format!("{word}: {instead}"));
    }
    let comment = comment.to_lowercase();
    if let Some(word) = COMMENT_BANS.iter().find(|word| holds_word(&comment, word)) {
        return Some(format!("\"{word}\" in a comment: say what is, not what was or may be"));
    }
    for mark in ["#", "issue ", "phase "] {
        let after = comment.split(mark).skip(1);
        if after.into_iter().any(|rest| rest.starts_with(|first: char| first.is_ascii_digit())) {
            return Some(format!("\"{mark}\" and a number in a comment: commits carry history"));
        }
    }
    None
}

/// Whether `text` holds `word` and not only as part of a longer one.
fn holds_word(text: &str, word: &str) -> bool {
    text.match_indices(word).any(|(at, _)| {
        let before = text[..at].chars().next_back();
        let after = text[at + word.len()..].chars().next();
        !before.is_some_and(char::is_alphanumeric) && !after.is_some_and(char::is_alphanumeric)
    })
}

/// Lines up to the tests at the end of the file; files of tests have none.
fn production_lines(path: &str, text: &str) -> usize {
    if path.ends_with("tests.rs") || path.starts_with("tests/") || path.contains("/tests/") {
        return 0;
    }
    let lines: Vec<&str> = text.lines().collect();
    let is_start_of_tests = |pair: &[&str]| pair[0] == "#[cfg(test)]" && pair[1].ends_with('{');
    lines.windows(2).position(is_start_of_tests).unwrap_or(lines.len())
}

fn is_crate_root(path: &str) -> bool {
    let is_root = Path::new(path).parent().is_some_and(|folder| folder.ends_with("src"))
        && (path.ends_with("/lib.rs") || path.ends_with("/main.rs"));
    is_root && !UNSAFE_CRATES.iter().any(|folder| path.starts_with(folder))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_judged() {
        let check = |line: &str, is_fine: bool| {
            assert_eq!(check_line(line).is_none(), is_fine, "{line}");
        };
        check("let bytes = number.to_le_bytes();", true);
        check("    todo!()", false);
        check("#[ignore = \"slow\"]", false);
        check("// A two-phase commit has no number.", true);
        check("// Phase 2 of the work.", false);
        check("// See #12.", false);
        check("// Fixes issue 12.", false);
        check("// TODO: finish", false);
        check("// Previously this was a map.", false);
        check("// A mastodon is fine, and so is a method.", true);
        check("//! The ring.", true);
    }

    #[test]
    fn files_are_judged() {
        let head = "//! A file.\n";
        let long = format!("{head}{}", "let x = 1;\n".repeat(FILE_LINES_MAX));
        let tested = format!("{head}#[cfg(test)]\nmod tests {{\n{long}}}\n");
        let check = |path: &str, text: &str, expected: usize| {
            assert_eq!(check(path, text).len(), expected, "{path}");
        };
        check("crates/store/src/log.rs", head, 0);
        check("crates/store/src/log.rs", "use std::fmt;\n", 1);
        check("crates/store/src/log.rs", &long, 1);
        check("crates/store/src/log.rs", &tested, 0);
        check("crates/store/src/log/tests.rs", &long, 0);
        check("crates/store/src/lib.rs", head, 1);
        check("crates/platform/src/lib.rs", head, 0);
    }
}
