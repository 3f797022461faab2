//! Start, stop, and what runs in between: connections, retention, group timers.

use std::{
    io,
    net::SocketAddr,
    path::Path,
    sync::{Arc, Weak},
    thread::JoinHandle,
    time::{Duration, Instant},
};

use tokio::{
    net::{TcpListener, TcpStream},
    sync::{Semaphore, watch},
    task::{JoinSet, spawn_blocking},
};
use uuid::Uuid;

use crate::{
    Error, Fsync, Settings, connection,
    files::Folder,
    flusher::Flusher,
    groups::Groups,
    log::{Partition, now_ms},
    offsets::Offsets,
    topics::Topics,
};

/// Connections at a time; more are closed at once.
const CONNECTIONS: usize = 1_000;
/// How often members' and rebalances' deadlines are looked at.
const GROUP_TICK: Duration = Duration::from_millis(50);

/// What all connections share.
pub(crate) struct Node {
    pub(crate) address: SocketAddr,
    pub(crate) cluster_id: Uuid,
    pub(crate) topics: Topics,
    pub(crate) groups: Groups,
    pub(crate) offsets: Arc<Offsets>,
    /// Dropped last, when no task can write any more.
    _folder: Folder,
}

/// A running broker. [`Broker::stop`] ends it; dropping it ends it without waiting.
pub struct Broker {
    node: Arc<Node>,
    stopping: watch::Sender<bool>,
    tasks: JoinSet<()>,
    flusher: Option<(Arc<Flusher>, Vec<JoinHandle<()>>)>,
}

impl Broker {
    /// Opens the data folder, repairs what a crash left, and listens.
    pub async fn start(settings: Settings) -> Result<Broker, Error> {
        if !settings.listen.ip().is_loopback() {
            return Err(Error::NotLoopback(settings.listen));
        }
        let bound = TcpListener::bind(settings.listen).await;
        let listener = bound.map_err(|source| cannot_listen(settings.listen, source))?;
        let address = listener.local_addr().map_err(Error::io("listen on", Path::new("socket")))?;
        let every = settings.retention_check;
        let opened = spawn_blocking(move || open(&settings, address)).await;
        let (node, flusher) = opened.map_err(|error| {
            Error::io("open", Path::new("the data folder"))(io::Error::other(error))
        })??;
        let (stopping, stopped) = watch::channel(false);
        let mut tasks = JoinSet::new();
        tasks.spawn(accept(Arc::clone(&node), listener, stopped));
        tasks.spawn(keep_groups(Arc::clone(&node)));
        tasks.spawn(keep_segments(Arc::clone(&node), every));
        tracing::info!(%address, "embedded broker listens");
        Ok(Broker { node, stopping, tasks, flusher })
    }

    /// Where it listens: the value of `bootstrap.servers`.
    pub fn address(&self) -> SocketAddr {
        self.node.address
    }

    /// A view of it for whoever watches it; it neither keeps it nor holds up its end.
    pub fn watch(&self) -> Watch {
        Watch(Arc::downgrade(&self.node))
    }

    /// Ends all connections, makes everything durable and releases the data folder.
    pub async fn stop(mut self) -> Result<(), Error> {
        self.stopping.send_replace(true);
        self.tasks.abort_all();
        while self.tasks.join_next().await.is_some() {}
        // Work that was handed to other threads ends by itself; the folder stays locked until then.
        while Arc::strong_count(&self.node) > 1 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        if let Some((flusher, threads)) = self.flusher.take() {
            flusher.close();
            let joined = spawn_blocking(move || {
                for thread in threads {
                    if thread.join().is_err() {
                        tracing::error!("an fsync thread panicked");
                    }
                }
            });
            if joined.await.is_err() {
                tracing::error!("the fsync threads were not waited for");
            }
        }
        Ok(())
    }

    /// Cuts a partition's log and begins a new leader epoch, as an unclean election would; the
    /// batch that holds `offset` goes as a whole. Returns the new end. **For tests.**
    pub fn truncate(&self, topic: &str, partition: i32, offset: i64) -> Result<i64, Error> {
        self.partition(topic, partition)?.truncate(offset)
    }

    /// Looks for old segments now instead of at the next check. Returns how many were deleted.
    /// **For tests.**
    pub fn apply_retention(&self) -> usize {
        retain(&self.node)
    }

    fn partition(&self, topic: &str, partition: i32) -> Result<Arc<Partition>, Error> {
        let found = self.node.topics.by_name(topic).and_then(|topic| topic.partition(partition));
        found.ok_or_else(|| Error::NoPartition { topic: topic.to_owned(), partition })
    }
}

/// Whether a broker does its work, for as long as it runs.
#[derive(Clone, Debug)]
pub struct Watch(Weak<Node>);

impl Watch {
    /// What the broker can't write: whose, which file, why, and what to do about it; of several files the one that failed
    /// last. `None` when all goes well, or it has stopped.
    pub fn trouble(&self) -> Option<String> {
        let (node, now) = (self.0.upgrade()?, Instant::now());
        let topics = node.topics.all();
        let of_logs = topics.iter().flat_map(|topic| {
            let partitions = topic.partitions().into_iter().enumerate();
            partitions.filter_map(move |(number, partition)| {
                let (at, what) = partition.trouble(now)?;
                Some((at, format!("{}[{number}]: {what}", topic.name)))
            })
        });
        let all = of_logs.chain(node.offsets.trouble(now));
        all.max_by_key(|(at, _)| *at).map(|(_, what)| what)
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        if let Some((flusher, _)) = &self.flusher {
            flusher.close();
        }
    }
}

pub(crate) fn cannot_listen(address: SocketAddr, source: io::Error) -> Error {
    if source.kind() == io::ErrorKind::AddrInUse {
        return Error::Busy { address };
    }
    Error::io("listen on", Path::new(&address.to_string()))(source)
}

type Opened = (Arc<Node>, Option<(Arc<Flusher>, Vec<JoinHandle<()>>)>);

fn open(settings: &Settings, address: SocketAddr) -> Result<Opened, Error> {
    let data = &settings.data;
    let folder = Folder::open(data)?;
    let threads = match settings.fsync {
        Fsync::Always => Some(Flusher::start().map_err(Error::io("start threads for", data))?),
        Fsync::Never => None,
    };
    let flusher = || threads.as_ref().map(|(flusher, _)| Arc::clone(flusher));
    let topics = Topics::open(data.clone(), flusher(), settings.segment_bytes)?;
    let offsets = Offsets::open(data.join("offsets.log"), flusher())?;
    offsets.prune(|id| topics.by_id(id).is_some());
    let node = Node {
        address,
        cluster_id: folder.cluster_id,
        topics,
        groups: Groups::new(Arc::clone(&offsets)),
        offsets,
        _folder: folder,
    };
    Ok((Arc::new(node), threads))
}

async fn accept(node: Arc<Node>, listener: TcpListener, stopped: watch::Receiver<bool>) {
    let room = Arc::new(Semaphore::new(CONNECTIONS));
    let mut connections = JoinSet::new();
    loop {
        while connections.try_join_next().is_some() {}
        let (stream, peer) = match listener.accept().await {
            Ok(accepted) => accepted,
            Err(error) => {
                // Out of file handles, mostly: let connections end before the next try.
                tracing::error!(%error, "cannot accept a connection");
                tokio::time::sleep(GROUP_TICK).await;
                continue;
            }
        };
        let Ok(place) = Arc::clone(&room).try_acquire_owned() else {
            tracing::error!(%peer, limit = CONNECTIONS, "too many connections; refused one");
            continue;
        };
        let (node, mut stopped) = (Arc::clone(&node), stopped.clone());
        connections.spawn(async move {
            let _place = place;
            tokio::select! {
                () = serve(&node, stream, peer) => {}
                _ = stopped.changed() => {}
            }
        });
    }
}

async fn serve(node: &Arc<Node>, stream: TcpStream, peer: SocketAddr) {
    match connection::serve(node, stream, peer).await {
        Ok(()) => {}
        // Clients that have what they wanted go as they like.
        Err(error @ connection::Closed::Io(_)) => tracing::debug!(%peer, %error, "closed"),
        Err(error) => tracing::warn!(%peer, %error, "closed a connection"),
    }
}

async fn keep_groups(node: Arc<Node>) {
    let mut tick = tokio::time::interval(GROUP_TICK);
    loop {
        tick.tick().await;
        node.groups.tick(Instant::now());
    }
}

async fn keep_segments(node: Arc<Node>, every: Duration) {
    let mut tick = tokio::time::interval(every.max(Duration::from_millis(10)));
    loop {
        tick.tick().await;
        let node = Arc::clone(&node);
        if spawn_blocking(move || retain(&node)).await.is_err() {
            tracing::error!("looking for old segments panicked");
        }
    }
}

fn retain(node: &Node) -> usize {
    let now = now_ms();
    let topics = node.topics.all();
    let per_topic = topics.iter().map(|topic| {
        let rules = topic.rules();
        topic.partitions().iter().map(|partition| partition.retain(&rules, now)).sum::<usize>()
    });
    per_topic.sum()
}
