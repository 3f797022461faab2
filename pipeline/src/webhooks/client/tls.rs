//! TLS of deliveries: 1.2 or newer, by the system's authorities or those of the policy.

use std::{path::Path, sync::Arc};

use tokio_rustls::rustls::{
    ClientConfig, RootCertStore,
    client::Resumption,
    crypto::ring,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
    version::{TLS12, TLS13},
};

use crate::webhooks::policy::Tls;

/// Sessions that are kept of an endpoint, which has one host. The library keeps room for 32 hosts.
const SESSIONS: usize = 8;

/// The authorities of the system, read once and shared by all endpoints.
#[derive(Clone, Debug)]
pub(super) struct Authorities(Arc<RootCertStore>);

impl Authorities {
    /// Reads them. One that can't be read is left out, as browsers do; without any, no certificate is good.
    pub(super) fn of_system() -> Authorities {
        let found = rustls_native_certs::load_native_certs();
        for cause in &found.errors {
            tracing::warn!("a certificate authority of this system can't be read: {cause}");
        }
        let mut store = RootCertStore::empty();
        store.add_parsable_certificates(found.certs);
        Authorities(Arc::new(store))
    }
}

pub(super) fn config(tls: &Tls, authorities: &Authorities) -> Result<ClientConfig, String> {
    let roots = match &tls.ca {
        None => Arc::clone(&authorities.0),
        Some(path) => Arc::new(roots(path)?),
    };
    let provider = Arc::new(ring::default_provider());
    let versions =
        ClientConfig::builder_with_provider(provider).with_protocol_versions(&[&TLS13, &TLS12]);
    let config = versions.map_err(|cause| format!("tls: {cause}"))?.with_root_certificates(roots);
    let mut config = match &tls.identity {
        None => config.with_no_client_auth(),
        Some((certificate, key)) => {
            let private =
                PrivateKeyDer::from_pem_file(key).map_err(|cause| unusable(key, &cause))?;
            let chain = certificates(certificate)?;
            config
                .with_client_auth_cert(chain, private)
                .map_err(|cause| unusable(certificate, &cause))?
        }
    };
    config.resumption = Resumption::in_memory_sessions(SESSIONS);
    Ok(config)
}

fn roots(path: &Path) -> Result<RootCertStore, String> {
    let mut store = RootCertStore::empty();
    for certificate in certificates(path)? {
        store.add(certificate).map_err(|cause| unusable(path, &cause))?;
    }
    Ok(store)
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, String> {
    let all = CertificateDer::pem_file_iter(path).and_then(Iterator::collect::<Result<Vec<_>, _>>);
    let all = all.map_err(|cause| unusable(path, &cause))?;
    if all.is_empty() {
        return Err(unusable(path, &"there is no certificate in it"));
    }
    Ok(all)
}

fn unusable(path: &Path, cause: &dyn std::fmt::Display) -> String {
    format!("tls: {}: {cause}", path.display())
}
