//! The test engine (tests/support/clickhouse) as a process.

use std::{
    path::{Path, PathBuf},
    process::Child,
    sync::{Mutex, OnceLock},
};

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::python;

pub(crate) struct Engine {
    folder: PathBuf,
    process: Mutex<Child>,
    pub(crate) port: u16,
    http: reqwest::Client,
    /// Removed when it is dropped.
    _temporary: Option<TempDir>,
}

/// The engine that tests share, each with a database of its own.
pub(crate) fn shared() -> &'static Engine {
    static SHARED: OnceLock<Engine> = OnceLock::new();
    SHARED.get_or_init(Engine::own)
}

impl Engine {
    /// An engine of one's own: to be killed.
    pub(crate) fn own() -> Engine {
        let temporary = tempfile::tempdir().unwrap();
        let folder = temporary.path().join("engine");
        let (process, port) = start(&folder, 0);
        Engine {
            folder,
            process: process.into(),
            port,
            // Each test has a runtime of its own, and a connection ends with the one that made it.
            http: reqwest::Client::builder().pool_max_idle_per_host(0).build().unwrap(),
            _temporary: Some(temporary),
        }
    }

    /// kill -9.
    pub(crate) fn kill(&self) {
        let mut process = self.process.lock().unwrap();
        process.kill().unwrap();
        process.wait().unwrap();
    }

    /// Starts it again on the same folder and port.
    pub(crate) fn start_again(&self) {
        *self.process.lock().unwrap() = start(&self.folder, self.port).0;
    }

    /// Runs a statement.
    pub(crate) async fn run(&self, sql: &str) -> String {
        let url = format!("http://127.0.0.1:{}/", self.port);
        let answer = self.http.post(url).body(sql.to_owned()).send().await.unwrap();
        let (status, text) = (answer.status(), answer.text().await.unwrap());
        assert!(status.is_success(), "{sql}: {text}");
        text
    }

    /// The rows of an answer.
    pub(crate) async fn rows(&self, sql: &str) -> Vec<Value> {
        let settings = "SETTINGS output_format_json_quote_64bit_integers = 0";
        let text = self.run(&format!("{sql} {settings} FORMAT JSONCompactEachRow")).await;
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    /// The next query in which `matching` is found meets a fault.
    pub(crate) async fn fault(&self, matching: &str, mut fault: Value) {
        fault["match"] = json!(matching);
        let url = format!("http://127.0.0.1:{}/fault", self.port);
        let answer = self.http.post(url).body(fault.to_string()).send().await.unwrap();
        assert!(answer.status().is_success());
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        self.kill();
    }
}

fn start(folder: &Path, port: u16) -> (Child, u16) {
    let port = port.to_string();
    let arguments = [folder.as_os_str(), "--port".as_ref(), port.as_ref()];
    let (process, port) = python::start("clickhouse/front.py", &arguments);
    let port = port.and_then(|port| port.parse().ok());
    (process, port.expect("the engine's port: `scripts/setup test` installs what it needs"))
}
