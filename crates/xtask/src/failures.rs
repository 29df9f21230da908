//! The tests that failed in the last run, each with the end of what it printed.
//!
//! They are read from the report that nextest leaves for machines, so that the end of a log is
//! enough to act on. Deliberately no XML parser: the report is written by one known program.

use std::path::PathBuf;

use crate::command;

/// Lines shown of what one failed test printed.
const LINES_SHOWN: usize = 15;

/// A test that failed.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct FailedTest {
    /// Its binary and its name.
    pub(crate) name: String,
    /// How it failed, such as by exceeding its time.
    pub(crate) kind: String,
    /// The end of what it printed.
    pub(crate) lines: Vec<String>,
}

/// Where `.config/nextest.toml` has the report written.
pub(crate) fn report() -> PathBuf {
    command::root().join("target/nextest/ci/junit.xml")
}

/// The failed tests of a report.
pub(crate) fn parse(report: &str) -> Vec<FailedTest> {
    report.split("<testcase ").skip(1).filter_map(parse_test).collect()
}

fn parse_test(text: &str) -> Option<FailedTest> {
    let text = text.split("</testcase>").next()?;
    let failure = ["<failure", "<error"].iter().find_map(|tag| text.split_once(tag))?.1;
    let kind = attribute(failure, "type").unwrap_or_default();
    let name = [attribute(text, "classname"), attribute(text, "name")];
    let printed = ["system-out", "system-err"].map(|tag| element(text, tag)).join("\n");
    let mut in_backtrace = false;
    let telling = printed.lines().filter(|line| {
        let starts = line.starts_with("stack backtrace:");
        in_backtrace = starts || in_backtrace && line.starts_with(' ');
        !in_backtrace && is_telling(line)
    });
    let lines: Vec<&str> = telling.collect();
    let shown = &lines[lines.len().saturating_sub(LINES_SHOWN)..];
    Some(FailedTest {
        name: name.into_iter().flatten().collect::<Vec<_>>().join(" "),
        kind,
        lines: shown.iter().map(|line| (*line).to_owned()).collect(),
    })
}

/// Whether a line is the test's own and not said by every one that fails.
fn is_telling(line: &str) -> bool {
    const COMMON: &[&str] = &["running ", "test result: ", "failures:", "note: "];
    !line.trim().is_empty() && !COMMON.iter().any(|start| line.starts_with(start))
}

/// The value of the first attribute of this name.
fn attribute(text: &str, name: &str) -> Option<String> {
    let (_, rest) = text.split_once(&format!("{name}=\""))?;
    Some(unescape(rest.split_once('"')?.0))
}

/// The text of the first element of this name; empty if there is none.
fn element(text: &str, name: &str) -> String {
    let inner = text.split_once(&format!("<{name}>"));
    let inner = inner.and_then(|(_, rest)| rest.split_once(&format!("</{name}>")));
    unescape(inner.map_or("", |(inner, _)| inner))
}

fn unescape(text: &str) -> String {
    let named = [("&lt;", "<"), ("&gt;", ">"), ("&quot;", "\""), ("&apos;", "'"), ("&#39;", "'")];
    let text = named.iter().fold(text.to_owned(), |text, (from, to)| text.replace(from, to));
    text.replace("&amp;", "&")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn failed_tests_are_named_with_the_end_of_what_they_printed() {
        let many: String = (0..40).map(|line| format!("line {line}\n")).collect();
        let report = format!(
            r#"<testsuites name="nextest-run"><testsuite name="a" tests="3">
            <testcase name="fine" classname="a" timestamp="x" time="0.1"></testcase>
            <testcase name="short" classname="a"><failure message="m &lt;" type="test failure">
            x</failure><system-out>running 1 test
out</system-out><system-err>left &lt; right &amp;&amp; that
stack backtrace:
   0: rust_begin_unwind
note: Some details are omitted</system-err></testcase>
            <testcase name="long" classname="b::c"><error type="test timeout"/>
            <system-err>{many}</system-err></testcase></testsuite></testsuites>"#
        );
        let found = parse(&report);
        let names: Vec<_> = found.iter().map(|test| test.name.as_str()).collect();
        assert_eq!(names, ["a short", "b::c long"]);
        assert_eq!(found[0].kind, "test failure");
        assert_eq!(found[0].lines, ["out", "left < right && that"]);
        assert_eq!(found[1].kind, "test timeout");
        assert_eq!(found[1].lines.len(), LINES_SHOWN);
        assert_eq!(found[1].lines.last().map(String::as_str), Some("line 39"));
    }
}
