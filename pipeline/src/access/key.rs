//! API keys: what a holder has, and what is kept of it.
//!
//! A key is `aion_`, twelve characters by which it is found, `_`, and 256 random bits. Only its prefix and its
//! SHA-256 are kept: so many random bits can't be guessed, and need no slow hash.

use std::fmt;

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use rand::Rng;
use ring::digest;

use crate::webhooks::wire::hex;

/// How each key begins.
const MARK: &str = "aion_";
/// How many characters of a key are its prefix, [`MARK`] included.
const PREFIX_CHARS: usize = 17;
/// The shortest key that is taken from elsewhere: what can be guessed is no key.
const MIN_CHARS: usize = 16;

/// The SHA-256 of a key.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Digest([u8; 32]);

impl Digest {
    /// The digest of a key.
    pub fn of(key: &[u8]) -> Digest {
        let mut bytes = [0; 32];
        bytes.copy_from_slice(digest::digest(&digest::SHA256, key).as_ref());
        Digest(bytes)
    }

    /// The digest of a key of `[http] keys`; a short one is refused.
    pub fn of_text(text: &str) -> Result<Digest, String> {
        if text.len() < MIN_CHARS || !text.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err(format!(
                "a key has {MIN_CHARS} printable ASCII characters or more and no blanks: `openssl rand -hex 32` \
                 makes a good one"
            ));
        }
        Ok(Digest::of(text.as_bytes()))
    }

    /// Reads the hexadecimal form.
    pub fn from_hex(text: &str) -> Result<Digest, String> {
        let wrong = || "64 hexadecimal digits are wanted: `aion keys new` prints them".to_owned();
        if text.len() != 64 || !text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return Err(wrong());
        }
        let mut bytes = [0; 32];
        for (at, byte) in bytes.iter_mut().enumerate() {
            *byte = u8::from_str_radix(&text[2 * at..2 * at + 2], 16).map_err(|_| wrong())?;
        }
        Ok(Digest(bytes))
    }

    /// The hexadecimal form.
    pub fn hex(&self) -> String {
        hex(&self.0)
    }

    /// Compares without telling by the time where two differ.
    pub fn is(&self, other: &Digest) -> bool {
        self.0.iter().zip(&other.0).fold(0, |all, (a, b)| all | (a ^ b)) == 0
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

/// A new key: its text, which is shown once, its prefix and its digest.
#[derive(Clone)]
pub struct NewKey {
    /// The key itself.
    pub text: String,
    /// What it is found by.
    pub prefix: String,
    /// What is kept of it.
    pub digest: Digest,
}

impl NewKey {
    /// Makes one of the system's random bits.
    pub fn make() -> NewKey {
        let mut random = rand::rng();
        let (name, secret): ([u8; 6], [u8; 32]) = (random.random(), random.random());
        let prefix = format!("{MARK}{}", hex(&name));
        let text = format!("{prefix}_{}", URL_SAFE_NO_PAD.encode(secret));
        let digest = Digest::of(text.as_bytes());
        NewKey { text, prefix, digest }
    }
}

impl fmt::Debug for NewKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("NewKey").field("prefix", &self.prefix).finish_non_exhaustive()
    }
}

/// The prefix of a key, where it has the form of one.
pub fn prefix(key: &str) -> Option<&str> {
    let prefix = key.get(..PREFIX_CHARS)?;
    (prefix.starts_with(MARK) && key.as_bytes().get(PREFIX_CHARS) == Some(&b'_')).then_some(prefix)
}

/// Whether a text can be a prefix.
pub fn is_prefix(text: &str) -> bool {
    let name = text.strip_prefix(MARK).unwrap_or_default();
    text.len() == PREFIX_CHARS && name.bytes().all(|byte| byte.is_ascii_alphanumeric())
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test may panic")]

    use super::*;

    #[test]
    fn a_new_key_is_found_by_its_prefix_and_known_by_its_digest() {
        let key = NewKey::make();
        assert_eq!(prefix(&key.text), Some(&*key.prefix));
        assert!(is_prefix(&key.prefix) && key.text.len() == 61, "{}", key.text.len());
        assert_eq!(Digest::of(key.text.as_bytes()), key.digest);
        assert_eq!(Digest::from_hex(&key.digest.hex()).unwrap(), key.digest);
        assert_ne!(NewKey::make().text, key.text);
        for shown in [format!("{key:?}"), format!("{:?}", key.digest)] {
            assert!(!shown.contains(&key.text[18..]) && !shown.contains(&key.digest.hex()));
        }
    }

    #[test]
    fn what_has_not_the_form_is_no_key() {
        for text in ["", "aion_", "aion_0123456789ab", "aion_0123456789abX", "éaion_0123456789ab_"]
        {
            assert_eq!(prefix(text), None, "{text}");
        }
        assert!(Digest::from_hex(&"0".repeat(63)).is_err());
        assert!(Digest::from_hex(&"+1".repeat(32)).is_err());
        assert!(Digest::of_text("short").unwrap_err().contains("16"));
        assert!(Digest::of_text("with a blank in it").is_err());
    }

    #[test]
    fn digests_are_compared_as_a_whole() {
        let (one, mut other) = (Digest::of(b"a"), Digest::of(b"a"));
        assert!(one.is(&other));
        other.0[31] ^= 1;
        assert!(!one.is(&other));
    }
}
