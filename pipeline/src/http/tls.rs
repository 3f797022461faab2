//! HTTPS: a listener whose connections have been through their handshake.
//!
//! **Invariant:** a client that is slow to shake hands holds up nobody else.

use std::{io, net::SocketAddr, path::Path, sync::Arc, time::Duration};

use aion_analytics::alive;
use axum::serve::Listener;
use tokio::{
    net::{TcpListener, TcpStream},
    sync::{
        Semaphore,
        mpsc::{self, Receiver, Sender},
    },
    task::JoinHandle,
    time::timeout,
};
use tokio_rustls::{
    TlsAcceptor,
    rustls::{
        ServerConfig,
        pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
    },
    server::TlsStream,
};

/// How long a handshake may take.
const HANDSHAKE: Duration = Duration::from_secs(10);
/// So many handshakes are under way at a time; further connections wait.
const AT_A_TIME: usize = 4096;
/// How long to wait where the system has no more connections to give.
const PAUSE: Duration = Duration::from_millis(100);

/// How connections are encrypted.
pub type Tls = Arc<ServerConfig>;

/// Reads a certificate, with those that lead to its authority, and its key: PEM files.
pub fn server(certificate: &Path, key: &Path) -> Result<Tls, String> {
    let cannot =
        |path: &Path, cause: &dyn std::fmt::Display| format!("{}: {cause}", path.display());
    let chain = CertificateDer::pem_file_iter(certificate).and_then(Iterator::collect);
    let chain: Vec<_> = chain.map_err(|cause| cannot(certificate, &cause))?;
    if chain.is_empty() {
        return Err(cannot(certificate, &"there is no certificate in it"));
    }
    let key_der = PrivateKeyDer::from_pem_file(key).map_err(|cause| cannot(key, &cause))?;
    let config = ServerConfig::builder().with_no_client_auth().with_single_cert(chain, key_der);
    config.map(Arc::new).map_err(|cause| cannot(certificate, &cause))
}

/// Accepts connections and shakes hands.
pub struct TlsListener {
    address: SocketAddr,
    shaken: Receiver<(TlsStream<TcpStream>, SocketAddr)>,
    accepting: JoinHandle<()>,
}

impl TlsListener {
    /// Accepts from `listener` by `config`.
    pub fn start(listener: TcpListener, config: Tls) -> io::Result<TlsListener> {
        let address = listener.local_addr()?;
        let (shaken_in, shaken) = mpsc::channel(AT_A_TIME);
        let accepting = tokio::spawn(accept(listener, TlsAcceptor::from(config), shaken_in));
        Ok(TlsListener { address, shaken, accepting })
    }
}

async fn accept(
    listener: TcpListener,
    acceptor: TlsAcceptor,
    shaken: Sender<(TlsStream<TcpStream>, SocketAddr)>,
) {
    let permits = Arc::new(Semaphore::new(AT_A_TIME));
    loop {
        let Ok(permit) = Arc::clone(&permits).acquire_owned().await else { return };
        let (stream, from) = match listener.accept().await {
            Ok(accepted) => accepted,
            Err(cause) => {
                tracing::warn!("accept an HTTPS connection: {cause}");
                tokio::time::sleep(PAUSE).await;
                continue;
            }
        };
        alive::watch(&stream);
        let (acceptor, shaken) = (acceptor.clone(), shaken.clone());
        tokio::spawn(async move {
            match timeout(HANDSHAKE, acceptor.accept(stream)).await {
                // Where nobody takes it the server has ended.
                Ok(Ok(stream)) => drop(shaken.send((stream, from)).await),
                Ok(Err(cause)) => tracing::debug!(%from, "HTTPS handshake: {cause}"),
                Err(_) => tracing::debug!(%from, "HTTPS handshake: too slow"),
            }
            drop(permit);
        });
    }
}

impl Listener for TlsListener {
    type Io = TlsStream<TcpStream>;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Self::Io, Self::Addr) {
        match self.shaken.recv().await {
            Some(accepted) => accepted,
            // The accepting task ends only with this.
            None => std::future::pending().await,
        }
    }

    fn local_addr(&self) -> io::Result<Self::Addr> {
        Ok(self.address)
    }
}

impl Drop for TlsListener {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}
