//! Which addresses may be dialled: public ones, and what the operator allowed.
//!
//! Source: the special-purpose registries of IANA for IPv4 and IPv6 (RFC 6890 and its updates), and the addresses at which
//! clouds serve credentials to their machines. An address that carries another one in it (IPv4-mapped, NAT64, 6to4,
//! Teredo) is refused as such: what it leads to could be anything.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;

/// Networks of IPv4 that are not public, by first address and length.
const V4: &[([u8; 4], u8, &str)] = &[
    ([0, 0, 0, 0], 8, "this network"),
    ([10, 0, 0, 0], 8, "private"),
    ([100, 64, 0, 0], 10, "shared by a carrier"),
    ([127, 0, 0, 0], 8, "loopback"),
    ([168, 63, 129, 16], 32, "metadata of a cloud"),
    ([169, 254, 169, 254], 32, "metadata of a cloud"),
    ([169, 254, 0, 0], 16, "link-local"),
    ([172, 16, 0, 0], 12, "private"),
    ([192, 0, 0, 0], 24, "reserved"),
    ([192, 0, 2, 0], 24, "for documentation"),
    ([192, 88, 99, 0], 24, "a relay of 6to4"),
    ([192, 168, 0, 0], 16, "private"),
    ([198, 18, 0, 0], 15, "for benchmarks"),
    ([198, 51, 100, 0], 24, "for documentation"),
    ([203, 0, 113, 0], 24, "for documentation"),
    ([224, 0, 0, 0], 4, "multicast"),
    ([240, 0, 0, 0], 4, "reserved"),
];

/// Networks of IPv6 with a name of their own. Outside of 2000::/3 everything is refused anyway.
const V6: &[([u16; 8], u8, &str)] = &[
    ([0, 0, 0, 0, 0, 0, 0, 1], 128, "loopback"),
    ([0, 0, 0, 0, 0, 0xffff, 0, 0], 96, "IPv4 in IPv6"),
    ([0, 0, 0, 0, 0, 0, 0, 0], 96, "IPv4 in IPv6"),
    ([0x64, 0xff9b, 0, 0, 0, 0, 0, 0], 96, "IPv4 in IPv6 (NAT64)"),
    ([0x64, 0xff9b, 1, 0, 0, 0, 0, 0], 48, "IPv4 in IPv6 (NAT64)"),
    ([0x2001, 0, 0, 0, 0, 0, 0, 0], 32, "IPv4 in IPv6 (Teredo)"),
    ([0x2001, 0, 0, 0, 0, 0, 0, 0], 23, "reserved"),
    ([0x2001, 0xdb8, 0, 0, 0, 0, 0, 0], 32, "for documentation"),
    ([0x2002, 0, 0, 0, 0, 0, 0, 0], 16, "IPv4 in IPv6 (6to4)"),
    ([0x3fff, 0, 0, 0, 0, 0, 0, 0], 20, "for documentation"),
    ([0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254], 128, "metadata of a cloud"),
    ([0xfc00, 0, 0, 0, 0, 0, 0, 0], 7, "private"),
    ([0xfe80, 0, 0, 0, 0, 0, 0, 0], 10, "link-local"),
    ([0xfec0, 0, 0, 0, 0, 0, 0, 0], 10, "site-local"),
    ([0xff00, 0, 0, 0, 0, 0, 0, 0], 8, "multicast"),
];

/// What addresses outside of every network above are, unless they are in 2000::/3.
const UNASSIGNED: &str = "not public";

/// Why an address must not be dialled, in a word or two; `None` where it may. `allowed` are the ranges that the operator
/// opened for the host in question.
#[must_use]
pub fn refused_range(address: IpAddr, allowed: &[IpNet]) -> Option<&'static str> {
    let kind = special(address)?;
    let carrier = kind.starts_with("IPv4 in IPv6");
    // What a mapped address leads to is its IPv4 address; a range of IPv6 must not open that.
    let inner = match address {
        IpAddr::V6(address) if carrier => embedded(address),
        _ => None,
    };
    let open = allowed.iter().any(|range| range.contains(&address));
    match inner {
        Some(inner) if open => refused_range(inner.into(), allowed),
        _ if open => None,
        _ => Some(kind),
    }
}

/// What kind of address it is, unless it is public.
fn special(address: IpAddr) -> Option<&'static str> {
    match address {
        IpAddr::V4(address) => {
            let bits = address.to_bits();
            let within = |network: [u8; 4], length: u8| {
                (bits ^ Ipv4Addr::from(network).to_bits()).leading_zeros() >= u32::from(length)
            };
            V4.iter().find(|(network, length, _)| within(*network, *length)).map(|(.., kind)| *kind)
        }
        IpAddr::V6(address) => {
            let bits = address.to_bits();
            let within = |network: [u16; 8], length: u8| {
                (bits ^ Ipv6Addr::from(network).to_bits()).leading_zeros() >= u32::from(length)
            };
            let known = V6.iter().find(|(network, length, _)| within(*network, *length)).map(|(.., kind)| *kind);
            known.or((address.segments()[0] & 0xe000 != 0x2000).then_some(UNASSIGNED))
        }
    }
}

/// The IPv4 address in the last bits; for 6to4 behind the prefix, for Teredo inverted.
fn embedded(address: Ipv6Addr) -> Option<Ipv4Addr> {
    let bits = address.to_bits();
    match address.segments() {
        [0x2002, ..] => Some(Ipv4Addr::from_bits((bits >> 80) as u32)),
        [0x2001, 0, ..] => Some(Ipv4Addr::from_bits(!(bits as u32))),
        _ => Some(Ipv4Addr::from_bits(bits as u32)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn judge(address: &str, allowed: &[&str]) -> Option<&'static str> {
        let allowed: Vec<IpNet> = allowed.iter().map(|range| range.parse().unwrap()).collect();
        refused_range(address.parse().unwrap(), &allowed)
    }

    #[test]
    fn public_addresses_are_dialled_and_special_ones_are_not() {
        let table = [
            ("93.184.216.34", None),
            ("1.1.1.1", None),
            ("100.63.255.255", None),
            ("100.128.0.0", None),
            ("172.15.255.255", None),
            ("172.32.0.0", None),
            ("223.255.255.255", None),
            ("2606:4700::1111", None),
            ("2001:4860:4860::8888", None),
            ("0.0.0.0", Some("this network")),
            ("0.1.2.3", Some("this network")),
            ("10.255.255.255", Some("private")),
            ("100.100.100.200", Some("shared by a carrier")),
            ("127.0.0.1", Some("loopback")),
            ("127.255.255.254", Some("loopback")),
            ("168.63.129.16", Some("metadata of a cloud")),
            ("169.254.169.254", Some("metadata of a cloud")),
            ("169.254.1.1", Some("link-local")),
            ("172.16.0.1", Some("private")),
            ("172.31.255.255", Some("private")),
            ("192.0.0.192", Some("reserved")),
            ("192.0.2.1", Some("for documentation")),
            ("192.88.99.1", Some("a relay of 6to4")),
            ("192.168.1.1", Some("private")),
            ("198.19.255.255", Some("for benchmarks")),
            ("198.51.100.1", Some("for documentation")),
            ("203.0.113.9", Some("for documentation")),
            ("224.0.0.251", Some("multicast")),
            ("240.0.0.1", Some("reserved")),
            ("255.255.255.255", Some("reserved")),
            ("::", Some("IPv4 in IPv6")),
            ("::1", Some("loopback")),
            ("::10.0.0.1", Some("IPv4 in IPv6")),
            ("::ffff:93.184.216.34", Some("IPv4 in IPv6")),
            ("::ffff:169.254.169.254", Some("IPv4 in IPv6")),
            ("64:ff9b::a9fe:a9fe", Some("IPv4 in IPv6 (NAT64)")),
            ("64:ff9b:1::1", Some("IPv4 in IPv6 (NAT64)")),
            ("2001::1", Some("IPv4 in IPv6 (Teredo)")),
            ("2001:10::1", Some("reserved")),
            ("2001:db8::1", Some("for documentation")),
            ("2002:7f00:1::", Some("IPv4 in IPv6 (6to4)")),
            ("3fff::1", Some("for documentation")),
            ("fd00:ec2::254", Some("metadata of a cloud")),
            ("fd12::1", Some("private")),
            ("fe80::1", Some("link-local")),
            ("fec0::1", Some("site-local")),
            ("ff02::1", Some("multicast")),
            ("100::1", Some("not public")),
            ("4000::1", Some("not public")),
        ];
        for (address, expected) in table {
            assert_eq!(judge(address, &[]), expected, "{address}");
        }
    }

    #[test]
    fn an_allowed_range_opens_itself_and_nothing_else() {
        assert_eq!(judge("10.1.2.3", &["10.0.0.0/8"]), None);
        assert_eq!(judge("10.1.2.3", &["10.2.0.0/16"]), Some("private"));
        assert_eq!(judge("169.254.169.254", &["10.0.0.0/8", "169.254.0.0/16"]), None);
        assert_eq!(judge("fd12::1", &["fd00::/8"]), None);
        // A mapped address is not the address in it.
        assert_eq!(judge("::ffff:127.0.0.1", &["127.0.0.0/8"]), Some("IPv4 in IPv6"));
    }

    #[test]
    fn a_range_that_carries_ipv4_opens_only_what_may_be_reached_in_ipv4() {
        let nat64 = &["64:ff9b::/96"];
        assert_eq!(judge("64:ff9b::5db8:d822", nat64), None);
        assert_eq!(judge("64:ff9b::a9fe:a9fe", nat64), Some("metadata of a cloud"));
        assert_eq!(judge("64:ff9b::7f00:1", nat64), Some("loopback"));
        assert_eq!(judge("::ffff:127.0.0.1", &["::/0"]), Some("loopback"));
        assert_eq!(judge("2002:7f00:1::", &["::/0"]), Some("loopback"));
        assert_eq!(judge("2001:0:1:2:3:4:80ff:fffe", &["::/0"]), Some("loopback"));
    }
}
