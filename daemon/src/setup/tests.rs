//! What each task leaves on the disk, before a daemon that is a script.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use fastvpn_proto::crypto::{InvitationSecret, NetworkKey, PublicKey};
use tempfile::TempDir;
use tokio::sync::{mpsc, watch};

use super::*;
use crate::config::{NetworkConfig, RoleConfig};
use crate::handle::{Counted, DnsView, NetworkView, Outcome, Reloaded, Request, Role};
use crate::invitation::Invitation;

#[tokio::test]
async fn hub_gets_keys_and_the_lowest_addresses() {
    let world = World::new(Script::Up);
    let subnets = ["172.16.97.0/24", "fd00:97::/64"].map(str::to_owned).to_vec();

    world.setup.create_hub(HubSpec { subnets, ..hub() }).await.unwrap();

    let network = world.network();
    let addresses: Vec<_> = network.addresses.iter().map(ToString::to_string).collect();
    assert_eq!(addresses, ["172.16.97.1/24", "fd00:97::1/64"]);
    assert_ne!(network.network_key.as_bytes(), &[0; 32]);
    assert_ne!(network.network_key.as_bytes(), network.private_key.as_bytes());
    assert_eq!(network.listen.to_string(), "[::]:8796");
    assert!(network.autoconnect);
}

#[tokio::test]
async fn wishes_for_a_hub_are_met() {
    let world = World::new(Script::Up);
    let spec = HubSpec {
        addresses: vec!["172.16.97.9/24".to_owned()],
        endpoint: Some("hub.example.net".to_owned()),
        listen: Some("0.0.0.0:9".to_owned()),
        autoconnect: false,
        ..hub()
    };

    world.setup.create_hub(spec).await.unwrap();

    let network = world.network();
    assert_eq!(network.addresses[0].to_string(), "172.16.97.9/24");
    assert_eq!(network.listen.to_string(), "0.0.0.0:9");
    assert!(!network.autoconnect);
    let RoleConfig::Hub(hub) = network.role else { panic!("a peer") };
    assert_eq!(hub.endpoint.as_deref(), Some("hub.example.net:8796"));
}

#[tokio::test]
async fn wish_that_cannot_be_met_is_named_and_leaves_nothing() {
    let bad: [(&str, HubSpec); 6] = [
        ("subnet: is missing", HubSpec { subnets: Vec::new(), ..hub() }),
        ("subnet: \"x\"", HubSpec { subnets: vec!["x".to_owned()], ..hub() }),
        (
            "subnet: 10.0.0.0/31 has no room",
            HubSpec { subnets: vec!["10.0.0.0/31".into()], ..hub() },
        ),
        (
            "address: 10.9.9.9/24 is in no",
            HubSpec { addresses: vec!["10.9.9.9/24".into()], ..hub() },
        ),
        ("endpoint: port", HubSpec { endpoint: Some("hub:0".to_owned()), ..hub() }),
        ("listen: a hub on port 0", HubSpec { listen: Some("[::]:0".to_owned()), ..hub() }),
    ];
    for (wanted, spec) in bad {
        let world = World::new(Script::Up);

        let Err(HandleError::Invalid(text)) = world.setup.create_hub(spec).await else {
            panic!("{wanted}")
        };

        assert!(text.starts_with(wanted), "{text}");
        assert_eq!(world.left(), [""; 0]);
    }
}

#[tokio::test]
async fn hub_that_does_not_come_up_leaves_nothing() {
    let taken = HandleError::Conflict("UDP port 8796 is in use by another process".to_owned());
    let world = World::new(Script::Fails(taken.clone()));

    assert_eq!(world.setup.create_hub(hub()).await, Err(taken));

    assert_eq!(world.left(), [""; 0]);
}

#[tokio::test]
async fn network_that_was_joined_is_as_the_invitation_says() {
    let world = World::new(Script::Up);

    let name = world.setup.join(invited()).await.unwrap();

    assert_eq!(name.as_str(), "home");
    let network = world.network();
    assert_eq!(network.network_key.as_bytes(), &[3; 32]);
    assert!(network.autoconnect);
    let RoleConfig::Peer(peer) = network.role else { panic!("a hub") };
    assert_eq!(peer.hubs[0].public_key, PublicKey::from_bytes([2; 32]));
    assert_eq!(peer.hubs[0].to_string(), "192.0.2.1:8796, hub.example.net:8796");
    assert_eq!(peer.ticket.unwrap().secret.as_bytes(), &[4; 16]);
}

#[tokio::test]
async fn name_and_bringer_are_as_wished_and_the_hub_is_not_asked() {
    let world = World::new(Script::Fails(HandleError::Stopping));
    let name = Some("work".parse().unwrap());

    let spec = JoinSpec { name, bringer: Bringer::Caller, ..invited() };
    let name = world.setup.join(spec).await.unwrap();

    assert_eq!(name.as_str(), "work");
    assert!(!world.network().autoconnect);
}

#[tokio::test]
async fn hub_that_does_not_answer_is_told_with_its_addresses_and_nothing_is_left() {
    let world = World::new(Script::Fails(HandleError::Timeout("it does not answer".to_owned())));

    let Err(HandleError::Timeout(text)) = world.setup.join(invited()).await else {
        panic!("joined")
    };

    let wanted =
        "it does not answer; it was looked for at 192.0.2.1:8796, hub.example.net:8796. Is";
    assert!(text.starts_with(wanted), "{text}");
    assert_eq!(world.left(), [""; 0]);
    assert_eq!(world.setup.join(invited()).await, Err(HandleError::Timeout(text)), "once more");
}

#[tokio::test]
async fn refusal_is_passed_on_and_nothing_is_left() {
    let world = World::new(Script::Fails(HandleError::Refused("it has expired".to_owned())));

    let error = world.setup.join(invited()).await.unwrap_err();

    assert_eq!(error.to_string(), "the hub refused: it has expired");
    assert_eq!(world.left(), [""; 0]);
}

#[tokio::test]
async fn network_whose_invitation_was_used_is_kept_whatever_fails_then() {
    let world = World::new(Script::FailsWelcome(HandleError::System("no /dev/net/tun".to_owned())));

    let error = world.setup.join(invited()).await.unwrap_err();

    assert!(error.to_string().starts_with("no /dev/net/tun; the hub has welcomed"), "{error}");
    assert_eq!(world.left(), ["keys/home", "keys/home.psk", "networks/home.toml"]);
}

#[tokio::test]
async fn waiting_for_approval_is_success() {
    let world = World::new(Script::Pending);

    assert_eq!(world.setup.join(invited()).await.map(|name| name.to_string()), Ok("home".into()));

    assert!(world.left().contains(&"keys/home.ticket".to_owned()));
}

#[tokio::test]
async fn name_that_is_taken_is_refused_here_and_there() {
    let world = World::new(Script::Up);
    world.setup.create_hub(hub()).await.unwrap();
    let before = world.left();

    let error = world.setup.join(invited()).await.unwrap_err();

    assert!(matches!(error, HandleError::Conflict(_)), "{error}");
    assert!(error.to_string().contains("fastvpnctl leave home"), "{error}");
    assert_eq!(world.left(), before);

    let world = World::new(Script::Up);
    fs::write(world.place.path().join("etc/home.toml"), "").unwrap();
    assert!(matches!(world.setup.create_hub(hub()).await, Err(HandleError::Conflict(_))));
}

#[tokio::test]
async fn problem_of_another_file_is_told_before_anything_happens() {
    let world = World::new(Script::Up);
    fs::write(world.place.path().join("etc/work.toml"), "role = 1").unwrap();

    let error = world.setup.join(invited()).await.unwrap_err();

    assert!(
        matches!(&error, HandleError::Config(text) if text.contains("etc/work.toml")),
        "{error}"
    );
    assert_eq!(world.left(), [""; 0]);
}

#[tokio::test]
async fn who_leaves_leaves_nothing() {
    let world = World::new(Script::Up);
    world.setup.join(invited()).await.unwrap();
    let kept = ["quota/home", "members/home.redb", "addresses/home.toml.old"]
        .map(|file| world.place.path().join("state").join(file));
    for file in &kept {
        fs::create_dir(file.parent().unwrap()).unwrap();
        fs::write(file, "").unwrap();
    }

    world.setup.leave("home".parse().unwrap()).await.unwrap();

    assert_eq!(world.left(), [""; 0]);
    assert!(kept.iter().all(|file| !file.exists()));
    let again = world.setup.leave("home".parse().unwrap()).await;
    assert_eq!(again, Err(HandleError::UnknownNetwork("home".to_owned())));
}

#[tokio::test]
async fn network_of_the_administrator_is_not_ours_to_delete() {
    let world = World::new(Script::Up);
    let file = world.place.path().join("etc/work.toml");
    fs::write(&file, "").unwrap();
    world.setup.daemon.reload().await.unwrap();

    let error = world.setup.leave("work".parse().unwrap()).await.unwrap_err();

    let wanted = format!("by hand: remove {}, then run", file.display());
    assert!(matches!(&error, HandleError::Conflict(text) if text.contains(&wanted)), "{error}");
    assert!(file.exists());
}

/// A place for files, and a daemon that is a script
struct World {
    place: TempDir,
    setup: Setup,
}

/// What becomes of a connect
#[derive(Clone)]
enum Script {
    Fails(HandleError),
    /// After the invitation was used
    FailsWelcome(HandleError),
    Pending,
    Up,
}

impl World {
    fn new(script: Script) -> Self {
        let place = tempfile::tempdir().unwrap();
        let (etc, state) = (place.path().join("etc"), place.path().join("state"));
        fs::create_dir(&etc).unwrap();
        let (requests, inbox) = mpsc::channel(8);
        let (snapshots, seen) = watch::channel(Arc::default());
        tokio::spawn(serve(inbox, snapshots, script, state.clone()));
        let setup = Setup::new(etc, state, Handle::new(requests, seen));
        Self { place, setup }
    }

    fn network(&self) -> NetworkConfig {
        let root = self.place.path();
        let config = config::load(&root.join("etc"), &root.join("state"));
        let config = config.unwrap_or_else(|problems| panic!("{problems}"));
        config.networks.into_values().next().expect("there is a network")
    }

    /// Names the files of networks that are there
    fn left(&self) -> Vec<String> {
        listed(&self.place.path().join("state"))
    }
}

fn listed(state: &Path) -> Vec<String> {
    let mut all = Vec::new();
    for sub in ["keys", "members", "networks"] {
        for entry in fs::read_dir(state.join(sub)).into_iter().flatten() {
            all.push(format!("{sub}/{}", entry.unwrap().file_name().to_string_lossy()));
        }
    }
    all.sort();
    all
}

/// Answers as the daemon would, whose networks are the files that are there
async fn serve(
    mut inbox: mpsc::Receiver<Request>,
    snapshots: watch::Sender<Arc<Snapshot>>,
    script: Script,
    state: PathBuf,
) {
    let mut waiting = Vec::new();
    while let Some(request) = inbox.recv().await {
        match request {
            Request::Connect { network: name, reply, .. } => match &script {
                Script::Fails(error) => {
                    // A hub opens it first.
                    fs::create_dir_all(state.join("members")).unwrap();
                    fs::write(state.join(format!("members/{name}.redb")), "").unwrap();
                    drop(reply.send(Err(error.clone())));
                }
                Script::FailsWelcome(error) => {
                    fs::remove_file(state.join(format!("keys/{name}.ticket"))).unwrap();
                    drop(reply.send(Err(error.clone())));
                }
                Script::Pending => {
                    show(&snapshots, &state, NetworkState::Pending);
                    waiting.push(reply);
                }
                Script::Up => drop(reply.send(Ok(Outcome::Changed(())))),
            },
            Request::Disconnect(_, reply) => drop(reply.send(Ok(Outcome::Changed(())))),
            Request::Reload(reply) => {
                show(&snapshots, &state, NetworkState::Connecting);
                drop(reply.send(Ok(Reloaded::default())));
            }
            other => panic!("{other:?}"),
        }
    }
}

fn show(snapshots: &watch::Sender<Arc<Snapshot>>, state: &Path, to: NetworkState) {
    let etc = state.with_file_name("etc");
    let files =
        [state.join("networks"), etc].into_iter().filter_map(|place| fs::read_dir(place).ok());
    let names = files.flatten().filter_map(|file| {
        let file = file.unwrap().file_name().into_string().unwrap();
        Some((file.strip_suffix(".toml")?.parse().unwrap(), view(to)))
    });
    snapshots.send_replace(Arc::new(Snapshot { networks: names.collect() }));
}

fn hub() -> HubSpec {
    HubSpec {
        name: "home".parse().unwrap(),
        subnets: vec!["172.16.97.0/24".to_owned()],
        addresses: Vec::new(),
        endpoint: None,
        listen: None,
        autoconnect: true,
    }
}

fn invited() -> JoinSpec {
    let invitation = Invitation {
        network: "home".parse().unwrap(),
        member: "laptop".to_owned(),
        hub_key: PublicKey::from_bytes([2; 32]),
        endpoints: ["192.0.2.1:8796", "hub.example.net:8796"].map(str::to_owned).to_vec(),
        network_key: NetworkKey::from_bytes([3; 32]),
        secret: InvitationSecret::from_bytes([4; 16]),
    };
    JoinSpec { invitation, name: None, bringer: Bringer::Daemon }
}

fn view(state: NetworkState) -> NetworkView {
    NetworkView {
        role: Role::Peer,
        state,
        detail: String::new(),
        public_key: PublicKey::from_bytes([1; 32]),
        apply: Apply::Daemon,
        interface: String::new(),
        addresses: Vec::new(),
        routes: Vec::new(),
        subnets: Vec::new(),
        gateway: None,
        mtu: 1400,
        listen: None,
        buffers: Default::default(),
        hub: None,
        sent: Counted::default(),
        received: Counted::default(),
        dropped: 0,
        overflowed: 0,
        wire_sent: Counted::default(),
        wire_received: Counted::default(),
        dns: DnsView::default(),
        domains: Vec::new(),
        quota: None,
        refusals: BTreeMap::new(),
        peers: BTreeMap::new(),
    }
}
