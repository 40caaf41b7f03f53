//! Rules of members, invitations and addresses; what they lead to is committed at once.

use std::time::Duration;

use fastvpn_proto::crypto::{InvitationSecret, NetworkKey, PrivateKey};

use super::invited::{INVITATIONS_MAX, PENDING_MAX};
use super::*;
use crate::config::{EngineConfig, RoleConfig};
use crate::registry::{Digest, Use};

#[test]
fn configured_addresses_get_the_length_of_their_subnet() {
    let world = World::new(&["10.0.0.0/24"], &[(1, &["10.0.0.7"])]);

    let found = world.members.addresses_for(&key(1), world.moment()).unwrap();

    assert_eq!(found.addresses, ["10.0.0.7/24".parse().unwrap()]);
    assert_eq!(found.change, None, "nothing is given");
    assert_eq!(world.members.find(&key(1)).unwrap().name, "member-1");
    let unknown = world.members.addresses_for(&key(2), world.moment());
    assert!(matches!(unknown, Err(RegistryError::Unknown(_))));
}

#[test]
fn lowest_free_address_of_each_subnet_is_given_and_remembered() {
    let members: &[(u8, &[&str])] = &[(1, &["10.0.0.2"]), (2, &[]), (3, &[])];
    let mut world = World::new(&["10.0.0.0/24", "fd00::/64"], members);

    // .0 is the network's, .1 the hub's, .2 the first member's
    assert_eq!(world.addresses(3), ["10.0.0.3/24", "fd00::1/64"]);
    assert_eq!(world.addresses(2), ["10.0.0.4/24", "fd00::2/64"]);
    assert_eq!(world.addresses(3), ["10.0.0.3/24", "fd00::1/64"]);
    assert_eq!(world.commits, 2);
    world.reload(&["10.0.0.0/24"], &[(2, &[])]);
    world.reload(&["10.0.0.0/24"], &[(2, &[]), (3, &[])]);
    assert_eq!(world.addresses(3), ["10.0.0.3/24"], "for ever");
}

#[test]
fn given_address_that_is_configured_for_another_is_given_anew() {
    let mut world = World::new(&["10.0.0.0/24"], &[(1, &[])]);
    assert_eq!(world.addresses(1), ["10.0.0.2/24"]);

    world.reload(&["10.0.0.0/24"], &[(1, &[]), (2, &["10.0.0.2"])]);

    assert_eq!(world.addresses(1), ["10.0.0.3/24"]);
    assert_eq!(world.addresses(2), ["10.0.0.2/24"]);
}

#[test]
fn full_subnet_is_an_error_that_changes_nothing() {
    // .1 is the hub's, .2 is free, .3 is the broadcast address
    let mut world = World::new(&["fd00::/64", "10.0.0.0/30"], &[(1, &[]), (2, &[])]);
    assert_eq!(world.addresses(1), ["fd00::1/64", "10.0.0.2/30"]);

    let error = world.members.addresses_for(&key(2), world.moment()).unwrap_err();

    assert!(error.to_string().starts_with("subnet 10.0.0.0/30 is full"), "{error}");
    assert!(error.to_string().contains("/var/lib/fastvpn/members/home.redb"), "{error}");
}

#[test]
fn new_subnet_adds_an_address_and_keeps_the_old_one() {
    let mut world = World::new(&["10.0.0.0/24"], &[(1, &[])]);
    assert_eq!(world.addresses(1), ["10.0.0.2/24"]);

    world.reload(&["fd00::/64", "10.0.0.0/24"], &[(1, &[])]);

    assert_eq!(world.addresses(1), ["fd00::1/64", "10.0.0.2/24"]);
}

#[test]
fn claimed_address_is_remembered_and_nobody_elses() {
    let mut world = World::new(&["10.0.0.0/24"], &[(1, &[]), (2, &[]), (3, &[])]);
    assert_eq!(world.claim(1, &["10.0.0.2"]).unwrap(), "10.0.0.2/24");

    assert_eq!(world.addresses(2), ["10.0.0.3/24"]);
    assert_eq!(world.claim(3, &["10.0.0.2"]).unwrap_err(), "address 10.0.0.2 belongs to member-1");
    assert_eq!(world.claim(1, &["10.0.0.9"]).unwrap(), "10.0.0.9/24");
    assert_eq!(world.claim(3, &["10.0.0.2"]).unwrap(), "10.0.0.2/24");
}

#[test]
fn claims_that_cannot_be_are_refused() {
    let mut world = World::new(&["10.0.0.0/24"], &[(1, &[]), (2, &["10.0.0.7"])]);
    for (member, addr, want) in [
        (1, "10.0.0.1", "address 10.0.0.1 belongs to the hub"),
        (1, "10.0.0.7", "address 10.0.0.7 belongs to member-2"),
        (1, "10.0.0.0", "address 10.0.0.0 is no node's in any subnet"),
        (1, "10.0.0.255", "address 10.0.0.255 is no node's in any subnet"),
        (1, "10.0.1.1", "address 10.0.1.1 is no node's in any subnet"),
        (2, "10.0.0.8", "the hub gives this member other addresses"),
    ] {
        let error = world.claim(member, &[addr]).unwrap_err();
        assert!(error.starts_with(want), "{error}");
    }
    let many: Vec<_> = (10..20).map(|last| format!("10.0.0.{last}")).collect();
    let many: Vec<_> = many.iter().map(String::as_str).collect();
    assert!(world.claim(1, &many).unwrap_err().contains("8 addresses at most"));
    assert_eq!(world.claim(2, &["10.0.0.7"]).unwrap(), "10.0.0.7/24");
    assert_eq!(world.commits, 0, "nothing was given");
}

#[test]
fn newcomer_becomes_a_member_with_the_name_of_the_invitation_and_it_is_used() {
    let mut world = World::new(&["10.0.0.0/24"], &[(1, &["10.0.0.2"])]);
    world.invite(1, plain("tokyo")).unwrap();

    let promised = world.newcomer(9, 1);
    let Newcomer::Welcome(addresses) = promised else { panic!("{promised:?}") };
    assert_eq!(addresses, ["10.0.0.3/24".parse().unwrap()]);
    world.redeem(9, 1, &addresses).unwrap();

    assert_eq!(world.members.find(&key(9)).unwrap().name, "tokyo");
    assert_eq!(world.addresses(9), ["10.0.0.3/24"], "as promised");
    assert_eq!(world.members.standing(&key(9)), Some(Standing::Approved));
    assert!(world.members.invitations(NOW).is_empty());
    assert!(world.redeem(9, 1, &addresses).unwrap_err().contains("used already"));
}

#[test]
fn invitation_that_is_of_no_use_is_refused_with_the_reason_and_one_of_nobody_is_not_answered() {
    let mut world = World::new(&["10.0.0.0/24"], &[]);
    for secret in 1..=3 {
        world.invite(secret, plain(&format!("name-{secret}"))).unwrap();
    }
    world.redeem(9, 1, &[]).unwrap();
    world.withdraw("name-2").unwrap();
    let refused = |newcomer: Newcomer| match newcomer {
        Newcomer::Refused(why) => why,
        other => panic!("{other:?}"),
    };

    assert!(refused(world.newcomer(8, 1)).contains("used already"));
    assert!(refused(world.newcomer(8, 2)).contains("withdrawn"));
    world.now = NOW + 3600;
    assert!(refused(world.newcomer(8, 3)).contains("expired"));
    assert!(world.redeem(8, 3, &[]).is_err());
    assert_eq!(world.newcomer(8, 77), Newcomer::Stranger);
    let error = world.withdraw("name-3").unwrap_err();
    assert!(matches!(error, RegistryError::NoInvitation(_)), "{error}");
}

#[test]
fn newcomer_that_needs_approval_waits_and_is_a_member_when_it_has_it() {
    let mut world = World::new(&["10.0.0.0/24"], &[]);
    world.invite(1, Invitation { approval: true, ..plain("tokyo") }).unwrap();

    assert_eq!(world.newcomer(9, 1), Newcomer::Pending);
    world.redeem(9, 1, &[]).unwrap();
    assert!(world.members.find(&key(9)).is_none());
    assert_eq!(world.newcomer(9, 1), Newcomer::Pending, "it tries again by the same invitation");
    assert!(matches!(world.newcomer(8, 1), Newcomer::Refused(_)));
    world.approve("tokyo").unwrap();

    assert_eq!(world.members.find(&key(9)).unwrap().name, "tokyo");
    assert_eq!(world.addresses(9), ["10.0.0.2/24"]);
}

#[test]
fn revoked_member_cannot_come_back_by_an_invitation_but_by_approval() {
    let mut world = World::new(&["10.0.0.0/24"], &[]);
    world.invite(1, plain("tokyo")).unwrap();
    world.invite(2, plain("kyoto")).unwrap();
    world.redeem(9, 1, &[]).unwrap();

    world.revoke("tokyo").unwrap();

    assert!(world.members.find(&key(9)).is_none());
    for secret in [1, 2] {
        let Newcomer::Refused(why) = world.newcomer(9, secret) else { panic!("{secret}") };
        assert!(why.contains("revoked"), "{why}");
        assert!(world.redeem(9, secret, &[]).is_err());
    }
    let rows = world.members.rows();
    assert_eq!((rows.len(), rows[0].record.standing), (1, Standing::Revoked));
    world.approve(&key(9).to_string()).unwrap();
    assert_eq!(world.members.find(&key(9)).unwrap().name, "tokyo");
}

#[test]
fn members_of_the_configuration_are_the_administrators() {
    let mut world = World::new(&["10.0.0.0/24"], &[(1, &[])]);

    for error in [world.revoke("member-1"), world.rename("member-1", "tokyo")] {
        let error = error.unwrap_err();
        assert!(error.to_string().contains("/etc/fastvpn/home.toml, line 10"), "{error}");
    }
    assert!(world.approve("member-1").is_ok(), "it may join already");
    assert!(matches!(world.revoke("nobody"), Err(RegistryError::Unknown(_))));
    let rows = world.members.rows();
    assert_eq!((rows.len(), rows[0].source), (1, Source::Configuration));
}

#[test]
fn names_addresses_and_subnets_have_one_owner() {
    let mut world = World::new(&["10.0.0.0/24"], &[(1, &["10.0.0.7"])]);
    let addressed = |name: &str, addr: &str| Invitation {
        addresses: vec![addr.parse().unwrap()],
        ..plain(name)
    };
    let routed = |name: &str, subnet: &str| Invitation {
        subnets: vec![subnet.parse().unwrap()],
        ..plain(name)
    };
    world.invite(1, addressed("tokyo", "10.0.0.9")).unwrap();
    world.invite(2, routed("kyoto", "192.168.7.0/24")).unwrap();

    for (invitation, want) in [
        (plain("member-1"), "the name member-1 belongs to a member"),
        (plain("tokyo"), "the name tokyo belongs to an invitation"),
        (addressed("x", "10.0.0.7"), "address 10.0.0.7 belongs to member-1"),
        (addressed("x", "10.0.0.9"), "address 10.0.0.9 belongs to somebody who was invited"),
        (addressed("x", "10.0.1.9"), "address 10.0.1.9 is no node's"),
        (routed("x", "192.168.0.0/16"), "subnet 192.168.0.0/16 overlaps 192.168.7.0/24"),
        (routed("x", "10.0.0.0/8"), "subnet 10.0.0.0/8 overlaps 10.0.0.0/24 of the network"),
    ] {
        let error = world.invite(9, invitation).unwrap_err().to_string();
        assert!(error.starts_with(want), "{error}");
    }
    world.redeem(5, 2, &[]).unwrap();
    let error = world.rename("kyoto", "member-1").unwrap_err();
    assert!(matches!(error, RegistryError::NameTaken { .. }), "{error}");
    world.rename("kyoto", "osaka").unwrap();
    assert_eq!(world.members.find(&key(5)).unwrap().name, "osaka");
    world.invite(3, plain("kyoto")).unwrap();
    assert_eq!(world.addresses(5), ["10.0.0.2/24"], "what is kept for tokyo is nobody else's");
}

#[test]
fn who_comes_back_by_approval_gets_nothing_that_is_anothers_by_now() {
    let mut world = World::new(&["10.0.0.0/24"], &[]);
    let addressed =
        |name: &str| Invitation { addresses: vec!["10.0.0.9".parse().unwrap()], ..plain(name) };
    let routed =
        |name: &str| Invitation { subnets: vec!["192.168.7.0/24".parse().unwrap()], ..plain(name) };
    for (secret, old, new, want) in [
        (1, addressed("tokyo"), addressed("osaka"), "address 10.0.0.9 belongs to osaka"),
        (
            3,
            routed("kyoto"),
            routed("nara"),
            "subnet 192.168.7.0/24 overlaps 192.168.7.0/24 of nara",
        ),
    ] {
        let name = old.name.clone();
        world.invite(secret, old).unwrap();
        world.redeem(secret, secret, &[]).unwrap();
        world.revoke(&name).unwrap();
        world.invite(secret + 1, new).unwrap();
        world.redeem(secret + 1, secret + 1, &[]).unwrap();

        let error = world.approve(&name).unwrap_err().to_string();

        assert!(error.starts_with(want), "{error}");
        assert_eq!(world.members.standing(&key(secret)), Some(Standing::Revoked));
        world.revoke(&key(secret + 1).to_string()).unwrap();
        world.approve(&name).unwrap();
    }
}

#[test]
fn subnet_of_who_waits_for_approval_is_nobody_elses() {
    let mut world = World::new(&["10.0.0.0/24"], &[]);
    let routed =
        |name: &str| Invitation { subnets: vec!["192.168.7.0/24".parse().unwrap()], ..plain(name) };
    world.invite(1, Invitation { approval: true, ..routed("tokyo") }).unwrap();
    world.redeem(5, 1, &[]).unwrap();

    let error = world.invite(2, routed("osaka")).unwrap_err().to_string();

    assert!(error.contains("of tokyo, who waits for approval"), "{error}");
    world.approve("tokyo").unwrap();
}

#[test]
fn member_of_ours_yields_to_what_the_administrator_has_since_configured() {
    let mut world = World::new(&["10.0.0.0/24"], &[]);
    let invitation =
        Invitation { addresses: vec!["10.0.0.9".parse().unwrap()], ..plain("member-1") };
    world.invite(1, invitation).unwrap();
    world.redeem(5, 1, &[]).unwrap();
    assert_eq!(world.addresses(5), ["10.0.0.9/24"]);

    world.reload(&["10.0.0.0/24"], &[(1, &["10.0.0.9"])]);

    assert_eq!(world.members.find(&key(5)).unwrap().name, "member-1-2");
    assert_eq!(world.addresses(5), ["10.0.0.2/24"]);
    assert_eq!(world.addresses(1), ["10.0.0.9/24"]);
}

#[test]
fn everything_is_bounded() {
    let mut world = World::new(&["10.0.0.0/16"], &[]);
    for number in 0..INVITATIONS_MAX as u16 {
        let name = format!("n{number}");
        world.invite_wide(number, Invitation { approval: true, ..plain(&name) }).unwrap();
    }

    let error = world.invite_wide(9999, plain("late")).unwrap_err();
    assert!(error.to_string().starts_with("there are 1000 open invitations"), "{error}");
    for number in 0..PENDING_MAX as u16 {
        world.redeem_wide(number).unwrap();
    }
    let error = world.redeem_wide(PENDING_MAX as u16).unwrap_err();
    assert!(error.starts_with("there are 64 nodes that wait for approval"), "{error}");
    world.invite_wide(9999, plain("late")).unwrap();
    assert_eq!(world.members.kept.invitations.len(), INVITATIONS_MAX, "a used one made room");
}

#[test]
fn name_like_another_gets_a_number_and_stays_a_name() {
    let long = "x".repeat(NAME_MAX);

    assert_eq!(numbered("tokyo", |_| false), "tokyo");
    assert_eq!(numbered("tokyo", |name| ["tokyo", "tokyo-2"].contains(&name)), "tokyo-3");
    let other = numbered(&long, |name| name == long);
    assert_eq!((other.len(), other.ends_with("x-2")), (NAME_MAX, true));
}

struct World {
    members: Members,
    now: u64,
    promised: BTreeSet<IpAddr>,
    commits: usize,
}

impl World {
    fn new(subnets: &[&str], members: &[(u8, &[&str])]) -> Self {
        let (network, hub) = config(subnets, members);
        let file = Path::new("/var/lib/fastvpn/members/home.redb");
        let members = Members::new(&network, &hub, Contents::default(), file);
        Self { members, now: NOW, promised: BTreeSet::new(), commits: 0 }
    }

    fn reload(&mut self, subnets: &[&str], members: &[(u8, &[&str])]) {
        let (network, hub) = config(subnets, members);
        self.members.reload(&network, &hub);
    }

    fn moment(&self) -> Moment<'_> {
        Moment { now: self.now, promised: &self.promised }
    }

    fn commit(&mut self, changes: Vec<Change>) {
        self.commits += usize::from(!changes.is_empty());
        self.members.apply(changes);
    }

    fn addresses(&mut self, member: u8) -> Vec<String> {
        let found = self.members.addresses_for(&key(member), self.moment()).unwrap();
        self.commit(found.change.into_iter().collect());
        found.addresses.iter().map(Prefix::to_string).collect()
    }

    fn claim(&mut self, member: u8, claims: &[&str]) -> Result<String, String> {
        let claims: Vec<IpAddr> = claims.iter().map(|addr| addr.parse().unwrap()).collect();
        let found = self.members.claim(&key(member), &claims, self.moment());
        let found = found.map_err(|error| error.to_string())?;
        self.commit(found.change.into_iter().collect());
        Ok(found.addresses.iter().map(Prefix::to_string).collect::<Vec<_>>().join(" "))
    }

    fn invite(&mut self, secret: u8, invitation: Invitation) -> Result<(), RegistryError> {
        let changes =
            self.members.invite(Digest::of(&hidden(secret)), invitation, self.moment())?;
        self.commit(changes);
        Ok(())
    }

    fn newcomer(&self, node: u8, secret: u8) -> Newcomer {
        self.members.newcomer(&key(node), &hidden(secret), self.moment())
    }

    fn redeem(&mut self, node: u8, secret: u8, promised: &[Prefix]) -> Result<(), String> {
        let changes = self.members.redeem(&key(node), &hidden(secret), promised, self.moment());
        self.commit(changes.map_err(|error| error.to_string())?);
        Ok(())
    }

    fn invite_wide(&mut self, number: u16, invitation: Invitation) -> Result<(), RegistryError> {
        let digest = Digest::of(&wide(number));
        let changes = self.members.invite(digest, invitation, self.moment())?;
        self.commit(changes);
        Ok(())
    }

    fn redeem_wide(&mut self, number: u16) -> Result<(), String> {
        let mut bytes = [1; 32];
        bytes[..2].copy_from_slice(&number.to_be_bytes());
        let node = PublicKey::from_bytes(bytes);
        let changes = self.members.redeem(&node, &wide(number), &[], self.moment());
        self.commit(changes.map_err(|error| error.to_string())?);
        Ok(())
    }

    fn withdraw(&mut self, name: &str) -> Result<(), RegistryError> {
        let changes = self.members.withdraw(name, self.now)?;
        self.commit(changes);
        Ok(())
    }

    fn approve(&mut self, who: &str) -> Result<(), RegistryError> {
        let (_, changes) = self.members.approve(who, self.moment())?;
        self.commit(changes);
        Ok(())
    }

    fn revoke(&mut self, who: &str) -> Result<(), RegistryError> {
        let (_, changes) = self.members.revoke(who)?;
        self.commit(changes);
        Ok(())
    }

    fn rename(&mut self, who: &str, name: &str) -> Result<(), RegistryError> {
        let (_, changes) = self.members.rename(who, name, self.now)?;
        self.commit(changes);
        Ok(())
    }
}

fn config(subnets: &[&str], members: &[(u8, &[&str])]) -> (NetworkConfig, HubConfig) {
    let member = |(byte, addresses): &(u8, &[&str])| Member {
        name: format!("member-{byte}"),
        public_key: key(*byte),
        addresses: addresses.iter().map(|addr| addr.parse().unwrap()).collect(),
        subnets: Vec::new(),
        carrier: Default::default(),
        tcp: None,
        line: usize::from(*byte) * 10,
    };
    let hub = HubConfig {
        endpoint: None,
        subnets: subnets.iter().map(|subnet| subnet.parse().unwrap()).collect(),
        members: members.iter().map(member).collect(),
        timeout: Duration::from_secs(15),
    };
    let network = NetworkConfig {
        name: "home".parse().unwrap(),
        file: "/etc/fastvpn/home.toml".into(),
        autoconnect: true,
        private_key: PrivateKey::from_bytes([1; 32]),
        network_key: NetworkKey::default(),
        listen: "[::]:8796".parse().unwrap(),
        interface: "fvpn-home".to_owned(),
        mtu: 1400,
        threads: None,
        addresses: vec!["10.0.0.1/24".parse().unwrap()],
        cipher: crate::config::Preference::Auto,
        carrier: Choice::Auto,
        dns: None,
        engine: EngineConfig::default(),
        role: RoleConfig::Hub(hub.clone()),
    };
    (network, hub)
}

fn plain(name: &str) -> Invitation {
    Invitation {
        name: name.to_owned(),
        expires: NOW + 3600,
        approval: false,
        addresses: Vec::new(),
        subnets: Vec::new(),
        used: Use::Open,
    }
}

fn hidden(byte: u8) -> InvitationSecret {
    InvitationSecret::from_bytes([byte; 16])
}

fn wide(number: u16) -> InvitationSecret {
    let mut bytes = [9; 16];
    bytes[..2].copy_from_slice(&number.to_be_bytes());
    InvitationSecret::from_bytes(bytes)
}

fn key(byte: u8) -> PublicKey {
    PublicKey::from_bytes([byte; 32])
}

const NOW: u64 = 1_700_000_000;
