//! The body of a request, of somebody who was let in: whole, no longer than it may be, and in time.

use std::time::Duration;

use axum::{
    body::{Body, Bytes, to_bytes},
    http::StatusCode,
};
use tokio::time::timeout;

/// How long it may take to come, as long as the head.
const BODY: Duration = Duration::from_secs(30);
/// What is said to who takes longer.
pub(super) const TOO_SLOW: &str = "the body comes too slowly";

/// What is said of a body that is longer than this, or ends before it is whole.
pub(super) fn too_long(most_bytes: usize) -> String {
    let (most, unit) = match most_bytes >> 20 {
        0 => (most_bytes >> 10, "KiB"),
        most => (most, "MiB"),
    };
    format!("the body is cut short, or longer than {most} {unit}")
}

/// A body of at most so many bytes, or the status and the words in its place.
pub(super) async fn read(body: Body, most_bytes: usize) -> Result<Bytes, (StatusCode, String)> {
    read_within(BODY, body, most_bytes).await
}

async fn read_within(
    time: Duration,
    body: Body,
    most_bytes: usize,
) -> Result<Bytes, (StatusCode, String)> {
    match timeout(time, to_bytes(body, most_bytes)).await {
        Ok(Ok(body)) => Ok(body),
        Ok(Err(_)) => Err((StatusCode::PAYLOAD_TOO_LARGE, too_long(most_bytes))),
        Err(_) => Err((StatusCode::REQUEST_TIMEOUT, TOO_SLOW.to_owned())),
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test may panic")]

    use std::{convert::Infallible, io};

    use futures::{StreamExt, stream};

    use super::*;

    const LONG: Duration = Duration::from_mins(1);
    const SHORT: Duration = Duration::from_millis(50);

    #[tokio::test]
    async fn a_body_is_whole_and_in_time_or_an_answer() {
        let half = || stream::iter([Ok::<_, Infallible>(Bytes::from_static(b"half"))]);
        let whole = read_within(LONG, Body::from_stream(half().chain(half())), 8).await;
        assert_eq!(whole.unwrap(), "halfhalf");
        let stopped = Body::from_stream(half().chain(stream::pending()));
        let (status, why) = read_within(SHORT, stopped, 8).await.unwrap_err();
        assert_eq!((status.as_u16(), &*why), (408, TOO_SLOW));
        let long = Body::from_stream(half().chain(half()));
        let (status, why) = read_within(LONG, long, 7).await.unwrap_err();
        assert_eq!(status.as_u16(), 413, "{why}");
        let broken = stream::iter([Ok(Bytes::new()), Err(io::Error::other("cut"))]);
        let (status, why) = read_within(LONG, Body::from_stream(broken), 8).await.unwrap_err();
        assert_eq!(status.as_u16(), 413, "{why}");
    }

    #[test]
    fn the_bound_is_told_in_its_unit() {
        for (bytes, unit) in [(64 << 10, "64 KiB"), (8 << 20, "8 MiB")] {
            assert!(too_long(bytes).ends_with(unit), "{bytes}");
        }
    }
}
