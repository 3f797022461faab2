//! Names that resolve otherwise the next time, and connections that are kept.

#![expect(clippy::unwrap_used, reason = "a test may panic")]

use std::{
    collections::VecDeque,
    net::{IpAddr, Ipv4Addr},
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
};

use aion_schemas::catalog::Catalog;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
};

use super::*;
use crate::webhooks::policy::Policy;

/// Stands for an address of the internet: the policy allows it.
const OUTSIDE: Ipv4Addr = Ipv4Addr::LOCALHOST;
/// Stands for one of the own network.
const INSIDE: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 2);

/// Answers each connection once, and counts them.
async fn server(address: Ipv4Addr, port: u16) -> (u16, Arc<AtomicUsize>) {
    let listener = TcpListener::bind((address, port)).await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let connections = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&connections);
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            count.fetch_add(1, Ordering::SeqCst);
            let mut request = [0; 4096];
            let _read = stream.read(&mut request).await;
            let answer = b"HTTP/1.1 204 No Content\r\nconnection: close\r\n\r\n";
            let _written = stream.write_all(answer).await;
        }
    });
    (port, connections)
}

fn endpoint(host: &str, allowed: &str) -> Arc<Endpoint> {
    let policy = format!(
        "webhooks:\n- {{url: \"http://{host}/\", secret: a-secret-for-tests-only, topics: [a], \
         retry: {{initial_interval: 1s, max_interval: 1s, max_attempts: 2}}, allow_http: true, \
         allow_private: [{allowed}]}}\n"
    );
    Arc::clone(&Policy::parse(&policy, &Catalog::builtin()).unwrap().endpoints[0])
}

/// Sends once for each answer that the name server gives; the answers, and the connections from outside and inside.
async fn sent(allowed: &str, found: &[&[Ipv4Addr]]) -> (Vec<Answer>, usize, usize) {
    let (port, outside) = server(OUTSIDE, 0).await;
    let (_, inside) = server(INSIDE, port).await;
    let addresses = |answer: &&[Ipv4Addr]| answer.iter().copied().map(IpAddr::V4).collect();
    let answers: VecDeque<Vec<IpAddr>> = found.iter().map(addresses).collect();
    let names = Names::Fickle(Arc::new(Mutex::new(answers)));
    let endpoint = endpoint(&format!("fickle.test:{port}"), allowed);
    let client = Client::with(&endpoint, &Network::of_system(), names).unwrap();
    let mut answers = Vec::new();
    for _ in found {
        answers.push(client.send(HeaderMap::new(), Bytes::new()).await);
    }
    (answers, outside.load(Ordering::SeqCst), inside.load(Ordering::SeqCst))
}

#[tokio::test]
async fn a_name_that_resolves_to_another_address_at_the_second_attempt_is_looked_at_again() {
    let found: [&[_]; 4] = [&[OUTSIDE], &[INSIDE], &[INSIDE, OUTSIDE], &[OUTSIDE]];
    let (answers, outside, inside) = sent("127.0.0.1", &found).await;
    assert_eq!(answers[0], Answer::Taken(204));
    let Answer::Failed(why) = &answers[1] else { panic!("{answers:?}") };
    assert!(why.contains("no address that may be dialled (127.0.0.2)"), "{why}");
    assert_eq!(
        answers[2..],
        [Answer::Taken(204), Answer::Taken(204)],
        "the one that may be dialled"
    );
    assert_eq!((outside, inside), (3, 0));
}

#[tokio::test]
async fn without_the_look_it_would_be_dialled() {
    let (answers, outside, inside) = sent("127.0.0.0/8", &[&[OUTSIDE], &[INSIDE]]).await;
    assert_eq!(answers, [Answer::Taken(204), Answer::Taken(204)]);
    assert_eq!((outside, inside), (1, 1));
}

/// Answers each connection so many times, and then closes it without a word; counts the connections.
async fn patient(answers: usize) -> (u16, Arc<AtomicUsize>) {
    let listener = TcpListener::bind((OUTSIDE, 0)).await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let connections = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&connections);
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            count.fetch_add(1, Ordering::SeqCst);
            tokio::spawn(async move {
                let mut request = [0; 4096];
                for _ in 0..answers {
                    if stream.read(&mut request).await.unwrap_or(0) == 0 {
                        return;
                    }
                    let answer = b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\ntaken";
                    let _written = stream.write_all(answer).await;
                }
            });
        }
    });
    (port, connections)
}

fn client(port: u16, network: &Network) -> Client {
    Client::open(&endpoint(&format!("127.0.0.1:{port}"), "127.0.0.1"), network).unwrap()
}

async fn takes(client: &Client) -> bool {
    client.send(HeaderMap::new(), Bytes::from_static(b"{}")).await == Answer::Taken(200)
}

#[tokio::test]
async fn a_connection_carries_one_delivery_after_the_other_of_its_own_endpoint() {
    let (port, connections) = patient(usize::MAX).await;
    let network = Network::of_system();
    let (one, other) = (client(port, &network), client(port, &network));
    for _ in 0..5 {
        assert!(takes(&one).await);
    }
    assert_eq!(connections.load(Ordering::SeqCst), 1);
    assert!(takes(&other).await);
    assert_eq!(connections.load(Ordering::SeqCst), 2, "that of another isn't its own");
}

#[tokio::test]
async fn a_connection_that_was_closed_meanwhile_costs_no_attempt() {
    let (port, connections) = patient(2).await;
    let network = Network::of_system();
    let client = client(port, &network);
    for _ in 0..6 {
        assert!(takes(&client).await);
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert_eq!(connections.load(Ordering::SeqCst), 3);
}

#[tokio::test]
async fn of_all_endpoints_so_many_connections_are_kept() {
    let (port, connections) = patient(usize::MAX).await;
    let network = Network { connections: Arc::new(Connections::new(2)), ..Network::of_system() };
    let clients = [(); 3].map(|()| client(port, &network));
    for client in &clients {
        assert!(takes(client).await);
    }
    assert!(takes(&clients[2]).await && takes(&clients[1]).await);
    assert_eq!(connections.load(Ordering::SeqCst), 3, "those of the last two are kept");
    assert!(takes(&clients[0]).await);
    assert_eq!(connections.load(Ordering::SeqCst), 4, "the first one's made room");
}
