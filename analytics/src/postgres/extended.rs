//! Prepared statements, and the portals that they run in.

use std::{fmt::Debug, sync::Arc};

use async_trait::async_trait;
use datafusion::scalar::ScalarValue;
use futures::{Sink, SinkExt};
use pgwire::{
    api::{
        ClientInfo, ClientPortalStore, DEFAULT_NAME, PgWireConnectionState, Type,
        portal::{Format, Portal, PortalExecutionState},
        query::{
            ExtendedQueryHandler, send_execution_response, send_partial_query_response,
            send_ready_for_query,
        },
        results::{Response, Tag},
        store::{Entry, PortalStore},
    },
    error::{PgWireError, PgWireResult},
    messages::{
        PgWireBackendMessage,
        extendedquery::{Execute, Sync as Synchronize},
        response::{EmptyQueryResponse, TransactionStatus},
    },
};

use super::{
    errors,
    questions::{Prepared, Questions, finish},
    types::value,
};
use crate::parameters::Parameters;

/// The handler of prepared statements; [`Questions`] parses for it.
#[derive(Debug)]
pub(super) struct Extended(pub(super) Arc<Questions>);

#[async_trait]
impl ExtendedQueryHandler for Extended {
    type Statement = Prepared;
    type QueryParser = Questions;

    fn query_parser(&self) -> Arc<Questions> {
        Arc::clone(&self.0)
    }

    /// Sends rows as they come, as simple statements do: what pgwire does of itself collects all of them first, and makes
    /// room for as many as the client says.
    async fn on_execute<C>(&self, client: &mut C, message: Execute) -> PgWireResult<()>
    where
        C: ClientInfo + ClientPortalStore + Sink<PgWireBackendMessage> + Unpin + Send + Sync,
        C::PortalStore: PortalStore<Statement = Prepared>,
        C::Error: Debug,
        PgWireError: From<<C as Sink<PgWireBackendMessage>>::Error>,
    {
        client.set_state(PgWireConnectionState::QueryInProgress);
        let name = message.name.as_deref().unwrap_or(DEFAULT_NAME);
        // None, or less, is all of them.
        let most = usize::try_from(message.max_rows).unwrap_or(0);
        match client.portal_store().get_portal(name) {
            Some(Entry::Value(portal)) => {
                let executed = self.execute(client, &portal, most).await;
                if executed.is_err() {
                    // What broke off isn't gone on with.
                    client.portal_store().rm_portal(name);
                }
                executed?;
            }
            Some(Entry::Empty) => {
                let empty = EmptyQueryResponse::new();
                client.feed(PgWireBackendMessage::EmptyQueryResponse(empty)).await?;
            }
            None => return Err(PgWireError::PortalNotFound(name.to_owned())),
        }
        client.set_state(PgWireConnectionState::ReadyForQuery);
        Ok(())
    }

    /// Portals end with their transaction, and with them the queries that wait for their clients to go on.
    async fn on_sync<C>(&self, client: &mut C, _: Synchronize) -> PgWireResult<()>
    where
        C: ClientInfo + ClientPortalStore + Sink<PgWireBackendMessage> + Unpin + Send + Sync,
        C::PortalStore: PortalStore<Statement = Prepared>,
        C::Error: Debug,
        PgWireError: From<<C as Sink<PgWireBackendMessage>>::Error>,
    {
        let transaction = client.transaction_status();
        if transaction != TransactionStatus::Transaction {
            client.portal_store().clear_portals();
        }
        send_ready_for_query(client, transaction).await
    }

    async fn do_query<C>(
        &self,
        client: &mut C,
        portal: &Portal<Prepared>,
        _: usize,
    ) -> PgWireResult<Response>
    where
        C: ClientInfo + ClientPortalStore + Sink<PgWireBackendMessage> + Unpin + Send + Sync,
        C::PortalStore: PortalStore<Statement = Prepared>,
        C::Error: Debug,
        PgWireError: From<<C as Sink<PgWireBackendMessage>>::Error>,
    {
        let place = self.0.cancels.place(client);
        let statement = &portal.statement.statement;
        let parameters = bound(portal, &statement.parameters)?;
        let format = &portal.result_column_format;
        self.0.run(&statement.sql, Parameters::by_place(parameters), format, &place.stop).await
    }
}

impl Extended {
    /// Begins a portal, or goes on where it was, and sends so many rows at most; all of them where that is 0.
    async fn execute<C>(
        &self,
        client: &mut C,
        portal: &Portal<Prepared>,
        most: usize,
    ) -> PgWireResult<()>
    where
        C: ClientInfo + ClientPortalStore + Sink<PgWireBackendMessage> + Unpin + Send + Sync,
        C::PortalStore: PortalStore<Statement = Prepared>,
        C::Error: Debug,
        PgWireError: From<<C as Sink<PgWireBackendMessage>>::Error>,
    {
        let state = portal.state();
        let mut state = state.lock().await;
        let before = std::mem::take(&mut *state);
        let mut rows = match before {
            PortalExecutionState::Suspended(rows) => rows,
            PortalExecutionState::Initial => {
                let response = self.do_query(client, portal, most).await?;
                match response {
                    Response::Query(rows) => rows,
                    other => {
                        let mut transaction = client.transaction_status();
                        finish(client, other, &mut transaction).await?;
                        client.set_transaction_status(transaction);
                        return Ok(());
                    }
                }
            }
            PortalExecutionState::Finished => {
                *state = PortalExecutionState::Finished;
                return send_execution_response(client, Tag::new("SELECT").with_rows(0)).await;
            }
        };
        let is_suspended = send_partial_query_response(client, &mut rows, most).await?;
        *state = if is_suspended {
            PortalExecutionState::Suspended(rows)
        } else {
            PortalExecutionState::Finished
        };
        Ok(())
    }
}

/// The values of a portal's parameters.
fn bound(portal: &Portal<Prepared>, types: &[Type]) -> PgWireResult<Vec<ScalarValue>> {
    if portal.parameters.len() != types.len() {
        let (given, wanted) = (portal.parameters.len(), types.len());
        let what = format!("{given} parameters were given, the statement has {wanted}");
        return Err(errors::user("08P01", what));
    }
    let read = |(at, kind): (usize, &Type)| {
        let format = match &portal.parameter_format {
            Format::Individual(codes) if at >= codes.len() => Format::UnifiedText.format_for(at),
            format => format.format_for(at),
        };
        let bytes = portal.parameters[at].as_deref();
        value(kind, format, bytes)
            .map_err(|cause| errors::user("22P02", format!("parameter ${}: {cause}", at + 1)))
    };
    types.iter().enumerate().map(read).collect()
}
