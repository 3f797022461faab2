//! Asking a running process: its rows are those of the lake and what its jobs have beyond that.

use std::time::Duration;

use aion_analytics::tables::{ColumnInfo, TableInfo};
use anyhow::{Context, bail};
use arrow::{
    buffer::Buffer, datatypes::SchemaRef, ipc::reader::StreamDecoder, record_batch::RecordBatch,
};
use bytes::Bytes;
use reqwest::{Client, Response, header};
use serde::{Deserialize, de::DeserializeOwned};
use serde_json::json;
use url::Url;

/// How long a process may take to take a connection.
const CONNECT: Duration = Duration::from_secs(5);

/// A process that answers at `/v1/sql`.
#[derive(Debug)]
pub(super) struct Remote {
    client: Client,
    url: Url,
    key: Option<String>,
    tables: Vec<TableInfo>,
}

#[derive(Deserialize)]
struct Listed {
    tables: Vec<ListedTable>,
}

#[derive(Deserialize)]
struct ListedTable {
    name: String,
    doc: String,
    columns: Vec<ListedColumn>,
}

#[derive(Deserialize)]
struct ListedColumn {
    name: String,
    #[serde(rename = "type")]
    sql_type: String,
    nullable: bool,
    doc: String,
}

#[derive(Deserialize)]
struct Refused {
    detail: String,
}

impl Remote {
    /// Reaches the process at `url` and learns its tables.
    pub(super) async fn open(url: &str, key: Option<String>) -> anyhow::Result<Remote> {
        let url = Url::parse(url).with_context(|| format!("{url} is no URL of a process"))?;
        let client = Client::builder().connect_timeout(CONNECT).no_proxy().build();
        let client = client.context("start the HTTP client")?;
        let mut remote = Remote { client, url, key, tables: Vec::new() };
        let request = remote.client.get(remote.at("v1/tables")?);
        let listed: Listed = json(remote.send(request).await?).await?;
        remote.tables = listed.tables.into_iter().map(TableInfo::from).collect();
        Ok(remote)
    }

    /// Where it is.
    pub(super) fn url(&self) -> &Url {
        &self.url
    }

    /// Its tables.
    pub(super) fn tables(&self) -> &[TableInfo] {
        &self.tables
    }

    /// Asks; the error is for the person who typed the question.
    pub(super) async fn query(&self, sql: &str) -> anyhow::Result<Rows> {
        let body = json!({"query": sql, "format": "arrow"}).to_string();
        let request = self.client.post(self.at("v1/sql")?);
        let request = request.header(header::CONTENT_TYPE, "application/json").body(body);
        let response = self.send(request).await?;
        let mut rows = Rows {
            response,
            decoder: StreamDecoder::new(),
            piece: Buffer::from(Bytes::new()),
            waiting: None,
        };
        // The columns come before the first row, also where there is none.
        rows.waiting = rows.read().await?;
        Ok(rows)
    }

    fn at(&self, path: &str) -> anyhow::Result<Url> {
        self.url.join(path).with_context(|| format!("{} has no place for {path}", self.url))
    }

    async fn send(&self, mut request: reqwest::RequestBuilder) -> anyhow::Result<Response> {
        if let Some(key) = &self.key {
            request = request.bearer_auth(key);
        }
        let reach = || format!("ask the process at {}", self.url);
        let response = request.send().await.with_context(reach)?;
        if response.status().is_success() {
            return Ok(response);
        }
        let status = response.status();
        let body = response.bytes().await.with_context(reach)?;
        match serde_json::from_slice::<Refused>(&body) {
            Ok(refused) => bail!("{}", refused.detail),
            Err(_) => bail!("the process at {} answers {status}", self.url),
        }
    }
}

async fn json<T: DeserializeOwned>(response: Response) -> anyhow::Result<T> {
    let body = response.bytes().await.context("read the answer")?;
    serde_json::from_slice(&body).context("the answer isn't what this release understands")
}

impl From<ListedTable> for TableInfo {
    fn from(table: ListedTable) -> TableInfo {
        let column = |column: ListedColumn| {
            let ListedColumn { name, sql_type, nullable, doc } = column;
            ColumnInfo { name, sql_type, nullable, doc }
        };
        let columns = table.columns.into_iter().map(column).collect();
        TableInfo { name: table.name, doc: table.doc, columns }
    }
}

/// The rows of an answer, as they come.
#[derive(Debug)]
pub(super) struct Rows {
    response: Response,
    decoder: StreamDecoder,
    piece: Buffer,
    waiting: Option<RecordBatch>,
}

impl Rows {
    /// Its columns.
    pub(super) fn schema(&self) -> anyhow::Result<SchemaRef> {
        self.decoder.schema().context("the answer ended before its columns")
    }

    /// The next rows; `None` at the end of a whole answer.
    pub(super) async fn next(&mut self) -> anyhow::Result<Option<RecordBatch>> {
        match self.waiting.take() {
            Some(rows) => Ok(Some(rows)),
            None => self.read().await,
        }
    }

    async fn read(&mut self) -> anyhow::Result<Option<RecordBatch>> {
        loop {
            let decoded = self.decoder.decode(&mut self.piece).context("read the answer")?;
            if decoded.is_some() {
                return Ok(decoded);
            }
            if self.piece.is_empty() {
                let broken = "the answer was broken off; the process's log says why";
                let Some(piece) = self.response.chunk().await.context(broken)? else {
                    self.decoder.finish().context(broken)?;
                    return Ok(None);
                };
                self.piece = Buffer::from(piece);
            }
        }
    }
}
