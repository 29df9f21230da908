//! The terminal picture of the README: a session with the real program, recorded and drawn.
//!
//! Every command is run and has to succeed; what it printed is drawn as it came. The session has a
//! home of its own, and whatever it started is stopped at the end, also after a failure.

use std::fmt::Write;
use std::path::Path;
use std::process::Command;

use crate::command::{self, Failure, Outcome};

/// Where the picture lies in the repository.
const PICTURE: &str = "docs/terminal.svg";
/// The home of the session.
const HOME: &str = "/tmp/ringfs-picture";

/// Minutes that building the program may take.
const BUILD_MINUTES: u64 = 20;

const SESSION: &[&str] = &[
    "ringfs up --nodes 2 --targets 2 --mount /tmp/ringfs",
    "cp -a /usr/include /tmp/ringfs",
    "diff -r --no-dereference /usr/include /tmp/ringfs/include && echo same",
    "ls -C -T 0 -w 90 /tmp/ringfs/include | head -3",
    "df -h /tmp/ringfs",
    "ringfs status",
    "ringfs down",
];

const FONT_SIZE: usize = 14;
const LINE_HEIGHT: usize = 19;
/// Width of a character in hundredths of a pixel: what monospaced fonts have at this size.
const CHARACTER_WIDTH: usize = 843;
const MARGIN: usize = 16;
/// Height of the bar above the text.
const BAR: usize = 28;

/// One command and what it printed.
struct Step {
    command: &'static str,
    output: String,
}

/// Record the session and draw it.
pub(crate) fn run() -> Outcome {
    command::run(command::cargo(BUILD_MINUTES).args(["build", "--quiet", "-p", "ringfs"]))?;
    let steps: Outcome<Vec<Step>> = SESSION.iter().copied().map(record).collect();
    if steps.is_err() {
        // What the session started must not outlive it; if it never came up there is nothing.
        let _ = shell("ringfs down --wipe").output();
    }
    let steps = steps?;
    let wiped = shell("ringfs down --wipe && rmdir /tmp/ringfs").output();
    if !wiped.is_ok_and(|output| output.status.success()) {
        return Err(Failure::Command("ringfs down --wipe".to_owned()));
    }
    // Only empty directories are left of it.
    let _ = std::fs::remove_dir_all(HOME);
    let path = command::root().join(PICTURE);
    std::fs::write(&path, draw(&steps))
        .map_err(|error| Failure::Unreadable(format!("{}: {error}", path.display())))
}

fn record(line: &'static str) -> Outcome<Step> {
    let output = shell(&format!("exec 2>&1; {line}")).output();
    let output = output.map_err(|error| Failure::Command(format!("{line}: {error}")))?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    match output.status.success() {
        true => Ok(Step { command: line, output: text }),
        false => Err(Failure::Command(format!("{line}\n{text}"))),
    }
}

/// A shell in which `ringfs` is the program just built.
fn shell(line: &str) -> Command {
    let programs = command::root().join("target/debug");
    let path = std::env::var("PATH").unwrap_or_default();
    let mut shell = Command::new("sh");
    shell.args(["-c", line]).env("HOME", Path::new(HOME));
    shell.env("PATH", format!("{}:{path}", programs.display()));
    for variable in ["XDG_DATA_HOME", "XDG_STATE_HOME", "RINGFS_CLUSTER"] {
        shell.env_remove(variable);
    }
    shell
}

/// The session as a picture.
fn draw(steps: &[Step]) -> String {
    let mut lines: Vec<(bool, &str)> = Vec::new();
    for step in steps {
        lines.push((true, step.command));
        lines.extend(step.output.lines().map(|line| (false, line)));
    }
    let columns = lines.iter().map(|(is_command, line)| {
        let prompt = if *is_command { 2 } else { 0 };
        prompt + line.chars().count()
    });
    let width = 2 * MARGIN + (columns.max().unwrap_or(0) * CHARACTER_WIDTH).div_ceil(100);
    let height = BAR + 2 * MARGIN + lines.len() * LINE_HEIGHT;
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{width}\" height=\"{height}\" \
         viewBox=\"0 0 {width} {height}\" font-family=\"ui-monospace, SFMono-Regular, Menlo, \
         Consolas, 'DejaVu Sans Mono', monospace\" font-size=\"{FONT_SIZE}\">\n\
         <rect width=\"{width}\" height=\"{height}\" rx=\"8\" fill=\"#1b1f27\"/>\n"
    );
    for (index, colour) in ["#ff5f57", "#febc2e", "#28c840"].iter().enumerate() {
        let x = MARGIN + 4 + 20 * index;
        let _ = writeln!(svg, "<circle cx=\"{x}\" cy=\"18\" r=\"6\" fill=\"{colour}\"/>");
    }
    for (index, (is_command, line)) in lines.iter().enumerate() {
        let y = BAR + MARGIN + FONT_SIZE + index * LINE_HEIGHT;
        let (prompt, colour) = match is_command {
            true => ("<tspan fill=\"#5fd787\">$ </tspan>", "#ffffff"),
            false => ("", "#c5cbd6"),
        };
        let _ = writeln!(
            svg,
            "<text x=\"{MARGIN}\" y=\"{y}\" fill=\"{colour}\" xml:space=\"preserve\">{prompt}{}</text>",
            escape(line)
        );
    }
    svg.push_str("</svg>\n");
    svg
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_session_is_drawn_line_by_line() {
        let steps = [Step { command: "a && b", output: "<one>\n\n  two\n".to_owned() }];
        let svg = draw(&steps);
        assert!(svg.contains("$ </tspan>a &amp;&amp; b</text>"), "{svg}");
        assert!(svg.contains(">&lt;one&gt;</text>") && svg.contains(">  two</text>"), "{svg}");
        assert_eq!(svg.matches("<text ").count(), 4);
        assert!(svg.starts_with("<svg ") && svg.ends_with("</svg>\n"));
    }
}
