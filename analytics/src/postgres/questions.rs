//! Statements of one connection and their answers; [`extended`](super::extended) keeps those that are prepared.
//!
//! **Invariant:** whatever a client sends goes through the engine's own check of plans, or is one of
//! [`commands`](super::commands): nothing here can change anything.

use std::{fmt::Debug, sync::Arc};

use arrow::{
    datatypes::{Schema, SchemaRef},
    record_batch::RecordBatch,
};
use async_trait::async_trait;
use futures::{Sink, SinkExt, Stream, StreamExt, TryStreamExt, stream};
use pgwire::{
    api::{
        ClientInfo, ClientPortalStore, PgWireConnectionState, Type,
        portal::Format,
        query::{
            SimpleQueryHandler, send_execution_response, send_query_response, send_ready_for_query,
        },
        results::{FieldInfo, QueryResponse, Response, Tag},
        stmt::QueryParser,
        store::PortalStore,
    },
    error::{PgWireError, PgWireResult},
    messages::{
        PgWireBackendMessage,
        data::DataRow,
        response::{EmptyQueryResponse, TransactionStatus},
        simplequery::Query,
    },
};
use tokio::sync::Notify;

use super::{
    cancel::Cancels,
    catalog,
    commands::{self, Command},
    errors,
    kept::{Kept, Kind, Room},
    rows,
    types::{null, of_parameter},
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
    pub(super) kept: Kept,
}

/// A statement that was looked at and not run.
#[derive(Clone, Debug)]
pub(super) struct Prepared {
    pub(super) sql: String,
    pub(super) parameters: Vec<Type>,
    columns: SchemaRef,
}

impl Prepared {
    /// What it takes.
    pub(super) fn bytes(&self) -> usize {
        let parameters = self.parameters.len() * size_of::<Type>();
        self.sql.len() + parameters + self.columns.fields().size()
    }
}

impl Questions {
    /// Answers one connection from an engine.
    pub(super) fn new(engine: Arc<Engine>, cancels: Arc<Cancels>, room: Room) -> Questions {
        Questions { engine, cancels, kept: Kept::new(room) }
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
    pub(super) async fn run<C>(
        &self,
        client: &C,
        sql: &str,
        parameters: Parameters,
        format: &Format,
    ) -> PgWireResult<Response>
    where
        C: ClientInfo + ClientPortalStore + Sync,
        C::PortalStore: PortalStore,
    {
        if let Some(done) = self.done(client.portal_store(), commands::of(sql), format)? {
            return Ok(done);
        }
        let stop = Arc::clone(&self.cancels.place(client).stop);
        let sql = catalog::rewritten(sql);
        let mut stopped = Box::pin(stop.notified_owned());
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

    /// Does what is about the session; `None` where it is a question.
    fn done(
        &self,
        store: &impl PortalStore,
        command: Command,
        format: &Format,
    ) -> PgWireResult<Option<Response>> {
        let response = match command {
            Command::Ask => return Ok(None),
            Command::Refuse(state, what) => return Err(errors::user(state, what)),
            Command::Begin => Response::TransactionStart(Tag::new("BEGIN")),
            Command::End(tag) => {
                self.kept.forget_all(store, Kind::Portal);
                Response::TransactionEnd(Tag::new(tag))
            }
            Command::Done(tag) => Response::Execution(Tag::new(tag)),
            Command::Deallocate(name) => {
                if !self.kept.forget(store, Kind::Statement, &name) {
                    let what = format!("there is no prepared statement {name:?}");
                    return Err(errors::user("26000", what));
                }
                Response::Execution(Tag::new("DEALLOCATE"))
            }
            Command::DeallocateAll => {
                self.kept.forget_all(store, Kind::Statement);
                Response::Execution(Tag::new("DEALLOCATE ALL"))
            }
            Command::Close(name) => {
                if !self.kept.forget(store, Kind::Portal, &name) {
                    let what = format!("cursor {name:?} does not exist");
                    return Err(errors::user("34000", what));
                }
                Response::Execution(Tag::new("CLOSE CURSOR"))
            }
            Command::CloseAll => {
                self.kept.forget_all(store, Kind::Portal);
                Response::Execution(Tag::new("CLOSE CURSOR ALL"))
            }
            Command::DiscardAll => {
                self.kept.forget_all(store, Kind::Portal);
                self.kept.forget_all(store, Kind::Statement);
                Response::Execution(Tag::new("DISCARD ALL"))
            }
            Command::Show { name, value } => shown(&name, value, format),
        };
        Ok(Some(response))
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
        let mut transaction = client.transaction_status();
        let statements: Vec<&str> = statements::split(&query.query).all().collect();
        if statements.is_empty() {
            client
                .feed(PgWireBackendMessage::EmptyQueryResponse(EmptyQueryResponse::new()))
                .await?;
        }
        for sql in statements {
            let none = Parameters::none();
            match self.run(client, sql, none, &Format::UnifiedText).await? {
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
        Ok(vec![self.run(client, query, Parameters::none(), &Format::UnifiedText).await?])
    }
}

/// Sends what has no rows.
pub(super) async fn finish<C>(
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
