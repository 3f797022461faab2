//! ClickHouse over HTTP: a statement, a question with rows for an answer, an INSERT.
//!
//! The whole interface is one POST, so a client of our own is shorter than a way around the official one, whose
//! typed rows cost the server five times the CPU of Arrow columns.
//!
//! **Invariant:** `wait_end_of_query` is always set: an answer of 200 is a whole one, and no error comes in the
//! middle of it.
//! **Invariant:** a question says all settings that could have its answer be less than there is (`WHOLE`).
//! **Invariant:** the password goes to the configured address and nowhere else: no proxy, no redirect.
//! **Invariant:** nothing here tries again but what reached nobody, at another address. Whether any other request may be
//! repeated is for those to say who know what it does.
//!
//! Of several addresses one is asked until it fails in a way that passes; then the next is. They are replicas, so what
//! one was sent the next may not have yet: of tables that may be replicated, every request asks for the order that all of
//! them agree on (`OF_REPLICAS`). Whether they are replicas is looked at before one is asked (`replicas`).

use std::{
    collections::BTreeMap,
    fmt,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    time::Duration,
};

use arrow::{array::RecordBatch, buffer::Buffer, error::ArrowError, ipc::reader::StreamDecoder};
use bytes::Bytes;
use futures::{Stream, stream};
use reqwest::{Certificate, Response, StatusCode, redirect};
use serde::de::DeserializeOwned;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use url::Url;

use super::{
    failure::Failure,
    guarantee::Guarantee,
    insert,
    replicas::{Replica, Replicas},
};
use crate::sink::SinkError;

/// How to reach a server.
#[derive(Clone)]
pub struct Server {
    /// Its addresses, one at least: `http://host:8123` or `https://host:8443`. Several are of replicas, of which the
    /// first that answers is asked.
    pub urls: Vec<Url>,
    /// The database that has the tables.
    pub database: String,
    /// The account; without one the server's default.
    pub user: Option<String>,
    /// Its password; never shown.
    pub password: Option<String>,
    /// Certificates of authorities to trust beside the system's, as PEM.
    pub ca: Option<Vec<u8>>,
    /// What is asked of its tables.
    pub guarantee: Guarantee,
}

impl fmt::Debug for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Server { database, user, .. } = self;
        write!(f, "{}/{database} as {}", self.addresses(), user.as_deref().unwrap_or("default"))
    }
}

impl Server {
    /// Its addresses, in an order that doesn't depend on how they are written.
    pub(super) fn addresses(&self) -> String {
        let mut all: Vec<&str> = self.urls.iter().map(Url::as_str).collect();
        all.sort_unstable();
        all.join(" ")
    }
}

/// How long a connection may take to be made.
const CONNECT_WITHIN: Duration = Duration::from_secs(10);
/// How long a connection is kept that nobody uses; below what servers keep theirs, which is 3 seconds in old ones.
const IDLE: Duration = Duration::from_secs(2);
/// How long is waited for an answer.
const ANSWER_WITHIN: Duration = Duration::from_secs(30);

/// What makes a look at one replica see what another was sent; a table that isn't replicated doesn't heed them.
const OF_REPLICAS: [(&str, &str); 4] = [
    // More than half of the replicas have it, or it is not acknowledged.
    ("insert_quorum", "auto"),
    // One after the other: else the last setting means nothing.
    ("insert_quorum_parallel", "0"),
    // Within the time that is waited for an answer.
    ("insert_quorum_timeout", "20000"),
    // A replica that lacks what the others agreed on says so, and doesn't answer.
    ("select_sequential_consistency", "1"),
];

/// An answer's rows are JSON arrays.
const AS_ROWS: [(&str, &str); 3] = [
    ("default_format", "JSONCompactEachRow"),
    ("output_format_json_quote_64bit_integers", "0"),
    ("output_format_json_named_tuples_as_objects", "0"),
];

/// What has an answer be whole, or an error. An account's profile may have the server stop early, leave rows out, or say what
/// it said before; and a batch that a look doesn't see is sent again.
const WHOLE: [(&str, &str); 15] = [
    ("read_overflow_mode", "throw"),
    ("read_overflow_mode_leaf", "throw"),
    ("timeout_overflow_mode", "throw"),
    ("timeout_overflow_mode_leaf", "throw"),
    ("result_overflow_mode", "throw"),
    ("group_by_overflow_mode", "throw"),
    ("sort_overflow_mode", "throw"),
    ("distinct_overflow_mode", "throw"),
    ("set_overflow_mode", "throw"),
    ("join_overflow_mode", "throw"),
    ("limit", "0"),
    ("offset", "0"),
    ("additional_table_filters", "{}"),
    ("additional_result_filter", ""),
    ("use_query_cache", "0"),
];

/// A client of one server; clones share its connections.
#[derive(Clone, Debug)]
pub(crate) struct Client {
    http: reqwest::Client,
    server: Arc<Server>,
    /// Which of the addresses is asked first.
    first: Arc<AtomicUsize>,
    /// By table: who may insert into it, where one at a time may.
    turns: Arc<Mutex<BTreeMap<String, Arc<Semaphore>>>>,
    /// What the addresses have of the table that this is a client for; `None` where there is one address, or no one table.
    replicas: Option<Arc<Replicas>>,
}

/// What an INSERT says beside its rows.
#[derive(Debug)]
pub(crate) struct Insert<'a> {
    pub(crate) table: &'a str,
    pub(crate) token: &'a str,
    /// While a query of this id runs, another is refused.
    pub(crate) query_id: &'a str,
    /// How long the server may work on it.
    pub(crate) within: Duration,
    /// How long its answer is waited for beyond that.
    pub(crate) answer_within: Duration,
    /// In how many record batches the rows go; one, but in a test.
    pub(crate) blocks: usize,
}

impl Client {
    /// A client of that server. Nothing is asked yet.
    pub(crate) fn new(server: Server) -> Result<Client, SinkError> {
        if server.urls.is_empty() {
            return Err(SinkError::Fatal {
                doing: "prepare to reach ClickHouse".to_owned(),
                cause: "it has no address".to_owned(),
                hint: LOOK_AT.to_owned(),
            });
        }
        let mut http = reqwest::Client::builder()
            .no_proxy()
            .redirect(redirect::Policy::none())
            .connect_timeout(CONNECT_WITHIN)
            .pool_idle_timeout(IDLE);
        if let Some(pem) = &server.ca {
            let several = Certificate::from_pem_bundle(pem);
            for certificate in several.map_err(|cause| unusable("read its certificates", &cause))? {
                http = http.add_root_certificate(certificate);
            }
        }
        let http = http.build().map_err(|cause| unusable("make a client", &cause))?;
        let (first, turns) = (Arc::default(), Arc::default());
        Ok(Client { http, server: Arc::new(server), first, turns, replicas: None })
    }

    /// The same for the rows of one table: once it was looked at, only its replicas are asked.
    pub(crate) fn of_table(&self, table: &str) -> Client {
        let is_many = self.server.urls.len() > 1;
        let replicas = is_many.then(|| Arc::new(Replicas::new(&self.server.database, table)));
        Client { replicas, ..self.clone() }
    }

    /// The same, with something else asked of the tables.
    pub(super) fn asking(&self, guarantee: Guarantee) -> Client {
        let server = Server { guarantee, ..Server::clone(&self.server) };
        Client { server: Arc::new(server), ..self.clone() }
    }

    /// A client for each of the addresses, which asks no other.
    pub(crate) fn each(&self) -> impl Iterator<Item = (String, Client)> {
        self.server.urls.iter().map(move |url| {
            let server = Server { urls: vec![url.clone()], ..Server::clone(&self.server) };
            let (server, first) = (Arc::new(server), Arc::default());
            (url.to_string(), Client { server, first, replicas: None, ..self.clone() })
        })
    }

    /// The server, as it was given.
    pub(crate) fn server(&self) -> &Server {
        &self.server
    }

    /// What the addresses have of the table, where there are several.
    pub(super) fn replicas(&self) -> Option<&Replicas> {
        self.replicas.as_deref()
    }

    /// Waits until an INSERT into that table may be sent; it is over when this is dropped.
    pub(super) async fn turn(&self, table: &str) -> Option<OwnedSemaphorePermit> {
        let turn = {
            let mut turns = self.turns.lock().unwrap_or_else(PoisonError::into_inner);
            let turn = turns.entry(table.to_owned()).or_insert_with(|| Arc::new(Semaphore::new(1)));
            Arc::clone(turn)
        };
        turn.acquire_owned().await.ok()
    }

    /// Runs a statement.
    pub(crate) async fn execute(&self, sql: &str) -> Result<(), Failure> {
        let body = Bytes::from(sql.to_owned());
        self.post(&[("database", &self.server.database)], body, ANSWER_WITHIN).await.map(drop)
    }

    /// Runs a `DELETE` that may take so long, unless a query of that id runs. Its `now()` is when it arrives, and not when
    /// its mutation comes to a part.
    pub(super) async fn delete(
        &self,
        sql: &str,
        query_id: &str,
        within: Duration,
    ) -> Result<(), Failure> {
        let settings = [
            ("database", self.server.database.as_str()),
            ("query_id", query_id),
            ("mutations_execute_nondeterministic_on_initiator", "1"),
        ];
        self.post(&settings, Bytes::from(sql.to_owned()), within).await.map(drop)
    }

    /// Runs a statement that doesn't need the database to be there.
    pub(crate) async fn execute_anywhere(&self, sql: &str) -> Result<(), Failure> {
        self.post(&[], Bytes::from(sql.to_owned()), ANSWER_WITHIN).await.map(drop)
    }

    /// Asks a question; each row of the answer is read from a JSON array.
    pub(crate) async fn ask<T: DeserializeOwned>(&self, sql: &str) -> Result<Vec<T>, Failure> {
        let body = Bytes::from(sql.to_owned());
        rows(&self.post(&as_rows(), body, ANSWER_WITHIN).await?)
    }

    /// What the server at an address says of replicas; one that has lost Keeper doesn't know.
    pub(super) async fn replicas_at(
        &self,
        at: usize,
        question: &str,
    ) -> Result<Vec<Replica>, Failure> {
        let body = Bytes::from(question.to_owned());
        let answer = self.send_to(&self.server.urls[at], &as_rows(), body, CONNECT_WITHIN).await?;
        let has: Vec<Replica> = rows(&answer.bytes().await.map_err(Failure::unanswered)?)?;
        if has.iter().any(|(.., total, _)| *total == 0) {
            return Err(Failure::Unanswered("its Keeper doesn't answer".to_owned()));
        }
        Ok(has)
    }

    /// Asks a question; the answer's rows as columns, texts as text and nothing numbered.
    pub(crate) async fn columns(
        &self,
        sql: &str,
        within: Duration,
    ) -> Result<Vec<RecordBatch>, Failure> {
        let body = Bytes::from(sql.to_owned());
        let stream = self.post(&self.as_columns(), body, within).await?;
        insert::batches(&stream).map_err(|cause| Failure::Unread(cause.to_string()))
    }

    /// The same, with the rows as they come.
    pub(crate) async fn stream(
        &self,
        sql: &str,
        within: Duration,
    ) -> Result<impl Stream<Item = Result<RecordBatch, Failure>> + Send + use<>, Failure> {
        let body = Bytes::from(sql.to_owned());
        let answer = self.send(&self.as_columns(), body, within).await?;
        let state = (answer, StreamDecoder::new(), Buffer::from(Vec::<u8>::new()));
        Ok(stream::try_unfold(state, |(mut answer, mut decoder, mut bytes)| async move {
            let unread = |cause: ArrowError| Failure::Unread(cause.to_string());
            loop {
                if let Some(rows) = decoder.decode(&mut bytes).map_err(unread)? {
                    return Ok(Some((rows, (answer, decoder, bytes))));
                }
                match answer.chunk().await.map_err(Failure::unanswered)? {
                    Some(more) => bytes = Buffer::from(more),
                    None => return decoder.finish().map(|()| None).map_err(unread),
                }
            }
        }))
    }

    fn as_columns(&self) -> Vec<(&str, &str)> {
        let as_columns = [
            ("database", self.server.database.as_str()),
            ("default_format", "ArrowStream"),
            ("output_format_arrow_string_as_string", "1"),
            ("output_format_arrow_low_cardinality_as_dictionary", "0"),
            // The least of no rows is null, as elsewhere.
            ("aggregate_functions_null_for_empty", "1"),
        ];
        [&as_columns[..], &WHOLE[..]].concat()
    }

    /// Inserts rows as one block, which becomes one part.
    pub(crate) async fn insert(&self, what: Insert<'_>, rows: &RecordBatch) -> Result<(), Failure> {
        let sql = insert::statement(&self.server.database, what.table, &rows.schema());
        let within = what.within.as_secs().max(1).to_string();
        let settings = [
            ("query", sql.as_str()),
            ("query_id", what.query_id),
            ("insert_deduplication_token", what.token),
            ("max_execution_time", &within),
            // Asynchronous inserts are the default since 26.3, and gather rows of several writers.
            ("async_insert", "0"),
            ("insert_deduplicate", "1"),
            ("deduplicate_blocks_in_dependent_materialized_views", "1"),
            // One block, or tokens would be compared block by block.
            ("max_insert_block_size", "1048576"),
            ("min_insert_block_size_rows", "1048576"),
            ("min_insert_block_size_bytes", "268435456"),
            // One part: the server refuses rows of two table partitions.
            ("max_partitions_per_insert_block", "1"),
            ("throw_on_max_partitions_per_insert_block", "1"),
        ];
        let body =
            insert::body(rows, what.blocks).map_err(|cause| Failure::Unread(cause.to_string()))?;
        self.post(&settings, body, what.within + what.answer_within).await.map(drop)
    }

    async fn post(
        &self,
        settings: &[(&str, &str)],
        body: Bytes,
        within: Duration,
    ) -> Result<Bytes, Failure> {
        let answer = self.send(settings, body, within).await?;
        answer.bytes().await.map_err(Failure::unanswered)
    }

    /// Sends a statement; its answer is one that says well.
    async fn send(
        &self,
        settings: &[(&str, &str)],
        body: Bytes,
        within: Duration,
    ) -> Result<Response, Failure> {
        let count = self.server.urls.len();
        let first = self.first.load(Relaxed);
        let mut unreached = Failure::Unreached("it has no address".to_owned());
        for at in (first..first + count).map(|at| at % count) {
            if let Err(failure) = self.look_at(at).await {
                unreached = failure;
                continue;
            }
            match self.send_to(&self.server.urls[at], settings, body.clone(), within).await {
                Err(failure @ Failure::Unreached(_)) => unreached = failure,
                Err(failure) if failure.is_of_the_server() => {
                    self.pass_on(first, at).await;
                    return Err(failure);
                }
                answer => {
                    self.ask_first(first, at);
                    return answer;
                }
            }
        }
        Err(unreached)
    }

    /// Looks at an address before it is asked for the first time; an error where it may not be asked.
    async fn look_at(&self, at: usize) -> Result<(), Failure> {
        let unknown = self.replicas().filter(|replicas| !replicas.knows(at));
        let Some(replicas) = unknown else { return Ok(()) };
        let url = self.server.urls[at].as_str();
        let looked = self.replicas_at(at, replicas.question()).await;
        let has = looked.map_err(|failure| {
            Failure::Unreached(format!("{url} was not looked at: {}", failure.text()))
        })?;
        replicas.take(at, url, has)
    }

    /// Has the next address asked first that may be.
    async fn pass_on(&self, before: usize, failed: usize) {
        let count = self.server.urls.len();
        for now in (failed + 1..failed + count).map(|at| at % count) {
            if self.look_at(now).await.is_ok() {
                return self.ask_first(before, now);
            }
        }
    }

    /// From now on that address is asked first; of several requests that found so at once, one decides.
    fn ask_first(&self, before: usize, now: usize) {
        let decides = || self.first.compare_exchange(before, now, Relaxed, Relaxed).is_ok();
        if before != now && decides() {
            let urls = &self.server.urls;
            tracing::warn!(from = %urls[before], to = %urls[now], "another address is asked from now on");
        }
    }

    async fn send_to(
        &self,
        url: &Url,
        settings: &[(&str, &str)],
        body: Bytes,
        within: Duration,
    ) -> Result<Response, Failure> {
        let of_replicas: &[(&str, &str)] = match self.server.guarantee {
            Guarantee::ExactlyOnce => &[],
            Guarantee::AtLeastOnce => &OF_REPLICAS,
        };
        let mut url = url.clone();
        url.query_pairs_mut()
            .extend_pairs(settings)
            .extend_pairs(of_replicas)
            .append_pair("wait_end_of_query", "1");
        let mut request = self.http.post(url).body(body).timeout(within);
        if let Some(user) = &self.server.user {
            request = request.header("X-ClickHouse-User", user);
        }
        if let Some(password) = &self.server.password {
            request = request.header("X-ClickHouse-Key", password);
        }
        let answer = request.send().await.map_err(Failure::unanswered)?;
        let status = answer.status();
        let code = answer.headers().get("X-ClickHouse-Exception-Code");
        let code = code.and_then(|code| code.to_str().ok()?.parse().ok());
        if status == StatusCode::OK && code.is_none() {
            return Ok(answer);
        }
        let body = answer.bytes().await.map_err(Failure::unanswered)?;
        Err(Failure::refused(status, code, &body))
    }
}

/// What a question says whose answer is rows.
fn as_rows() -> Vec<(&'static str, &'static str)> {
    [&AS_ROWS[..], &WHOLE[..]].concat()
}

/// The rows of an answer.
fn rows<T: DeserializeOwned>(text: &[u8]) -> Result<Vec<T>, Failure> {
    let lines = text.split(|byte| *byte == b'\n').filter(|line| !line.is_empty());
    lines
        .map(|line| serde_json::from_slice(line))
        .collect::<Result<_, _>>()
        .map_err(|cause| Failure::Unread(format!("its answer can't be read: {cause}")))
}

const LOOK_AT: &str = "look at [clickhouse] in the configuration";

fn unusable(doing: &str, cause: &reqwest::Error) -> SinkError {
    SinkError::Fatal {
        doing: format!("prepare to reach ClickHouse: {doing}"),
        cause: cause.to_string(),
        hint: LOOK_AT.to_owned(),
    }
}
