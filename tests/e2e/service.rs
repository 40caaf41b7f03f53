//! The daemon as a service: what it tells systemd, how it stops, its unit file.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use fastvpn_tests::lab::daemon::program;
use fastvpn_tests::lab::{Launch, Star, until};
use rustix::process::Signal;

use crate::runner::cases;
use crate::support::{BRIEF, await_up, plan, star};

cases![
    manager_that_does_not_read_holds_nobody_up,
    stop_undoes_everything_and_says_goodbye,
    systemd_is_told_what_happens,
    unit_file_is_sound["systemd-analyze"],
];

fn manager_that_does_not_read_holds_nobody_up() {
    let mut star = star();

    // each time the hub has another status line to tell, more often than a socket keeps unread
    for _ in 0..16 {
        star.peers[0].stop().unwrap();
        star.peers[0].start().unwrap();
        await_up(&star.peers[0], BRIEF);
    }

    assert!(star.hub.status("lab").is_ok());
}

fn stop_undoes_everything_and_says_goodbye() {
    let mut star = star();
    star.peers[0].reaches(star.ip(1), BRIEF).unwrap();

    let status = star.peers[1].stop().unwrap();

    assert!(status.success(), "{status}");
    assert_eq!(star.peers[1].host.devices().unwrap(), ["lo", "wan0"]);
    assert!(star.peers[1].told().iter().any(|line| line == "STOPPING=1"));
    // a goodbye needs no timeout
    assert!(until(Duration::from_secs(3), || star.peers[0].peer("peer2").is_err()));

    let status = star.hub.stop().unwrap();
    assert!(status.success(), "{status}");
    assert_eq!(star.hub.host.devices().unwrap(), ["lo", "wan0"]);
}

fn systemd_is_told_what_happens() {
    let mut star = Star::new(plan()).unwrap();
    star.hub.start().unwrap();
    let environment = vec![("WATCHDOG_USEC".to_owned(), "1000000".to_owned())];
    let peer = &mut star.peers[0];
    peer.start_with(&Launch { environment, ..Launch::default() }).unwrap();
    await_up(peer, BRIEF);

    assert!(peer.told_soon("STATUS="), "{:?}", peer.told());
    let count = |lines: &[String]| lines.iter().filter(|line| *line == "WATCHDOG=1").count();
    assert!(until(BRIEF, || count(peer.told()) >= 3), "{:?}", peer.told());

    peer.signal(Signal::HUP).unwrap();
    assert!(peer.told_soon("RELOADING=1"));
    assert!(peer.told_soon("MONOTONIC_USEC="));
    let ready = |lines: &[String]| lines.iter().filter(|line| *line == "READY=1").count();
    assert!(until(BRIEF, || ready(peer.told()) >= 2), "{:?}", peer.told());
}

fn unit_file_is_sound() {
    let unit = Path::new(env!("CARGO_MANIFEST_DIR")).join("../systemd/fastvpnd.service");
    let directory = tempfile::tempdir().unwrap();
    let copy = directory.path().join("fastvpnd.service");
    // the programs are not installed here
    let text = fs::read_to_string(unit)
        .unwrap()
        .replace("/usr/bin/fastvpnd", &program("fastvpnd").unwrap().display().to_string())
        .replace("/usr/bin/fastvpnctl", &program("fastvpnctl").unwrap().display().to_string());
    fs::write(&copy, text).unwrap();

    let verify = Command::new("systemd-analyze").arg("verify").arg("--man=no").arg(&copy).output();

    let verify = verify.unwrap();
    let said = String::from_utf8_lossy(&verify.stderr).into_owned();
    assert!(verify.status.success() && !said.contains("fastvpnd.service:"), "{said}");

    let mut security = Command::new("systemd-analyze");
    security.args(["security", "--offline=true", "--no-pager", "--threshold=25"]).arg(&copy);
    let security = security.output().unwrap();
    let said = String::from_utf8_lossy(&security.stdout).into_owned();
    assert!(security.status.success(), "exposure above 2.5: {said}");
}
