//! A policy whose certificates are read: nothing in it can be refused any more.

use std::sync::Arc;

use super::{
    client::{Client, Network},
    policy::{Endpoint, Policy, Problem},
};
use crate::certificates::Certificates;

/// The entries of a policy, each with the way to its endpoint.
#[derive(Debug)]
pub struct Opened {
    /// In the order of the file.
    pub entries: Vec<(Arc<Endpoint>, Client)>,
    /// What the entries show, and whom they trust.
    pub certificates: Certificates,
}

impl Opened {
    /// Reads the certificates that the entries name; the error is the first entry that can't be used.
    pub fn of(policy: &Policy, network: &Network) -> Result<Opened, Problem> {
        let mut entries = Vec::with_capacity(policy.endpoints.len());
        for endpoint in &policy.endpoints {
            let client = Client::open(endpoint, network).map_err(|cause| Problem {
                line: endpoint.line,
                reason: format!("webhook {}: {cause}", endpoint.id),
            })?;
            entries.push((Arc::clone(endpoint), client));
        }
        Ok(Opened { entries, certificates: certificates(policy) })
    }
}

fn certificates(policy: &Policy) -> Certificates {
    let mut found = Certificates::default();
    for endpoint in &policy.endpoints {
        let used_for = format!("webhook {}", endpoint.id);
        let shown = endpoint.tls.identity.as_ref().map(|(certificate, _)| certificate.as_path());
        found.shown(&used_for, shown);
        found.trusted(&used_for, endpoint.tls.ca.as_deref());
    }
    found
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test may panic")]

    use aion_schemas::catalog::Catalog;

    use super::*;

    fn opened(more: &str) -> Result<Opened, Problem> {
        let text = format!(
            "webhooks:\n- {{id: all, url: \"https://a.example/\", secret: a-secret-for-tests-only, topics: [a], \
             retry: {{initial_interval: 1s, max_interval: 1s, max_attempts: 2}}{more}}}\n"
        );
        Opened::of(&Policy::parse(&text, &Catalog::builtin()).unwrap(), &Network::of_system())
    }

    #[test]
    fn an_entry_whose_certificates_cant_be_read_is_refused_by_its_line() {
        let folder = tempfile::tempdir().unwrap();
        let missing = folder.path().join("ca.pem");
        let refused = opened(&format!(", tls: {{ca: \"{}\"}}", missing.display())).unwrap_err();
        let told = format!("webhook all: tls: {}: ", missing.display());
        assert!(refused.line == 2 && refused.reason.starts_with(&told), "{refused:?}");
        assert_eq!(opened("").unwrap().entries.len(), 1);
    }
}
