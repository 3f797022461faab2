//! The control log, `aion.webhooks.control`: what operators ask for and what all processes have to agree on.
//! One partition, kept for ever, read by everybody from its start.
//!
//! | record | written by | says |
//! |---|---|---|
//! | `birth` | the process that has the log's partition | where each partition stood when an endpoint, or a pattern of it, came into being |
//! | `disable` | an operator, or whoever heard 410 | an endpoint gets nothing; its cursors stay |
//! | `enable` | an operator | it gets what it missed |
//! | `redo` | an operator | ranges of offsets are delivered once more |
//! | `letters` | an operator | dead letters are delivered once more |
//!
//! **Invariant:** the state is a function of the log, so every process comes to the same; of two births of one
//! endpoint with the same patterns the first one holds.

use std::{collections::HashMap, ops::Range, sync::Arc};

use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// One record of the log.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Control {
    /// An endpoint, or a pattern of it, came into being.
    Birth {
        /// The endpoint.
        endpoint: Arc<str>,
        /// Its patterns from now on, sorted.
        patterns: Vec<String>,
        /// The topics that they newly match, which begin at their ends.
        topics: Vec<Born>,
    },
    /// An endpoint gets nothing any more.
    Disable {
        /// The endpoint.
        endpoint: Arc<str>,
        /// Why, for people.
        reason: String,
        /// The entry it holds for: a changed one is enabled again. `None`: whatever the entry is.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        entry: Option<String>,
    },
    /// An endpoint gets what it missed, and what comes.
    Enable {
        /// The endpoint.
        endpoint: Arc<str>,
    },
    /// Offsets are delivered once more.
    Redo {
        /// The endpoint.
        endpoint: Arc<str>,
        /// Which.
        ranges: Vec<RedoRange>,
    },
    /// Dead letters are delivered once more.
    Letters {
        /// The endpoint.
        endpoint: Arc<str>,
        /// The topic that the events were in.
        topic_id: Uuid,
        /// And the partition.
        partition: i32,
        /// Offset of the event; partition and offset of its dead letter.
        letters: Vec<(i64, i32, i64)>,
    },
}

/// A topic that an endpoint gets from its end on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Born {
    /// Its name, for people.
    pub topic: String,
    /// Its id.
    pub id: Uuid,
    /// The next offset of each partition.
    pub ends: Vec<i64>,
}

/// A range of one partition.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RedoRange {
    /// The topic's id.
    pub topic_id: Uuid,
    /// The partition.
    pub partition: i32,
    /// The first offset.
    pub from: i64,
    /// The first offset behind.
    pub to: i64,
}

/// Something an operator asked of one cursor.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Order {
    /// Ranges of offsets.
    Redo(Vec<Range<i64>>),
    /// Offsets, each with the place of its dead letter.
    Letters(Vec<(i64, (i32, i64))>),
}

/// What the log comes to.
#[derive(Clone, Debug, Default)]
pub struct Controls {
    endpoints: HashMap<Arc<str>, Said>,
    /// The next offset of the log.
    pub next: i64,
}

/// What the log says of one endpoint.
#[derive(Clone, Debug, Default)]
struct Said {
    patterns: Option<Vec<String>>,
    starts: HashMap<Uuid, Vec<i64>>,
    disabled: Option<Disabled>,
    orders: Vec<(i64, Control)>,
}

#[derive(Clone, Debug)]
struct Disabled {
    reason: String,
    entry: Option<String>,
}

impl Controls {
    /// Takes the record at `offset`.
    pub fn take(&mut self, offset: i64, control: Control) {
        self.next = self.next.max(offset + 1);
        match control {
            Control::Birth { endpoint, patterns, topics } => {
                let said = self.endpoints.entry(endpoint).or_default();
                if said.patterns.as_ref() == Some(&patterns) {
                    return;
                }
                said.patterns = Some(patterns);
                for born in topics {
                    said.starts.entry(born.id).or_insert(born.ends);
                }
            }
            Control::Disable { endpoint, reason, entry } => {
                let said = self.endpoints.entry(endpoint).or_default();
                said.disabled = Some(Disabled { reason, entry });
            }
            Control::Enable { endpoint } => {
                self.endpoints.entry(endpoint).or_default().disabled = None;
            }
            Control::Redo { ref endpoint, .. } | Control::Letters { ref endpoint, .. } => {
                let said = self.endpoints.entry(Arc::clone(endpoint)).or_default();
                said.orders.push((offset, control));
            }
        }
    }

    /// Skips a record that can't be read.
    pub fn skip(&mut self, offset: i64) {
        self.next = self.next.max(offset + 1);
    }

    /// The patterns of an endpoint's last birth.
    pub fn patterns(&self, endpoint: &str) -> Option<&[String]> {
        self.endpoints.get(endpoint)?.patterns.as_deref()
    }

    /// Whether a birth of the endpoint speaks of the topic.
    pub fn was_born(&self, endpoint: &str, topic: Uuid) -> bool {
        self.endpoints.get(endpoint).is_some_and(|said| said.starts.contains_key(&topic))
    }

    /// Where an endpoint with these patterns begins to read a partition; `None` before its birth.
    pub fn start(
        &self,
        endpoint: &str,
        patterns: &[String],
        topic: Uuid,
        partition: i32,
    ) -> Option<i64> {
        let said = self.endpoints.get(endpoint)?;
        if said.patterns.as_deref() != Some(patterns) {
            return None;
        }
        let ends = said.starts.get(&topic);
        // A topic or a partition that came later.
        Some(ends.and_then(|ends| ends.get(partition as usize)).copied().unwrap_or(0))
    }

    /// Why an endpoint with this entry gets nothing; `None` if it does.
    pub fn disabled(&self, endpoint: &str, entry: &str) -> Option<&str> {
        let disabled = self.endpoints.get(endpoint)?.disabled.as_ref()?;
        let holds = disabled.entry.as_deref().is_none_or(|of| of == entry);
        holds.then_some(disabled.reason.as_str())
    }

    /// The orders for one cursor from an offset of the log on, each with its own.
    pub fn orders(
        &self,
        endpoint: &str,
        (topic, partition): (Uuid, i32),
        from: i64,
    ) -> Vec<(i64, Order)> {
        let Some(said) = self.endpoints.get(endpoint) else { return Vec::new() };
        let first = said.orders.partition_point(|(offset, _)| *offset < from);
        let order =
            |(offset, control): &(i64, Control)| Some((*offset, control.order(topic, partition)?));
        said.orders[first..].iter().filter_map(order).collect()
    }
}

impl Control {
    /// What it asks of one cursor.
    fn order(&self, topic: Uuid, of: i32) -> Option<Order> {
        match self {
            Control::Redo { ranges, .. } => {
                let its = |one: &&RedoRange| one.topic_id == topic && one.partition == of;
                let ranges: Vec<_> =
                    ranges.iter().filter(its).map(|one| one.from..one.to).collect();
                (!ranges.is_empty()).then_some(Order::Redo(ranges))
            }
            Control::Letters { topic_id, partition, letters, .. } => {
                let letter = |(offset, at, of): &(i64, i32, i64)| (*offset, (*at, *of));
                let is_its = *topic_id == topic && *partition == of;
                is_its.then(|| Order::Letters(letters.iter().map(letter).collect()))
            }
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OLD: Uuid = Uuid::from_u128(1);
    const NEW: Uuid = Uuid::from_u128(2);

    fn birth(patterns: &[&str], ends: &[i64]) -> Control {
        let topics = vec![Born { topic: "t".into(), id: OLD, ends: ends.to_vec() }];
        let patterns = patterns.iter().map(|&one| one.to_owned()).collect();
        Control::Birth { endpoint: "e".into(), patterns, topics }
    }

    #[test]
    fn a_new_endpoint_begins_at_the_end_and_later_partitions_at_their_start() {
        let mut controls = Controls::default();
        let patterns = ["a*".to_owned()];
        assert_eq!(controls.start("e", &patterns, OLD, 0), None, "not before its birth");
        controls.take(0, birth(&["a*"], &[7, 9]));
        assert_eq!(controls.start("e", &patterns, OLD, 1), Some(9));
        assert_eq!(controls.start("e", &patterns, OLD, 2), Some(0), "a partition that came later");
        assert_eq!(controls.start("e", &patterns, NEW, 0), Some(0), "a topic that came later");
        let wider = ["a*".to_owned(), "b*".to_owned()];
        assert_eq!(controls.start("e", &wider, OLD, 0), None, "a wider pattern is born anew");
    }

    #[test]
    fn of_two_births_the_first_one_holds() {
        let mut controls = Controls::default();
        controls.take(0, birth(&["a*"], &[7]));
        controls.take(1, birth(&["a*"], &[8]));
        assert_eq!(controls.start("e", &["a*".to_owned()], OLD, 0), Some(7));
        controls.take(2, birth(&["a*", "b*"], &[9]));
        let wider = ["a*".to_owned(), "b*".to_owned()];
        assert_eq!(controls.start("e", &wider, OLD, 0), Some(7), "it was there before");
    }

    #[test]
    fn who_said_410_is_enabled_by_another_entry_and_who_was_stopped_is_not() {
        let mut controls = Controls::default();
        let disable = |entry: Option<&str>| Control::Disable {
            endpoint: "e".into(),
            reason: "why".into(),
            entry: entry.map(str::to_owned),
        };
        controls.take(0, disable(Some("one")));
        assert!(controls.disabled("e", "one").is_some() && controls.disabled("e", "two").is_none());
        controls.take(1, disable(None));
        assert!(controls.disabled("e", "two").is_some());
        controls.take(2, Control::Enable { endpoint: "e".into() });
        assert!(controls.disabled("e", "two").is_none());
    }

    #[test]
    fn orders_reach_the_cursor_that_they_are_for() {
        let mut controls = Controls::default();
        let range = RedoRange { topic_id: OLD, partition: 1, from: 3, to: 5 };
        controls.take(4, Control::Redo { endpoint: "e".into(), ranges: vec![range] });
        assert_eq!(
            controls.orders("e", (OLD, 1), 0),
            [(4, Order::Redo(std::iter::once(3..5).collect()))]
        );
        assert!(controls.orders("e", (OLD, 1), 5).is_empty(), "it was obeyed");
        assert!(controls.orders("e", (OLD, 0), 0).is_empty());
        assert!(controls.orders("f", (OLD, 1), 0).is_empty());
        assert_eq!(controls.next, 5);
    }
}
