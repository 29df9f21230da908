//! pjdfstest on a mount: every case passes, but for those that are listed here with their reason.
//!
//! Cases that remount the file system run by themselves: files that earlier cases of the suite left
//! open for writing forbid a read-only mount, on any file system.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use crate::command::{self, Failure, Outcome};
use crate::mounted::{self, Mounted};
use crate::setup;

/// Minutes that one run of the suite may take.
const RUN_MINUTES: u64 = 15;

/// Cases that the suite has; fewer mean that it did not run to its end.
const CASES: usize = 398;

/// What the names of all cases that remount hold.
const REMOUNTING: &str = "erofs";

/// Cases that cannot run on this file system, and why.
const SKIPPED: &[(&str, &str)] = &[(
    "link::link_count_max",
    "the suite wants a limit below 65,535 told by pathconf; ours is 1,048,576, and the C library \
     tells only those of file systems that it knows",
)];

/// All that this file system has of what the suite calls optional: everything on Linux. Pauses are
/// longer than the grain of its times.
const CONFIGURATION: &str = "\
[features]
posix_fallocate = {}
rename_ctime = {}
utime_now = {}
utimensat = {}
[settings]
naptime = 0.01
";

/// Users for what needs others than root; these two are on every system.
const USERS: [&str; 2] = ["nobody", "daemon"];

/// How one case ended.
#[derive(Debug, PartialEq, Eq)]
enum Verdict {
    Passed,
    Skipped,
    Failed,
}

/// Verdict and details of each case, by its name.
type Report = BTreeMap<String, (Verdict, Vec<String>)>;

/// Run the suite, or the cases whose names hold `filter`.
pub(crate) fn run(filter: Option<&str>) -> Outcome {
    mounted::check_machine()?;
    setup::install_suites()?;
    let mounted = Mounted::start("pjdfstest", 1)?;
    let mut report = pass(&mounted, filter, false)?;
    let remounting: Vec<String> =
        report.keys().filter(|name| name.contains(REMOUNTING)).cloned().collect();
    if !remounting.is_empty() {
        let again = pass(&mounted, Some(REMOUNTING), true)?;
        report.extend(again.into_iter().filter(|(name, _)| remounting.contains(name)));
    }
    mounted.end()?;
    command::outcome(judge(&report, filter))
}

/// One run over the mount.
fn pass(mounted: &Mounted, filter: Option<&str>, remounts: bool) -> Outcome<Report> {
    let configuration = mounted.path("pjdfstest.toml");
    let secondary = mounted.path("secondary");
    write(&configuration, &configure(remounts)?)?;
    fs::create_dir_all(&secondary).map_err(|error| unwritten(&secondary, &error))?;
    let mut command = command::program(&command::tool("pjdfstest").to_string_lossy(), RUN_MINUTES);
    command.arg("-c").arg(&configuration).arg("-p").arg(mounted.mount(0));
    command.arg("-s").arg(&secondary).args(filter);
    command.env("PATH", plain_mount(mounted)?).env("RUST_BACKTRACE", "0");
    let (_, output) = command::collect(&mut command)?;
    Ok(parse(&output))
}

/// A search path on which `mount` asks no helper: that of libfuse cannot remount.
fn plain_mount(mounted: &Mounted) -> Outcome<String> {
    let folder = mounted.path("bin");
    let script = folder.join("mount");
    let real = command::find("mount")
        .ok_or_else(|| Failure::Command("mount: it is not installed".to_owned()))?;
    fs::create_dir_all(&folder).map_err(|error| unwritten(&folder, &error))?;
    write(&script, &format!("#!/bin/sh\nexec '{}' -i \"$@\"\n", real.display()))?;
    fs::set_permissions(&script, fs::Permissions::from_mode(0o755))
        .map_err(|error| unwritten(&script, &error))?;
    Ok(format!("{}:{}", folder.display(), std::env::var("PATH").unwrap_or_default()))
}

fn configure(remounts: bool) -> Outcome<String> {
    let passwd = command::read(Path::new("/etc/passwd"))?;
    let group = command::read(Path::new("/etc/group"))?;
    let mut text =
        format!("{CONFIGURATION}allow_remount = {remounts}\n[dummy_auth]\nentries = [\n");
    for user in USERS {
        let name = group_of(user, &passwd, &group)
            .ok_or_else(|| Failure::Unreadable(format!("user {user} and its group")))?;
        let _ = writeln!(text, "  [\"{user}\", \"{name}\"],");
    }
    text.push_str("]\n");
    Ok(text)
}

/// The name of a user's own group, by the tables of users and groups.
fn group_of<'a>(user: &str, passwd: &str, group: &'a str) -> Option<&'a str> {
    let entry = |line: &&str| line.split(':').next() == Some(user);
    let number = passwd.lines().find(entry)?.split(':').nth(3)?;
    let line = group.lines().find(|line| line.split(':').nth(2) == Some(number))?;
    line.split(':').next()
}

/// What the suite printed: a line for each case, with details indented below.
fn parse(output: &str) -> Report {
    let mut report = Report::new();
    let mut last = None;
    for line in output.lines() {
        let words: Vec<&str> = line.split_whitespace().collect();
        let verdict = match words.get(1) {
            Some(&"ok") => Some(Verdict::Passed),
            Some(&"skipped") => Some(Verdict::Skipped),
            Some(&"FAILED") => Some(Verdict::Failed),
            _ => None,
        };
        match (verdict, words.as_slice()) {
            (Some(verdict), [name, _]) if !line.starts_with(char::is_whitespace) => {
                report.insert((*name).to_owned(), (verdict, Vec::new()));
                last = Some((*name).to_owned());
            }
            (_, [_, ..]) if line.starts_with(char::is_whitespace) => {
                if let Some((_, details)) = last.as_ref().and_then(|name| report.get_mut(name)) {
                    details.push(line.trim().to_owned());
                }
            }
            _ => last = None,
        }
    }
    report
}

/// Tell what was skipped and how many passed; return what is wrong.
fn judge(report: &Report, filter: Option<&str>) -> Vec<String> {
    let reason = |name: &str| SKIPPED.iter().find(|case| case.0 == name).map(|case| case.1);
    let mut findings = Vec::new();
    let mut passed = 0;
    for (name, (verdict, details)) in report {
        match (verdict, reason(name)) {
            (Verdict::Passed, None) => passed += 1,
            (Verdict::Skipped, Some(reason)) => eprintln!("skipped: {name}: {reason}"),
            (Verdict::Failed, _) => findings.push(format!("{name}: {}", details.join("; "))),
            (Verdict::Skipped, None) => {
                findings.push(format!("{name}: skipped unexpectedly: {}", details.join("; ")));
            }
            (Verdict::Passed, Some(_)) => {
                findings.push(format!("{name}: passed, though it was to be skipped"));
            }
        }
    }
    eprintln!("pjdfstest: {passed} of {} cases passed", report.len());
    let expected = if filter.is_some() { 1 } else { CASES };
    if report.len() < expected {
        findings.push(format!("{} cases ran, {expected} were expected", report.len()));
    }
    findings
}

fn write(path: &Path, text: &str) -> Outcome {
    fs::write(path, text).map_err(|error| unwritten(path, &error))
}

fn unwritten(path: &Path, error: &std::io::Error) -> Failure {
    Failure::Unreadable(format!("{}: {error}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn verdicts_are_read_with_their_details() {
        let report = parse(
            "chmod::a            ok\n\
             link::b             skipped\n\tno limit\n\
             open::c::dir        FAILED\n\tleft: 1\n\tright: 2\n\n\
             Summary: 1 failed, 1 skipped, 1 passed, 0 expected failures, 3 total\n\tother\n",
        );
        assert_eq!(report.len(), 3);
        assert_eq!(report["chmod::a"], (Verdict::Passed, Vec::new()));
        assert_eq!(report["link::b"], (Verdict::Skipped, vec!["no limit".to_owned()]));
        let failed = (Verdict::Failed, vec!["left: 1".to_owned(), "right: 2".to_owned()]);
        assert_eq!(report["open::c::dir"], failed);
    }

    #[test]
    fn only_expected_skips_are_no_findings() {
        let check = |name: &str, verdict, expected: usize| {
            let report = Report::from([(name.to_owned(), (verdict, Vec::new()))]);
            assert_eq!(judge(&report, Some("l")).len(), expected, "{name}");
        };
        check("link::a", Verdict::Passed, 0);
        check("link::a", Verdict::Skipped, 1);
        check("link::a", Verdict::Failed, 1);
        check("link::link_count_max", Verdict::Skipped, 0);
        check("link::link_count_max", Verdict::Passed, 1);
        assert_eq!(judge(&Report::new(), Some("l")).len(), 1, "nothing ran");
    }

    #[test]
    fn groups_are_found_by_number() {
        let passwd = "root:x:0:0::/:\nnobody:x:65534:65534:nobody:/:/bin/false\n";
        let group = "root:x:0:\nnogroup:x:65534:\n";
        assert_eq!(group_of("nobody", passwd, group), Some("nogroup"));
        assert_eq!(group_of("daemon", passwd, group), None);
    }
}
