//! What a decoded event costs, beside `arrow-json` and `arrow-avro` in the same run.
//!
//! A million distinct router decisions, in batches of 65,536 rows. Counted is the CPU time of this thread. The two
//! take turns, so that a slow spell of the machine meets both; shown are medians of the rounds, and of their ratios.
//! It fails where the goal is missed. `cargo bench --workspace --bench decode`; one of the two by `-- json` or `-- avro`;
//! fewer rounds by `-- rounds=3`, a part of the goal for a machine that is busy by `-- of_goal=0.8`
#![expect(clippy::unwrap_used, reason = "a bench fails by panicking")]

use std::{fs, hint::black_box, process::ExitCode, str::FromStr, sync::Arc};

use aion_schemas::{
    catalog::Catalog,
    decode::{Decoder, Outcome, Record, SchemaId},
    log::{Offset, Timestamp},
    schema::{Kind, Schema},
};
use arrow::datatypes::{DataType, Field, Schema as ArrowSchema, SchemaRef, TimeUnit};
use arrow_avro::{
    reader::ReaderBuilder as AvroReader,
    schema::{AvroSchema, Fingerprint, FingerprintAlgorithm, SchemaStore},
};
use arrow_json::ReaderBuilder as JsonReader;
use uuid::Uuid;

const EVENTS: usize = 1_000_000;
const BATCH_ROWS: usize = 65_536;
const ROUNDS: usize = 11;
/// How many times as fast it shall be.
const JSON_GOAL: f64 = 2.5;
const AVRO_GOAL: f64 = 1.7;
const CONTRACT: SchemaId = SchemaId(7);
/// 2026-11-25T00:00:00Z.
const NOW_MICROS: i64 = 1_795_564_800_000_000;

fn main() -> ExitCode {
    let catalog = Catalog::builtin();
    let schema = &catalog.table("decisions").unwrap().schema;
    let asked: Vec<String> = std::env::args().skip(1).filter(|arg| !arg.starts_with('-')).collect();
    let count = setting(&asked, "rounds", ROUNDS);
    let of_goal = setting(&asked, "of_goal", 1.0);
    let wants = |encoding: &str| {
        asked.iter().all(|one| one.contains('=')) || asked.iter().any(|one| one == encoding)
    };
    let mut is_met = true;
    if wants("json") {
        let json = Payloads::new(schema, write_json);
        let turns = rounds(count, || decode(schema, &json), || arrow_json(schema, &json));
        is_met &= report("JSON", &json, &turns, ("arrow-json", JSON_GOAL * of_goal));
    }
    if wants("avro") {
        let avro = Payloads::new(schema, write_avro);
        let turns = rounds(count, || decode(schema, &avro), || arrow_avro(schema, &avro));
        is_met &= report("Avro", &avro, &turns, ("arrow-avro", AVRO_GOAL * of_goal));
    }
    if is_met { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// The value of an argument `name=value`.
fn setting<T: FromStr>(asked: &[String], name: &str, default: T) -> T {
    let value = asked.iter().find_map(|one| one.strip_prefix(name)?.strip_prefix('='));
    value.map_or(default, |value| {
        value.parse().unwrap_or_else(|_| panic!("{name}={value} is no number"))
    })
}

/// Prints what was measured; whether it is at least `goal` times as fast as the other.
fn report(
    encoding: &str,
    payloads: &Payloads,
    turns: &[(f64, f64)],
    (other, goal): (&str, f64),
) -> bool {
    let bytes = payloads.bytes.len() / EVENTS;
    let ours = median(turns.iter().map(|turn| turn.0));
    let theirs = median(turns.iter().map(|turn| turn.1));
    let ratio = median(turns.iter().map(|turn| turn.1 / turn.0));
    println!("{encoding}, {bytes} bytes an event, CPU ns an event:");
    println!("  decoder {ours:.0}, {other} {theirs:.0}: {ratio:.2} times as fast");
    let is_met = ratio >= goal;
    if !is_met {
        println!(
            "  MISSED: {encoding} is to be decoded at least {goal:.2} times as fast as {other} does it"
        );
    }
    is_met
}

/// CPU nanoseconds an event of both, round by round.
fn rounds(count: usize, ours: impl Fn(), theirs: impl Fn()) -> Vec<(f64, f64)> {
    let time = |run: &dyn Fn()| {
        let start = thread_cpu_ns();
        run();
        (thread_cpu_ns() - start) as f64 / EVENTS as f64
    };
    (0..count).map(|_| (time(&ours), time(&theirs))).collect()
}

fn median(values: impl Iterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.collect();
    values.sort_unstable_by(f64::total_cmp);
    values[values.len() / 2]
}

/// Nanoseconds that this thread was on a CPU, as Linux counts them.
fn thread_cpu_ns() -> u64 {
    let text = fs::read_to_string("/proc/thread-self/schedstat").unwrap();
    text.split(' ').next().unwrap().parse().unwrap()
}

/// Payloads, one after another.
struct Payloads {
    bytes: Vec<u8>,
    ends: Vec<usize>,
}

impl Payloads {
    fn new(schema: &Schema, write: impl Fn(&Schema, &Event, &mut Vec<u8>)) -> Payloads {
        let mut payloads = Payloads { bytes: Vec::new(), ends: Vec::new() };
        for index in 0..EVENTS {
            write(schema, &Event::new(index as u64), &mut payloads.bytes);
            payloads.ends.push(payloads.bytes.len());
        }
        payloads
    }

    fn iter(&self) -> impl Iterator<Item = &[u8]> {
        let mut start = 0;
        self.ends.iter().map(move |end| &self.bytes[std::mem::replace(&mut start, *end)..*end])
    }
}

/// A router decision that differs from every other.
struct Event {
    index: u64,
    random: u64,
}

/// The value of one field.
enum Cell {
    Text(String),
    Integer(i64),
    Number(f64),
    Time(i64),
    Null,
}

impl Event {
    fn new(index: u64) -> Event {
        // The finaliser of splitmix64: spreads the index over all bits.
        let mut random = (index + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        random = (random ^ (random >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        random = (random ^ (random >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        Event { index, random: random ^ (random >> 31) }
    }

    fn pick(&self, shift: u32, choices: &[&str]) -> Cell {
        Cell::Text(choices[(self.random >> shift) as usize % choices.len()].to_owned())
    }

    fn cell(&self, name: &str) -> Cell {
        let random = self.random;
        let some = |shift: u32| !(random >> shift).is_multiple_of(4);
        match name {
            "task_id" => Cell::Text(Uuid::from_u64_pair(random, self.index).to_string()),
            "tenant_id" => Cell::Text(format!("tenant-{}", random % 500)),
            "intent" => self.pick(8, &["summarize", "translate", "code.review", "chat", "extract"]),
            "route" => self.pick(16, &["local", "cloud", "hybrid"]),
            "reason" => {
                self.pick(24, &["tier requires local execution", "input above the local limit"])
            }
            "tier" => self.pick(32, &["public", "internal", "restricted"]),
            "timestamp" => Cell::Time(NOW_MICROS - (self.index * 1_013) as i64),
            "size" => Cell::Integer((random % 100_000) as i64),
            "latency_budget_ms" if some(40) => Cell::Integer((random >> 7) as i64 % 30_000),
            "cost_budget" if some(44) => Cell::Number((random >> 9) as f64 % 1e4 / 1e4),
            "engine_model" => self.pick(48, &["aion-large", "aion-small"]),
            "engine_version" => self.pick(52, &["2026.03.1", "2026.11.0"]),
            _ => Cell::Null,
        }
    }
}

/// As Python writes JSON: a blank after each comma and colon.
fn write_json(schema: &Schema, event: &Event, out: &mut Vec<u8>) {
    let mut members = Vec::new();
    for field in &schema.fields {
        let name = &field.name;
        members.push(match event.cell(name) {
            Cell::Text(text) => format!("\"{name}\": \"{text}\""),
            Cell::Integer(value) => format!("\"{name}\": {value}"),
            Cell::Number(value) => format!("\"{name}\": {value}"),
            Cell::Time(micros) => {
                let time = arrow::temporal_conversions::timestamp_us_to_datetime(micros).unwrap();
                format!("\"{name}\": \"{}Z\"", time.format("%Y-%m-%dT%H:%M:%S%.6f"))
            }
            Cell::Null => continue,
        });
    }
    out.extend_from_slice(format!("{{{}}}", members.join(", ")).as_bytes());
}

fn write_avro(schema: &Schema, event: &Event, out: &mut Vec<u8>) {
    out.push(0);
    out.extend(CONTRACT.0.to_be_bytes());
    for field in &schema.fields {
        let cell = event.cell(&field.name);
        if !field.required {
            out.push(if matches!(cell, Cell::Null) { 0 } else { 2 });
        }
        match cell {
            Cell::Text(text) => {
                write_long(text.len() as i64, out);
                out.extend_from_slice(text.as_bytes());
            }
            Cell::Integer(value) | Cell::Time(value) => write_long(value, out),
            Cell::Number(value) => out.extend(value.to_le_bytes()),
            Cell::Null => {}
        }
    }
}

fn write_long(value: i64, out: &mut Vec<u8>) {
    let mut zigzag = ((value << 1) ^ (value >> 63)) as u64;
    while zigzag >= 0x80 {
        out.push(zigzag as u8 | 0x80);
        zigzag >>= 7;
    }
    out.push(zigzag as u8);
}

fn decode(schema: &Schema, payloads: &Payloads) {
    let mut decoder = Decoder::new(schema);
    decoder.learn_contract(CONTRACT);
    let mut rows = 0;
    for (offset, payload) in payloads.iter().enumerate() {
        let record = Record {
            value: Some(payload),
            offset: Offset(offset as i64),
            epoch: 0,
            append_time: Timestamp(NOW_MICROS),
            retry: None,
        };
        assert_eq!(decoder.push(&record), Outcome::Row);
        if decoder.rows() == BATCH_ROWS {
            rows += black_box(decoder.finish(Uuid::nil(), 0)).num_rows();
        }
    }
    rows += black_box(decoder.finish(Uuid::nil(), 0)).num_rows();
    assert_eq!(rows, EVENTS);
}

/// The contract's columns for `arrow-json`, which wants the offset of a time zone, not its name.
fn json_columns(schema: &Schema) -> SchemaRef {
    let field = |field: &aion_schemas::schema::Field| {
        let data_type = match field.kind {
            Kind::Time => DataType::Timestamp(TimeUnit::Microsecond, Some("+00:00".into())),
            kind => kind.arrow(),
        };
        Field::new(&*field.name, data_type, !field.required)
    };
    Arc::new(ArrowSchema::new(schema.fields.iter().map(field).collect::<Vec<_>>()))
}

fn arrow_json(schema: &Schema, payloads: &Payloads) {
    let reader = JsonReader::new(json_columns(schema)).with_batch_size(BATCH_ROWS);
    let mut decoder = reader.build_decoder().unwrap();
    let mut rows = 0;
    for payload in payloads.iter() {
        assert_eq!(decoder.decode(payload).unwrap(), payload.len());
        if decoder.len() == BATCH_ROWS {
            rows += black_box(decoder.flush().unwrap()).map_or(0, |batch| batch.num_rows());
        }
    }
    rows += black_box(decoder.flush().unwrap()).map_or(0, |batch| batch.num_rows());
    assert_eq!(rows, EVENTS);
}

fn arrow_avro(schema: &Schema, payloads: &Payloads) {
    let mut store = SchemaStore::new_with_type(FingerprintAlgorithm::Id);
    let id = Fingerprint::Id(CONTRACT.0);
    store.set(id, AvroSchema::new(schema.avro_text("aion.events"))).unwrap();
    let mut decoder = AvroReader::new()
        .with_batch_size(BATCH_ROWS)
        .with_writer_schema_store(store)
        .with_active_fingerprint(id)
        .build_decoder()
        .unwrap();
    let mut rows = 0;
    for payload in payloads.iter() {
        assert_eq!(decoder.decode(payload).unwrap(), payload.len());
        if decoder.batch_is_full() {
            rows += black_box(decoder.flush().unwrap()).map_or(0, |batch| batch.num_rows());
        }
    }
    rows += black_box(decoder.flush().unwrap()).map_or(0, |batch| batch.num_rows());
    assert_eq!(rows, EVENTS);
}
