//! CPU time of client and server for the contract's decisions into their ClickHouse table: by the sink (one Arrow record
//! batch an INSERT), and beside it the usual ways, typed rows as `RowBinary` and `JSONEachRow`, into tables of the same
//! form. Each also into a table that keeps nothing: what a format costs, without the work that the table is for all of them
//! (sorting, indexes, the projection, compression, files). And by the sink to a server that counts rows and keeps none: what
//! the client takes where nobody else is at work for it.
//!
//! `cargo bench --workspace --bench clickhouse -- [ROWS] [ROWS_AN_INSERT]`; the server is the tests' engine
//! (`scripts/setup test`), so its share includes what the front in Python does with the body.

#[path = "clickhouse/counter.rs"]
mod counter;
#[path = "clickhouse/engine.rs"]
mod engine;

use std::{
    sync::Arc,
    time::{SystemTime, UNIX_EPOCH},
};

use aion_schemas::{
    catalog::{Catalog, Environment, Topic},
    clickhouse::Table,
    decode::{Decoder, Outcome, Record},
    log::{Offset, Partition, Timestamp},
};
use aion_sinks::{
    batch::Batch,
    budget::Budget,
    clickhouse::{ClickHouse, Server, Settings, TableSpec, guarantee::Guarantee},
    conformance::{Log, settle, take},
    sink::Sink,
};
use anyhow::{Context, ensure};
use arrow::{
    array::{Array, ArrayRef, AsArray, Int64Array, types},
    compute::cast,
    datatypes::{DataType, TimeUnit},
    error::ArrowError,
    ipc::writer::StreamWriter,
    json::LineDelimitedWriter,
    record_batch::RecordBatch,
    temporal_conversions::timestamp_us_to_datetime,
};

use counter::Counter;
use engine::Engine;

fn main() -> anyhow::Result<()> {
    if let Some(engine) = counter::engine_port() {
        return counter::serve(engine);
    }
    let mut numbers = std::env::args().skip(1).filter_map(|argument| argument.parse::<i64>().ok());
    let rows = numbers.next().unwrap_or(1_000_000);
    let each = numbers.next().unwrap_or(100_000);
    let runtime = tokio::runtime::Runtime::new()?;
    runtime.block_on(async {
        let engine = Engine::start()?;
        let topic = Catalog::builtin().table("decisions").context("no such table")?.clone();
        let mut costs = Vec::new();
        for way in [Way::Sink, Way::Counted, Way::Arrow, Way::RowBinary, Way::JsonEachRow] {
            costs.push((way, run(&engine, &topic, way, rows, each).await?));
        }
        let json = costs.last().map_or(Cost::default(), |(_, cost)| *cost);
        println!(
            "{rows} rows, {each} an INSERT; CPU time in ns a row, and how many times JSONEachRow's"
        );
        println!("way          client          server         without a table  bytes of the body");
        let column = |seconds: f64, of: f64| {
            let ratio = seconds / of;
            if seconds == 0.0 {
                return "-".to_owned();
            }
            format!("{:>6.0} ({ratio:.2})", seconds * 1e9 / rows as f64)
        };
        for (way, cost) in costs {
            println!(
                "{:12} {:15} {:15} {:16} {:.0}",
                format!("{way:?}"),
                column(cost.client_s, json.client_s),
                column(cost.server_s, json.server_s),
                column(cost.format_s, json.format_s),
                cost.bytes as f64 / rows as f64,
            );
        }
        Ok(())
    })
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    Sink,
    /// The sink, to a server that counts.
    Counted,
    /// What the sink sends, without what makes it exact.
    Arrow,
    RowBinary,
    JsonEachRow,
}

#[derive(Clone, Copy, Default)]
struct Cost {
    client_s: f64,
    server_s: f64,
    /// Of the server, for the same bodies into a table that keeps nothing.
    format_s: f64,
    /// 0 where it isn't known.
    bytes: usize,
}

async fn run(
    engine: &Engine,
    topic: &Topic,
    way: Way,
    rows: i64,
    each: i64,
) -> anyhow::Result<Cost> {
    let name = format!("b{way:?}").to_lowercase();
    let table = Table::of(topic, Environment::Prod);
    let nothing = format!("CREATE TABLE {name}.nothing AS {name}.decisions ENGINE = Null");
    engine.make(&name, &table).await?;
    engine.post(&[("query", &nothing)], Vec::new()).await?;
    let partition = Log::new().partition(0);
    let counter = (way == Way::Counted).then(|| Counter::start(engine.port)).transpose()?;
    let port = counter.as_ref().map_or(engine.port, |counter| counter.port);
    let url = format!("http://127.0.0.1:{port}").parse()?;
    let server = Server {
        urls: vec![url],
        database: name.clone(),
        user: None,
        password: None,
        ca: None,
        guarantee: Guarantee::ExactlyOnce,
    };
    let few = topic.schema.fields.iter().filter(|field| field.few_values);
    let few: Vec<String> = few.map(|field| field.name.to_string()).collect();
    let spec = TableSpec {
        name: "decisions".into(),
        schema: topic.schema.arrow(),
        few_values: few.clone(),
        partitions: 1,
    };
    let settings = Settings { hold_bytes: usize::MAX, ..Settings::default() };
    let mut sink = ClickHouse::new(server)?.sink(spec, settings);
    sink.assign(std::slice::from_ref(&partition)).await?;
    let mut decoder = Decoder::new(&topic.schema);
    let mut cost = Cost::default();
    let mut next = 0;
    while next < rows {
        let end = (next + each).min(rows);
        let batch = batch(&mut decoder, &partition, next, end)?;
        let before = (cpu_seconds("self")?, cpu_seconds(&engine.pid())?);
        let mut body = None;
        if matches!(way, Way::Sink | Way::Counted) {
            take(&mut sink, batch).await;
            settle(&mut sink).await;
        } else {
            let made = Body::of(way, &batch.rows, &few, next)?;
            cost.bytes += made.bytes.len();
            engine.insert(&format!("{name}.decisions"), &made).await?;
            body = Some(made);
        }
        cost.client_s += cpu_seconds("self")? - before.0;
        if counter.is_none() {
            cost.server_s += cpu_seconds(&engine.pid())? - before.1;
        }
        if let Some(body) = body {
            let before = cpu_seconds(&engine.pid())?;
            engine.insert(&format!("{name}.nothing"), &body).await?;
            cost.format_s += cpu_seconds(&engine.pid())? - before;
        }
        next = end;
    }
    if let Some(counter) = counter {
        let (came, bytes) = counter.counted()?;
        ensure!(came as i64 == rows, "{way:?}: {came} rows came");
        return Ok(Cost { bytes, ..cost });
    }
    let sql = format!("SELECT count() FROM {name}.decisions");
    let count = engine.post(&[("query", &sql)], Vec::new()).await?;
    ensure!(count.trim() == rows.to_string(), "{way:?}: {count} rows are there");
    Ok(cost)
}

/// Rows with their ledger in a format.
struct Body {
    format: &'static str,
    columns: String,
    bytes: Vec<u8>,
}

impl Body {
    fn of(way: Way, rows: &RecordBatch, few: &[String], first: i64) -> anyhow::Result<Body> {
        let rows = with_ledger(rows, first)?;
        let schema = rows.schema();
        let names: Vec<&str> = schema.fields().iter().map(|field| field.name().as_str()).collect();
        let columns = names.join(", ");
        let (format, bytes) = match way {
            Way::RowBinary => ("RowBinary", row_binary(&rows)?),
            Way::JsonEachRow => ("JSONEachRow", json(&rows)?),
            Way::Arrow | Way::Sink | Way::Counted => ("ArrowStream", arrow_stream(&rows, few)?),
        };
        Ok(Body { format, columns, bytes })
    }
}

impl Engine {
    fn pid(&self) -> String {
        self.process.id().to_string()
    }

    async fn insert(&self, table: &str, body: &Body) -> anyhow::Result<()> {
        let sql = format!("INSERT INTO {table} ({}) FORMAT {}", body.columns, body.format);
        let settings = [("query", sql.as_str()), ("date_time_input_format", "best_effort")];
        self.post(&settings, body.bytes.clone()).await.map(drop)
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

fn arrow_stream(rows: &RecordBatch, few: &[String]) -> anyhow::Result<Vec<u8>> {
    let numbered = DataType::Dictionary(Box::new(DataType::Int32), Box::new(DataType::Utf8));
    let schema = rows.schema();
    let columns = schema.fields().iter().zip(rows.columns()).map(|(field, column)| {
        let is_few = few.contains(field.name());
        let column = if is_few { cast(column, &numbered)? } else { Arc::clone(column) };
        Ok((field.name().clone(), column, field.is_nullable()))
    });
    let columns: Vec<_> = columns.collect::<Result<_, ArrowError>>()?;
    let rows = RecordBatch::try_from_iter_with_nullable(columns)?;
    let mut writer = StreamWriter::try_new(Vec::new(), &rows.schema())?;
    writer.write(&rows)?;
    Ok(writer.into_inner()?)
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

/// Decisions as they come: two ids in each that are in no other, texts of few values, every fortieth with overrides.
fn batch(
    decoder: &mut Decoder,
    partition: &Partition,
    first: i64,
    end: i64,
) -> anyhow::Result<Batch> {
    // Rows older than the table keeps them would go at once.
    let now = SystemTime::now().duration_since(UNIX_EPOCH)?.as_micros() as i64;
    for offset in first..end {
        let event = event(offset, now);
        let record = Record {
            value: Some(event.as_bytes()),
            offset: Offset(offset),
            epoch: 4,
            append_time: Timestamp(now),
            retry: None,
        };
        ensure!(decoder.push(&record) == Outcome::Row, "{event}");
    }
    let rows = decoder.finish(partition.stream.id, partition.number);
    Ok(Batch {
        partition: partition.clone(),
        range: Offset(first)..Offset(end),
        epoch: 4,
        appended: None,
        memory: Budget::new(usize::MAX).take(rows.get_array_memory_size()),
        rows,
    })
}

fn event(offset: i64, now: i64) -> String {
    const INTENTS: [&str; 5] = ["chat", "summarize", "translate", "code_review", "embed"];
    const REASONS: [&str; 3] = [
        "tier requires execution on the premises",
        "standard model within the cost budget",
        "cost budget below the price of the cloud",
    ];
    let pick = |salt, of: usize| mix(offset, salt) as usize % of;
    let id = |salt| uuid::Uuid::from_u64_pair(mix(offset, salt), mix(offset, salt + 1));
    let overrides = match offset % 40 {
        0 => r#","policy_overrides":{"max_latency_ms":500,"allow_cloud":true}"#,
        _ => "",
    };
    let at = now - 1_000_000 + offset % 100_000 * 7;
    let at = timestamp_us_to_datetime(at).map(|at| at.format("%Y-%m-%dT%H:%M:%S%.6fZ").to_string());
    format!(
        r#"{{"event_id":"{}","task_id":"{}","tenant_id":"tenant-{:03}","intent":"{}","route":"{}","reason":"{}","tier":"{}","timestamp":"{}","size":{},"latency_budget_ms":{},"cost_budget":{:.4},"engine_model":"{}","engine_version":"3.4.{}"{overrides}}}"#,
        id(1),
        id(3),
        pick(5, 250),
        INTENTS[pick(6, INTENTS.len())],
        ["local", "cloud", "hybrid"][pick(7, 3)],
        REASONS[pick(8, REASONS.len())],
        ["public", "internal", "confidential", "restricted"][pick(9, 4)],
        at.unwrap_or_default(),
        pick(10, 50_000),
        pick(11, 1_000) * 50,
        pick(12, 10_000) as f64 / 10_000.0,
        ["aion-small", "aion-medium", "aion-large"][pick(13, 3)],
        pick(14, 3),
    )
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
