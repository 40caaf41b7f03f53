//! Who may use whom, kept: `use crate::` lines against the table in ARCHITECTURE.md.
//!
//! Code that only tests use is free.

// Helpers of tests are tests as well.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// Each module with what it may use of this crate: a module, or a single item of one
const MAY_USE: &[(&str, &[&str])] = &[
    ("api", &["handle", "invitation"]),
    ("args", &["logging"]),
    ("config", &["dns::Suffix", "handle", "invitation"]),
    (
        "daemon",
        &[
            "config",
            "dns",
            "handle",
            "invitation",
            "logging",
            "notify",
            "plane",
            "registry",
            "setup",
            "system",
        ],
    ),
    ("dns", &[]),
    ("handle", &["invitation::Invitation"]),
    ("invitation", &["handle::NetworkName"]),
    ("logging", &[]),
    ("notify", &[]),
    ("plane", &[]),
    ("registry", &["config", "handle::NetworkName"]),
    ("setup", &["config", "handle", "invitation"]),
    ("system", &[]),
];

/// Crates that only some modules may use
const RESERVED: &[(&str, &[&str])] = &[
    ("clap", &["args"]),
    ("domain", &["dns"]),
    ("fastvpn_dbus", &["api"]),
    ("quinn_udp", &["plane"]),
    ("redb", &["registry"]),
    ("rtnetlink", &["system"]),
    ("sd_notify", &["notify"]),
    ("tokio_kcp", &["plane"]),
    ("toml", &["config", "registry"]),
    ("tracing_journald", &["logging"]),
    ("zbus", &["api", "system"]),
];

/// What the API may know of the protocol: names of things, nothing that acts
const PROTO_IN_API: [&str; 6] =
    ["crypto::PublicKey", "ip::Prefix", "node::Carriage", "node::Carrier", "node::Way", "time"];

#[test]
fn modules_use_only_what_the_table_allows() {
    let mut found = Vec::new();
    for (module, path) in modules() {
        let Some((_, allowed)) = MAY_USE.iter().find(|(name, _)| *name == module) else {
            panic!("{module} is not in the table: say here whom it may use");
        };
        for (file, code) in code_of(&path) {
            for used in paths_from(&code, "crate::") {
                let own = used.split("::").next() == Some(&module);
                let fine = own || allowed.iter().any(|allowed| covers(allowed, &used));
                if !fine {
                    found.push(format!("{}: {module} uses {used}", file.display()));
                }
            }
        }
    }
    assert!(found.is_empty(), "{found:#?}");
}

#[test]
fn crates_stay_where_they_belong() {
    let mut found = Vec::new();
    for (module, path) in modules() {
        for (file, code) in code_of(&path) {
            for (name, homes) in RESERVED {
                let used = !paths_from(&code, &format!("{name}::")).is_empty();
                if used && !homes.contains(&module.as_str()) {
                    found.push(format!("{}: {module} uses {name}", file.display()));
                }
            }
            if module == "api" {
                for used in paths_from(&code, "fastvpn_proto::") {
                    if !PROTO_IN_API.iter().any(|allowed| covers(allowed, &used)) {
                        found.push(format!("{}: api uses proto's {used}", file.display()));
                    }
                }
            }
        }
    }
    assert!(found.is_empty(), "{found:#?}");
}

#[test]
fn reader_sees_through_braces_and_past_tests() {
    let code = "use crate::plane::{Plane, turn::Turn};\n/// crate::doc\nlet x = crate::api::Y;\n\
                #[cfg(test)]\nmod tests { use crate::config::Config; }\n";

    let used = paths_from(&without_tests(code), "crate::");

    let expected = ["api::Y", "plane::Plane", "plane::turn::Turn"];
    assert_eq!(used.iter().map(String::as_str).collect::<Vec<_>>(), expected);
}

/// Returns the modules of the crate, each with its file or folder
fn modules() -> Vec<(String, PathBuf)> {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut modules = Vec::new();
    for entry in fs::read_dir(source).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_stem().unwrap().to_string_lossy().into_owned();
        // The two roots may use everything; netns is for tests alone.
        if !["lib", "main", "netns"].contains(&name.as_str()) {
            modules.push((name, path));
        }
    }
    modules.sort();
    modules
}

/// Returns the files of a module, without what only tests use
fn code_of(path: &Path) -> Vec<(PathBuf, String)> {
    if path.is_file() {
        return vec![(path.to_path_buf(), without_tests(&fs::read_to_string(path).unwrap()))];
    }
    let mut files = Vec::new();
    for entry in fs::read_dir(path).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_stem().unwrap().to_string_lossy().into_owned();
        if !["tests", "fixture"].contains(&name.as_str()) {
            files.extend(code_of(&path));
        }
    }
    files
}

/// Cuts off comments, and everything from a file's `#[cfg(test)] mod tests {` on
fn without_tests(code: &str) -> String {
    let mut kept = String::new();
    let mut lines = code.lines().peekable();
    while let Some(line) = lines.next() {
        let next = lines.peek().map_or("", |next| next.trim());
        if line.trim() == "#[cfg(test)]" && next.starts_with("mod ") && next.contains('{') {
            break;
        }
        kept.push_str(line.split("//").next().unwrap_or_default());
        kept.push('\n');
    }
    kept
}

/// Finds the paths that begin with `root`, braces resolved
fn paths_from(code: &str, root: &str) -> BTreeSet<String> {
    let mut paths = BTreeSet::new();
    for (at, _) in code.match_indices(root) {
        let before = code[..at].chars().next_back();
        if before.is_some_and(|c| c.is_alphanumeric() || c == '_' || c == ':') {
            continue;
        }
        expand(&mut code[at + root.len()..].chars().peekable(), String::new(), &mut paths);
    }
    paths
}

type Chars<'a> = std::iter::Peekable<std::str::Chars<'a>>;

/// Reads one path or group at the front of `code`
fn expand(code: &mut Chars<'_>, prefix: String, paths: &mut BTreeSet<String>) {
    let mut path = prefix;
    while let Some(&c) = code.peek() {
        match c {
            '{' => {
                code.next();
                loop {
                    while code.next_if(|c| c.is_whitespace() || *c == ',').is_some() {}
                    match code.peek() {
                        None => return,
                        Some('}') => {
                            code.next();
                            return;
                        }
                        Some(_) => expand(code, path.clone(), paths),
                    }
                }
            }
            c if c.is_alphanumeric() || c == '_' || c == ':' || c == '*' => {
                path.push(c);
                code.next();
            }
            _ => break,
        }
    }
    // A name that is given to the path here is nothing to us.
    if code.clone().take(4).eq(" as ".chars()) {
        while code.next_if(|c| *c != ',' && *c != '}' && *c != ';').is_some() {}
    }
    // Something that is neither a path nor a separator must not stop the reading.
    if path.is_empty() {
        code.next();
        return;
    }
    paths.insert(path);
}

fn covers(allowed: &str, used: &str) -> bool {
    used == allowed || used.strip_prefix(allowed).is_some_and(|rest| rest.starts_with("::"))
}
