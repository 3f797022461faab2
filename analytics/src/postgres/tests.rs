//! Clients at a socket, by the protocol's own bytes.
#![expect(clippy::unwrap_used, reason = "a test may panic")]

use std::{
    net::{Ipv4Addr, SocketAddr},
    time::Instant,
};

use aion_schemas::catalog::Catalog;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, copy, sink},
    net::TcpStream,
    task::JoinHandle,
};

use super::*;
use crate::engine::Settings;

/// More than the sockets of both sides hold.
const LONG: &str = "select repeat('x', 1000) from range(0, 30000000)";
/// No test takes that long.
const AT_MOST: Duration = Duration::from_mins(1);

/// Serves one question at a time to clients that may let answers wait for so long.
async fn serving(patience: Duration) -> SocketAddr {
    started(patience).await.address
}

/// What serves.
struct Started {
    address: SocketAddr,
    engine: Arc<Engine>,
    served: JoinHandle<io::Result<()>>,
}

async fn started(patience: Duration) -> Started {
    let nothing = tempfile::tempdir().unwrap();
    let lake = url::Url::from_directory_path(nothing.path().join("lake")).unwrap();
    let mut settings = Settings::new(lake, Arc::new(Catalog::builtin()));
    (settings.threads, settings.queries) = (2, 1);
    let engine = Arc::new(Engine::open(settings).unwrap());
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let address = listener.local_addr().unwrap();
    let access = Arc::new(Access::everybody());
    let served = tokio::spawn(accept(listener, Arc::clone(&engine), access, patience));
    Started { address, engine, served }
}

/// A client that has come in.
async fn client(address: SocketAddr) -> TcpStream {
    let mut socket = TcpStream::connect(address).await.unwrap();
    let startup = b"\0\0\0\x11\0\x03\0\0user\0me\0\0";
    socket.write_all(startup).await.unwrap();
    answer(&mut socket).await;
    socket
}

/// Sends a message.
async fn send(socket: &mut TcpStream, kind: u8, body: &[u8]) {
    socket.write_u8(kind).await.unwrap();
    socket.write_u32(body.len() as u32 + 4).await.unwrap();
    socket.write_all(body).await.unwrap();
}

/// Sends a simple statement.
async fn ask(socket: &mut TcpStream, sql: &str) {
    send(socket, b'Q', &[sql.as_bytes(), b"\0"].concat()).await;
}

/// The kinds of all messages up to the one by which the next statement may be sent.
async fn answer(socket: &mut TcpStream) -> Vec<u8> {
    let mut kinds = Vec::new();
    while kinds.last() != Some(&b'Z') {
        kinds.push(socket.read_u8().await.unwrap());
        let length = socket.read_u32().await.unwrap();
        let mut rest = vec![0; length as usize - 4];
        socket.read_exact(&mut rest).await.unwrap();
    }
    kinds
}

/// A client that has the only turn and takes one byte of its answer, and one that waits for that turn.
async fn one_silent_one_waiting(address: SocketAddr) -> (TcpStream, TcpStream) {
    let mut silent = client(address).await;
    ask(&mut silent, LONG).await;
    assert_eq!(silent.read_u8().await.unwrap(), b'T');
    let mut waiting = client(address).await;
    ask(&mut waiting, "select 1").await;
    (silent, waiting)
}

#[tokio::test]
async fn who_takes_nothing_is_cut_off_and_another_gets_the_turn() {
    let patience = Duration::from_secs(1);
    let begun = Instant::now();
    let (mut silent, mut waiting) = one_silent_one_waiting(serving(patience).await).await;
    let answered = timeout(AT_MOST, answer(&mut waiting)).await.unwrap();
    assert_eq!(answered, b"TDCZ");
    assert!(begun.elapsed() >= patience, "the turn was taken");
    // What was on its way, and no end of the answer; how the system says that is its own matter.
    drop(timeout(AT_MOST, copy(&mut silent, &mut sink())).await.unwrap());
}

/// The control of the above: nothing but the cut lets the other one in.
#[tokio::test]
async fn who_has_time_left_keeps_the_turn() {
    let (silent, mut waiting) = one_silent_one_waiting(serving(AT_MOST).await).await;
    assert!(timeout(Duration::from_secs(3), answer(&mut waiting)).await.is_err());
    drop(silent);
    // The message that was being read when time was up has only begun: none had come.
    let answered = timeout(AT_MOST, answer(&mut waiting)).await.unwrap();
    assert_eq!(answered, b"TDCZ");
}

/// All that comes until the connection ends.
async fn last_words(socket: &mut TcpStream) -> String {
    let mut words = Vec::new();
    timeout(AT_MOST, socket.read_to_end(&mut words)).await.unwrap().unwrap();
    String::from_utf8_lossy(&words).into_owned()
}

#[tokio::test]
async fn a_stop_is_told_to_who_asks_and_to_who_does_not() {
    let Started { address, engine, served } = started(AT_MOST).await;
    let mut idle = client(address).await;
    let (silent, mut waiting) = one_silent_one_waiting(address).await;
    let patience = Duration::from_secs(1);
    let begun = Instant::now();
    engine.stop(patience).await;
    assert!(begun.elapsed() >= patience, "a question was under way");
    let words = last_words(&mut idle).await;
    assert!(words.contains("FATAL") && words.contains("57P01"), "{words:?}");
    assert!(words.contains("the process is stopping"), "{words:?}");
    let words = last_words(&mut waiting).await;
    assert!(words.contains("ERROR") && words.contains("FATAL"), "{words:?}");
    assert_eq!(words.matches("the process is stopping").count(), 2, "{words:?}");
    // Who takes nothing holds nothing up.
    timeout(AT_MOST / 2, served).await.unwrap().unwrap().unwrap();
    drop(silent);
    let refused = TcpStream::connect(address).await;
    assert!(refused.is_err(), "{refused:?}");
}

#[tokio::test]
async fn who_has_nothing_to_take_stays() {
    let patience = Duration::from_millis(200);
    let mut client = client(serving(patience).await).await;
    for _ in 0..3 {
        tokio::time::sleep(2 * patience).await;
        ask(&mut client, "select 1").await;
        assert_eq!(timeout(AT_MOST, answer(&mut client)).await.unwrap(), b"TDCZ");
    }
}

/// Of which eleven are kept.
fn name(number: usize) -> String {
    format!("{number}{}", "x".repeat(250_000))
}

/// Prepares statements without words under names from this number on, until one is refused; how many are kept.
async fn kept(client: &mut TcpStream, first: usize) -> usize {
    for number in first.. {
        send(client, b'P', &[name(number).as_bytes(), b"\0\0\0\0"].concat()).await;
        send(client, b'S', b"").await;
        match &answer(client).await[..] {
            b"1Z" => {}
            b"EZ" => return number - first,
            other => panic!("{other:?}"),
        }
    }
    unreachable!("a client has no end of names")
}

#[tokio::test]
async fn names_are_bounded_and_given_up_by_whoever_has_them() {
    let address = serving(AT_MOST).await;
    let mut client = client(address).await;
    assert_eq!(kept(&mut client, 0).await, 11);
    for (first, sql, room) in [
        (20, format!("deallocate {}", name(3)), 1),
        (30, "deallocate all".to_owned(), 11),
        (45, "discard plans".to_owned(), 0),
        (50, "discard all".to_owned(), 11),
    ] {
        ask(&mut client, &sql).await;
        assert_eq!(answer(&mut client).await, b"CZ", "{first}");
        assert_eq!(kept(&mut client, first).await, room, "{first}");
    }
    ask(&mut client, "deallocate nothing").await;
    assert_eq!(answer(&mut client).await, b"EZ");
    // As drivers do it.
    send(&mut client, b'C', &[&b"S"[..], name(50).as_bytes(), b"\0"].concat()).await;
    send(&mut client, b'S', b"").await;
    assert_eq!(answer(&mut client).await, b"3Z");
    assert_eq!(kept(&mut client, 70).await, 1);
}
