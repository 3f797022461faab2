//! `/metrics` and `/metrics/platform`: text that Prometheus reads, compressed where it takes that.
//!
//! **Invariant:** a page of any size is made on a thread for such work: neither jobs nor other requests wait for it,
//! and of each page one is made at a time.

use std::{io::Write, sync::Arc};

use axum::{
    Router,
    extract::State,
    http::{HeaderMap, StatusCode, header},
    response::{IntoResponse, Response},
    routing::get,
};
use flate2::{Compression, write::GzEncoder};
use tokio::sync::Semaphore;

use crate::metrics::Metrics;

/// Below this compressing costs more than it saves.
const WORTH_BYTES: usize = 1_400;

/// The pages.
pub(super) fn routes(metrics: &Arc<Metrics>) -> Router {
    let page = |of| Page { metrics: Arc::clone(metrics), of, turn: Arc::new(Semaphore::new(1)) };
    Router::new()
        .route("/metrics", get(answer).with_state(page(Metrics::encode)))
        .route("/metrics/platform", get(answer).with_state(page(|all| Ok(all.platform()))))
}

#[derive(Clone)]
struct Page {
    metrics: Arc<Metrics>,
    of: fn(&Metrics) -> prometheus::Result<String>,
    turn: Arc<Semaphore>,
}

async fn answer(State(page): State<Page>, headers: HeaderMap) -> Response {
    let is_compressed = takes_gzip(&headers);
    let _turn = page.turn.acquire().await;
    let made = tokio::task::spawn_blocking(move || {
        let text = (page.of)(&page.metrics).map_err(|cause| cause.to_string())?;
        if !is_compressed || text.len() < WORTH_BYTES {
            return Ok((text.into_bytes(), false));
        }
        let mut out = GzEncoder::new(Vec::with_capacity(text.len() / 8), Compression::fast());
        let written = out.write_all(text.as_bytes()).and_then(|()| out.finish());
        written.map(|bytes| (bytes, true)).map_err(|cause| cause.to_string())
    });
    let kind = (header::CONTENT_TYPE, prometheus::TEXT_FORMAT);
    match made.await.unwrap_or_else(|cause| Err(cause.to_string())) {
        Ok((text, false)) => ([kind], text).into_response(),
        Ok((bytes, true)) => ([kind, (header::CONTENT_ENCODING, "gzip")], bytes).into_response(),
        Err(cause) => (StatusCode::INTERNAL_SERVER_ERROR, format!("{cause}\n")).into_response(),
    }
}

/// Whether the client says that it takes gzip, and not with a weight of 0.
fn takes_gzip(headers: &HeaderMap) -> bool {
    let accepted = headers.get_all(header::ACCEPT_ENCODING).iter();
    let mut codings =
        accepted.filter_map(|value| value.to_str().ok()).flat_map(|all| all.split(','));
    codings.any(|coding| {
        let mut parts = coding.split(';').map(str::trim);
        let is_gzip = parts.next().is_some_and(|name| name.eq_ignore_ascii_case("gzip"));
        let weight = parts.find_map(|part| part.strip_prefix("q=")?.parse::<f64>().ok());
        is_gzip && weight != Some(0.0)
    })
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderValue;

    use super::*;

    #[test]
    fn gzip_is_for_those_who_take_it() {
        let cases = [
            ("gzip", true),
            ("deflate, GZIP;q=0.5", true),
            ("gzip;q=0", false),
            ("gzip; q=0.0, br", false),
            ("br", false),
            ("", false),
        ];
        for (text, wanted) in cases {
            let mut headers = HeaderMap::new();
            headers.insert(header::ACCEPT_ENCODING, HeaderValue::from_static(text));
            assert_eq!(takes_gzip(&headers), wanted, "{text}");
        }
        assert!(!takes_gzip(&HeaderMap::new()));
    }
}
