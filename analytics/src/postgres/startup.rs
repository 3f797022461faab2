//! Coming in: encryption, then proof, then what a client is told about the server.
//!
//! **Invariant:** whatever goes wrong before a client has come in ends its connection.

use std::{collections::HashMap, fmt, sync::Arc};

use async_trait::async_trait;
use futures::Sink;
use pgwire::{
    api::{
        ClientInfo,
        auth::{
            AuthDriver, ServerParameterProvider, StartupHandler, driver::AuthOutcome,
            protocol_negotiation, save_startup_parameters_to_metadata,
        },
    },
    error::{ErrorInfo, PgWireError, PgWireResult},
    messages::{PgWireBackendMessage, PgWireFrontendMessage},
};

use super::{CONNECTIONS, access::Access, scram::Scram};

/// What a client is told about the server.
#[derive(Debug)]
pub(super) struct Parameters;

impl ServerParameterProvider for Parameters {
    fn server_parameters<C: ClientInfo>(&self, client: &C) -> Option<HashMap<String, String>> {
        let client = client.metadata();
        let told = [
            ("server_version", super::VERSION),
            ("server_encoding", "UTF8"),
            ("client_encoding", "UTF8"),
            ("DateStyle", "ISO, YMD"),
            ("IntervalStyle", "postgres"),
            ("TimeZone", "UTC"),
            ("integer_datetimes", "on"),
            ("standard_conforming_strings", "on"),
            ("default_transaction_read_only", "on"),
            ("in_hot_standby", "off"),
            ("is_superuser", "off"),
            ("application_name", client.get("application_name").map_or("", String::as_str)),
            ("session_authorization", client.get("user").map_or("", String::as_str)),
        ];
        Some(told.map(|(name, value)| (name.to_owned(), value.to_owned())).into())
    }
}

/// Lets clients in by the rules of [`Access`].
pub(super) struct Door {
    access: Arc<Access>,
    driver: AuthDriver<Parameters>,
    is_full: bool,
}

impl Door {
    /// A door for one connection, which is told that it is one too many where there is no room.
    pub(super) fn new(access: Arc<Access>, is_full: bool) -> Door {
        Door { access, driver: AuthDriver::new(Parameters), is_full }
    }

    async fn admit<C>(&self, client: &mut C, message: PgWireFrontendMessage) -> PgWireResult<()>
    where
        C: ClientInfo + Sink<PgWireBackendMessage> + Unpin + Send + Sync,
        C::Error: fmt::Debug,
        PgWireError: From<<C as Sink<PgWireBackendMessage>>::Error>,
    {
        let outcome = match message {
            PgWireFrontendMessage::Startup(startup) => {
                protocol_negotiation(client, &startup).await?;
                save_startup_parameters_to_metadata(client, &startup);
                if self.access.tls().is_some() && !client.is_secure() {
                    return Err(fatal(
                        "28000",
                        "only encrypted connections are served: sslmode=require",
                    ));
                }
                if self.is_full {
                    let what = format!("too many connections: {CONNECTIONS} at a time are served");
                    return Err(fatal("53300", what));
                }
                let Some(users) = self.access.users() else {
                    return self.driver.complete_authentication(client, None).await;
                };
                let proof = Box::new(Scram::new(users));
                self.driver.begin_authentication(client, proof).await?
            }
            PgWireFrontendMessage::PasswordMessageFamily(message) => {
                self.driver.advance_authentication(client, message).await?
            }
            _ => return Err(fatal("08P01", "nothing can be asked before coming in")),
        };
        match outcome {
            AuthOutcome::InProgress => Ok(()),
            AuthOutcome::Authenticated { final_message, .. } => {
                self.driver.complete_authentication(client, final_message).await
            }
        }
    }
}

#[async_trait]
impl StartupHandler for Door {
    async fn on_startup<C>(
        &self,
        client: &mut C,
        message: PgWireFrontendMessage,
    ) -> PgWireResult<()>
    where
        C: ClientInfo + Sink<PgWireBackendMessage> + Unpin + Send + Sync,
        C::Error: fmt::Debug,
        PgWireError: From<<C as Sink<PgWireBackendMessage>>::Error>,
    {
        // An error that isn't fatal would leave the connection as if its client had come in.
        self.admit(client, message).await.map_err(|cause| match cause {
            PgWireError::InvalidPassword(_) => {
                let user = client.metadata().get("user").map_or("", String::as_str);
                fatal("28P01", format!("password authentication failed for user {user:?}"))
            }
            other if other.is_fatal() => other,
            other => fatal(other.code(), other.to_string()),
        })
    }
}

fn fatal(code: &str, what: impl Into<String>) -> PgWireError {
    PgWireError::UserError(Box::new(ErrorInfo::new("FATAL".into(), code.into(), what.into())))
}
