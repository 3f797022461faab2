//! Members of a group, and what they ask and are answered.

use std::time::{Duration, Instant};

use bytes::Bytes;
use kafka_protocol::{ResponseError, protocol::StrBytes};
use tokio::sync::oneshot;

/// A request to join.
pub(crate) struct Join {
    pub(crate) member: String,
    pub(crate) instance: Option<String>,
    pub(crate) client: String,
    pub(crate) host: String,
    pub(crate) session_ms: i32,
    pub(crate) rebalance_ms: i32,
    pub(crate) protocol_type: String,
    pub(crate) protocols: Vec<(StrBytes, Bytes)>,
    /// Whether a new member first gets an id and joins with it again.
    pub(crate) id_first: bool,
}

/// The answer to a join. `members` is filled for the leader only: id, instance, metadata.
#[derive(Default)]
pub(crate) struct Joined {
    pub(crate) error: Option<ResponseError>,
    pub(crate) generation: i32,
    pub(crate) protocol: Option<StrBytes>,
    pub(crate) leader: String,
    pub(crate) member: String,
    pub(crate) members: Vec<(String, Option<String>, Bytes)>,
}

impl Joined {
    /// A refusal.
    pub(crate) fn refused(error: ResponseError, member: String) -> Joined {
        Joined { error: Some(error), generation: -1, member, ..Joined::default() }
    }
}

/// The answer to a sync.
pub(super) type Assigned = Result<Bytes, ResponseError>;

/// A member of a group.
pub(super) struct Member {
    pub(super) instance: Option<String>,
    pub(super) client: String,
    pub(super) host: String,
    pub(super) session: Duration,
    pub(super) rebalance: Duration,
    pub(super) protocols: Vec<(StrBytes, Bytes)>,
    pub(super) assignment: Bytes,
    pub(super) expires: Instant,
    pub(super) joining: Option<oneshot::Sender<Joined>>,
    pub(super) syncing: Option<oneshot::Sender<Assigned>>,
}

impl Member {
    pub(super) fn metadata(&self, protocol: &StrBytes) -> Bytes {
        let found = self.protocols.iter().find(|(name, _)| name == protocol);
        found.map(|(_, metadata)| metadata.clone()).unwrap_or_default()
    }

    pub(super) fn speaks(&self, protocol: &StrBytes) -> bool {
        self.protocols.iter().any(|(name, _)| name == protocol)
    }
}

/// Milliseconds of the protocol.
pub(super) fn millis(ms: i32) -> Duration {
    Duration::from_millis(ms.max(0) as u64)
}

/// A member as its join describes it.
pub(super) fn member(join: Join, joining: Option<oneshot::Sender<Joined>>, now: Instant) -> Member {
    Member {
        instance: join.instance,
        client: join.client,
        host: join.host,
        session: millis(join.session_ms),
        rebalance: millis(join.rebalance_ms),
        protocols: join.protocols,
        assignment: Bytes::new(),
        expires: now + millis(join.session_ms),
        joining,
        syncing: None,
    }
}
