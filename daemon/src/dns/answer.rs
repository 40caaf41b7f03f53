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
