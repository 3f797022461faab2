//! Names of folders and addresses, as people give them.

use std::{
    io,
    net::{SocketAddr, ToSocketAddrs},
    path::{Path, PathBuf},
};

use url::Url;

/// The full name of a path without `.`, `..` and links, as far as it exists; the rest of it is taken as
/// it is written.
pub fn full(path: &Path) -> io::Result<PathBuf> {
    let full = std::path::absolute(path)?;
    let mut known = full.as_path();
    let mut rest = Vec::new();
    loop {
        match std::fs::canonicalize(known) {
            Ok(known) => return Ok(rest.iter().rev().fold(known, |path, part| path.join(part))),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
        // A `..` behind something that isn't there leads nowhere.
        let (Some(name), Some(parent)) = (known.file_name(), known.parent()) else {
            return Err(io::ErrorKind::NotFound.into());
        };
        rest.push(name);
        known = parent;
    }
}

/// The `file://` URL of a folder.
pub fn folder_url(path: &Path) -> Result<Url, String> {
    let full = full(path).map_err(|cause| format!("{}: {cause}", path.display()))?;
    Url::from_directory_path(&full).map_err(|()| format!("{}: not a usable name", full.display()))
}

/// Reads `HOST:PORT`; a host that has several addresses is taken by its first, IPv4 before IPv6.
pub fn address(text: &str) -> Result<SocketAddr, String> {
    let found = text.to_socket_addrs().map_err(|cause| {
        format!("{text:?} is no HOST:PORT of this machine, such as 127.0.0.1:8080: {cause}")
    })?;
    let mut all: Vec<_> = found.collect();
    all.sort_by_key(SocketAddr::is_ipv6);
    all.first().copied().ok_or_else(|| format!("{text:?} has no address"))
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test may panic")]

    use super::*;

    #[test]
    fn dots_and_links_are_resolved_as_far_as_the_path_exists() {
        let folder = tempfile::tempdir().unwrap();
        let here = folder.path().canonicalize().unwrap();
        std::fs::create_dir_all(here.join("a/b")).unwrap();
        std::os::unix::fs::symlink(here.join("a/b"), here.join("link")).unwrap();
        assert_eq!(full(&here.join("a/../a/b/new/more")).unwrap(), here.join("a/b/new/more"));
        assert_eq!(full(&here.join("link/..")).unwrap(), here.join("a"));
        assert!(full(&here.join("none/../x")).is_err());
        let url = folder_url(&here.join("a/..")).unwrap();
        assert_eq!(url.to_file_path().unwrap(), here);
    }

    #[test]
    fn an_address_may_be_a_name() {
        assert_eq!(address("localhost:80").unwrap().port(), 80);
        assert!(address("localhost:80").unwrap().ip().is_loopback());
        assert!(address("127.0.0.1").unwrap_err().contains("HOST:PORT"));
    }
}
