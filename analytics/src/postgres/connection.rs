//! A connection from its first byte: encrypted where that is asked for, then message by message.
//!
//! **Invariant:** nothing that came before encryption is read as if it had come after it: the request for it is
//! taken from the socket alone, and the rest stays there for the handshake.

use std::{io, sync::Arc, time::Duration};

use futures::StreamExt;
use pgwire::{
    api::{ClientInfo, DefaultClient, PgWireConnectionState, PgWireServerHandlers},
    messages::{PgWireFrontendMessage, startup::SslRequest},
    tokio::{
        process_socket,
        server::{PgWireMessageServerCodec, process_error, process_message},
    },
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::{Instant, timeout_at},
};
use tokio_rustls::{TlsAcceptor, server::TlsStream};
use tokio_util::codec::Framed;

use super::{
    Connection,
    questions::{Extended, Prepared},
};

/// How long a client may take to come in.
const STARTUP: Duration = Duration::from_mins(1);
/// How long to wait for the rest of a message of eight bytes.
const PAUSE: Duration = Duration::from_millis(10);
/// The first byte of a TLS handshake.
const HANDSHAKE: u8 = 0x16;
/// The request for encryption: its length, its number.
const REQUEST: usize = 8;

/// Serves one client to its end.
pub(super) async fn serve(
    mut socket: TcpStream,
    tls: Option<TlsAcceptor>,
    connection: Connection,
) -> io::Result<()> {
    socket.set_nodelay(true)?;
    let deadline = Instant::now() + STARTUP;
    if let Some(tls) = tls
        && timeout_at(deadline, wants_tls(&mut socket)).await??
    {
        let from = socket.peer_addr()?;
        let socket = timeout_at(deadline, tls.accept(socket)).await??;
        let codec = PgWireMessageServerCodec::new(DefaultClient::new(from, true));
        return converse(Framed::new(socket, codec), deadline, connection).await;
    }
    // One that isn't encrypted is refused at the door where it has to be; requests to cancel come so.
    process_socket(socket, None, connection).await
}

/// Whether the client begins with TLS, or asked for it and was told to go on. What else it sent stays unread.
async fn wants_tls(socket: &mut TcpStream) -> io::Result<bool> {
    loop {
        let mut first = [0; REQUEST];
        let seen = socket.peek(&mut first).await?;
        if seen == 0 || first[0] == HANDSHAKE {
            return Ok(seen > 0);
        }
        if seen < REQUEST {
            tokio::time::sleep(PAUSE).await;
            continue;
        }
        let number = i32::from_be_bytes([first[4], first[5], first[6], first[7]]);
        match number {
            SslRequest::BODY_MAGIC_NUMBER => {
                socket.read_exact(&mut first).await?;
                socket.write_all(b"S").await?;
                return Ok(true);
            }
            GSS => {
                socket.read_exact(&mut first).await?;
                socket.write_all(b"N").await?;
            }
            _ => return Ok(false),
        }
    }
}

/// The number of a request for encryption by GSSAPI, which isn't offered.
const GSS: i32 = 80_877_104;

/// Answers message after message of an encrypted client.
async fn converse(
    mut socket: Framed<TlsStream<TcpStream>, PgWireMessageServerCodec<Prepared>>,
    deadline: Instant,
    handlers: Connection,
) -> io::Result<()> {
    socket.set_state(PgWireConnectionState::AwaitingStartup);
    loop {
        let is_in = !matches!(
            socket.state(),
            PgWireConnectionState::AwaitingStartup
                | PgWireConnectionState::AuthenticationInProgress
        );
        let message =
            if is_in { socket.next().await } else { timeout_at(deadline, socket.next()).await? };
        let Some(message) = message.transpose()? else { return Ok(()) };
        if matches!(message, PgWireFrontendMessage::Terminate(_)) {
            return Ok(());
        }
        let is_last = matches!(message, PgWireFrontendMessage::CancelRequest(_));
        let is_extended = message.is_extended_query();
        let answered = process_message(
            message,
            &mut socket,
            Arc::clone(&handlers.door),
            Arc::clone(&handlers.questions),
            Arc::new(Extended(Arc::clone(&handlers.questions))),
            handlers.copy_handler(),
            Arc::clone(&handlers.cancels),
        );
        if let Err(cause) = answered.await {
            let is_fatal = cause.is_fatal();
            process_error(&mut socket, cause, is_extended).await?;
            if is_fatal {
                return Ok(());
            }
        }
        if is_last {
            return Ok(());
        }
    }
}
