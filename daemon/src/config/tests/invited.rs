//! What only a peer that was invited has: a ticket, and a hub in several places.

use super::*;

const TICKET: &str = "BAQEBAQEBAQEBAQEBAQEBA==\n";

#[test]
fn ticket_is_read_while_it_is_there() {
    let place = Place::new();
    place.write("etc/home.toml", &peer("ticket_file = \"keys/ticket\""));
    let ticket = |place: &Place| {
        let RoleConfig::Peer(peer) = place.network().role else { panic!("a hub") };
        peer.ticket
    };

    assert_eq!(ticket(&place), None);
    place.key("etc/keys/ticket", TICKET, 0o600);
    let found = ticket(&place).unwrap();

    assert_eq!(found.secret.as_bytes(), &[4; 16]);
    assert_eq!(found.file, place.dir.path().join("etc/keys/ticket"));
}

#[test]
fn ticket_that_is_none_or_open_to_others_is_told() {
    let place = Place::new();
    place.write("etc/home.toml", &peer("ticket_file = \"keys/ticket\""));
    for (text, mode, wanted) in [
        (TICKET, 0o644, "etc/home.toml:3: ticket_file: etc/keys/ticket is open to others"),
        (PRIVATE, 0o600, "etc/home.toml:3: ticket_file: etc/keys/ticket does not hold an invit"),
        ("", 0o600, "etc/home.toml:3: ticket_file: etc/keys/ticket does not hold an invitation's"),
    ] {
        place.key("etc/keys/ticket", text, mode);

        let problems = place.problems();

        assert!(problems.starts_with(wanted), "{problems}");
        assert!(!problems.contains("BAQE"), "{problems}");
    }
}

#[test]
fn ticket_of_a_hub_makes_no_sense() {
    let problems = problems_of(&format!("ticket_file = \"x\"\n{HUB}"));

    assert!(problems.starts_with("etc/home.toml:1: ticket_file: belongs to a peer"), "{problems}");
}

#[test]
fn hub_may_be_in_several_places() {
    let place = Place::new();
    let several = PEER.replace("\"hub.example.net:8796\"", "[\"192.0.2.1\", \"[2001:db8::1]:9\"]");
    place.write("etc/home.toml", &several);

    let RoleConfig::Peer(peer) = place.network().role else { panic!("a hub") };

    assert_eq!(peer.hubs[0].to_string(), "192.0.2.1:8796, [2001:db8::1]:9");
}

#[test]
fn places_of_a_hub_that_are_none_are_told() {
    for (list, wanted) in [
        ("[]", "hub.endpoint: is empty"),
        ("[1]", "hub.endpoint: has a number in its list of texts"),
        ("7", "hub.endpoint: is a number, not a text or a list of texts"),
        ("[\"a\", \"a:0\"]", "hub.endpoint: port \"0\" is no number"),
        (
            "[\"a\", \"a:8796\"]",
            "hub.endpoint: a:8796 is the endpoint of another hub as well, or given twice",
        ),
    ] {
        let problems = problems_of(&PEER.replace("\"hub.example.net:8796\"", list));

        assert!(problems.contains(&format!("etc/home.toml:6: {wanted}")), "{problems}");
    }
}

fn peer(line: &str) -> String {
    PEER.replace("address = [\"172.16.97.101/24\"]", line)
}
