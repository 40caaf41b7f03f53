//! Each mistake in one file, as a table: an edit of a good file, the line, how the words begin.

use super::*;

#[test]
fn each_mistake_of_a_peer_names_its_line_and_key() {
    for (from, to, line, want) in [
        ("role = \"peer\"", "", 1, "role: is missing; write role = \"hub\" or role = \"peer\""),
        ("\"peer\"", "\"server\"", 1, "role: \"server\" is no role; write"),
        ("\"peer\"", "7", 1, "role: is a number, not a text; write role = \"peer\""),
        ("keys/own", "keys/none", 2, "private_key_file: cannot read"),
        ("private_key_file = \"keys/own\"", "", 1, "private_key_file: is missing; make a key"),
        ("_file = \"keys/own\"", "_credential = \"x\"", 2, "private_key_credential: cannot read"),
        ("_file = \"keys/own\"", "_credential = \"../x\"", 2, "private_key_credential: is not the"),
        (
            "keys/own\"",
            "keys/own\"\nprivate_key_credential = \"x\"",
            3,
            "private_key_credential: is given",
        ),
        ("\n\n", "\nnetwork_key_file = \"x\"\n", 4, "network_key_file: cannot read"),
        ("\n\n", "\nnetwork_key_credential = \"x\"\n", 4, "network_key_credential: cannot read"),
        (
            "\n\n",
            "\nnetwork_key_file = \"keys/own\"\nnetwork_key_credential = \"x\"\n",
            5,
            "network_key_credential: is given beside network_key_file; remove one",
        ),
        ("address =", "adress =", 3, "adress: is no key of this file; did you mean address?"),
        ("address =", "colour =", 3, "colour: is no key of this file; remove it; known are role,"),
        ("address =", "rates =", 3, "rates: is no key of this file; did you mean rate?"),
        ("\n\n", "\ntcp = \"fast\"\n", 4, "tcp: \"fast\" is no way to carry TCP; write"),
        ("\n\n", "\nmemory = \"64\"\n", 4, "memory: \"64\" is no number of bytes; write"),
        ("\n\n", "\nmemory = 64\n", 4, "memory: is a number, not a text; write memory = \"64MiB\""),
        ("\n\n", "\nmemory = \"1KiB\"\n", 4, "memory: \"1KiB\" is not from 1MiB to 1TiB; leave"),
        ("\n\n", "\nrate = \"100Mbps\"\n", 4, "rate: \"100Mbps\" is no rate; write"),
        ("\n\n", "\nrate = \"1kbit\"\n", 4, "rate: \"1kbit\" is not from 64kbit to 1000gbit"),
        ("\n\n", "\npacket_rate = 99\n", 4, "packet_rate: 99 is not from 100 to 4294967295; write"),
        ("\n\n", "\npacket_rate = -1\n", 4, "packet_rate: -1 is not from 100"),
        ("\n\n", "\nquota = \"1TB\"\n", 4, "quota: \"1TB\" does not say in what time; write"),
        ("\n\n", "\nquota = \"1TB/year\"\n", 4, "quota: \"year\" is no day, week or month; write"),
        ("\n\n", "\nquota = \"1tb/day\"\n", 4, "quota: \"1tb\" is no number of bytes; write"),
        ("\n\n", "\nquota = \"1KB/day\"\n", 4, "quota: \"1KB/day\" is too little; write at least"),
        (
            "\n\n",
            "\nredundancy = \"90%\"\n",
            4,
            "redundancy: \"90%\" is no amount of copies; write",
        ),
        ("\n\n", "\ndns = \"off\"\n", 4, "dns: is a text, not true or false; write dns = false"),
        ("\n\n", "\ndns_suffix = \"a b\"\n", 4, "dns_suffix: \"a b\" is not made of parts of 1 to"),
        ("\n\n", "\ndns_suffix = \"x.local\"\n", 4, "dns_suffix: \"x.local\" is a domain that"),
        (
            "\n\n",
            "\ndns = false\ndns_suffix = \"a\"\n",
            5,
            "dns_suffix: is given beside dns = false; remove one of the two",
        ),
        ("\n\n", "\ncarrier = \"icmp\"\n", 4, "carrier: \"icmp\" is no carrier; write \"auto\""),
        (
            "[\"172.16.97.101/24\"]",
            "\"172.16.97.101/24\"",
            3,
            "address: is a text, not a list of texts",
        ),
        ("[\"172.16.97.101/24\"]", "[7]", 3, "address: has a number in its list of texts; write"),
        ("[\"172.16.97.101/24\"]", "[]", 3, "address: is empty; leave the key out"),
        ("97.101/24", "97.101", 3, "address: \"172.16.97.101\" has no prefix length; write"),
        ("97.101/24", "97.0/24", 3, "address: 172.16.97.0/24 is the network or broadcast"),
        ("97.101/24", "97.255/24", 3, "address: 172.16.97.255/24 is the network or broadcast"),
        ("97.101/24", "97.101/33", 3, "address: \"172.16.97.101/33\": prefix length is not a"),
        ("97.101/24", "97.x/24", 3, "address: \"172.16.97.x/24\" is no IP address with"),
        ("172.16.97.101/24", "127.0.0.1/8", 3, "address: 127.0.0.1 is a loopback address"),
        ("97.101/24", "97.x/24\",\n\"97.y/24", 4, "address: \"97.y/24\" is no IP address"),
        ("172.16.97.101/24", "ff02::1/64", 3, "address: ff02::1 is a multicast address"),
        ("172.16.97.101/24", "fe80::1/64", 3, "address: fe80::1 is link-local"),
        ("/24\"]", "/24\",\n\"172.16.97.101/24\"]", 4, "address: 172.16.97.101 is given twice"),
        ("\n\n", "\nlisten = \"8796\"\n", 4, "listen: \"8796\" is no address with a port; write"),
        ("\n\n", "\nlisten = \"[ff02::1]:8796\"\n", 4, "listen: ff02::1 is no address of this"),
        ("\n\n", "\ninterface = \"a/b\"\n", 4, "interface: \"a/b\" cannot be the name"),
        (
            "\n\n",
            "\ninterface = \"0123456789abcdef\"\n",
            4,
            "interface: \"0123456789abcdef\" cannot",
        ),
        ("\n\n", "\nmtu = 1279\n", 4, "mtu: 1279 is not from 1280 to 9000; leave it out"),
        ("\n\n", "\nmtu = 9001\n", 4, "mtu: 9001 is not from 1280 to 9000"),
        ("\n\n", "\nmtu = \"1400\"\n", 4, "mtu: is a text, not a number; write mtu = 1400"),
        ("\n\n", "\nmtu = 99999999999999999999\n", 4, "mtu: is too large a number"),
        ("\n\n", "\nthreads = 0\n", 4, "threads: 0 is not from 1 to 16; leave it out"),
        ("\n\n", "\nthreads = 17\n", 4, "threads: 17 is not from 1 to 16"),
        ("\n\n", "\nautoconnect = \"yes\"\n", 4, "autoconnect: is a text, not true or false"),
        ("\n\n", "\nhub_loss = \"wait\"\n", 4, "hub_loss: \"wait\" is no way to take the loss"),
        (
            "\n\n",
            "\ntimeout = \"15s\"\n",
            4,
            "timeout: belongs to a hub, and this file is of a peer",
        ),
        ("\n\n", "\nsubnet = [\"10.0.0.0/8\"]\n", 4, "subnet: belongs to a hub"),
        ("\n\n", "\nendpoint = \"a:1\"\n", 4, "endpoint: belongs to a hub"),
        ("[[hub]]", "[[member]]", 5, "member: belongs to a hub"),
        ("[[hub]]", "[hub]", 5, "hub: is a table, not a list of tables; write [[hub]]"),
        (":8796", ":0", 6, "hub.endpoint: port \"0\" is no number from 1 to 65535; write"),
        (":8796", ":http", 6, "hub.endpoint: port \"http\" is no number"),
        (
            "hub.example.net:8796",
            "2001:db8::1",
            6,
            "hub.endpoint: \"2001:db8::1\" is an IPv6 address without",
        ),
        ("hub.example.net", "a b", 6, "hub.endpoint: \"a b\" is neither a host name nor"),
        ("endpoint = \"hub.example.net:8796\"", "", 5, "hub.endpoint: is missing; add"),
        (
            "public_key",
            "key",
            7,
            "hub.key: is no key of [[hub]]; remove it; known are endpoint, public_key, carrier, \
             tcp",
        ),
        ("public_key", "carrier = \"x\"\npublic_key", 7, "hub.carrier: \"x\" is no carrier; write"),
        (
            "[[hub]]",
            "[[peer]]\nname = \"tokyo\"\n[[hub]]",
            5,
            "peer.carrier: is missing; add what is to be different",
        ),
        (
            "public_key",
            "tcp = \"x\"\npublic_key",
            7,
            "hub.tcp: \"x\" is no way to carry TCP; write",
        ),
        (
            "[[hub]]",
            "[[peer]]\nname = \"tokyo\"\ntcp = \"x\"\n[[hub]]",
            7,
            "peer.tcp: \"x\" is no way to carry TCP; write",
        ),
        ("[[hub]]", "[[peer]]\ncarrier = \"tcp\"\n[[hub]]", 5, "peer.name: is missing; add name ="),
        (
            "[[hub]]",
            "[[peer]]\nname = \"To Kyo\"\ncarrier = \"tcp\"\n[[hub]]",
            6,
            "peer.name: \"To Kyo\" is no name of a member",
        ),
        (
            "public_key",
            "mtu = 1400\npublic_key",
            7,
            "hub.mtu: is no key of [[hub]]; move it above the first",
        ),
        ("hSDw", "", 7, "hub.public_key: is no public key; write the 44 characters"),
        (KEY_A, "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=", 7, "hub.public_key: is all zero"),
    ] {
        let text = PEER.replacen(from, to, 1);
        assert_ne!(text, PEER, "{from:?} is nowhere");

        let problems = problems_of(&text);

        let want = format!("etc/home.toml:{line}: {want}");
        assert!(problems.lines().any(|line| line.starts_with(&want)), "{want}\nin\n{problems}");
    }
}

#[test]
fn each_mistake_of_a_hub_names_its_line_and_key() {
    let second = |name: &str, key: &str, rest: &str| {
        format!("{HUB}[[member]]\nname = \"{name}\"\npublic_key = \"{key}\"\n{rest}\n")
    };
    let own = PrivateKey::from_bytes([1; 32]).public_key().to_string();
    let edit = |from: &str, to: &str| {
        assert!(HUB.contains(from), "{from:?} is nowhere");
        HUB.replacen(from, to, 1)
    };
    for (text, line, want) in [
        (edit("subnet = [\"172.16.97.0/24\"]", ""), 1, "subnet: is missing; write the addresses"),
        (edit("[\"172.16.97.0/24\"]", "[]"), 3, "subnet: is empty"),
        (
            edit("97.0/24", "97.1/24"),
            3,
            "subnet: 172.16.97.1/24 is an address in a subnet, not a subnet; write \"172.16.97.0/24\"",
        ),
        (edit("97.0/24", "97.0/31"), 3, "subnet: 172.16.97.0/31 has no room"),
        (edit("172.16.97.0/24", "0.0.0.0/0"), 3, "subnet: 0.0.0.0/0 is the whole internet"),
        (
            edit("97.0/24\"", "97.0/24\", \"172.16.0.0/16\""),
            3,
            "subnet: 172.16.0.0/16 overlaps 172.16.97.0/24",
        ),
        (
            edit("97.1/24", "98.1/24"),
            4,
            "address: 172.16.98.1/24 is in no subnet of the network; choose one in 172.16.97.0/24",
        ),
        (
            edit("97.1/24", "97.1/25"),
            4,
            "address: 172.16.97.1/25 has another length than the subnet",
        ),
        (edit("\n\n", "\ntimeout = \"11s\"\n"), 5, "timeout: \"11s\" is not from 12s to 15m"),
        (edit("\n\n", "\ntimeout = \"16m\"\n"), 5, "timeout: \"16m\" is not from 12s to 15m"),
        (edit("\n\n", "\ntimeout = \"15\"\n"), 5, "timeout: \"15\" is no duration; write"),
        (
            edit("\n\n", "\ntimeout = 15\n"),
            5,
            "timeout: is a number, not a text; write timeout = \"15s\"",
        ),
        (edit("\n\n", "\nlisten = \"[::]:0\"\n"), 5, "listen: a hub on port 0 would have another"),
        (edit("\n\n", "\nendpoint = \"a b\"\n"), 5, "endpoint: \"a b\" is neither"),
        (edit("\n\n", "\nhub_loss = \"stop\"\n"), 5, "hub_loss: belongs to a peer"),
        (edit("[[member]]", "[[hub]]"), 6, "hub: belongs to a peer"),
        (edit("name = \"tokyo\"", ""), 6, "member.name: is missing"),
        (edit("tokyo", "Tokyo"), 7, "member.name: \"Tokyo\" is no name of a member"),
        (edit("tokyo", "-tokyo"), 7, "member.name: \"-tokyo\" is no name of a member"),
        (edit("tokyo", &"t".repeat(64)), 7, "member.name: \"ttt"),
        (edit("public_key =", "# "), 6, "member.public_key: is missing"),
        (edit(KEY_A, "x"), 8, "member.public_key: is no public key"),
        (edit(KEY_A, &own), 8, "member.public_key: is the hub's own key"),
        (
            edit("97.101", "97.101/24"),
            9,
            "member.address: \"172.16.97.101/24\" has a prefix length; write \"172.16.97.101\"",
        ),
        (edit("97.101", "97.x"), 9, "member.address: \"172.16.97.x\" is no IP address"),
        (edit("97.101", "98.1"), 9, "member.address: 172.16.98.1 is in no subnet of the network"),
        (edit("97.101", "97.0"), 9, "member.address: 172.16.97.0 is the network or broadcast"),
        (edit("97.101", "97.255"), 9, "member.address: 172.16.97.255 is the network or broadcast"),
        (edit("97.101", "97.1"), 9, "member.address: 172.16.97.1 is the address of the hub itself"),
        (second("tokyo", KEY_B, ""), 11, "member.name: tokyo is the name of the member in line 7"),
        (second("osaka", KEY_A, ""), 12, "member.public_key: is the key of the member in line 8"),
        (
            second("osaka", KEY_B, "address = [\"172.16.97.101\"]"),
            13,
            "member.address: 172.16.97.101 is the address of the member in line 9",
        ),
        (
            second("osaka", KEY_B, "subnet = [\"172.16.0.0/16\"]"),
            13,
            "member.subnet: 172.16.0.0/16 overlaps 172.16.97.0/24, the network's own",
        ),
        (
            second("osaka", KEY_B, "subnet = [\"10.0.0.0/8\",\n\"10.1.0.0/16\"]"),
            14,
            "member.subnet: 10.1.0.0/16 overlaps 10.0.0.0/8 in line 13",
        ),
    ] {
        let problems = problems_of(&text);

        let want = format!("etc/home.toml:{line}: {want}");
        assert!(problems.lines().any(|line| line.starts_with(&want)), "{want}\nin\n{problems}");
    }
}
