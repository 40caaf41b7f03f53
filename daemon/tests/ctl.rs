//! The control tool before a daemon that is a script.
//!
//! Runs the `fastvpnctl` that was built last beside these tests (`cargo build -p fastvpnctl`);
//! without one there is nothing to test, and each test says that it was skipped.

// Helpers of tests are tests as well.
#![allow(clippy::unwrap_used)]

#[allow(dead_code, reason = "each suite uses its part of it")]
mod support;

use std::io::{BufRead, BufReader, Seek, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::time::Duration;

use fastvpnd::api::Availability;
use fastvpnd::handle::NetworkState;
use serde_json::Value;
use support::bus::PrivateBus;
use support::fake::{Fake, invitation, name, network, office};
use support::schema::faults;
use support::{run, tool};

/// What a run of the tool gave
#[derive(Debug)]
struct Run {
    code: i32,
    out: String,
    err: String,
}

impl Run {
    fn json(&self) -> Vec<String> {
        self.out.lines().map(str::to_owned).collect()
    }
}

#[test]
fn status_and_peers_show_the_snapshot() {
    with_daemon(async |bus, _| {
        let nothing = ctl(bus, &[]).await;
        let status = ctl(bus, &["status", "--json"]).await;
        let peers = ctl(bus, &["peers", "office"]).await;
        let peers_json = ctl(bus, &["--json", "peers"]).await;

        assert_eq!(nothing.code, 0);
        assert!(
            nothing.out.contains("office") && nothing.out.contains("fvpn-office"),
            "{nothing:?}"
        );
        assert!(!nothing.out.contains('\x1b'), "no colours into a pipe");
        assert!(status.out.starts_with(r#"{"networks":[{"name":"office","role":"peer","#));
        assert!(status.out.contains(r#""counters":{"dropped":1,"rx_bytes":200,"rx_packets":2,"#));
        assert!(peers.out.contains("tokyo") && peers.out.contains("31.2 ms"), "{peers:?}");
        assert!(peers_json.out.contains(r#""rtt_ms":31.2,"rtt_min_ms":30.0,"loss":0.25"#));
    });
}

#[test]
fn top_prints_one_picture_where_there_is_no_terminal() {
    with_daemon(async |bus, _| {
        let top = ctl(bus, &["top", "office", "--sort", "rtt"]).await;
        let json = ctl(bus, &["top", "--json"]).await;
        let unknown = ctl(bus, &["top", "nowhere"]).await;

        assert_eq!((top.code, json.code, unknown.code), (0, 1, 1));
        assert!(top.out.contains("tokyo") && top.out.contains("RTT*"), "{top:?}");
        assert!(!top.out.contains('\x1b'), "{top:?}");
    });
}

#[test]
fn connect_and_disconnect_change_what_status_shows() {
    with_daemon(async |bus, _| {
        let down = ctl(bus, &["disconnect", "office"]).await;
        let status_down = ctl(bus, &["status", "--json"]).await;
        let up = ctl(bus, &["connect", "office", "--json"]).await;
        let status_up = ctl(bus, &["status", "--json"]).await;

        assert_eq!((down.code, down.out.as_str()), (0, "office is down\n"));
        assert!(status_down.out.contains(r#""state":"down""#));
        assert_eq!(up.out, "{\"network\":\"office\",\"state\":\"up\"}\n");
        assert!(status_up.out.contains(r#""state":"up""#));
    });
}

#[test]
fn hub_is_made_and_the_next_step_is_named() {
    with_daemon(async |bus, _| {
        let hub = ctl(bus, &["hub", "init", "roof", "--subnet", "10.0.0.0/24"]).await;
        let json = ctl(bus, &["hub", "init", "cellar", "--subnet", "10.1.0.0/24", "--json"]).await;
        let invalid = ctl(bus, &["hub", "init", "invalid", "--subnet", "x"]).await;
        let left = ctl(bus, &["leave", "roof"]).await;

        assert_eq!(hub.code, 0, "{hub:?}");
        assert!(
            hub.out.starts_with("roof is up: 172.16.97.101/24 on fvpn-office; it list"),
            "{hub:?}"
        );
        assert!(hub.out.contains("no --endpoint was given"), "{hub:?}");
        assert!(hub.out.ends_with("next, invite a machine: fastvpnctl invite NAME\n"), "{hub:?}");
        assert!(
            json.out.starts_with(r#"{"network":"cellar","state":"up","detail":"","interface":"#)
        );
        assert_eq!(invalid.err, "fastvpnctl: subnet: is missing\n");
        assert_eq!(left.out, "roof is left; its keys are deleted\n");
    });
}

#[test]
fn invitation_is_taken_from_the_command_line_or_from_standard_input() {
    with_daemon(async |bus, _| {
        let text = invitation("home").to_string();
        let given = ctl(bus, &["join", &text]).await;
        let read = ctl_with_input(bus, &["join", "-", "--name", "work"], &text).await;
        let nothing = ctl_with_input(bus, &["join", "-"], "").await;
        let pending = ctl(bus, &["join", &text, "--name", "pending"]).await;
        let refused = ctl(bus, &["join", &text, "--name", "refused", "--json"]).await;

        assert_eq!(given.out, "home is up: 172.16.97.101/24 on fvpn-office\n");
        assert_eq!(read.out, "work is up: 172.16.97.101/24 on fvpn-office\n");
        assert_eq!((nothing.code, pending.code, refused.code), (1, 0, 1));
        assert!(nothing.err.contains("no invitation"), "{nothing:?}");
        assert!(pending.out.starts_with("pending is joined, and "), "{pending:?}");
        assert!(refused.out.starts_with(r#"{"error":{"code":"Refused","message":"the hub refu"#));
    });
}

#[test]
fn errors_are_a_sentence_a_code_and_an_object() {
    with_daemon(async |bus, _| {
        let unknown = ctl(bus, &["connect", "nowhere", "--json"]).await;
        let timeout = ctl(bus, &["connect", "timeout"]).await;
        let status = ctl(bus, &["status", "nowhere"]).await;
        let slip = ctl(bus, &["disconnect", "offcie"]).await;
        let peer = ctl(bus, &["ping", "toky", "-c", "1"]).await;
        let usage = ctl(bus, &["dance"]).await;

        assert!(slip.err.ends_with("; did you mean office?\n"), "{slip:?}");
        assert!(peer.err.ends_with("; did you mean tokyo?\n"), "{peer:?}");
        assert_eq!(unknown.code, 1);
        assert!(unknown.out.starts_with(r#"{"error":{"code":"UnknownNetwork","message":"#));
        let message = "fastvpnctl: no network nowhere is configured; there are: office\n";
        assert_eq!(unknown.err, message);
        assert_eq!(timeout.code, 1);
        assert_eq!(timeout.err, "fastvpnctl: the hub does not answer\n");
        assert_eq!(timeout.out, "");
        assert_eq!(status.code, 1);
        assert_eq!(usage.code, 2);
    });
}

#[test]
fn configuration_that_is_bad_is_told_with_its_problems() {
    with_daemon(async |bus, fake| {
        let good = ctl(bus, &["reload"]).await;
        fake.change(|snapshot| {
            snapshot.networks.insert(name("bad"), network(Default::default()));
        });
        let bad = ctl(bus, &["reload"]).await;

        assert_eq!(good.out, "changed: office\n");
        assert_eq!(bad.code, 1);
        assert!(bad.err.contains("bad.toml:1: unknown key"), "{bad:?}");
    });
}

#[test]
fn ping_gives_times_and_a_summary() {
    with_daemon(async |bus, _| {
        let answered = ctl(bus, &["ping", "tokyo", "-c", "3", "-i", "0.02"]).await;
        let json = ctl(bus, &["ping", "tokyo", "-c", "1", "--json"]).await;
        let lost = ctl(bus, &["ping", "lost", "-c", "2", "-i", "0.02"]).await;
        let nobody = ctl(bus, &["ping", "nobody", "-c", "1"]).await;

        assert_eq!(answered.code, 0);
        assert!(answered.out.contains("seq=3 time=31.2 ms direct 203.0.113.5:8796"));
        assert!(answered.out.contains("3 sent, 3 answered, 0 % lost"), "{answered:?}");
        assert!(json.json()[0].contains(r#""seq":1,"answered":true,"rtt_ms":31.2"#), "{json:?}");
        assert!(json.json()[1].starts_with(r#"{"summary":{"sent":1,"answered":1,"loss":0.0"#));
        assert_eq!(lost.code, 1);
        assert!(lost.out.contains("2 sent, 0 answered, 100 % lost"), "{lost:?}");
        assert_eq!(nobody.code, 1);
        assert!(nobody.err.contains("no peer \"nobody\" in network office"), "{nobody:?}");
    });
}

#[test]
fn members_are_managed_on_the_hub_that_is_meant() {
    with_daemon(async |bus, _| {
        let no_hub = ctl(bus, &["invite", "osaka"]).await;
        let peer = ctl(bus, &["member", "list", "office"]).await;
        ctl(bus, &["hub", "init", "roof", "--subnet", "10.0.0.0/24"]).await;
        let invited = ctl(bus, &["invite", "osaka"]).await;
        let listed = ctl(bus, &["member", "list"]).await;
        let open = ctl(bus, &["invitation", "list"]).await;
        let fixed = ctl(bus, &["--json", "member", "revoke", "kyoto"]).await;
        let revoked = ctl(bus, &["member", "revoke", "tokyo"]).await;
        let nobody = ctl(bus, &["member", "approve", "nobody"]).await;
        let withdrawn = ctl(bus, &["invitation", "cancel", "nara"]).await;
        ctl(bus, &["hub", "init", "cellar", "--subnet", "10.1.0.0/24"]).await;
        let which = ctl(bus, &["invite", "osaka"]).await;
        let named = ctl(bus, &["invite", "osaka", "--network", "cellar"]).await;

        assert_eq!((no_hub.code, peer.code), (1, 1));
        assert!(no_hub.err.contains("hub init NAME --subnet"), "{no_hub:?}");
        assert!(peer.err.contains("is no hub of network office"), "{peer:?}");
        assert_eq!(invited.out, "FASTVPN:OSAKA\n", "a pipe gets the invitation alone");
        for word in ["roof", "tokyo", "approved", "yes", "172.16.97.102", "store"] {
            assert!(listed.out.contains(word), "{word} in {listed:?}");
        }
        assert!(open.out.contains("osaka") && open.out.contains("needed"), "{open:?}");
        assert!(fixed.out.starts_with(r#"{"error":{"code":"Configured","#), "{fixed:?}");
        assert_eq!((revoked.code, revoked.out.as_str()), (0, "tokyo is revoked in roof\n"));
        assert!(nobody.err.contains("see: fastvpnctl member list"), "{nobody:?}");
        assert!(withdrawn.err.contains("see: fastvpnctl invitation list"), "{withdrawn:?}");
        assert_eq!((which.code, named.code), (1, 0));
        assert!(which.err.contains("--network: cellar, roof"), "{which:?}");
    });
}

#[test]
fn interrupted_ping_sums_up() {
    with_daemon(async |bus, _| {
        let mut running = Tool::start(bus, &["ping", "tokyo", "-i", "0.1"]);
        running.wait_for("seq=2").await;

        running.interrupt();

        running.wait_for("answered, 0 % lost").await;
        assert_eq!(running.code().await, Some(0));
    });
}

#[test]
fn json_is_as_its_schema_says() {
    with_daemon(async |bus, _| {
        let file = tempfile::tempdir().unwrap();
        let key = file.path().join("key").display().to_string();
        let text = invitation("home").to_string();
        for (schema, arguments) in [
            ("status", &["status"][..]),
            ("peers", &["peers"]),
            ("doctor", &["doctor"]),
            ("disconnect", &["disconnect", "office"]),
            ("connect", &["connect", "office"]),
            ("reload", &["reload"]),
            ("hub", &["hub", "init", "roof", "--subnet", "10.0.0.0/24"]),
            ("join", &["join", &text]),
            ("invite", &["invite", "osaka"]),
            ("invitations", &["invitation", "list"]),
            ("member", &["invitation", "cancel", "osaka"]),
            ("members", &["member", "list", "roof"]),
            ("member", &["member", "approve", "tokyo"]),
            ("renamed", &["member", "rename", "tokyo", "kyoto"]),
            ("member", &["member", "revoke", "tokyo"]),
            ("error", &["member", "revoke", "nobody"]),
            ("leave", &["leave", "roof"]),
            ("keygen", &["keygen", &key]),
            ("ping", &["ping", "tokyo", "-c", "1"]),
            ("ping", &["ping", "lost", "-c", "1"]),
            ("error", &["connect", "nowhere"]),
        ] {
            let run = ctl(bus, &[&["--json"], arguments].concat()).await;

            let all: Vec<Value> =
                run.json().iter().map(|line| serde_json::from_str(line).unwrap()).collect();
            assert!(!all.is_empty(), "{run:?}");
            // the last line of a ping that failed says so
            for value in all.iter().filter(|value| schema == "error" || value["error"].is_null()) {
                assert_eq!(faults(schema, value), Vec::<String>::new(), "{arguments:?}: {value}");
            }
        }
    });
}

#[test]
fn events_are_as_their_schema_says() {
    with_daemon(async |bus, fake| {
        let mut monitor = Tool::start(bus, &["monitor", "--json"]);
        monitor.wait_for("\"event\":\"peer\"").await;
        fake.change(|snapshot| {
            snapshot.networks.get_mut(&name("office")).unwrap().peers.clear();
        });
        monitor.wait_for("\"change\":\"removed\"").await;

        let seen = monitor.all();

        assert!(seen.len() >= 4, "{seen:?}");
        for line in seen {
            let value: Value = serde_json::from_str(&line).unwrap();
            assert_eq!(faults("monitor", &value), Vec::<String>::new(), "{line}");
        }
    });
}

#[test]
fn schema_that_does_not_fit_is_noticed() {
    let good = serde_json::json!({"network": "office", "state": "up"});
    assert_eq!(faults("connect", &good), Vec::<String>::new());
    for bad in [
        serde_json::json!({"network": "office", "state": "down"}),
        serde_json::json!({"network": 1, "state": "up"}),
        serde_json::json!({"state": "up"}),
        serde_json::json!({"network": "office", "state": "up", "colour": "blue"}),
        serde_json::json!([]),
    ] {
        assert!(!faults("connect", &bad).is_empty(), "{bad}");
    }
}

#[test]
fn absence_of_daemon_or_bus_has_a_code_of_its_own() {
    if tool().is_none() {
        return;
    }
    run(async {
        let bus = PrivateBus::start();
        for command in [&["status"][..], &["connect", "x"], &["ping", "x"], &["reload"]] {
            let without = ctl(&bus, command).await;
            assert_eq!(without.code, 3, "{without:?}");
            assert!(without.err.contains("start it with: fastvpnd --bus"), "{without:?}");
        }
        let bus = PrivateBus::prepare();
        for command in [&["status"][..], &["monitor"]] {
            let no_bus = ctl(&bus, command).await;
            assert_eq!(no_bus.code, 3, "{no_bus:?}");
            assert!(no_bus.err.contains("cannot reach the bus at unix:path="), "{no_bus:?}");
        }
    });
}

#[test]
fn who_may_not_is_told_so_by_the_code() {
    if !rustix::process::geteuid().is_root() {
        eprintln!("skipped: needs root, to call as another user");
        return;
    }
    with_daemon(async |bus, _| {
        // Where the build is may be closed to others.
        let place = tempfile::tempdir().unwrap();
        std::fs::set_permissions(place.path(), PermissionsExt::from_mode(0o755)).unwrap();
        let copy = place.path().join("fastvpnctl");
        std::fs::copy(tool().unwrap(), &copy).unwrap();
        let as_nobody = async |arguments: &[&str]| {
            let mut command = Command::new(&copy);
            command.args(["--bus", &bus.address()]).args(arguments).uid(65534).gid(65534);
            finish(command).await
        };

        let status = as_nobody(&["status"]).await;
        let connect = as_nobody(&["connect", "office"]).await;
        let reload = as_nobody(&["reload", "--json"]).await;

        assert_eq!(status.code, 0, "{status:?}");
        assert_eq!(connect.code, 4, "{connect:?}");
        assert!(connect.err.contains("user 65534 may not connect") && connect.err.contains("sudo"));
        assert_eq!(reload.code, 4, "{reload:?}");
        assert!(reload.out.starts_with(r#"{"error":{"code":"NotAuthorized""#));
    });
}

#[test]
fn monitor_tells_changes_and_outlives_daemon_and_bus() {
    if tool().is_none() {
        return;
    }
    run(async {
        let mut bus = PrivateBus::start();
        let mut monitor = Tool::start(&bus, &["monitor"]);
        monitor.wait_for("fastvpnd is not running; waiting for it").await;

        let mut fake = Fake::start(&bus.address(), office());
        monitor.wait_for("fastvpnd is running").await;
        monitor.wait_for("office: up").await;
        monitor.wait_for("office: tokyo connected, 203.0.113.5:8796").await;
        fake.change(|snapshot| {
            let view = snapshot.networks.get_mut(&name("office")).unwrap();
            view.state = NetworkState::HubLost;
            view.detail = "no answer".to_owned();
            view.peers.clear();
        });
        monitor.wait_for("office: tokyo is gone").await;
        monitor.wait_for("office: hub-lost (no answer)").await;

        drop(fake);
        monitor.wait_for("fastvpnd is not running").await;
        fake = Fake::start(&bus.address(), office());
        monitor.wait_for("fastvpnd is running").await;
        bus.stop();
        monitor.wait_for("fastvpnd is not running").await;
        bus.restart();
        fake.wait_until(Availability::Serving).await;
        monitor.wait_for("fastvpnd is running").await;
    });
}

#[test]
fn key_is_made_and_shown_without_a_daemon() {
    if tool().is_none() {
        return;
    }
    run(async {
        let bus = PrivateBus::prepare();
        let place = tempfile::tempdir().unwrap();
        let file = place.path().join("home").display().to_string();

        let made = ctl(&bus, &["keygen", &file]).await;
        let shown = ctl(&bus, &["keygen", "--public", &file, "--json"]).await;
        let again = ctl(&bus, &["keygen", &file]).await;

        assert_eq!((made.code, made.out.len()), (0, 45), "{made:?}");
        assert!(shown.out.contains(made.out.trim()), "{shown:?}");
        assert_eq!(again.code, 1);
        assert!(again.err.contains("exists already"), "{again:?}");
    });
}

#[test]
fn reader_that_leaves_is_no_failure() {
    with_daemon(async |bus, _| {
        let mut running = Tool::start(bus, &["ping", "tokyo", "-i", "0.1"]);
        running.wait_for("seq=1").await;

        running.stop_reading();

        assert_eq!(running.code().await, Some(0));
    });
}

#[test]
fn terminal_gets_colours_and_lines_that_fit() {
    with_daemon(async |bus, _| {
        let on_terminal = async |environment: &str| {
            let tool = tool().unwrap();
            let line = format!(
                "stty cols 70; {environment} {} --bus {} peers",
                tool.display(),
                bus.address()
            );
            let mut script = Command::new("script");
            script.args(["-qec", &line, "/dev/null"]).env("TERM", "xterm").env_remove("NO_COLOR");
            finish(script).await.out.replace('\r', "")
        };

        let coloured = on_terminal("").await;
        let plain = on_terminal("NO_COLOR=1").await;

        assert!(coloured.contains("\x1b[32mconnected\x1b[0m"), "{coloured:?}");
        assert!(!plain.contains('\x1b') && plain.contains("tokyo"), "{plain:?}");
        assert!(plain.lines().all(|line| line.chars().count() <= 70), "{plain}");
    });
}

fn with_daemon(body: impl AsyncFnOnce(&PrivateBus, &mut Fake)) {
    if tool().is_none() {
        return;
    }
    run(async {
        let bus = PrivateBus::start();
        let mut fake = Fake::start(&bus.address(), office());
        fake.wait_until(Availability::Serving).await;
        body(&bus, &mut fake).await;
    });
}

async fn ctl(bus: &PrivateBus, arguments: &[&str]) -> Run {
    let mut command = Command::new(tool().unwrap());
    command.args(["--bus", &bus.address()]).args(arguments);
    finish(command).await
}

/// Runs with a text on standard input
async fn ctl_with_input(bus: &PrivateBus, arguments: &[&str], text: &str) -> Run {
    let mut input = tempfile::tempfile().unwrap();
    input.write_all(text.as_bytes()).unwrap();
    input.rewind().unwrap();
    let mut command = Command::new(tool().unwrap());
    command.args(["--bus", &bus.address()]).args(arguments).stdin(input);
    finish(command).await
}

/// Runs to the end, while the daemon goes on beside it
async fn finish(mut command: Command) -> Run {
    let output = tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap();
    Run {
        code: output.status.code().unwrap_or(-1),
        out: String::from_utf8(output.stdout).unwrap(),
        err: String::from_utf8(output.stderr).unwrap(),
    }
}

/// A run of the tool that goes on
struct Tool {
    child: Child,
    lines: mpsc::Receiver<String>,
    seen: Vec<String>,
    taken: Vec<String>,
}

impl Tool {
    fn start(bus: &PrivateBus, arguments: &[&str]) -> Self {
        let mut child = Command::new(tool().unwrap())
            .args(["--bus", &bus.address()])
            .args(arguments)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let stdout = child.stdout.take().unwrap();
        let (sender, lines) = mpsc::channel();
        std::thread::spawn(move || {
            for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                if sender.send(line).is_err() {
                    break;
                }
            }
        });
        Self { child, lines, seen: Vec::new(), taken: Vec::new() }
    }

    /// Waits for a line that was not waited for before
    async fn wait_for(&mut self, wanted: &str) {
        for _ in 0..200 {
            self.seen.extend(self.lines.try_iter());
            if let Some(place) = self.seen.iter().position(|line| line.contains(wanted)) {
                self.taken.push(self.seen.remove(place));
                return;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        panic!("no line with {wanted:?}; there is {:?}", self.seen);
    }

    /// All lines until now
    fn all(&self) -> Vec<String> {
        self.taken.iter().chain(&self.seen).cloned().collect()
    }

    fn interrupt(&self) {
        let id = rustix::process::Pid::from_child(&self.child);
        rustix::process::kill_process(id, rustix::process::Signal::INT).unwrap();
    }

    fn stop_reading(&mut self) {
        let (_, nothing) = mpsc::channel();
        self.lines = nothing;
    }

    async fn code(&mut self) -> Option<i32> {
        for _ in 0..100 {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status.code();
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        None
    }
}

impl Drop for Tool {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
