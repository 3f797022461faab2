//! What a connection keeps by name from one message to the next: prepared statements, and portals with their parameters.
//!
//! **Invariant:** it is bounded, for each connection and for all together: what goes beyond is refused, and what is given
//! up, or ends with its connection, makes room at once.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use pgwire::{api::store::PortalStore, error::PgWireResult};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::errors;

/// Bytes that one connection keeps at most.
const OF_ONE: usize = 8 << 20;
/// Bytes that all connections keep at most.
const OF_ALL: usize = 64 << 20;
/// How often a name is there: here, in the store, and in what it is for.
const COPIES: usize = 3;
/// What a name takes beside that.
const NAME_BYTES: usize = 1 << 10;

/// The bytes that all connections share.
#[derive(Clone, Debug)]
pub(super) struct Room(Arc<Semaphore>);

/// What a name is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Kind {
    Statement,
    Portal,
}

type Names = BTreeMap<(Kind, String), OwnedSemaphorePermit>;

/// The names of one connection, each with the bytes that it takes.
#[derive(Debug)]
pub(super) struct Kept {
    room: Room,
    names: Mutex<Names>,
}

impl Default for Room {
    fn default() -> Room {
        Room(Arc::new(Semaphore::new(OF_ALL)))
    }
}

impl Kept {
    /// Nothing yet.
    pub(super) fn new(room: Room) -> Kept {
        Kept { room, names: Mutex::default() }
    }

    /// Takes so many bytes for what shall be kept under a name, instead of what was. Where it is refused, that stays.
    pub(super) fn keep(&self, kind: Kind, name: &str, bytes: usize) -> PgWireResult<()> {
        let bytes = NAME_BYTES + COPIES * name.len() + bytes;
        let key = (kind, name.to_owned());
        let mut names = self.names();
        let others = names.iter().filter(|(other, _)| **other != key);
        if others.map(|(_, taken)| taken.num_permits()).sum::<usize>() + bytes > OF_ONE {
            return Err(errors::keeps_too_much("a connection keeps", OF_ONE));
        }
        let taken = Arc::clone(&self.room.0).try_acquire_many_owned(bytes as u32);
        let taken =
            taken.map_err(|_| errors::keeps_too_much("all connections together keep", OF_ALL))?;
        names.insert(key, taken);
        Ok(())
    }

    /// Gives up what is kept under a name; whether there was anything.
    pub(super) fn forget(&self, store: &impl PortalStore, kind: Kind, name: &str) -> bool {
        remove(store, kind, name);
        self.names().remove(&(kind, name.to_owned())).is_some()
    }

    /// Gives up all that is of this kind.
    pub(super) fn forget_all(&self, store: &impl PortalStore, kind: Kind) {
        self.names().retain(|(of, name), _| {
            if *of == kind {
                remove(store, kind, name);
            }
            *of != kind
        });
    }

    fn names(&self) -> MutexGuard<'_, Names> {
        self.names.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn remove(store: &impl PortalStore, kind: Kind, name: &str) {
    match kind {
        Kind::Statement => store.rm_statement(name),
        Kind::Portal => store.rm_portal(name),
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test may panic")]

    use pgwire::api::store::MemPortalStore;

    use super::*;

    const NAMES: [&str; 4] = ["a", "b", "c", "d"];

    /// A connection that keeps all that it may.
    fn full(room: &Room) -> Kept {
        let kept = Kept::new(room.clone());
        for name in NAMES {
            kept.keep(Kind::Statement, name, OF_ONE / NAMES.len() - NAME_BYTES - COPIES).unwrap();
        }
        kept
    }

    fn refused(kept: &Kept, kind: Kind, name: &str, bytes: usize) -> String {
        kept.keep(kind, name, bytes).unwrap_err().to_string()
    }

    #[test]
    fn what_is_given_up_makes_room_and_what_is_replaced_takes_none() {
        let (store, room) = (MemPortalStore::<()>::new(), Room::default());
        let kept = full(&room);
        for kind in [Kind::Statement, Kind::Portal] {
            let why = refused(&kept, kind, "e", 0);
            assert!(why.contains("a connection keeps 8 MiB"), "{why}");
        }
        kept.keep(Kind::Statement, "a", 0).unwrap();
        kept.keep(Kind::Portal, "e", OF_ONE / NAMES.len() - 4 * NAME_BYTES).unwrap();
        refused(&kept, Kind::Statement, "a", OF_ONE / NAMES.len());
        assert!(!kept.forget(&store, Kind::Portal, "a"), "that is the name of a statement");
        assert!(kept.forget(&store, Kind::Statement, "b"));
        kept.keep(Kind::Statement, "a", OF_ONE / NAMES.len() - 4 * NAME_BYTES).unwrap();
        kept.forget_all(&store, Kind::Statement);
        assert!(!kept.forget(&store, Kind::Statement, "a"));
        assert!(kept.forget(&store, Kind::Portal, "e"));
        assert_eq!(room.0.available_permits(), OF_ALL);
    }

    #[test]
    fn a_connection_that_ends_makes_room_for_the_others() {
        let room = Room::default();
        let mut all: Vec<Kept> = (0..OF_ALL / OF_ONE).map(|_| full(&room)).collect();
        let late = Kept::new(room.clone());
        let why = refused(&late, Kind::Statement, "a", 0);
        assert!(why.contains("all connections together keep 64 MiB"), "{why}");
        drop(all.pop());
        drop((full(&room), late));
    }
}
