//! A container of systemd-nspawn: how it starts, and how nothing of it stays.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use rustix::process::{Pid, Signal, kill_process};

use super::super::{Host, until};

/// A container and its control groups
#[derive(Debug)]
pub(super) struct Container {
    /// Its process 1, as a process of this machine
    pub(super) leader: u32,
    nspawn: Child,
    _groups: Groups,
}

/// The control groups made for a container, where no systemd of the machine makes them
///
/// Two containers in one control group would take their units for the other's.
#[derive(Debug)]
struct Groups(Vec<PathBuf>);

impl Container {
    /// Starts systemd on a tree, in a host's network; returns when its process 1 runs
    pub(super) fn start(host: &Arc<Host>, tree: &Path, directory: &Path) -> Result<Self> {
        let machine = format!("fastvpn-{}-{}", std::process::id(), host.name());
        let log = directory.join(format!("{}.nspawn", host.name()));
        let managed = Path::new("/run/systemd/system").exists();
        let groups = if managed { Groups(Vec::new()) } else { Groups::make(&machine)? };
        let mut command = Command::new("setpriv");
        // killed, nspawn would leave the container alive; told to end, it powers it off
        command.args(["--pdeathsig", "TERM", "--"]).stdin(Stdio::null());
        if managed {
            command.args(["systemd-run", "--scope", "--quiet", "--collect"]);
            command.args(["--property=Delegate=yes", &format!("--unit={machine}"), "--"]);
        } else {
            command.args(["sh", "-c", JOIN, "sh"]).args(&groups.0).arg("--");
        }
        command.arg("systemd-nspawn").arg(format!("--directory={}", tree.display()));
        command.arg(format!("--machine={machine}")).arg(format!("--hostname={}", host.name()));
        command.arg(format!("--network-namespace-path={}", host.path())).args(ARGUMENTS);
        // inside, control groups are version 2 alone
        command.env("SYSTEMD_NSPAWN_UNIFIED_HIERARCHY", "1");
        let file = File::create(&log)?;
        command.stdout(file.try_clone()?).stderr(file);
        let nspawn = host.spawn(command).context("systemd-nspawn does not start")?;
        let mut container = Self { leader: 0, nspawn, _groups: groups };
        container.await_leader().with_context(|| fs::read_to_string(&log).unwrap_or_default())?;
        Ok(container)
    }

    fn await_leader(&mut self) -> Result<()> {
        let mut ended = None;
        until(Duration::from_secs(20), || {
            ended = self.nspawn.try_wait().ok().flatten();
            self.leader = leader_of(self.nspawn.id()).unwrap_or(0);
            ended.is_some() || self.leader != 0
        });
        match (ended, self.leader) {
            (Some(status), _) => bail!("systemd-nspawn ended: {status}"),
            (None, 0) => bail!("systemd-nspawn starts nothing"),
            (None, _) => Ok(()),
        }
    }
}

impl Drop for Container {
    fn drop(&mut self) {
        // all others in it die with its process 1, and nspawn notices
        let leader = i32::try_from(self.leader).ok().and_then(Pid::from_raw);
        if let Some(leader) = leader {
            let _ = kill_process(leader, Signal::KILL);
        }
        let ended =
            until(Duration::from_secs(10), || matches!(self.nspawn.try_wait(), Ok(Some(_))));
        if !ended {
            let _ = self.nspawn.kill();
            let _ = self.nspawn.wait();
        }
    }
}

impl Groups {
    fn make(name: &str) -> Result<Self> {
        sweep();
        let mut groups = Self(Vec::new());
        for root in roots() {
            let group = root.join(name);
            fs::create_dir(&group).with_context(|| group.display().to_string())?;
            groups.0.push(group);
        }
        Ok(groups)
    }
}

impl Drop for Groups {
    fn drop(&mut self) {
        // until the last process is gone
        until(Duration::from_secs(5), || self.0.iter().all(|group| remove(group)));
    }
}

/// The child of nspawn that is systemd by now
fn leader_of(nspawn: u32) -> Option<u32> {
    let children = fs::read_to_string(format!("/proc/{nspawn}/task/{nspawn}/children")).ok()?;
    let leader: u32 = children.split_whitespace().next()?.parse().ok()?;
    let comm = fs::read_to_string(format!("/proc/{leader}/comm")).ok()?;
    (comm.trim_end() == "systemd").then_some(leader)
}

/// Hierarchies in which a container needs a control group of its own
fn roots() -> Vec<PathBuf> {
    let top = Path::new("/sys/fs/cgroup");
    if top.join("cgroup.controllers").exists() {
        return vec![top.to_owned()];
    }
    ["unified", "systemd"]
        .map(|name| top.join(name))
        .into_iter()
        .filter(|root| root.exists())
        .collect()
}

/// Removes what killed test programs left
fn sweep() {
    for root in roots() {
        for entry in fs::read_dir(root).into_iter().flatten().flatten() {
            let name = entry.file_name();
            let name = name.to_string_lossy();
            let Some(rest) = name.strip_prefix("fastvpn-") else { continue };
            let pid = rest.split('-').next().unwrap_or_default();
            if pid.parse::<u32>().is_ok() && !Path::new("/proc").join(pid).exists() {
                remove(&entry.path());
            }
        }
    }
}

/// Removes a control group and those below it; tells whether it is gone
fn remove(group: &Path) -> bool {
    for entry in fs::read_dir(group).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            remove(&entry.path());
        }
    }
    fs::remove_dir(group).is_ok() || !group.exists()
}

/// Joins control groups, then becomes what stands behind `--`
const JOIN: &str = "while [ \"$1\" != -- ]; do echo $$ > \"$1/cgroup.procs\" || exit; shift; done
shift; exec \"$@\"";
const ARGUMENTS: [&str; 12] = [
    "--quiet",
    "--boot",
    "--volatile=overlay",
    "--register=no",
    "--keep-unit",
    "--console=pipe",
    "--resolv-conf=off",
    "--timezone=off",
    "--link-journal=no",
    // with the second, what units forbid by programs of the kernel (DeviceAllow=) is forbidden
    "--capability=all",
    "--system-call-filter=bpf",
    "--bind=/dev/net/tun",
];
