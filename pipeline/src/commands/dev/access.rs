//! Who may command on `aion dev`: a policy in the data folder with a key, a token's secret and a signing secret,
//! made once, and a stand-in for the control plane.

use std::{
    fs::{self, File},
    io::Write,
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
    time::Duration,
};

use aion_kafka::Connection;
use anyhow::Context;
use rand::Rng;
use tokio_util::sync::CancellationToken;
use url::Url;

use crate::{
    access::key::NewKey,
    inbound::{InboundConfig, To, stand_in},
    webhooks::{address::Net, secret::Secret, wire::hex},
};

const POLICY: &str = "access.yaml";
/// The issuer whose tokens are taken; `aion keys token` makes some.
const ISSUER: &str = "https://dev.invalid/";
const TIMEOUT: Duration = Duration::from_secs(15);

/// What was prepared.
#[derive(Debug)]
pub(super) struct Trial(PathBuf);

/// Makes what is missing in the folder; the policy last, so that one that is there is whole.
pub(super) fn prepare(folder: &Path) -> anyhow::Result<Trial> {
    if !folder.join(POLICY).exists() {
        make(folder).with_context(|| format!("make {}", folder.display()))?;
    }
    Ok(Trial(folder.to_owned()))
}

fn make(folder: &Path) -> std::io::Result<()> {
    fs::create_dir_all(folder)?;
    let random = || hex(&rand::rng().random::<[u8; 32]>());
    let (key, reader) = (NewKey::make(), NewKey::make());
    for (name, text) in [
        ("signing", &random()),
        ("token-secret", &random()),
        ("key", &key.text),
        ("reader-key", &reader.text),
    ] {
        write(&folder.join(name), text)?;
    }
    let place = folder.display();
    let policy = format!(
        "# Who may command on this `aion dev` (docs/inbound.md); taken up when it changes. The secrets are beside it.\n\
         signing: [\"file:{place}/signing\"]\n\
         roles:\n  operator: [\"commands.*\"]\n  reader: [commands.read, api.sql]\n\
         principals:\n  - id: dev\n    roles: [operator]\n    keys:\n      - prefix: {}\n        sha256: {}\n  \
         - id: dev-reader\n    roles: [reader]\n    keys:\n      - prefix: {}\n        sha256: {}\n\
         issuers:\n  - id: login\n    issuer: {ISSUER}\n    audience: aion\n    algorithms: [HS256]\n    \
         secret: \"file:{place}/token-secret\"\n    roles: {{operators: [operator]}}\n",
        key.prefix,
        key.digest.hex(),
        reader.prefix,
        reader.digest.hex(),
    );
    let new = folder.join("access.yaml.new");
    write(&new, &policy)?;
    fs::rename(&new, folder.join(POLICY))
}

/// For this user only.
fn write(path: &Path, text: &str) -> std::io::Result<()> {
    let mut options = File::options();
    let mut file = options.create(true).truncate(true).write(true).mode(0o600).open(path)?;
    file.write_all(text.as_bytes())
}

impl Trial {
    /// The policy.
    pub(super) fn policy(&self) -> PathBuf {
        self.0.join(POLICY)
    }

    /// Starts the stand-in for the control plane, and says how it is reached.
    pub(super) async fn inbound(
        &self,
        connection: Connection,
        shutdown: CancellationToken,
    ) -> anyhow::Result<InboundConfig> {
        let text = hex(&rand::rng().random::<[u8; 32]>());
        let secret = Secret::new(&text).map_err(anyhow::Error::msg)?;
        let plane = stand_in::serve(secret.clone(), shutdown).await;
        let address = plane.context("start the stand-in for the control plane")?;
        let here = Net::parse("127.0.0.1").map_err(anyhow::Error::msg)?;
        let to = To::Http {
            url: Url::parse(&format!("http://{address}/commands"))?,
            secrets: vec![secret],
            timeout: TIMEOUT,
            allow_private: vec![here],
            ca: None,
        };
        Ok(InboundConfig { connection, to, trusted_proxies: Vec::new() })
    }
}
