//! A server before the engine that says that its tables are replicated: what no Keeper is needed for can be tried.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicI64, AtomicU64, AtomicUsize, Ordering::SeqCst},
    },
    time::Duration,
};

use serde_json::json;
use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader},
    net::{TcpListener, TcpStream},
};

use crate::engine::Engine;

pub(crate) struct Relay {
    pub(crate) address: String,
    engine: u16,
    http: reqwest::Client,
    /// The replica's name.
    name: &'static str,
    /// Whether it answers nobody.
    pub(crate) is_down: AtomicBool,
    /// Whether it says that its tables are not replicated.
    pub(crate) is_plain: AtomicBool,
    /// How long it holds an INSERT back.
    pub(crate) pause_ms: AtomicU64,
    /// How far it says that its clock is ahead of the engine's.
    pub(crate) ahead_s: AtomicI64,
    /// So many notes it acknowledges next, and stores nowhere.
    pub(crate) loses_notes: AtomicUsize,
    /// Whether it acknowledges rows, and stores them nowhere.
    pub(crate) loses_rows: AtomicBool,
    /// It lets rows of so many bytes through at most, as a proxy does.
    pub(crate) most_bytes: AtomicUsize,
    /// Whether it says nothing to what is larger.
    pub(crate) is_silent: AtomicBool,
    /// Whether it says that it hides rows by a policy.
    pub(crate) hides_rows: AtomicBool,
    /// What it says of clusters, a status with headers and a body, where it says that the table is Distributed.
    pub(crate) clusters: Mutex<Option<(String, String)>>,
    /// The addresses of what it was asked, with what they say.
    questions: Mutex<Vec<String>>,
    /// The INSERTs that it was sent, by table: their addresses with what they say.
    inserts: Mutex<BTreeMap<&'static str, Vec<String>>>,
    /// The bytes of the last rows that it was sent.
    last_bytes: AtomicUsize,
    /// By table, how many INSERTs are on their way, and how many there were at once.
    under_way: Mutex<BTreeMap<&'static str, (usize, usize)>>,
}

impl Relay {
    pub(crate) async fn start(engine: &Engine, name: &'static str) -> Arc<Relay> {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let relay = Arc::new(Relay {
            address: format!("http://{}", listener.local_addr().unwrap()),
            engine: engine.port,
            http: reqwest::Client::builder().pool_max_idle_per_host(0).build().unwrap(),
            name,
            is_down: false.into(),
            is_plain: false.into(),
            pause_ms: 0.into(),
            ahead_s: 0.into(),
            loses_notes: 0.into(),
            loses_rows: false.into(),
            most_bytes: usize::MAX.into(),
            is_silent: false.into(),
            hides_rows: false.into(),
            questions: Mutex::default(),
            clusters: Mutex::default(),
            inserts: Mutex::default(),
            last_bytes: 0.into(),
            under_way: Mutex::default(),
        });
        let serves = Arc::clone(&relay);
        tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                let serves = Arc::clone(&serves);
                // A client that has gone is no fault of the relay's.
                tokio::spawn(async move { drop(serves.converse(stream).await) });
            }
        });
        relay
    }

    /// The INSERTs into a table that it was sent.
    pub(crate) fn inserts(&self, table: &str) -> Vec<String> {
        self.inserts.lock().unwrap().get(table).cloned().unwrap_or_default()
    }

    /// The bytes of the last rows that it was sent.
    pub(crate) fn last_bytes(&self) -> usize {
        self.last_bytes.load(SeqCst)
    }

    /// The questions that it was asked.
    pub(crate) fn questions(&self) -> Vec<String> {
        self.questions.lock().unwrap().clone()
    }

    /// How many INSERTs into a table were on their way at once.
    pub(crate) fn most_at_once(&self, table: &str) -> usize {
        self.under_way.lock().unwrap().get(table).map_or(0, |(_, most)| *most)
    }

    async fn converse(&self, stream: TcpStream) -> std::io::Result<()> {
        let mut stream = BufReader::new(stream);
        let mut line = String::new();
        stream.read_line(&mut line).await?;
        let path = line.split(' ').nth(1).unwrap_or("/").to_owned();
        let mut length = 0;
        loop {
            line.clear();
            stream.read_line(&mut line).await?;
            let Some((name, value)) = line.split_once(':') else { break };
            if name.eq_ignore_ascii_case("content-length") {
                length = value.trim().parse().unwrap_or(0);
            }
        }
        let mut body = vec![0; length];
        stream.read_exact(&mut body).await?;
        if self.is_down.load(SeqCst) {
            return Ok(());
        }
        let Some((head, body)) = self.answer(&path, body).await else { return Ok(()) };
        let length = body.len();
        let head =
            format!("HTTP/1.1 {head}\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n");
        stream.write_all(head.as_bytes()).await?;
        stream.write_all(&body).await?;
        stream.flush().await
    }

    /// A status with headers, and a body; `None` where the engine gives none.
    async fn answer(&self, path: &str, body: Vec<u8>) -> Option<(String, Vec<u8>)> {
        let sql = String::from_utf8_lossy(&body).into_owned();
        if !path.contains("query=INSERT") && !sql.starts_with("INSERT") {
            self.questions.lock().unwrap().push(path.to_owned());
        }
        if sql.starts_with("EXPLAIN") && self.hides_rows.load(SeqCst) {
            let plan = "[\"ReadFromMergeTree\"]\n[\"  Row level filter\"]\n";
            return Some(("200 OK".to_owned(), plan.into()));
        }
        let table = if path.contains("query=INSERT") {
            "orders"
        } else if sql.starts_with("INSERT") {
            "marks"
        } else if sql.contains("system.replicas") {
            return Some(("200 OK".to_owned(), self.replicas()));
        } else if let Some(said) = self.of_clusters(&sql) {
            return Some(said);
        } else if sql == "SELECT toUnixTimestamp(now())" {
            let answer = self.pass_on(path, body).await;
            return answer.map(|(head, now)| (head, self.shifted(&now)));
        } else {
            return self.pass_on(path, body).await.map(|(head, answer)| {
                let is_about_tables = sql.contains("system.tables");
                (head, if is_about_tables { self.dressed(answer) } else { answer })
            });
        };
        let said = if table == "orders" { path.to_owned() } else { sql };
        self.inserts.lock().unwrap().entry(table).or_default().push(said);
        if table == "marks" && self.loses_notes.load(SeqCst) > 0 {
            self.loses_notes.fetch_sub(1, SeqCst);
            return Some(("200 OK".to_owned(), Vec::new()));
        }
        if table == "orders"
            && let Some(said) = self.kept_back(body.len()).await
        {
            return Some(said);
        }
        self.enter(table);
        tokio::time::sleep(Duration::from_millis(self.pause_ms.load(SeqCst))).await;
        let answer = self.pass_on(path, body).await;
        self.under_way.lock().unwrap().entry(table).or_default().0 -= 1;
        answer
    }

    /// What it says of rows that it doesn't pass on.
    async fn kept_back(&self, bytes: usize) -> Option<(String, Vec<u8>)> {
        self.last_bytes.store(bytes, SeqCst);
        if bytes > self.most_bytes.load(SeqCst) {
            if self.is_silent.load(SeqCst) {
                std::future::pending::<()>().await;
            }
            let page = "<html><title>413 Request Entity Too Large</title></html>";
            return Some(("413 Request Entity Too Large".to_owned(), page.into()));
        }
        self.loses_rows.load(SeqCst).then(|| ("200 OK".to_owned(), Vec::new()))
    }

    fn enter(&self, table: &'static str) {
        let mut under_way = self.under_way.lock().unwrap();
        let (now, most) = under_way.entry(table).or_default();
        *now += 1;
        *most = (*most).max(*now);
    }

    async fn pass_on(&self, path: &str, body: Vec<u8>) -> Option<(String, Vec<u8>)> {
        let url = format!("http://127.0.0.1:{}{path}", self.engine);
        let answer = self.http.post(url).body(body).send().await.ok()?;
        let mut head = answer.status().to_string();
        if let Some(code) = answer.headers().get("X-ClickHouse-Exception-Code") {
            head = format!("{head}\r\nX-ClickHouse-Exception-Code: {}", code.to_str().unwrap());
        }
        Some((head, answer.bytes().await.ok()?.to_vec()))
    }

    /// What it says of its replicas.
    fn replicas(&self) -> Vec<u8> {
        if self.is_plain.load(SeqCst) {
            return Vec::new();
        }
        let of = |table: &str| {
            let path = format!("/clickhouse/tables/{table}");
            json!([table, path, self.name, 2, format!("server of {}", self.name)]).to_string()
        };
        format!("{}\n{}\n", of("orders"), of("marks")).into_bytes()
    }

    /// What it says of clusters, when it is asked for them.
    fn of_clusters(&self, sql: &str) -> Option<(String, Vec<u8>)> {
        let said =
            self.clusters.lock().unwrap().clone().filter(|_| sql.contains("system.clusters"));
        said.map(|(head, body)| (head, body.into_bytes()))
    }

    /// The engine's time by its own clock.
    fn shifted(&self, answer: &[u8]) -> Vec<u8> {
        let [now]: [i64; 1] = serde_json::from_slice(answer).unwrap();
        json!([now + self.ahead_s.load(SeqCst)]).to_string().into_bytes()
    }

    /// A table of the engine as Keeper's, or as one that only passes rows on.
    fn dressed(&self, answer: Vec<u8>) -> Vec<u8> {
        let text = String::from_utf8(answer).unwrap();
        if self.clusters.lock().unwrap().is_some() {
            let engine = "ENGINE = Distributed('main', 'aion', 'orders_local', rand())";
            return text
                .replace("ENGINE = MergeTree", engine)
                .replace("\"MergeTree\"", "\"Distributed\"")
                .into_bytes();
        }
        if self.is_plain.load(SeqCst) {
            return text.into_bytes();
        }
        let marks = "ENGINE = ReplicatedReplacingMergeTree('/path', 'replica', next)";
        text.replace("ENGINE = ReplacingMergeTree(next)", marks)
            .replace("\"ReplacingMergeTree\"", "\"ReplicatedReplacingMergeTree\"")
            .replace("ENGINE = MergeTree", "ENGINE = ReplicatedMergeTree")
            .replace("\"MergeTree\"", "\"ReplicatedMergeTree\"")
            .replace("non_replicated_deduplication_window", "replicated_deduplication_window")
            .into_bytes()
    }
}
