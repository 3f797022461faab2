//! Prepared statements, and the portals that they run in.

use std::{fmt::Debug, sync::Arc};

use async_trait::async_trait;
use bytes::Bytes;
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
        stmt::StoredStatement,
        store::{Entry, PortalStore},
    },
    error::{PgWireError, PgWireResult},
    messages::{
        PgWireBackendMessage,
        extendedquery::{
            Bind, BindComplete, Close, CloseComplete, Execute, Parse, ParseComplete,
            Sync as Synchronize, TARGET_TYPE_BYTE_PORTAL, TARGET_TYPE_BYTE_STATEMENT,
        },
        response::{EmptyQueryResponse, TransactionStatus},
    },
};

use super::{
    errors,
    kept::Kind,
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

    /// As pgwire does of itself, within the bound.
    async fn on_parse<C>(&self, client: &mut C, message: Parse) -> PgWireResult<()>
    where
        C: ClientInfo + ClientPortalStore + Sink<PgWireBackendMessage> + Unpin + Send + Sync,
        C::PortalStore: PortalStore<Statement = Prepared>,
        C::Error: Debug,
        PgWireError: From<<C as Sink<PgWireBackendMessage>>::Error>,
    {
        let name = message.name.as_deref().unwrap_or(DEFAULT_NAME);
        let parsed = StoredStatement::parse(client, &message, self.query_parser()).await?;
        self.0.kept.keep(Kind::Statement, name, parsed.as_ref().map_or(0, bytes_of))?;
        match parsed {
            Some(statement) => client.portal_store().put_statement(Arc::new(statement)),
            None => client.portal_store().put_empty_statement(name),
        }
        client.send(PgWireBackendMessage::ParseComplete(ParseComplete::new())).await?;
        Ok(())
    }

    /// As pgwire does of itself, within the bound.
    async fn on_bind<C>(&self, client: &mut C, message: Bind) -> PgWireResult<()>
    where
        C: ClientInfo + ClientPortalStore + Sink<PgWireBackendMessage> + Unpin + Send + Sync,
        C::PortalStore: PortalStore<Statement = Prepared>,
        C::Error: Debug,
        PgWireError: From<<C as Sink<PgWireBackendMessage>>::Error>,
    {
        let name = message.portal_name.as_deref().unwrap_or(DEFAULT_NAME);
        let statement = message.statement_name.as_deref().unwrap_or(DEFAULT_NAME);
        match client.portal_store().get_statement(statement) {
            Some(Entry::Value(statement)) => {
                // The statement is there as long as the portal is, also when it was closed or its name is another's.
                let bytes = bytes_of(&statement) + bytes_beside(&message);
                let mut portal = Portal::try_new(&message, statement)?;
                self.0.kept.keep(Kind::Portal, name, bytes)?;
                portal.parameters = apart(&message.parameters);
                client.portal_store().put_portal(Arc::new(portal));
            }
            Some(Entry::Empty) if message.parameters.is_empty() => {
                self.0.kept.keep(Kind::Portal, name, 0)?;
                client.portal_store().put_empty_portal(name);
            }
            Some(Entry::Empty) => return Err(miscounted(message.parameters.len(), 0)),
            None => return Err(PgWireError::StatementNotFound(statement.to_owned())),
        }
        client.send(PgWireBackendMessage::BindComplete(BindComplete::new())).await?;
        Ok(())
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
                    self.0.kept.forget(client.portal_store(), Kind::Portal, name);
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

    /// As pgwire does of itself, and makes room.
    async fn on_close<C>(&self, client: &mut C, message: Close) -> PgWireResult<()>
    where
        C: ClientInfo + ClientPortalStore + Sink<PgWireBackendMessage> + Unpin + Send + Sync,
        C::PortalStore: PortalStore<Statement = Prepared>,
        C::Error: Debug,
        PgWireError: From<<C as Sink<PgWireBackendMessage>>::Error>,
    {
        let kind = match message.target_type {
            TARGET_TYPE_BYTE_STATEMENT => Kind::Statement,
            TARGET_TYPE_BYTE_PORTAL => Kind::Portal,
            other => return Err(PgWireError::InvalidTargetType(other)),
        };
        let name = message.name.as_deref().unwrap_or(DEFAULT_NAME);
        self.0.kept.forget(client.portal_store(), kind, name);
        client.send(PgWireBackendMessage::CloseComplete(CloseComplete::new())).await?;
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
            self.0.kept.forget_all(client.portal_store(), Kind::Portal);
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
        let statement = &portal.statement.statement;
        let parameters = bound(portal, &statement.parameters)?;
        let format = &portal.result_column_format;
        self.0.run(client, &statement.sql, Parameters::by_place(parameters), format).await
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
        return Err(miscounted(portal.parameters.len(), types.len()));
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

fn miscounted(given: usize, wanted: usize) -> PgWireError {
    let what = format!("{given} parameters were given, the statement has {wanted}");
    errors::user("08P01", what)
}

/// What a statement takes beside its name.
fn bytes_of(statement: &StoredStatement<Prepared>) -> usize {
    statement.parameter_types.len() * size_of::<Option<Type>>() + statement.statement.bytes()
}

/// What a portal takes beside its name and its statement.
fn bytes_beside(message: &Bind) -> usize {
    let codes = message.parameter_format_codes.len() + message.result_column_format_codes.len();
    let values: usize = message.parameters.iter().flatten().map(Bytes::len).sum();
    codes * size_of::<i16>() + message.parameters.len() * size_of::<Option<Bytes>>() + values
}

/// The values in memory of their own: as they came they hold all that was read together with them.
fn apart(values: &[Option<Bytes>]) -> Vec<Option<Bytes>> {
    let all: Vec<&[u8]> = values.iter().flatten().map(|value| &value[..]).collect();
    let mut all = Bytes::from(all.concat());
    values.iter().map(|value| value.as_ref().map(|value| all.split_to(value.len()))).collect()
}
