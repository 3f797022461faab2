//! What people are told when a query can't be answered.

use std::{
    fs,
    path::{Path, PathBuf},
};

use aion_analytics::Error;

use crate::lake::{TestLake, ask, decision};

async fn refused(sql: &str) -> Error {
    match ask(&TestLake::new().engine(), sql).await {
        Ok(_) => panic!("{sql} was carried out"),
        Err(error) => error,
    }
}

#[tokio::test]
async fn whatever_would_change_something_is_refused() {
    for sql in [
        "create table t as select 1",
        "create or replace table t (a int)",
        "create view v as select 1",
        "create schema s",
        "create database d",
        "create external table e stored as parquet location '/tmp/e'",
        "create external table e stored as csv location '/etc/passwd'",
        "create function f(int) returns int return $1",
        "drop table decisions",
        "drop view decisions",
        "drop schema public cascade",
        "insert into decisions (task_id) values ('x')",
        "insert into decisions select * from decisions",
        "update decisions set route = 'x'",
        "delete from decisions",
        "truncate table decisions",
        "copy decisions to '/tmp/stolen.csv'",
        "copy (select 1) to '/tmp/stolen.parquet' stored as parquet",
        "select route into t from decisions",
        "merge into decisions d using tasks t on d.task_id = t.task_id when matched then delete",
        "set datafusion.execution.target_partitions = 64",
        "reset datafusion.execution.target_partitions",
        "commit",
        "rollback",
        "prepare p as select 1",
        "execute p",
        "deallocate p",
        "explain insert into decisions (task_id) values ('x')",
        "explain analyze copy decisions to '/tmp/stolen.csv'",
    ] {
        let error = refused(sql).await;
        assert!(matches!(error, Error::ReadOnly { .. }), "{sql}: {error:?}");
        assert!(error.to_string().contains("read-only"), "{error}");
    }
    assert!(!std::path::Path::new("/tmp/stolen.csv").exists());
}

#[tokio::test]
async fn what_the_engine_does_not_know_is_refused_too() {
    for sql in [
        "begin",
        "vacuum",
        "grant select on decisions to x",
        "call p()",
        "attach 'x' as y",
        "load 'x'",
        "copy decisions from '/etc/passwd'",
        "copy decisions from stdin",
        "with x as (select 'x' as task_id) insert into decisions (task_id) select task_id from x",
    ] {
        let error = refused(sql).await;
        let is_said = matches!(error, Error::Unsupported(_) | Error::Syntax(_) | Error::Query(_));
        assert!(is_said, "{sql}: {error:?}");
    }
}

#[tokio::test]
async fn files_beside_the_lake_can_not_be_named() {
    for sql in [
        "select * from '/etc/passwd'",
        "select * from \"file:///etc/passwd\"",
        "select * from read_csv('/etc/passwd')",
    ] {
        let error = refused(sql).await;
        assert!(matches!(error, Error::UnknownTable { .. } | Error::Query(_)), "{sql}: {error:?}");
    }
}

#[tokio::test]
async fn one_statement_at_a_time() {
    let error = refused("select 1; drop table decisions").await;
    assert!(matches!(error, Error::Unsupported(_) | Error::Syntax(_)), "{error:?}");
}

#[tokio::test]
async fn an_unknown_table_names_the_nearest() {
    let error = refused("select * from decision").await.to_string();
    assert!(error.starts_with("no table `decision`; did you mean `decisions`?"), "{error}");
    assert!(error.contains("tables: "), "{error}");
    let error = refused("select * from public.zzzzzzz").await.to_string();
    assert!(error.starts_with("no table `zzzzzzz`\ntables: "), "{error}");
    let error = refused("describe decision").await.to_string();
    assert!(error.contains("did you mean `decisions`?"), "{error}");
}

#[tokio::test]
async fn an_unknown_column_names_the_nearest() {
    for sql in [
        "select rout from decisions",
        "select count(*) from decisions where rout = 'x'",
        "select d.rout from decisions d join tasks t on t.task_id = d.task_id",
        "select route from decisions group by rout",
        "select task_id from decisions order by rout",
    ] {
        let error = refused(sql).await.to_string();
        assert!(error.starts_with("no column `rout`; did you mean `route`?"), "{sql}: {error}");
        assert!(error.contains("columns: "), "{sql}: {error}");
    }
    assert_eq!(refused("select nothing").await.to_string(), "no column `nothing`");
    let error = refused("select \"TaskId\" from decisions").await.to_string();
    assert!(error.contains("did you mean `task_id`?"), "{error}");
}

#[tokio::test]
async fn an_unknown_function_and_bad_sql_say_so() {
    let error = refused("select dat_trunc('day', timestamp) from decisions").await.to_string();
    assert!(error.contains("dat_trunc") && error.contains("Did you mean"), "{error}");
    let error = refused("selct 1").await.to_string();
    assert!(error.contains("selct"), "{error}");
    let error = refused("").await.to_string();
    assert!(!error.is_empty());
}

#[tokio::test]
async fn a_failure_while_rows_come_is_an_error_not_an_end() {
    let lake = TestLake::new();
    lake.append("decisions", 0, &[decision("x", "small", "10:00:00")]).await;
    let error =
        ask(&lake.engine(), "select cast(task_id as int) from decisions").await.unwrap_err();
    assert!(error.to_string().contains("'x'"), "{error}");
}

/// It is worked out while a file is read, which is well.
#[tokio::test]
async fn what_a_condition_fails_with_is_no_fault_of_a_file() {
    let lake = TestLake::new();
    lake.append("decisions", 0, &[decision("x", "small", "10:00:00")]).await;
    let engine = lake.engine();
    let failed = async |condition: &str| {
        let sql = format!("select route from decisions where size is null and {condition}");
        ask(&engine, &sql).await.unwrap_err()
    };
    let no_number = failed("cast(task_id as int) = 1").await;
    assert!(matches!(no_number, Error::Data(_)), "{no_number:?}");
    assert!(no_number.to_string().contains("'x'"), "{no_number}");
    let by_zero = failed("10 / _offset > 1").await;
    assert!(matches!(by_zero, Error::Data(_)), "{by_zero:?}");
    let too_long = failed("repeat(task_id, 1000000000) = 'x'").await;
    assert!(matches!(too_long, Error::Memory { .. }), "{too_long:?}");
    let all_with_all = "levenshtein(repeat(task_id, 100000), repeat('b', 400000)) = 0";
    let too_many = failed(all_with_all).await;
    assert!(matches!(too_many, Error::Query(_)), "{too_many:?}");
    assert!(too_many.to_string().contains("levenshtein takes"), "{too_many}");
    // And what doesn't fail is answered.
    let sql = "select route from decisions where size is null and _offset / 10 = 0";
    assert_eq!(ask(&engine, sql).await.unwrap()[0].num_rows(), 1);
}

#[tokio::test]
async fn a_file_that_is_gone_or_damaged_is_named_as_what_can_not_be_read() {
    let gone: fn(&Path) = |file| fs::remove_file(file).unwrap();
    // Where its last bytes say how to read it, and where its first page begins.
    let no_footer: fn(&Path) = |file| zeroed(file, |bytes| bytes);
    let no_page: fn(&Path) = |file| zeroed(file, |bytes| &mut bytes[4..64]);
    for damage in [gone, no_footer, no_page] {
        let lake = TestLake::new();
        lake.append("decisions", 0, &[decision("x", "small", "10:00:00")]).await;
        let root = lake.open().table("decisions").unwrap().root().to_file_path().unwrap();
        let file = parquet_in(&root).unwrap();
        assert_eq!(ask(&lake.engine(), "select * from decisions").await.unwrap().len(), 1);
        damage(&file);
        let error = ask(&lake.engine(), "select * from decisions").await.unwrap_err();
        assert!(matches!(error, Error::Read { .. }), "{error:?}");
        assert!(error.to_string().starts_with("read the lake's files: "), "{error}");
    }
}

fn zeroed(file: &Path, part: impl Fn(&mut [u8]) -> &mut [u8]) {
    let mut bytes = fs::read(file).unwrap();
    part(&mut bytes).fill(0);
    fs::write(file, bytes).unwrap();
}

/// The one file with rows.
fn parquet_in(folder: &Path) -> Option<PathBuf> {
    let paths: Vec<_> = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    let is_rows = |path: &&PathBuf| path.extension().is_some_and(|kind| kind == "parquet");
    let deeper = || paths.iter().filter(|path| path.is_dir()).find_map(|path| parquet_in(path));
    paths.iter().find(is_rows).cloned().or_else(deeper)
}
