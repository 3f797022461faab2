//! Bounds on memory and time.

use std::time::{Duration, Instant};

use aion_analytics::{Asker, Engine, Error, Parameters};
use arrow::record_batch::RecordBatch;

use crate::lake::{TestLake, ask, collect, decision, number, shown};

/// One side of it is held, whatever happens.
const JOIN_BEYOND_MEMORY: &str =
    "select count(*) from range(0, 3000000) a join range(0, 3000000) b on a.value = b.value";

#[tokio::test]
async fn a_query_beyond_its_memory_or_its_files_fails_with_advice() {
    let lake = TestLake::new();
    let mut settings = lake.settings();
    settings.memory_bytes = 4 << 20;
    settings.spill_bytes = 1 << 20;
    let engine = Engine::open(settings).unwrap();
    let sql = "select count(*) from (select value * 7919 % 10000019 as key, array_agg(value * 2) \
               from range(1, 10000000) group by key)";
    let error = ask(&engine, sql).await.unwrap_err();
    assert!(matches!(error, Error::Spill { .. }), "{error:?}");
    assert!(error.to_string().contains("more than the 1 MiB of temporary files"), "{error}");
    let error = ask(&engine, JOIN_BEYOND_MEMORY).await.unwrap_err();
    assert!(matches!(error, Error::Memory { .. }), "{error:?}");
    let text = error.to_string();
    assert!(text.contains("more than the 4 MiB") && text.contains("memory_mib of [sql]"), "{text}");
    assert_eq!(number(&engine, "select 1").await, 1, "the next query has its memory back");
}

#[tokio::test]
async fn an_export_beyond_its_bounds_is_told_which_key_allows_more() {
    let mut settings = TestLake::new().settings();
    settings.memory_bytes = 4 << 20;
    settings.spill_bytes = 1 << 20;
    settings.asker = Asker::Exports;
    let engine = Engine::open(settings).unwrap();
    for (sql, key) in [
        ("select value from range(0, 1000000) order by value * 7919 % 1000003", "spill_mib"),
        (JOIN_BEYOND_MEMORY, "memory_mib"),
    ] {
        let error = ask(&engine, sql).await.unwrap_err().to_string();
        assert!(
            error.contains(&format!("{key} of [exports]")) && !error.contains("[sql]"),
            "{error}"
        );
    }
}

#[tokio::test]
async fn a_sort_beyond_its_memory_goes_to_disk() {
    let mut settings = TestLake::new().settings();
    settings.memory_bytes = 24 << 20;
    let engine = Engine::open(settings).unwrap();
    let sql = "select count(*) from (select row_number() over (order by value desc) as n, \
               value from range(0, 3000000)) where n + value = 3000000";
    assert_eq!(number(&engine, sql).await, 3_000_000);
}

/// Each thread sorts a part, in many files; what merges the parts needs memory as well, however greedily files are opened,
/// and so does another query.
#[tokio::test]
async fn sorts_of_several_threads_and_exports_are_merged_within_their_memory() {
    for (threads, queries) in [(2, 1), (2, 2), (16, 1)] {
        let mut settings = TestLake::new().settings();
        (settings.memory_bytes, settings.threads) = (64 << 20, threads);
        settings.asker = Asker::Exports;
        let engine = Engine::open(settings).unwrap();
        let sql = "select count(*) from (select key, lag(key) over (order by key) as before, \
                   length(lag(text) over (order by key)) as long \
                   from (select value * 7919 % 1000003 as key, \
                   repeat(chr(cast(65 + value % 26 as int)), 800) as text from range(0, 400000))) \
                   where before < key and long = 800";
        let counts = futures::future::join_all((0..queries).map(|_| number(&engine, sql))).await;
        assert_eq!(counts, vec![399_999; queries], "{threads} threads");
    }
}

/// Threads exchange rows through files where memory is short, and each of them writes while another reads.
#[tokio::test]
async fn groups_beyond_memory_on_several_threads_come_to_an_end() {
    let mut settings = TestLake::new().settings();
    (settings.memory_bytes, settings.threads) = (32 << 20, 2);
    settings.deadline = Duration::from_secs(30);
    let engine = Engine::open(settings).unwrap();
    let sql = "select count(*) from (select text, count(*) as n from \
               (select repeat(reverse(cast(value * 7919 as varchar)), 20) as text \
               from range(0, 500000)) group by text) where n = 1";
    for _ in 0..10 {
        assert_eq!(number(&engine, sql).await, 500_000);
    }
}

/// A few rows of a page are views into all of it; a sort counts what its batches hold.
#[tokio::test]
async fn a_sort_of_text_from_large_pages_counts_its_rows_text() {
    let lake = TestLake::new();
    let text = ["intent", "route", "reason", "engine_model", "engine_version"];
    let wide = |number: i64| {
        let mut row = decision(&format!("task-{number:060}"), "local", "07:00:00");
        for name in text {
            row[name] = format!("{name}-{:060}", number * 7919 % 40_009).into();
        }
        row
    };
    let rows: Vec<_> = (0..40_000).map(wide).collect();
    lake.append("decisions", 0, &rows).await;
    let mut settings = lake.settings();
    (settings.memory_bytes, settings.threads) = (12 << 20, 1);
    settings.asker = Asker::Exports;
    let engine = Engine::open(settings).unwrap();
    let lengths = text.map(|name| format!("length({name})")).join(" + ");
    let sql = format!(
        "select count(*) from (select *, row_number() over (order by intent desc) as n \
         from decisions) where n > 0 and {lengths} > 300"
    );
    assert_eq!(number(&engine, &sql).await, 40_000);
}

#[tokio::test]
async fn a_query_beyond_its_time_is_stopped() {
    let mut settings = TestLake::new().settings();
    settings.deadline = Duration::from_millis(200);
    let engine = Engine::open(settings).unwrap();
    let begun = Instant::now();
    let endless = "select count(*) from range(0, 3000000000) a, range(0, 3000000000) b";
    let error = ask(&engine, endless).await.unwrap_err();
    assert!(matches!(error, Error::Deadline { .. }), "{error:?}");
    assert!(begun.elapsed() < Duration::from_secs(20), "{:?}", begun.elapsed());
}

/// As a pager that nobody leaves: the next question gets a turn once their time is over.
#[tokio::test]
async fn answers_that_nobody_reads_have_their_turns_no_longer_than_their_time() {
    let mut settings = TestLake::new().settings();
    (settings.queries, settings.deadline) = (2, Duration::from_secs(4));
    let engine = Engine::open(settings).unwrap();
    // The second is made to its end: it has as many batches as wait for whoever asked.
    let long = engine.query("select value from range(0, 30000000)").await.unwrap();
    let whole = engine.query("select value from range(0, 16000)").await.unwrap();
    tokio::time::sleep(Duration::from_secs(2)).await;
    let begun = Instant::now();
    assert_eq!(number(&engine, "select 1").await, 1);
    assert!(begun.elapsed() > Duration::from_millis(500), "both turns were taken");
    for unread in [long, whole] {
        let error = collect(unread).await.unwrap_err();
        assert!(matches!(error, Error::Deadline { .. }), "{error:?}");
    }
}

#[tokio::test]
async fn a_reader_that_goes_away_stops_the_query() {
    let mut settings = TestLake::new().settings();
    settings.threads = 1;
    let engine = Engine::open(settings).unwrap();
    let answer = engine.query("select count(*) from range(0, 3000000000000)").await.unwrap();
    drop(answer);
    // The only thread is free again.
    assert_eq!(number(&engine, "select 1").await, 1);
}

/// It compares each row with each in one go, and finds nothing.
const ENDLESS_JOIN: &str = "select count(*) from range(0, 3000000) a join range(0, 3000000) b \
                            on a.value + b.value = -1";

#[tokio::test]
async fn a_join_that_finds_nothing_ends_in_its_time_and_leaves_the_thread_to_others() {
    let mut settings = TestLake::new().settings();
    settings.threads = 1;
    settings.deadline = Duration::from_secs(5);
    let engine = Engine::open(settings).unwrap();
    let begun = Instant::now();
    let join = async {
        let error = ask(&engine, ENDLESS_JOIN).await.unwrap_err();
        assert!(matches!(error, Error::Deadline { .. }), "{error:?}");
        begun.elapsed()
    };
    let other = async {
        tokio::time::sleep(Duration::from_secs(1)).await;
        assert_eq!(number(&engine, "select 1").await, 1);
        begun.elapsed()
    };
    let (join, other) = tokio::join!(join, other);
    assert!(other < Duration::from_secs(4), "the other query waited for the join: {other:?}");
    assert!(join < Duration::from_secs(10), "{join:?}");
}

#[tokio::test]
async fn a_reader_that_goes_away_stops_a_join_that_finds_nothing() {
    let mut settings = TestLake::new().settings();
    settings.queries = 1;
    let engine = Engine::open(settings).unwrap();
    let answer = engine.query(ENDLESS_JOIN).await.unwrap();
    tokio::time::sleep(Duration::from_secs(1)).await;
    drop(answer);
    // Its turn is free again.
    let begun = Instant::now();
    assert_eq!(number(&engine, "select 1").await, 1);
    assert!(begun.elapsed() < Duration::from_secs(10), "{:?}", begun.elapsed());
}

/// What is folded at planning, what is made at run time, and what is kept of many rows.
#[tokio::test]
async fn what_makes_much_out_of_little_is_refused_by_name() {
    let mut settings = TestLake::new().settings();
    settings.memory_bytes = 32 << 20;
    let engine = Engine::open(settings).unwrap();
    for (sql, named) in [
        ("select repeat('x', 100000000)", "repeat makes"),
        ("select max(repeat(cast(value as varchar), 10000)) from range(0, 9000)", "repeat of "),
        ("select lpad('x', 100000000)", "lpad makes"),
        ("select range(0, 100000000)", "range makes"),
        ("select sum(value) over (), repeat('x', 100) from range(0, 9000000)", "kept until all"),
    ] {
        let error = ask(&engine, sql).await.unwrap_err();
        assert!(matches!(error, Error::Memory { .. }), "{sql}: {error:?}");
        assert!(error.to_string().contains(named), "{sql}: {error}");
    }
    // Worked out while it is planned; what can't be isn't a number.
    assert!(ask(&engine, "select * from range(0, length(repeat('x', 100000000)))").await.is_err());
    let long = "select count(*), sum(length(t)) from \
                (select repeat(cast(value as varchar), 3000) as t from range(10, 100)) x";
    assert!(shown(&engine, long).await.contains("| 90       | 540000"));
}

/// As a call does that takes long: nothing else runs on that thread, not even what would end the question.
fn keep_the_only_thread(engine: &Engine) {
    engine.spawn(async { std::thread::sleep(Duration::from_secs(20)) });
}

#[tokio::test]
async fn whoever_asks_is_told_in_time_also_where_no_thread_is_free() {
    let mut settings = TestLake::new().settings();
    (settings.threads, settings.deadline) = (1, Duration::from_secs(2));
    let engine = Engine::open(settings).unwrap();
    let begun = Instant::now();
    let answer = engine.query("select value from range(0, 30000000)").await.unwrap();
    keep_the_only_thread(&engine);
    let begun_error = collect(answer).await.unwrap_err();
    let query_error = ask(&engine, "select 1").await.unwrap_err();
    let described = engine.describe("select 1", Parameters::none()).await;
    for error in [begun_error, query_error, described.unwrap_err()] {
        assert!(matches!(error, Error::Deadline { .. }), "{error:?}");
    }
    assert!(begun.elapsed() < Duration::from_secs(15), "{:?}", begun.elapsed());
}

#[tokio::test]
async fn a_stop_waits_for_no_question_that_takes_long() {
    let mut settings = TestLake::new().settings();
    (settings.threads, settings.queries) = (1, 1);
    let engine = Engine::open(settings).unwrap();
    let patience = Duration::from_secs(1);
    let begun = Instant::now();
    // One that runs, and one that waits for a turn.
    let long = engine.query("select count(*) from range(0, 3000000000000)").await.unwrap();
    let stop = async {
        tokio::time::sleep(Duration::from_millis(200)).await;
        keep_the_only_thread(&engine);
        engine.stop(patience).await;
    };
    let (long, waiting, ()) = tokio::join!(collect(long), ask(&engine, "select 1"), stop);
    let later = ask(&engine, "select 1").await;
    let described = engine.describe("select 1", Parameters::none()).await;
    for error in [long, waiting, later].map(Result::unwrap_err) {
        assert!(matches!(error, Error::Stopping), "{error:?}");
    }
    assert!(matches!(described, Err(Error::Stopping)), "{described:?}");
    assert!(begun.elapsed() >= patience, "those under way may end by themselves");
    assert!(begun.elapsed() < Duration::from_secs(15), "{:?}", begun.elapsed());
}

#[tokio::test]
async fn a_stop_lets_a_question_end_that_is_soon_done() {
    let engine = TestLake::new().engine();
    let begun = Instant::now();
    let quick = engine.query("select value from range(0, 3)").await.unwrap();
    engine.stop(Duration::from_secs(30)).await;
    let rows = collect(quick).await.unwrap();
    assert_eq!(rows.iter().map(RecordBatch::num_rows).sum::<usize>(), 3);
    assert!(begun.elapsed() < Duration::from_secs(20), "it waits no longer than for that");
}

#[tokio::test]
async fn looking_at_a_statement_takes_a_turn() {
    let mut settings = TestLake::new().settings();
    (settings.queries, settings.deadline) = (1, Duration::from_secs(3));
    let engine = Engine::open(settings).unwrap();
    let describe = || engine.describe("select 1 as one", Parameters::none());
    let unread = engine.query("select value from range(0, 30000000)").await.unwrap();
    let begun = Instant::now();
    let waits = tokio::time::timeout(Duration::from_secs(1), describe()).await;
    assert!(waits.is_err(), "{waits:?}");
    drop(unread);
    assert_eq!(describe().await.unwrap().columns.field(0).name(), "one");
    assert!(begun.elapsed() < Duration::from_secs(3), "its turn came when the other one ended");
    // And gives it back.
    assert_eq!(number(&engine, "select 1").await, 1);
}

/// In the planner, which works out constants, and in a condition. Nothing would stop it inside a call.
#[tokio::test]
async fn what_compares_all_with_all_is_refused_by_name() {
    let engine = TestLake::new().engine();
    let begun = Instant::now();
    for (sql, named) in [
        ("select levenshtein(repeat('a', 4000000), repeat('b', 4000000))", "levenshtein takes 16"),
        (
            "select 1 from range(1000, 9000) \
             where levenshtein(repeat(cast(value as varchar), 100), repeat('b', 400)) = 0",
            "levenshtein of 8000 rows takes",
        ),
        ("select btrim(repeat('a', 4000000), repeat('b', 4000000))", "btrim takes"),
        ("select strpos(repeat('a', 4000000), concat(repeat('a', 2000000), 'b'))", "strpos takes"),
        ("select array_has_all(range(0, 200000), range(0, 200000))", "array_has_all takes"),
        (
            "select array_has_any(range(0, value), range(value, 2 * value)) \
             from range(100000, 100001)",
            "array_has_any takes",
        ),
    ] {
        let error = ask(&engine, sql).await.unwrap_err();
        assert!(matches!(error, Error::Query(_)), "{sql}: {error:?}");
        let text = error.to_string();
        assert!(text.contains(named) && text.contains("shorten them, as by"), "{sql}: {error}");
    }
    assert!(begun.elapsed() < Duration::from_secs(20), "{:?}", begun.elapsed());
    // A few rows at a time, and what is short.
    let many = "select strpos(repeat(cast(value as varchar), 1000), \
                repeat(concat('b', cast(value as varchar)), 500)) from range(1000, 9000)";
    let batches = ask(&engine, many).await.unwrap();
    assert_eq!(batches.iter().map(arrow::array::RecordBatch::num_rows).sum::<usize>(), 8000);
    let short =
        "select levenshtein('kitten', 'sitting') + strpos('abc', 'c') + length(trim(' a '))";
    assert_eq!(number(&engine, short).await, 3 + 3 + 1);
}

/// A call for all of these rows would take minutes, and the turn that is for all questions with it.
#[tokio::test]
async fn a_pattern_that_looks_again_gives_its_turn_back() {
    let mut settings = TestLake::new().settings();
    (settings.queries, settings.deadline) = (1, Duration::from_secs(2));
    let engine = Engine::open(settings).unwrap();
    let again = "select count(*) from range(0, 700) \
                 where regexp_count(repeat('a', 5000 + value % 2), '.*[^a]|a') > 0";
    let begun = Instant::now();
    ask(&engine, again).await.unwrap_err();
    while ask(&engine, "select 1").await.is_err() {}
    assert!(begun.elapsed() < Duration::from_mins(1), "{:?}", begun.elapsed());
}

/// One call looks at it, which nothing can end.
#[tokio::test]
async fn the_longest_text_that_a_pattern_looks_at_again_is_read_in_time() {
    let mut settings = TestLake::new().settings();
    settings.deadline = Duration::from_secs(30);
    let engine = Engine::open(settings).unwrap();
    let of_length = |length: u32| {
        format!("select regexp_count(repeat('a', {length} + value), '.*[^a]|a') from range(0, 1)")
    };
    assert_eq!(number(&engine, &of_length(31_622)).await, 31_622);
    let error = ask(&engine, &of_length(31_623)).await.unwrap_err();
    assert!(error.to_string().contains("regexp_count takes 1000014129 steps"), "{error}");
}

#[tokio::test]
async fn what_is_called_in_parts_comes_to_the_same() {
    let engine = TestLake::new().engine();
    let text = "repeat('ab', 2000 + value % 2)";
    for (sql, whole) in [
        (format!("sum(regexp_count({text}, '(a+|b)'))"), 1_200_300),
        (format!("sum(length(regexp_replace({text}, 'a+|c*b', '', 'g')) + value)"), 44_850),
    ] {
        let sql = format!("select cast({sql} as bigint) from range(0, 300)");
        assert_eq!(number(&engine, &sql).await, whole, "{sql}");
    }
    let error = ask(&engine, "select regexp_count(repeat('a', 200000), 'a+|b')").await.unwrap_err();
    assert!(error.to_string().contains("regexp_count takes 40000000000 steps"), "{error}");
}

#[tokio::test]
async fn queries_run_beside_each_other() {
    let lake = TestLake::new();
    lake.append("decisions", 0, &[decision("a", "small", "10:00:00")]).await;
    let engine = lake.engine();
    let one = || number(&engine, "select count(*) from decisions where route = 'small'");
    let counts = futures::future::join_all((0..16).map(|_| one())).await;
    assert_eq!(counts, [1; 16]);
}
