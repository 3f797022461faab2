//! Topics: names, ids, configurations, and their partitions on disk.
//!
//! **Invariant:** a partition's folder is named by the topic's id, so a topic that is deleted and
//! made anew never meets the other one's data.
//! **Invariant:** `topics.json` names a topic only after its folders are there, and stops naming it
//! before they go; folders that it doesn't name are what a crash left, and are removed at start.

use std::{
    collections::{BTreeMap, HashMap},
    fs,
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError, RwLock, RwLockReadGuard},
};

use kafka_protocol::error::ResponseError;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

pub(crate) use crate::configs::Rules;
use crate::{
    Error, files,
    flusher::{Flusher, lock},
    log::Partition,
    steps::{self, Step},
};

/// Partitions a topic may have.
const PARTITIONS: i32 = 10_000;

/// One topic.
pub(crate) struct Topic {
    pub(crate) name: String,
    pub(crate) id: Uuid,
    shape: RwLock<Shape>,
}

struct Shape {
    set: BTreeMap<String, String>,
    rules: Arc<Rules>,
    partitions: Vec<Arc<Partition>>,
}

/// A topic in `topics.json`.
#[derive(Clone, Serialize, Deserialize)]
struct Entry {
    name: String,
    id: Uuid,
    partitions: usize,
    configs: BTreeMap<String, String>,
}

/// A refusal: a code for the client and words for its user.
pub(crate) type Refusal = (ResponseError, String);

fn read<T>(lock: &RwLock<T>) -> RwLockReadGuard<'_, T> {
    lock.read().unwrap_or_else(PoisonError::into_inner)
}

impl Topic {
    fn shape(&self) -> RwLockReadGuard<'_, Shape> {
        read(&self.shape)
    }

    /// A partition by number.
    pub(crate) fn partition(&self, index: i32) -> Option<Arc<Partition>> {
        let index = usize::try_from(index).ok()?;
        self.shape().partitions.get(index).cloned()
    }

    /// All partitions.
    pub(crate) fn partitions(&self) -> Vec<Arc<Partition>> {
        self.shape().partitions.clone()
    }

    /// What the configurations mean.
    pub(crate) fn rules(&self) -> Arc<Rules> {
        Arc::clone(&self.shape().rules)
    }

    /// The configurations that were set.
    pub(crate) fn set(&self) -> BTreeMap<String, String> {
        self.shape().set.clone()
    }

    fn entry(&self) -> Entry {
        let shape = self.shape();
        Entry {
            name: self.name.clone(),
            id: self.id,
            partitions: shape.partitions.len(),
            configs: shape.set.clone(),
        }
    }
}

/// All topics of the broker.
pub(crate) struct Topics {
    folder: PathBuf,
    flusher: Option<Arc<Flusher>>,
    pub(crate) segment_bytes: u64,
    all: RwLock<All>,
    /// Held while topics change; `all` is never held while a file is written.
    changing: Mutex<()>,
}

#[derive(Default)]
struct All {
    by_name: BTreeMap<String, Arc<Topic>>,
    by_id: HashMap<Uuid, Arc<Topic>>,
}

impl Topics {
    /// Reads the topics of a data folder.
    pub(crate) fn open(
        folder: PathBuf,
        flusher: Option<Arc<Flusher>>,
        segment_bytes: u64,
    ) -> Result<Topics, Error> {
        let (all, changing) = (RwLock::default(), Mutex::default());
        let topics = Topics { folder, flusher, segment_bytes, all, changing };
        let file = topics.file();
        let entries: Vec<Entry> = files::read_json(&file)?.unwrap_or_default();
        for entry in &entries {
            let corrupt = |reason| Error::Corrupt { path: file.clone(), reason };
            let rules = Rules::new(&entry.configs, segment_bytes).map_err(corrupt)?;
            topics.insert(&topics.load(entry, rules)?);
        }
        topics.sweep()?;
        Ok(topics)
    }

    fn file(&self) -> PathBuf {
        self.folder.join("topics.json")
    }

    fn home(&self, id: Uuid, index: usize) -> PathBuf {
        self.folder.join("topics").join(format!("{id}-{index}"))
    }

    fn load(&self, entry: &Entry, rules: Rules) -> Result<Arc<Topic>, Error> {
        let partitions = (0..entry.partitions).map(|at| self.partition(entry.id, at));
        let shape = RwLock::new(Shape {
            set: entry.configs.clone(),
            rules: Arc::new(rules),
            partitions: partitions.collect::<Result<_, _>>()?,
        });
        Ok(Arc::new(Topic { name: entry.name.clone(), id: entry.id, shape }))
    }

    fn partition(&self, id: Uuid, index: usize) -> Result<Arc<Partition>, Error> {
        Partition::open(self.home(id, index), self.flusher.clone())
    }

    fn insert(&self, topic: &Arc<Topic>) {
        let mut all = self.all.write().unwrap_or_else(PoisonError::into_inner);
        all.by_name.insert(topic.name.clone(), Arc::clone(topic));
        all.by_id.insert(topic.id, Arc::clone(topic));
    }

    /// Removes folders that no topic names.
    fn sweep(&self) -> Result<(), Error> {
        let home = self.folder.join("topics");
        fs::create_dir_all(&home).map_err(Error::io("create", &home))?;
        steps::did(|| Step::Made(home.clone()));
        for entry in fs::read_dir(&home).map_err(Error::io("list", &home))?.flatten() {
            let name = entry.file_name();
            let parts = name.to_str().and_then(|name| name.rsplit_once('-'));
            let id = parts.and_then(|(id, _)| id.parse().ok());
            let index = parts.and_then(|(_, index)| index.parse().ok());
            let (Some(id), Some(index)) = (id, index) else {
                continue;
            };
            if self.by_id(id).and_then(|topic| topic.partition(index)).is_none() {
                let path = entry.path();
                tracing::warn!(path = %path.display(), "remove a partition that no topic names");
                fs::remove_dir_all(&path).map_err(Error::io("remove", &path))?;
            }
        }
        Ok(())
    }

    /// A topic by name.
    pub(crate) fn by_name(&self, name: &str) -> Option<Arc<Topic>> {
        read(&self.all).by_name.get(name).cloned()
    }

    /// A topic by id.
    pub(crate) fn by_id(&self, id: Uuid) -> Option<Arc<Topic>> {
        read(&self.all).by_id.get(&id).cloned()
    }

    /// All topics in the order of their names.
    pub(crate) fn all(&self) -> Vec<Arc<Topic>> {
        read(&self.all).by_name.values().cloned().collect()
    }

    /// Writes the list of topics with `changed` in place of, or beside, what is there.
    fn save(&self, changed: Option<Entry>, without: Option<Uuid>) -> Result<(), Refusal> {
        let replaced = changed.as_ref().map(|entry| entry.id).or(without);
        let kept = self.all().into_iter().filter(|topic| Some(topic.id) != replaced);
        let entries: Vec<Entry> = kept.map(|topic| topic.entry()).chain(changed).collect();
        files::replace_json(&self.file(), &entries).map_err(|error| storage(&error))
    }

    /// Creates a topic; with `only_check` it says what would happen.
    pub(crate) fn create(
        &self,
        name: &str,
        partitions: i32,
        configs: BTreeMap<String, String>,
        only_check: bool,
    ) -> Result<(Uuid, usize), Refusal> {
        let _changing = lock(&self.changing);
        check_name(name)?;
        if self.by_name(name).is_some() {
            let words = format!("topic {name:?} exists already");
            return Err((ResponseError::TopicAlreadyExists, words));
        }
        let partitions = if partitions == -1 { 1 } else { partitions };
        let partitions = check_count(partitions)?;
        let rules = Rules::new(&configs, self.segment_bytes);
        let rules = rules.map_err(|words| (ResponseError::InvalidConfig, words))?;
        let entry = Entry { name: name.to_owned(), id: Uuid::new_v4(), partitions, configs };
        if !only_check {
            let topic = self.load(&entry, rules).map_err(|error| storage(&error))?;
            self.named()?;
            self.save(Some(entry.clone()), None)?;
            self.insert(&topic);
        }
        Ok((entry.id, partitions))
    }

    /// Makes the partitions' folders durable before the list names them.
    fn named(&self) -> Result<(), Refusal> {
        let home = self.folder.join("topics");
        files::sync_folder(&home).map_err(|error| storage(&Error::io("sync", &home)(error)))
    }

    /// Deletes a topic and its data.
    pub(crate) fn delete(&self, topic: &Topic) -> Result<(), Refusal> {
        let _changing = lock(&self.changing);
        self.save(None, Some(topic.id))?;
        {
            let mut all = self.all.write().unwrap_or_else(PoisonError::into_inner);
            all.by_id.remove(&topic.id);
            if all.by_name.get(&topic.name).is_some_and(|named| named.id == topic.id) {
                all.by_name.remove(&topic.name);
            }
        }
        for partition in topic.partitions() {
            partition.delete();
        }
        Ok(())
    }

    /// Gives a topic more partitions.
    pub(crate) fn grow(&self, topic: &Topic, count: i32, only_check: bool) -> Result<(), Refusal> {
        let _changing = lock(&self.changing);
        let wanted = check_count(count)?;
        let now = topic.partitions().len();
        if wanted <= now {
            let words =
                format!("topic {:?} has {now} partitions; {wanted} are no more", topic.name);
            return Err((ResponseError::InvalidPartitions, words));
        }
        if only_check {
            return Ok(());
        }
        let added: Result<Vec<_>, _> =
            (now..wanted).map(|at| self.partition(topic.id, at)).collect();
        let added = added.map_err(|error| storage(&error))?;
        self.named()?;
        self.save(Some(Entry { partitions: wanted, ..topic.entry() }), None)?;
        let mut shape = topic.shape.write().unwrap_or_else(PoisonError::into_inner);
        shape.partitions.extend(added);
        Ok(())
    }

    /// Changes a topic's configurations by `change`.
    pub(crate) fn configure(
        &self,
        topic: &Topic,
        change: impl FnOnce(&mut BTreeMap<String, String>) -> Result<(), String>,
        only_check: bool,
    ) -> Result<(), Refusal> {
        let _changing = lock(&self.changing);
        let invalid = |words| (ResponseError::InvalidConfig, words);
        let mut set = topic.set();
        change(&mut set).map_err(invalid)?;
        let rules = Rules::new(&set, self.segment_bytes).map_err(invalid)?;
        if only_check {
            return Ok(());
        }
        self.save(Some(Entry { configs: set.clone(), ..topic.entry() }), None)?;
        let mut shape = topic.shape.write().unwrap_or_else(PoisonError::into_inner);
        shape.set = set;
        shape.rules = Arc::new(rules);
        Ok(())
    }
}

fn storage(error: &Error) -> Refusal {
    tracing::error!(%error, "cannot change topics");
    (ResponseError::KafkaStorageError, error.to_string())
}

fn check_count(count: i32) -> Result<usize, Refusal> {
    let words = || format!("a topic may have 1 to {PARTITIONS} partitions, not {count}");
    let right = (1..=PARTITIONS).contains(&count);
    right.then_some(count as usize).ok_or_else(|| (ResponseError::InvalidPartitions, words()))
}

fn check_name(name: &str) -> Result<(), Refusal> {
    let legal = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
    let right = (1..=249).contains(&name.len()) && name.chars().all(legal);
    if right && name != "." && name != ".." {
        return Ok(());
    }
    let words = format!("topic name {name:?}: 1 to 249 of letters, digits, '.', '_', '-'");
    Err((ResponseError::InvalidTopicException, words))
}
