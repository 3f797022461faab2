//! The tests' engine as a process (`scripts/setup test` installs what it needs).

use std::{
    io::{BufRead, BufReader},
    path::PathBuf,
    process::{Child, Command, Stdio},
};

use aion_schemas::clickhouse::{Table, database, marks};
use anyhow::{Context, ensure};

/// The process, which keeps everything in a folder of its own.
pub(crate) struct Engine {
    pub(crate) process: Child,
    pub(crate) port: u16,
    http: reqwest::Client,
    _folder: tempfile::TempDir,
}

impl Engine {
    pub(crate) fn start() -> anyhow::Result<Engine> {
        let folder = tempfile::tempdir()?;
        let root = PathBuf::from(env!("CARGO_MANIFEST_DIR"));
        let cache = std::env::var_os("XDG_CACHE_HOME").map(PathBuf::from);
        let home = std::env::var_os("HOME").context("there is no $HOME")?;
        let cache = cache.unwrap_or_else(|| PathBuf::from(home).join(".cache"));
        let mut process = Command::new(cache.join("aion-event-streams/venv/bin/python"))
            .arg(root.join("../tests/support/clickhouse/front.py"))
            .arg(folder.path().join("engine"))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .context("start the engine: `scripts/setup test` installs what it needs")?;
        let mut line = String::new();
        let out = process.stdout.take().context("the engine has no output")?;
        BufReader::new(out).read_line(&mut line)?;
        let port = line.trim().rsplit(' ').next().and_then(|port| port.parse().ok());
        let port = port.with_context(|| format!("the engine said {line:?}"))?;
        Ok(Engine { process, port, http: reqwest::Client::new(), _folder: folder })
    }

    /// Makes a database with a table of the contract, and with `marks` beside it.
    pub(crate) async fn make(&self, name: &str, table: &Table) -> anyhow::Result<()> {
        let made = [database(name, None), marks(name, None), table.create(name, None)];
        for statement in made {
            self.post(&[("query", &statement.sql)], Vec::new()).await?;
        }
        Ok(())
    }

    /// Asks it; the answer's text.
    pub(crate) async fn post(
        &self,
        settings: &[(&str, &str)],
        body: Vec<u8>,
    ) -> anyhow::Result<String> {
        let url = format!("http://127.0.0.1:{}/", self.port);
        let url = reqwest::Url::parse_with_params(&url, settings)?;
        let answer = self.http.post(url).body(body).send().await?;
        let (status, text) = (answer.status(), answer.text().await?);
        ensure!(status.is_success(), "{text}");
        Ok(text)
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        drop(self.process.kill());
        drop(self.process.wait());
    }
}
