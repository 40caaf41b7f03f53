//! The protocol cannot reach the system: neither through a crate nor through the standard library.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Crates that fastvpn-proto uses by itself
const DIRECT: [&str; 8] =
    ["base64ct", "blake2", "rand_chacha", "ring", "snow", "thiserror", "tracing", "zeroize"];

/// Crates that those bring along
///
/// `getrandom` and `libc` come with ring, which asks for the processor's features.
const INDIRECT: [&str; 36] = [
    "blake2",
    "block-buffer",
    "cfg-if",
    "chacha20",
    "chacha20poly1305",
    "cipher",
    "cpufeatures",
    "crypto-common",
    "curve25519-dalek",
    "curve25519-dalek-derive",
    "digest",
    "generic-array",
    "getrandom",
    "inout",
    "libc",
    "once_cell",
    "opaque-debug",
    "pin-project-lite",
    "poly1305",
    "ppv-lite86",
    "proc-macro2",
    "quote",
    "rand_core",
    "subtle",
    "syn",
    "synstructure",
    "thiserror-impl",
    "tracing-attributes",
    "tracing-core",
    "typenum",
    "unicode-ident",
    "universal-hash",
    "untrusted",
    "zerocopy",
    "zeroize_derive",
    "aead",
];

/// What the source of the protocol must not name, tests included
const FORBIDDEN: [&str; 14] = [
    "std::time::",
    "std::thread",
    "std::fs",
    "std::env",
    "std::process",
    "std::io",
    "std::os",
    "std::sync::Mutex",
    "std::sync::RwLock",
    "UdpSocket",
    "TcpStream",
    "SystemTime",
    "HashMap",
    "unsafe ",
];

#[test]
fn protocol_depends_on_a_short_list_of_crates() {
    let direct = crates(&["--depth", "1"]);
    let all = crates(&[]);

    let allowed: BTreeSet<_> = DIRECT.into_iter().map(String::from).collect();
    assert_eq!(direct, allowed, "what fastvpn-proto uses itself is listed here with care");
    let known = DIRECT.into_iter().chain(INDIRECT).map(String::from).collect();
    let new: Vec<_> = all.difference(&known).collect();
    assert!(new.is_empty(), "new crates beneath fastvpn-proto: {new:?}");
}

#[test]
fn protocol_names_nothing_of_the_system() {
    let mut found = Vec::new();
    for file in sources(&root().join("daemon/proto/src")) {
        for (number, line) in fs::read_to_string(&file).unwrap().lines().enumerate() {
            let code = line.split("//").next().unwrap_or_default();
            for word in FORBIDDEN.iter().filter(|word| code.contains(**word)) {
                found.push(format!("{}:{}: {word}", file.display(), number + 1));
            }
        }
    }
    assert!(found.is_empty(), "{found:#?}");
}

fn crates(more: &[&str]) -> BTreeSet<String> {
    let cargo = std::env::var("CARGO").unwrap_or_else(|_| "cargo".into());
    let output = Command::new(cargo)
        .args(["tree", "-p", "fastvpn-proto", "-e", "normal", "--prefix", "none"])
        .args(["--format", "{p}", "--offline"])
        .args(more)
        .current_dir(root())
        .output()
        .expect("cargo runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8(output.stdout).unwrap();
    let names = text.lines().filter_map(|line| line.split(' ').next());
    names.filter(|name| !name.is_empty() && *name != "fastvpn-proto").map(String::from).collect()
}

fn sources(folder: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            files.extend(sources(&path));
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            files.push(path);
        }
    }
    files
}

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("..")
}
