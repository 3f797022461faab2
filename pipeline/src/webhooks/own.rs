//! The thread that reads the engine's own topics, to their end and on: cursors and the control log.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use aion_kafka::{Connection, Error, Limits, Reader, Reading, TopicPartition, Unread};
use aion_schemas::log::Offset;
use bytes::Bytes;
use tokio::sync::Notify;

use super::{
    control::{Control, Controls},
    topics::{CONTROL, CURSORS},
};

const FETCH: usize = 4_096;
/// How long to wait where nothing is new.
const PAUSE: Duration = Duration::from_millis(20);
/// The pause after a failure.
const RETRY: Duration = Duration::from_millis(500);

/// What the topics say so far.
#[derive(Debug, Default)]
pub struct Own {
    state: Mutex<State>,
    /// The control log has something new.
    pub news: Notify,
    stop: AtomicBool,
}

/// What was read.
#[derive(Debug, Default)]
pub struct State {
    /// The last value of each key of the cursors' topic.
    pub cursors: HashMap<Bytes, Bytes>,
    /// The next offset of each partition of that topic.
    pub positions: Vec<i64>,
    /// What the control log comes to.
    pub controls: Controls,
}

impl Own {
    /// Starts to read, from the beginning. It goes on until [`Own::stop`].
    pub fn start(connection: &Connection, cursors: usize) -> Result<Arc<Own>, Error> {
        let reader = Reader::open(connection, "aion-webhooks-own", Limits::default())?;
        let own = Arc::new(Own::default());
        own.lock().positions = vec![0; cursors];
        let thread = Arc::clone(&own);
        std::thread::Builder::new()
            .name("webhooks-own".into())
            .spawn(move || thread.run(&reader, cursors))
            .map_err(|cause| Error::Configuration {
                doing: "start the thread that reads cursors of webhooks".into(),
                detail: cause.to_string(),
            })?;
        Ok(own)
    }

    /// Ends the thread.
    pub fn stop(&self) {
        self.stop.store(true, Ordering::Relaxed);
    }

    /// What was read, for a moment.
    pub fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether everything below these offsets was read.
    pub fn has_reached(&self, cursors: &[i64], control: i64) -> bool {
        let state = self.lock();
        state.controls.next >= control
            && state.positions.iter().zip(cursors).all(|(position, end)| position >= end)
    }

    fn run(&self, reader: &Reader, cursors: usize) {
        let mut partitions: Vec<_> =
            (0..cursors as i32).map(|number| TopicPartition::new(CURSORS, number)).collect();
        partitions.push(TopicPartition::new(CONTROL, 0));
        let mut readings: Vec<Option<Reading>> = partitions.iter().map(|_| None).collect();
        while !self.stop.load(Ordering::Relaxed) {
            let mut moved = false;
            for (at, (partition, reading)) in partitions.iter().zip(&mut readings).enumerate() {
                match self.read(reader, partition, reading, at) {
                    Ok(has_moved) => moved |= has_moved,
                    Err(cause) => {
                        tracing::warn!("read {partition} for webhooks: {cause}");
                        *reading = None;
                        std::thread::sleep(RETRY);
                    }
                }
            }
            if !moved {
                std::thread::sleep(PAUSE);
            }
        }
    }

    fn read(
        &self,
        reader: &Reader,
        partition: &TopicPartition,
        reading: &mut Option<Reading>,
        at: usize,
    ) -> Result<bool, Unread> {
        let position = {
            let state = self.lock();
            state.positions.get(at).copied().unwrap_or(state.controls.next)
        };
        let open = match reading {
            Some(open) => open,
            None => reading.insert(reader.start(partition, Offset(position))?),
        };
        let mut records = Vec::new();
        let fetched = open.fetch(FETCH, Duration::ZERO, |record| {
            let copy = |bytes: Option<&[u8]>| bytes.map(Bytes::copy_from_slice);
            records.push((record.offset.get(), copy(record.key), copy(record.value)));
        })?;
        let is_control = partition.topic.as_ref() == CONTROL;
        let mut state = self.lock();
        for (offset, key, value) in records {
            if is_control {
                take_control(&mut state.controls, offset, value.as_deref());
            } else if let Some(key) = key {
                match value {
                    Some(value) => drop(state.cursors.insert(key, value)),
                    None => drop(state.cursors.remove(&key)),
                }
            }
        }
        let next = fetched.next.get();
        let has_moved = next > position;
        match state.positions.get_mut(at) {
            Some(position) => *position = next.max(*position),
            None => state.controls.next = state.controls.next.max(next),
        }
        drop(state);
        if is_control && has_moved {
            self.news.notify_one();
        }
        Ok(has_moved)
    }
}

/// One that can't be read was written by a newer program, or by hand: it is passed over, and said.
fn take_control(controls: &mut Controls, offset: i64, value: Option<&[u8]>) {
    match serde_json::from_slice::<Control>(value.unwrap_or_default()) {
        Ok(control) => controls.take(offset, control),
        Err(cause) => {
            tracing::warn!("{CONTROL} at {offset} isn't understood: {cause}");
            controls.skip(offset);
        }
    }
}
