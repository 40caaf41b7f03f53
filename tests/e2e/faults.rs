//! What an administrator may find broken: names, addresses, ports, permissions, devices, clocks.

use std::net::UdpSocket;
use std::os::unix::fs::chown;
use std::process::Command;
use std::time::SystemTime;

use fastvpn_tests::lab::daemon::program;
use fastvpn_tests::lab::star::{HUB_PORT, INTERFACE, NETWORK};
use fastvpn_tests::lab::{Host, Launch, Star, until};

use crate::runner::{cases, skip};
use crate::support::{BRIEF, LONG, await_failure, await_up, plan, probes, star};

cases![
    address_on_another_interface_is_a_clear_error,
    boot_clock_that_jumps_back_does_not_lock_a_peer_out["unshare"],
    bus_restarted_brings_the_objects_back,
    check_reports_all_problems_at_once,
    device_file_missing_is_a_clear_error["unshare"],
    interface_name_taken_is_a_clear_error,
    no_permission_is_a_clear_error["setpriv"],
    port_taken_is_a_clear_error_and_not_for_ever,
    second_daemon_leaves_the_first_alone,
    wall_clock_stepped_by_an_hour_changes_nothing,
];

/// A star of which the hub runs and the first peer may be started
fn waiting() -> Star {
    let mut star = Star::new(plan()).unwrap();
    star.hub.start().unwrap();
    star
}

/// Asserts that a sentence is about all of these
fn assert_names(detail: &str, words: &[&str]) {
    for word in words {
        assert!(detail.contains(word), "no {word:?} in {detail:?}");
    }
}

fn interface_name_taken_is_a_clear_error() {
    let mut star = waiting();
    let peer = &mut star.peers[0];
    peer.host.occupy(INTERFACE).unwrap();

    peer.start().unwrap();

    assert_names(&await_failure(peer), &[INTERFACE]);
    assert!(peer.host.devices().unwrap().contains(&INTERFACE.to_owned()), "it was taken away");
    peer.host.remove(INTERFACE).unwrap();
    assert_eq!(peer.ctl(&["connect", NETWORK]).unwrap().code, 0);
    await_up(peer, BRIEF);
}

fn address_on_another_interface_is_a_clear_error() {
    let mut star = waiting();
    let other = Host::new("cable").unwrap();
    let address = star.ip(0);
    let peer = &mut star.peers[0];
    peer.host.veth("eth7", &other, "eth0").unwrap();
    peer.host.add_address("eth7", address, 24).unwrap();

    peer.start().unwrap();

    assert_names(&await_failure(peer), &["10.97.0.11", "eth7"]);
    drop(other);
    assert!(until(BRIEF, || !peer.host.devices().unwrap().contains(&"eth7".to_owned())));
    assert_eq!(peer.ctl(&["connect", NETWORK]).unwrap().code, 0);
    await_up(peer, BRIEF);
}

fn port_taken_is_a_clear_error_and_not_for_ever() {
    let mut star = Star::new(plan()).unwrap();
    let taken = star.hub.host.run(|_| UdpSocket::bind(("0.0.0.0", HUB_PORT))).unwrap();

    star.hub.start().unwrap();
    assert_names(&await_failure(&star.hub), &["8796"]);
    drop(taken);

    // nobody has to do anything
    await_up(&star.hub, LONG);
    star.peers[0].start().unwrap();
    await_up(&star.peers[0], BRIEF);
}

fn no_permission_is_a_clear_error() {
    let mut star = waiting();
    let nobody = 65_534;
    for name in ["key", "state"] {
        chown(star.peers[0].path(name), Some(nobody), Some(nobody)).unwrap();
    }
    let wrapper = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"];
    let more = ["--inh-caps=-all", "--bounding-set=-all", "--"];
    let wrapper = wrapper.iter().chain(&more).map(|&word| word.to_owned()).collect();
    let peer = &mut star.peers[0];

    peer.start_with(&Launch { wrapper, ..Launch::default() }).unwrap();

    let detail = await_failure(peer);
    assert!(detail.contains("CAP_NET_ADMIN") || detail.contains("ermi"), "{detail}");
}

fn device_file_missing_is_a_clear_error() {
    let mut star = waiting();
    let script = "mount -t tmpfs none /dev/net && exec \"$@\"";
    let wrapper = ["unshare", "-m", "--", "sh", "-c", script, "sh"].map(str::to_owned).to_vec();
    let peer = &mut star.peers[0];

    peer.start_with(&Launch { wrapper, ..Launch::default() }).unwrap();

    assert_names(&await_failure(peer), &["/dev/net/tun"]);
}

fn check_reports_all_problems_at_once() {
    let star = Star::new(plan()).unwrap();
    let peer = &star.peers[0];
    let directory = peer.path("etc");
    let check = || {
        let mut command = Command::new(program("fastvpnd").unwrap());
        command.arg("--check").arg("--config-dir").arg(&directory);
        command.arg("--state-dir").arg(peer.path("state")).output().unwrap()
    };
    assert!(check().status.success(), "{}", String::from_utf8_lossy(&check().stderr));

    let text = star.peer_config(0) + "colour = \"blue\"\n";
    let text = text.replace("role = \"peer\"", "role = \"peer\"\nmtu = 12\nsubnets = []");
    peer.configure(NETWORK, &text.replace("10.97.0.11/24", "10.97.0.300/24")).unwrap();
    let output = check();

    assert_eq!(output.status.code(), Some(1));
    let said = String::from_utf8_lossy(&output.stdout).into_owned()
        + &String::from_utf8_lossy(&output.stderr);
    assert_names(&said, &["lab.toml:2", "mtu", "subnets", "10.97.0.300", "colour"]);
    // the key itself is never shown
    let secret = std::fs::read_to_string(peer.path("key")).unwrap();
    assert!(!said.contains(secret.trim()));
}

fn bus_restarted_brings_the_objects_back() {
    let mut star = star();
    let probes = probes(&star);

    star.peers[0].bus.restart().unwrap();

    await_up(&star.peers[0], LONG);
    assert!(star.peers[0].peer("peer2").is_ok());
    assert_eq!(star.peers[0].ctl(&["ping", "-c1", "peer2"]).unwrap().code, 0);
    let report = probes.finish().unwrap();
    assert!(report.longest_gap.as_millis() < 300, "{:?}", report.longest_gap);
}

fn second_daemon_leaves_the_first_alone() {
    let mut star = star();
    let probes = probes(&star);
    let mut second = star.peers[0].host.command(program("fastvpnd").unwrap());
    second.arg("--config-dir").arg(star.peers[0].path("etc"));
    second.arg("--state-dir").arg(star.peers[0].path("state"));
    second.args(["--bus", &star.peers[0].bus.address()]);
    second.stdout(std::process::Stdio::piped()).stderr(std::process::Stdio::piped());

    let mut child = star.peers[0].host.spawn(second).unwrap();
    let ended = until(BRIEF, || child.try_wait().unwrap().is_some());
    let _ = child.kill();
    let output = child.wait_with_output().unwrap();

    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(ended, "the second daemon stays: {said}");
    assert!(!output.status.success());
    assert!(said.contains("another") || said.contains("already"), "{said}");
    assert!(star.peers[0].runs());
    assert!(probes.more(50, BRIEF));
    let report = probes.finish().unwrap();
    assert!(report.longest_gap.as_millis() < 300, "{:?}", report.longest_gap);
    await_up(&star.peers[0], BRIEF);
}

fn boot_clock_that_jumps_back_does_not_lock_a_peer_out() {
    let ahead = ["unshare", "-T", "--boottime", "3600", "--monotonic", "3600", "--"];
    let shifted = Command::new(ahead[0]).args(&ahead[1..]).args(["cat", "/proc/uptime"]).output();
    let seconds = |text: String| text.split('.').next().and_then(|text| text.parse::<u64>().ok());
    let now = seconds(std::fs::read_to_string("/proc/uptime").unwrap()).unwrap();
    let then = seconds(String::from_utf8_lossy(&shifted.unwrap().stdout).into_owned());
    if then.is_none_or(|then| then < now + 3000) {
        skip("needs time namespaces");
    }
    let mut star = waiting();
    star.peers[1].start().unwrap();
    let wrapper = ahead.iter().map(|&word| word.to_owned()).collect();
    star.peers[0].start_with(&Launch { wrapper, ..Launch::default() }).unwrap();
    await_up(&star.peers[0], BRIEF);
    star.peers[0].reaches(star.ip(1), BRIEF).unwrap();

    // the next start is an hour earlier, as far as the peer can tell
    star.peers[0].kill().unwrap();
    star.peers[0].start().unwrap();

    await_up(&star.peers[0], BRIEF);
    star.peers[0].reaches(star.ip(1), BRIEF).unwrap();
    star.peers[1].reaches(star.ip(0), BRIEF).unwrap();
}

fn wall_clock_stepped_by_an_hour_changes_nothing() {
    let library = ["x86_64-linux-gnu", "aarch64-linux-gnu", "arm-linux-gnueabihf"]
        .map(|triplet| format!("/usr/lib/{triplet}/faketime/libfaketime.so.1"))
        .into_iter()
        .find(|path| std::path::Path::new(path).exists());
    let Some(library) = library else { skip("needs libfaketime") };
    let mut star = waiting();
    star.peers[1].start().unwrap();
    let step = star.peers[0].path("step");
    std::fs::write(&step, "+0\n").unwrap();
    let environment = [
        ("LD_PRELOAD", library.as_str()),
        ("FAKETIME_TIMESTAMP_FILE", &step.display().to_string()),
        ("FAKETIME_NO_CACHE", "1"),
        // only the wall clock: nobody can step the others
        ("FAKETIME_DONT_FAKE_MONOTONIC", "1"),
    ]
    .map(|(name, value)| (name.to_owned(), value.to_owned()))
    .to_vec();
    let launch = Launch { environment, ..Launch::default() };
    star.peers[0].start_with(&launch).unwrap();
    await_up(&star.peers[0], BRIEF);
    let probes = probes(&star);

    for offset in ["+3600\n", "-3600\n"] {
        std::fs::write(&step, offset).unwrap();
        assert!(probes.more(150, BRIEF));
        await_up(&star.peers[0], BRIEF);
        // the daemon did see it: that is the time that it shows
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs();
        let seen = |peer: &serde_json::Value| {
            peer["last_seen"].as_u64().is_some_and(|seen| seen.abs_diff(now) > 3000)
        };
        star.peers[0].await_peer("peer2", "seen at another time", BRIEF, seen).unwrap();
    }
    // a start in the past of what the hub has seen
    star.peers[0].kill().unwrap();
    star.peers[0].start_with(&launch).unwrap();
    await_up(&star.peers[0], BRIEF);
    star.peers[0].reaches(star.ip(1), BRIEF).unwrap();
    drop(probes);
}
