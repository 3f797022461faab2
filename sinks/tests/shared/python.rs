//! The Python that has what the tests need besides Rust.

use std::{
    env,
    path::{Path, PathBuf},
};

/// The one that `scripts/setup test` has made, or `$AION_TEST_PYTHON`.
pub(crate) fn python() -> PathBuf {
    if let Some(given) = env::var_os("AION_TEST_PYTHON") {
        return given.into();
    }
    let cache = env::var_os("XDG_CACHE_HOME").map(PathBuf::from);
    let cache = cache.unwrap_or_else(|| Path::new(&env::var_os("HOME").unwrap()).join(".cache"));
    let python = cache.join("aion-event-streams/venv/bin/python");
    assert!(python.exists(), "{} is missing: run `scripts/setup test` once", python.display());
    python
}

/// A program of `tests/support`, which ends with its standard input.
pub(crate) fn support(program: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/support").join(program)
}
