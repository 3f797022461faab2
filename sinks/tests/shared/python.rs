//! The Python that has what the tests need besides Rust.

use std::{
    env,
    ffi::OsStr,
    io::{BufRead, BufReader},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
};

/// The one that `scripts/setup test` has made, or `$AION_TEST_PYTHON`.
fn python() -> PathBuf {
    if let Some(given) = env::var_os("AION_TEST_PYTHON") {
        return given.into();
    }
    let cache = env::var_os("XDG_CACHE_HOME").map(PathBuf::from);
    let cache = cache.unwrap_or_else(|| Path::new(&env::var_os("HOME").unwrap()).join(".cache"));
    let python = cache.join("aion-event-streams/venv/bin/python");
    assert!(python.exists(), "{} is missing: run `scripts/setup test` once", python.display());
    python
}

/// Starts a program of `tests/support`, which ends with its standard input; with the last word of the line that it
/// prints once it serves: where.
pub(crate) fn start(program: &str, arguments: &[&OsStr]) -> (Child, Option<String>) {
    let support = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/support");
    let mut process = Command::new(python())
        .arg(support.join(program))
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut line = String::new();
    BufReader::new(process.stdout.take().unwrap()).read_line(&mut line).unwrap();
    let place = line.trim().rsplit(' ').next().map(str::to_owned);
    (process, place)
}
