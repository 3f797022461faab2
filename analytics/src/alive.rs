//! A connection whose peer is asked whether it is still there.
//!
//! A machine that loses its power or its network ends no connection. What it had would stay for ever where nothing is on its way
//! to it, since only what isn't taken can tell ([`unread`](crate::unread)): a client that is idle, or that waits for an answer. So the
//! system asks (TCP keepalive). While something is on its way it asks nothing, and sends that again instead, for a quarter of an hour or
//! more: on Linux it is told for how long (`TCP_USER_TIMEOUT`). Where no answer comes it breaks the connection off, and reading from
//! it fails then.
//!
//! Who is there and has no room for what the system has yet to send makes some in that time, or is cut off there too.

use std::time::Duration;

use socket2::{SockRef, TcpKeepalive};
use tokio::net::TcpStream;

/// How long a connection may be quiet before the system asks.
const QUIET: Duration = Duration::from_mins(4);
/// How long an answer may take, each time.
const PAUSE: Duration = Duration::from_secs(15);
/// How often it asks in vain: all in all as long as an answer may wait to be taken.
const TRIES: u32 = 4;

/// Has the system find out when whoever is at the other end has vanished.
pub fn watch(socket: &TcpStream) {
    let asks = TcpKeepalive::new().with_time(QUIET).with_interval(PAUSE).with_retries(TRIES);
    let socket = SockRef::from(socket);
    let watched = socket.set_tcp_keepalive(&asks);
    // Linux goes by it, not by the number of tries, also where it asks.
    #[cfg(target_os = "linux")]
    let watched = watched.and_then(|()| socket.set_tcp_user_timeout(Some(crate::unread::UNREAD)));
    if let Err(cause) = watched {
        tracing::debug!("nobody asks whether a client is still there: {cause}");
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test may panic")]

    use tokio::net::TcpListener;

    use super::*;
    use crate::unread::UNREAD;

    #[tokio::test]
    async fn who_vanishes_is_missed_as_soon_as_who_takes_nothing() {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let _client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let (socket, _) = listener.accept().await.unwrap();
        assert!(!SockRef::from(&socket).keepalive().unwrap(), "nobody asks by itself");
        watch(&socket);
        let watched = SockRef::from(&socket);
        assert!(watched.keepalive().unwrap());
        let (quiet, pause) = (watched.tcp_keepalive_time(), watched.tcp_keepalive_interval());
        let tries = watched.tcp_keepalive_retries().unwrap();
        assert_eq!(quiet.unwrap() + pause.unwrap() * tries, UNREAD);
        #[cfg(target_os = "linux")]
        assert_eq!(watched.tcp_user_timeout().unwrap(), Some(UNREAD));
    }
}
