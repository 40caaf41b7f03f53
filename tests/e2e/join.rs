//! Joining in one line: a hub is made, machines are invited, and they join.

use std::fs;
use std::io::{Seek, Write};
use std::net::IpAddr;
use std::os::unix::fs::PermissionsExt;
use std::time::{Duration, Instant};

use fastvpn_tests::lab::daemon::Answer;
use fastvpn_tests::lab::star::{Families, HUB_PORT, node, number};
use fastvpn_tests::lab::{Lab, Node, outer_v4, until};
use fastvpn_tests::link::{LinkConfig, ms};

use crate::runner::cases;
use crate::support::{BRIEF, LONG};

cases![
    hub_is_made_machines_are_invited_and_join,
    hub_that_cannot_be_made_leaves_nothing,
    invitation_is_good_for_one_machine,
    invitation_that_was_changed_on_its_way_is_told,
    leaving_leaves_nothing,
    machine_joins_when_somebody_has_approved_it,
    no_answer_from_the_hub_leaves_the_invitation_good,
];

fn hub_is_made_machines_are_invited_and_join() {
    let mut world = World::new(2);
    let made = world.hub_init();
    assert!(made.stdout.starts_with("home is up: 10.97.0.1/24 on fvpn-home; it"), "{made:?}");
    assert!(made.stdout.contains("next, invite a machine"), "{made:?}");
    let (tokyo, paris) = (world.invite("tokyo"), world.invite("paris"));

    let joined = world.machines[0].ctl(&["join", &tokyo]).unwrap();
    let read = with_input(&world.machines[1], &["--json", "join", "-", "--name", "work"], &paris);

    assert_eq!(joined.code, 0, "{joined:?}");
    assert!(joined.stdout.ends_with("home is up: 10.97.0.2/24 on fvpn-home\n"), "{joined:?}");
    let read = read.json().unwrap();
    assert_eq!((&read["network"], &read["state"]), (&"work".into(), &"up".into()));
    assert_eq!(read["addresses"][0], "10.97.0.3/24");
    world.machines[0].reaches(ip("10.97.0.1"), BRIEF).unwrap();
    world.machines[0].reaches(ip("10.97.0.3"), BRIEF).unwrap();
    world.machines[1].await_peer("tokyo", "known", BRIEF, |_| true).unwrap();

    let kept = ["keys/home", "keys/home.psk", "networks/home.toml"];
    assert_eq!(state(&world.machines[0]), kept);
    for file in kept {
        let mode = fs::metadata(world.machines[0].path("state").join(file)).unwrap().permissions();
        assert_eq!(mode.mode() & 0o777, 0o600, "{file}");
    }
    for node in [&mut world.hub, &mut world.machines[0]] {
        node.stop().unwrap();
        node.start().unwrap();
    }
    world.machines[0].await_state("home", "up", LONG).unwrap();
    world.machines[0].reaches(ip("10.97.0.3"), BRIEF).unwrap();
}

fn invitation_is_good_for_one_machine() {
    let world = World::new(2);
    world.hub_init();
    let invitation = world.invite("tokyo");
    let first = world.machines[0].ctl(&["join", &invitation]).unwrap();
    assert_eq!(first.code, 0, "{first:?}");

    let second = world.machines[1].ctl(&["--json", "join", &invitation]).unwrap();

    assert_eq!(second.code, 1, "{second:?}");
    assert_eq!(second.json().unwrap()["error"]["code"], "Refused", "{second:?}");
    assert_eq!(state(&world.machines[1]), [""; 0]);
    let status = world.machines[1].ctl(&["--json", "status"]).unwrap().json().unwrap();
    assert_eq!(status["networks"].as_array().map(Vec::len), Some(0), "{status}");
    // the same name again: nothing is in its way
    let other = world.machines[1].ctl(&["join", &world.invite("paris")]).unwrap();
    assert_eq!(other.code, 0, "{other:?}");
}

fn invitation_that_was_changed_on_its_way_is_told() {
    let world = World::new(1);
    world.hub_init();
    let invitation = world.invite("tokyo");
    let damaged = invitation.replacen(&invitation[60..62], "AA", 1);
    assert_ne!(damaged, invitation);

    for (text, wanted) in [
        (&invitation[..invitation.len() - 1], "is cut off after"),
        (&damaged, "is damaged: copy it again"),
        (&format!("{invitation}A"), "has 1 characters too many"),
        ("hello", "that is no invitation: one begins with FASTVPN:"),
    ] {
        let answer = world.machines[0].ctl(&["join", text]).unwrap();
        assert_eq!(answer.code, 1, "{answer:?}");
        assert!(answer.stderr.contains(wanted), "{answer:?}");
    }
    assert_eq!(state(&world.machines[0]), [""; 0]);
    let broken = format!("  {}\r\n{}\n", &invitation[..80], invitation[80..].to_lowercase());
    let joined = with_input(&world.machines[0], &["join", "-"], &broken);
    assert_eq!(joined.code, 0, "{joined:?}");
}

fn no_answer_from_the_hub_leaves_the_invitation_good() {
    let mut world = World::new(1);
    world.hub_init();
    let invitation = world.invite("tokyo");
    world.hub.stop().unwrap();

    let begun = Instant::now();
    let alone = world.machines[0].ctl(&["join", &invitation]).unwrap();

    assert_eq!(alone.code, 1, "{alone:?}");
    assert!(begun.elapsed() < Duration::from_secs(30), "{:?}", begun.elapsed());
    let wanted = format!("the hub {}:{HUB_PORT} does not answer. Is this", outer_v4(1));
    assert!(alone.stderr.contains(&wanted), "{alone:?}");
    assert!(alone.stdout.contains("contacting the hub at"), "{alone:?}");
    assert_eq!(state(&world.machines[0]), [""; 0]);
    world.hub.start().unwrap();
    let joined = world.machines[0].ctl(&["join", &invitation]).unwrap();
    assert_eq!(joined.code, 0, "{joined:?}");
}

fn machine_joins_when_somebody_has_approved_it() {
    let world = World::new(1);
    world.hub_init();
    let invitation = world.hub.ctl(&["invite", "tokyo", "--approval"]).unwrap();

    let joined = world.machines[0].ctl(&["--json", "join", invitation.stdout.trim()]).unwrap();

    assert_eq!(joined.code, 0, "{joined:?}");
    assert_eq!(joined.json().unwrap()["state"], "pending", "{joined:?}");
    // the hub writes it down half a round trip after it has answered
    assert!(until(BRIEF, || world.hub.ctl(&["member", "approve", "tokyo"]).unwrap().code == 0));
    world.machines[0].await_state("home", "up", BRIEF).unwrap();
    assert_eq!(state(&world.machines[0]), ["keys/home", "keys/home.psk", "networks/home.toml"]);
}

fn leaving_leaves_nothing() {
    let world = World::new(1);
    world.hub_init();
    let machine = &world.machines[0];
    let joined = machine.ctl(&["join", &world.invite("tokyo")]).unwrap();
    assert_eq!(joined.code, 0, "{joined:?}");

    let left = machine.ctl(&["leave", "home"]).unwrap();
    let again = machine.ctl(&["leave", "home"]).unwrap();

    assert_eq!((left.code, again.code), (0, 1), "{left:?} {again:?}");
    assert!(again.stderr.contains("no network home is configured"), "{again:?}");
    assert_eq!(state(machine), [""; 0]);
    assert!(!machine.host.devices().unwrap().contains(&"fvpn-home".to_owned()));
    let hub = world.hub.ctl(&["leave", "home"]).unwrap();
    assert_eq!(hub.code, 0, "{hub:?}");
    assert_eq!(state(&world.hub), [""; 0]);
}

fn hub_that_cannot_be_made_leaves_nothing() {
    let world = World::new(0);
    let init = |arguments: &[&str]| world.hub.ctl(&[&["hub", "init"], arguments].concat()).unwrap();
    let busy = world.hub.host.run(|_| std::net::UdpSocket::bind(("0.0.0.0", HUB_PORT)).unwrap());

    let taken = init(&["home", "--subnet", "10.97.0.0/24", "--listen", "0.0.0.0:8796"]);
    drop(busy);
    let left = state(&world.hub);
    let first = init(&["home", "--subnet", "10.97.0.0/24"]);
    let files = state(&world.hub);
    let same = init(&["home", "--subnet", "10.98.0.0/24", "--listen", "[::]:9"]);
    let port = init(&["other", "--subnet", "10.98.0.0/24"]);

    assert_eq!((taken.code, first.code, same.code, port.code), (1, 0, 1, 1));
    assert!(taken.stderr.contains("port 8796 is in use"), "{taken:?}");
    assert_eq!(left, [""; 0]);
    assert!(same.stderr.contains("there is a network home already"), "{same:?}");
    assert!(port.stderr.contains("listen: [::]:8796 and [::]:8796, of network home"), "{port:?}");
    assert_eq!(state(&world.hub), files);
}

/// A host that is to be a hub, and machines that are to join it; no daemon knows of any network
struct World {
    hub: Node,
    machines: Vec<Node>,
    _lab: Lab,
}

impl World {
    fn new(machines: u8) -> Self {
        let lab = Lab::new().unwrap();
        let machine = |name: &str, number| {
            let (mut node, _) = node(&lab, name, number, Families::V4).unwrap();
            node.start().unwrap();
            node
        };
        let hub = machine("hub", 1);
        let names = (0..machines).map(|of| (format!("machine{}", of + 1), number(of.into())));
        let machines = names.map(|(name, number)| machine(&name, number)).collect();
        lab.wire.all(&LinkConfig::new().delay(ms(10)));
        Self { hub, machines, _lab: lab }
    }

    fn hub_init(&self) -> Answer {
        let endpoint = outer_v4(1).to_string();
        let arguments =
            ["hub", "init", "home", "--subnet", "10.97.0.0/24", "--endpoint", &endpoint];
        let made = self.hub.ctl(&arguments).unwrap();
        assert_eq!(made.code, 0, "{made:?}");
        made
    }

    fn invite(&self, name: &str) -> String {
        let invited = self.hub.ctl(&["invite", name]).unwrap();
        assert_eq!(invited.code, 0, "{invited:?}");
        invited.stdout.trim().to_owned()
    }
}

/// Runs the tool with a text on its standard input
fn with_input(node: &Node, arguments: &[&str], text: &str) -> Answer {
    let path = node.path("input");
    let mut file =
        fs::File::options().read(true).write(true).create(true).truncate(true).open(path).unwrap();
    file.write_all(text.as_bytes()).unwrap();
    file.rewind().unwrap();
    let mut command = node.ctl_command().unwrap();
    command.args(arguments).stdin(file);
    let output = node.host.output(command).unwrap();
    Answer {
        code: output.status.code().unwrap_or(-1),
        stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
        stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
    }
}

/// Names the files of networks that a daemon has made
fn state(node: &Node) -> Vec<String> {
    let mut all = Vec::new();
    for sub in ["keys", "networks"] {
        for entry in fs::read_dir(node.path("state").join(sub)).into_iter().flatten() {
            all.push(format!("{sub}/{}", entry.unwrap().file_name().to_string_lossy()));
        }
    }
    all.sort();
    all
}

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}
