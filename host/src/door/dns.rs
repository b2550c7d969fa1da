//! DNS as the sandbox sees it: names that it may speak to exist, nothing else does.
//!
//! A name has an address that stands for it (see `leases`), one for IPv4 and one for IPv6; what its real addresses are is
//! nobody's business in there. Of every other type a name has nothing: no HTTPS record leads to an encrypted greeting or to another
//! address. Unknown names get NXDOMAIN, so that programs fail at once: on REFUSED the C library's resolver reports a temporary
//! failure, which programs try again. What is no plain query is not answered at all. Queries wait for their turn: over UDP the kernel drops
//! those for which there is no room, over TCP they wait in their connection.

use std::net::Ipv4Addr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use simple_dns::rdata::{A, AAAA, RData};
use simple_dns::{CLASS, OPCODE, Packet, PacketFlag, QCLASS, QTYPE, RCODE, ResourceRecord, TYPE};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UdpSocket};
use tokio::time::timeout;

use super::gate::Protocol;
use super::hosts::DoorHosts;
use super::leases::{Leases, in_v6};
use super::report::{Decision, Reporter, Verdict, shown};
use super::tcp::Inside;
use crate::egress::{Host, HostName, Policy};

/// Longest query: the limit of DNS over UDP. Source: RFC 1035, 4.2.1.
const MAX_QUERY: usize = 512;

/// Time that an answer may be kept, in seconds.
const KEEP: u32 = 60;

/// What is known of a name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Known {
    /// The address that stands for it.
    At(Ipv4Addr),
    /// It exists, and no address is free for it now.
    Full,
    /// It does not exist.
    Not,
}

/// The names that exist in a sandbox.
#[derive(Clone, Copy)]
pub(super) struct Names<'a> {
    pub(super) hosts: &'a DoorHosts,
    pub(super) policy: &'a Policy,
    pub(super) leases: &'a Mutex<Leases>,
}

impl Names<'_> {
    fn resolve(self, name: &str) -> Known {
        let Ok(name) = name.parse::<HostName>() else { return Known::Not };
        if let Some(address) = self.hosts.resolve(&name) {
            return Known::At(address);
        }
        if !self.policy.knows(&Host::Name(name.clone())) {
            return Known::Not;
        }
        let keep = Duration::from_secs(KEEP.into());
        let leased = self.leases.lock().unwrap_or_else(PoisonError::into_inner).address(&name, Instant::now(), keep);
        leased.map_or(Known::Full, Known::At)
    }
}

/// Answers queries until dropped.
pub(super) async fn serve(socket: UdpSocket, inside: Arc<Inside>) {
    let mut buffer = [0; MAX_QUERY + 1];
    loop {
        let Ok((length, client)) = socket.recv_from(&mut buffer).await else {
            // Such as a client that was gone when the last answer came. Never spin on it.
            tokio::task::yield_now().await;
            continue;
        };
        inside.queries.turn().await;
        let Some(bytes) = answer_and_report(&buffer[..length], &inside) else { continue };
        // A client that reads too slowly asks again; nobody waits for it here.
        let _ = socket.try_send_to(&bytes, client);
    }
}

/// Answers the queries of one connection, each behind its length (RFC 1035, 4.2.2), until it says nothing for `idle`.
pub(super) async fn serve_stream(mut stream: TcpStream, inside: &Inside, idle: Duration) {
    let next = async |stream: &mut TcpStream| {
        let length = usize::from(stream.read_u16().await.ok()?);
        let mut query = vec![0; length];
        stream.read_exact(&mut query).await.ok()?;
        inside.queries.turn().await;
        let answer = answer_and_report(&query, inside)?;
        let length = u16::try_from(answer.len()).ok()?;
        stream.write_all(&[&length.to_be_bytes()[..], &answer].concat()).await.ok()
    };
    while let Ok(Some(())) = timeout(idle, next(&mut stream)).await {}
}

fn answer_and_report(query: &[u8], inside: &Inside) -> Option<Vec<u8>> {
    let answer = answer(query, |name| inside.names().resolve(name))?;
    report(&inside.reporter, &answer);
    Some(answer.bytes)
}

fn report(reporter: &Reporter, answer: &Answer) {
    let (name, verdict) = match &answer.outcome {
        Outcome::Refused(name) => (name, Verdict::Refused { reason: "no rule allows this host".to_owned() }),
        Outcome::Full(name) => {
            (name, Verdict::Failed { reason: "no address is free to stand for this name".to_owned() })
        }
        Outcome::Resolved => return reporter.resolved(),
        Outcome::Nothing => return,
    };
    reporter.decided(Decision { host: name.clone(), port: None, protocol: Some(Protocol::Dns), verdict });
}

/// What is sent back.
#[derive(Debug, PartialEq, Eq)]
struct Answer {
    bytes: Vec<u8>,
    outcome: Outcome,
}

/// What there is to report.
#[derive(Debug, PartialEq, Eq)]
enum Outcome {
    /// The name exists.
    Resolved,
    /// This name does not. An address for IPv6 is not asked for without one for IPv4, and a service (as apt asks for one of every
    /// mirror) not without an address: one report is enough.
    Refused(String),
    /// This name is allowed, and there is no address for it now.
    Full(String),
    Nothing,
}

/// Answers one query, or nothing that is malformed.
fn answer(query: &[u8], resolve: impl Fn(&str) -> Known) -> Option<Answer> {
    if query.len() > MAX_QUERY || !is_plain(query) {
        return None;
    }
    let query = Packet::parse(query).ok()?;
    let [question] = query.questions.as_slice() else { return None };
    let mut reply = Packet::new_reply(query.id());
    reply.set_flags(PacketFlag::RECURSION_AVAILABLE);
    if query.has_flags(PacketFlag::RECURSION_DESIRED) {
        reply.set_flags(PacketFlag::RECURSION_DESIRED);
    }
    *reply.opcode_mut() = query.opcode();
    reply.questions.push(question.clone());
    let name = question.qname.to_string();
    let mut outcome = Outcome::Nothing;
    if query.opcode() != OPCODE::StandardQuery {
        *reply.rcode_mut() = RCODE::NotImplemented;
    } else {
        let internet = matches!(question.qclass, QCLASS::CLASS(CLASS::IN) | QCLASS::ANY);
        match if internet { resolve(&name) } else { Known::Not } {
            Known::At(address) => {
                outcome = Outcome::Resolved;
                let wants = |kind| question.qtype == QTYPE::TYPE(kind) || question.qtype == QTYPE::ANY;
                let v4 = wants(TYPE::A).then(|| RData::A(A::from(address)));
                let v6 = wants(TYPE::AAAA).then(|| RData::AAAA(AAAA::from(in_v6(address))));
                let records = v4.into_iter().chain(v6);
                // The name exists; of any other kind it has nothing.
                reply.answers =
                    records.map(|data| ResourceRecord::new(question.qname.clone(), CLASS::IN, KEEP, data)).collect();
            }
            Known::Full => {
                *reply.rcode_mut() = RCODE::ServerFailure;
                outcome = Outcome::Full(shown(&name));
            }
            Known::Not => {
                *reply.rcode_mut() = RCODE::NameError;
                let quiet = matches!(question.qtype, QTYPE::TYPE(TYPE::AAAA | TYPE::SRV));
                if !quiet {
                    outcome = Outcome::Refused(shown(&name));
                }
            }
        }
    }
    Some(Answer { bytes: reply.build_bytes_vec().ok()?, outcome })
}

/// Whether a header announces one question and no records but those of EDNS: the parser makes room for as many as are
/// announced.
fn is_plain(query: &[u8]) -> bool {
    let Some((header, _)) = query.split_first_chunk::<12>() else { return false };
    let [_, _, flags, _, q0, q1, a0, a1, n0, n1, x0, x1] = *header;
    let count = |high, low| u16::from_be_bytes([high, low]);
    flags & 0x80 == 0 && count(q0, q1) == 1 && count(a0, a1) == 0 && count(n0, n1) == 0 && count(x0, x1) <= 2
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use simple_dns::{Name, Question};

    use super::super::hosts::DoorHost;
    use super::*;
    use crate::egress::Rule;

    fn git(name: &str) -> Known {
        let hosts = DoorHosts::new().with(DoorHost::GIT, axum::Router::new());
        let policy = Policy { rules: vec![Rule::new("*.example.net".parse().unwrap(), "a rule")], ..Policy::default() };
        let leases = Mutex::new(Leases::default());
        Names { hosts: &hosts, policy: &policy, leases: &leases }.resolve(name)
    }

    fn query(name: &str, kind: QTYPE, class: CLASS) -> Vec<u8> {
        let mut packet = Packet::new_query(7);
        packet.set_flags(PacketFlag::RECURSION_DESIRED);
        packet.questions.push(Question::new(Name::new_unchecked(name), kind, class.into(), false));
        packet.build_bytes_vec().unwrap()
    }

    /// Code, addresses and refused name of an answer.
    fn ask(name: &str, kind: QTYPE, class: CLASS) -> (RCODE, Vec<String>, Option<String>) {
        let answer = answer(&query(name, kind, class), git).unwrap();
        let packet = Packet::parse(&answer.bytes).unwrap();
        assert_eq!(packet.id(), 7);
        assert!(packet.has_flags(PacketFlag::RESPONSE | PacketFlag::RECURSION_DESIRED));
        assert_eq!(packet.questions[0].qname.to_string(), name);
        let address = |record: &ResourceRecord<'_>| match &record.rdata {
            RData::A(a) => Ipv4Addr::from(a.address).to_string(),
            RData::AAAA(aaaa) => std::net::Ipv6Addr::from(aaaa.address).to_string(),
            other => panic!("{other:?}"),
        };
        (
            packet.rcode(),
            packet.answers.iter().map(address).collect(),
            match answer.outcome {
                Outcome::Refused(name) => Some(name),
                _ => None,
            },
        )
    }

    #[test]
    fn the_names_behind_the_door_exist_and_no_others() {
        let (v4, v6) = (vec!["198.18.0.1".to_owned()], vec!["fd6f:7374:6c65:72::c612:1".to_owned()]);
        let (a, aaaa, mx, https) = (TYPE::A.into(), TYPE::AAAA.into(), TYPE::MX.into(), TYPE::HTTPS.into());
        let Known::At(leased) = git("crates.example.net") else { panic!("it exists") };
        let table = [
            ("git.ostler.internal", a, CLASS::IN, (RCODE::NoError, v4.clone(), None)),
            ("GIT.Ostler.internal", a, CLASS::IN, (RCODE::NoError, v4.clone(), None)),
            ("git.ostler.internal", QTYPE::ANY, CLASS::IN, (RCODE::NoError, [v4, v6.clone()].concat(), None)),
            ("git.ostler.internal", aaaa, CLASS::IN, (RCODE::NoError, v6, None)),
            ("git.ostler.internal", https, CLASS::IN, (RCODE::NoError, vec![], None)),
            ("proxy.ostler.internal", a, CLASS::IN, (RCODE::NoError, vec!["198.18.0.2".into()], None)),
            ("crates.example.net", a, CLASS::IN, (RCODE::NoError, vec![leased.to_string()], None)),
            ("CRATES.example.net", aaaa, CLASS::IN, (RCODE::NoError, vec![in_v6(leased).to_string()], None)),
            ("crates.example.net", https, CLASS::IN, (RCODE::NoError, vec![], None)),
            ("example.net", a, CLASS::IN, (RCODE::NameError, vec![], Some("example.net".into()))),
            ("git.ostler.internal", mx, CLASS::IN, (RCODE::NoError, vec![], None)),
            ("git.ostler.internal", a, CLASS::CH, (RCODE::NameError, vec![], Some("git.ostler.internal".into()))),
            ("example.org", a, CLASS::IN, (RCODE::NameError, vec![], Some("example.org".into()))),
            ("example.org", aaaa, CLASS::IN, (RCODE::NameError, vec![], None)),
            ("_http._tcp.example.org", TYPE::SRV.into(), CLASS::IN, (RCODE::NameError, vec![], None)),
            ("ostler.internal", a, CLASS::IN, (RCODE::NameError, vec![], Some("ostler.internal".into()))),
            ("x.git.ostler.internal", a, CLASS::IN, (RCODE::NameError, vec![], Some("x.git.ostler.internal".into()))),
        ];
        for (name, kind, class, expected) in table {
            assert_eq!(ask(name, kind, class), expected, "{name} {kind:?}");
        }
    }

    #[test]
    fn what_is_no_plain_query_is_not_answered() {
        let good = query("git.ostler.internal", TYPE::A.into(), CLASS::IN);
        assert!(answer(&good, git).is_some());
        // A response, no question, two questions, an answer, an authority, many additional records.
        for (at, value) in [(2, 0x81), (5, 0), (5, 2), (7, 1), (9, 1), (10, 0xff)] {
            let mut bad = good.clone();
            bad[at] = value;
            assert_eq!(answer(&bad, git), None, "byte {at}");
        }
        for length in 0..good.len() {
            assert_eq!(answer(&good[..length], git), None, "{length} bytes");
        }
        let mut long = good.clone();
        long.resize(MAX_QUERY + 1, 0);
        assert_eq!(answer(&long, git), None);
        // A name that points at itself.
        let mut looping = good[..12].to_vec();
        looping.extend([0xc0, 12, 0, 1, 0, 1]);
        assert_eq!(answer(&looping, git), None);
    }

    #[test]
    fn a_name_for_which_no_address_is_free_is_no_name_that_does_not_exist() {
        let answer = answer(&query("a.example", TYPE::A.into(), CLASS::IN), |_| Known::Full).unwrap();
        assert_eq!(Packet::parse(&answer.bytes).unwrap().rcode(), RCODE::ServerFailure);
        assert_eq!(answer.outcome, Outcome::Full("a.example".to_owned()));
    }

    #[test]
    fn an_update_is_not_implemented() {
        let mut update = query("git.ostler.internal", TYPE::A.into(), CLASS::IN);
        update[2] = 5 << 3;
        let answer = answer(&update, git).unwrap();
        assert_eq!(Packet::parse(&answer.bytes).unwrap().rcode(), RCODE::NotImplemented);
    }

    proptest! {
        #[test]
        fn no_bytes_bring_it_down(bytes in proptest::collection::vec(any::<u8>(), 0..600)) {
            let _ = answer(&bytes, git);
        }

        #[test]
        fn no_damaged_query_brings_it_down(flips in proptest::collection::vec((0usize..40, any::<u8>()), 1..8)) {
            let mut bytes = query("git.ostler.internal", TYPE::A.into(), CLASS::IN);
            for (at, value) in flips {
                if let Some(place) = bytes.get_mut(at) {
                    *place = value;
                }
            }
            if let Some(answer) = answer(&bytes, git) {
                prop_assert!(answer.bytes.len() <= MAX_QUERY + 100);
            }
        }
    }
}
