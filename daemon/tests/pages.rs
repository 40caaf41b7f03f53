//! The manual pages, against what they describe.
//!
//! `fastvpn.toml(5)` is compared with the configuration's keys by a test of `config`.

// Helpers of tests are tests as well.
#![allow(clippy::unwrap_used)]

#[allow(dead_code, reason = "each suite uses its part of it")]
mod support;

use std::collections::{BTreeSet, HashMap};
use std::fs;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};

use clap::CommandFactory;
use fastvpn_dbus::tree::Tree;
use fastvpn_dbus::types::{DnsState, NetworkState, PathKind, PeerState, Role};
use fastvpn_dbus::{BUS_NAME, MANAGER, NETWORK, NetworkProxy, PEER, ROOT, network_path};
use fastvpn_proto::node::Refusal;
use fastvpnd::api::{Availability, Bus};
use fastvpnd::args::Args;
use fastvpnd::handle::PeerLink;
use support::bus::PrivateBus;
use support::fake::{Fake, key, name, office};
use support::run;
use tokio::task::spawn_blocking;
use zbus::fdo::{DBusProxy, IntrospectableProxy};
use zbus::{OwnedObjectPath, Proxy, Variant};

#[test]
fn page_of_the_bus_has_each_member_with_its_types_and_no_other() {
    let page = page("org.fastvpn.7");
    for interface in [MANAGER, NETWORK, PEER] {
        let contract = text(&format!("dbus/interfaces/{interface}.xml"));
        let (_, section) = page.split_once(&format!(".Ss {interface}\n")).unwrap();
        let section = section.split("\n.S").next().unwrap();
        let items = section
            .lines()
            .filter(|line| line.starts_with(".It Fn ") || line.starts_with(".It Va "));

        let items: BTreeSet<_> = items.map(str::to_owned).collect();
        assert_eq!(items, members(&contract), "{interface}");
    }
}

#[test]
fn page_of_the_bus_has_each_error_reason_and_word() {
    let page = page("org.fastvpn.7");
    let prose = text("dbus/README.md");
    let (_, errors) = prose.split_once("\n## Errors\n").unwrap();
    let errors = errors.split("\n## ").next().unwrap().lines();
    let errors: Vec<_> =
        errors.filter_map(|line| line.strip_prefix("| `")?.split('`').next()).collect();
    assert!(errors.len() > 5, "{errors:?}");
    for error in errors {
        assert!(page.contains(&format!("\n.It Er {error}\n")), "{error}");
    }
    for reason in Refusal::ALL {
        assert!(page.contains(&format!("\n.It Cm {}\n", reason.name())), "{reason:?}");
    }
    let roles = [Role::Hub, Role::Peer].map(Role::as_str);
    let networks = [
        NetworkState::Down,
        NetworkState::Connecting,
        NetworkState::Pending,
        NetworkState::Up,
        NetworkState::HubLost,
        NetworkState::Failed,
    ]
    .map(NetworkState::as_str);
    let names = [
        DnsState::Announced,
        DnsState::Caller,
        DnsState::Failed,
        DnsState::Off,
        DnsState::Pending,
        DnsState::Refused,
        DnsState::Unannounced,
    ]
    .map(DnsState::as_str);
    let peers = [
        PeerState::Offline,
        PeerState::Idle,
        PeerState::Connecting,
        PeerState::Connected,
        PeerState::Unresponsive,
    ]
    .map(PeerState::as_str);
    let paths = [PathKind::Direct, PathKind::Kcp, PathKind::Relayed, PathKind::Tcp];
    let paths = paths.map(PathKind::as_str);
    for word in roles.iter().chain(&networks).chain(&names).chain(&peers).chain(&paths) {
        let has = |line: &str| {
            let words = line.strip_prefix(".It Cm ").or(line.strip_prefix(".Cm "));
            words.is_some_and(|words| words.split(' ').any(|other| other == *word))
        };
        assert!(page.lines().any(has), "{word}");
    }
}

#[test]
fn page_of_the_bus_has_each_counter() {
    run(async {
        let (bus, _fake) = world().await;
        let client = Bus::Address(bus.address()).builder().build().await.unwrap();
        let tree = Tree::load(&client).await.unwrap();
        let networks = tree.networks.values().map(|network| &network.figures.statistics);
        let peers = tree.peers.values().map(|peer| &peer.figures);
        let counters: BTreeSet<_> = networks
            .chain(peers.flat_map(|peer| [&peer.statistics, &peer.path_statistics]))
            .flat_map(|counters| counters.keys().cloned())
            .collect();

        let page = page("org.fastvpn.7");
        let items = page.lines().filter_map(|line| line.strip_prefix(".It Cm "));
        let items: BTreeSet<_> = items.flat_map(|item| item.split(" , ")).collect();
        assert!(counters.len() > 15, "{counters:?}");
        for counter in &counters {
            assert!(items.contains(counter.as_str()), "{counter}");
        }
    });
}

#[test]
fn examples_for_busctl_run_as_they_are_printed() {
    if !has("busctl", &["--version"]) {
        eprintln!("skipped: needs busctl");
        return;
    }
    let mut commands: Vec<String> = Vec::new();
    for line in examples().lines() {
        match commands.last_mut().filter(|command| command.ends_with('\\')) {
            Some(command) => *command = format!("{}{line}", command.trim_end_matches('\\')),
            None if line.starts_with("$ busctl ") || line.starts_with("# busctl ") => {
                commands.push(line[2..].to_owned());
            }
            None => {}
        }
    }
    assert!(commands.len() > 5, "{commands:?}");
    let prose = text("dbus/README.md");
    let of_prose: Vec<_> = prose.lines().filter(|line| line.starts_with("busctl ")).collect();
    assert!(of_prose.len() > 2, "{of_prose:?}");
    commands.extend(of_prose.into_iter().map(str::to_owned));

    run(async {
        let (bus, _fake) = world().await;
        for command in commands {
            let output = on_bus(&bus, "sh", &["-c", &command]).await;
            assert!(output.status.success(), "{command}: {output:?}");
        }
    });
}

#[test]
fn page_prints_the_clients_that_are_installed() {
    let examples = examples();
    for client in [WATCH, CONNECT] {
        assert!(examples.contains(&format!("\n{}.Ed\n", text(client))), "{client}");
    }
}

#[test]
fn clients_in_python_follow_and_change_a_daemon() {
    if !has(PYTHON, &["-c", "import dbus, gi"]) {
        eprintln!("skipped: needs python3-dbus and python3-gi");
        return;
    }
    run(async {
        let (bus, fake) = world().await;
        let mut follows = Ended::begin(&bus, PYTHON, &["-u", &file(WATCH)]);
        let mut lines = BufReader::new(follows.0.stdout.take().unwrap()).lines();
        let (shown, mut lines) = spawn_blocking(move || (lines.next(), lines)).await.unwrap();
        fake.change(|snapshot| {
            let view = snapshot.networks.get_mut(&name("office")).unwrap();
            view.peers.get_mut(&key(1)).unwrap().state = PeerLink::Unresponsive;
        });
        let changed = spawn_blocking(move || lines.next()).await.unwrap();

        assert_eq!(shown.unwrap().unwrap(), "tokyo connected direct 203.0.113.5:8796");
        assert_eq!(changed.unwrap().unwrap(), "tokyo unresponsive direct 203.0.113.5:8796");

        let done = on_bus(&bus, PYTHON, &[&file(CONNECT), "office"]).await;
        assert!(done.status.success() && done.stderr.is_empty(), "{done:?}");
        let refused = on_bus(&bus, PYTHON, &[&file(CONNECT), "nowhere"]).await;
        assert_eq!(refused.stderr, b"no network nowhere is configured\n", "{refused:?}");
    });
}

#[test]
fn mock_shows_the_contract_and_clients_take_it_for_a_daemon() {
    if !has(PYTHON, &["-c", "import dbusmock, gi"]) {
        eprintln!("skipped: needs python3-dbusmock and python3-gi");
        return;
    }
    run(async {
        let bus = PrivateBus::start();
        let client = Bus::Address(bus.address()).builder().build().await.unwrap();
        let template = file("dbus/org_fastvpn_mock.py");
        let _mock = Ended::begin(&bus, PYTHON, &["-m", "dbusmock", "--template", &template]);
        let there = DBusProxy::new(&client).await.unwrap();
        support::until("the mock", async || {
            there.name_has_owner(BUS_NAME.try_into().unwrap()).await.unwrap()
        })
        .await;
        let mock = Proxy::new(&client, BUS_NAME, ROOT, "org.freedesktop.DBus.Mock").await.unwrap();
        let role = HashMap::from([("Role", Variant::from("hub"))]);
        let state = HashMap::from([("State", Variant::from("connected"))]);
        let network: OwnedObjectPath = mock.call("AddNetwork", &("my-net", role)).await.unwrap();
        let peer: OwnedObjectPath =
            mock.call("AddPeer", &("my-net", "tokyo", state)).await.unwrap();

        assert_eq!(network, network_path("my-net"));
        for (path, interface) in [(ROOT, MANAGER), (&network, NETWORK), (&peer, PEER)] {
            let object = IntrospectableProxy::builder(&client).destination(BUS_NAME);
            let live = object.path(path).build().await.unwrap().introspect().await.unwrap();
            let contract = text(&format!("dbus/interfaces/{interface}.xml"));
            for name in names(&contract) {
                assert!(names(&live).contains(&name), "{interface} of the mock has no {name}");
            }
        }
        let shown = Tree::load(&client).await.unwrap();
        assert_eq!(shown.networks[network.as_str()].facts.role, "hub");
        assert_eq!(shown.network_of(&shown.peers[peer.as_str()]), "my-net");

        mock.call::<_, _, ()>("AddMember", &("my-net", "osaka", "pending")).await.unwrap();
        let hub = NetworkProxy::new(&client, network.clone()).await.unwrap();
        hub.approve_member("osaka").await.unwrap();
        let members = hub.members().await.unwrap();
        assert_eq!((&*members[0].name, &*members[0].standing), ("osaka", "approved"));

        let done = on_bus(&bus, PYTHON, &[&file(CONNECT), "my-net"]).await;
        assert!(done.status.success(), "{done:?}");
        let after = Tree::load(&client).await.unwrap();
        assert_eq!(after.networks[network.as_str()].facts.state, "up");
        mock.call::<_, _, ()>("FailNext", &("Connect", "NotAuthorized")).await.unwrap();
        let refused = on_bus(&bus, PYTHON, &[&file(CONNECT), "my-net"]).await;
        assert_eq!(refused.stderr, b"run this as root\n", "{refused:?}");
    });
}

#[test]
fn page_of_the_protocol_has_each_frame_and_number_of_its_text() {
    let (page, prose) = (page("fastvpn-protocol.7"), text("daemon/proto/PROTOCOL.md"));
    // code and name
    let frames = prose.lines().filter(|line| line.starts_with("| 0x")).map(|line| {
        let mut cells = line.trim_matches('|').split('|').map(str::trim);
        let (code, name) = (cells.next().unwrap(), cells.next().unwrap());
        (code.to_owned(), name.split(" (").next().unwrap().to_owned())
    });
    let (_, numbers) = prose.split_once("\n## Numbers\n").unwrap();
    let numbers = numbers.split("\n## ").next().unwrap().lines().filter_map(|line| {
        let mut cells = line.trim_matches('|').split('|').map(str::trim);
        let (name, value) = (cells.next()?, cells.next()?);
        let is_name = !name.is_empty() && name.chars().all(|c| c.is_ascii_uppercase() || c == '_');
        is_name.then(|| (name.to_owned(), value.to_owned()))
    });

    let (frames, numbers): (BTreeSet<_>, BTreeSet<_>) = (frames.collect(), numbers.collect());
    assert!(frames.len() > 20 && numbers.len() > 40, "{frames:?} {numbers:?}");
    assert_eq!(rows(&page, ".It Li 0x", ".It Li "), frames);
    assert_eq!(rows(&page, ".It Dv ", ".It Dv "), numbers);
}

#[test]
fn numbers_of_the_text_are_those_of_the_code() {
    let code = text("daemon/proto/src/limits.rs");
    let constants =
        code.lines().filter_map(|line| line.strip_prefix("pub const ")?.split(':').next());
    let page = page("fastvpn-protocol.7");

    let constants: BTreeSet<_> = constants.map(str::to_owned).collect();
    let named: BTreeSet<_> =
        rows(&page, ".It Dv ", ".It Dv ").into_iter().map(|(name, _)| name).collect();
    assert_eq!(named, constants);
}

#[test]
fn page_of_the_daemon_has_each_option() {
    let page = page("fastvpnd.8");
    for option in Args::command().get_arguments() {
        let Some(long) = option.get_long() else { continue };
        assert!(page.contains(&format!("\n.It Fl -{long}")), "--{long}");
    }
}

#[test]
fn each_page_is_installed_listed_and_refers_to_pages_that_are_there() {
    let (readme, package) = (text("README.md"), text("daemon/Cargo.toml"));
    let files = fs::read_dir(root().join("man")).unwrap();
    let names = files.map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let names: BTreeSet<_> =
        names.filter(|name| name.ends_with(|last: char| last.is_ascii_digit())).collect();
    for name in &names {
        let (title, section) = name.rsplit_once('.').unwrap();
        // in the package for Debian, and in that for Fedora
        let parts = [format!("man/*.{section}.gz\""), format!("usr/share/man/man{section}/\"")];
        let placed = package.lines().filter(|line| parts.iter().all(|part| line.contains(part)));
        assert_eq!(placed.count(), 2, "{name}");
        assert!(readme.contains(&format!("`{title}({section})`")), "{name}");
        for line in page(name).lines().filter_map(|line| line.strip_prefix(".Xr ")) {
            let mut words = line.split(' ');
            let (other, section) = (words.next().unwrap(), words.next().unwrap());
            let ours = other.contains("fastvpn");
            assert!(!ours || names.contains(&format!("{other}.{section}")), "{name}: {line}");
        }
    }
}

/// A bus with the API of a daemon that is not there
async fn world() -> (PrivateBus, Fake) {
    let bus = PrivateBus::start();
    let mut fake = Fake::start(&bus.address(), office());
    fake.wait_until(Availability::Serving).await;
    (bus, fake)
}

/// The examples of the bus's page, as they are read
fn examples() -> String {
    let page = page("org.fastvpn.7");
    let (_, examples) = page.split_once("\n.Sh EXAMPLES\n").unwrap();
    examples.replace("\\e", "\\").replace("\\(aq", "'")
}

/// Names of the methods and properties in introspection XML
fn names(xml: &str) -> BTreeSet<String> {
    let tags =
        xml.split('<').filter(|tag| tag.starts_with("method ") || tag.starts_with("property "));
    let name = |tag: &str| Some(tag.split_once("name=\"")?.1.split('"').next()?.to_owned());
    tags.filter_map(name).collect()
}

/// A program that ends with the test at the latest
struct Ended(Child);

impl Ended {
    /// Starts a program whose system bus is `bus`
    fn begin(bus: &PrivateBus, program: &str, arguments: &[&str]) -> Self {
        let mut command = Command::new(program);
        command.args(arguments).env("DBUS_SYSTEM_BUS_ADDRESS", bus.address());
        Self(command.stdout(Stdio::piped()).stderr(Stdio::inherit()).spawn().unwrap())
    }
}

impl Drop for Ended {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Runs a program whose system bus is `bus`
async fn on_bus(bus: &PrivateBus, program: &str, arguments: &[&str]) -> Output {
    let mut command = Command::new(program);
    command.args(arguments).env("DBUS_SYSTEM_BUS_ADDRESS", bus.address());
    spawn_blocking(move || command.output()).await.unwrap().unwrap()
}

fn has(program: &str, arguments: &[&str]) -> bool {
    Command::new(program).args(arguments).output().is_ok_and(|output| output.status.success())
}

/// The members of an interface, as the page writes them
fn members(contract: &str) -> BTreeSet<String> {
    let mut members = BTreeSet::new();
    let mut open: Option<String> = None;
    for tag in contract.lines().map(str::trim) {
        let value = |name: &str| {
            let (_, rest) = tag.split_once(&format!(" {name}=\""))?;
            Some(rest.split('"').next().unwrap().to_owned())
        };
        if tag.starts_with("<method ") || tag.starts_with("<signal ") {
            open = Some(format!(".It Fn {}", value("name").unwrap()));
        } else if tag.starts_with("<property ") {
            assert_eq!(value("access").as_deref(), Some("read"), "the page says so of all");
            open =
                Some(format!(".It Va {} Pq Li {}", value("name").unwrap(), value("type").unwrap()));
        } else if tag.starts_with("<arg ") {
            let way = value("direction").map(|way| way.to_uppercase() + " ").unwrap_or_default();
            let argument =
                format!(" \"{way}{} {}\"", value("type").unwrap(), value("name").unwrap());
            open.as_mut().unwrap().push_str(&argument);
        } else if tag.starts_with("<annotation ") {
            assert_eq!(value("value").as_deref(), Some("const"), "{tag}");
            open.as_mut().unwrap().push_str(" , No constant");
        }
        let single =
            tag.ends_with("/>") && !tag.starts_with("<arg ") && !tag.starts_with("<annotation ");
        if single || ["</method>", "</signal>", "</property>"].contains(&tag) {
            members.insert(open.take().unwrap());
        }
    }
    assert!(!members.is_empty());
    members
}

/// The first two cells of the rows of a page's tables that begin so, without `mark`
fn rows(page: &str, begin: &str, mark: &str) -> BTreeSet<(String, String)> {
    let rows = page.lines().filter(|line| line.starts_with(begin));
    let cells = rows.map(|line| {
        let mut cells = line.strip_prefix(mark).unwrap().split(" Ta ");
        (cells.next().unwrap().to_owned(), cells.next().unwrap().to_owned())
    });
    cells.collect()
}

fn page(name: &str) -> String {
    text(&format!("man/{name}"))
}

fn text(path: &str) -> String {
    fs::read_to_string(root().join(path)).unwrap()
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

fn file(path: &str) -> String {
    root().join(path).display().to_string()
}

/// Shows all peers, and each change of them
const WATCH: &str = "dbus/examples/watch.py";
/// Takes networks up
const CONNECT: &str = "dbus/examples/connect.py";
/// The system's, which has the system's modules
const PYTHON: &str = "/usr/bin/python3";
