//! Invitations survive the way from one screen to another, and say so where they did not.

use proptest::prelude::*;

use super::*;

#[test]
fn text_is_short_enough_for_a_terminal() {
    let text = invitation().to_string();

    // version 6 of a QR code, 41 modules wide, holds 195 such characters
    assert!(text.len() <= 195, "{}", text.len());
    assert!(text.starts_with("FASTVPN:AE"), "{text}");
}

#[test]
fn text_of_an_invitation_never_changes() {
    let text = "FASTVPN:AEAGKBDIN5WWKBTMMFYHI33QAIBAEAQCAIBAEAQCAIBAEAQCAIBAEAQCAIBAEAQCAIBAEAQC\
                AIBACAYDAMBQGAYDAMBQGAYDAMBQGAYDAMBQGAYDAMBQGAYDAMBQGAYDAQCAIBAEAQCAIBAEAQCAIBAE\
                AQAQJQAAAIASEXGIJYTRA";

    assert_eq!(invitation().to_string(), text);
    assert_eq!(text.parse(), Ok(invitation()));
}

#[test]
fn small_letters_and_broken_lines_are_read() {
    let text = invitation().to_string().to_lowercase();
    let (one, other) = text.split_at(50);

    assert_eq!(format!("  {one}\r\n\t{other}\n").parse(), Ok(invitation()));
}

#[test]
fn cut_off_is_told_from_damaged() {
    let text = invitation().to_string();

    for there in 1..text.len() {
        let error = text[..there].parse::<Invitation>().unwrap_err();
        assert_eq!(error, InvitationError::CutOff(there));
    }
    let error = format!("{text}.").parse::<Invitation>().unwrap_err();
    assert_eq!(error, InvitationError::BeyondEnd(1));
}

#[test]
fn each_changed_character_is_found() {
    let text = invitation().to_string();
    for at in PREFIX.len()..text.len() {
        for digit in ALPHABET.iter().filter(|digit| text.as_bytes()[at] != **digit) {
            let mut changed = text.clone().into_bytes();
            changed[at] = *digit;
            let changed = String::from_utf8(changed).unwrap();
            assert!(changed.parse::<Invitation>().is_err(), "{changed}");
        }
    }
}

#[test]
fn something_else_is_no_invitation() {
    for text in ["", "hello", "vpn://x", "yAnz5TF+lXXJte14tji3zlMNq+hd2rYUIgJBgB3fBmk="] {
        let error = text.parse::<Invitation>().unwrap_err();
        assert_eq!(error, InvitationError::NoInvitation, "{text}");
    }
}

#[test]
fn newer_version_is_told_from_damage() {
    let mut bytes = vec![VERSION + 1, 0, 3, 1, 2, 3];
    bytes.extend_from_slice(&crc32(&bytes).to_be_bytes());
    let newer = format!("{PREFIX}{}", *base32(&bytes));
    bytes[4] ^= 1;
    let damaged = format!("{PREFIX}{}", *base32(&bytes));

    assert_eq!(newer.parse::<Invitation>(), Err(InvitationError::NewerVersion(2)));
    assert_eq!(damaged.parse::<Invitation>(), Err(InvitationError::Damaged));
}

#[test]
fn body_that_keeps_no_rule_is_damaged() {
    let good = invitation();
    let bad = [
        Invitation { member: "a\"b".to_owned(), ..good.clone() },
        Invitation { member: String::new(), ..good.clone() },
        Invitation { member: "a".repeat(64), ..good.clone() },
        Invitation { hub_key: PublicKey::from_bytes([0; 32]), ..good.clone() },
        Invitation { endpoints: Vec::new(), ..good.clone() },
    ];
    for invitation in bad {
        let text = invitation.to_string();
        assert_eq!(text.parse::<Invitation>(), Err(InvitationError::Damaged), "{invitation:?}");
    }
}

#[test]
fn endpoints_that_are_none_are_left_out() {
    let good = ["hub.example.net:8796", "192.0.2.1:1", "[2001:db8::1]:65535"].map(str::to_owned);
    let mut all = good.to_vec();
    all.extend(["", "x", "x:0", "[::1]:0", "a b:1", "a\"b:1", ":1", "x:65536"].map(str::to_owned));
    let written = Invitation { endpoints: all, ..invitation() }.to_string();
    let many = vec!["hub:1".to_owned(); 20];
    let many = Invitation { endpoints: many, ..invitation() }.to_string();

    assert_eq!(written.parse::<Invitation>().unwrap().endpoints, good);
    assert_eq!(many.parse::<Invitation>().unwrap().endpoints.len(), ENDPOINTS_MAX);
}

#[test]
fn nothing_secret_is_printed_for_developers() {
    assert_eq!(format!("{:?}", invitation()), "Invitation(laptop to home)");
    assert_eq!(format!("{:?}", invitation().secret), "InvitationSecret(..)");
}

#[test]
fn checksum_is_that_of_everybody() {
    assert_eq!(crc32(b"123456789"), 0xcbf4_3926);
}

proptest! {
    #[test]
    fn what_is_written_is_read(invitation in any_invitation()) {
        prop_assert_eq!(invitation.to_string().parse::<Invitation>(), Ok(invitation));
    }

    #[test]
    fn any_text_is_read_or_refused(text in any::<String>()) {
        let _ = text.parse::<Invitation>();
        let _ = format!("{PREFIX}{text}").parse::<Invitation>();
    }

    #[test]
    fn any_body_is_read_or_refused_and_then_kept(body in prop::collection::vec(any::<u8>(), 0..300)) {
        if let Some(read) = Invitation::read(&body) {
            prop_assert_eq!(read.to_string().parse::<Invitation>(), Ok(read));
        }
    }
}

impl PartialEq for Invitation {
    fn eq(&self, other: &Self) -> bool {
        self.endpoints == other.endpoints && self.body() == other.body()
    }
}

fn any_invitation() -> impl Strategy<Value = Invitation> {
    let endpoint = prop_oneof![
        any::<([u8; 4], u16)>().prop_map(|(ip, port)| format!(
            "{}:{}",
            Ipv4Addr::from(ip),
            port.max(1)
        )),
        any::<([u16; 8], u16)>().prop_map(|(ip, port)| format!(
            "[{}]:{}",
            Ipv6Addr::from(ip),
            port.max(1)
        )),
        ("[a-z][a-z0-9.-]{0,40}", 1_u16..).prop_map(|(name, port)| format!("{name}:{port}")),
    ];
    (
        "[a-z0-9-]{1,15}",
        "[a-z0-9-]{1,63}",
        any::<([u8; 32], [u8; 32], [u8; 16])>(),
        prop::collection::vec(endpoint, 1..=ENDPOINTS_MAX),
    )
        .prop_map(|(network, member, (mut hub, key, secret), endpoints)| {
            hub[0] |= 1;
            Invitation {
                network: network.parse().unwrap(),
                member,
                hub_key: PublicKey::from_bytes(hub),
                endpoints,
                network_key: NetworkKey::from_bytes(key),
                secret: InvitationSecret::from_bytes(secret),
            }
        })
}

fn invitation() -> Invitation {
    Invitation {
        network: "home".parse().unwrap(),
        member: "laptop".to_owned(),
        hub_key: PublicKey::from_bytes([2; 32]),
        endpoints: vec!["192.0.2.1:8796".to_owned()],
        network_key: NetworkKey::from_bytes([3; 32]),
        secret: InvitationSecret::from_bytes([4; 16]),
    }
}
