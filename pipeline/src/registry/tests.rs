#![expect(clippy::unwrap_used, reason = "a test may panic")]

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use aion_analytics::control::schemas::{Registered, SchemaText};
use aion_schemas::catalog::Catalog;
use futures::TryStreamExt;
use url::Url;

use super::{
    testing::{Answer, Server, json},
    *,
};

fn settings(servers: &[&Server]) -> Settings {
    let mut settings = Settings::new(servers.iter().map(|server| server.url.clone()).collect());
    settings.timeout = Duration::from_millis(500);
    settings
}

fn registry(servers: &[&Server]) -> Registry {
    Registry::open(&settings(servers)).unwrap()
}

fn avro(text: &str) -> Answer {
    json(200, serde_json::json!({ "schema": text }).to_string())
}

fn no(status: u16, code: u32, message: &str) -> Answer {
    json(status, serde_json::json!({ "error_code": code, "message": message }).to_string())
}

const ONE: SchemaId = SchemaId(1);

#[tokio::test]
async fn a_schema_is_asked_for_once_and_an_id_keeps_its_meaning() {
    let asked = AtomicUsize::new(0);
    let server = Server::start(move |_| match asked.fetch_add(1, Ordering::SeqCst) {
        0 => avro("\"int\""),
        _ => avro("\"string\""),
    })
    .await;
    let registry = registry(&[&server]);
    let first = registry.schema(ONE).await.unwrap();
    assert_eq!((&*first.text, first.kind), ("\"int\"", SchemaKind::Avro));
    // A registry that was set up anew gives the id to another schema: records keep theirs.
    assert_eq!(registry.schema(ONE).await.unwrap(), first);
    assert_eq!(server.requests().len(), 1);
    assert!(server.requests()[0].starts_with("GET /schemas/ids/1 HTTP/1.1\r\n"));
}

#[tokio::test]
async fn references_come_deepest_first_and_each_once() {
    let server = Server::start(|request| {
        let version = |text: &str, references: &str| {
            json(
                200,
                format!(
                    r#"{{"subject":"s","version":1,"id":9,"schema":"{text}","schemaType":null,"references":{references}}}"#
                ),
            )
        };
        let leaf = r#"[{"name":"leaf","subject":"leaf","version":1}]"#;
        match request.split_whitespace().nth(1).unwrap() {
            "/schemas/ids/1" => json(
                200,
                r#"{"schema":"root","references":[{"name":"a","subject":"a/b","version":1},{"name":"c","subject":"c","version":1}]}"#,
            ),
            "/subjects/a%2Fb/versions/1?deleted=true" => version("a", leaf),
            "/subjects/c/versions/1?deleted=true" => version("c", leaf),
            "/subjects/leaf/versions/1?deleted=true" => version("leaf", "null"),
            other => panic!("{other}"),
        }
    })
    .await;
    let schema = registry(&[&server]).schema(ONE).await.unwrap();
    assert_eq!(schema.text, "root");
    assert_eq!(schema.dependencies, ["leaf", "a", "c"]);
}

#[tokio::test]
async fn references_without_end_are_refused() {
    // Each schema refers to the next version of its subject.
    let server = Server::start(|request| {
        let path = request.split_whitespace().nth(1).unwrap();
        let next = path.strip_prefix("/subjects/s/versions/").map_or(1, |rest| {
            rest.trim_end_matches("?deleted=true").parse::<u32>().unwrap() + 1
        });
        json(
            200,
            format!(
                r#"{{"subject":"s","version":1,"id":2,"schema":"x","references":[{{"name":"s","subject":"s","version":{next}}}]}}"#
            ),
        )
    })
    .await;
    let error = registry(&[&server]).schema(ONE).await.unwrap_err();
    assert!(matches!(error, Error::References { .. }), "{error}");
    assert!(server.requests().len() < 20);
}

#[tokio::test]
async fn that_there_is_no_such_schema_is_believed_for_a_moment() {
    let server = Server::start(|_| no(404, 40403, "Schema 1 not found")).await;
    let registry = registry(&[&server]);
    for _ in 0..3 {
        let error = registry.schema(ONE).await.unwrap_err();
        assert!(matches!(error, Error::NotFound { code: 40403, .. }), "{error}");
        assert_eq!(error.to_string(), "GET schemas/ids/1: Schema 1 not found (code 40403)");
    }
    assert_eq!(server.requests().len(), 1);
}

#[tokio::test]
async fn a_404_that_is_not_the_registrys_is_no_answer() {
    for answer in [
        || Answer::Body(404, "text/html", "<html><body>no such page</body></html>".to_owned()),
        || json(404, r#"{"error_code":404,"message":"HTTP 404 Not Found"}"#),
        || json(404, "{}"),
    ] {
        let server = Server::start(move |_| answer()).await;
        let error = registry(&[&server]).schema(ONE).await.unwrap_err();
        assert!(error.is_transient(), "{error:?}");
    }
}

#[tokio::test]
async fn what_no_registry_says_is_no_answer() {
    let html = || Answer::Body(200, "text/html", "<html>\n<b>Log in</b></html>".to_owned());
    let page = Server::start(move |_| html()).await;
    let error = registry(&[&page]).schema(ONE).await.unwrap_err().to_string();
    assert!(error.contains("answers what no schema registry does"), "{error}");
    assert!(error.contains("<html> <b>Log in</b></html>") && !error.contains('\n'), "{error}");

    let broken = Server::start(|_| no(500, 50001, "Error in the backend datastore")).await;
    let error = registry(&[&broken]).schema(ONE).await.unwrap_err().to_string();
    assert!(error.contains("HTTP 500: Error in the backend datastore"), "{error}");

    let away = Server::start(|_| Answer::Body(302, "text/html", String::new())).await;
    assert!(registry(&[&away]).schema(ONE).await.unwrap_err().is_transient());
}

#[tokio::test]
async fn a_slow_registry_is_left_after_the_time_out() {
    let server = Server::start(|_| Answer::Silence).await;
    let start = Instant::now();
    let error = registry(&[&server]).schema(ONE).await.unwrap_err();
    assert!(start.elapsed() < Duration::from_secs(5));
    assert!(error.to_string().contains("gives no answer in time"), "{error}");
}

#[tokio::test]
async fn no_more_is_read_than_the_bound() {
    for answer in [|| Answer::Bytes(100 << 20), || Answer::Endless] {
        let server = Server::start(move |_| answer()).await;
        let mut settings = settings(&[&server]);
        settings.timeout = Duration::from_mins(1);
        let error = Registry::open(&settings).unwrap().schema(ONE).await.unwrap_err();
        assert!(error.to_string().contains("more than 8 MiB"), "{error}");
        // Beyond what was read, the system's buffers have some.
        assert!(server.sent_bytes() < 32 << 20, "{}", server.sent_bytes());
    }
}

#[tokio::test]
async fn the_next_url_is_asked_and_the_good_one_remembered() {
    let broken = Server::start(|_| no(503, 50300, "starting")).await;
    let good = Server::start(|_| json(200, "[\"a\"]")).await;
    let nobody = Url::parse("http://127.0.0.1:9").unwrap();
    let mut settings = settings(&[&broken, &good]);
    settings.urls.insert(0, nobody);
    let registry = Registry::open(&settings).unwrap();
    for _ in 0..3 {
        assert_eq!(registry.subjects(false).await.unwrap(), ["a"]);
    }
    assert_eq!((broken.requests().len(), good.requests().len()), (1, 3));

    settings.urls.pop();
    let error = Registry::open(&settings).unwrap().subjects(false).await.unwrap_err().to_string();
    // Each is named, with what became of it.
    assert!(error.contains("http://127.0.0.1:9/ Connection refused"), "{error}");
    assert!(error.contains("HTTP 503: starting"), "{error}");
}

#[tokio::test]
async fn a_deletion_that_may_have_been_done_is_not_sent_again() {
    let broken = Server::start(|_| no(500, 50001, "lost")).await;
    let other = Server::start(|_| no(404, 40401, "no such subject")).await;
    let error = registry(&[&broken, &other]).delete_subject("s", false).await.unwrap_err();
    assert!(error.is_transient(), "{error:?}");
    assert_eq!(other.requests().len(), 0);

    let nobody = Url::parse("http://127.0.0.1:9").unwrap();
    let good = Server::start(|_| json(200, "[1,2]")).await;
    let mut settings = settings(&[&good]);
    settings.urls.insert(0, nobody);
    let deleted = Registry::open(&settings).unwrap().delete_subject("s", true).await.unwrap();
    assert_eq!(deleted, [1, 2]);
    assert!(good.requests()[0].starts_with("DELETE /subjects/s?permanent=true "));
}

#[tokio::test]
async fn the_account_is_sent_and_never_shown() {
    let server = Server::start(|request| {
        let right = request.contains("authorization: Basic cGlwZWxpbmU6aHVudGVyMg==\r\n");
        if right { json(200, "[]") } else { no(401, 401, "Unauthorized") }
    })
    .await;
    let mut settings = settings(&[&server]);
    let error = Registry::open(&settings).unwrap().subjects(false).await.unwrap_err();
    assert!(matches!(error, Error::Refused { status: 401, .. }), "{error:?}");
    let password = Password("hunter2".to_owned());
    settings.login = Some(Login { username: "pipeline".to_owned(), password });
    let registry = Registry::open(&settings).unwrap();
    registry.subjects(false).await.unwrap();
    assert!(!format!("{registry:?} {settings:?}").contains("hunter2"));
}

#[tokio::test]
async fn what_the_registry_rejects_carries_its_message() {
    let server = Server::start(|request| {
        let post = request.starts_with("POST /subjects/s/versions?normalize=true ");
        assert!(post && request.ends_with(r#"{"schema":"\"int\"","schemaType":"AVRO"}"#));
        assert!(request.contains("content-type: application/vnd.schemaregistry.v1+json"));
        no(409, 409, "incompatible:\n\u{1b}[31mfield x")
    })
    .await;
    let schema = Schema::avro("\"int\"");
    let error = registry(&[&server]).register("s", &schema, true).await.unwrap_err();
    let wanted = "POST subjects/s/versions: incompatible:  [31mfield x (HTTP 409, code 409)";
    assert_eq!(error.to_string(), wanted);
    assert!(matches!(error, Error::Rejected { status: 409, code: 409, .. }));
}

#[test]
fn certificates_that_cannot_be_used_are_named() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("ca.pem");
    let mut settings = Settings::new(vec![Url::parse("https://127.0.0.1:1").unwrap()]);
    settings.ca = Some(file.clone());
    let error = Registry::open(&settings).unwrap_err().to_string();
    assert!(error.contains("read") && error.contains("ca.pem"), "{error}");
    std::fs::write(&file, "not a certificate").unwrap();
    let error = Registry::open(&settings).unwrap_err().to_string();
    assert!(error.contains("ca.pem can't be used: there is no certificate in it"), "{error}");
    settings.ca = None;
    settings.certificate = Some((file.clone(), file));
    let error = Registry::open(&settings).unwrap_err().to_string();
    assert!(error.contains("ca.pem can't be used"), "{error}");
}

const VERSIONS: &str = "/subjects/aion.router.decisions-value/versions";

fn version(number: u32, id: u32, text: &str) -> Answer {
    let subject = "aion.router.decisions-value";
    let version = serde_json::json!({
        "subject": subject, "version": number, "id": id, "schema": text
    });
    json(200, version.to_string())
}

/// A registry with one subject: version 1 is deleted, version 2 is there, version 3 goes for good while it is asked.
async fn of_one_subject() -> Server {
    Server::start(|request| {
        let path = request.split_whitespace().nth(1).unwrap();
        match path.strip_prefix(VERSIONS) {
            Some("?deleted=true") => json(200, "[1,2,3]"),
            Some("") => json(200, "[2]"),
            Some("/1?deleted=true") => version(1, 7, "\"int\""),
            Some("/2?deleted=true") => version(2, 9, "\"long\""),
            Some(_) => no(404, 40402, "Version not found"),
            None => no(404, 40401, "Subject not found"),
        }
    })
    .await
}

#[tokio::test]
async fn each_version_of_each_subject_is_told_deleted_ones_too() {
    let server = of_one_subject().await;
    let catalog = Catalog::builtin();
    let told = told::of(Arc::new(registry(&[&server])), &catalog);
    for _ in 0..2 {
        let texts: Vec<SchemaText> = told.rows().try_collect().await.unwrap();
        let shown: Vec<_> = texts.iter().map(|one| (one.registered, &*one.text)).collect();
        let old = Registered { version: 1, id: 7, is_deleted: true };
        let new = Registered { version: 2, id: 9, is_deleted: false };
        assert_eq!(shown, [(Some(old), "\"int\""), (Some(new), "\"long\"")]);
        assert!(texts.iter().all(|one| (&*one.table, one.format) == ("decisions", "avro")));
    }
}

/// A subject may have more of them than memory has room for.
#[tokio::test]
async fn versions_are_asked_for_as_they_are_read() {
    let server = Server::start(|request| {
        let path = request.split_whitespace().nth(1).unwrap();
        match path.strip_prefix(VERSIONS) {
            Some("" | "?deleted=true") => json(200, format!("{:?}", (1..=200).collect::<Vec<_>>())),
            Some(_) => version(1, 7, "\"int\""),
            None => no(404, 40401, "Subject not found"),
        }
    })
    .await;
    let told = told::of(Arc::new(registry(&[&server])), &Catalog::builtin());
    let mut rows = told.rows();
    rows.try_next().await.unwrap().unwrap();
    let asked = server.requests();
    let asked = asked.iter().filter(|request| request.contains("-value/versions/")).count();
    assert!(asked < 20, "{asked} of 200");
}

#[tokio::test]
async fn schemas_of_a_registry_that_is_away_are_an_error() {
    let server = Server::start(|_| json(500, "{}")).await;
    let told = told::of(Arc::new(registry(&[&server])), &Catalog::builtin());
    let texts: Result<Vec<SchemaText>, String> = told.rows().try_collect().await;
    assert!(texts.unwrap_err().contains("no answer from the schema registry"));
}
