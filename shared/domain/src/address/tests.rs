//! The table of addresses that no request goes to, copied from the registries by hand and apart from the
//! code, so that a slip in one of the two shows.

use super::*;
use crate::subscription::literal_address;
use ipnet::IpNet;
use proptest::prelude::*;
use url::Url;

/// Ranges by the registry or RFC that has them. All of each is refused.
const REFUSED: [(&str, &str); 51] = [
    // IANA IPv4 Special-Purpose Address Registry.
    ("0.0.0.0/8", "RFC 791"),
    ("0.0.0.0/32", "RFC 1122"),
    ("10.0.0.0/8", "RFC 1918"),
    ("100.64.0.0/10", "RFC 6598"),
    ("127.0.0.0/8", "RFC 1122"),
    ("169.254.0.0/16", "RFC 3927"),
    ("172.16.0.0/12", "RFC 1918"),
    ("192.0.0.0/24", "RFC 6890"),
    ("192.0.0.0/29", "RFC 7335"),
    ("192.0.0.8/32", "RFC 7600"),
    ("192.0.0.9/32", "RFC 7723"),
    ("192.0.0.10/32", "RFC 8155"),
    ("192.0.0.170/31", "RFC 7050"),
    ("192.0.2.0/24", "RFC 5737"),
    ("192.31.196.0/24", "RFC 7535"),
    ("192.52.193.0/24", "RFC 7450"),
    ("192.88.99.0/24", "RFC 7526"),
    ("192.168.0.0/16", "RFC 1918"),
    ("192.175.48.0/24", "RFC 7534"),
    ("198.18.0.0/15", "RFC 2544"),
    ("198.51.100.0/24", "RFC 5737"),
    ("203.0.113.0/24", "RFC 5737"),
    ("240.0.0.0/4", "RFC 1112"),
    ("255.255.255.255/32", "RFC 919"),
    // IANA IPv4 Multicast Address Space Registry.
    ("224.0.0.0/4", "RFC 5771"),
    // IANA IPv6 Special-Purpose Address Registry.
    ("::1/128", "RFC 4291"),
    ("::/128", "RFC 4291"),
    ("64:ff9b:1::/48", "RFC 8215"),
    ("100::/64", "RFC 6666"),
    ("100:0:0:1::/64", "RFC 9780"),
    ("2001::/23", "RFC 2928"),
    ("2001::/32", "RFC 4380"),
    ("2001:1::1/128", "RFC 7723"),
    ("2001:1::2/128", "RFC 8155"),
    ("2001:2::/48", "RFC 5180"),
    ("2001:3::/32", "RFC 7450"),
    ("2001:4:112::/48", "RFC 7535"),
    ("2001:10::/28", "RFC 4843"),
    ("2001:20::/28", "RFC 7343"),
    ("2001:30::/28", "RFC 9374"),
    ("2001:db8::/32", "RFC 3849"),
    ("2002::/16", "RFC 3056"),
    ("2620:4f:8000::/48", "RFC 7534"),
    ("3fff::/20", "RFC 9637"),
    ("5f00::/16", "RFC 9602"),
    ("fc00::/7", "RFC 4193"),
    ("fe80::/10", "RFC 4291"),
    // Not in that registry (any more), and no less special.
    ("::/96", "RFC 4291, IPv4-compatible"),
    ("::ffff:0:0:0/96", "RFC 2765, IPv4-translated"),
    ("fec0::/10", "RFC 3879, site-local"),
    ("ff00::/8", "RFC 4291, multicast"),
];

/// Where clouds tell their machines who they are, with keys to more.
const METADATA: [(&str, &str); 9] = [
    ("169.254.169.254", "AWS, Google, Azure, Oracle, DigitalOcean, OpenStack"),
    ("169.254.170.2", "AWS ECS"),
    ("169.254.0.23", "Tencent"),
    ("100.100.100.200", "Alibaba"),
    ("192.0.0.192", "Oracle, classic"),
    ("168.63.129.16", "Azure's wire server"),
    ("fd00:ec2::254", "AWS"),
    ("fd20:ce::254", "Google"),
    ("fe80::a9fe:a9fe", "OpenStack"),
];

fn permits(address: &str) -> bool {
    EgressPolicy::default().permits(address.parse().unwrap())
}

/// The addresses just outside a network.
fn neighbours(network: IpNet) -> Vec<IpAddr> {
    match network {
        IpNet::V4(it) => {
            let (first, last) = (it.network().to_bits(), it.broadcast().to_bits());
            let outside = [first.checked_sub(1), last.checked_add(1)];
            outside
                .into_iter()
                .flatten()
                .map(|bits| Ipv4Addr::from_bits(bits).into())
                .collect()
        }
        IpNet::V6(it) => {
            let (first, last) = (it.network().to_bits(), it.broadcast().to_bits());
            let outside = [first.checked_sub(1), last.checked_add(1)];
            outside
                .into_iter()
                .flatten()
                .map(|bits| Ipv6Addr::from_bits(bits).into())
                .collect()
        }
    }
}

#[test]
fn every_special_range_is_refused_from_its_first_to_its_last_address_and_no_further() {
    let policy = EgressPolicy::default();
    let refused: Vec<IpNet> = REFUSED.iter().map(|(network, _)| network.parse().unwrap()).collect();
    let global: IpNet = "2000::/3".parse().unwrap();
    for (network, (text, source)) in refused.iter().zip(REFUSED) {
        for inside in [network.network(), network.broadcast()] {
            assert!(!policy.permits(inside), "{inside} of {text}, {source}");
        }
        for outside in neighbours(*network) {
            let elsewhere = refused.iter().any(|other| other.contains(&outside));
            let public = !elsewhere && (outside.is_ipv4() || global.contains(&outside));
            assert_eq!(policy.permits(outside), public, "{outside} beside {text}, {source}");
        }
    }
}

#[test]
fn metadata_is_refused_wherever_a_cloud_keeps_it() {
    for (address, cloud) in METADATA {
        assert!(!permits(address), "{address} of {cloud}");
    }
    assert!(permits("168.63.129.15") && permits("168.63.129.17"));
}

#[test]
fn public_addresses_are_permitted() {
    for public in [
        "1.1.1.1",
        "8.8.8.8",
        "9.255.255.255",
        "11.0.0.0",
        "172.32.0.1",
        "100.128.0.1",
        "192.0.1.1",
        "223.255.255.255",
        "2001:200::1",
        "2606:4700::1111",
        "2a00:1450::1",
        "::ffff:8.8.8.8",
        "64:ff9b::808:808",
    ] {
        assert!(permits(public), "{public}");
    }
}

#[test]
fn what_leads_to_an_inner_ipv4_address_is_refused_as_that_address_is() {
    for (forbidden, how) in [
        ("::ffff:127.0.0.1", "mapped"),
        ("::ffff:169.254.169.254", "mapped"),
        ("::127.0.0.1", "compatible"),
        ("::8.8.8.8", "compatible, which nothing routes any more"),
        ("::ffff:0:127.0.0.1", "translated by SIIT"),
        ("64:ff9b::a9fe:a9fe", "translated, NAT64"),
        ("64:ff9b::7f00:1", "translated, NAT64"),
        ("64:ff9b::1:0:808:808", "beside the prefix of NAT64"),
        ("64:ff9b:1::7f00:1", "translated by a local prefix"),
        (
            "64:ff9b:1:a9fe:a9:fe00:808:808",
            "translated by a local prefix of 48 bits",
        ),
        ("2002:7f00:1::", "6to4"),
        ("2002:808:808::1", "6to4, which is given up"),
        ("2001:0:808:808::f5ff:fffe", "Teredo"),
        ("2606:4700::5efe:a00:1", "ISATAP"),
        ("2606:4700::200:5efe:192.168.1.1", "ISATAP, universal"),
        ("fe80::5efe:808:808", "ISATAP, link-local"),
        ("4000::1", "not global unicast"),
    ] {
        assert!(!permits(forbidden), "{forbidden}: {how}");
    }
    assert!(permits("2606:4700::5efe:808:808"), "ISATAP, both public");
}

#[test]
fn the_operator_may_allow_more() {
    let networks = ["127.0.0.0/8", "fd00::/8", "64:ff9b:1::/48"];
    let policy = EgressPolicy::new(networks.map(|network| network.parse().unwrap()).to_vec());
    for allowed in [
        "127.0.0.1",
        "::ffff:127.0.0.1",
        "64:ff9b::7f00:1",
        "fd12::1",
        "64:ff9b:1::a00:1",
        "8.8.8.8",
    ] {
        assert!(policy.permits(allowed.parse().unwrap()), "{allowed}");
    }
    for forbidden in [
        "10.0.0.1",
        "::1",
        "::127.0.0.1",
        "2002:7f00:1::",
        "fe80::1",
        "64:ff9b::a00:1",
    ] {
        assert!(!policy.permits(forbidden.parse().unwrap()), "{forbidden}");
    }
}

#[test]
fn no_way_of_writing_an_address_in_a_url_hides_it() {
    for host in [
        "127.0.0.1",
        "127.0.0.1.",
        "127.1",
        "127.0.1",
        "2130706433",
        "2130706433.",
        "0x7f000001",
        "0x7f.1",
        "0X7F.0.0.1",
        "0177.0.0.1",
        "017700000001",
        "0177.0x0.0.1",
        "0",
        "0x",
        "127.0.0.01",
        "%31%32%37.0.0.1",
        "127%2e0%2e0%2e1",
        "\u{ff11}\u{ff12}\u{ff17}.0.0.1",
        "127\u{3002}0\u{3002}0\u{3002}1",
        "\u{2460}\u{2461}\u{2466}.0.0.1",
        "\u{1d7cf}\u{1d7d0}\u{1d7d5}.0.0.1",
        "1\u{ad}27.0.0.1",
        "169.254.43518",
        "0xa9fea9fe",
        "2852039166",
        "[::1]",
        "[0:0:0:0:0:0:0:1]",
        "[::]",
        "[::ffff:127.0.0.1]",
        "[::FFFF:7F00:1]",
        "[0:0:0:0:0:ffff:169.254.169.254]",
        "[64:ff9b::127.0.0.1]",
        "[fe80::1]",
    ] {
        let url = Url::parse(&format!("http://{host}:8080/hook")).unwrap_or_else(|error| panic!("{host}: {error}"));
        let address = literal_address(&url).unwrap_or_else(|| panic!("{host} passes as the name {:?}", url.host()));
        assert!(!EgressPolicy::default().permits(address), "{host} is {address}");
    }
    // What looks like an address and is none is no URL either, so that no resolver gets to guess.
    for host in [
        "256.0.0.1",
        "127.0.0.256",
        "1.2.3.4.5",
        "[::1%25lo]",
        "[127.0.0.1]",
        "0x100000000",
    ] {
        assert!(Url::parse(&format!("http://{host}/")).is_err(), "{host}");
    }
}

proptest! {
    #[test]
    fn an_ipv4_address_is_judged_alike_however_it_is_written(bits: u32) {
        let policy = EgressPolicy::default();
        let v4 = Ipv4Addr::from(bits);
        let [a, b, c, d] = v4.octets();
        let permitted = policy.permits(v4.into());
        let translated = Ipv6Addr::from_bits(0x0064_ff9b << 96 | u128::from(bits));
        prop_assert_eq!(policy.permits(v4.to_ipv6_mapped().into()), permitted);
        prop_assert_eq!(policy.permits(translated.into()), permitted);
        let isatap = Ipv6Addr::from_bits(0x2606_4700_u128 << 96 | 0x5efe << 32 | u128::from(bits));
        prop_assert_eq!(policy.permits(isatap.into()), permitted);
        for host in [
            format!("{bits}"), format!("{bits:#x}"), format!("0{bits:o}"), format!("{a}.{b}.{c}.{d}."),
            format!("{a:#x}.{b}.{}", u32::from(c) << 8 | u32::from(d)), format!("0{a:o}.{}", bits & 0x00ff_ffff),
            format!("[{}]", v4.to_ipv6_mapped()),
        ] {
            let url = Url::parse(&format!("http://{host}/")).unwrap();
            let address = literal_address(&url).expect("a literal address");
            prop_assert_eq!(policy.permits(address), permitted, "{}", host);
        }
    }

    #[test]
    fn an_ipv6_address_outside_global_unicast_is_never_public(bits: u128) {
        let v6 = Ipv6Addr::from_bits(bits);
        let global = v6.segments()[0] & 0xe000 == 0x2000;
        let stands_for_v4 = v6.to_ipv4_mapped().is_some() || TRANSLATED.contains(&v6);
        prop_assert!(global || stands_for_v4 || !EgressPolicy::default().permits(v6.into()), "{}", v6);
    }
}
