//! Statements of one connection, simple or prepared, and their answers.
//!
//! **Invariant:** whatever a client sends goes through the engine's own check of plans, or is one of
//! [`commands`](super::commands): nothing here can change anything.

use std::{fmt::Debug, sync::Arc};

use arrow::{
    datatypes::{Schema, SchemaRef},
    record_batch::RecordBatch,
};
use async_trait::async_trait;
use datafusion::scalar::ScalarValue;
use futures::{Sink, SinkExt, Stream, StreamExt, TryStreamExt, stream};
use pgwire::{
    api::{
        ClientInfo, ClientPortalStore, DEFAULT_NAME, PgWireConnectionState, Type,
        portal::{Format, Portal, PortalExecutionState},
        query::{
            ExtendedQueryHandler, SimpleQueryHandler, send_execution_response,
            send_partial_query_response, send_query_response, send_ready_for_query,
        },
        results::{FieldInfo, QueryResponse, Response, Tag},
        stmt::QueryParser,
        store::{Entry, PortalStore},
    },
    error::{PgWireError, PgWireResult},
    messages::{
        PgWireBackendMessage,
        data::DataRow,
        extendedquery::{Execute, Sync as Synchronize},
        response::{EmptyQueryResponse, TransactionStatus},
        simplequery::Query,
    },
};
use tokio::sync::Notify;

use super::{
    cancel::Cancels,
    catalog,
    commands::{self, Command},
    errors, rows,
    types::{null, of_parameter, value},
};
use crate::{
    engine::{Answer, Description, Engine},
    error::Error,
    parameters::Parameters,
    statements,
};

/// Answers statements.
#[derive(Debug)]
pub(super) struct Questions {
    engine: Arc<Engine>,
    cancels: Arc<Cancels>,
}

/// A statement that was looked at and not run.
#[derive(Clone, Debug)]
pub(super) struct Prepared {
    sql: String,
    parameters: Vec<Type>,
    columns: SchemaRef,
}

impl Questions {
    /// Answers from an engine.
    pub(super) fn new(engine: Arc<Engine>, cancels: Arc<Cancels>) -> Questions {
        Questions { engine, cancels }
    }

    /// Waits until nothing is answered any more.
    pub(super) async fn stopped(&self) {
        self.engine.stopped().await;
    }

    /// What a statement gives and takes. It waits for a turn as a question does, and can be stopped as one.
    async fn described(
        &self,
        sql: &str,
        parameters: Parameters,
        stop: &Notify,
    ) -> PgWireResult<Description> {
        let work = async {
            match self.engine.describe(sql, parameters).await {
                Err(error) if goes_by_postgres(&error, sql) => {
                    self.engine.describe(catalog::NOTHING, Parameters::none()).await
                }
                described => described,
            }
        };
        let described = tokio::select! {
            described = work => described,
            () = stop.notified() => return Err(errors::cancelled()),
        };
        described.map_err(|error| errors::of(&error))
    }

    /// Runs one statement.
    async fn run(
        &self,
        sql: &str,
        parameters: Parameters,
        format: &Format,
        stop: &Arc<Notify>,
    ) -> PgWireResult<Response> {
        match commands::of(sql) {
            Command::Begin => return Ok(Response::TransactionStart(Tag::new("BEGIN"))),
            Command::End(tag) => return Ok(Response::TransactionEnd(Tag::new(tag))),
            Command::Done(tag) => return Ok(Response::Execution(Tag::new(tag))),
            Command::Refuse(state, what) => return Err(errors::user(state, what)),
            Command::Show { name, value } => return Ok(shown(&name, value, format)),
            Command::Ask => {}
        }
        let sql = catalog::rewritten(sql);
        let stopped = Box::pin(Arc::clone(stop).notified_owned());
        let mut stopped = stopped;
        let work = async {
            match self.engine.query_with(&sql, parameters).await {
                Err(error) if goes_by_postgres(&error, &sql) => {
                    self.engine.query_with(catalog::NOTHING, Parameters::none()).await
                }
                answer => answer,
            }
        };
        let answer = tokio::select! {
            answer = work => answer,
            () = &mut stopped => return Err(errors::cancelled()),
        };
        let answer = answer.map_err(|error| errors::of(&error))?;
        let fields = Arc::new(rows::fields(answer.schema(), format));
        let rows = sent(Arc::clone(&self.engine), answer, Arc::clone(&fields), stopped);
        Ok(Response::Query(QueryResponse::new(fields, rows)))
    }
}

/// Whether it is a question about what isn't here, in words that only PostgreSQL understands.
fn goes_by_postgres(error: &Error, sql: &str) -> bool {
    let is_of_plan = matches!(
        error,
        Error::UnknownTable { .. }
            | Error::UnknownColumn { .. }
            | Error::Syntax(_)
            | Error::Query(_)
            | Error::Unsupported(_)
    );
    is_of_plan && catalog::is_about_nothing(sql)
}

/// The rows of an answer, until its client stops it.
fn sent(
    engine: Arc<Engine>,
    answer: Answer,
    fields: Arc<Vec<FieldInfo>>,
    stopped: impl Future<Output = ()> + Send + Unpin + 'static,
) -> impl Stream<Item = PgWireResult<DataRow>> + Send + 'static {
    let batches = stream::try_unfold((answer, stopped), |(mut answer, mut stopped)| async {
        let next = tokio::select! {
            next = answer.next() => next,
            () = &mut stopped => return Err(errors::cancelled()),
        };
        let batch = next.transpose().map_err(|error| errors::of(&error))?;
        Ok(batch.map(|batch| (batch, (answer, stopped))))
    });
    let rows = batches
        .and_then(move |batch| written(Arc::clone(&engine), batch, Arc::clone(&fields)))
        .map_ok(|rows| stream::iter(rows.into_iter().map(Ok)));
    rows.try_flatten()
}

/// The rows of a batch, written down by a thread of the engine: the one that serves connections is the jobs' too. The next
/// batch isn't before these rows were sent.
async fn written(
    engine: Arc<Engine>,
    batch: RecordBatch,
    fields: Arc<Vec<FieldInfo>>,
) -> PgWireResult<Vec<DataRow>> {
    let rows = engine.aside(move || rows::rows(&batch, &fields)).await;
    let rows = rows.map_err(|error| errors::of(&error))?;
    rows.map_err(|cause| errors::user("22003", cause.to_string()))
}

/// A row of one text.
fn shown(name: &str, value: String, format: &Format) -> Response {
    use arrow::array::StringArray;
    let columns = Arc::new(text_column(name));
    let fields = Arc::new(rows::fields(&columns, format));
    let batch = RecordBatch::try_new(columns, vec![Arc::new(StringArray::from(vec![value]))]);
    let rows = batch.and_then(|batch| rows::rows(&batch, &fields)).unwrap_or_default();
    let mut response = QueryResponse::new(fields, stream::iter(rows.into_iter().map(Ok)));
    response.set_command_tag("SHOW");
    Response::Query(response)
}

fn text_column(name: &str) -> Schema {
    use arrow::datatypes::{DataType, Field};
    Schema::new(vec![Field::new(name, DataType::Utf8, false)])
}

#[async_trait]
impl SimpleQueryHandler for Questions {
    /// Statement after statement, each with its rows, until one fails.
    async fn on_query<C>(&self, client: &mut C, query: Query) -> PgWireResult<()>
    where
        C: ClientInfo + ClientPortalStore + Sink<PgWireBackendMessage> + Unpin + Send + Sync,
        C::PortalStore: PortalStore,
        C::Error: Debug,
        PgWireError: From<<C as Sink<PgWireBackendMessage>>::Error>,
    {
        client.set_state(PgWireConnectionState::QueryInProgress);
        let place = self.cancels.place(client);
        let mut transaction = client.transaction_status();
        let statements: Vec<&str> = statements::split(&query.query).all().collect();
        if statements.is_empty() {
            client
                .feed(PgWireBackendMessage::EmptyQueryResponse(EmptyQueryResponse::new()))
                .await?;
        }
        for sql in statements {
            let none = Parameters::none();
            match self.run(sql, none, &Format::UnifiedText, &place.stop).await? {
                Response::Query(rows) => send_query_response(client, rows, true).await?,
                other => finish(client, other, &mut transaction).await?,
            }
        }
        client.set_state(PgWireConnectionState::ReadyForQuery);
        client.set_transaction_status(transaction);
        send_ready_for_query(client, transaction).await
    }

    async fn do_query<C>(&self, client: &mut C, query: &str) -> PgWireResult<Vec<Response>>
    where
        C: ClientInfo + ClientPortalStore + Sink<PgWireBackendMessage> + Unpin + Send + Sync,
        C::PortalStore: PortalStore,
        C::Error: Debug,
        PgWireError: From<<C as Sink<PgWireBackendMessage>>::Error>,
    {
        let place = self.cancels.place(client);
        let one = self.run(query, Parameters::none(), &Format::UnifiedText, &place.stop).await?;
        Ok(vec![one])
    }
}

/// Sends what has no rows.
async fn finish<C>(
    client: &mut C,
    response: Response,
    transaction: &mut TransactionStatus,
) -> PgWireResult<()>
where
    C: ClientInfo + ClientPortalStore + Sink<PgWireBackendMessage> + Unpin + Send + Sync,
    C::PortalStore: PortalStore,
    C::Error: Debug,
    PgWireError: From<<C as Sink<PgWireBackendMessage>>::Error>,
{
    match response {
        Response::TransactionStart(tag) => {
            *transaction = transaction.to_in_transaction_state();
            send_execution_response(client, tag).await
        }
        Response::TransactionEnd(tag) => {
            *transaction = transaction.to_idle_state();
            client.portal_store().clear_portals();
            send_execution_response(client, tag).await
        }
        Response::Execution(tag) => send_execution_response(client, tag).await,
        _ => Ok(()),
    }
}

#[async_trait]
impl QueryParser for Questions {
    type Statement = Prepared;

    async fn parse_sql<C>(
        &self,
        client: &C,
        sql: &str,
        types: &[Option<Type>],
    ) -> PgWireResult<Option<Prepared>>
    where
        C: ClientInfo + Unpin + Send + Sync,
    {
        let mut statements = statements::split(sql).all();
        let (Some(one), rest) = (statements.next(), statements.next()) else { return Ok(None) };
        if rest.is_some() {
            return Err(errors::user("42601", "one statement at a time can be prepared"));
        }
        let prepared = |columns, parameters| Prepared { sql: one.to_owned(), parameters, columns };
        match commands::of(one) {
            Command::Ask => {}
            Command::Show { name, .. } => {
                return Ok(Some(prepared(Arc::new(text_column(&name)), Vec::new())));
            }
            Command::Refuse(state, what) => return Err(errors::user(state, what)),
            _ => return Ok(Some(prepared(Arc::new(Schema::empty()), Vec::new()))),
        }
        let sql = catalog::rewritten(one);
        let place = self.cancels.place(client);
        let described = self.described(&sql, Parameters::none(), &place.stop).await?;
        let parameter = |(at, wanted): (usize, &Option<_>)| {
            let given = types.get(at).cloned().flatten().filter(|kind| *kind != Type::UNKNOWN);
            given.unwrap_or_else(|| of_parameter(wanted.as_ref()))
        };
        let parameters: Vec<Type> =
            described.parameters.iter().enumerate().map(parameter).collect();
        if parameters.is_empty() {
            return Ok(Some(prepared(described.columns, parameters)));
        }
        // The columns are told before the values come. `size + $1` is a double when the client sends one, whatever the
        // planner would have asked for; a binary column under another type would be another number.
        let nulls = Parameters::by_place(parameters.iter().map(null).collect());
        let described = self.described(&sql, nulls, &place.stop).await?;
        Ok(Some(prepared(described.columns, parameters)))
    }

    fn get_parameter_types(&self, statement: &Prepared) -> PgWireResult<Vec<Type>> {
        Ok(statement.parameters.clone())
    }

    fn get_result_schema(
        &self,
        statement: &Prepared,
        format: Option<&Format>,
    ) -> PgWireResult<Vec<FieldInfo>> {
        Ok(rows::fields(&statement.columns, format.unwrap_or(&Format::UnifiedText)))
    }
}

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
