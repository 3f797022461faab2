//! Who comes in: everybody on this machine.

use std::{collections::HashMap, fmt};

use async_trait::async_trait;
use futures::Sink;
use pgwire::{
    api::{
        ClientInfo, PidSecretKeyGenerator, RandomPidSecretKeyGenerator,
        auth::{
            ServerParameterProvider, StartupHandler, finish_authentication, protocol_negotiation,
            save_startup_parameters_to_metadata,
        },
    },
    error::{PgWireError, PgWireResult},
    messages::{PgWireBackendMessage, PgWireFrontendMessage},
};

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

/// Lets everybody in: on addresses of this machine only.
#[derive(Debug, Default)]
pub(super) struct Everybody {
    numbers: RandomPidSecretKeyGenerator,
}

#[async_trait]
impl StartupHandler for Everybody {
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
        let PgWireFrontendMessage::Startup(startup) = message else { return Ok(()) };
        protocol_negotiation(client, &startup).await?;
        save_startup_parameters_to_metadata(client, &startup);
        let (number, secret) = self.numbers.generate(client);
        client.set_pid_and_secret_key(number, secret);
        finish_authentication(client, &Parameters).await
    }
}
