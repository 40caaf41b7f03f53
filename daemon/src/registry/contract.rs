//! What every registry promises, tried on each; and what the disk does to the one that has a disk.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader};
use std::net::IpAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::{env, fs};

use fastvpn_proto::crypto::{InvitationSecret, PublicKey};
use tempfile::TempDir;

use super::{
    Change, Configured, Contents, Database, Digest, Invitation, Record, Registry, RegistryError,
    Standing, Use, given,
};
use crate::config::Member;
use crate::handle::NetworkName;

#[test]
fn database_obeys_the_contract() {
    let state = tempfile::tempdir().unwrap();
    let (one, two) = (key(1), key(2));
    let before = vec![Change::Member(one, record("tokyo")), Change::Given(one, addresses(1))];
    let mut registry = open(&state);
    registry.commit(&before).unwrap();

    obeys(
        &mut registry,
        &[
            vec![Change::Member(two, record("kyoto")), Change::Given(two, addresses(2))],
            vec![Change::Invitation(digest(1), invitation(Use::Open))],
            vec![
                Change::Invitation(digest(1), invitation(Use::By(two))),
                Change::Invitation(digest(2), invitation(Use::Withdrawn)),
                Change::NoMember(one),
            ],
            vec![Change::NoInvitation(digest(1)), Change::Member(two, record("osaka"))],
        ],
    );

    let kept = registry.load().unwrap();
    drop(registry);
    assert_eq!(open(&state).load().unwrap(), kept, "all of it outlives the program");
    assert_eq!(kept.members.len(), 1);
}

#[test]
fn configuration_obeys_the_contract_and_names_what_it_cannot_hold() {
    let member = Member {
        name: "tokyo".to_owned(),
        public_key: key(1),
        addresses: addresses(1),
        subnets: Vec::new(),
        carrier: Default::default(),
        tcp: None,
        line: 7,
    };
    let mut registry = Configured::new(PathBuf::from("/etc/fastvpn/home.toml"), vec![member]);

    obeys(
        &mut registry,
        &[
            vec![Change::Member(key(1), record("kyoto"))],
            vec![Change::NoMember(key(1)), Change::Member(key(2), record("kyoto"))],
            vec![Change::Member(key(2), record("kyoto"))],
            vec![Change::Given(key(1), addresses(1))],
            vec![Change::Invitation(digest(1), invitation(Use::Open))],
            vec![Change::NoInvitation(digest(1))],
        ],
    );

    let kept = registry.load().unwrap();
    assert_eq!(kept.members[&key(1)].name, "tokyo");
    let error = registry.commit(&[Change::NoMember(key(1))]).unwrap_err().to_string();
    assert!(error.contains("/etc/fastvpn/home.toml, line 7"), "{error}");
    let error = registry.commit(&[Change::NoInvitation(digest(1))]).unwrap_err();
    assert!(matches!(error, RegistryError::Unsupported("invitations")), "{error}");
}

/// What is committed is kept, all of it or nothing; what cannot be is a named error
fn obeys(registry: &mut impl Registry, commits: &[Vec<Change>]) {
    registry.commit(&[]).unwrap();
    for changes in commits {
        let mut expected = registry.load().unwrap();
        match registry.commit(changes) {
            Ok(()) => changes.iter().for_each(|change| expected.apply(change.clone())),
            Err(RegistryError::Configured { .. } | RegistryError::Unsupported(_)) => {}
            Err(error) => panic!("no named error of a registry that cannot hold it: {error}"),
        }
        assert_eq!(registry.load().unwrap(), expected, "{changes:?}");
    }
}

#[test]
fn file_is_for_its_owner_alone_and_for_one_process_at_a_time() {
    let state = tempfile::tempdir().unwrap();
    let registry = open(&state);

    let mode = fs::metadata(file(&state)).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    assert!(matches!(Database::open(state.path(), &name()), Err(RegistryError::Occupied(_))));
    drop(registry);
    open(&state);
}

#[test]
fn addresses_of_an_earlier_version_are_taken_over_once_and_their_file_is_kept() {
    let state = tempfile::tempdir().unwrap();
    let old = given::file(state.path(), &name());
    let text = |byte, address| {
        format!("[[given]]\npublic_key = \"{}\"\naddress = [\"{address}\"]\n", key(byte))
    };
    fs::create_dir(old.parent().unwrap()).unwrap();
    fs::write(&old, format!("{}{}\n# end\n", text(1, "10.0.0.1"), text(2, "10.0.0.2"))).unwrap();
    let expected = BTreeMap::from([(key(1), addresses(1)), (key(2), addresses(2))]);

    let mut registry = open(&state);
    assert_eq!(registry.load().unwrap().given, expected);
    registry.commit(&[Change::Given(key(1), addresses(9))]).unwrap();
    drop(registry);
    // As after a crash between the two: taken over, and not put aside yet.
    fs::rename(given::retired(&old), &old).unwrap();

    let kept = open(&state).load().unwrap();

    assert_eq!(kept.given[&key(1)], addresses(9), "it is not taken over again");
    assert_eq!(kept.given[&key(2)], addresses(2));
    assert!(!old.exists() && given::retired(&old).exists());
}

#[test]
fn addresses_of_an_earlier_version_that_are_damaged_stop_the_start_and_stay() {
    let state = tempfile::tempdir().unwrap();
    let old = given::file(state.path(), &name());
    fs::create_dir(old.parent().unwrap()).unwrap();
    fs::write(&old, "[[given]]\n").unwrap();

    for _ in 0..2 {
        let error = Database::open(state.path(), &name()).unwrap_err();
        assert!(matches!(&error, RegistryError::Damaged { file, .. } if *file == old), "{error}");
    }
    assert_eq!(fs::read_to_string(&old).unwrap(), "[[given]]\n");
    fs::remove_file(&old).unwrap();
    open(&state);
}

#[test]
fn damage_is_told_or_harmless_and_never_loses_what_can_be_read() {
    let state = tempfile::tempdir().unwrap();
    let mut registry = open(&state);
    for byte in 1..=40 {
        let changes =
            [Change::Member(key(byte), record("x")), Change::Given(key(byte), addresses(byte))];
        registry.commit(&changes).unwrap();
    }
    let kept = registry.load().unwrap();
    drop(registry);
    let good = fs::read(file(&state)).unwrap();

    let mut told = 0;
    for at in (0..good.len()).step_by(good.len() / 97) {
        let mut bad = good.clone();
        let until = (at + 64).min(bad.len());
        bad[at..until].iter_mut().for_each(|byte| *byte ^= 0x5a);
        told += usize::from(judged(&state, &bad, &kept));
    }
    for len in [1, 100, good.len() / 2, good.len() - 1] {
        told += usize::from(judged(&state, &good[..len], &kept));
    }
    assert!(judged(&state, b"no database at all, but a text that somebody wrote", &kept));
    assert!(told > 5, "damage was never seen");
}

/// Opens a file with these bytes; returns whether damage was told, and then left alone
fn judged(state: &TempDir, bytes: &[u8], kept: &Contents) -> bool {
    fs::write(file(state), bytes).unwrap();
    match Database::open(state.path(), &name()).and_then(|mut registry| registry.load()) {
        Ok(contents) => {
            assert_eq!(contents, *kept, "neither told nor harmless");
            false
        }
        Err(RegistryError::Damaged { .. } | RegistryError::Write { .. }) => {
            assert!(fs::read(file(state)).unwrap() == bytes, "it was to be left as it is");
            true
        }
        Err(error) => panic!("{error}"),
    }
}

#[test]
fn nothing_is_lost_or_half_there_when_the_program_is_killed_in_the_middle_of_writing() {
    let state = tempfile::tempdir().unwrap();
    let mut written = 0;
    for round in 0..12_u64 {
        let mut child = Command::new(env::current_exe().unwrap())
            .args(["--exact", "registry::contract::writer_that_is_killed", "--ignored"])
            .args(["--nocapture", "--test-threads", "1"])
            .env(STATE, state.path())
            .env(FIRST, (written + 1).to_string())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let told = lines.filter_map(|line| line.unwrap().strip_prefix("written ")?.parse().ok());
        // Another moment each time: in the midst of a write, most of them.
        for number in told.take(1 + round as usize * 3) {
            written = number;
        }
        child.kill().unwrap();
        child.wait().unwrap();

        let kept = open(&state).load().unwrap();

        let members: Vec<_> = kept.members.keys().collect();
        assert_eq!(members, kept.given.keys().collect::<Vec<_>>(), "half a transaction");
        let last = kept.members.len() as u32;
        assert!(last >= written, "{last} are there, and {written} were promised");
        written = last;
    }
    assert!(written > 100, "{written}");
}

/// The program of the test above
#[test]
#[ignore = "is run, and killed, by another test"]
fn writer_that_is_killed() {
    let Ok(state) = env::var(STATE) else { return };
    let first: u32 = env::var(FIRST).unwrap().parse().unwrap();
    let mut registry = Database::open(Path::new(&state), &name()).unwrap();
    for number in first.. {
        let mut bytes = [0; 32];
        bytes[..4].copy_from_slice(&number.to_be_bytes());
        let key = PublicKey::from_bytes(bytes);
        let changes = [
            Change::Member(key, record("x")),
            Change::Given(key, vec![IpAddr::from([10, 0, 0, 1])]),
        ];
        registry.commit(&changes).unwrap();
        println!("written {number}");
    }
}

fn open(state: &TempDir) -> Database {
    Database::open(state.path(), &name()).unwrap()
}

fn file(state: &TempDir) -> PathBuf {
    Database::file(state.path(), &name())
}

fn name() -> NetworkName {
    "home".parse().unwrap()
}

fn key(byte: u8) -> PublicKey {
    PublicKey::from_bytes([byte; 32])
}

fn digest(byte: u8) -> Digest {
    Digest::of(&InvitationSecret::from_bytes([byte; 16]))
}

fn addresses(last: u8) -> Vec<IpAddr> {
    vec![[10, 0, 0, last].into()]
}

fn record(name: &str) -> Record {
    Record {
        name: name.to_owned(),
        standing: Standing::Pending,
        since: 1_700_000_000,
        addresses: vec!["fd00::7".parse().unwrap()],
        subnets: vec!["192.168.7.0/24".parse().unwrap()],
    }
}

fn invitation(used: Use) -> Invitation {
    Invitation {
        name: "osaka".to_owned(),
        expires: 1_700_003_600,
        approval: true,
        addresses: addresses(3),
        subnets: Vec::new(),
        used,
    }
}

const STATE: &str = "FASTVPN_TEST_STATE";
const FIRST: &str = "FASTVPN_TEST_FIRST";
