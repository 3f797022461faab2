//! CPU time of client and server for rows into a ClickHouse table: by the sink (one Arrow record batch an INSERT), and
//! beside it the two usual ways, typed rows as `RowBinary` and `JSONEachRow`, into tables of the same form.
//!
//! `cargo bench -p aion-sinks --bench clickhouse -- [ROWS] [ROWS_AN_INSERT]`; the server is the tests' engine
//! (`scripts/setup test`), so its share includes what the front in Python does with the body.

use std::{
    io::{BufRead, BufReader},
    path::PathBuf,
    process::{Child, Command, Stdio},
    sync::Arc,
};

use aion_schemas::{
    clickhouse::{Table, database, marks},
    log::{Offset, Partition},
    schema::{Field, Kind, Schema},
};
use aion_sinks::{
    batch::Batch,
    budget::Budget,
    clickhouse::{ClickHouse, Server, Settings, TableSpec},
    conformance::{EPOCH_US, Log, settle, take},
    sink::Sink,
};
use anyhow::{Context, ensure};
use arrow::{
    array::{
        Array, ArrayRef, AsArray, Float64Array, Int32Array, Int64Array, StringArray,
        TimestampMicrosecondArray, new_null_array, types,
    },
    datatypes::{DataType, TimeUnit},
    json::LineDelimitedWriter,
    record_batch::RecordBatch,
};

fn main() -> anyhow::Result<()> {
    let mut numbers = std::env::args().skip(1).filter_map(|argument| argument.parse::<i64>().ok());
    let rows = numbers.next().unwrap_or(1_000_000);
    let each = numbers.next().unwrap_or(100_000);
    let runtime = tokio::runtime::Runtime::new()?;
    runtime.block_on(async {
        let engine = Engine::start()?;
        let mut lines = Vec::new();
        for way in [Way::Sink, Way::RowBinary, Way::JsonEachRow] {
            lines.push((way, run(&engine, way, rows, each).await?));
        }
        let json = lines.last().map_or(1.0, |(_, cost)| cost.server_s);
        println!("{rows} rows, {each} an INSERT; CPU time in ns a row");
        for (way, cost) in lines {
            let ns = |seconds: f64| seconds * 1e9 / rows as f64;
            println!(
                "{way:?}: client {:.0}, server {:.0} ({:.2} of JSONEachRow's), body {:.0} bytes a row",
                ns(cost.client_s),
                ns(cost.server_s),
                cost.server_s / json,
                cost.bytes as f64 / rows as f64,
            );
        }
        Ok(())
    })
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    Sink,
    RowBinary,
    JsonEachRow,
}

struct Cost {
    client_s: f64,
    server_s: f64,
    /// 0 where it isn't known.
    bytes: usize,
}

async fn run(engine: &Engine, way: Way, rows: i64, each: i64) -> anyhow::Result<Cost> {
    let name = format!("b{way:?}").to_lowercase();
    let table = table();
    for made in [database(&name, None), marks(&name, None), table.create(&name, None)] {
        engine.post(&[("query", &made.sql)], Vec::new()).await?;
    }
    let partition = Log::new().partition(0);
    let url = format!("http://127.0.0.1:{}", engine.port).parse()?;
    let server = Server { url, database: name.clone(), user: None, password: None, ca: None };
    let spec = TableSpec {
        name: "decisions".into(),
        schema: schema().arrow(),
        few_values: FEW.map(str::to_owned).to_vec(),
        partitions: 1,
    };
    let settings = Settings { hold_bytes: usize::MAX, ..Settings::default() };
    let mut sink = ClickHouse::new(server)?.sink(spec, settings);
    sink.assign(std::slice::from_ref(&partition)).await?;
    let mut cost = Cost { client_s: 0.0, server_s: 0.0, bytes: 0 };
    let mut next = 0;
    while next < rows {
        let end = (next + each).min(rows);
        let batch = batch(&partition, next, end)?;
        let before = (cpu_seconds("self")?, cpu_seconds(&engine.pid())?);
        match way {
            Way::Sink => {
                take(&mut sink, batch).await;
                settle(&mut sink).await;
            }
            _ => cost.bytes += engine.insert(&name, way, &batch.rows, next).await?,
        }
        cost.client_s += cpu_seconds("self")? - before.0;
        cost.server_s += cpu_seconds(&engine.pid())? - before.1;
        next = end;
    }
    let sql = format!("SELECT count() FROM {name}.decisions");
    let count = engine.post(&[("query", &sql)], Vec::new()).await?;
    ensure!(count.trim() == rows.to_string(), "{way:?}: {count} rows are there");
    Ok(cost)
}

/// The test engine as a process.
struct Engine {
    process: Child,
    port: u16,
    http: reqwest::Client,
    _folder: tempfile::TempDir,
}

impl Engine {
    fn start() -> anyhow::Result<Engine> {
        let folder = tempfile::tempdir()?;
        let root = PathBuf::from(env!("CARGO_MANIFEST_DIR"));
        let cache = std::env::var_os("XDG_CACHE_HOME").map(PathBuf::from);
        let home = std::env::var_os("HOME").context("there is no $HOME")?;
        let cache = cache.unwrap_or_else(|| PathBuf::from(home).join(".cache"));
        let mut process = Command::new(cache.join("aion-event-streams/venv/bin/python"))
            .arg(root.join("../tests/support/clickhouse/front.py"))
            .arg(folder.path().join("engine"))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .context("start the engine: `scripts/setup test` installs what it needs")?;
        let mut line = String::new();
        let out = process.stdout.take().context("the engine has no output")?;
        BufReader::new(out).read_line(&mut line)?;
        let port = line.trim().rsplit(' ').next().and_then(|port| port.parse().ok());
        let port = port.with_context(|| format!("the engine said {line:?}"))?;
        Ok(Engine { process, port, http: reqwest::Client::new(), _folder: folder })
    }

    fn pid(&self) -> String {
        self.process.id().to_string()
    }

    async fn post(&self, settings: &[(&str, &str)], body: Vec<u8>) -> anyhow::Result<String> {
        let url = format!("http://127.0.0.1:{}/", self.port);
        let url = reqwest::Url::parse_with_params(&url, settings)?;
        let answer = self.http.post(url).body(body).send().await?;
        let (status, text) = (answer.status(), answer.text().await?);
        ensure!(status.is_success(), "{text}");
        Ok(text)
    }

    /// Inserts rows with their ledger in another format; the bytes that were sent.
    async fn insert(
        &self,
        database: &str,
        way: Way,
        rows: &RecordBatch,
        first: i64,
    ) -> anyhow::Result<usize> {
        let rows = with_ledger(rows, first)?;
        let body = if way == Way::RowBinary { row_binary(&rows)? } else { json(&rows)? };
        let schema = rows.schema();
        let names: Vec<&str> = schema.fields().iter().map(|field| field.name().as_str()).collect();
        let format = if way == Way::RowBinary { "RowBinary" } else { "JSONEachRow" };
        let sql =
            format!("INSERT INTO {database}.decisions ({}) FORMAT {format}", names.join(", "));
        let settings = [("query", sql.as_str()), ("date_time_input_format", "best_effort")];
        let bytes = body.len();
        self.post(&settings, body).await?;
        Ok(bytes)
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        drop(self.process.kill());
        drop(self.process.wait());
    }
}

/// The columns of the ledger, as the sink adds them.
fn with_ledger(rows: &RecordBatch, first: i64) -> anyhow::Result<RecordBatch> {
    let count = rows.num_rows();
    let schema = rows.schema();
    let mut columns: Vec<(String, ArrayRef, bool)> = schema
        .fields()
        .iter()
        .zip(rows.columns())
        .map(|(field, column)| (field.name().clone(), Arc::clone(column), field.is_nullable()))
        .collect();
    let day = arrow::array::Date32Array::from(vec![20_000; count]);
    let lease = arrow::array::UInt32Array::from(vec![u32::MAX; count]);
    let count_of = arrow::array::UInt32Array::from(vec![count as u32; count]);
    let ledger: [(&str, ArrayRef); 5] = [
        ("_batch_first", Arc::new(Int64Array::from(vec![first; count]))),
        ("_batch_last", Arc::new(Int64Array::from(vec![first + count as i64 - 1; count]))),
        ("_batch_rows", Arc::new(count_of)),
        ("_batch_day", Arc::new(day)),
        ("_lease", Arc::new(lease)),
    ];
    columns.extend(ledger.map(|(name, column)| (name.to_owned(), column, false)));
    Ok(RecordBatch::try_from_iter_with_nullable(columns)?)
}

fn json(rows: &RecordBatch) -> anyhow::Result<Vec<u8>> {
    let mut writer = LineDelimitedWriter::new(Vec::new());
    writer.write(rows)?;
    writer.finish()?;
    Ok(writer.into_inner())
}

/// Row by row, as the typed inserts of clients do.
fn row_binary(rows: &RecordBatch) -> anyhow::Result<Vec<u8>> {
    let mut out = Vec::new();
    let schema = rows.schema();
    for row in 0..rows.num_rows() {
        for (field, column) in schema.fields().iter().zip(rows.columns()) {
            if field.is_nullable() {
                out.push(u8::from(column.is_null(row)));
                if column.is_null(row) {
                    continue;
                }
            }
            match column.data_type() {
                DataType::Utf8 => {
                    let text = column.as_string::<i32>().value(row);
                    let mut length = text.len();
                    while length >= 0x80 {
                        out.push(length as u8 | 0x80);
                        length >>= 7;
                    }
                    out.push(length as u8);
                    out.extend_from_slice(text.as_bytes());
                }
                DataType::Date32 => {
                    let day = value::<types::Date32Type>(column, row) as u16;
                    out.extend(day.to_le_bytes());
                }
                DataType::UInt32 => {
                    out.extend(value::<types::UInt32Type>(column, row).to_le_bytes());
                }
                DataType::Int32 => out.extend(value::<types::Int32Type>(column, row).to_le_bytes()),
                DataType::Int64 => out.extend(value::<types::Int64Type>(column, row).to_le_bytes()),
                DataType::Float64 => {
                    out.extend(value::<types::Float64Type>(column, row).to_le_bytes());
                }
                DataType::Timestamp(TimeUnit::Microsecond, _) => {
                    let time = value::<types::TimestampMicrosecondType>(column, row);
                    out.extend(time.to_le_bytes());
                }
                other => anyhow::bail!("no RowBinary for {other}"),
            }
        }
    }
    Ok(out)
}

fn value<T: types::ArrowPrimitiveType>(column: &ArrayRef, row: usize) -> T::Native {
    column.as_primitive::<T>().value(row)
}

const FEW: [&str; 4] = ["tenant_id", "intent", "route", "tier"];

fn schema() -> Schema {
    let field = |name: &str, kind: Kind, required: bool| Field {
        name: name.into(),
        kind,
        required,
        few_values: FEW.contains(&name),
        doc: "A field.".into(),
        aliases: Vec::new(),
        default: None,
    };
    let fields = vec![
        field("task_id", Kind::Text, true),
        field("tenant_id", Kind::Text, true),
        field("intent", Kind::Text, true),
        field("route", Kind::Text, true),
        field("tier", Kind::Text, true),
        field("size", Kind::Integer, true),
        field("latency_ms", Kind::Number, true),
        field("cost", Kind::Number, false),
        field("at", Kind::Time, true),
    ];
    Schema { name: "decisions".into(), doc: "A decision.".into(), fields, event_time: 8 }
}

fn table() -> Table {
    Table::of_schema("decisions", &schema(), None)
}

fn batch(partition: &Partition, first: i64, end: i64) -> anyhow::Result<Batch> {
    let offsets = || first..end;
    let count = offsets().count();
    let texts = |name: &'static str, kinds: u64| -> ArrayRef {
        let values = offsets().map(|offset| format!("{name}-{}", mix(offset, kinds) % kinds));
        Arc::new(StringArray::from_iter_values(values))
    };
    let ids = offsets().map(|offset| {
        let (a, b) = (mix(offset, 1), mix(offset, 2));
        uuid::Uuid::from_u64_pair(a, b).to_string()
    });
    let times = |spread: u64| -> ArrayRef {
        let times = offsets().map(|o| EPOCH_US + o * 1000 + (mix(o, 3) % spread) as i64);
        Arc::new(TimestampMicrosecondArray::from_iter_values(times).with_timezone("UTC"))
    };
    let numbers = |salt| offsets().map(move |o| (mix(o, salt) % 100_000) as f64 / 100.0);
    let columns: Vec<ArrayRef> = vec![
        Arc::new(StringArray::from_iter_values(ids)),
        texts("tenant", 200),
        texts("intent", 12),
        texts("route", 4),
        texts("tier", 3),
        Arc::new(Int64Array::from_iter_values(offsets().map(|o| (mix(o, 5) % 10_000) as i64))),
        Arc::new(Float64Array::from_iter_values(numbers(6))),
        Arc::new(numbers(7).map(|n| (n > 300.0).then_some(n)).collect::<Float64Array>()),
        times(2_000_000),
        Arc::new(StringArray::from(vec![partition.stream.id.to_string(); count])),
        Arc::new(Int32Array::from(vec![4; count])),
        Arc::new(Int32Array::from(vec![partition.number; count])),
        Arc::new(Int64Array::from_iter_values(offsets())),
        times(1000),
        new_null_array(&DataType::Utf8, count),
    ];
    let rows = RecordBatch::try_new(schema().arrow(), columns)?;
    Ok(Batch {
        partition: partition.clone(),
        range: Offset(first)..Offset(end),
        epoch: 4,
        appended: None,
        memory: Budget::new(usize::MAX).take(rows.get_array_memory_size()),
        rows,
    })
}

/// A number that looks random and depends on its input alone.
fn mix(offset: i64, salt: u64) -> u64 {
    let mut x = (offset as u64).wrapping_add(salt.wrapping_mul(0x9e37_79b9_7f4a_7c15));
    x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}

/// User and system time of a process so far.
fn cpu_seconds(process: &str) -> anyhow::Result<f64> {
    let stat = std::fs::read_to_string(format!("/proc/{process}/stat"))?;
    let fields = stat.rsplit(')').next().unwrap_or_default().split_whitespace();
    let ticks = fields.skip(11).take(2).map(str::parse::<u64>).sum::<Result<u64, _>>()?;
    Ok(ticks as f64 / 100.0)
}
