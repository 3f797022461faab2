//! Where requests come from before anything else is known of them, and what one address may take up.
//!
//! | of one address | at most | else |
//! |---|---|---|
//! | requests a second that are under way, or turned out not to be authenticated | 100 | 429 |
//! | bytes of bodies that aren't authenticated yet | 4 MiB, of all together 64 MiB | 503 |
//!
//! **Invariant:** an address is the connection's, unless that is of a proxy which is trusted: what anybody may write
//! into a header hides nobody, and takes nothing from others.

use std::{
    collections::HashMap,
    net::{IpAddr, Ipv6Addr},
    sync::{Mutex, MutexGuard, PoisonError},
};

use axum::http::HeaderMap;

use crate::{access::rates::Rates, webhooks::address::Net};

/// So many bytes of bodies that aren't authenticated are held at a time, and so many of one address.
const ROOM_BYTES: usize = 64 << 20;
const ROOM_OF_ONE_BYTES: usize = 4 << 20;
/// Requests a second of one address that turn out not to be authenticated.
const FAILURES: f64 = 100.0;

/// The addresses that requests come from.
#[derive(Debug, Default)]
pub struct Senders {
    trusted_proxies: Vec<Net>,
    failures: Mutex<Rates<IpAddr>>,
    /// Bytes of bodies that aren't authenticated.
    held: Mutex<Held>,
}

/// The bytes of bodies that aren't authenticated yet.
#[derive(Debug, Default)]
struct Held {
    all: usize,
    of: HashMap<IpAddr, usize>,
}

/// The room that a body takes, until this is dropped.
#[derive(Debug)]
pub struct Room<'a> {
    senders: &'a Senders,
    sender: IpAddr,
    bytes: usize,
}

impl Room<'_> {
    /// Takes so many bytes more, where they are free.
    pub fn grow(&mut self, bytes: usize) -> bool {
        let mut held = self.senders.held();
        let of_sender = held.of.get(&self.sender).copied().unwrap_or_default();
        let fits = held.all + bytes <= ROOM_BYTES && of_sender + bytes <= ROOM_OF_ONE_BYTES;
        if fits {
            held.all += bytes;
            held.of.insert(self.sender, of_sender + bytes);
            self.bytes += bytes;
        }
        fits
    }
}

impl Drop for Room<'_> {
    fn drop(&mut self) {
        let mut held = self.senders.held();
        held.all -= self.bytes;
        if let Some(of_sender) = held.of.get_mut(&self.sender) {
            *of_sender -= self.bytes;
            if *of_sender == 0 {
                held.of.remove(&self.sender);
            }
        }
    }
}

impl Senders {
    /// Those behind `trusted_proxies`, and everybody else.
    pub fn new(trusted_proxies: Vec<Net>) -> Senders {
        Senders { trusted_proxies, ..Senders::default() }
    }

    /// Whose address a request is of: the connection's, or what the last proxy that is trusted says.
    pub fn peer(&self, connection: IpAddr, headers: &HeaderMap) -> IpAddr {
        let is_trusted =
            |address: IpAddr| self.trusted_proxies.iter().any(|net| net.contains(address));
        let mut peer = connection.to_canonical();
        let lines = headers.get_all("x-forwarded-for").iter().rev();
        // As bytes: what a client put before a proxy's word must not make that unreadable.
        for hop in lines.flat_map(|line| line.as_bytes().rsplit(|byte| *byte == b',')) {
            if !is_trusted(peer) {
                break;
            }
            let text = str::from_utf8(hop.trim_ascii()).unwrap_or_default();
            let Ok(before) = text.parse::<IpAddr>() else { break };
            peer = before.to_canonical();
        }
        peer
    }

    /// Room for a body of an address that isn't authenticated; it grows.
    pub fn room(&self, peer: IpAddr) -> Room<'_> {
        Room { senders: self, sender: sender(peer), bytes: 0 }
    }

    fn held(&self) -> MutexGuard<'_, Held> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Lets a request of an address be looked at; seconds to wait where too many of its were nothing.
    pub fn look_at(&self, peer: IpAddr, now_ms: i64) -> Result<(), u64> {
        self.failures().take(&sender(peer), FAILURES, now_ms)
    }

    /// It was authenticated, and doesn't count.
    pub fn was_good(&self, peer: IpAddr) {
        self.failures().give_back(&sender(peer));
    }

    fn failures(&self) -> MutexGuard<'_, Rates<IpAddr>> {
        self.failures.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whom a rate is for: an address, of IPv6 the network of 64 bits that one subscriber has at least.
fn sender(peer: IpAddr) -> IpAddr {
    match peer {
        IpAddr::V4(_) => peer,
        IpAddr::V6(address) => {
            Ipv6Addr::from_bits(address.to_bits() & !u128::from(u64::MAX)).into()
        }
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test may panic")]

    use axum::http::HeaderValue;

    use super::*;

    const ONE: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 1));
    const OTHER: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 2));

    #[test]
    fn who_sends_is_said_by_the_connection_or_by_proxies_that_are_trusted() {
        let nets = ["127.0.0.1", "10.0.0.0/8", "fd00::/8"];
        let senders = Senders::new(nets.iter().map(|net| Net::parse(net).unwrap()).collect());
        let cases: &[(&str, &[&[u8]], &str)] = &[
            ("127.0.0.1", &[], "127.0.0.1"),
            ("127.0.0.1", &[b"203.0.113.7"], "203.0.113.7"),
            ("::ffff:127.0.0.1", &[b"::ffff:203.0.113.7"], "203.0.113.7"),
            ("fd00::1", &[b"2001:db8::7"], "2001:db8::7"),
            // Whoever isn't trusted may write what they like.
            ("127.0.0.2", &[b"203.0.113.7"], "127.0.0.2"),
            ("203.0.113.9", &[b"127.0.0.1"], "203.0.113.9"),
            // From the right, over those that are trusted; what stands before is the client's own word.
            ("127.0.0.1", &[b"203.0.113.7, 10.0.0.2"], "203.0.113.7"),
            ("127.0.0.1", &[b"198.51.100.1, 203.0.113.7, 10.0.0.2 ,10.9.9.9"], "203.0.113.7"),
            ("127.0.0.1", &[b"198.51.100.1, 203.0.113.7"], "203.0.113.7"),
            ("127.0.0.1", &[b"10.0.0.3, 10.0.0.2"], "10.0.0.3"),
            ("127.0.0.1", &[b"198.51.100.1", b"203.0.113.7", b"10.0.0.2"], "203.0.113.7"),
            // Where it can't be read, whoever was read last.
            ("127.0.0.1", &[b""], "127.0.0.1"),
            ("127.0.0.1", &[b"unknown"], "127.0.0.1"),
            ("127.0.0.1", &[b"203.0.113.7, 10.0.0.2, _hidden"], "127.0.0.1"),
            ("127.0.0.1", &[b"203.0.113.7, nobody, 10.0.0.2"], "10.0.0.2"),
            ("127.0.0.1", &[b"203.0.113.7,, 10.0.0.2"], "10.0.0.2"),
            ("127.0.0.1", &[b"198.51.100.1", b"999.1.1.1"], "127.0.0.1"),
            // What isn't text hides neither the word of the proxy behind it, nor that it can't be read.
            ("127.0.0.1", &[b"198.51.100.1", b"\xff, 203.0.113.7"], "203.0.113.7"),
            ("127.0.0.1", &[b"198.51.100.1", b"\xff"], "127.0.0.1"),
        ];
        for (connection, lines, wanted) in cases {
            let mut headers = HeaderMap::new();
            for line in *lines {
                headers.append("x-forwarded-for", HeaderValue::from_bytes(line).unwrap());
            }
            let peer = senders.peer(connection.parse().unwrap(), &headers);
            assert_eq!(peer.to_string(), *wanted, "{connection} {headers:?}");
        }
    }

    #[test]
    fn without_proxies_a_header_says_nothing() {
        let mut headers = HeaderMap::new();
        headers.insert("x-forwarded-for", HeaderValue::from_static("203.0.113.7"));
        assert_eq!(Senders::default().peer(ONE, &headers), ONE);
    }

    #[test]
    fn one_address_has_its_part_of_the_room_and_gives_it_back() {
        let senders = Senders::default();
        let mut first = senders.room(ONE);
        let mut second = senders.room(ONE);
        assert!(first.grow(ROOM_OF_ONE_BYTES - 1) && second.grow(1) && !second.grow(1));
        assert!(senders.room(OTHER).grow(ROOM_OF_ONE_BYTES), "another has its own");
        drop(first);
        assert!(second.grow(ROOM_OF_ONE_BYTES - 1) && !second.grow(1));
        drop(second);
        let held = senders.held();
        assert!(held.all == 0 && held.of.is_empty(), "{held:?}");
    }

    #[test]
    fn all_together_have_a_bound_too() {
        let senders = Senders::default();
        let of = |number: usize| IpAddr::from([192, 0, 2, number as u8]);
        let many = ROOM_BYTES / ROOM_OF_ONE_BYTES;
        let mut rooms: Vec<_> = (0..many).map(|number| senders.room(of(number))).collect();
        assert!(rooms.iter_mut().all(|room| room.grow(ROOM_OF_ONE_BYTES)));
        assert!(!senders.room(of(many)).grow(1));
        rooms.pop();
        assert!(senders.room(of(many)).grow(1));
    }

    #[test]
    fn what_turns_out_to_be_nothing_counts_against_its_address_or_its_network() {
        let senders = Senders::default();
        let looked_at = |peer| senders.look_at(peer, 0);
        for _ in 0..100 {
            assert_eq!(looked_at(ONE), Ok(()));
            assert_eq!(looked_at(OTHER), Ok(()));
            senders.was_good(OTHER);
        }
        assert_eq!(looked_at(ONE), Err(1));
        assert_eq!(looked_at(OTHER), Ok(()), "what was good doesn't count");
        assert_eq!(senders.look_at(ONE, 10), Ok(()), "a hundred a second");
        let of = |last: u16| IpAddr::from([0x2001, 0xdb8, 0, 1, 0, 0, 0, last]);
        let taken = (0..200).filter(|last| looked_at(of(*last)).is_ok()).count();
        assert_eq!(taken, 100, "of one network they are one");
        assert_eq!(looked_at(IpAddr::from([0x2001, 0xdb8, 0, 2, 0, 0, 0, 1])), Ok(()));
    }
}
