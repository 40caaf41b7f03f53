//! The configuration as a whole: each mistake, where it is, and how it is said.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::Duration;

use fastvpn_proto::crypto::PrivateKey;
use proptest::prelude::*;
use tempfile::TempDir;

use super::*;

mod invited;
mod mistakes;

/// A private key in base64: 32 bytes of 1
const PRIVATE: &str = "AQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQE=";
/// Public keys of others
const KEY_A: &str = "hSDwCYkwp1R0i33ctD73Wg2/Og0mOBr066SpjqqbTmo=";
const KEY_B: &str = "3p7bfXt9wbTTW2HC7OQ1Nz+DQ8hbeGdNrfx+FG+IK08=";

const PEER: &str = r#"role = "peer"
private_key_file = "keys/own"
address = ["172.16.97.101/24"]

[[hub]]
endpoint = "hub.example.net:8796"
public_key = "hSDwCYkwp1R0i33ctD73Wg2/Og0mOBr066SpjqqbTmo="
"#;

const HUB: &str = r#"role = "hub"
private_key_file = "keys/own"
subnet = ["172.16.97.0/24"]
address = ["172.16.97.1/24"]

[[member]]
name = "tokyo"
public_key = "hSDwCYkwp1R0i33ctD73Wg2/Og0mOBr066SpjqqbTmo="
address = ["172.16.97.101"]
"#;

/// A place for configuration, state and keys
struct Place {
    dir: TempDir,
}

impl Place {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        for sub in ["etc/keys", "state/networks", "credentials"] {
            fs::create_dir_all(dir.path().join(sub)).unwrap();
        }
        let place = Self { dir };
        place.key("etc/keys/own", PRIVATE, 0o600);
        place
    }

    fn key(&self, path: &str, text: &str, mode: u32) {
        let path = self.write(path, text);
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    }

    fn write(&self, path: &str, text: &str) -> PathBuf {
        let path = self.dir.path().join(path);
        fs::write(&path, text).unwrap();
        path
    }

    fn load(&self) -> Result<Config, Problems> {
        let root = self.dir.path();
        load_with(&root.join("etc"), &root.join("state"), Some(root.join("credentials")))
    }

    /// Returns the problems as text, with paths that begin at the place
    fn problems(&self) -> String {
        let problems = self.load().expect_err("there are problems");
        problems.to_string().replace(&format!("{}/", self.dir.path().display()), "")
    }

    fn network(&self) -> NetworkConfig {
        let config = self.load().unwrap_or_else(|problems| panic!("{problems}"));
        config.networks.into_values().next().expect("there is a network")
    }
}

/// Says what is wrong with one file by itself
fn problems_of(text: &str) -> String {
    let place = Place::new();
    place.write("etc/home.toml", text);
    place.problems()
}

#[test]
fn no_directory_is_no_network() {
    let config = load(Path::new("/nonexistent/etc"), Path::new("/nonexistent/state")).unwrap();

    assert!(config.networks.is_empty());
}

#[test]
fn peer_with_little_gets_the_defaults() {
    let place = Place::new();
    place.write("etc/home.toml", PEER);

    let network = place.network();

    assert_eq!(network.name.as_str(), "home");
    assert!(network.autoconnect);
    assert_eq!(network.private_key.public_key(), PrivateKey::from_bytes([1; 32]).public_key());
    assert_eq!(network.network_key.as_bytes(), &[0; 32]);
    assert_eq!(network.listen.to_string(), "[::]:0");
    assert_eq!(network.interface, "fvpn-home");
    assert_eq!(network.mtu, 1400);
    assert_eq!(network.dns.as_ref().map(Suffix::as_str), Some("home.fastvpn"));
    let RoleConfig::Peer(peer) = network.role else { panic!("a hub") };
    assert_eq!(peer.hub_loss, HubLoss::Stop);
    assert_eq!(peer.hubs[0].endpoint, "hub.example.net:8796");
    assert_eq!((network.carrier, peer.hubs[0].carrier), (Choice::Auto, Choice::Auto));
    assert_eq!(network.engine, EngineConfig::default());
}

#[test]
fn hub_with_little_gets_the_defaults() {
    let place = Place::new();
    place.write("etc/home.toml", HUB);

    let network = place.network();

    assert_eq!(network.listen.to_string(), "[::]:8796");
    let RoleConfig::Hub(hub) = network.role else { panic!("a peer") };
    assert_eq!(hub.timeout, Duration::from_secs(15));
    assert_eq!(hub.endpoint, None);
    assert_eq!(hub.members[0].name, "tokyo");
}

#[test]
fn every_key_is_taken() {
    let place = Place::new();
    place.key("etc/psk", KEY_B, 0o400);
    place.key("credentials/home", &format!("{PRIVATE}\n"), 0o440);
    place.write(
        "etc/hub.toml",
        &format!(
            "role = 'hub'\nautoconnect = false\nprivate_key_credential = 'home'\n\
             network_key_file = 'psk'\nlisten = '192.0.2.1:99'\ninterface = 'vpn0'\nmtu = 1280\nthreads = 16\n\
             address = ['172.16.97.1/24', 'fd00::1/64']\nendpoint = 'hub.example.net'\n\
             subnet = ['172.16.97.0/24', 'fd00::/64']\ntimeout = '1m'\n\
             [[member]]\nname = 'tokyo'\npublic_key = '{KEY_A}'\n\
             address = ['172.16.97.7', 'fd00::7']\nsubnet = ['192.168.7.0/24']\n"
        ),
    );

    let network = place.network();

    assert!(!network.autoconnect);
    assert_eq!((network.interface.as_str(), network.mtu), ("vpn0", 1280));
    assert_eq!(network.threads, Some(16));
    assert_eq!(network.listen.to_string(), "192.0.2.1:99");
    assert_eq!(network.network_key.as_bytes()[0], 0xde);
    let RoleConfig::Hub(hub) = network.role else { panic!("a peer") };
    assert_eq!(hub.endpoint.as_deref(), Some("hub.example.net:8796"));
    assert_eq!(hub.timeout, Duration::from_secs(60));
    assert_eq!(hub.members[0].subnets[0].to_string(), "192.168.7.0/24");
}

#[test]
fn names_have_another_domain_or_none() {
    let place = Place::new();
    place.write("etc/home.toml", &format!("dns_suffix = 'VPN.example.net'\n{PEER}"));
    assert_eq!(place.network().dns.as_ref().map(Suffix::as_str), Some("vpn.example.net"));

    place.write("etc/home.toml", &format!("dns = false\n{PEER}"));
    assert_eq!(place.network().dns, None);
}

#[test]
fn networks_with_names_in_the_same_domain_are_told() {
    let place = Place::new();
    place.write("etc/a.toml", PEER);
    place.write(
        "etc/b.toml",
        &format!("dns_suffix = 'a.fastvpn'\n{}", PEER.replace("16.97", "16.98")),
    );

    assert!(place.problems().starts_with("etc/b.toml:1: dns_suffix: a.fastvpn is the suffix of"));
}

#[test]
fn keys_of_the_engine_are_taken_and_carrier_and_tcp_hold_until_nearer_ones() {
    let place = Place::new();
    let engine = "tcp = 'plain'\nmemory = '1GiB'\nrate = '100mbit'\npacket_rate = 50000\n\
                  quota = '1TB/month'\nredundancy = '5%'\ncarrier = 'tcp'\n";
    let hub = format!(
        "[[hub]]\nendpoint = 'other:1'\npublic_key = '{KEY_B}'\ncarrier = 'kcp'\ntcp = 'split'\n"
    );
    let peers = format!(
        "[[peer]]\nname = 'tokyo'\ncarrier = 'udp'\n\
         [[peer]]\npublic_key = '{KEY_A}'\ntcp = 'split'\n"
    );
    place.write("etc/home.toml", &format!("{engine}{PEER}{hub}{peers}"));

    let network = place.network();

    let quota = Some(Quota { bytes: 1_000_000_000_000, period: Period::Month });
    let bounds = Bounds { rate: Some(12_500_000), packet_rate: Some(50_000), quota };
    let want = EngineConfig { tcp: TcpMode::Plain, memory: 1 << 30, bounds, copies: 5 };
    assert_eq!((network.engine, network.carrier), (want, Choice::Tcp));
    let RoleConfig::Peer(peer) = network.role else { panic!("a hub") };
    let carriers: Vec<_> = peer.hubs.iter().map(|hub| hub.carrier).collect();
    assert_eq!((&carriers[..], peer.carrier), (&[Choice::Tcp, Choice::Kcp][..], Choice::Tcp));
    assert_eq!(
        peer.hubs.iter().map(|hub| hub.tcp).collect::<Vec<_>>(),
        [None, Some(TcpMode::Split)]
    );
    let who = PeerName::Name("tokyo".to_owned());
    let tokyo = PeerSetting { who, carrier: Choice::Udp, tcp: None };
    let who = PeerName::Key(KEY_A.parse().unwrap());
    let other = PeerSetting { who, carrier: Choice::Tcp, tcp: Some(TcpMode::Split) };
    assert_eq!(peer.peers, [tokyo, other]);
}

#[test]
fn bounds_of_the_node_are_in_a_file_of_their_own() {
    let place = Place::new();
    place.write("etc/home.toml", PEER);
    assert_eq!(place.load().unwrap().node, Bounds::default());

    place.write("etc/fastvpnd.conf", "rate = '1gbit'\npacket_rate = 9000\nquota = '5TB/week'\n");
    let quota = Some(Quota { bytes: 5_000_000_000_000, period: Period::Week });
    let want = Bounds { rate: Some(125_000_000), packet_rate: Some(9000), quota };
    assert_eq!(place.load().unwrap().node, want);

    place.write("etc/fastvpnd.conf", "tcp = 'plain'\nrate = 7\npacket_rate = 7\n= 1\n");
    assert!(place.problems().starts_with("etc/fastvpnd.conf:4:1: is no TOML"));
    place.write("etc/fastvpnd.conf", "tcp = 'plain'\nrate = 7\npacket_rate = 7\nquota = '1TB'\n");
    let problems = place.problems();
    for want in [
        "etc/fastvpnd.conf:1: tcp: is no key of this file; remove it; known are rate, packet_rate",
        "etc/fastvpnd.conf:2: rate: is a number, not a text; write rate = \"100mbit\"",
        "etc/fastvpnd.conf:3: packet_rate: 7 is not from 100",
        "etc/fastvpnd.conf:4: quota: \"1TB\" does not say in what time",
    ] {
        assert!(problems.lines().any(|line| line.starts_with(want)), "{want}\nin\n{problems}");
    }
}

#[test]
fn peer_that_is_set_twice_is_told() {
    let twice = "[[peer]]\nname = 'tokyo'\ncarrier = 'tcp'\n".repeat(2);
    let want = ":12: peer.name: is that of the [[peer]] in line 9 as well; write all of a peer";

    assert!(problems_of(&format!("{PEER}{twice}")).contains(want));
}

#[test]
fn peer_that_is_its_own_hub_or_knows_one_twice_is_told() {
    let own = PrivateKey::from_bytes([1; 32]).public_key().to_string();
    let hub = |endpoint, key| format!("[[hub]]\nendpoint = '{endpoint}'\npublic_key = '{key}'\n");

    assert!(
        problems_of(&PEER.replace(KEY_A, &own)).contains(":7: hub.public_key: is this node's own")
    );
    let twice = format!("{PEER}{}", hub("other:1", KEY_A));
    assert!(problems_of(&twice).contains(":10: hub.public_key: is the key of the hub in line 7"));
    let twice = format!("{PEER}{}", hub("hub.example.net", KEY_B));
    assert!(problems_of(&twice).contains(":9: hub.endpoint: hub.example.net:8796 is the endpoint"));
    let none = PEER.split("[[hub]]").next().unwrap();
    assert!(problems_of(none).contains(":1: hub: is missing; add [[hub]]"));
}

#[test]
fn all_problems_of_all_files_come_at_once() {
    let place = Place::new();
    place.write("etc/a.toml", "role = 'peer'\nmtu = 1\ncolour = 'red'\nlisten = 7\n");
    place.write("etc/b.toml", "role = \n");
    place.write("state/networks/c.toml", &PEER.replace("97.101/24", "97.101"));

    let problems = place.problems();

    for want in [
        "etc/a.toml:1: hub: is missing",
        "etc/a.toml:1: private_key_file: is missing",
        "etc/a.toml:2: mtu: 1 is not from 1280 to 9000",
        "etc/a.toml:3: colour: is no key of this file",
        "etc/a.toml:4: listen: is a number, not a text",
        "etc/b.toml:1:8: is no TOML: string values must be quoted",
        "state/networks/c.toml:2: private_key_file: cannot read",
        "state/networks/c.toml:3: address: \"172.16.97.101\" has no prefix length",
    ] {
        assert!(problems.lines().any(|line| line.starts_with(want)), "{want}\nin\n{problems}");
    }
    assert_eq!(problems.lines().count(), 8, "{problems}");
}

#[test]
fn files_that_are_no_configuration_are_named() {
    let place = Place::new();
    place.write("etc/home.toml", PEER);
    place.write("state/networks/home.toml", PEER);
    place.write("etc/Not_A_Name.toml", PEER);
    place.write("etc/notes.txt", "not ours");
    place.write("etc/.home.toml", "an editor's");
    fs::create_dir(place.dir.path().join("etc/dir.toml")).unwrap();
    fs::write(place.dir.path().join("etc/latin.toml"), b"role = 'peer'\n# \xe4\n").unwrap();

    let problems = place.problems();

    for want in [
        "etc/Not_A_Name.toml: \"Not_A_Name\" cannot be the name of a network",
        "etc/dir.toml: is no regular file",
        "etc/latin.toml:2: is not UTF-8",
        "state/networks/home.toml: network home is configured in etc/home.toml as well; remove one",
    ] {
        assert!(problems.lines().any(|line| line.starts_with(want)), "{want}\nin\n{problems}");
    }
    assert_eq!(problems.lines().count(), 4, "{problems}");
}

#[test]
fn networks_that_collide_are_told() {
    let place = Place::new();
    place.write("etc/a.toml", &format!("interface = 'vpn0'\nlisten = '[::]:99'\n{PEER}"));
    place.write("etc/b.toml", &format!("interface = 'vpn0'\nlisten = '192.0.2.1:99'\n{PEER}"));

    let problems = place.problems();

    assert_eq!(
        problems.lines().map(|line| line.split("; ").next().unwrap()).collect::<Vec<_>>(),
        [
            "etc/b.toml:1: interface: vpn0 is the interface of network a as well",
            "etc/b.toml:2: listen: 192.0.2.1:99 and [::]:99, of network a, collide",
            "etc/b.toml:5: address: 172.16.97.101/24 overlaps 172.16.97.101/24 of network a",
        ]
    );
}

#[test]
fn networks_on_other_addresses_or_ports_of_their_own_choice_get_along() {
    let place = Place::new();
    place.write("etc/a.toml", &format!("listen = '192.0.2.1:99'\n{PEER}"));
    place.write(
        "etc/b.toml",
        &format!("listen = '192.0.2.2:99'\n{}", PEER.replace("16.97", "16.98")),
    );
    place.write("etc/c.toml", &PEER.replace("16.97", "16.99"));
    place.write("etc/d.toml", &PEER.replace("16.97", "16.100"));

    assert_eq!(place.load().unwrap().networks.len(), 4);
}

#[test]
fn keys_that_others_may_read_are_refused_with_the_command_that_mends_it() {
    for mode in [0o640, 0o604, 0o660, 0o666] {
        let place = Place::new();
        place.key("etc/keys/own", PRIVATE, mode);
        place.write("etc/home.toml", PEER);

        let problems = place.problems();

        let want = format!(
            "etc/home.toml:2: private_key_file: etc/keys/own is open to others (mode {mode:04o}); \
             run: chmod 0600 etc/keys/own"
        );
        assert_eq!(problems, want);
    }
}

#[test]
fn keys_of_a_stranger_are_refused() {
    if !rustix::process::geteuid().is_root() {
        return;
    }
    let place = Place::new();
    place.write("etc/home.toml", PEER);
    std::os::unix::fs::chown(place.dir.path().join("etc/keys/own"), Some(12345), None).unwrap();

    assert!(place.problems().contains(":2: private_key_file: etc/keys/own belongs to user 12345;"));

    std::os::unix::fs::chown(place.dir.path().join("state"), Some(12345), None).unwrap();
    assert!(place.load().is_ok(), "the owner of the state directory is the daemon's user");
}

#[test]
fn keys_that_are_none_are_refused() {
    for (text, want) in [
        ("", "does not hold a key"),
        (&PRIVATE[1..], "does not hold a key"),
        (&format!("{PRIVATE}{PRIVATE}"), "does not hold a key"),
        (&"x".repeat(10_000), "does not hold a key"),
        ("AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=", "holds a key of zeros"),
    ] {
        let place = Place::new();
        place.key("etc/keys/own", text, 0o600);
        place.write("etc/home.toml", PEER);

        assert!(place.problems().contains(want), "{text}");
    }
    let directory = PEER.replace("keys/own", "keys");
    assert!(problems_of(&directory).contains("etc/keys is no regular file"));
}

#[test]
fn both_keys_may_be_credentials() {
    let place = Place::new();
    place.key("credentials/home", &format!("{PRIVATE}\n"), 0o440);
    place.key("credentials/home.psk", KEY_B, 0o440);
    let keys = "private_key_credential = \"home\"\nnetwork_key_credential = \"home.psk\"";
    place.write("etc/home.toml", &PEER.replace("private_key_file = \"keys/own\"", keys));

    let network = place.network();

    assert_eq!(network.network_key.as_bytes()[0], 0xde);
}

#[test]
fn credential_without_systemd_says_so() {
    let place = Place::new();
    place.write("etc/home.toml", &PEER.replace("file = \"keys/own\"", "credential = \"home\""));
    let root = place.dir.path();

    let problems = load_with(&root.join("etc"), &root.join("state"), None).unwrap_err();

    assert!(problems.to_string().contains("systemd passed none to this process"));
}

#[test]
fn secrets_are_in_no_text() {
    let place = Place::new();
    place.write("etc/a.toml", PEER);
    let config = format!("{:?}", place.load().unwrap());
    let bytes = format!("{:?}", [1_u8; 32]);
    assert!(!config.contains(PRIVATE) && !config.contains(&bytes[1..40]), "{config}");

    let bare = PRIVATE.trim_end_matches('=');
    for text in [
        PEER.replace("keys/own", PRIVATE),
        PEER.replace("keys/own", &format!("/{PRIVATE}")),
        PEER.replace("file = \"keys/own\"", &format!("credential = \"{PRIVATE}\"")),
        PEER.replace("private_key_file = \"keys/own\"", &format!("private_key = \"{PRIVATE}\"")),
        PEER.replace("private_key_file = \"keys/own\"", &format!("private_key = {PRIVATE}")),
        PEER.replace("private_key_file = \"keys/own\"", &format!("\"{PRIVATE}\" = 1")),
        PEER.replace("private_key_file = \"keys/own\"", PRIVATE),
        PEER.replace("peer", PRIVATE),
        PEER.replace("hub.example.net:8796", PRIVATE),
        PEER.replace("172.16.97.101/24", PRIVATE),
        PEER.replace("\n\n", &format!("\nlisten = \"{PRIVATE}\"\n")),
        PEER.replace("\n\n", &format!("\ninterface = \"{PRIVATE}\"\n")),
        PEER.replace("\n\n", &format!("\nhub_loss = \"{PRIVATE}\"\n")),
        PEER.replace("\n\n", &format!("\nmtu = \"{PRIVATE}\"\n")),
        PEER.replace(KEY_A, &format!("{PRIVATE}=")),
        HUB.replace("tokyo", PRIVATE),
        HUB.replace("172.16.97.0/24", PRIVATE),
    ] {
        let problems = problems_of(&text);
        assert!(!problems.contains(&bare[..20]), "{problems}");
    }
}

#[test]
fn report_goes_to_people() {
    let place = Place::new();
    place.write("etc/home.toml", PEER);
    let root = place.dir.path().to_owned();
    let (mut out, mut err) = (Vec::new(), Vec::new());

    let good = report(&root.join("etc"), &root.join("state"), &mut out, &mut err).unwrap();
    assert!(good && err.is_empty());
    assert_eq!(String::from_utf8(out).unwrap(), "home: ok\n");

    place.write("etc/home.toml", "");
    let mut out = Vec::new();
    let good = report(&root.join("etc"), &root.join("state"), &mut out, &mut err).unwrap();
    assert!(!good && out.is_empty());
    assert_eq!(String::from_utf8(err).unwrap().lines().count(), 2);
}

#[test]
fn manual_names_every_key_and_its_examples_are_good() {
    let page = concat!(env!("CARGO_MANIFEST_DIR"), "/../man/fastvpn.toml.5");
    let page = fs::read_to_string(page).unwrap();
    let tables =
        [shape::KEYS, shape::MEMBER_KEYS, shape::HUB_KEYS, shape::PEER_KEYS, shape::NODE_KEYS];
    for key in tables.into_iter().flatten() {
        let item =
            |name: &str| page.lines().any(|line| line.starts_with(&format!(".It Ic {name}")));
        assert!(item(key.name) || item(&format!("[[{}]]", key.name)), "{}", key.name);
    }
    let (_, examples) = page.split_once(".Sh EXAMPLES").unwrap();
    let place = Place::new();
    for (index, example) in examples.split(".Bd -literal -offset indent\n").skip(1).enumerate() {
        let text = example.split(".Ed").next().unwrap();
        let text = text.replace("/var/lib/fastvpn/keys/home", "keys/own");
        place.write("etc/example.toml", &text);
        let role = place.network().role;
        assert_eq!(matches!(role, RoleConfig::Hub(_)), index == 0, "{text}");
    }
}

#[test]
fn first_network_by_hand_is_good_in_the_manual() {
    let root = concat!(env!("CARGO_MANIFEST_DIR"), "/..");
    let keys = [("TOKYO", KEY_A), ("PARIS", KEY_B), ("THE HUB", KEY_A)];
    let text = fs::read_to_string(format!("{root}/man/fastvpn.7")).unwrap();
    let blocks = text.split(".Bd -literal -offset indent\n").skip(1);
    let blocks = blocks.filter(|block| block.starts_with("role = "));
    let blocks: Vec<_> = blocks.map(|block| block.split(".Ed").next().unwrap()).collect();
    let place = Place::new();
    let hubs = blocks.iter().filter(|block| {
        let text = block.replace("/var/lib/fastvpn/keys/home", "keys/own");
        let text = keys
            .iter()
            .fold(text, |text, (name, key)| text.replace(&format!("PUBLIC KEY OF {name}"), key));
        place.write("etc/home.toml", &text);
        matches!(place.network().role, RoleConfig::Hub(_))
    });
    assert_eq!((hubs.count(), blocks.len()), (1, 2));
}

proptest! {
    #[test]
    fn random_text_never_panics(text in "\\PC*") {
        read_any(&text);
    }

    #[test]
    fn random_keys_and_values_never_panic(
        lines in prop::collection::vec((any::<prop::sample::Index>(), any::<prop::sample::Index>()), 0..30)
    ) {
        let mut text = String::new();
        for (key, value) in lines {
            text.push_str(key.get::<&str>(&LEFT));
            text.push_str(value.get::<&str>(&RIGHT));
            text.push('\n');
        }
        read_any(&text);
    }
}

/// Reads a text as far as it goes; files are not touched
fn read_any(text: &str) {
    let keys = secret::KeyRing::new(Path::new("/nonexistent"), None);
    let mut notes = Notes::new(Path::new("/nonexistent/x.toml"), text);
    let checked = shape::read(text, &mut notes)
        .and_then(|file| check::check("x".parse().unwrap(), file, &keys, &mut notes));
    let problems = Problems::new(notes.into_problems());
    assert_eq!(checked.is_none(), problems.iter().next().is_some());
    assert!(!problems.to_string().contains("cannot be read;"), "{text}");
}

const LEFT: [&str; 27] = [
    "threads = ",
    "tcp = ",
    "memory = ",
    "rate = ",
    "packet_rate = ",
    "quota = ",
    "redundancy = ",
    "carrier = ",
    "[[peer]] # ",
    "role = ",
    "mtu = ",
    "address = ",
    "subnet = ",
    "timeout = ",
    "listen = ",
    "endpoint = ",
    "interface = ",
    "hub_loss = ",
    "public_key = ",
    "name = ",
    "[[hub]] # ",
    "[[member]] # ",
    "hub = ",
    "member = ",
    "hub.endpoint = ",
    "[member] # ",
    "private_key_file = ",
];
const RIGHT: [&str; 22] = [
    "'99999999.999TiB'",
    "'1.5GB/week'",
    "'7%'",
    "'100mbit'",
    "'hub'",
    "'peer'",
    "[]",
    "[[]]",
    "{}",
    "[{}]",
    "['10.0.0.0/8', '::/0', 'ä/9']",
    "'fd00::1/64'",
    "0x7fff_ffff_ffff_ffff",
    "-1",
    "1e9",
    "true",
    "1979-05-27",
    "'[::]:1'",
    "'ä'",
    "'99999999999999999999h'",
    "\"\"\"\n\"\"\"",
    "'hSDwCYkwp1R0i33ctD73Wg2/Og0mOBr066SpjqqbTmo='",
];
