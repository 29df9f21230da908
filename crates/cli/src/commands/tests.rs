//! Tests of what command lines mean.

use clap::CommandFactory;

use super::*;

#[test]
fn the_command_line_is_consistent() {
    Arguments::command().debug_assert();
}

#[test]
fn command_lines_are_judged() {
    let check = |line: &str, is_fine: bool| {
        let words = std::iter::once("ringfs").chain(line.split_whitespace());
        assert_eq!(Arguments::try_parse_from(words).is_ok(), is_fine, "{line}");
    };
    check("up", true);
    check("up --name a --nodes 2 --targets 2 --data /tmp/x --chunk-size 1MiB", true);
    check("up --nodes 0", false);
    check("up --targets none", false);
    check("up --chunk-size 3", false);
    check("up --chunk-size 96k", false);
    check("up --listen 127.0.0.1:7000", true);
    check("up --listen ::1", true);
    check("up --listen localhost", false);
    check("down --wipe", true);
    check("status --json", true);
    check("check --repair --drop-dangling --json", true);
    check("check --drop-dangling", false);
    check("logs --node 1 -f", true);
    check("serve --name a --data /tmp/x --node 0", true);
    check("serve --name a --data /tmp/x", false);
    check("put a b /c --checksum -T", true);
    check("put a", false);
    check("put a b", false);
    check("get /a b", true);
    check("get a b", false);
    check("ls -l", true);
    check("rm -rf /a", true);
    check("ln -s anything /a", true);
    check("mkdir -p /a/b", true);
    check("", false);
    check("mount", false);
    check("mount /mnt --name a --workers 3 --allow-other --no-cache --noatime --foreground", true);
    check("mount /mnt --workers 0", false);
    check("mount /mnt /other", false);
    check("unmount /mnt", true);
    check("unmount", false);
    check("up --mount /mnt", true);
}

#[test]
fn cluster_names_are_judged() {
    for good in ["ringfs", "a", "job-17.scratch_2", "7"] {
        assert_eq!(check_name(good), Ok(()), "{good}");
    }
    for bad in ["", ".", "..", "a/b", "-a", "a b", "ü", &"a".repeat(65)] {
        assert!(check_name(bad).is_err(), "{bad}");
    }
}
