//! One client's connection: frames in, answers out in the order of the requests.
//!
//! **Invariant:** produced batches are appended in the order they came in, and the next one is
//! taken while the first waits for the disk, so one fsync serves all that a client has under way.
//! All other requests run one after another, as their order may matter.

use std::{io, net::SocketAddr, sync::Arc};

use bytes::{Buf, Bytes, BytesMut};
use kafka_protocol::{
    messages::{ApiKey, RequestHeader},
    protocol::{Decodable, StrBytes},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{
        TcpStream,
        tcp::{OwnedReadHalf, OwnedWriteHalf},
    },
    sync::mpsc,
};

use crate::{
    api::{self, produce},
    broker::Node,
};

/// Greatest request, as Kafka's `socket.request.max.bytes`.
const REQUEST_BYTES: usize = 100 << 20;
/// Requests of one connection that are read ahead.
const AHEAD: usize = 16;
/// A greater answer buffer is given back after its answer.
const BUFFER_BYTES: usize = 4 << 20;

/// Why a connection is closed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Closed {
    #[error("the client went away: {0}")]
    Io(#[from] io::Error),
    #[error("{0} bytes are no request of this protocol (at most {REQUEST_BYTES} are taken)")]
    Size(i32),
    #[error("request {key} version {version} is not supported; this broker said so in ApiVersions")]
    Unsupported { key: i16, version: i16 },
    #[error("request {key:?} version {version} can't be read: {reason}")]
    Garbled { key: ApiKey, version: i16, reason: String },
    #[error("answer to {key:?} version {version} can't be written: {reason}")]
    Unwritable { key: ApiKey, version: i16, reason: String },
}

/// A request whose header was read.
pub(crate) struct Call {
    pub(crate) key: ApiKey,
    pub(crate) version: i16,
    pub(crate) correlation: i32,
    pub(crate) client: StrBytes,
    pub(crate) peer: SocketAddr,
    pub(crate) body: Bytes,
}

enum Work {
    Call(Call),
    Produced(Call, produce::Produced),
}

/// Serves a connection until the client leaves or breaks the protocol.
pub(crate) async fn serve(
    node: &Arc<Node>,
    stream: TcpStream,
    peer: SocketAddr,
) -> Result<(), Closed> {
    stream.set_nodelay(true)?;
    let (reader, writer) = stream.into_split();
    let (queue, work) = mpsc::channel(AHEAD);
    tokio::select! {
        done = read(node, reader, peer, queue) => done,
        done = write(node, writer, work) => done,
    }
}

async fn read(
    node: &Arc<Node>,
    mut stream: OwnedReadHalf,
    peer: SocketAddr,
    queue: mpsc::Sender<Work>,
) -> Result<(), Closed> {
    let mut buffer = BytesMut::new();
    while let Some(frame) = frame(&mut stream, &mut buffer).await? {
        let call = open(frame, peer)?;
        let work = if call.key == ApiKey::Produce {
            let produced = produce::append(node, &call)?;
            // What was appended needn't wait in memory for the disk.
            Work::Produced(Call { body: Bytes::new(), ..call }, produced)
        } else {
            Work::Call(call)
        };
        if queue.send(work).await.is_err() {
            break;
        }
    }
    Ok(())
}

/// Reads one request; `None` when the client closed between two.
async fn frame(stream: &mut OwnedReadHalf, buffer: &mut BytesMut) -> Result<Option<Bytes>, Closed> {
    let mut wanted = 4;
    loop {
        if wanted == 4 && buffer.len() >= 4 {
            let length = (&buffer[..4]).get_i32();
            let sane = usize::try_from(length).ok().filter(|n| (8..=REQUEST_BYTES).contains(n));
            wanted = 4 + sane.ok_or(Closed::Size(length))?;
        }
        if wanted > 4 && buffer.len() >= wanted {
            let mut frame = buffer.split_to(wanted);
            frame.advance(4);
            return Ok(Some(frame.freeze()));
        }
        buffer.reserve((wanted - buffer.len().min(wanted)).max(64 << 10));
        if stream.read_buf(buffer).await? == 0 {
            return match buffer.len() {
                0 => Ok(None),
                _ => Err(io::Error::from(io::ErrorKind::UnexpectedEof).into()),
            };
        }
    }
}

fn open(mut frame: Bytes, peer: SocketAddr) -> Result<Call, Closed> {
    let key = (&frame[..2]).get_i16();
    let version = (&frame[2..4]).get_i16();
    let correlation = (&frame[4..8]).get_i32();
    let unsupported = Closed::Unsupported { key, version };
    let key = ApiKey::try_from(key).map_err(|()| Closed::Unsupported { key, version })?;
    let taken = api::range(key).is_some_and(|range| range.contains(&version));
    if !taken && key != ApiKey::ApiVersions {
        return Err(unsupported);
    }
    // A client newer than this broker asks ApiVersions in a way that can't be read; it is told the
    // versions all the same.
    if !taken {
        let (client, body) = (StrBytes::default(), Bytes::new());
        return Ok(Call { key, version, correlation, client, peer, body });
    }
    let header = RequestHeader::decode(&mut frame, key.request_header_version(version));
    let header = header.map_err(|error| garbled(key, version, &error))?;
    let client = header.client_id.unwrap_or_default();
    Ok(Call { key, version, correlation, client, peer, body: frame })
}

/// Words for a request that doesn't decode.
pub(crate) fn garbled(key: ApiKey, version: i16, error: &impl std::fmt::Display) -> Closed {
    Closed::Garbled { key, version, reason: error.to_string() }
}

async fn write(
    node: &Arc<Node>,
    mut stream: OwnedWriteHalf,
    mut work: mpsc::Receiver<Work>,
) -> Result<(), Closed> {
    let mut out = BytesMut::new();
    while let Some(work) = work.recv().await {
        out.clear();
        out.extend_from_slice(&[0; 4]);
        match work {
            Work::Produced(call, produced) => produce::answer(&call, produced, &mut out).await?,
            Work::Call(call) => api::answer(node, &call, &mut out).await?,
        }
        if out.len() > 4 {
            let length = (out.len() - 4) as u32;
            out[..4].copy_from_slice(&length.to_be_bytes());
            stream.write_all(&out).await?;
        }
        if out.capacity() > BUFFER_BYTES {
            out = BytesMut::new();
        }
    }
    Ok(())
}
