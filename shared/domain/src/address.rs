//! Which addresses a request may go to.
//!
//! Asked of every address after name resolution, at every connect: a name that was harmless when the
//! subscription was made may answer with an inner address later.
//!
//! What stands in IANA's registries of special-purpose addresses is refused whole, also the few entries
//! that the registries call globally reachable (AS112, AMT, anycast of PCP and TURN): no subscriber can
//! live there. An address that stands for an IPv4 address is judged by that one too, or not at all. What
//! cannot be seen is a translator with a prefix of the network's own (RFC 6052, 2.2): such a network must
//! itself keep what is inside from being reached through it.

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// IPv4 that no request goes to: the IANA IPv4 Special-Purpose Address Registry, multicast, and one address
/// that is only public by its number.
const REFUSED_V4: [Ipv4Net; 19] = [
    v4([0, 0, 0, 0], 8),        // this network, RFC 791
    v4([10, 0, 0, 0], 8),       // private, RFC 1918
    v4([100, 64, 0, 0], 10),    // shared, RFC 6598
    v4([127, 0, 0, 0], 8),      // loopback, RFC 1122
    v4([168, 63, 129, 16], 32), // what Azure tells its virtual machines, certificates among it, it tells there
    v4([169, 254, 0, 0], 16),   // link-local, RFC 3927, and with it the metadata of most clouds
    v4([172, 16, 0, 0], 12),    // private, RFC 1918
    v4([192, 0, 0, 0], 24),     // protocol assignments, RFC 6890
    v4([192, 0, 2, 0], 24),     // documentation, RFC 5737
    v4([192, 31, 196, 0], 24),  // AS112, RFC 7535
    v4([192, 52, 193, 0], 24),  // AMT, RFC 7450
    v4([192, 88, 99, 0], 24),   // 6to4 relays, RFC 7526
    v4([192, 168, 0, 0], 16),   // private, RFC 1918
    v4([192, 175, 48, 0], 24),  // AS112, RFC 7534
    v4([198, 18, 0, 0], 15),    // benchmarks, RFC 2544
    v4([198, 51, 100, 0], 24),  // documentation, RFC 5737
    v4([203, 0, 113, 0], 24),   // documentation, RFC 5737
    v4([224, 0, 0, 0], 4),      // multicast, RFC 5771
    v4([240, 0, 0, 0], 4),      // reserved, RFC 1112, and broadcast, RFC 919
];

/// Global unicast, RFC 4291: outside of it no IPv6 address is public. That leaves out, among others,
/// loopback, local-use translation (RFC 8215), discard-only (RFC 6666), segment identifiers (RFC 9602),
/// unique-local (RFC 4193), link-local, site-local and multicast addresses.
const GLOBAL_V6: Ipv6Net = v6([0x2000, 0, 0, 0], 3);

/// Within global unicast, what no request goes to: the IANA IPv6 Special-Purpose Address Registry.
const REFUSED_V6: [Ipv6Net; 5] = [
    v6([0x2001, 0, 0, 0], 23), // protocol assignments, RFC 2928: Teredo, benchmarks, ORCHID, AS112, ...
    v6([0x2001, 0x0db8, 0, 0], 32), // documentation, RFC 3849
    v6([0x2002, 0, 0, 0], 16), // 6to4, RFC 3056, given up by RFC 7526
    v6([0x2620, 0x004f, 0x8000, 0], 48), // AS112, RFC 7534
    v6([0x3fff, 0, 0, 0], 20), // documentation, RFC 9637
];

/// Addresses that a translator turns into the IPv4 address in their last 32 bits, RFC 6052.
const TRANSLATED: Ipv6Net = v6([0x0064, 0xff9b, 0, 0], 96);

const fn v4([a, b, c, d]: [u8; 4], length: u8) -> Ipv4Net {
    Ipv4Net::new_assert(Ipv4Addr::new(a, b, c, d), length)
}

const fn v6([a, b, c, d]: [u16; 4], length: u8) -> Ipv6Net {
    Ipv6Net::new_assert(Ipv6Addr::new(a, b, c, d, 0, 0, 0, 0), length)
}

/// Public addresses only, and what the operator allows besides.
#[derive(Debug, Clone, Default)]
pub struct EgressPolicy {
    allowed: Vec<IpNet>,
}

impl EgressPolicy {
    /// A policy that allows these networks in addition to the public ones.
    pub fn new(allowed: Vec<IpNet>) -> Self {
        Self { allowed }
    }

    /// Whether a request may go to that address.
    pub fn permits(&self, address: IpAddr) -> bool {
        match address {
            IpAddr::V4(v4) => self.permits_v4(v4),
            IpAddr::V6(v6) => self.permits_v6(v6),
        }
    }

    fn permits_v4(&self, v4: Ipv4Addr) -> bool {
        self.allows(v4.into()) || !REFUSED_V4.iter().any(|network| network.contains(&v4))
    }

    fn permits_v6(&self, v6: Ipv6Addr) -> bool {
        // A mapped address is that IPv4 address, to the kernel as to us.
        if let Some(v4) = v6.to_ipv4_mapped() {
            return self.permits_v4(v4);
        }
        if self.allows(v6.into()) {
            return true;
        }
        if TRANSLATED.contains(&v6) {
            return self.permits_v4(low_v4(v6));
        }
        let public = GLOBAL_V6.contains(&v6) && !REFUSED_V6.iter().any(|network| network.contains(&v6));
        public && isatap(v6).is_none_or(|v4| self.permits_v4(v4))
    }

    fn allows(&self, address: IpAddr) -> bool {
        self.allowed.iter().any(|network| network.contains(&address))
    }
}

/// The IPv4 address that an interface identifier of ISATAP tunnels to, RFC 5214, 6.1: it can stand behind
/// any prefix.
fn isatap(v6: Ipv6Addr) -> Option<Ipv4Addr> {
    let [.., universal, 0x5efe, _, _] = v6.segments() else {
        return None;
    };
    matches!(universal, 0x0000 | 0x0200).then(|| low_v4(v6))
}

fn low_v4(v6: Ipv6Addr) -> Ipv4Addr {
    let [.., a, b, c, d] = v6.octets();
    Ipv4Addr::new(a, b, c, d)
}

#[cfg(test)]
mod tests;
