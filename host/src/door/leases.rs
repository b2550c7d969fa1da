//! Addresses that stand for names: what DNS answers inside, so that the address of a connection says which name was meant.
//!
//! ```text
//!  example.org ──hash──► one of 8 seats in 198.18.1.0 – 198.19.255.255 ──► the address of the name, in this sandbox
//!                                                       fd6f:7374:6c65:72:: + the same 32 bits for IPv6
//! ```
//!
//! The network is set aside for tests (RFC 2544) and routed nowhere. A name gets the same address again after a restart of
//! the host, because the seat comes from its hash. Where all seats of a name are taken, or there are too many names, the one
//! that was used longest ago loses its own, but not while somebody may still remember the answer of DNS: an address never stands for
//! two names at a time. Where nobody may lose one, there is none for now.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::{Duration, Instant};

use sha2::{Digest, Sha256};

use crate::egress::HostName;

/// The first address that is leased. Those before it belong to the services behind the door.
const FIRST: u32 = Ipv4Addr::new(198, 18, 1, 0).to_bits();

/// Addresses from the first to the end of 198.18.0.0/15.
const SEATS: u32 = Ipv4Addr::new(198, 19, 255, 255).to_bits() - FIRST + 1;

/// Seats that a name may have.
const CHOICES: u32 = 8;

/// Names that have an address at the same time.
const MOST: usize = 4096;

/// Prefix of the same addresses in IPv6: a unique local one (RFC 4193) whose number spells the project.
const PREFIX: [u16; 6] = [0xfd6f, 0x7374, 0x6c65, 0x0072, 0, 0];

/// The names that have an address in one sandbox.
#[derive(Debug, Default)]
pub(super) struct Leases {
    seats: HashMap<u32, Lease>,
    /// Counts uses, to know which was the last.
    uses: u64,
}

#[derive(Debug)]
struct Lease {
    name: HostName,
    used: u64,
    /// Until when an answer of DNS holds.
    until: Instant,
}

impl Leases {
    /// The address of a name, as an answer of DNS that may be kept for `keep`; it gets one where it has none.
    pub(super) fn address(&mut self, name: &HostName, now: Instant, keep: Duration) -> Option<Ipv4Addr> {
        self.uses += 1;
        let choices = choices(name);
        let own = choices.iter().find(|seat| self.seats.get(seat).is_some_and(|lease| lease.name == *name));
        let free = || choices.iter().find(|seat| !self.seats.contains_key(seat));
        let over = |lease: &Lease| lease.until <= now;
        let last = || {
            let over = choices.iter().filter(|seat| self.seats.get(seat).is_some_and(over));
            over.min_by_key(|seat| self.seats.get(seat).map_or(0, |lease| lease.used))
        };
        let seat = *own.or_else(free).or_else(last)?;
        if self.seats.len() >= MOST && !self.seats.contains_key(&seat) {
            let over = self.seats.iter().filter(|(_, lease)| over(lease));
            let oldest = *over.min_by_key(|(_, lease)| lease.used)?.0;
            self.seats.remove(&oldest);
        }
        self.seats.insert(seat, Lease { name: name.clone(), used: self.uses, until: now + keep });
        Some(Ipv4Addr::from_bits(FIRST + seat))
    }

    /// The name that an address stands for.
    pub(super) fn name(&mut self, address: Ipv4Addr) -> Option<HostName> {
        self.uses += 1;
        let lease = self.seats.get_mut(&address.to_bits().checked_sub(FIRST)?)?;
        lease.used = self.uses;
        Some(lease.name.clone())
    }
}

/// The seats of a name, the preferred one first.
fn choices(name: &HostName) -> [u32; CHOICES as usize] {
    let digest = Sha256::digest(name.as_str());
    let mut number = 0;
    std::array::from_fn(|choice| {
        let part = &digest[choice * 4..choice * 4 + 4];
        part.iter().for_each(|byte| number = number << 8 | u32::from(*byte));
        number % SEATS
    })
}

/// The IPv6 twin of an address behind the door.
pub(super) fn in_v6(address: Ipv4Addr) -> Ipv6Addr {
    let [a, b, c, d, e, f] = PREFIX;
    let bits = address.to_bits();
    Ipv6Addr::new(a, b, c, d, e, f, (bits >> 16) as u16, bits as u16)
}

/// The address behind the door that was meant, whichever twin was written; others stay what they are.
pub(super) fn in_v4(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(twin) if twin.segments().starts_with(&PREFIX) => Ipv4Addr::from_bits(twin.to_bits() as u32).into(),
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(text: &str) -> HostName {
        text.parse().unwrap()
    }

    const KEEP: Duration = Duration::from_secs(60);

    /// The address of a name whose answer nobody keeps.
    fn address(leases: &mut Leases, text: &str) -> Ipv4Addr {
        leases.address(&name(text), Instant::now(), Duration::ZERO).unwrap()
    }

    #[test]
    fn a_name_keeps_its_address_and_has_the_same_one_in_another_life() {
        let (mut leases, mut later) = (Leases::default(), Leases::default());
        let first = address(&mut leases, "example.org");
        let other = address(&mut leases, "example.net");
        assert_ne!(first, other);
        assert_eq!(address(&mut leases, "EXAMPLE.org."), first);
        assert_eq!(leases.name(first), Some(name("example.org")));
        assert_eq!(later.name(first), None);
        assert_eq!(address(&mut later, "example.org"), first);
    }

    #[test]
    fn no_two_names_share_an_address_and_there_are_never_too_many() {
        let mut leases = Leases::default();
        for number in 0..3 * MOST {
            let text = format!("n{number}.example.org");
            let address = address(&mut leases, &text);
            assert_eq!(leases.name(address), Some(name(&text)));
            assert!(leases.seats.len() <= MOST);
            let [first, second, third, _] = address.octets();
            assert!(first == 198 && (18..=19).contains(&second) && (second, third) != (18, 0), "{address}");
        }
    }

    #[test]
    fn the_name_that_was_used_longest_ago_loses_its_address() {
        let mut leases = Leases::default();
        let first = address(&mut leases, "first.example");
        let second = address(&mut leases, "second.example");
        leases.name(first);
        (0..MOST - 1).for_each(|number| {
            address(&mut leases, &format!("n{number}.example"));
        });
        assert_eq!(leases.name(second), None);
        assert_eq!(leases.name(first), Some(name("first.example")));
    }

    #[test]
    fn an_address_stands_for_no_other_name_while_its_answer_may_be_kept() {
        let (mut leases, now) = (Leases::default(), Instant::now());
        let given: Vec<_> =
            (0..MOST).map(|number| (number, leases.address(&name(&format!("n{number}.example")), now, KEEP))).collect();
        let late = now + KEEP - Duration::from_millis(1);
        assert_eq!(leases.address(&name("more.example"), late, KEEP), None);
        for (number, address) in given {
            // Where all seats of a name are taken it has none, instead of another's.
            let Some(address) = address else { continue };
            assert_eq!(leases.name(address), Some(name(&format!("n{number}.example"))));
        }
        assert!(leases.address(&name("more.example"), now + KEEP, KEEP).is_some());
    }

    #[test]
    fn both_twins_mean_the_same() {
        let address = Ipv4Addr::new(198, 18, 1, 7);
        assert_eq!(in_v6(address).to_string(), "fd6f:7374:6c65:72::c612:107");
        assert_eq!(in_v4(in_v6(address).into()), IpAddr::from(address));
        assert_eq!(in_v4("::ffff:198.18.1.7".parse().unwrap()), IpAddr::from(address));
        let foreign: IpAddr = "2001:db8::1".parse().unwrap();
        assert_eq!(in_v4(foreign), foreign);
    }
}
