//! Who may come in: users whose passwords are known by SCRAM verifiers only, and encryption.
//!
//! | users | certificate | who comes in |
//! |---|---|---|
//! | none | none | everybody, on addresses of this machine only |
//! | some | none | those users, on addresses of this machine only |
//! | none | there | nobody: that isn't a configuration |
//! | some | there | those users, encrypted, on any address |
//!
//! **Invariant:** no password is kept: what is made of it when the process starts can't be turned back.

use std::{
    collections::BTreeMap,
    fmt,
    hash::{BuildHasher, RandomState},
    num::NonZeroU32,
    sync::Arc,
};

use base64::{Engine, engine::general_purpose::STANDARD};
use ring::{digest, hmac, pbkdf2, rand::SecureRandom};
use tokio_rustls::{TlsAcceptor, rustls::ServerConfig};

/// The application protocol that clients name which begin with TLS at once.
const ALPN: &[u8] = b"postgresql";
/// How often a password is hashed: PostgreSQL's number, and the least that RFC 7677 allows.
pub(super) const ITERATIONS: u32 = 4096;
/// Bytes of a salt, as PostgreSQL has it.
const SALT_BYTES: usize = 16;
/// How a verifier begins, as PostgreSQL keeps it.
const VERIFIER: &str = "SCRAM-SHA-256$";

/// Who may come in, and how.
#[derive(Default)]
pub struct Access {
    users: Option<Arc<Users>>,
    tls: Option<TlsAcceptor>,
}

/// Users by name.
#[derive(Clone, Default)]
pub struct Users {
    known: BTreeMap<String, Verifier>,
    /// Stands in for whoever isn't known, so that asking tells nothing about who is.
    nobody: Verifier,
    /// Makes the salt of an unknown name, the same each time.
    salts: RandomState,
}

/// What proves that somebody knows a password.
#[derive(Clone)]
pub(super) struct Verifier {
    pub(super) salt: Vec<u8>,
    pub(super) iterations: u32,
    /// Hash of the client's key.
    pub(super) stored_key: Vec<u8>,
    pub(super) server_key: Vec<u8>,
}

impl Access {
    /// Everybody on this machine.
    pub fn everybody() -> Access {
        Access::default()
    }

    /// These users; with a certificate only encrypted.
    pub fn of(users: Users, certificate: Option<ServerConfig>) -> Access {
        let tls = certificate.map(|mut config| {
            config.alpn_protocols = vec![ALPN.to_vec()];
            TlsAcceptor::from(Arc::new(config))
        });
        Access { users: Some(Arc::new(users)), tls }
    }

    /// Whether strangers from other machines are kept out.
    pub(super) fn is_for_everywhere(&self) -> bool {
        self.users.is_some() && self.tls.is_some()
    }

    /// How connections are encrypted; `None` where they aren't.
    pub(super) fn tls(&self) -> Option<&TlsAcceptor> {
        self.tls.as_ref()
    }

    /// Who has to prove who it is; `None` where nobody has to.
    pub(super) fn users(&self) -> Option<&Arc<Users>> {
        self.users.as_ref()
    }
}

impl fmt::Debug for Access {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let users = self.users.as_ref().map(|users| users.known.len());
        f.debug_struct("Access").field("users", &users).field("tls", &self.tls.is_some()).finish()
    }
}

impl Users {
    /// Adds a user with a password, or with a verifier as PostgreSQL keeps it:
    /// `SCRAM-SHA-256$iterations:salt$stored key:server key`.
    pub fn add(&mut self, name: &str, secret: &str) -> Result<(), String> {
        if name.is_empty() || secret.is_empty() {
            return Err("a user has a name and a password".to_owned());
        }
        let verifier = if secret.starts_with(VERIFIER) {
            Verifier::parse(secret).ok_or("that isn't a verifier as PostgreSQL writes it")?
        } else {
            Verifier::of(secret)
        };
        self.known.insert(name.to_owned(), verifier);
        Ok(())
    }

    /// Whether there is nobody.
    pub fn is_empty(&self) -> bool {
        self.known.is_empty()
    }

    /// What proves that somebody is `name`.
    pub(super) fn verifier(&self, name: &str) -> Verifier {
        let unknown = || {
            let half = |part: u8| self.salts.hash_one((name, part)).to_be_bytes();
            Verifier { salt: [half(0), half(1)].concat(), ..self.nobody.clone() }
        };
        self.known.get(name).cloned().unwrap_or_else(unknown)
    }
}

impl fmt::Debug for Users {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.known.keys()).finish()
    }
}

impl Verifier {
    fn of(password: &str) -> Verifier {
        Verifier::salted(password, random::<SALT_BYTES>().to_vec(), ITERATIONS)
    }

    fn salted(password: &str, salt: Vec<u8>, iterations: u32) -> Verifier {
        // What can't be prepared is taken as it stands, as PostgreSQL does.
        let prepared = stringprep::saslprep(password).unwrap_or(password.into());
        let mut salted = [0; digest::SHA256_OUTPUT_LEN];
        let count = NonZeroU32::new(iterations).unwrap_or(NonZeroU32::MIN);
        pbkdf2::derive(pbkdf2::PBKDF2_HMAC_SHA256, count, &salt, prepared.as_bytes(), &mut salted);
        let client_key = keyed(&salted, b"Client Key");
        let stored_key = digest::digest(&digest::SHA256, &client_key).as_ref().to_vec();
        Verifier { salt, iterations, stored_key, server_key: keyed(&salted, b"Server Key") }
    }

    fn parse(text: &str) -> Option<Verifier> {
        let (iterations, rest) = text.strip_prefix(VERIFIER)?.split_once(':')?;
        let (salt, keys) = rest.split_once('$')?;
        let (stored, server) = keys.split_once(':')?;
        let key = |text: &str| {
            STANDARD.decode(text).ok().filter(|key| key.len() == digest::SHA256_OUTPUT_LEN)
        };
        Some(Verifier {
            salt: STANDARD.decode(salt).ok()?,
            iterations: iterations.parse().ok().filter(|count| *count >= ITERATIONS)?,
            stored_key: key(stored)?,
            server_key: key(server)?,
        })
    }
}

/// HMAC-SHA-256.
pub(super) fn keyed(key: &[u8], text: &[u8]) -> Vec<u8> {
    hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, key), text).as_ref().to_vec()
}

/// Bytes that nobody can guess.
pub(super) fn random<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    // The system's source doesn't fail once it has given anything.
    ring::rand::SystemRandom::new().fill(&mut bytes).expect("the system has random numbers");
    bytes
}

impl Default for Verifier {
    /// Of a password that nobody knows.
    fn default() -> Verifier {
        Verifier::of(&STANDARD.encode(random::<32>()))
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test may panic")]

    use super::*;

    #[test]
    fn verifiers_are_read_as_postgresql_writes_them() {
        // Of the password `pencil`, as RFC 7677 has it.
        let text = "SCRAM-SHA-256$4096:W22ZaJ0SNY7soEsUEjb6gQ==$WG5d8oPm3OtcPnkdi4Uo7BkeZkBFzpcXkuLmtbsT4qY=:\
                    wfPLwcE6nTWhTAmQ7tl2KeoiWGPlZqQxSrmfPwDl2dU=";
        let read = Verifier::parse(text).unwrap();
        let made = Verifier::salted("pencil", read.salt.clone(), 4096);
        assert_eq!((&read.stored_key, &read.server_key), (&made.stored_key, &made.server_key));
        let mut users = Users::default();
        users.add("one", text).unwrap();
        for broken in ["SCRAM-SHA-256$", "SCRAM-SHA-256$1:W22Z$AA==:AA==", ""] {
            assert!(users.add("two", broken).is_err(), "{broken}");
        }
        assert!(!format!("{users:?}").contains("WG5d"), "nothing secret is printed");
    }

    #[test]
    fn an_unknown_name_has_a_salt_of_its_own() {
        let users = Users::default();
        assert_eq!(users.verifier("a").salt, users.verifier("a").salt);
        assert_ne!(users.verifier("a").salt, users.verifier("b").salt);
        assert_ne!(users.verifier("a").stored_key, Verifier::of("").stored_key);
    }
}
