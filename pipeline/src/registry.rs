//! The client of a schema registry: Confluent's REST API, as far as the jobs and `sr-cli` ask.
//!
//! Several URLs are one registry: the next is asked where one gives no answer, and the one that
//! answered last comes first. A call ends within the time-out of each URL, and no answer is read
//! beyond [`ANSWER_BYTES`].
//!
//! **Invariant:** a schema fetched by id is kept for ever: an id means one schema, whatever a
//! registry that was set up anew says later.
//! **Invariant:** "there is no such schema" is believed only in a registry's own words. A proxy's 404
//! page is no answer, or one mistyped URL would make dead letters of a day.

mod compare;
mod error;
mod resolve;
mod settings;
#[cfg(test)]
mod testing;
#[cfg(test)]
mod tests;
pub(crate) mod told;
mod transport;
mod wire;

use aion_schemas::{compatibility::Level, decode::SchemaId};
use serde::de::IgnoredAny;

pub use self::{
    error::Error,
    resolve::WriterSchema,
    settings::{Login, Password, Settings},
    transport::ANSWER_BYTES,
    wire::{Reference, Registered, Schema, SchemaKind, SubjectVersion, Verdict, Version},
};
use self::{
    resolve::Known,
    transport::{Call, Transport},
    wire::{CheckAnswer, ConfigAnswer, ConfigRequest, IdAnswer},
};

/// A registry, asked over HTTP.
#[derive(Debug)]
pub struct Registry {
    transport: Transport,
    known: Known,
}

impl Registry {
    /// Reads the certificates that `settings` names. Asks nothing yet.
    pub fn open(settings: &Settings) -> Result<Registry, Error> {
        Ok(Registry { transport: Transport::open(settings)?, known: Known::default() })
    }

    /// The subjects, in the registry's order; with `deleted`, those too of which only softly deleted
    /// versions are left.
    pub async fn subjects(&self, deleted: bool) -> Result<Vec<String>, Error> {
        self.transport.send(Call::get(&["subjects"]).query("deleted", deleted)).await
    }

    /// The versions of a subject.
    pub async fn versions(&self, subject: &str, deleted: bool) -> Result<Vec<u32>, Error> {
        let call = Call::get(&["subjects", subject, "versions"]);
        self.transport.send(call.query("deleted", deleted)).await
    }

    /// One version of a subject.
    pub async fn version(&self, subject: &str, version: Version) -> Result<Registered, Error> {
        let version = version.to_string();
        self.transport.send(Call::get(&["subjects", subject, "versions", &version])).await
    }

    /// One version of a subject, also where it is softly deleted.
    pub async fn any_version(&self, subject: &str, version: u32) -> Result<Registered, Error> {
        let version = version.to_string();
        let call = Call::get(&["subjects", subject, "versions", &version]);
        self.transport.send(call.query("deleted", true)).await
    }

    /// Registers a schema; the id is that of the same schema where it is registered already.
    pub async fn register(
        &self,
        subject: &str,
        schema: &Schema,
        normalize: bool,
    ) -> Result<SchemaId, Error> {
        let call = Call::post(&["subjects", subject, "versions"], schema);
        let answer: IdAnswer = self.transport.send(call.query("normalize", normalize)).await?;
        Ok(SchemaId(answer.id))
    }

    /// Under which version and id a subject has exactly this schema.
    pub async fn lookup(
        &self,
        subject: &str,
        schema: &Schema,
        normalize: bool,
    ) -> Result<Registered, Error> {
        let call = Call::post(&["subjects", subject], schema);
        self.transport.send(call.query("normalize", normalize)).await
    }

    /// Whether a schema could be registered, by the subject's level; with a version, whether it goes
    /// together with that one.
    pub async fn check(
        &self,
        subject: &str,
        version: Option<Version>,
        schema: &Schema,
    ) -> Result<Verdict, Error> {
        let version = version.map(|version| version.to_string());
        let mut path = vec!["compatibility", "subjects", subject, "versions"];
        path.extend(version.as_deref());
        let call = Call::post(&path, schema).query("verbose", true);
        let answer: CheckAnswer = self.transport.send(call).await?;
        Ok(Verdict { is_compatible: answer.is_compatible, messages: answer.messages })
    }

    /// The level of a subject, [`Error::NotFound`] where it has none of its own; with no subject, the
    /// one that holds there.
    pub async fn level(&self, subject: Option<&str>) -> Result<Level, Error> {
        let answer: ConfigAnswer = self.transport.send(Call::get(&config(subject))).await?;
        Ok(answer.level)
    }

    /// Sets the level of a subject, or the one for all others.
    pub async fn set_level(&self, subject: Option<&str>, level: Level) -> Result<(), Error> {
        let call = Call::put(&config(subject), &ConfigRequest { compatibility: level });
        self.transport.send::<IgnoredAny>(call).await.map(drop)
    }

    /// Takes a subject's own level away.
    pub async fn clear_level(&self, subject: &str) -> Result<(), Error> {
        self.transport.send::<IgnoredAny>(Call::delete(&["config", subject])).await.map(drop)
    }

    /// Deletes a version: softly, so that its id still leads to its schema, or for good, which needs
    /// a soft deletion before.
    pub async fn delete_version(
        &self,
        subject: &str,
        version: Version,
        permanent: bool,
    ) -> Result<u32, Error> {
        let version = version.to_string();
        let call = Call::delete(&["subjects", subject, "versions", &version]);
        self.transport.send(call.query("permanent", permanent)).await
    }

    /// Deletes all versions of a subject, as [`Registry::delete_version`] does one.
    pub async fn delete_subject(&self, subject: &str, permanent: bool) -> Result<Vec<u32>, Error> {
        let call = Call::delete(&["subjects", subject]);
        self.transport.send(call.query("permanent", permanent)).await
    }
}

/// An answer, and nothing where the registry has none.
pub(crate) fn found<T>(answer: Result<T, Error>) -> Result<Option<T>, Error> {
    match answer {
        Ok(found) => Ok(Some(found)),
        Err(Error::NotFound { .. }) => Ok(None),
        Err(error) => Err(error),
    }
}

fn config(subject: Option<&str>) -> Vec<&str> {
    std::iter::once("config").chain(subject).collect()
}
