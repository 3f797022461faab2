//! A connection from its first byte: encrypted where that is asked for, then message by message.
//!
//! **Invariant:** nothing that came before encryption is read as if it had come after it: the request for it is
//! taken from the socket alone, and the rest stays there for the handshake.
//! **Invariant:** no message is held that is longer than a statement may be: what a client announces beyond that is
//! read past.
//! **Invariant:** a client that takes nothing of an answer is cut off in the time that it is allowed, encrypted or not, and what
//! makes the answer ends with it. One that has vanished loses its place as soon, whether something is on its way to it or not: the
//! system finds out.
//!
//! While one message is answered, the socket's other handle tells when the client is gone: nobody reads from it then.

use std::{io, sync::Arc, time::Duration};

use bytes::{Buf, BytesMut};
use pgwire::{
    api::{ClientInfo, DefaultClient, NoopHandler, PgWireConnectionState},
    error::{PgWireError, PgWireResult},
    messages::{PgWireFrontendMessage, startup::SslRequest},
    tokio::server::{PgWireMessageServerCodec, process_error, process_message},
};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, Interest, copy, sink},
    net::TcpStream,
    time::{Instant, timeout_at},
};
use tokio_rustls::TlsAcceptor;
use tokio_util::codec::{Decoder, Framed};

use super::{Connection, STATEMENT_BYTES, errors, extended::Extended, questions::Prepared};
use crate::{
    alive,
    unread::{self, Unread},
};

/// How long a client may take to come in.
const STARTUP: Duration = Duration::from_mins(1);
/// The same for one that is refused then.
const REFUSAL: Duration = Duration::from_secs(5);
/// How long to wait for the rest of a message of eight bytes.
const PAUSE: Duration = Duration::from_millis(10);
/// The first byte of a TLS handshake.
const HANDSHAKE: u8 = 0x16;
/// The request for encryption: its length, its number.
const REQUEST: usize = 8;
/// The message with a simple statement.
const QUERY: u8 = b'Q';
/// Room for what is read at once.
const READ_BYTES: usize = 8 << 10;

/// A client that messages come from.
type Client<S> = Framed<S, PgWireMessageServerCodec<Prepared>>;

/// What came from a client.
enum Received {
    Message(PgWireFrontendMessage),
    /// A message of this kind that was read past.
    TooLong(u8),
    End,
}

/// Serves one client to its end.
pub(super) async fn serve(
    mut socket: TcpStream,
    tls: Option<TlsAcceptor>,
    connection: Connection,
) -> io::Result<()> {
    socket.set_nodelay(true)?;
    alive::watch(&socket);
    let from = socket.peer_addr()?;
    let deadline = Instant::now() + if connection.is_full { REFUSAL } else { STARTUP };
    let is_tls = timeout_at(deadline, wants_tls(&mut socket, tls.is_some())).await??;
    let (socket, watched) = twice(socket)?;
    // Below the encryption, which takes more than the client does.
    let socket = Unread::new(socket, connection.patience);
    let client = DefaultClient::new(from, is_tls);
    match tls {
        Some(tls) if is_tls => {
            let socket = timeout_at(deadline, tls.accept(socket)).await??;
            converse(socket, &watched, client, deadline, connection).await
        }
        // It began with TLS, and there is none.
        None if is_tls => Ok(()),
        // One that isn't encrypted is refused at the door where it has to be; requests to cancel come so.
        _ => converse(socket, &watched, client, deadline, connection).await,
    }
}

/// Two handles of one socket.
fn twice(socket: TcpStream) -> io::Result<(TcpStream, TcpStream)> {
    let socket = socket.into_std()?;
    let other = socket.try_clone()?;
    Ok((TcpStream::from_std(socket)?, TcpStream::from_std(other)?))
}

/// Waits until the other side sends nothing more. What it has sent stays unread.
async fn gone(socket: &TcpStream) {
    loop {
        match socket.ready(Interest::READABLE).await {
            Ok(ready) if !ready.is_read_closed() => {
                // More messages, for later: that they are there is forgotten until there is other news.
                let unread = || Err::<(), _>(io::ErrorKind::WouldBlock.into());
                drop(socket.try_io(Interest::READABLE, unread));
            }
            _ => return,
        }
    }
}

/// Whether the client begins with TLS, or asked for it and was told to go on. What else it sent stays unread.
async fn wants_tls(socket: &mut TcpStream, is_offered: bool) -> io::Result<bool> {
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
            SslRequest::BODY_MAGIC_NUMBER if is_offered => {
                socket.read_exact(&mut first).await?;
                socket.write_all(b"S").await?;
                return Ok(true);
            }
            SslRequest::BODY_MAGIC_NUMBER | GSS => {
                socket.read_exact(&mut first).await?;
                socket.write_all(b"N").await?;
            }
            _ => return Ok(false),
        }
    }
}

/// The number of a request for encryption by GSSAPI, which isn't offered.
const GSS: i32 = 80_877_104;

/// Answers message after message.
async fn converse<S>(
    socket: S,
    watched: &TcpStream,
    client: DefaultClient<Prepared>,
    deadline: Instant,
    handlers: Connection,
) -> io::Result<()>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + Sync + 'static,
{
    let mut client = Framed::new(socket, PgWireMessageServerCodec::new(client));
    client.set_state(PgWireConnectionState::AwaitingStartup);
    let mut inbox = BytesMut::new();
    loop {
        let is_in = !matches!(
            client.state(),
            PgWireConnectionState::AwaitingStartup
                | PgWireConnectionState::AuthenticationInProgress
        );
        let received = async {
            let received = receive(&mut client, &mut inbox);
            if is_in {
                return received.await;
            }
            timeout_at(deadline, received).await.unwrap_or_else(|late| Err(late.into()))
        };
        let received = tokio::select! {
            // The end of what was refused has come as a rule: a client that is told so is ready for the last word.
            biased;
            received = received => received?,
            () = handlers.questions.stopped() => {
                return process_error(&mut client, errors::stopping(), true).await;
            }
        };
        let (answered, is_last, is_extended) = match received {
            Received::End | Received::Message(PgWireFrontendMessage::Terminate(_)) => return Ok(()),
            Received::TooLong(_) if !is_in => return Ok(()),
            // After an error nothing is answered up to the next synchronization.
            Received::TooLong(_)
                if matches!(client.state(), PgWireConnectionState::AwaitingSync) =>
            {
                continue;
            }
            Received::TooLong(kind) => (Err(errors::too_long()), false, kind != QUERY),
            Received::Message(message) => {
                let is_last = matches!(message, PgWireFrontendMessage::CancelRequest(_));
                let is_extended = message.is_extended_query();
                let answered = tokio::select! {
                    // What is answered at once, as requests to cancel are, is answered to who is gone too.
                    biased;
                    answered = answer(message, &mut client, &handlers) => answered,
                    () = gone(watched) => return Ok(()),
                };
                (answered, is_last, is_extended)
            }
        };
        match answered {
            Ok(()) => {}
            // Who takes nothing isn't told of it either.
            Err(PgWireError::IoError(cause)) if unread::is_why(&cause) => return Err(cause),
            Err(cause) => {
                let is_fatal = cause.is_fatal();
                // After the last word nothing more is ready.
                process_error(&mut client, cause, is_extended || is_fatal).await?;
                if is_fatal {
                    return Ok(());
                }
            }
        }
        if is_last {
            return Ok(());
        }
    }
}

/// Has one message answered by whom it concerns.
async fn answer<S>(
    message: PgWireFrontendMessage,
    client: &mut Client<S>,
    handlers: &Connection,
) -> PgWireResult<()>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + Sync + 'static,
{
    process_message(
        message,
        client,
        Arc::clone(&handlers.door),
        Arc::clone(&handlers.questions),
        Arc::new(Extended(Arc::clone(&handlers.questions))),
        Arc::new(NoopHandler),
        Arc::clone(&handlers.cancels),
    )
    .await
    .map_err(errors::known)
}

/// The next message, as soon as there is all of it.
async fn receive<S>(client: &mut Client<S>, inbox: &mut BytesMut) -> io::Result<Received>
where
    S: AsyncRead + Unpin + 'static,
{
    // Only the first is without its kind, and what that may be is short.
    let has_kind = !matches!(client.state(), PgWireConnectionState::AwaitingStartup);
    loop {
        if has_kind
            && let Some((kind, length)) = announced(inbox)
            && length > STATEMENT_BYTES
        {
            read_past(client.get_mut(), inbox, length + 1).await?;
            return Ok(Received::TooLong(kind));
        }
        if let Some(message) = client.codec_mut().decode(inbox)? {
            return Ok(Received::Message(message));
        }
        inbox.reserve(READ_BYTES);
        if client.get_mut().read_buf(inbox).await? == 0 {
            return Ok(Received::End);
        }
    }
}

/// The kind of the message that begins here, and its length without the byte for the kind.
fn announced(inbox: &[u8]) -> Option<(u8, usize)> {
    let (kind, rest) = inbox.split_first()?;
    let length = i32::from_be_bytes(*rest.first_chunk()?);
    Some((*kind, usize::try_from(length).ok()?))
}

/// Forgets so many bytes, here and yet to come.
async fn read_past<S>(socket: &mut S, inbox: &mut BytesMut, count: usize) -> io::Result<()>
where
    S: AsyncRead + Unpin,
{
    let here = count.min(inbox.len());
    inbox.advance(here);
    let rest = (count - here) as u64;
    if copy(&mut socket.take(rest), &mut sink()).await? < rest {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_announces_its_length() {
        assert_eq!(announced(b"Q\0\0\0\x09select"), Some((QUERY, 9)));
        // What isn't there yet, and what can't be, is for the decoder.
        for none in [&b""[..], b"Q\0\0\0", b"Q\xff\xff\xff\xff"] {
            assert_eq!(announced(none), None);
        }
    }
}
