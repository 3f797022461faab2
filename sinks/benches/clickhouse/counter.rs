//! A server that counts the rows that it is sent and keeps none, in a process of its own: what the client takes by itself.
//!
//! It answers `INSERT`s of rows, and the look after each by what came of that partition; what else is asked or noted goes to
//! the engine behind it, which has the tables and none of the rows: where anything but a look is asked of rows that came,
//! the conversation ends without an answer.

use std::{
    collections::BTreeMap,
    io::{BufRead, BufReader, Read, Write},
    net::{TcpListener, TcpStream},
    process::{Child, Command, Stdio},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    thread,
    time::{SystemTime, UNIX_EPOCH},
};

use anyhow::{Context, ensure};
use arrow::{
    array::AsArray,
    datatypes::{Int32Type, Int64Type, UInt32Type},
    ipc::reader::StreamReader,
};

/// The process.
pub(crate) struct Counter {
    process: Child,
    pub(crate) port: u16,
}

/// What it was sent.
#[derive(Default)]
struct Counted {
    rows: usize,
    bytes: usize,
    /// By topic id and partition.
    batches: BTreeMap<(String, i64), Vec<Batch>>,
}

struct Batch {
    first: i64,
    last: i64,
    rows: u32,
}

/// A request: where it goes, and what is in it.
struct Request {
    path: String,
    body: Vec<u8>,
}

/// The word that has this program count, before the engine's port.
const WORD: &str = "count";

/// The engine's port, in the process that counts.
pub(crate) fn engine_port() -> Option<u16> {
    let mut arguments = std::env::args().skip_while(|argument| argument != WORD);
    arguments.nth(1)?.parse().ok()
}

impl Counter {
    pub(crate) fn start(engine: u16) -> anyhow::Result<Counter> {
        let mut process = Command::new(std::env::current_exe()?)
            .args([WORD, &engine.to_string()])
            .stdout(Stdio::piped())
            .spawn()?;
        let mut line = String::new();
        let out = process.stdout.take().context("it has no output")?;
        BufReader::new(out).read_line(&mut line)?;
        let port = line.trim().parse().with_context(|| format!("the counter said {line:?}"))?;
        Ok(Counter { process, port })
    }

    /// The rows and bytes so far.
    pub(crate) fn counted(&self) -> anyhow::Result<(usize, usize)> {
        let request = Request { path: "/counted".to_owned(), body: Vec::new() };
        let text = String::from_utf8(ask(self.port, &request)?)?;
        let (rows, bytes) = text.split_once(' ').context("no counts")?;
        Ok((rows.parse()?, bytes.parse()?))
    }
}

impl Drop for Counter {
    fn drop(&mut self) {
        drop(self.process.kill());
        drop(self.process.wait());
    }
}

/// Counts until it is killed.
pub(crate) fn serve(engine: u16) -> anyhow::Result<()> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    println!("{}", listener.local_addr()?.port());
    let counted = Arc::<Mutex<Counted>>::default();
    for stream in listener.incoming() {
        let (stream, counted) = (stream?, Arc::clone(&counted));
        thread::spawn(move || {
            if let Err(error) = converse(&stream, engine, &counted) {
                eprintln!("the counter: {error:#}");
            }
        });
    }
    Ok(())
}

fn converse(stream: &TcpStream, engine: u16, counted: &Mutex<Counted>) -> anyhow::Result<()> {
    let (mut reader, mut writer) = (BufReader::new(stream), stream);
    while let Some(request) = next_request(&mut reader)? {
        let answer = reply(&request, engine, counted)?;
        write!(writer, "HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", answer.len())?;
        writer.write_all(&answer)?;
    }
    Ok(())
}

fn next_request(reader: &mut impl BufRead) -> anyhow::Result<Option<Request>> {
    let mut line = String::new();
    if reader.read_line(&mut line)? == 0 {
        return Ok(None);
    }
    let path = line.split(' ').nth(1).context("no path")?.to_owned();
    let mut length = 0;
    loop {
        line.clear();
        reader.read_line(&mut line)?;
        if line.trim().is_empty() {
            break;
        }
        let (name, value) = line.split_once(':').context("no header")?;
        if name.eq_ignore_ascii_case("content-length") {
            length = value.trim().parse()?;
        }
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body)?;
    Ok(Some(Request { path, body }))
}

fn reply(request: &Request, engine: u16, counted: &Mutex<Counted>) -> anyhow::Result<Vec<u8>> {
    if request.path == "/counted" {
        let counted = lock(counted);
        return Ok(format!("{} {}", counted.rows, counted.bytes).into_bytes());
    }
    // Rows come with their statement in the address.
    if request.path.contains("query=INSERT") {
        count(&request.body, counted)?;
        return Ok(Vec::new());
    }
    let sql = String::from_utf8_lossy(&request.body);
    // What is asked of rows names their topic so; what is asked of notes doesn't.
    let Some(topic_id) = behind(&sql, "_topic_id = '", |one| one == '\'') else {
        return ask(engine, request);
    };
    let number = |name| behind(&sql, name, |one| !one.is_ascii_digit())?.parse::<i64>().ok();
    let range = number("_batch_first < ").zip(number("_batch_last >= "));
    let Some((partition, (next, first))) = number("_partition = ").zip(range) else {
        let is_known = lock(counted).batches.keys().any(|(came, _)| came == topic_id);
        ensure!(!is_known, "of rows that came it answers a look and no more: {sql}");
        return ask(engine, request);
    };
    let now = SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs();
    let counted = lock(counted);
    let came = counted.batches.get(&(topic_id.to_owned(), partition)).into_iter().flatten();
    let found = came.filter(|batch| batch.first < next && batch.last >= first);
    let found = found.map(|Batch { first, last, rows }| format!("[{first},{},{rows},0]", last + 1));
    Ok(format!("[{now},[{}]]\n", found.collect::<Vec<_>>().join(",")).into_bytes())
}

/// What stands behind some text, up to where it ends.
fn behind<'a>(sql: &'a str, text: &str, is_end: impl Fn(char) -> bool) -> Option<&'a str> {
    sql.split_once(text)?.1.split(is_end).next()
}

fn count(body: &[u8], counted: &Mutex<Counted>) -> anyhow::Result<()> {
    for rows in StreamReader::try_new(body, None)? {
        let rows = rows?;
        let column = |name| rows.column_by_name(name).context("no ledger");
        let topic_id = column("_topic_id")?.as_string::<i32>().value(0).to_owned();
        let partition = column("_partition")?.as_primitive::<Int32Type>().value(0);
        let batch = Batch {
            first: column("_batch_first")?.as_primitive::<Int64Type>().value(0),
            last: column("_batch_last")?.as_primitive::<Int64Type>().value(0),
            rows: column("_batch_rows")?.as_primitive::<UInt32Type>().value(0),
        };
        let mut counted = lock(counted);
        counted.rows += rows.num_rows();
        counted.batches.entry((topic_id, partition.into())).or_default().push(batch);
    }
    lock(counted).bytes += body.len();
    Ok(())
}

fn lock(counted: &Mutex<Counted>) -> MutexGuard<'_, Counted> {
    counted.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Asks another server, and is answered in full.
fn ask(port: u16, request: &Request) -> anyhow::Result<Vec<u8>> {
    let mut stream = TcpStream::connect(("127.0.0.1", port))?;
    let Request { path, body } = request;
    let head = format!(
        "POST {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Length: {}\r\n\r\n",
        body.len()
    );
    stream.write_all(head.as_bytes())?;
    stream.write_all(body)?;
    let mut reader = BufReader::new(stream);
    let (mut status, mut length) = (String::new(), 0);
    reader.read_line(&mut status)?;
    loop {
        let mut line = String::new();
        reader.read_line(&mut line)?;
        if let Some((_, value)) =
            line.split_once(':').filter(|(name, _)| name.eq_ignore_ascii_case("content-length"))
        {
            length = value.trim().parse()?;
        }
        if line.trim().is_empty() {
            break;
        }
    }
    let mut answer = vec![0; length];
    reader.read_exact(&mut answer)?;
    let text = String::from_utf8_lossy(&answer);
    ensure!(status.contains(" 200 "), "{}: {text}", status.trim());
    Ok(answer)
}
