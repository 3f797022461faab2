//! Clients at a socket, by the protocol's own bytes.
#![expect(clippy::unwrap_used, reason = "a test may panic")]

use std::{
    net::{Ipv4Addr, SocketAddr},
    time::Instant,
};

use aion_schemas::catalog::Catalog;
use base64::{Engine as _, engine::general_purpose::STANDARD};
use ring::digest;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, copy, sink},
    net::TcpStream,
    task::JoinHandle,
};
use tokio_rustls::{
    TlsConnector,
    client::TlsStream,
    rustls::{
        ClientConfig, RootCertStore, ServerConfig,
        pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
    },
};
use tokio_util::either::Either;

use super::{access::keyed, *};
use crate::engine::Settings;

/// More than the sockets of both sides hold.
const LONG: &str = "select repeat('x', 1000) from range(0, 30000000)";
/// No test takes that long.
const AT_MOST: Duration = Duration::from_mins(1);
/// The server's certificate, and its key.
const PEM: &[u8] = include_bytes!("tests/server.pem");
/// What the user of the server with a certificate has in place of a password: a key that none was hashed for.
const CLIENT_KEY: [u8; 32] = [7; 32];

/// A client's end of a connection, encrypted or not.
type Socket = Either<TcpStream, TlsStream<TcpStream>>;

/// Serves one question at a time to clients that may let answers wait for so long.
async fn serving(access: Access, patience: Duration) -> SocketAddr {
    started(access, patience).await.address
}

/// What serves.
struct Started {
    address: SocketAddr,
    engine: Arc<Engine>,
    served: JoinHandle<io::Result<()>>,
}

async fn started(access: Access, patience: Duration) -> Started {
    let nothing = tempfile::tempdir().unwrap();
    let lake = url::Url::from_directory_path(nothing.path().join("lake")).unwrap();
    let mut settings = Settings::new(lake, Arc::new(Catalog::builtin()));
    (settings.threads, settings.queries) = (2, 1);
    let engine = Arc::new(Engine::open(settings).unwrap());
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let address = listener.local_addr().unwrap();
    let served = tokio::spawn(accept(listener, Arc::clone(&engine), Arc::new(access), patience));
    Started { address, engine, served }
}

/// One user, who comes in encrypted only.
fn one_user() -> Access {
    let stored_key = STANDARD.encode(digest::digest(&digest::SHA256, &CLIENT_KEY));
    let mut users = Users::default();
    users.add("me", &format!("SCRAM-SHA-256$4096:c2FsdA==${stored_key}:{stored_key}")).unwrap();
    let chain = vec![CertificateDer::from_pem_slice(PEM).unwrap()];
    let key = PrivateKeyDer::from_pem_slice(PEM).unwrap();
    let config = ServerConfig::builder().with_no_client_auth().with_single_cert(chain, key);
    Access::of(users, Some(config.unwrap()))
}

/// A client that has come in.
async fn client(address: SocketAddr, is_encrypted: bool) -> Socket {
    let socket = TcpStream::connect(address).await.unwrap();
    let mut socket = if is_encrypted { encrypted(socket).await } else { Socket::Left(socket) };
    socket.write_all(b"\0\0\0\x11\0\x03\0\0user\0me\0\0").await.unwrap();
    socket.flush().await.unwrap();
    if is_encrypted {
        prove(&mut socket).await;
    }
    answer(&mut socket).await;
    socket
}

/// Asks for encryption first of all, as most clients do.
async fn encrypted(mut socket: TcpStream) -> Socket {
    socket.write_all(b"\0\0\0\x08\x04\xd2\x16\x2f").await.unwrap();
    assert_eq!(socket.read_u8().await.unwrap(), b'S');
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(PEM).unwrap()).unwrap();
    let config = ClientConfig::builder().with_root_certificates(roots).with_no_client_auth();
    let name = socket.peer_addr().unwrap().ip().into();
    let connected = TlsConnector::from(Arc::new(config)).connect(name, socket).await;
    Socket::Right(connected.unwrap())
}

/// Proves by SCRAM-SHA-256 that it has the user's key.
async fn prove(socket: &mut Socket) {
    assert_eq!(message(socket).await.0, b'R');
    send(socket, b'p', b"SCRAM-SHA-256\0\0\0\0\x0dn,,n=,r=nonce").await;
    let (_, told) = message(socket).await;
    // Behind the number that says what message it is.
    let server_first = std::str::from_utf8(&told[4..]).unwrap();
    let nonce = server_first.split(',').next().unwrap();
    let all = format!("n=,r=nonce,{server_first},c=biws,{nonce}");
    let stored_key = digest::digest(&digest::SHA256, &CLIENT_KEY);
    let signature = keyed(stored_key.as_ref(), all.as_bytes());
    let proof: Vec<u8> = CLIENT_KEY.iter().zip(&signature).map(|(a, b)| a ^ b).collect();
    let last = format!("c=biws,{nonce},p={}", STANDARD.encode(proof));
    send(socket, b'p', last.as_bytes()).await;
}

/// Sends a message of this kind.
async fn send(socket: &mut Socket, kind: u8, body: &[u8]) {
    socket.write_u8(kind).await.unwrap();
    socket.write_u32(body.len() as u32 + 4).await.unwrap();
    socket.write_all(body).await.unwrap();
    socket.flush().await.unwrap();
}

/// Sends a simple statement.
async fn ask(socket: &mut Socket, sql: &str) {
    send(socket, b'Q', &[sql.as_bytes(), b"\0"].concat()).await;
}

/// The next message: its kind, and what it says.
async fn message(socket: &mut Socket) -> (u8, Vec<u8>) {
    let kind = socket.read_u8().await.unwrap();
    let length = socket.read_u32().await.unwrap();
    let mut body = vec![0; length as usize - 4];
    socket.read_exact(&mut body).await.unwrap();
    (kind, body)
}

/// The kinds of all messages up to the one by which the next statement may be sent.
async fn answer(socket: &mut Socket) -> Vec<u8> {
    let mut kinds = Vec::new();
    while kinds.last() != Some(&b'Z') {
        kinds.push(message(socket).await.0);
    }
    kinds
}

/// A client that has the only turn and takes the beginning of its answer, and one that waits for that turn.
async fn one_silent_one_waiting(address: SocketAddr, is_encrypted: bool) -> (Socket, Socket) {
    let mut silent = client(address, is_encrypted).await;
    ask(&mut silent, LONG).await;
    assert_eq!(silent.read_u8().await.unwrap(), b'T');
    let mut waiting = client(address, is_encrypted).await;
    ask(&mut waiting, "select 1").await;
    (silent, waiting)
}

/// Who may come in.
fn access(is_encrypted: bool) -> Access {
    if is_encrypted { one_user() } else { Access::everybody() }
}

/// Has a client let its answer wait for longer than it may.
async fn is_cut_off(is_encrypted: bool) {
    let patience = Duration::from_secs(1);
    let address = serving(access(is_encrypted), patience).await;
    let begun = Instant::now();
    let (mut silent, mut waiting) = one_silent_one_waiting(address, is_encrypted).await;
    let answered = timeout(AT_MOST, answer(&mut waiting)).await.unwrap();
    assert_eq!(answered, b"TDCZ");
    assert!(begun.elapsed() >= patience, "the turn was taken");
    // What was on its way, and no end of the answer; how the system says that is its own matter.
    drop(timeout(AT_MOST, copy(&mut silent, &mut sink())).await.unwrap());
}

#[tokio::test]
async fn who_takes_nothing_is_cut_off_and_another_gets_the_turn() {
    is_cut_off(false).await;
}

#[tokio::test]
async fn who_takes_nothing_of_what_is_encrypted_is_cut_off_too() {
    is_cut_off(true).await;
}

/// Has a client let its answer wait for less: nothing but the cut lets the other one in.
async fn keeps_the_turn(is_encrypted: bool) {
    let address = serving(access(is_encrypted), AT_MOST).await;
    let (silent, mut waiting) = one_silent_one_waiting(address, is_encrypted).await;
    assert!(timeout(Duration::from_secs(3), answer(&mut waiting)).await.is_err());
    drop(silent);
    // The message that was being read when time was up has only begun: none had come.
    let answered = timeout(AT_MOST, answer(&mut waiting)).await.unwrap();
    assert_eq!(answered, b"TDCZ");
}

/// All that comes until the connection ends.
async fn last_words(socket: &mut Socket) -> String {
    let mut words = Vec::new();
    timeout(AT_MOST, socket.read_to_end(&mut words)).await.unwrap().unwrap();
    String::from_utf8_lossy(&words).into_owned()
}

#[tokio::test]
async fn a_stop_is_told_to_who_asks_and_to_who_does_not() {
    let Started { address, engine, served } = started(Access::everybody(), AT_MOST).await;
    let mut idle = client(address, false).await;
    let (silent, mut waiting) = one_silent_one_waiting(address, false).await;
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
async fn who_has_time_left_keeps_the_turn() {
    keeps_the_turn(false).await;
}

#[tokio::test]
async fn who_has_time_left_and_is_encrypted_keeps_the_turn_too() {
    keeps_the_turn(true).await;
}

#[tokio::test]
async fn who_has_nothing_to_take_stays() {
    let patience = Duration::from_millis(200);
    for is_encrypted in [false, true] {
        let address = serving(access(is_encrypted), patience).await;
        let mut client = client(address, is_encrypted).await;
        for _ in 0..3 {
            tokio::time::sleep(2 * patience).await;
            ask(&mut client, "select 1").await;
            assert_eq!(timeout(AT_MOST, answer(&mut client)).await.unwrap(), b"TDCZ");
        }
    }
}

/// Of which eleven are kept.
fn name(number: usize) -> String {
    format!("{number}{}", "x".repeat(250_000))
}

/// Prepares statements without words under names from this number on, until one is refused; how many are kept.
async fn kept(client: &mut Socket, first: usize) -> usize {
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
    let address = serving(Access::everybody(), AT_MOST).await;
    let mut client = client(address, false).await;
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
    // As drivers do it, whose names are short.
    ask(&mut client, "deallocate all").await;
    assert_eq!(answer(&mut client).await, b"CZ");
    send(&mut client, b'P', b"short\0\0\0\0").await;
    send(&mut client, b'C', b"Sshort\0").await;
    send(&mut client, b'S', b"").await;
    assert_eq!(answer(&mut client).await, b"13Z");
    ask(&mut client, "deallocate short").await;
    assert_eq!(answer(&mut client).await, b"EZ", "it was given up");
}
