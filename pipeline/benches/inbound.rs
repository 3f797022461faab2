//! What verifying a command costs: signature, body, time, API key, role, parameters, id and record; without HTTP and
//! without Kafka. `AION_ROUNDS` sets the rounds (5) of 100,000 commands. Prints commands per CPU-second: the median.

#![expect(clippy::unwrap_used, reason = "a bench fails by panicking")]

use std::sync::Arc;

use aion::{
    access::{Access, AccessConfig, key::NewKey},
    inbound::{
        command::Command,
        gateway::now,
        request::{Asked, is_timely},
        signature,
    },
    webhooks::{secret::Secret, wire},
};
use aion_schemas::commands::Commands;
use axum::http::HeaderMap;
use tokio_util::sync::CancellationToken;

const COMMANDS: usize = 100_000;
const SIGNING: &str = "what-commands-are-signed-with";

fn main() {
    let rounds = std::env::var("AION_ROUNDS").map_or(5, |text| text.parse().unwrap());
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let (folder, key) = (tempfile::tempdir().unwrap(), NewKey::make());
    let path = folder.path().join("access.yaml");
    let policy = format!(
        "signing: ['{SIGNING}']\nroles: {{r: [approve_kernel_proposal]}}\nprincipals:\n  - {{id: me, roles: [r], rate: 1e9, \
         keys: [{{prefix: {}, sha256: {}}}]}}\n",
        key.prefix,
        key.digest.hex()
    );
    std::fs::write(&path, policy).unwrap();
    let config = AccessConfig { policy: Some(path), ..AccessConfig::default() };
    let commands = Commands::builtin();
    let (stop, secret) = (CancellationToken::new(), Secret::new(SIGNING).unwrap());
    let access = runtime.block_on(Access::start(config, &commands, stop)).unwrap();
    let requests: Vec<(HeaderMap, Vec<u8>)> = (0..COMMANDS)
        .map(|number| {
            let body = format!(
                r#"{{"action":"approve_kernel_proposal","parameters":{{"proposal_id":"p-{number}","comment":"as agreed on"}},"timestamp":{},"idempotency_key":"0198a5e2-9b3c-{number}"}}"#,
                now().0 / 1_000_000
            );
            let mut headers = HeaderMap::new();
            let signature = wire::signature(&secret, body.as_bytes());
            headers.insert("x-aion-signature", signature.parse().unwrap());
            headers.insert("authorization", format!("Bearer {}", key.text).parse().unwrap());
            (headers, body.into_bytes())
        })
        .collect();
    let mut rates: Vec<f64> =
        (0..rounds).map(|_| runtime.block_on(round(&access, &commands, &requests))).collect();
    rates.sort_unstable_by(f64::total_cmp);
    println!("{:.0} commands verified per CPU-second", rates[rates.len() / 2]);
}

async fn round(access: &Access, commands: &Commands, requests: &[(HeaderMap, Vec<u8>)]) -> f64 {
    let start = cpu_s();
    let mut bytes = 0;
    for (headers, body) in requests {
        let signed = signature::verify(headers, body, &access.policy().signing).unwrap();
        let asked = Asked::read(headers, body, &signed).unwrap();
        assert!(is_timely(asked.timestamp, now().0 / 1_000_000));
        let who = access.identify(headers).await.unwrap();
        access.count(&who).unwrap();
        assert!(who.may(&asked.action));
        let parameters = serde_json::Value::Object(asked.parameters.clone());
        commands.check(&asked.action, &parameters).unwrap().unwrap();
        let sender = (Arc::clone(&who.id), asked.tenant);
        let command = Command::new(sender, (asked.action, &asked.parameters), asked.key, now());
        bytes += command.record().unwrap().len();
    }
    assert!(bytes > 0);
    requests.len() as f64 / (cpu_s() - start)
}

/// The CPU time of this thread.
fn cpu_s() -> f64 {
    let times = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap();
    times.split(' ').next().unwrap().parse::<f64>().unwrap() / 1e9
}
