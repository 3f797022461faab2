//! A server that says no: what passes is tried again, the rest stops with what to change; nothing is lost or doubled.

use std::sync::{Arc, Mutex};

use aion_sinks::{
    clickhouse::{ClickHouse, Server},
    conformance::{Log, marks, settle, take},
    sink::{Sink, SinkError},
};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
};

use crate::shared::{Place, once, range, server, settings, spec};

/// Fails the INSERT once, then lets it pass.
async fn fails_once(fault: Value) {
    let (place, log) = (Place::new().await, Log::new());
    let p0 = log.partition(0);
    let mut writer = place.owner(&p0).await;
    take(&mut writer, log.batch(0, 0, 10)).await;
    let what = fault.to_string();
    place.engine.fault(&format!("INSERT INTO {}", place.table()), fault).await;
    let failed = once(&mut writer).await;
    assert!(matches!(failed, Err(SinkError::Retry { .. })), "{what}: {failed:?}");
    assert_eq!(settle(&mut writer).await.marks, marks([(&p0, 10)]), "{what}");
    assert_eq!(place.offsets(&p0).await, range(0, 10), "{what}");
}

#[tokio::test]
async fn what_passes_is_tried_again() {
    for (code, status) in [(252, 500), (202, 503), (0, 502), (242, 500), (999, 500)] {
        for kind in ["refuse", "refuse_after"] {
            let text = "scripted";
            fails_once(json!({"kind": kind, "code": code, "status": status, "text": text})).await;
        }
    }
}

/// In the engine's own words.
#[tokio::test]
async fn a_table_that_has_too_many_parts_is_waited_for() {
    let (place, log) = (Place::new().await, Log::new());
    let p0 = log.partition(0);
    let mut writer = place.owner(&p0).await;
    take(&mut writer, log.batch(0, 0, 10)).await;
    settle(&mut writer).await;
    let most = format!("ALTER TABLE {} MODIFY SETTING parts_to_throw_insert", place.table());
    place.engine.run(&format!("{most} = 1")).await;
    take(&mut writer, log.batch(0, 10, 20)).await;
    let failed = once(&mut writer).await.unwrap_err();
    assert!(matches!(failed, SinkError::Retry { .. }), "{failed:?}");
    assert!(failed.to_string().contains("Code: 252. "), "{failed}");
    assert_eq!(place.offsets(&p0).await, range(0, 10), "nothing of it is there");
    place.engine.run(&format!("{most} = 3000")).await;
    assert_eq!(settle(&mut writer).await.marks, marks([(&p0, 20)]));
    assert_eq!(place.offsets(&p0).await, range(0, 20));
}

/// An answer of which half comes says nothing, whether of an INSERT or of the look after it.
#[tokio::test]
async fn half_an_answer_is_none() {
    fails_once(json!({"kind": "halve"})).await;
    let (place, log) = (Place::new().await, Log::new());
    let p0 = log.partition(0);
    let mut writer = place.owner(&p0).await;
    take(&mut writer, log.batch(0, 0, 10)).await;
    let look = format!(r"groupArray\(\(f, e, n, .* FROM {}", place.table());
    place.engine.fault(&look, json!({"kind": "halve"})).await;
    let failed = once(&mut writer).await;
    assert!(matches!(failed, Err(SinkError::Retry { .. })), "{failed:?}");
    assert_eq!(settle(&mut writer).await.marks, marks([(&p0, 10)]));
    assert_eq!(place.offsets(&p0).await, range(0, 10));
}

/// What a person has to act upon, and the word that the hint has for it.
async fn stops(fault: Value, hinted: &str) {
    let (place, log) = (Place::new().await, Log::new());
    let p0 = log.partition(0);
    let mut writer = place.owner(&p0).await;
    take(&mut writer, log.batch(0, 0, 10)).await;
    place.engine.fault(&format!("INSERT INTO {}", place.table()), fault).await;
    let failed = once(&mut writer).await.unwrap_err();
    assert!(matches!(failed, SinkError::Fatal { .. }), "{failed:?}");
    let text = failed.to_string();
    assert!(text.contains(hinted), "{text}");
    assert!(text.starts_with("insert into orders, offsets 0..10 of orders/0: "), "{text}");
}

#[tokio::test]
async fn what_a_person_has_to_act_upon_stops_and_says_so() {
    let refused =
        |code, status| json!({"kind": "refuse", "code": code, "status": status, "text": "no"});
    stops(refused(516, 403), "user and password").await;
    stops(refused(0, 401), "user and password").await;
    stops(refused(497, 403), "grant the account").await;
    stops(refused(60, 404), "aion clickhouse plan").await;
    stops(refused(452, 500), "may not change a setting").await;
}

#[tokio::test]
async fn a_server_that_is_down_delays_and_stops_nobody() {
    let nowhere: Server = Server {
        urls: vec!["http://127.0.0.1:9".parse().unwrap()],
        ..server(crate::engine::shared(), "d")
    };
    let mut sink = ClickHouse::new(nowhere).unwrap().sink(spec(), settings());
    let log = Log::new();
    let failed = sink.assign(&[log.partition(0)]).await.unwrap_err();
    assert!(matches!(failed, SinkError::Retry { .. }), "{failed:?}");
    assert!(failed.to_string().contains("look at d.orders"), "{failed}");
}

/// Whoever answers every request with `head` and `body`: its address, and what it is sent.
pub(crate) async fn stranger(head: &str, body: &str) -> (String, Arc<Mutex<Vec<String>>>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = format!("http://{}", listener.local_addr().unwrap());
    let length = body.len();
    let answer =
        format!("HTTP/1.1 {head}\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n{body}");
    let asked = Arc::<Mutex<Vec<String>>>::default();
    let hears = Arc::clone(&asked);
    tokio::spawn(async move {
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut request = [0; 4096];
            let length = stream.read(&mut request).await.unwrap();
            let request = String::from_utf8_lossy(&request[..length]).into_owned();
            hears.lock().unwrap().push(request);
            stream.write_all(answer.as_bytes()).await.unwrap();
        }
    });
    (address, asked)
}

#[tokio::test]
async fn a_password_does_not_go_where_a_redirect_leads() {
    let (elsewhere, heard_elsewhere) = stranger("200 OK", "").await;
    let head = format!("307 Temporary Redirect\r\nLocation: {elsewhere}/");
    let (address, asked) = stranger(&head, "").await;
    let redirecting = Server {
        urls: vec![address.parse().unwrap()],
        user: Some("aion".into()),
        password: Some("hunter2".into()),
        ..server(crate::engine::shared(), "d")
    };
    let mut sink = ClickHouse::new(redirecting).unwrap().sink(spec(), settings());
    let failed = sink.assign(&[Log::new().partition(0)]).await.unwrap_err();
    assert!(matches!(failed, SinkError::Fatal { .. }), "{failed:?}");
    let text = failed.to_string();
    assert!(text.contains("HTTP 307") && text.contains("it redirects"), "{text}");
    assert_eq!(*heard_elsewhere.lock().unwrap(), [""; 0], "followed");
    let asked = asked.lock().unwrap();
    assert!(asked.iter().all(|request| request.contains("hunter2")), "{asked:?}");
}

#[tokio::test]
async fn a_stranger_is_told_from_a_server() {
    let (address, _) = stranger("200 OK", "hello").await;
    let urls = vec![address.parse().unwrap()];
    let stranger = Server { urls, ..server(crate::engine::shared(), "d") };
    let mut sink = ClickHouse::new(stranger).unwrap().sink(spec(), settings());
    let failed = sink.assign(&[Log::new().partition(0)]).await.unwrap_err();
    assert!(failed.to_string().contains("is it a ClickHouse server"), "{failed}");
}

#[tokio::test]
async fn a_password_is_shown_nowhere() {
    let server = Server {
        user: Some("aion".into()),
        password: Some("hunter2".into()),
        urls: vec!["http://127.0.0.1:9".parse().unwrap()],
        ..server(crate::engine::shared(), "d")
    };
    let house = ClickHouse::new(server).unwrap();
    assert!(!format!("{house:?}").contains("hunter2"));
    let mut sink = house.sink(spec(), settings());
    let failed = sink.assign(&[Log::new().partition(0)]).await.unwrap_err();
    assert!(!format!("{failed} {failed:?} {sink:?}").contains("hunter2"));
}
