//! The answer to a query: its columns at once, its rows as they come.
//!
//! **Invariant:** an answer that ends without an error is whole: the last message says so, and a
//! query that dies without it is an error.
//! **Invariant:** a query ends in its time, also where nobody takes its rows: its turn and its memory are others' then. It ends
//! with its engine too.

use std::{
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
    task::{Context, Poll, ready},
};

use arrow::{datatypes::SchemaRef, record_batch::RecordBatch};
use datafusion::{
    common::tree_node::{Transformed, TreeNode},
    error::Result as PlanResult,
    execution::SendableRecordBatchStream,
    physical_plan::{ExecutionPlan, coop::CooperativeExec, execute_stream},
};
use futures::{Stream, StreamExt};
use tokio::{
    runtime::Handle,
    sync::{OwnedSemaphorePermit, mpsc, oneshot},
    task::JoinHandle,
};

use super::{
    Description,
    allowed::{Allowed, End},
    query::Query,
    repeated::searched_once,
    watched::Until,
};
use crate::{
    error::Error,
    memory::{Limits, guarded, of_rows},
};

/// Batches that wait for whoever asked; the query waits beyond that.
const BATCHES_WAITING: usize = 2;

/// The rows that a query gives, as a stream of record batches. Dropping it stops the query.
#[derive(Debug)]
pub struct Answer {
    schema: SchemaRef,
    waiting: Arc<Waiting>,
    allowed: Allowed,
    /// Of whoever reads it, from when nothing is there to be read.
    late: Option<End>,
    ended: bool,
    _running: Running,
}

#[derive(Debug)]
pub(super) enum Message {
    Rows(RecordBatch),
    Failed(Error),
    Done,
}

/// What waits for whoever asked. The query knows it too, to take rows back that nobody reads.
#[derive(Debug)]
struct Waiting(Mutex<mpsc::Receiver<Message>>);

impl Waiting {
    fn messages(&self) -> MutexGuard<'_, mpsc::Receiver<Message>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn clear(&self) {
        let mut messages = self.messages();
        while messages.try_recv().is_ok() {}
    }
}

/// A task that ends with its owner.
#[derive(Debug)]
struct Running(JoinHandle<()>);

impl Drop for Running {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl Answer {
    /// The columns of the rows.
    pub fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    /// Until when it may take.
    pub fn allowed(&self) -> Allowed {
        self.allowed.clone()
    }
}

impl Stream for Answer {
    type Item = Result<RecordBatch, Error>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        if self.ended {
            return Poll::Ready(None);
        }
        let message = self.waiting.messages().poll_recv(context);
        let item = match message {
            Poll::Ready(Some(Message::Rows(rows))) => return Poll::Ready(Some(Ok(rows))),
            Poll::Ready(Some(Message::Done)) => None,
            Poll::Ready(Some(Message::Failed(error))) => Some(Err(error)),
            Poll::Ready(None) => Some(Err(Error::Internal("its thread panicked".into()))),
            // Its thread may be kept by a call, and not be there to say so.
            Poll::Pending => {
                let Answer { late, allowed, .. } = &mut *self;
                let late = late.get_or_insert_with(|| allowed.end());
                Some(Err(ready!(Pin::new(late).poll(context))))
            }
        };
        self.ended = true;
        Poll::Ready(item)
    }
}

/// Looks at a statement on the threads of `handle`.
pub(super) async fn describe(handle: &Handle, query: Query) -> Result<Description, Error> {
    let allowed = Allowed::by(query.bounds, &query.stopping);
    let within = allowed.clone();
    let (described, description) = oneshot::channel();
    let _running = Running(handle.spawn(async move {
        let work = async {
            let _turn = turn(&query).await?;
            query.describe().await
        };
        // Whoever asked may be gone; then this task is being aborted too.
        drop(described.send(within.wait(work).await.flatten()));
    }));
    allowed.wait(description).await?.map_err(|_| panicked())?
}

fn panicked() -> Error {
    Error::Internal("its planner panicked".into())
}

/// Runs a query on the threads of `handle`; returns when its first rows can be asked for.
pub(super) async fn start(handle: &Handle, query: Query) -> Result<Answer, Error> {
    let allowed = Allowed::by(query.bounds, &query.stopping);
    let (planned, schema) = oneshot::channel();
    let (rows, waiting) = mpsc::channel(BATCHES_WAITING);
    let waiting = Arc::new(Waiting(Mutex::new(waiting)));
    // Not held by the query: where the answer is dropped, the query finds its channel closed.
    let read = Arc::downgrade(&waiting);
    let running = Running(handle.spawn(run(query, allowed.clone(), planned, rows, read)));
    let schema = allowed.wait(schema).await?.map_err(|_| panicked())??;
    Ok(Answer { schema, waiting, allowed, late: None, ended: false, _running: running })
}

async fn run(
    query: Query,
    allowed: Allowed,
    planned: oneshot::Sender<Result<SchemaRef, Error>>,
    rows: mpsc::Sender<Message>,
    waiting: Weak<Waiting>,
) {
    let until = Until { allowed: allowed.clone(), client: rows.clone() };
    let begun = allowed.wait(begin(&query, &until)).await.flatten();
    // Whoever asked may be gone; then this task is being aborted too.
    let (stream, turn) = match begun {
        Ok(begun) => begun,
        Err(error) => return drop(planned.send(Err(error))),
    };
    if planned.send(Ok(stream.schema())).is_err() {
        return;
    }
    let passed = allowed.wait(pass_on(stream, &query, &rows)).await.flatten();
    let Err(error) = passed else { return };
    drop((query, turn));
    // It takes the place of what waits, which may be all that there is room for. Nobody is left to hear it when this fails.
    if let Some(waiting) = waiting.upgrade() {
        waiting.clear();
        rows.try_send(Message::Failed(error)).ok();
    }
}

async fn turn(query: &Query) -> Result<OwnedSemaphorePermit, Error> {
    let turn = Arc::clone(&query.turns).acquire_owned().await;
    turn.map_err(|_| Error::Stopping)
}

async fn begin(
    query: &Query,
    until: &Until,
) -> Result<(SendableRecordBatchStream, OwnedSemaphorePermit), Error> {
    let turn = turn(query).await?;
    let explain = |cause| query.explain(cause, None);
    let (plan, context) = query.physical(until).await?;
    let plan = searched_once(plan).map_err(explain)?;
    let plan = query.failures.told_by(plan).map_err(explain)?;
    let plan = yielding(plan, until).map_err(explain)?;
    let plan = guarded(plan, Limits::of(query.bounds.memory_bytes)).map_err(explain)?;
    let rows = execute_stream(plan, context).map_err(explain)?;
    Ok((rows, turn))
}

/// Has every join let others run after some batches, and look up while it compares. A few rows become many there, and
/// what takes them all without giving any would never look up: neither its deadline nor its client could stop it, and its
/// thread would be nobody else's.
fn yielding(plan: Arc<dyn ExecutionPlan>, until: &Until) -> PlanResult<Arc<dyn ExecutionPlan>> {
    let wrapped = plan.transform_up(|node| {
        if !node.name().ends_with("JoinExec") {
            return Ok(Transformed::no(node));
        }
        let join = until.watched(node)?.data;
        Ok(Transformed::yes(Arc::new(CooperativeExec::new(join)) as _))
    });
    wrapped.map(|wrapped| wrapped.data)
}

/// Passes all rows on, and that these are all.
async fn pass_on(
    mut stream: SendableRecordBatchStream,
    query: &Query,
    rows: &mpsc::Sender<Message>,
) -> Result<(), Error> {
    let limits = Limits::of(query.bounds.memory_bytes);
    while let Some(batch) = stream.next().await {
        let batch = batch.map_err(|cause| query.explain(cause, None))?;
        for piece in pieces(&batch, &limits).map_err(|cause| query.explain(cause, None))? {
            if rows.send(Message::Rows(piece)).await.is_err() {
                return Ok(());
            }
        }
    }
    // Nobody is left to hear it when this fails.
    rows.send(Message::Done).await.ok();
    Ok(())
}

/// Rows as they are sent on: as many at once as their length allows. Whoever asked writes them down some times over.
fn pieces(batch: &RecordBatch, limits: &Limits) -> PlanResult<Vec<RecordBatch>> {
    let (rows, bytes) = (batch.num_rows(), of_rows(batch));
    if bytes <= limits.piece_bytes {
        return Ok(vec![batch.clone()]);
    }
    if rows == 1 {
        return if bytes > limits.row_bytes {
            Err(limits.too_long(bytes))
        } else {
            Ok(vec![batch.clone()])
        };
    }
    let mut halves = pieces(&batch.slice(0, rows / 2), limits)?;
    halves.extend(pieces(&batch.slice(rows / 2, rows - rows / 2), limits)?);
    Ok(halves)
}
