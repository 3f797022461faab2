//! Takes commands in that are verified: once each, whoever repeats them, in whichever process.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    net::{IpAddr, Ipv6Addr},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use aion_schemas::{commands::Commands, log::Timestamp};
use axum::http::HeaderMap;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::{
    command::{Command, Id},
    log::{Full, Known, State},
    metrics::Counters,
    records::Records,
    trail::{self, Refusal},
};
use crate::{
    access::{Access, rates::Rates},
    webhooks::address::Net,
};

/// How long an answer waits for acknowledgements.
const WAIT: Duration = Duration::from_secs(10);
/// So many bytes of bodies that aren't authenticated are held at a time, and so many of one address.
const ROOM_BYTES: usize = 64 << 20;
const ROOM_OF_ONE_BYTES: usize = 4 << 20;
/// Requests a second of one address that turn out not to be authenticated.
const FAILURES: f64 = 100.0;
/// How often requests that weren't authenticated are summed up.
const SUMMED_UP: Duration = Duration::from_mins(1);

/// What became of a command that was to be taken in.
#[derive(Debug)]
pub enum Taken {
    /// It is recorded, now or before.
    Accepted(Known),
    /// The key stands for another command.
    Other,
    /// The first request of this key is being worked on.
    InProgress,
    /// Whether it is recorded isn't known.
    Unknown(String),
    /// Too much waits for the control plane already.
    Full(Full),
}

/// Takes commands in.
#[derive(Debug)]
pub struct Gateway {
    /// Who may do what.
    pub access: Arc<Access>,
    /// Which commands there are.
    pub commands: Commands,
    records: Records,
    trusted_proxies: Vec<Net>,
    in_progress: Mutex<HashSet<Id>>,
    failures: Mutex<Rates<IpAddr>>,
    /// Bytes of bodies that aren't authenticated.
    held: Mutex<Held>,
}

/// An id that is being worked on, until this is dropped.
struct Progress<'a>(&'a Gateway, Id);

impl Drop for Progress<'_> {
    fn drop(&mut self) {
        self.0.in_progress.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.1);
    }
}

/// The bytes of bodies that aren't authenticated yet.
#[derive(Debug, Default)]
struct Held {
    all: usize,
    of: HashMap<IpAddr, usize>,
}

/// The room that a body takes, until this is dropped.
#[derive(Debug)]
pub struct Room<'a> {
    gateway: &'a Gateway,
    sender: IpAddr,
    bytes: usize,
}

impl Room<'_> {
    /// Takes so many bytes more, where they are free.
    pub fn grow(&mut self, bytes: usize) -> bool {
        let mut held = self.gateway.held();
        let of_sender = held.of.get(&self.sender).copied().unwrap_or_default();
        let fits = held.all + bytes <= ROOM_BYTES && of_sender + bytes <= ROOM_OF_ONE_BYTES;
        if fits {
            held.all += bytes;
            held.of.insert(self.sender, of_sender + bytes);
            self.bytes += bytes;
        }
        fits
    }
}

impl Drop for Room<'_> {
    fn drop(&mut self) {
        let mut held = self.gateway.held();
        held.all -= self.bytes;
        if let Some(of_sender) = held.of.get_mut(&self.sender) {
            *of_sender -= self.bytes;
            if *of_sender == 0 {
                held.of.remove(&self.sender);
            }
        }
    }
}

impl Gateway {
    /// Takes commands in for whom `access` lets in, and writes them by `records`.
    pub fn new(
        (access, commands): (Arc<Access>, Commands),
        records: Records,
        trusted_proxies: Vec<Net>,
    ) -> Gateway {
        let (in_progress, failures) = (Mutex::default(), Mutex::default());
        let held = Mutex::default();
        Gateway { access, commands, records, trusted_proxies, in_progress, failures, held }
    }

    /// Takes nothing more in: the process is stopping.
    pub fn close(&self) {
        self.records.close();
    }

    /// What is counted.
    pub fn counters(&self) -> &Counters {
        &self.records.counters
    }

    /// The log of commands, for a moment.
    pub fn state(&self) -> MutexGuard<'_, State> {
        self.records.log.lock()
    }

    /// What keeps commands from being taken in, if anything does.
    pub fn trouble(&self) -> Option<String> {
        let state = self.state();
        let trouble = state.trouble().map(str::to_owned);
        trouble.or_else(|| (!state.is_ready()).then(|| "their log is being read".to_owned()))
    }

    /// Whose address a request is of: the connection's, or what the last proxy that is trusted says.
    pub fn peer(&self, connection: IpAddr, headers: &HeaderMap) -> IpAddr {
        let is_trusted =
            |address: IpAddr| self.trusted_proxies.iter().any(|net| net.contains(address));
        let mut peer = connection.to_canonical();
        let lines = headers.get_all("x-forwarded-for").iter().rev();
        let texts = lines.filter_map(|line| line.to_str().ok());
        for text in texts.flat_map(|line| line.rsplit(',')) {
            if !is_trusted(peer) {
                break;
            }
            let Ok(before) = text.trim().parse::<IpAddr>() else { break };
            peer = before.to_canonical();
        }
        peer
    }

    /// Room for a body of an address that isn't authenticated; it grows.
    pub fn room(&self, peer: IpAddr) -> Room<'_> {
        Room { gateway: self, sender: sender(peer), bytes: 0 }
    }

    fn held(&self) -> MutexGuard<'_, Held> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Lets a request of an address be looked at; seconds to wait where too many of its were nothing.
    pub fn look_at(&self, peer: IpAddr) -> Result<(), u64> {
        let mut failures = self.failures.lock().unwrap_or_else(PoisonError::into_inner);
        failures.take(&sender(peer), FAILURES, now_ms())
    }

    /// It was authenticated, and doesn't count.
    pub fn was_good(&self, peer: IpAddr) {
        self.failures.lock().unwrap_or_else(PoisonError::into_inner).give_back(&sender(peer));
    }

    /// Takes a command in, if it is a new one.
    pub async fn take(&self, command: Command) -> Taken {
        let (id, until) = (command.id, Instant::now() + WAIT);
        let is_new = self.in_progress.lock().unwrap_or_else(PoisonError::into_inner).insert(id);
        if !is_new {
            return Taken::InProgress;
        }
        let _progress = Progress(self, id);
        let known = {
            let state = self.state();
            if !state.is_ready() {
                return Taken::Unknown("the log of commands is being read".to_owned());
            }
            let known = state.find(id).cloned();
            if known.is_none()
                && let Some(full) = state.full_for(&command.actor)
            {
                return Taken::Full(full);
            }
            known
        };
        if known.is_none()
            && let Err(cause) = self.records.command(&command, until).await
        {
            return Taken::Unknown(cause);
        }
        let known = known.or_else(|| self.state().find(id).cloned());
        let Some(known) = known else {
            return Taken::Unknown("the log of commands is being read again".to_owned());
        };
        if known.content != command.content {
            return Taken::Other;
        }
        match self.records.accepted(id, until).await {
            Ok(()) => Taken::Accepted(known),
            Err(cause) => Taken::Unknown(cause),
        }
    }

    /// Writes that an authenticated request was refused.
    pub async fn refused(&self, refusal: &Refusal<'_>) -> Result<(), String> {
        self.records.refused(refusal, Instant::now() + WAIT).await
    }

    /// Sums up what wasn't authenticated, once a minute, until `shutdown`.
    pub async fn sum_up(&self, shutdown: CancellationToken) {
        let mut told: BTreeMap<&'static str, u64> = BTreeMap::new();
        loop {
            let pause = tokio::time::sleep(SUMMED_UP);
            let is_over = shutdown.run_until_cancelled(pause).await.is_none();
            let counts = self.counters().noise();
            let new = |(cause, count): (&&'static str, &u64)| {
                let new = count - told.get(cause).copied().unwrap_or_default();
                (new > 0).then_some((*cause, new))
            };
            let news: BTreeMap<_, _> = counts.iter().filter_map(new).collect();
            if !news.is_empty() {
                let event = trail::noise(&news, now());
                let until = Instant::now() + WAIT;
                match self.records.audit(trail::GATEWAY, &event, until).await {
                    Ok(()) => told = counts,
                    Err(cause) => tracing::warn!("commands: what wasn't authenticated: {cause}"),
                }
            }
            if is_over {
                return;
            }
        }
    }
}

/// Whom a rate is for: an address, of IPv6 the network of 64 bits that one subscriber has at least.
fn sender(peer: IpAddr) -> IpAddr {
    match peer {
        IpAddr::V4(_) => peer,
        IpAddr::V6(address) => {
            Ipv6Addr::from_bits(address.to_bits() & !u128::from(u64::MAX)).into()
        }
    }
}

/// The clock's time.
pub fn now() -> Timestamp {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Timestamp(since.as_micros() as i64)
}

fn now_ms() -> i64 {
    now().0 / 1_000
}
