use proptest::prelude::*;

use super::*;
use crate::limits::CONTROL_MAX;
use crate::node::HELLO_MAX;

#[test]
fn welcome_takes_the_entries_that_fit_into_a_response() {
    let entries: Vec<_> = (0..40).map(entry).collect();

    let (reply, count) = Reply::welcome_that_fits(prefixes(), hub(), 7, 9, &entries);

    let bytes = reply.encode();
    assert!(count > 3 && bytes.len() <= REPLY_MAX, "{count} in {}", bytes.len());
    let Reply::Welcome { list, .. } = Reply::decode(&bytes).unwrap() else { panic!() };
    assert_eq!((list.base, list.upserts), (Base::Nothing, entries[..count].to_vec()));
    let more = entry(count as u8).encoded();
    assert!(bytes.len() + more.len() > REPLY_MAX, "one more would not have fitted");
}

#[test]
fn register_looks_as_the_protocol_says() {
    let register = Register {
        name: "a".into(),
        addresses: vec![[10, 0, 0, 1].into()],
        endpoints: vec![SocketAddr::from(([192, 0, 2, 1], 8796))],
        secret: None,
    };
    let bytes = [0x11, 1, b'a', 1, 4, 10, 0, 0, 1, 1, 4, 192, 0, 2, 1, 0x22, 0x5c];

    assert_eq!(register.encode(), bytes);
    let secret = Some(InvitationSecret::from_bytes([9; 16]));
    let with_secret = [&bytes[..], &[1], &[9; 16]].concat();
    assert_eq!(Register { secret, ..register }.encode(), with_secret);
}

#[test]
fn list_looks_as_the_protocol_says() {
    let entry = Entry { subnets: vec!["10.9.0.0/16".parse().unwrap()], ..entry(2) };
    let list = List {
        id: 1,
        revision: 2,
        base: Base::Revision(1),
        upserts: vec![entry],
        removed: vec![key(3)],
    };

    let bytes = Message::List(list).encode();

    let head =
        [0x15, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 2, 4, 0, 0, 0, 0, 0, 0, 0, 1, 0, 1];
    let name = [6, b'n', b'o', b'd', b'e', b'-', b'2'];
    let rest = [1, 4, 172, 16, 97, 2, 1, 4, 10, 9, 0, 0, 16, 1, 4, 192, 0, 2, 2, 0x22, 0x5c, 0, 1];
    assert_eq!(bytes, [&head[..], &[2; 32], &name, &[2; 8], &rest, &[3; 32]].concat());
}

#[test]
fn welcome_with_all_entries_is_whole() {
    let entries = [entry(1), entry(2)];

    let (reply, count) = Reply::welcome_that_fits(prefixes(), hub(), 7, 9, &entries);

    let Reply::Welcome { list, .. } = reply else { panic!() };
    assert_eq!((count, list.base, list.upserts.len()), (2, Base::Whole, 2));
}

#[test]
fn snapshot_is_cut_into_parts_that_the_lane_carries() {
    let entries: Vec<_> = (0..=255).cycle().take(1000).map(entry).collect();

    let parts = snapshot_parts(1, 2, &entries);

    let bases: Vec<_> = parts.iter().map(|part| part.base).collect();
    assert!(bases.len() > 2);
    assert_eq!(bases.first(), Some(&Base::Nothing));
    assert_eq!(bases.last(), Some(&Base::Last));
    assert!(bases[1..bases.len() - 1].iter().all(|base| *base == Base::Continued));
    let joined: Vec<_> = parts.iter().flat_map(|part| part.upserts.clone()).collect();
    assert_eq!(joined, entries);
    for part in parts {
        assert!(Message::List(part).encode().len() <= PART_MAX);
    }
}

#[test]
fn snapshot_of_nothing_is_one_whole_part() {
    let parts = snapshot_parts(1, 2, &[]);

    assert_eq!(parts, [List { id: 1, revision: 2, base: Base::Whole, ..List::default() }]);
}

#[test]
fn what_exceeds_the_limits_is_left_out() {
    let register = Register {
        name: format!("a\n{}é", "x".repeat(61)),
        addresses: vec!["fd00::1".parse().unwrap(); 20],
        endpoints: vec!["[fd00::1]:1".parse().unwrap(); 20],
        secret: Some(InvitationSecret::from_bytes([9; 16])),
    };

    let bytes = register.encode();

    let read = Register::decode(&bytes).unwrap();
    assert_eq!(read.name, format!("a{}", "x".repeat(61)), "no control characters, no half ones");
    assert_eq!((read.addresses.len(), read.endpoints.len()), (ADDRESSES_MAX, ADDRESSES_MAX));
    assert!(bytes.len() <= HELLO_MAX, "{}", bytes.len());
}

#[test]
fn each_kind_of_bad_bytes_has_its_error() {
    let who = Message::WhoIs(key(1)).encode();

    assert_eq!(Message::decode(&[]), Err(DecodeError::Truncated));
    assert_eq!(Message::decode(&[0x77]), Err(DecodeError::UnknownKind));
    assert_eq!(Register::decode(&who), Err(DecodeError::UnknownKind));
    assert_eq!(Message::decode(&who[..20]), Err(DecodeError::Truncated));
    assert_eq!(Message::decode(&[who.as_slice(), &[0]].concat()), Err(DecodeError::TooLong));
    assert_eq!(Message::decode(&[ENDPOINTS, 17]), Err(DecodeError::TooLong));
    assert_eq!(Message::decode(&[ENDPOINTS, 1, 5]), Err(DecodeError::Value));
    assert_eq!(Register::decode(&[REGISTER, 2, b'a', 7, 0, 0]), Err(DecodeError::Value));
    assert_eq!(Register::decode(&[REGISTER, 1, 0xff, 0, 0]), Err(DecodeError::Value));
    assert_eq!(Register::decode(&[REGISTER, 64]), Err(DecodeError::TooLong));
    assert_eq!(Register::decode(&[REGISTER, 0, 0, 0, 2]), Err(DecodeError::Value));
    assert_eq!(Register::decode(&[REGISTER, 0, 0, 0, SECRET, 9]), Err(DecodeError::Truncated));
    let many = [[LIST].as_slice(), &[0; 17], &[0xff, 0xff]].concat();
    assert_eq!(Message::decode(&many), Err(DecodeError::Truncated), "before it allocates");
}

#[test]
fn prefix_longer_than_its_address_is_refused() {
    let bytes = [WELCOME, 1, 4, 10, 0, 0, 1, 33, 0];

    assert_eq!(Reply::decode(&bytes), Err(DecodeError::Value));
}

#[test]
fn largest_entry_fits_into_a_part() {
    let long: IpAddr = "fd00::1".parse().unwrap();
    let entry = Entry {
        name: "x".repeat(NAME_MAX),
        addresses: vec![long; ADDRESSES_MAX],
        subnets: vec![Prefix::host(long); SUBNETS_MAX],
        endpoints: vec![SocketAddr::new(long, 1); ADDRESSES_MAX],
        ..entry(1)
    };

    assert!(entry.encoded().len() < PART_MAX - LIST_OVERHEAD);
    const { assert!(PART_MAX < CONTROL_MAX) };
}

proptest! {
    #[test]
    fn registers_round_trip(
        name in name(),
        addresses in addresses(),
        endpoints in endpoints(),
        secret in prop::option::of(any::<[u8; 16]>()),
    ) {
        let secret = secret.map(InvitationSecret::from_bytes);
        let register = Register { name, addresses, endpoints, secret };
        prop_assert_eq!(Register::decode(&register.encode()), Ok(register));
    }

    #[test]
    fn replies_round_trip(
        addresses in prop::collection::vec(prefix(), 0..=ADDRESSES_MAX),
        hub in addresses(),
        list in list(),
        reason in name(),
    ) {
        let welcome = Reply::Welcome { addresses, hub, list };
        for reply in [welcome, Reply::Refused { reason }, Reply::Pending] {
            prop_assert_eq!(Reply::decode(&reply.encode()), Ok(reply));
        }
    }

    #[test]
    fn messages_round_trip(endpoints in endpoints(), list in list(), entry in any_entry()) {
        let messages = [
            Message::Endpoints(endpoints),
            Message::List(list),
            Message::SnapshotRequest,
            Message::WhoIs(entry.key),
            Message::Answer { key: entry.key, standing: Standing::Away },
            Message::Answer { key: entry.key, standing: Standing::Stranger },
            Message::Answer { key: entry.key, standing: Standing::Live(entry) },
        ];
        for message in messages {
            prop_assert_eq!(Message::decode(&message.encode()), Ok(message));
        }
    }

    #[test]
    fn random_bytes_are_refused_or_mean_exactly_themselves(
        kind in 0x10..0x1a_u8,
        tail in prop::collection::vec(prop_oneof![0..8_u8, any::<u8>()], 0..300),
    ) {
        let bytes = [[kind].as_slice(), &tail].concat();
        if let Ok(register) = Register::decode(&bytes) {
            prop_assert_eq!(register.encode(), bytes.clone());
        }
        if let Ok(reply) = Reply::decode(&bytes) {
            prop_assert_eq!(reply.encode(), bytes.clone());
        }
        if let Ok(message) = Message::decode(&bytes) {
            prop_assert_eq!(message.encode(), bytes);
        }
    }

    #[test]
    fn no_message_cut_short_decodes(list in list(), cut in any::<prop::sample::Index>()) {
        let bytes = Message::List(list).encode();
        let cut = cut.index(bytes.len());
        prop_assert!(Message::decode(&bytes[..cut]).is_err());
    }
}

impl Entry {
    fn encoded(&self) -> Vec<u8> {
        let mut out = Vec::new();
        self.write(&mut out);
        out
    }
}

fn entry(number: u8) -> Entry {
    Entry {
        key: key(number),
        name: format!("node-{number}"),
        boot: BootId([number; 8]),
        addresses: vec![[172, 16, 97, number].into()],
        subnets: Vec::new(),
        endpoints: vec![SocketAddr::from(([192, 0, 2, number], 8796))],
    }
}

fn key(number: u8) -> PublicKey {
    PublicKey::from_bytes([number; 32])
}

fn prefixes() -> Vec<Prefix> {
    vec!["172.16.97.101/24".parse().unwrap()]
}

fn hub() -> Vec<IpAddr> {
    vec!["172.16.97.1".parse().unwrap()]
}

fn name() -> impl Strategy<Value = String> {
    "[ -~é]{0,30}"
}

fn address() -> impl Strategy<Value = IpAddr> {
    prop_oneof![any::<[u8; 4]>().prop_map(IpAddr::from), any::<[u8; 16]>().prop_map(IpAddr::from),]
}

fn addresses() -> impl Strategy<Value = Vec<IpAddr>> {
    prop::collection::vec(address(), 0..=ADDRESSES_MAX)
}

fn endpoints() -> impl Strategy<Value = Vec<SocketAddr>> {
    let endpoint = (address(), any::<u16>()).prop_map(|(ip, port)| SocketAddr::new(ip, port));
    prop::collection::vec(endpoint, 0..=ADDRESSES_MAX)
}

fn prefix() -> impl Strategy<Value = Prefix> {
    (address(), 0..=128_u8)
        .prop_map(|(ip, len)| Prefix::new(ip, len).unwrap_or_else(|_| Prefix::host(ip)))
}

fn any_entry() -> impl Strategy<Value = Entry> {
    let subnets = prop::collection::vec(prefix(), 0..=SUBNETS_MAX);
    (any::<u8>(), name(), any::<[u8; 8]>(), addresses(), subnets, endpoints()).prop_map(
        |(number, name, boot, addresses, subnets, endpoints)| Entry {
            key: key(number),
            name,
            boot: BootId(boot),
            addresses,
            subnets,
            endpoints,
        },
    )
}

fn list() -> impl Strategy<Value = List> {
    let base = prop_oneof![
        Just(Base::Nothing),
        Just(Base::Continued),
        Just(Base::Last),
        Just(Base::Whole),
        any::<u64>().prop_map(Base::Revision),
    ];
    let upserts = prop::collection::vec(any_entry(), 0..4);
    let removed = prop::collection::vec(any::<u8>().prop_map(key), 0..4);
    (any::<u64>(), any::<u64>(), base, upserts, removed).prop_map(
        |(id, revision, base, upserts, removed)| List { id, revision, base, upserts, removed },
    )
}
