//! DNS as the sandbox sees it: the few names behind the door exist, nothing else does.
//!
//! Unknown names get NXDOMAIN, so that programs fail at once: on REFUSED the C library's resolver reports a temporary
//! failure, which programs try again. What is no plain query is not answered at all.

use std::net::Ipv4Addr;
use std::sync::Arc;

use simple_dns::rdata::{A, RData};
use simple_dns::{CLASS, OPCODE, Packet, PacketFlag, QCLASS, QTYPE, RCODE, ResourceRecord, TYPE};
use tokio::net::UdpSocket;

use super::hosts::DoorHosts;
use super::report::{Attempt, Reporter, shown};

/// Longest query: the limit of DNS over UDP. Source: RFC 1035, 4.2.1.
const MAX_QUERY: usize = 512;

/// Time that an answer may be kept, in seconds.
const KEEP: u32 = 60;

/// Answers queries until dropped.
pub(super) async fn serve(socket: UdpSocket, hosts: Arc<DoorHosts>, reporter: Arc<Reporter>) {
    let mut buffer = [0; MAX_QUERY + 1];
    loop {
        let Ok((length, client)) = socket.recv_from(&mut buffer).await else {
            // Such as a client that was gone when the last answer came. Never spin on it.
            tokio::task::yield_now().await;
            continue;
        };
        let Some(answer) = answer(&buffer[..length], |name| hosts.resolve(name)) else { continue };
        if let Some(name) = answer.refused {
            reporter.refused(Attempt::Resolve(name));
        }
        // A client that reads too slowly asks again; nobody waits for it here.
        let _ = socket.try_send_to(&answer.bytes, client);
    }
}

/// What is sent back.
#[derive(Debug, PartialEq, Eq)]
struct Answer {
    bytes: Vec<u8>,
    /// The name, where it does not exist. An address for IPv6 is not asked for without one for IPv4: one report is enough.
    refused: Option<String>,
}

/// Answers one query, or nothing that is malformed.
fn answer(query: &[u8], resolve: impl Fn(&str) -> Option<Ipv4Addr>) -> Option<Answer> {
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
    let mut refused = None;
    if query.opcode() != OPCODE::StandardQuery {
        *reply.rcode_mut() = RCODE::NotImplemented;
    } else {
        let internet = matches!(question.qclass, QCLASS::CLASS(CLASS::IN) | QCLASS::ANY);
        match resolve(&name).filter(|_| internet) {
            Some(address) if matches!(question.qtype, QTYPE::TYPE(TYPE::A) | QTYPE::ANY) => {
                let data = RData::A(A::from(address));
                reply.answers.push(ResourceRecord::new(question.qname.clone(), CLASS::IN, KEEP, data));
            }
            // The name exists and has nothing of that kind.
            Some(_) => {}
            None => {
                *reply.rcode_mut() = RCODE::NameError;
                refused = (question.qtype != QTYPE::TYPE(TYPE::AAAA)).then(|| shown(&name));
            }
        }
    }
    Some(Answer { bytes: reply.build_bytes_vec().ok()?, refused })
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

    fn git(name: &str) -> Option<Ipv4Addr> {
        DoorHosts::new().with(DoorHost::GIT, axum::Router::new()).resolve(name)
    }

    fn query(name: &str, kind: QTYPE, class: CLASS) -> Vec<u8> {
        let mut packet = Packet::new_query(7);
        packet.set_flags(PacketFlag::RECURSION_DESIRED);
        packet.questions.push(Question::new(Name::new_unchecked(name), kind, class.into(), false));
        packet.build_bytes_vec().unwrap()
    }

    /// Code, addresses and refused name of an answer.
    fn ask(name: &str, kind: QTYPE, class: CLASS) -> (RCODE, Vec<Ipv4Addr>, Option<String>) {
        let answer = answer(&query(name, kind, class), git).unwrap();
        let packet = Packet::parse(&answer.bytes).unwrap();
        assert_eq!(packet.id(), 7);
        assert!(packet.has_flags(PacketFlag::RESPONSE | PacketFlag::RECURSION_DESIRED));
        assert_eq!(packet.questions[0].qname.to_string(), name);
        let address = |record: &ResourceRecord<'_>| match &record.rdata {
            RData::A(a) => Ipv4Addr::from(a.address),
            other => panic!("{other:?}"),
        };
        (packet.rcode(), packet.answers.iter().map(address).collect(), answer.refused)
    }

    #[test]
    fn the_names_behind_the_door_exist_and_no_others() {
        let address = vec![Ipv4Addr::new(198, 18, 0, 1)];
        let (a, aaaa, mx) = (TYPE::A.into(), TYPE::AAAA.into(), TYPE::MX.into());
        let table = [
            ("git.ostler.internal", a, CLASS::IN, (RCODE::NoError, address.clone(), None)),
            ("GIT.Ostler.internal", a, CLASS::IN, (RCODE::NoError, address.clone(), None)),
            ("git.ostler.internal", QTYPE::ANY, CLASS::IN, (RCODE::NoError, address, None)),
            ("git.ostler.internal", aaaa, CLASS::IN, (RCODE::NoError, vec![], None)),
            ("git.ostler.internal", mx, CLASS::IN, (RCODE::NoError, vec![], None)),
            ("git.ostler.internal", a, CLASS::CH, (RCODE::NameError, vec![], Some("git.ostler.internal".into()))),
            ("example.org", a, CLASS::IN, (RCODE::NameError, vec![], Some("example.org".into()))),
            ("example.org", aaaa, CLASS::IN, (RCODE::NameError, vec![], None)),
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
