//! What to answer to a message of a stub resolver, by RFC 1035, 2308, 6891 and 8482.
//!
//! [`answer`] is a pure function of a zone and a message. It answers for the zone and nothing else:
//! a name outside is refused, and nothing is ever asked of another server.
//!
//! # Contract
//!
//! - Whatever the message is, an answer is at most as long as the transport and the asker take, and
//!   what is no query has none.
//! - A name is compared without regard to case, and given back as it was asked.

use domain::base::iana::{Class, Opcode, OptRcode, Rcode};
use domain::base::message_builder::{AdditionalBuilder, AnswerBuilder, PushError};
use domain::base::name::ToName;
use domain::base::{Message, MessageBuilder, Question, Record, Rtype, StaticCompressor, Ttl};
use domain::rdata::{A, Aaaa, Ns, Ptr, Soa};

use super::zone::{Apex, Found, Node, WireName, Zone};

/// How a message came
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Transport {
    /// Over a connection, where answers may have any length
    Tcp,
    /// In a datagram, where long answers are cut
    Udp,
}

/// Returns the answer to a message; nothing to what is no query
pub fn answer(zone: &Zone, message: &[u8], transport: Transport) -> Option<Vec<u8>> {
    let message = Message::from_octets(message).ok()?;
    if message.header().qr() {
        return None;
    }
    let edns = Edns::of(&message);
    let limit = match (transport, &edns) {
        (Transport::Tcp, _) => usize::from(u16::MAX),
        (Transport::Udp, Edns::Version0 { size }) => usize::from(*size).clamp(UDP_MIN, UDP_MAX),
        (Transport::Udp, Edns::Absent | Edns::Later | Edns::Wrong) => UDP_MIN,
    };
    let reply = Reply { zone, message: &message, edns: &edns };
    let whole = reply.build(Extent::Whole).ok()?;
    if whole.len() <= limit {
        return Some(whole);
    }
    // The question alone always fits: a name has at most 255 bytes.
    reply.build(Extent::Cut).ok().filter(|cut| cut.len() <= limit)
}

/// What the asker says of extensions
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Edns {
    Absent,
    /// Of a version that does not exist yet
    Later,
    Version0 {
        /// The longest datagram it takes
        size: u16,
    },
    /// The additional section cannot be read, or there are several
    Wrong,
}

impl Edns {
    fn of(message: &Message<&[u8]>) -> Self {
        let Ok(additional) = message.additional() else { return Self::Wrong };
        let mut found = Self::Absent;
        for record in additional {
            let Ok(record) = record else { return Self::Wrong };
            if record.rtype() != Rtype::OPT {
                continue;
            }
            if found != Self::Absent {
                return Self::Wrong;
            }
            let version = record.ttl().as_secs().to_be_bytes()[1];
            let size = record.class().to_int();
            found = if version == 0 { Self::Version0 { size } } else { Self::Later };
        }
        found
    }
}

/// How much of an answer to give
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Extent {
    /// Only that there is more, over TCP
    Cut,
    Whole,
}

type Target = StaticCompressor<Vec<u8>>;

struct Reply<'a> {
    zone: &'a Zone,
    message: &'a Message<&'a [u8]>,
    edns: &'a Edns,
}

impl Reply<'_> {
    fn build(&self, extent: Extent) -> Result<Vec<u8>, PushError> {
        let opcode = self.message.header().opcode();
        let question = self.message.sole_question();
        let (rcode, question) = match (opcode, self.edns, question) {
            (opcode, _, _) if opcode != Opcode::QUERY => (Rcode::NOTIMP, None),
            (_, Edns::Wrong, _) | (_, _, Err(_)) => (Rcode::FORMERR, None),
            // The rest of its code is in the record of the extensions.
            (_, Edns::Later, Ok(_)) => (Rcode::NOERROR, None),
            (_, Edns::Absent | Edns::Version0 { .. }, Ok(question)) => {
                (Rcode::NOERROR, Some(question))
            }
        };
        let mut answer = self.head(rcode)?;
        let additional = match question {
            Some(question) if extent == Extent::Whole => self.records(&question, answer)?,
            Some(_) | None => {
                answer.header_mut().set_tc(extent == Extent::Cut);
                answer.additional()
            }
        };
        self.with_edns(additional)
    }

    /// Begins the answer, and repeats the question if there is one and no other
    fn head(&self, rcode: Rcode) -> Result<AnswerBuilder<Target>, PushError> {
        let target = StaticCompressor::new(Vec::with_capacity(UDP_MIN));
        let mut builder = MessageBuilder::from_target(target).map_err(|_| PushError::ShortBuf)?;
        let asked = self.message.header();
        let header = builder.header_mut();
        header.set_id(asked.id());
        header.set_qr(true);
        header.set_opcode(asked.opcode());
        header.set_rd(asked.rd());
        header.set_rcode(rcode);
        let mut builder = builder.question();
        if let Ok(question) = self.message.sole_question() {
            builder.push(question)?;
        }
        Ok(builder.answer())
    }

    /// Adds what is known of the name that was asked for
    fn records<N: ToName>(
        &self,
        question: &Question<N>,
        mut answer: AnswerBuilder<Target>,
    ) -> Result<AdditionalBuilder<Target>, PushError> {
        let in_internet = matches!(question.qclass(), Class::IN | Class::ANY);
        let is_transfer = matches!(question.qtype(), Rtype::AXFR | Rtype::IXFR);
        let found = self.zone.find(question.qname());
        let (apex, missing) = match found {
            _ if !in_internet || is_transfer => (None, Rcode::REFUSED),
            Found::Foreign => (None, Rcode::REFUSED),
            Found::Nothing(apex) => (Some(apex), Rcode::NXDOMAIN),
            Found::Name { apex, node, is_apex } => {
                let asked = Asked { question, zone: self.zone, apex };
                let mut any = asked.push_node(node, &mut answer)?;
                if is_apex {
                    any |= asked.push_apex(&mut answer)?;
                }
                (if any { None } else { Some(apex) }, Rcode::NOERROR)
            }
        };
        let header = answer.header_mut();
        header.set_rcode(missing);
        header.set_aa(missing != Rcode::REFUSED);
        let mut authority = answer.authority();
        if let Some(apex) = apex {
            // With it the asker may remember that there is nothing.
            authority.push(Record::new(&apex.name, Class::IN, TTL, soa(self.zone, apex)))?;
        }
        Ok(authority.additional())
    }

    fn with_edns(&self, mut additional: AdditionalBuilder<Target>) -> Result<Vec<u8>, PushError> {
        if *self.edns != Edns::Absent && *self.edns != Edns::Wrong {
            let later = *self.edns == Edns::Later;
            additional.opt(|opt| {
                opt.set_udp_payload_size(UDP_MAX as u16);
                if later {
                    opt.set_rcode(OptRcode::BADVERS);
                }
                Ok(())
            })?;
        }
        Ok(additional.finish().into_target())
    }
}

/// A question about a name that is in the zone
struct Asked<'a, N> {
    question: &'a Question<N>,
    zone: &'a Zone,
    apex: &'a Apex,
}

impl<N: ToName> Asked<'_, N> {
    /// Adds what a host, or an address, has; returns whether there was anything
    fn push_node(
        &self,
        node: Option<&Node>,
        answer: &mut AnswerBuilder<Target>,
    ) -> Result<bool, PushError> {
        let Some(node) = node else { return Ok(false) };
        let owner = self.question.qname();
        let before = answer.counts().ancount();
        if self.wants(Rtype::A) {
            for addr in &node.ipv4 {
                answer.push(Record::new(owner, Class::IN, TTL, A::new(*addr)))?;
            }
        }
        if self.wants(Rtype::AAAA) {
            for addr in &node.ipv6 {
                answer.push(Record::new(owner, Class::IN, TTL, Aaaa::new(*addr)))?;
            }
        }
        if let Some(host) = node.host.as_ref().filter(|_| self.wants(Rtype::PTR)) {
            answer.push(Record::new(owner, Class::IN, TTL, Ptr::new(host)))?;
        }
        Ok(answer.counts().ancount() > before)
    }

    /// Adds what the beginning of a zone has; returns whether there was anything
    fn push_apex(&self, answer: &mut AnswerBuilder<Target>) -> Result<bool, PushError> {
        let owner = self.question.qname();
        if self.wants(Rtype::SOA) {
            answer.push(Record::new(owner, Class::IN, TTL, soa(self.zone, self.apex)))?;
        }
        if self.wants(Rtype::NS) {
            answer.push(Record::new(owner, Class::IN, TTL, Ns::new(&self.apex.name)))?;
        }
        Ok(self.wants(Rtype::SOA) || self.wants(Rtype::NS))
    }

    fn wants(&self, rtype: Rtype) -> bool {
        self.question.qtype() == rtype || self.question.qtype() == Rtype::ANY
    }
}

/// The head of a zone, as RFC 6303 has it for zones that each machine serves for itself
fn soa(zone: &Zone, apex: &Apex) -> Soa<WireName> {
    let hour = Ttl::from_hours(1);
    let nobody = "nobody.invalid".parse().unwrap_or_else(|_| WireName::root_vec());
    Soa::new(apex.name.clone(), nobody, zone.serial(), hour, hour, Ttl::from_days(7), TTL)
}

/// How long an answer may be remembered: addresses come and go with the nodes
const TTL: Ttl = Ttl::from_secs(5);
/// A datagram that everybody takes, in bytes
const UDP_MIN: usize = 512;
/// The longest datagram that passes every path whole, in bytes
const UDP_MAX: usize = 1232;

#[cfg(test)]
mod tests {
    use std::net::IpAddr;

    use domain::base::Name;
    use domain::base::iana::Rcode;
    use fastvpn_proto::crypto::PublicKey;
    use proptest::prelude::*;

    use super::*;
    use crate::dns::{Host, HostKind};

    #[test]
    fn host_has_its_addresses_of_either_family() {
        assert_eq!(
            records(&ask("tokyo.home.fastvpn", Rtype::A)),
            ["tokyo.home.fastvpn. 5 IN A 10.9.0.2"]
        );
        assert_eq!(
            records(&ask("tokyo.home.fastvpn", Rtype::AAAA)),
            ["tokyo.home.fastvpn. 5 IN AAAA fd09::2"]
        );
        assert_eq!(records(&ask("tokyo.home.fastvpn", Rtype::ANY)).len(), 2);
        assert_eq!(
            records(&ask("2.0.9.10.in-addr.arpa", Rtype::PTR)),
            ["2.0.9.10.in-addr.arpa. 5 IN PTR tokyo.home.fastvpn."]
        );
    }

    #[test]
    fn name_is_found_in_any_case_and_given_back_as_it_was_asked() {
        assert_eq!(
            records(&ask("ToKyO.Home.FASTVPN", Rtype::A)),
            ["ToKyO.Home.FASTVPN. 5 IN A 10.9.0.2"]
        );
    }

    #[test]
    fn what_is_missing_is_told_with_the_head_of_the_zone() {
        for (name, rtype, rcode) in [
            ("oslo.home.fastvpn", Rtype::A, Rcode::NXDOMAIN),
            ("a.tokyo.home.fastvpn", Rtype::A, Rcode::NXDOMAIN),
            ("tokyo.home.fastvpn", Rtype::MX, Rcode::NOERROR),
            ("paris.home.fastvpn", Rtype::AAAA, Rcode::NOERROR),
            ("home.fastvpn", Rtype::AAAA, Rcode::NOERROR),
            ("9.0.9.10.in-addr.arpa", Rtype::PTR, Rcode::NXDOMAIN),
            ("2.0.9.10.in-addr.arpa", Rtype::A, Rcode::NOERROR),
        ] {
            let answer = ask(name, rtype);
            let header = answer.header();
            assert_eq!((header.rcode(), header.aa()), (rcode, true), "{name}");
            assert_eq!(records(&answer).len(), 0, "{name}");
            let head = answer.authority().unwrap().next().unwrap().unwrap();
            assert_eq!(head.rtype(), Rtype::SOA, "{name}");
            assert!(head.owner().to_string().len() < name.len() + 1, "{name}");
        }
    }

    #[test]
    fn what_is_not_ours_is_refused() {
        for (name, rtype) in [
            ("example.net", Rtype::A),
            ("fastvpn", Rtype::NS),
            ("2.8.9.10.in-addr.arpa", Rtype::PTR),
            ("home.fastvpn", Rtype::AXFR),
        ] {
            let answer = ask(name, rtype);
            let header = answer.header();
            assert_eq!((header.rcode(), header.aa()), (Rcode::REFUSED, false), "{name}");
            assert_eq!(answer.header_counts().nscount(), 0, "{name}");
        }
    }

    #[test]
    fn zone_has_a_head_a_server_and_the_address_of_that() {
        let texts: Vec<_> = [Rtype::SOA, Rtype::NS, Rtype::A]
            .into_iter()
            .flat_map(|rtype| records(&ask("home.fastvpn", rtype)))
            .collect();

        assert_eq!(
            texts,
            [
                "home.fastvpn. 5 IN SOA home.fastvpn. nobody.invalid. 7 3600 3600 604800 5",
                "home.fastvpn. 5 IN NS home.fastvpn.",
                "home.fastvpn. 5 IN A 10.9.0.1",
            ]
        );
        let head = "0.9.10.in-addr.arpa";
        assert_eq!(
            records(&ask(head, Rtype::NS)),
            ["0.9.10.in-addr.arpa. 5 IN NS 0.9.10.in-addr.arpa."]
        );
    }

    #[test]
    fn long_answer_is_cut_over_udp_as_the_asker_takes_it() {
        let big = query("big.home.fastvpn", Rtype::A);

        let plain = reply(&big, Transport::Udp).unwrap();
        let tcp = reply(&big, Transport::Tcp).unwrap();
        let with = |size| reply(&extended(&big, size, 0), Transport::Udp).unwrap();

        assert_eq!(tcp.header_counts().ancount(), 60);
        assert!(!tcp.header().tc());
        assert!(plain.header().tc() && plain.as_slice().len() <= UDP_MIN);
        assert_eq!((plain.header().rcode(), plain.header_counts().ancount()), (Rcode::NOERROR, 0));
        assert!(with(700).header().tc() && with(0).header().tc());
        assert_eq!(with(4096).header_counts().ancount(), 60);
    }

    #[test]
    fn extensions_are_answered_with_ours() {
        let question = query("tokyo.home.fastvpn", Rtype::A);

        let plain = reply(&question, Transport::Udp).unwrap();
        let known = reply(&extended(&question, 4096, 0), Transport::Udp).unwrap();
        let later = reply(&extended(&question, 4096, 1), Transport::Udp).unwrap();
        let twice = extended(&extended(&question, 512, 0), 512, 0);
        let twice = reply(&twice, Transport::Udp).unwrap();

        assert!(plain.opt().is_none());
        assert_eq!(known.opt().unwrap().udp_payload_size(), 1232);
        assert_eq!(records(&known).len(), 1);
        assert_eq!(later.opt_rcode(), OptRcode::BADVERS);
        assert_eq!(later.header_counts().ancount(), 0);
        assert_eq!(twice.header().rcode(), Rcode::FORMERR);
    }

    #[test]
    fn what_is_no_query_is_told_so_or_dropped() {
        let question = query("tokyo.home.fastvpn", Rtype::A);
        let with = |at: usize, byte: u8| {
            let mut changed = question.clone();
            changed[at] = byte;
            reply(&changed, Transport::Udp)
        };

        assert!(with(2, 0x80).is_none(), "an answer");
        assert!(reply(&question[..11], Transport::Udp).is_none());
        assert_eq!(with(2, 0x20).unwrap().header().rcode(), Rcode::NOTIMP);
        assert_eq!(with(5, 0).unwrap().header().rcode(), Rcode::FORMERR);
        assert_eq!(with(5, 2).unwrap().header().rcode(), Rcode::FORMERR);
        assert_eq!(with(11, 1).unwrap().header().rcode(), Rcode::FORMERR, "half a record");
        assert_eq!(
            reply(&question[..20], Transport::Udp).unwrap().header().rcode(),
            Rcode::FORMERR
        );
        let class = question.len() - 1;
        assert_eq!(with(class, 3).unwrap().header().rcode(), Rcode::REFUSED, "another class");
    }

    #[test]
    fn many_questions_are_not_repeated() {
        let mut message = query("tokyo.home.fastvpn", Rtype::A);
        message[4..6].copy_from_slice(&10_000_u16.to_be_bytes());
        for _ in 1..10_000 {
            message.extend([0xc0, 12, 0, 1, 0, 1]);
        }

        assert_eq!(answer(&zone(), &message, Transport::Tcp).unwrap().len(), 12);
    }

    proptest! {
        #[test]
        fn any_message_has_a_short_answer_or_none(
            bytes in proptest::collection::vec(any::<u8>(), 0..200),
        ) {
            check(&bytes)?;
        }

        #[test]
        fn any_change_of_a_query_has_a_short_answer_or_none(
            at in proptest::collection::vec((any::<proptest::sample::Index>(), any::<u8>()), 1..4),
        ) {
            let mut message = extended(&query("big.home.fastvpn", Rtype::ANY), 1400, 0);
            for (index, byte) in at {
                let index = index.index(message.len());
                message[index] = byte;
            }
            check(&message)?;
        }
    }

    fn check(message: &[u8]) -> Result<(), TestCaseError> {
        let zone = zone();
        if let Some(answer) = answer(&zone, message, Transport::Udp) {
            prop_assert!(answer.len() <= UDP_MAX);
            prop_assert_eq!(&answer[..2], &message[..2]);
            prop_assert!(answer[2] & 0x80 != 0);
        }
        let _ = answer(&zone, message, Transport::Tcp);
        Ok(())
    }

    fn ask(name: &str, rtype: Rtype) -> Message<Vec<u8>> {
        reply(&query(name, rtype), Transport::Udp).unwrap()
    }

    fn reply(message: &[u8], transport: Transport) -> Option<Message<Vec<u8>>> {
        answer(&zone(), message, transport).map(|bytes| Message::from_octets(bytes).unwrap())
    }

    fn query(name: &str, rtype: Rtype) -> Vec<u8> {
        let mut builder = MessageBuilder::new_vec().question();
        builder.header_mut().set_id(0x1234);
        builder.header_mut().set_rd(true);
        builder.push((name.parse::<Name<Vec<u8>>>().unwrap(), rtype)).unwrap();
        builder.finish()
    }

    /// Adds a record of extensions: no name, type 41, size, code, version, flags, nothing in it
    fn extended(message: &[u8], size: u16, version: u8) -> Vec<u8> {
        let mut message = message.to_vec();
        message[11] += 1;
        message.extend([0, 0, 41]);
        message.extend(size.to_be_bytes());
        message.extend([0, version, 0, 0, 0, 0]);
        message
    }

    fn records(answer: &Message<Vec<u8>>) -> Vec<String> {
        use domain::rdata::AllRecordData;
        let section = answer.answer().unwrap().limit_to::<AllRecordData<_, _>>();
        section
            .map(|record| {
                let record = record.unwrap();
                let (owner, data) = (record.owner(), record.data());
                let dot = |text: String| if text.ends_with('.') { text } else { text + "." };
                let data = match data {
                    AllRecordData::Ns(ns) => dot(ns.nsdname().to_string()),
                    AllRecordData::Ptr(ptr) => dot(ptr.ptrdname().to_string()),
                    AllRecordData::Soa(soa) => format!(
                        "{} {} {} {} {} {} {}",
                        dot(soa.mname().to_string()),
                        dot(soa.rname().to_string()),
                        soa.serial().0,
                        soa.refresh().as_secs(),
                        soa.retry().as_secs(),
                        soa.expire().as_secs(),
                        soa.minimum().as_secs()
                    ),
                    other => other.to_string(),
                };
                let (ttl, rtype) = (record.ttl().as_secs(), record.rtype());
                format!("{} {ttl} IN {rtype} {data}", dot(owner.to_string()))
            })
            .collect()
    }

    fn zone() -> Zone {
        let host = |byte: u8, name: &str, addresses: Vec<IpAddr>| Host {
            name: name.to_owned(),
            key: PublicKey::from_bytes([byte; 32]),
            addresses,
            kind: HostKind::Member,
        };
        let hosts = [
            host(2, "tokyo", vec![IpAddr::from([10, 9, 0, 2]), "fd09::2".parse().unwrap()]),
            host(3, "paris", vec![IpAddr::from([10, 9, 0, 3])]),
            host(4, "big", (0..60).map(|n| IpAddr::from([10, 7, 0, n])).collect()),
        ];
        let subnets = ["10.9.0.0/24".parse().unwrap(), "fd09::/64".parse().unwrap()];
        let suffix = "home.fastvpn".parse().unwrap();
        Zone::new(&suffix, &subnets, IpAddr::from([10, 9, 0, 1]), &hosts, 7)
    }
}
