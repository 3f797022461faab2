//! A server that answers what a test says, byte by byte if it must.

#![expect(clippy::unwrap_used, reason = "a test may panic")]

use std::{
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};
use url::Url;

/// What the server does with a request.
pub(super) enum Answer {
    /// Sends this status and body.
    Body(u16, &'static str, String),
    /// Says that so many bytes follow, and sends as many.
    Bytes(usize),
    /// Sends chunks until the client goes.
    Endless,
    /// Says nothing for a long time.
    Silence,
}

pub(super) fn json(status: u16, body: impl Into<String>) -> Answer {
    Answer::Body(status, "application/vnd.schemaregistry.v1+json", body.into())
}

/// A running server; it ends with the test's runtime.
#[derive(Clone)]
pub(super) struct Server {
    pub(super) url: Url,
    requests: Arc<Mutex<Vec<String>>>,
    sent_bytes: Arc<AtomicUsize>,
}

impl Server {
    /// Answers each request, given as its head and body, by `answer`.
    pub(super) async fn start(answer: impl Fn(&str) -> Answer + Send + Sync + 'static) -> Server {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = Url::parse(&format!("http://{}", listener.local_addr().unwrap())).unwrap();
        let server = Server { url, requests: Arc::default(), sent_bytes: Arc::default() };
        let (shared, answer) = (server.clone(), Arc::new(answer));
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (server, answer) = (shared.clone(), Arc::clone(&answer));
                tokio::spawn(async move { server.serve(stream, &*answer).await });
            }
        });
        server
    }

    /// The requests so far, head and body.
    pub(super) fn requests(&self) -> Vec<String> {
        self.requests.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The bytes of bodies that a client has taken, or the system for it.
    pub(super) fn sent_bytes(&self) -> usize {
        self.sent_bytes.load(Ordering::SeqCst)
    }

    async fn serve(&self, mut stream: TcpStream, answer: &(impl Fn(&str) -> Answer + Sync)) {
        let request = read_request(&mut stream).await;
        self.requests.lock().unwrap_or_else(PoisonError::into_inner).push(request.clone());
        match answer(&request) {
            Answer::Body(status, kind, body) => {
                let head = format!(
                    "HTTP/1.1 {status} X\r\ncontent-type: {kind}\r\ncontent-length: {}\r\n\
                     connection: close\r\n\r\n",
                    body.len()
                );
                stream.write_all((head + &body).as_bytes()).await.unwrap();
            }
            Answer::Bytes(bytes) => {
                let head = format!("HTTP/1.1 200 X\r\ncontent-length: {bytes}\r\n\r\n");
                stream.write_all(head.as_bytes()).await.unwrap();
                self.pour(&mut stream, " ".repeat(1 << 16).as_bytes(), bytes >> 16).await;
            }
            Answer::Endless => {
                let head = b"HTTP/1.1 200 X\r\ntransfer-encoding: chunked\r\n\r\n";
                stream.write_all(head).await.unwrap();
                let chunk = format!("10000\r\n{}\r\n", " ".repeat(1 << 16));
                self.pour(&mut stream, chunk.as_bytes(), usize::MAX).await;
            }
            Answer::Silence => tokio::time::sleep(Duration::from_mins(1)).await,
        }
    }

    async fn pour(&self, stream: &mut TcpStream, piece: &[u8], pieces: usize) {
        for _ in 0..pieces {
            if stream.write_all(piece).await.is_err() {
                return;
            }
            self.sent_bytes.fetch_add(piece.len(), Ordering::SeqCst);
        }
    }
}

async fn read_request(stream: &mut TcpStream) -> String {
    let mut request = Vec::new();
    loop {
        let text = String::from_utf8_lossy(&request).into_owned();
        if let Some((head, body)) = text.split_once("\r\n\r\n") {
            let length = head.lines().find_map(|line| line.strip_prefix("content-length: "));
            if body.len() >= length.map_or(0, |length| length.parse().unwrap()) {
                return text;
            }
        }
        if stream.read_buf(&mut request).await.unwrap_or(0) == 0 {
            return text;
        }
    }
}
