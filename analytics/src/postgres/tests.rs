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

/// Sends a simple statement.
async fn ask(socket: &mut TcpStream, sql: &str) {
    socket.write_u8(b'Q').await.unwrap();
    socket.write_u32(sql.len() as u32 + 5).await.unwrap();
    socket.write_all(sql.as_bytes()).await.unwrap();
    socket.write_u8(0).await.unwrap();
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
