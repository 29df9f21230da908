//! Names of users and groups, from `/etc/passwd` and `/etc/group`.

use std::collections::BTreeMap;

/// Names by number; those not listed are shown as numbers.
#[derive(Default)]
pub(crate) struct Names {
    users: BTreeMap<u32, String>,
    groups: BTreeMap<u32, String>,
}

impl Names {
    /// Reads the machine's files; a missing one has no names.
    pub(crate) fn read() -> Self {
        let read = |path| parse(&std::fs::read_to_string(path).unwrap_or_default());
        Self { users: read("/etc/passwd"), groups: read("/etc/group") }
    }

    pub(crate) fn user(&self, uid: u32) -> String {
        self.users.get(&uid).cloned().unwrap_or_else(|| uid.to_string())
    }

    pub(crate) fn group(&self, gid: u32) -> String {
        self.groups.get(&gid).cloned().unwrap_or_else(|| gid.to_string())
    }
}

/// The first name of each number in lines of `name:password:number:…`.
fn parse(text: &str) -> BTreeMap<u32, String> {
    let mut names = BTreeMap::new();
    for line in text.lines() {
        let mut fields = line.split(':');
        if let (Some(name), Some(Ok(id))) = (fields.next(), fields.nth(1).map(str::parse)) {
            names.entry(id).or_insert_with(|| name.to_owned());
        }
    }
    names
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_name_of_a_number_counts() {
        let names = parse("root:x:0:0:root:/root:/bin/sh\ntoor:x:0:0::/:\n# note\nbad:x:y:\n");
        assert_eq!(names.into_iter().collect::<Vec<_>>(), [(0, "root".to_owned())]);
    }
}
