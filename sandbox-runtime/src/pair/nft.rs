//! The rules of the door, in the `inet` table of the sandbox's own network namespace.
//!
//! ```text
//! table inet ostler {
//!   chain redirect { type nat hook output priority -100;
//!     udp dport 53                    redirect to :5353      also for loopback: glibc's default server
//!     tcp dport 53                    redirect to :3129      likewise
//!     ip daddr 127.0.0.0/8            accept
//!     ip daddr 10.255.255.1           accept                 the sandbox itself
//!     ip6 daddr ::1                   accept
//!     ip6 daddr fd6f:7374:6c65:72::1  accept                 the sandbox itself
//!     tcp                             redirect to :3129
//!   }
//!   chain refuse { type filter hook output priority 0;
//!     ct status dnat                  accept                 redirected above
//!     ct state established,related    accept
//!     the four addresses above        accept
//!     tcp                             reject with tcp reset
//!                                     reject with icmpx port-unreachable
//!   }
//! }
//! ```
//!
//! No process in the sandbox has a capability over the namespace, so nothing in there can change them. Numbers
//! are from the kernel's `uapi/linux/netfilter/nf_tables.h`.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ostler_wire::Failure;
use rustix::net::netlink::NETFILTER;

use super::netlink::{ADDRESS, ADDRESS_V6, Message, open, transact};

/// Port on the sandbox's loopback that every TCP connection is redirected to.
pub(super) const TCP_PORT: u16 = 3129;
/// Port on the sandbox's loopback that every DNS query is redirected to.
pub(super) const DNS_PORT: u16 = 5353;

const TABLE: &str = "ostler";
const REDIRECT: &str = "redirect";
const REFUSE: &str = "refuse";

const INET: u8 = 1;
const OUTPUT_HOOK: u32 = 3;
const REGISTER: u32 = 1;
const ACCEPT: u32 = 1;
/// `ct state` bits: established (2) and related (4).
const ESTABLISHED_OR_RELATED: u32 = 6;
/// `ct status` bit: the destination was rewritten (`IPS_DST_NAT`).
const DESTINATION_REWRITTEN: u32 = 1 << 5;

/// One expression of a rule: its name and its attributes.
struct Expression(&'static str, Box<dyn Fn(Message) -> Message>);

impl Expression {
    fn new(name: &'static str, fill: impl Fn(Message) -> Message + 'static) -> Self {
        Self(name, Box::new(fill))
    }

    /// Loads packet or connection metadata.
    fn load(name: &'static str, register: u16, key_attribute: u16, key: u32) -> Self {
        Self::new(name, move |message| message.number(register, REGISTER).number(key_attribute, key))
    }

    /// Loads bytes from the network (1) or transport (2) header.
    fn payload(base: u32, offset: u32, length: u32) -> Self {
        Self::new("payload", move |message| {
            message.number(1, REGISTER).number(2, base).number(3, offset).number(4, length)
        })
    }

    /// Keeps the bits in `mask` of the loaded value.
    fn mask(mask: Vec<u8>) -> Self {
        Self::new("bitwise", move |message| {
            let zero = vec![0; mask.len()];
            message
                .number(1, REGISTER)
                .number(2, REGISTER)
                .number(3, mask.len() as u32)
                .nested(4, |value| value.attribute(1, &mask))
                .nested(5, |value| value.attribute(1, &zero))
        })
    }

    /// Goes on only where the loaded value equals (0) or differs from (1) `value`.
    fn compare(operator: u32, value: Vec<u8>) -> Self {
        Self::new("cmp", move |message| {
            message.number(1, REGISTER).number(2, operator).nested(3, |data| data.attribute(1, &value))
        })
    }

    fn equals(value: &[u8]) -> Self {
        Self::compare(0, value.to_vec())
    }

    fn accept() -> Self {
        Self::new("immediate", |message| {
            message.number(1, 0).nested(2, |data| data.nested(2, |verdict| verdict.number(1, ACCEPT)))
        })
    }

    /// `reject`: of type TCP reset (1), or unreachable in the words of either family (2) with its code.
    fn reject(kind: u32, code: u8) -> Self {
        Self::new("reject", move |message| message.number(1, kind).attribute(2, &[code]))
    }
}

/// `meta nfproto`: which of the two families.
fn family(family: i32) -> Vec<Expression> {
    vec![Expression::load("meta", 1, 2, 15), Expression::equals(&[family as u8])]
}

/// `meta l4proto`.
fn protocol(protocol: i32) -> Vec<Expression> {
    vec![Expression::load("meta", 1, 2, 16), Expression::equals(&[protocol as u8])]
}

/// Accepts what goes to an address, of which only the first bytes count.
fn to(address: IpAddr, bytes: usize) -> Vec<Expression> {
    // Where the destination stands in the header of each family.
    let (kind, offset, address) = match address {
        IpAddr::V4(address) => (libc::AF_INET, 16, address.octets().to_vec()),
        IpAddr::V6(address) => (libc::AF_INET6, 24, address.octets().to_vec()),
    };
    let mut rule = family(kind);
    rule.push(Expression::payload(1, offset, bytes as u32));
    rule.extend([Expression::equals(&address[..bytes]), Expression::accept()]);
    rule
}

/// Everything that stays in the sandbox.
fn to_itself(chain: &'static str) -> impl Iterator<Item = (&'static str, Vec<Expression>)> {
    let own = [
        (IpAddr::V4(Ipv4Addr::LOCALHOST), 1),
        (ADDRESS.into(), 4),
        (IpAddr::V6(Ipv6Addr::LOCALHOST), 16),
        (ADDRESS_V6.into(), 16),
    ];
    own.into_iter().map(move |(address, bytes)| (chain, to(address, bytes)))
}

/// Redirects to a port of the loopback address: `immediate` loads it, `redir` uses it.
fn redirect(port: u16) -> Vec<Expression> {
    vec![
        Expression::new("immediate", move |message| {
            message.number(1, REGISTER).nested(2, |data| data.attribute(1, &port.to_be_bytes()))
        }),
        Expression::new("redir", |message| message.number(1, REGISTER)),
    ]
}

/// Redirects queries of DNS over a protocol.
fn dns_query(over: i32, port: u16) -> Vec<Expression> {
    let mut rule = protocol(over);
    rule.extend([Expression::payload(2, 2, 2), Expression::equals(&53u16.to_be_bytes())]);
    rule.extend(redirect(port));
    rule
}

fn any_tcp() -> Vec<Expression> {
    let mut rule = protocol(libc::IPPROTO_TCP);
    rule.extend(redirect(TCP_PORT));
    rule
}

/// Accepts connections with one of `bits` in their `ct` state (key 0) or status (key 2).
fn tracked(key: u32, bits: u32) -> Vec<Expression> {
    vec![
        Expression::load("ct", 1, 2, key),
        Expression::mask(bits.to_ne_bytes().to_vec()),
        Expression::compare(1, vec![0; 4]),
        Expression::accept(),
    ]
}

fn reset_tcp() -> Vec<Expression> {
    let mut rule = protocol(libc::IPPROTO_TCP);
    rule.push(Expression::reject(1, 0));
    rule
}

/// Every rule, by chain, in order.
fn rules() -> Vec<(&'static str, Vec<Expression>)> {
    let dns = [dns_query(libc::IPPROTO_UDP, DNS_PORT), dns_query(libc::IPPROTO_TCP, TCP_PORT)];
    let mut rules: Vec<_> = dns.into_iter().map(|rule| (REDIRECT, rule)).collect();
    rules.extend(to_itself(REDIRECT));
    rules.push((REDIRECT, any_tcp()));
    rules.extend([(REFUSE, tracked(2, DESTINATION_REWRITTEN)), (REFUSE, tracked(0, ESTABLISHED_OR_RELATED))]);
    rules.extend(to_itself(REFUSE));
    rules.extend([(REFUSE, reset_tcp()), (REFUSE, vec![Expression::reject(2, 1)])]);
    rules
}

/// Installs the rules in the caller's network namespace, all or none.
pub(super) fn install() -> Result<(), Failure> {
    let mut requests =
        vec![request(libc::NFT_MSG_NEWTABLE).text(1, TABLE), chain(REDIRECT, "nat", -100), chain(REFUSE, "filter", 0)];
    for (chain, expressions) in rules() {
        requests.push(request(libc::NFT_MSG_NEWRULE).text(1, TABLE).text(2, chain).nested(4, |list| {
            expressions.iter().fold(list, |list, Expression(name, fill)| {
                list.nested(1, |element| element.text(1, name).nested(2, fill))
            })
        }));
    }
    let count = requests.len();
    // The batch header names the subsystem in network order.
    let header = [0, 0, 0, libc::NFNL_SUBSYS_NFTABLES as u8];
    let mut bytes = Message::new(libc::NFNL_MSG_BATCH_BEGIN as u16, 0, &header).finish(0);
    for (sequence, request) in (1..).zip(requests) {
        bytes.extend(request.finish(sequence));
    }
    bytes.extend(Message::new(libc::NFNL_MSG_BATCH_END as u16, 0, &header).finish(0));
    transact(&open(Some(NETFILTER))?, "install door rules", &bytes, count)
}

fn request(kind: i32) -> Message {
    let subsystem = (libc::NFNL_SUBSYS_NFTABLES as u16) << 8;
    let flags = libc::NLM_F_ACK | libc::NLM_F_CREATE | libc::NLM_F_APPEND;
    Message::new(subsystem | kind as u16, flags, &[INET, 0, 0, 0])
}

fn chain(name: &str, kind: &str, priority: i32) -> Message {
    request(libc::NFT_MSG_NEWCHAIN)
        .text(1, TABLE)
        .text(3, name)
        .nested(4, |hook| hook.number(1, OUTPUT_HOOK).attribute(2, &priority.to_be_bytes()))
        .text(7, kind)
}
