//! Who may change something: a fastvpnd of its own, a private bus that it takes for the system's,
//! and on it a polkit that is a script.
//!
//! The callers are another user than the daemon's, so all this needs root.

// Helpers of tests are tests as well.
#![allow(clippy::unwrap_used)]

#[allow(dead_code, reason = "each suite uses its part of it")]
mod support;

use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use fastvpn_dbus::{BUS_NAME, Bus, MANAGER, ManagerProxy, ROOT};
use fastvpnd::api::Availability;
use support::bus::PrivateBus;
use support::fake::{Fake, office};
use support::polkit::{Answer, Polkit, Script};
use support::{NOBODY, as_nobody, run, tool, within};
use tempfile::TempDir;
use zbus::Connection;
use zbus::fdo::DBusProxy;
use zbus::names::BusName;

/// A bus, a daemon without networks that takes it for the system's, and perhaps polkit
struct World {
    daemon: Child,
    polkit: Option<Polkit>,
    client: Connection,
    bus: PrivateBus,
    _place: TempDir,
}

impl World {
    async fn new(script: Option<Script>) -> Self {
        let bus = PrivateBus::start();
        let polkit = match script {
            Some(script) => Some(Polkit::start(&bus.address(), script).await),
            None => None,
        };
        let place = tempfile::tempdir().unwrap();
        let daemon = Command::new(env!("CARGO_BIN_EXE_fastvpnd"))
            .args(["--bus", "system", "--config-dir"])
            .arg(place.path())
            .arg("--state-dir")
            .arg(place.path().join("state"))
            .env("DBUS_SYSTEM_BUS_ADDRESS", bus.address())
            .env_remove("NOTIFY_SOCKET")
            .stdin(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let client = Bus::Address(bus.address()).builder().build().await.unwrap();
        let world = Self { daemon, polkit, client, bus, _place: place };
        within(10, "the daemon", world.serving()).await;
        world
    }

    async fn serving(&self) {
        let bus = DBusProxy::new(&self.client).await.unwrap();
        let name = BusName::try_from(BUS_NAME).unwrap();
        while !bus.name_has_owner(name.clone()).await.unwrap() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    fn polkit(&self) -> &Polkit {
        self.polkit.as_ref().unwrap()
    }

    /// What polkit was asked: about whom, what, and with which flags
    fn asked(&self) -> Vec<(u32, String, u32)> {
        let asked = self.polkit().asked().into_iter();
        asked.map(|asked| (asked.uid, asked.action, asked.flags)).collect()
    }

    /// Calls a method as another user
    async fn call(&self, people: People, call: &[&str]) -> Result<String, String> {
        call_as_nobody(&self.bus, people, call).await
    }

    async fn connect(&self, people: People) -> Result<String, String> {
        self.call(people, CONNECT).await
    }
}

impl Drop for World {
    fn drop(&mut self) {
        let _ = self.daemon.kill();
        let _ = self.daemon.wait();
    }
}

/// Whether the caller lets polkit ask people
#[derive(Clone, Copy, Debug)]
enum People {
    MayBeAsked,
    MayNot,
}

/// The daemon has no network: this is what is answered to who may connect one
const PASSED: &str = "no network office is configured";
const CONNECT: &[&str] = &["Connect", "sa{sv}", "office", "0"];
const DISCONNECT: &[&str] = &["Disconnect", "s", "office"];
const RELOAD: &[&str] = &["Reload"];

#[test]
fn polkit_decides_about_others_by_the_kind_of_change() {
    let script: Script = |action, _| match action {
        "org.fastvpn.connect" => Answer::Allow,
        _ => Answer::Deny,
    };
    with_polkit(script, async |world| {
        let connect = world.connect(People::MayBeAsked).await.unwrap_err();
        let disconnect = world.call(People::MayBeAsked, DISCONNECT).await.unwrap_err();
        let reload = world.call(People::MayBeAsked, RELOAD).await.unwrap_err();

        assert!(connect.contains(PASSED) && disconnect.contains(PASSED), "{connect}{disconnect}");
        assert!(
            reload.contains("user 65534 may not reload the configuration; polkit denies ")
                && reload.contains("org.fastvpn.manage-networks"),
            "{reload}"
        );
        let connect = (NOBODY, "org.fastvpn.connect".to_owned(), 1);
        let manage = (NOBODY, "org.fastvpn.manage-networks".to_owned(), 1);
        assert_eq!(world.asked(), [connect.clone(), connect, manage]);
    });
}

#[test]
fn root_is_not_asked_about() {
    with_polkit(
        |_, _| Answer::Deny,
        async |world| {
            let manager = ManagerProxy::new(&world.client).await.unwrap();

            manager.reload().await.unwrap();

            assert!(world.asked().is_empty());
        },
    );
}

#[test]
fn people_are_asked_only_where_the_caller_waits_for_them() {
    let script: Script = |_, flags| if flags == 1 { Answer::Allow } else { Answer::Challenge };
    with_polkit(script, async |world| {
        let now = world.connect(People::MayNot).await.unwrap_err();
        let patient = world.connect(People::MayBeAsked).await.unwrap_err();

        assert!(now.contains("org.fastvpn.connect needs authentication"), "{now}");
        assert!(now.contains("on a terminal, or as root"), "{now}");
        assert!(patient.contains(PASSED), "{patient}");
        let flags: Vec<_> = world.asked().into_iter().map(|(_, _, flags)| flags).collect();
        assert_eq!(flags, [0, 1]);
    });
}

#[test]
fn dismissed_dialog_and_polkit_that_fails_are_told_as_such() {
    let script: Script = |action, _| match action {
        "org.fastvpn.connect" => Answer::Dismiss,
        _ => Answer::Fail,
    };
    with_polkit(script, async |world| {
        let dismissed = world.connect(People::MayBeAsked).await.unwrap_err();
        let failed = world.call(People::MayBeAsked, RELOAD).await.unwrap_err();

        assert!(dismissed.contains("that was dismissed: try again on a terminal"), "{dismissed}");
        assert!(failed.contains("only root may (polkit does not work: "), "{failed}");
        assert!(failed.contains("it is not registered"), "{failed}");
    });
}

#[test]
fn without_polkit_only_root_may() {
    if !root() {
        return;
    }
    run(async {
        let world = World::new(None).await;

        let refused = world.connect(People::MayBeAsked).await.unwrap_err();

        let wanted = "user 65534 may not connect a network; only root may (polkit is not there)";
        assert!(refused.contains(wanted), "{refused}");
    });
}

#[test]
fn polkit_that_is_silent_holds_nobody_up_and_its_question_is_taken_back() {
    with_polkit(
        |_, _| Answer::Never,
        async |world| {
            let manager = ManagerProxy::new(&world.client).await.unwrap();
            let start = Instant::now();
            let others = async {
                while world.asked().is_empty() {
                    tokio::time::sleep(Duration::from_millis(20)).await;
                }
                manager.reload().await.unwrap();
                start.elapsed()
            };

            let (refused, others) = tokio::join!(world.connect(People::MayNot), others);

            let (refused, waited) = (refused.unwrap_err(), start.elapsed());
            assert!(
                refused.contains("polkit did not answer about org.fastvpn.connect"),
                "{refused}"
            );
            assert!(waited >= Duration::from_secs(5), "{waited:?}");
            assert!(others < Duration::from_secs(4), "{others:?}");
            let taken_back = async {
                while world.polkit().taken_back().is_empty() {
                    tokio::time::sleep(Duration::from_millis(20)).await;
                }
            };
            within(3, "the cancellation", taken_back).await;
            assert_eq!(world.polkit().taken_back(), [world.polkit().asked()[0].id.clone()]);
        },
    );
}

#[test]
fn who_calls_himself_polkit_on_another_bus_is_not_asked() {
    if !root() {
        return;
    }
    run(async {
        let bus = PrivateBus::start();
        let impostor = Polkit::start(&bus.address(), |_, _| Answer::Allow).await;
        let mut fake = Fake::start(&bus.address(), office());
        fake.wait_until(Availability::Serving).await;

        let refused = call_as_nobody(&bus, People::MayBeAsked, CONNECT).await.unwrap_err();

        assert!(refused.contains("only root may (polkit decides on the system bus"), "{refused}");
        assert!(impostor.asked().is_empty());
    });
}

#[test]
fn tool_waits_for_people_and_has_an_agent_at_hand_on_a_terminal() {
    let Some(tool) = tool() else { return };
    let script: Script = |_, flags| if flags == 1 { Answer::Allow } else { Answer::Deny };
    with_polkit(script, async |world| {
        // Where the build is may be closed to others; the agent writes here as well.
        let place = tempfile::tempdir().unwrap();
        std::fs::set_permissions(place.path(), PermissionsExt::from_mode(0o777)).unwrap();
        let copy = place.path().join("fastvpnctl");
        // By another process: a file that this one writes may be busy when it is to be run.
        assert!(Command::new("cp").arg(&tool).arg(&copy).status().unwrap().success());
        install_agent(place.path());
        let said = place.path().join("said");
        let command = |program: &str| {
            let path = format!("{}:{}", place.path().display(), std::env::var("PATH").unwrap());
            let mut command = Command::new(program);
            command.env("DBUS_SYSTEM_BUS_ADDRESS", world.bus.address()).env("PATH", path);
            command.current_dir(place.path());
            command
        };

        let mut piped = command(&copy.display().to_string());
        piped.arg("reload");
        let piped = as_nobody(piped).await;
        let agent_without_terminal = said.exists();
        let mut terminal = command("script");
        terminal.args(["-qec", "fastvpnctl reload", "/dev/null"]);
        let terminal = as_nobody(terminal).await;

        assert_eq!(piped.as_deref(), Ok("nothing changed\n"));
        assert!(!agent_without_terminal);
        assert_eq!(terminal.as_deref(), Ok("nothing changed\r\n"));
        let said = std::fs::read_to_string(said).unwrap();
        let lines: Vec<_> = said.lines().collect();
        assert!(lines[0].starts_with("--process ") && lines[0].contains(" --fallback"), "{said}");
        assert_eq!(lines[1..], ["ended"], "{said}");
        assert_eq!(world.asked().len(), 2);
    });
}

/// Puts an agent into `place` that tells how it is started and that it is ended
fn install_agent(place: &Path) {
    let script = "#!/bin/bash\n\
        cd \"${0%/*}\"\n\
        echo \"$*\" >said\n\
        trap 'echo ended >>said; kill $!; exit' TERM\n\
        eval \"exec $5>&-\"\n\
        sleep 30 &\n\
        wait\n";
    let agent = place.join("pkttyagent");
    std::fs::write(&agent, script).unwrap();
    std::fs::set_permissions(&agent, PermissionsExt::from_mode(0o755)).unwrap();
}

/// Runs the body of a test beside a polkit that answers by the script
fn with_polkit(script: Script, body: impl AsyncFnOnce(&World)) {
    if root() {
        run(async { body(&World::new(Some(script)).await).await });
    }
}

async fn call_as_nobody(bus: &PrivateBus, people: People, call: &[&str]) -> Result<String, String> {
    let interactive = match people {
        People::MayBeAsked => "yes",
        People::MayNot => "no",
    };
    let mut busctl = Command::new("busctl");
    busctl
        .arg(format!("--address={}", bus.address()))
        .arg(format!("--allow-interactive-authorization={interactive}"))
        .args(["call", BUS_NAME, ROOT, MANAGER])
        .args(call);
    as_nobody(busctl).await
}

fn root() -> bool {
    let root = rustix::process::geteuid().is_root();
    if !root {
        eprintln!("skipped: needs root, to call as another user");
    }
    root
}
