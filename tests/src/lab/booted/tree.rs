//! The trees that systems boot from: Debian as it is, and with the packages of fastvpn installed.
//!
//! Debian comes from the mirror of this machine once, and is kept as an archive in the build
//! directory until the list of its packages changes. It is the release of this machine, since the
//! programs are built against its libraries.
//!
//! # Contract
//!
//! - [`prepare`] makes both in the suite's directory; no case changes them.
//! - Nothing is installed on this machine, and nothing of it is changed.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Instant;

use anyhow::{Context, Result, bail};

use super::container::Container;
use crate::lab::{self, Host};
use crate::runner::{Unready, shared};

/// What a system boots from
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Tree {
    /// Debian alone; the packages of fastvpn lie in [`PACKAGES`]
    Plain,
    /// Debian on which the packages of fastvpn were installed before it booted
    Installed,
}

/// Where the packages of fastvpn lie in a tree
pub const PACKAGES: &str = "/srv/fastvpn";

/// Returns where a tree is
///
/// # Errors
/// If this process was not started by a suite that has one.
pub(super) fn place(tree: Tree) -> Result<PathBuf> {
    let shared = shared().context("the suite of booted systems has to start its cases")?;
    Ok(shared.join(tree.name()))
}

/// Makes the trees in the suite's directory
///
/// # Errors
/// If this machine cannot, or something goes wrong.
pub fn prepare(directory: &Path) -> Result<(), Unready> {
    lab::privileged().map_err(Unready::Cannot)?;
    for program in ["systemd-nspawn", "nsenter", "unshare", "tar"] {
        if !lab::has(program) {
            return Err(Unready::Cannot(format!("needs {program}")));
        }
    }
    let archive = debian()?;
    let packages = packages()?;
    let failed = |error: anyhow::Error| Unready::Failed(format!("{error:#}"));
    let plain = directory.join(Tree::Plain.name());
    unpack(&archive, &packages, &plain).map_err(failed)?;
    probe(&plain, directory)
        .map_err(|error| Unready::Cannot(one_line(&format!("cannot boot a system: {error:#}"))))?;
    install(directory).map_err(failed)
}

/// Starts a system once, to see whether this machine lets us
fn probe(tree: &Path, directory: &Path) -> Result<()> {
    Container::start(&Arc::new(Host::new("probe")?), tree, directory).map(drop)
}

impl Tree {
    const fn name(self) -> &'static str {
        match self {
            Self::Plain => "debian",
            Self::Installed => "installed",
        }
    }
}

/// The packages under test
fn packages() -> Result<Vec<PathBuf>, Unready> {
    let place = match std::env::var_os("FASTVPN_PACKAGE_DIR") {
        Some(place) => PathBuf::from(place),
        None => build_directory().join("packages-debug"),
    };
    let files = fs::read_dir(&place).into_iter().flatten().flatten().map(|entry| entry.path());
    let packages: Vec<_> =
        files.filter(|file| file.extension().is_some_and(|end| end == "deb")).collect();
    if packages.is_empty() {
        let place = place.display();
        return Err(Unready::Cannot(format!(
            "no packages in {place}: build them with systemd/package/build --debug"
        )));
    }
    Ok(packages)
}

/// The archive with Debian; made if there is none, or one of other packages
fn debian() -> Result<PathBuf, Unready> {
    let cannot = |error: anyhow::Error| Unready::Cannot(one_line(&format!("{error:#}")));
    let release = release().map_err(cannot)?;
    let cache = match std::env::var_os("FASTVPN_TREE_CACHE") {
        Some(cache) => PathBuf::from(cache),
        None => build_directory().join("booted"),
    };
    let archive = cache.join(format!("{release}.tar"));
    let list = cache.join(format!("{release}.packages"));
    let wanted = INCLUDED.join(",");
    if archive.exists() && fs::read_to_string(&list).is_ok_and(|made| made == wanted) {
        return Ok(archive);
    }
    if !lab::has("mmdebstrap") {
        return Err(Unready::Cannot("needs mmdebstrap".to_owned()));
    }
    println!("making a Debian tree, once; it takes about a minute");
    let start = Instant::now();
    make(&release, &cache, &archive, &list).map_err(cannot)?;
    println!("made {} in {} s", archive.display(), start.elapsed().as_secs());
    Ok(archive)
}

fn make(release: &str, cache: &Path, archive: &Path, list: &Path) -> Result<()> {
    fs::create_dir_all(cache)?;
    let half = cache.join(format!("{release}.new.tar"));
    let mut command = Command::new("mmdebstrap");
    command.args(["--mode=root", "--variant=minbase", "--quiet"]);
    command.arg(format!("--include={}", INCLUDED.join(",")));
    command.args([
        "--aptopt=APT::Install-Recommends \"false\"",
        "--dpkgopt=path-exclude=/usr/share/doc/*",
        "--dpkgopt=path-exclude=/usr/share/locale/*",
    ]);
    command.args([release, &half.display().to_string()]).args(sources(release));
    said(command.stdin(Stdio::null())).context("no Debian tree")?;
    fs::rename(&half, archive)?;
    fs::write(list, INCLUDED.join(","))?;
    // to whom the build directory belongs, so do its files
    let owner = fs::metadata(build_directory())?;
    for file in [cache, archive, list] {
        std::os::unix::fs::chown(file, Some(owner.uid()), Some(owner.gid()))?;
    }
    Ok(())
}

/// The release of this machine
fn release() -> Result<String> {
    let text = fs::read_to_string("/etc/os-release").context("needs Debian")?;
    let value = |key: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix('='));
        line.map(|value| value.trim_matches('"').to_owned())
    };
    if value("ID").as_deref() != Some("debian") {
        bail!("needs Debian, for a tree with the same libraries");
    }
    value("VERSION_CODENAME").context("needs a release of Debian")
}

/// The sources of this machine that have the release itself; mmdebstrap's own choice if there are none
fn sources(release: &str) -> Vec<PathBuf> {
    let listed = fs::read_dir("/etc/apt/sources.list.d").into_iter().flatten().flatten();
    let files = listed.map(|entry| entry.path()).chain([PathBuf::from("/etc/apt/sources.list")]);
    let has_release = |file: &PathBuf| {
        let text = fs::read_to_string(file).unwrap_or_default();
        let lines = text.lines().filter(|line| !line.trim_start().starts_with('#'));
        lines.flat_map(str::split_whitespace).any(|word| word == release)
    };
    files.filter(has_release).collect()
}

/// Unpacks Debian, with our packages in it
fn unpack(archive: &Path, packages: &[PathBuf], tree: &Path) -> Result<()> {
    fs::create_dir(tree)?;
    let mut command = Command::new("tar");
    command.args(["--extract", "--numeric-owner", "--same-permissions", "--file"]);
    said(command.arg(archive).arg("--directory").arg(tree))?;
    let place = tree.join(PACKAGES.trim_start_matches('/'));
    fs::create_dir_all(&place)?;
    for package in packages {
        fs::copy(package, place.join(package.file_name().context("no file")?))?;
    }
    Ok(())
}

/// Installs our packages on a copy of Debian that no systemd has booted yet
fn install(directory: &Path) -> Result<()> {
    let tree = directory.join(Tree::Installed.name());
    let mut copy = Command::new("cp");
    copy.args(["--archive", "--reflink=auto"]).arg(directory.join(Tree::Plain.name())).arg(&tree);
    said(&mut copy)?;
    let mut command = Command::new("unshare");
    command.args(["--mount", "--pid", "--fork", "--kill-child", "sh", "-c", INSTALL, "sh"]);
    command.arg(&tree).env("DEBIAN_FRONTEND", "noninteractive");
    said(&mut command).context("the packages cannot be installed")
}

/// Runs a program that has to succeed
fn said(command: &mut Command) -> Result<()> {
    let output = command.output().with_context(|| format!("{command:?}"))?;
    if !output.status.success() {
        let text = [output.stdout, output.stderr].concat();
        let text = String::from_utf8_lossy(&text);
        let lines: Vec<_> = text.lines().collect();
        let end = lines[lines.len().saturating_sub(12)..].join("\n");
        bail!("{}: {end}", command.get_program().display());
    }
    Ok(())
}

/// A reason, as it is listed beside a case
fn one_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// The directory that the build goes to: this program is in `debug/deps` of it
fn build_directory() -> PathBuf {
    let program = std::env::current_exe().unwrap_or_default();
    program.ancestors().nth(3).unwrap_or(Path::new("/nonexistent")).to_owned()
}

const INSTALL: &str = "mount -t proc proc \"$1/proc\" && exec chroot \"$1\" sh -c 'dpkg --install /srv/fastvpn/*.deb'";
/// Packages of the tree; what our packages depend on among them, since systems have no mirror
const INCLUDED: &[&str] = &[
    "dbus",
    "dbus-bin",
    "fish",
    "iperf3",
    "iproute2",
    "iputils-ping",
    "libnss-resolve",
    "libnss-systemd",
    "libpam-systemd",
    "network-manager",
    "polkitd",
    "procps",
    "sudo",
    "systemd",
    "systemd-resolved",
    "systemd-sysv",
    "zsh",
];
