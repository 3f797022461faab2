//! Which addresses may be dialled: public ones, and those that a policy allows by name.
//!
//! **Invariant:** what is allowed is listed, not what is forbidden: an IPv4 or IPv6 block that nobody
//! thought of is refused. IPv6 that carries an IPv4 address in it is refused as well, whatever it carries.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// A block of addresses: `10.0.0.0/8`, `::1/128`, or one address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Net {
    address: IpAddr,
    bits: u8,
}

impl Net {
    /// Reads a block.
    pub fn parse(text: &str) -> Result<Net, String> {
        let wrong = || format!("address {text:?}: one is wanted, or a block such as 10.0.0.0/8");
        let (address, bits) = match text.split_once('/') {
            None => (text, None),
            Some((address, bits)) => (address, Some(bits)),
        };
        let address: IpAddr = address.parse().map_err(|_| wrong())?;
        let most = if address.is_ipv4() { 32 } else { 128 };
        let bits = match bits {
            None => most,
            Some(bits) => bits.parse().ok().filter(|bits| *bits <= most).ok_or_else(wrong)?,
        };
        Ok(Net { address, bits })
    }

    /// Whether the address is in the block.
    pub fn contains(&self, address: IpAddr) -> bool {
        match (self.address, address) {
            (IpAddr::V4(net), IpAddr::V4(address)) => {
                let differ = net.to_bits() ^ address.to_bits();
                differ.checked_shr(32 - u32::from(self.bits)).unwrap_or(0) == 0
            }
            (IpAddr::V6(net), IpAddr::V6(address)) => {
                let differ = net.to_bits() ^ address.to_bits();
                differ.checked_shr(128 - u32::from(self.bits)).unwrap_or(0) == 0
            }
            _ => false,
        }
    }
}

/// Whether a connection to the address is allowed.
pub fn is_allowed(address: IpAddr, private: &[Net]) -> bool {
    is_public(address) || private.iter().any(|net| net.contains(address))
}

/// Whether an address is one that anybody on the internet can have.
fn is_public(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => is_public_v4(address),
        IpAddr::V6(address) => is_public_v6(address),
    }
}

/// Blocks of IPv4 that aren't global unicast, by the registry of special-purpose addresses (RFC 6890 and
/// what came after it).
const SPECIAL_V4: [([u8; 4], u32); 15] = [
    ([0, 0, 0, 0], 8),       // this network
    ([10, 0, 0, 0], 8),      // private
    ([100, 64, 0, 0], 10),   // shared, behind a carrier
    ([127, 0, 0, 0], 8),     // loopback
    ([169, 254, 0, 0], 16),  // link-local, where clouds have their metadata
    ([172, 16, 0, 0], 12),   // private
    ([192, 0, 0, 0], 24),    // protocol assignments
    ([192, 0, 2, 0], 24),    // documentation
    ([192, 88, 99, 0], 24),  // 6to4 relays, abolished
    ([192, 168, 0, 0], 16),  // private
    ([198, 18, 0, 0], 15),   // benchmarks
    ([198, 51, 100, 0], 24), // documentation
    ([203, 0, 113, 0], 24),  // documentation
    ([224, 0, 0, 0], 4),     // multicast
    ([240, 0, 0, 0], 4),     // reserved, and broadcast
];

fn is_public_v4(address: Ipv4Addr) -> bool {
    let bits = address.to_bits();
    !SPECIAL_V4
        .iter()
        .any(|(net, length)| (bits ^ Ipv4Addr::from(*net).to_bits()) >> (32 - length) == 0)
}

/// Global unicast is `2000::/3`; in it, `2001::/23` is for protocols (Teredo among them), `2001:db8::/32` and
/// `3fff::/20` for documentation, `2002::/16` carries IPv4.
fn is_public_v6(address: Ipv6Addr) -> bool {
    let [a, b, ..] = address.segments();
    let is_global = (a & 0xe000) == 0x2000;
    let is_special =
        (a == 0x2001 && (b < 0x200 || b == 0x0db8)) || a == 0x2002 || (a == 0x3fff && b < 0x1000);
    is_global && !is_special
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test may panic")]

    use super::*;

    fn allowed(text: &str, private: &[&str]) -> bool {
        let private: Vec<_> = private.iter().map(|net| Net::parse(net).unwrap()).collect();
        is_allowed(text.parse().unwrap(), &private)
    }

    #[test]
    fn only_public_addresses_are_dialled() {
        for address in [
            "127.0.0.1",
            "127.255.255.254",
            "0.0.0.0",
            "0.1.2.3",
            "10.0.0.1",
            "100.64.0.1",
            "100.127.255.255",
            "169.254.169.254",
            "172.16.0.1",
            "172.31.255.255",
            "192.168.1.1",
            "192.0.0.1",
            "192.0.2.1",
            "198.18.0.1",
            "198.19.255.255",
            "198.51.100.1",
            "203.0.113.1",
            "224.0.0.1",
            "239.255.255.255",
            "240.0.0.1",
            "255.255.255.255",
            "192.88.99.1",
            "::",
            "::1",
            "::ffff:10.0.0.1",
            "::ffff:8.8.8.8",
            "::127.0.0.1",
            "64:ff9b::a9fe:a9fe",
            "64:ff9b:1::1",
            "2002:7f00:1::",
            "2001:0:4136:e378::",
            "2001:db8::1",
            "3fff::1",
            "fec0::1",
            "fe80::1",
            "fc00::1",
            "fd12::1",
            "ff02::1",
            "100::1",
            "4000::1",
        ] {
            assert!(!allowed(address, &[]), "{address}");
        }
        for address in [
            "8.8.8.8",
            "1.1.1.1",
            "100.63.255.255",
            "100.128.0.1",
            "172.15.0.1",
            "172.32.0.1",
            "198.20.0.1",
            "223.255.255.255",
            "2606:4700:4700::1111",
            "2a00:1450:4001:82b::200e",
            "2001:4860:4860::8888",
        ] {
            assert!(allowed(address, &[]), "{address}");
        }
    }

    #[test]
    fn a_policy_allows_blocks_and_nothing_beside_them() {
        assert!(allowed("127.0.0.1", &["127.0.0.1"]) && !allowed("127.0.0.2", &["127.0.0.1"]));
        assert!(allowed("10.9.8.7", &["10.0.0.0/8"]) && !allowed("192.168.0.1", &["10.0.0.0/8"]));
        assert!(allowed("::1", &["::1/128"]) && !allowed("::ffff:127.0.0.1", &["127.0.0.0/8"]));
        assert!(allowed("192.168.3.4", &["0.0.0.0/0"]) && !allowed("fd00::1", &["0.0.0.0/0"]));
        for wrong in ["", "10", "10.0.0.0/33", "::/129", "localhost", "10.0.0.0/x", "0x7f.1"] {
            assert!(Net::parse(wrong).is_err(), "{wrong}");
        }
    }
}
