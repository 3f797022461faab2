//! Schemas that records are waiting for: asked for by a task of their own, noted by the reader thread.
//!
//! **Invariant:** the reader thread never waits here. A record whose schema isn't known holds up its own
//! partition alone, which stands there until the answer.
//! **Invariant:** an id means one schema for as long as the process lives, whatever the registry says later.

use std::sync::Arc;

use aion_schemas::{
    decode::{Reason, SchemaId, Writer},
    schema::Schema,
};
use tokio::sync::mpsc::{self, Receiver, Sender};

use super::book::{Answer, Book};
use crate::job::schemas::{Found, WriterSchemas};

/// Questions that may be out at a time: each partition wants one schema at most.
const QUESTIONS: usize = 64;

/// The reader thread's end.
pub(super) struct Schemas {
    pub(super) book: Book,
    questions: Sender<SchemaId>,
    answers: Receiver<(SchemaId, Answer)>,
}

impl Schemas {
    /// Starts the task that asks; it ends when this is dropped. Must be called within a runtime.
    pub(super) fn start(
        source: Arc<dyn WriterSchemas>,
        contract: Arc<Schema>,
        book: Book,
    ) -> Schemas {
        let (questions, mut wanted) = mpsc::channel::<SchemaId>(QUESTIONS);
        let (answers_in, answers) = mpsc::channel(QUESTIONS);
        tokio::spawn(async move {
            while let Some(id) = wanted.recv().await {
                // Side by side: one that takes its time must not hold up the others.
                let (source, contract) = (Arc::clone(&source), Arc::clone(&contract));
                let answers = answers_in.clone();
                tokio::spawn(async move {
                    let answer = answer(source.look_up(id).await, id, &contract);
                    // Nobody may listen any more.
                    drop(answers.send((id, answer)).await);
                });
            }
        });
        Schemas { book, questions, answers }
    }

    /// Takes what has been answered, and asks what is due.
    pub(super) fn tend(&mut self, now: std::time::Instant) {
        while let Ok((id, answer)) = self.answers.try_recv() {
            self.book.answered(id, answer, now);
        }
        while let Some(id) = self.book.next(now) {
            if self.questions.try_send(id).is_err() {
                self.book.answered(id, Answer::Unknown("too many are asked for".to_owned()), now);
                return;
            }
        }
    }
}

fn answer(found: Found, id: SchemaId, contract: &Schema) -> Answer {
    let id = id.0;
    match found {
        Found::Schema { text, references } => {
            Answer::Lasting(Writer::new(contract, &text, &references))
        }
        Found::Unusable(why) => {
            let why = format!("schema id {id}: {why}");
            Answer::Lasting(Writer::refused(Reason::IncompatibleSchema, why))
        }
        Found::Foreign(why) => {
            let why = format!("schema id {id}: {why}");
            Answer::Passing(Writer::refused(Reason::ForeignSchema, why))
        }
        Found::Refused(why) => {
            let why = format!("schema id {id}: {why}");
            Answer::Passing(Writer::refused(Reason::UnknownSchema, why))
        }
        Found::Missing(why) => Answer::Missing(why),
        Found::Unknown(why) => Answer::Unknown(why),
    }
}
