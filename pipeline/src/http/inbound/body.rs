//! The body of a command, before anything is known of who sends it: small, whole, in time, and with room for it.

use std::{net::IpAddr, time::Duration};

use axum::{
    body::Body,
    http::{HeaderMap, HeaderValue, StatusCode, header},
};
use futures::StreamExt;
use tokio::time::timeout;

use super::No;
use crate::{
    http::body::{TOO_SLOW, too_long},
    inbound::senders::{Room, Senders},
};

/// The longest body.
const MAX_BODY_BYTES: usize = 256 << 10;
/// How long it may take to come.
const BODY: Duration = Duration::from_secs(10);

/// Why a body isn't there.
enum Uncollected {
    /// It is longer than it may be, or broke off.
    Long,
    /// Those that are there take all the room, of everybody's or of this address.
    Crowded,
}

/// The body as it came, with the room that it takes.
pub(super) async fn read<'a>(
    from: (&'a Senders, IpAddr),
    headers: &HeaderMap,
    body: Body,
) -> Result<(Vec<u8>, Room<'a>), No> {
    let text = |name| headers.get(name).map(HeaderValue::as_bytes);
    let kind = text(header::CONTENT_TYPE).unwrap_or_default();
    let is_json = kind.get(..16).is_some_and(|kind| kind.eq_ignore_ascii_case(b"application/json"))
        && kind.get(16).is_none_or(|next| *next == b';' || *next == b' ');
    if !is_json || headers.contains_key(header::CONTENT_ENCODING) {
        let detail = "Content-Type: application/json is wanted, without Content-Encoding";
        return Err(No::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, detail));
    }
    match timeout(BODY, collect(from, body)).await {
        Ok(Ok(body)) => Ok(body),
        Ok(Err(Uncollected::Long)) => {
            Err(No::new(StatusCode::PAYLOAD_TOO_LARGE, too_long(MAX_BODY_BYTES)))
        }
        Ok(Err(Uncollected::Crowded)) => {
            let detail = "too many requests are being read at this moment";
            Err(No::later(StatusCode::SERVICE_UNAVAILABLE, detail, 1))
        }
        Err(_) => Err(No::new(StatusCode::REQUEST_TIMEOUT, TOO_SLOW)),
    }
}

async fn collect(
    (senders, peer): (&Senders, IpAddr),
    body: Body,
) -> Result<(Vec<u8>, Room<'_>), Uncollected> {
    let mut chunks = body.into_data_stream();
    let mut all = Vec::new();
    let mut room = senders.room(peer);
    while let Some(chunk) = chunks.next().await {
        let chunk = chunk.map_err(|_| Uncollected::Long)?;
        if all.len() + chunk.len() > MAX_BODY_BYTES {
            return Err(Uncollected::Long);
        }
        if !room.grow(chunk.len()) {
            return Err(Uncollected::Crowded);
        }
        all.extend_from_slice(&chunk);
    }
    Ok((all, room))
}
