//! When the certificates end that this process shows to others, or trusts others by.
//!
//! They are told of as they were read: a file that was renewed is of use once it is read again, for most at the next
//! start. Read by hand: of a certificate nothing is wanted but one time near its front.
//!
//! **Invariant:** nothing here keeps a process from starting; what can't be used is said by who needs it.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use tokio_rustls::rustls::pki_types::{CertificateDer, pem::PemObject};

use crate::job::times::parse_rfc3339;

/// One file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Certificate {
    /// Where the configuration names it: `http`, `kafka ca`.
    pub used_for: Arc<str>,
    /// The file.
    pub file: PathBuf,
    /// From when on it is of no use, in seconds since 1970.
    pub ends_s: i64,
}

/// All that a process uses.
#[derive(Clone, Debug, Default)]
pub struct Certificates(Vec<Certificate>);

impl Certificates {
    /// Adds a chain that is shown: it ends with the first of its certificates.
    pub fn shown(&mut self, used_for: &str, file: Option<&Path>) {
        self.add(used_for, file, Iterator::min);
    }

    /// Adds authorities that are trusted: they are of use until the last of them ends.
    pub fn trusted(&mut self, used_for: &str, file: Option<&Path>) {
        self.add(&format!("{used_for} ca"), file, Iterator::max);
    }

    fn add(
        &mut self,
        used_for: &str,
        file: Option<&Path>,
        of: fn(std::vec::IntoIter<i64>) -> Option<i64>,
    ) {
        let Some(file) = file else { return };
        if let Some(ends_s) = of(ends(file).into_iter()) {
            self.0.push(Certificate { used_for: used_for.into(), file: file.into(), ends_s });
        }
    }

    /// Each file.
    pub fn iter(&self) -> impl Iterator<Item = &Certificate> {
        self.0.iter()
    }
}

impl From<Vec<Certificate>> for Certificates {
    fn from(all: Vec<Certificate>) -> Certificates {
        Certificates(all)
    }
}

/// The end of each certificate of a PEM file; those that can't be read are left out.
fn ends(file: &Path) -> Vec<i64> {
    let Ok(all) = CertificateDer::pem_file_iter(file) else { return Vec::new() };
    all.filter_map(Result::ok).filter_map(|one| not_after(&one)).collect()
}

const SEQUENCE: u8 = 0x30;
/// The tag before everything else of a certificate that isn't of version 1.
const VERSION: u8 = 0xa0;
const UTC_TIME: u8 = 0x17;
const GENERALIZED_TIME: u8 = 0x18;

/// The end of a certificate's validity (RFC 5280, 4.1), in seconds since 1970.
fn not_after(der: &[u8]) -> Option<i64> {
    let (certificate, _) = inner(der, SEQUENCE)?;
    let (mut signed, _) = inner(certificate, SEQUENCE)?;
    if signed.first() == Some(&VERSION) {
        signed = element(signed)?.rest;
    }
    // Its number, how it is signed, who signed it.
    for _ in 0..3 {
        signed = element(signed)?.rest;
    }
    let (validity, _) = inner(signed, SEQUENCE)?;
    let end = element(element(validity)?.rest)?;
    time(end.tag, str::from_utf8(end.content).ok()?)
}

/// `260314092653Z`, or with four digits of the year.
fn time(tag: u8, text: &str) -> Option<i64> {
    let text = text.strip_suffix('Z').filter(|text| text.is_ascii())?;
    let (year, rest) = match tag {
        UTC_TIME => {
            let (year, rest) = text.split_at_checked(2)?;
            let century = if year < "50" { "20" } else { "19" };
            (format!("{century}{year}"), rest)
        }
        GENERALIZED_TIME => {
            let (year, rest) = text.split_at_checked(4)?;
            (year.to_owned(), rest)
        }
        _ => return None,
    };
    let part = |at: usize| rest.get(at..at + 2);
    let (month, day) = (part(0)?, part(2)?);
    let (hour, minute, second) = (part(4)?, part(6)?, part(8)?);
    let text = format!("{year}-{month}-{day}T{hour}:{minute}:{second}.000000Z");
    Some(parse_rfc3339(&text)?.0 / 1_000_000)
}

/// A value with its kind before it.
struct Element<'a> {
    tag: u8,
    content: &'a [u8],
    rest: &'a [u8],
}

fn inner(bytes: &[u8], tag: u8) -> Option<(&[u8], &[u8])> {
    let found = element(bytes)?;
    (found.tag == tag).then_some((found.content, found.rest))
}

fn element(bytes: &[u8]) -> Option<Element<'_>> {
    let (&tag, rest) = bytes.split_first()?;
    let (&first, rest) = rest.split_first()?;
    let (length, rest) = if first < 0x80 {
        (usize::from(first), rest)
    } else {
        let (digits, rest) = rest.split_at_checked(usize::from(first & 0x7f))?;
        if digits.len() > 4 {
            return None;
        }
        (digits.iter().fold(0, |sum, digit| sum << 8 | usize::from(*digit)), rest)
    };
    let (content, rest) = rest.split_at_checked(length)?;
    Some(Element { tag, content, rest })
}

#[cfg(test)]
mod tests;
