//! ClickHouse over HTTP: a statement, a question with rows for an answer, an INSERT.
//!
//! The whole interface is one POST, so a client of our own is shorter than a way around the official one, whose
//! typed rows cost the server five times the CPU of Arrow columns.
//!
//! **Invariant:** `wait_end_of_query` is always set: an answer of 200 is a whole one, and no error comes in the
//! middle of it.
//! **Invariant:** the password goes to the configured address and nowhere else: no proxy, no redirect.
//! **Invariant:** nothing here tries again. Whether a request may be repeated is for those to say who know what it
//! does.

use std::{fmt, sync::Arc, time::Duration};

use arrow::{array::RecordBatch, buffer::Buffer, error::ArrowError, ipc::reader::StreamDecoder};
use bytes::Bytes;
use futures::{Stream, stream};
use reqwest::{Certificate, Response, StatusCode, redirect};
use serde::de::DeserializeOwned;
use url::Url;

use super::{failure::Failure, guarantee::Guarantee, insert};
use crate::sink::SinkError;

/// How to reach a server.
#[derive(Clone)]
pub struct Server {
    /// Its address: `http://host:8123` or `https://host:8443`.
    pub url: Url,
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
        let Server { url, database, user, .. } = self;
        write!(f, "{}/{database} as {}", url, user.as_deref().unwrap_or("default"))
    }
}

/// How long a connection may take to be made.
const CONNECT_WITHIN: Duration = Duration::from_secs(10);
/// How long a connection is kept that nobody uses; below what servers keep theirs, which is 3 seconds in old ones.
const IDLE: Duration = Duration::from_secs(2);
/// How long is waited for an answer beyond what the server may take for a query.
const ANSWER_WITHIN: Duration = Duration::from_secs(30);

/// A client of one server; clones share its connections.
#[derive(Clone, Debug)]
pub(crate) struct Client {
    http: reqwest::Client,
    server: Arc<Server>,
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
    /// In how many record batches the rows go; one, but in a test.
    pub(crate) blocks: usize,
}

impl Client {
    /// A client of that server. Nothing is asked yet.
    pub(crate) fn new(server: Server) -> Result<Client, SinkError> {
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
        Ok(Client { http, server: Arc::new(server) })
    }

    /// The server, as it was given.
    pub(crate) fn server(&self) -> &Server {
        &self.server
    }

    /// Runs a statement.
    pub(crate) async fn execute(&self, sql: &str) -> Result<(), Failure> {
        let body = Bytes::from(sql.to_owned());
        self.post(&[("database", &self.server.database)], body, ANSWER_WITHIN).await.map(drop)
    }

    /// Runs a statement that doesn't need the database to be there.
    pub(crate) async fn execute_anywhere(&self, sql: &str) -> Result<(), Failure> {
        self.post(&[], Bytes::from(sql.to_owned()), ANSWER_WITHIN).await.map(drop)
    }

    /// Asks a question; each row of the answer is read from a JSON array.
    pub(crate) async fn ask<T: DeserializeOwned>(&self, sql: &str) -> Result<Vec<T>, Failure> {
        let settings = [
            ("default_format", "JSONCompactEachRow"),
            ("output_format_json_quote_64bit_integers", "0"),
            ("output_format_json_named_tuples_as_objects", "0"),
        ];
        let body = Bytes::from(sql.to_owned());
        let text = self.post(&settings, body, ANSWER_WITHIN).await?;
        let rows = text.split(|byte| *byte == b'\n').filter(|line| !line.is_empty());
        rows.map(|line| serde_json::from_slice(line))
            .collect::<Result<_, _>>()
            .map_err(|cause| Failure::Unread(format!("its answer can't be read: {cause}")))
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

    fn as_columns(&self) -> [(&str, &str); 5] {
        [
            ("database", self.server.database.as_str()),
            ("default_format", "ArrowStream"),
            ("output_format_arrow_string_as_string", "1"),
            ("output_format_arrow_low_cardinality_as_dictionary", "0"),
            // The least of no rows is null, as elsewhere.
            ("aggregate_functions_null_for_empty", "1"),
        ]
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
        self.post(&settings, body, what.within + ANSWER_WITHIN).await.map(drop)
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
        let mut url = self.server.url.clone();
        url.query_pairs_mut().extend_pairs(settings).append_pair("wait_end_of_query", "1");
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

fn unusable(doing: &str, cause: &reqwest::Error) -> SinkError {
    SinkError::Fatal {
        doing: format!("prepare to reach ClickHouse: {doing}"),
        cause: cause.to_string(),
        hint: "look at [clickhouse] in the configuration".to_owned(),
    }
}
