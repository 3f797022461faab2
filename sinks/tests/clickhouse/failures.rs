//! A server that says no: what passes is tried again, the rest stops with what to change; nothing is lost or doubled.

use aion_sinks::{
    clickhouse::{ClickHouse, Server},
    conformance::{Log, marks, settle, take},
    sink::{Sink, SinkError},
};
use serde_json::{Value, json};

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
        url: "http://127.0.0.1:9".parse().unwrap(),
        ..server(crate::engine::shared(), "d")
    };
    let mut sink = ClickHouse::new(nowhere).unwrap().sink(spec(), settings());
    let log = Log::new();
    let failed = sink.assign(&[log.partition(0)]).await.unwrap_err();
    assert!(matches!(failed, SinkError::Retry { .. }), "{failed:?}");
    assert!(failed.to_string().contains("look at d.orders"), "{failed}");
}

#[tokio::test]
async fn a_stranger_is_told_from_a_server() {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap()).parse().unwrap();
    tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        assert!(stream.read(&mut [0; 4096]).await.unwrap() > 0);
        let page = "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello";
        stream.write_all(page.as_bytes()).await.unwrap();
    });
    let stranger = Server { url, ..server(crate::engine::shared(), "d") };
    let mut sink = ClickHouse::new(stranger).unwrap().sink(spec(), settings());
    let failed = sink.assign(&[Log::new().partition(0)]).await.unwrap_err();
    assert!(failed.to_string().contains("is it a ClickHouse server"), "{failed}");
}

#[tokio::test]
async fn a_password_is_shown_nowhere() {
    let server = Server {
        user: Some("aion".into()),
        password: Some("hunter2".into()),
        url: "http://127.0.0.1:9".parse().unwrap(),
        ..server(crate::engine::shared(), "d")
    };
    let house = ClickHouse::new(server).unwrap();
    assert!(!format!("{house:?}").contains("hunter2"));
    let mut sink = house.sink(spec(), settings());
    let failed = sink.assign(&[Log::new().partition(0)]).await.unwrap_err();
    assert!(!format!("{failed} {failed:?} {sink:?}").contains("hunter2"));
}
