//! A Kafka-protocol broker and a schema registry in process: one node, durable, loopback only.
//!
//! They are what development runs on when no cluster is at hand, and what crash tests kill. Clients
//! are the production ones; nothing in them knows that the broker is small. It has no replication,
//! no security and no transactions, and refuses what it doesn't do by the protocol's error codes.
//!
//! **Invariant:** what was acknowledged survives `kill -9`; with [`Fsync::Always`] also power loss.
//! **Invariant:** records are stored and served as they were sent: no decode, no recompression.
//!
//! ```no_run
//! # async fn f() -> Result<(), aion_embedded::Error> {
//! use aion_embedded::{Broker, Settings};
//! let broker = Broker::start(Settings::new("data/kafka")).await?;
//! println!("bootstrap.servers={}", broker.address());
//! broker.stop().await
//! # }
//! ```

mod api;
mod batch;
mod broker;
mod configs;
mod connection;
mod files;
mod flusher;
mod groups;
mod lines;
mod log;
mod offsets;
mod registry;
pub mod steps;
mod topics;
mod trouble;

use std::{
    io,
    net::SocketAddr,
    path::{Path, PathBuf},
    time::Duration,
};

pub use crate::{
    broker::{Broker, Watch},
    registry::Registry,
};

/// When written records become durable.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Fsync {
    /// Before they are acknowledged and served; one fsync covers all that waits. Survives a power
    /// loss.
    #[default]
    Always,
    /// When the operating system likes. Survives the death of the process, not a power loss.
    Never,
}

/// How to run a [`Broker`].
#[derive(Clone, Debug)]
pub struct Settings {
    /// Where to listen: a loopback address; port 0 takes a free one.
    pub listen: SocketAddr,
    /// The data folder, made if it isn't there.
    pub data: PathBuf,
    /// When records become durable.
    pub fsync: Fsync,
    /// Greatest size of a log segment for topics that don't set `segment.bytes`.
    pub segment_bytes: u64,
    /// How often old segments are looked for.
    pub retention_check: Duration,
}

impl Settings {
    /// The defaults: a free port of 127.0.0.1, fsync, segments of 64 MiB, a look every 10 s.
    pub fn new(data: impl Into<PathBuf>) -> Settings {
        Settings {
            listen: SocketAddr::from(([127, 0, 0, 1], 0)),
            data: data.into(),
            fsync: Fsync::Always,
            segment_bytes: 64 << 20,
            retention_check: Duration::from_secs(10),
        }
    }
}

/// Why the broker or the registry didn't start, or did not stop well. Each message says what to do.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The address to listen on can be reached from elsewhere.
    #[error("listen on {0}: the embedded broker has no security; give a loopback address")]
    NotLoopback(SocketAddr),
    /// Somebody else listens there.
    #[error("listen on {address}: the port is in use; stop who has it, or give another (0: any)")]
    Busy {
        /// The address.
        address: SocketAddr,
    },
    /// Another process runs on the data folder.
    #[error(
        "{} is in use by {}; stop that broker, or give another folder",
        path.display(),
        pid.map_or("another process".to_owned(), |pid| format!("process {pid}"))
    )]
    Locked {
        /// The data folder.
        path: PathBuf,
        /// The process, if it could be told.
        pid: Option<u32>,
    },
    /// The folder has other content.
    #[error(
        "{} holds files that are not this broker's; give an empty or new folder",
        path.display()
    )]
    Foreign {
        /// The data folder.
        path: PathBuf,
    },
    /// A newer build wrote the folder.
    #[error(
        "{} has format {found}, this build knows {known}; use the newer build, or another folder",
        path.display()
    )]
    Newer {
        /// The file that says so.
        path: PathBuf,
        /// The format found.
        found: u32,
        /// The newest format known.
        known: u32,
    },
    /// Stored data is damaged where a crash can't have done it.
    #[error(
        "{} is damaged: {reason}; restore it, or move the data folder away to start empty",
        path.display()
    )]
    Corrupt {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// A test named a topic or partition that isn't there.
    #[error("no partition {partition} of a topic {topic:?}")]
    NoPartition {
        /// The topic's name.
        topic: String,
        /// The partition's number.
        partition: i32,
    },
    /// The operating system refused.
    #[error("{what} {}: {source}{}", path.display(), hint(source))]
    Io {
        /// What was being done.
        what: &'static str,
        /// To which file, folder or address.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
}

impl Error {
    fn io(what: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Error {
        move |source| Error::Io { what, path: path.into(), source }
    }
}

fn hint(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => "; free some disk space",
        io::ErrorKind::PermissionDenied => "; give a folder that this user may write",
        _ => "",
    }
}
