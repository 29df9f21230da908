//! Licences and origins of every dependency, against the allow list in deny.toml.
//!
//! Reads SPDX expressions: a choice (OR) needs one allowed licence, a sum (AND) needs all.

use serde::Deserialize;

use crate::command::{self, Failure, Outcome};
use crate::workspace::{self, Package};

/// The only registry a dependency may come from.
const REGISTRY: &str = "registry+https://github.com/rust-lang/crates.io-index";

#[derive(Deserialize)]
struct Policy {
    licenses: Licenses,
}

#[derive(Deserialize)]
struct Licenses {
    allow: Vec<String>,
}

/// Check all packages of the dependency graph.
pub(crate) fn run() -> Outcome {
    let text = command::read(&command::root().join("deny.toml"))?;
    let policy: Policy = toml::from_str(&text)
        .map_err(|error| Failure::Unreadable(format!("deny.toml: {error}")))?;
    let packages = workspace::all_packages()?;
    let findings = packages.iter().flat_map(|package| check(package, &policy.licenses.allow));
    command::outcome(findings.collect())
}

/// What is wrong with one package.
fn check(package: &Package, allow: &[String]) -> Vec<String> {
    let mut findings = Vec::new();
    let expression = package.license.as_deref().unwrap_or("none");
    if !Expression::new(expression).satisfy(allow) {
        findings.push(format!(
            "{} {}: licence {expression} is not allowed by deny.toml",
            package.name, package.version
        ));
    }
    if let Some(source) = package.source.as_deref().filter(|&source| source != REGISTRY) {
        findings.push(format!("{} {}: comes from {source}", package.name, package.version));
    }
    findings
}

/// An SPDX expression while it is read, word by word.
struct Expression {
    /// In reverse, so that the next word is the last element.
    words: Vec<String>,
}

impl Expression {
    fn new(text: &str) -> Self {
        // Older packages write a choice as a slash.
        let spaced = text.replace('/', " OR ").replace('(', " ( ").replace(')', " ) ");
        Expression { words: spaced.split_whitespace().rev().map(str::to_owned).collect() }
    }

    /// Whether the whole expression can be satisfied; a malformed one cannot.
    fn satisfy(mut self, allow: &[String]) -> bool {
        self.choice(allow) && self.words.is_empty()
    }

    fn choice(&mut self, allow: &[String]) -> bool {
        let mut allowed = self.sum(allow);
        while self.take("OR") {
            allowed |= self.sum(allow);
        }
        allowed
    }

    fn sum(&mut self, allow: &[String]) -> bool {
        let mut allowed = self.term(allow);
        while self.take("AND") {
            allowed &= self.term(allow);
        }
        allowed
    }

    fn term(&mut self, allow: &[String]) -> bool {
        if self.take("(") {
            let inner = self.choice(allow);
            return self.take(")") && inner;
        }
        let Some(mut licence) = self.words.pop() else { return false };
        if self.take("WITH") {
            let Some(exception) = self.words.pop() else { return false };
            licence = format!("{licence} WITH {exception}");
        }
        allow.contains(&licence)
    }

    fn take(&mut self, word: &str) -> bool {
        let is_next = self.words.last().is_some_and(|next| next == word);
        if is_next {
            self.words.pop();
        }
        is_next
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn expressions_are_judged() {
        let allow = ["MIT", "Apache-2.0", "Apache-2.0 WITH LLVM-exception", "Unicode-3.0"];
        let allow: Vec<String> = allow.iter().map(|&licence| licence.to_owned()).collect();
        let check = |text: &str, expected: bool| {
            assert_eq!(Expression::new(text).satisfy(&allow), expected, "{text}");
        };
        check("MIT", true);
        check("MIT/Apache-2.0", true);
        check("GPL-3.0-only OR MIT", true);
        check("GPL-3.0-only", false);
        check("MIT AND GPL-3.0-only", false);
        check("(MIT OR GPL-3.0-only) AND Unicode-3.0", true);
        check("Apache-2.0 WITH LLVM-exception OR GPL-2.0-only", true);
        check("MIT WITH Classpath-exception-2.0", false);
        check("MPL-2.0", false);
        check("none", false);
        check("", false);
        check("(MIT", false);
        check("MIT MIT", false);
    }
}
