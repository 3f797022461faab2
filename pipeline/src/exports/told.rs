//! Exports for table `exports` of SQL: read from the journal by each query, and nothing is written.

use std::future::ready;

use aion_analytics::{
    control::{
        Told,
        exports::{Export, Made},
    },
    exports::time::parse,
};
use aion_schemas::log::Timestamp;
use aion_sinks::{sink::SinkError, store::Store};
use futures::{
    StreamExt, TryStreamExt,
    stream::{self, BoxStream},
};

use super::{
    journal::{Job, Journal},
    service::Settings,
};

/// So many are read at a time: each is some small objects.
const AT_A_TIME: usize = 8;

/// All exports of a place. Nothing is made there, and it need not exist.
pub(crate) fn of(settings: &Settings) -> Result<Told<Export>, SinkError> {
    let journal = Journal::new(Store::open(&settings.url, &settings.options)?);
    Ok(Told::new(move || read(journal.clone())))
}

fn read(journal: Journal) -> BoxStream<'static, Result<Export, String>> {
    let listed = journal.clone();
    stream::once(async move { listed.ids().await })
        .map_ok(|ids| stream::iter(ids.into_iter().map(Ok::<_, SinkError>)))
        .try_flatten()
        .map_ok(move |id| seen(journal.clone(), id))
        .try_buffered(AT_A_TIME)
        // One that was removed meanwhile is none.
        .try_filter_map(|job| ready(Ok(job.as_ref().map(export))))
        .map_err(|cause| cause.to_string())
        .boxed()
}

async fn seen(journal: Journal, id: String) -> Result<Option<Job>, SinkError> {
    journal.seen(&id).await
}

fn export(job: &Job) -> Export {
    let (last, order) = (job.last(), &job.order);
    Export {
        id: job.id.clone(),
        dataset: order.request.dataset.clone(),
        state: last.state.word(),
        attempt: last.attempt,
        source: job.source().to_owned(),
        start: time(&order.request.interval.start),
        end: time(&order.request.interval.end),
        // Its keys are texts.
        request: serde_json::to_string(&order.request).unwrap_or_default(),
        made: last.result.as_ref().map(|result| Made {
            rows: result.rows,
            files: result.files,
            bytes: result.bytes,
            gaps: result.gaps,
            digest: result.digest.clone(),
        }),
        error: last.error.as_ref().map(|fault| (fault.code.clone(), fault.message.clone())),
        requested_at: time(&order.created_at),
        finished_at: last.state.is_over().then(|| time(&last.at)).flatten(),
    }
}

/// A time that was checked when it was written.
fn time(text: &str) -> Option<Timestamp> {
    parse(text).ok()
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test may panic")]

    use std::collections::BTreeSet;

    use aion_analytics::exports::request::{Asked, Interval, Layout};

    use super::*;
    use crate::exports::journal::{Entry, Fault, Order, Outcome, State, entry};

    const ID: &str = "exp_0123456789abcdef0123";

    fn order() -> Order {
        let (start, end) = ("2026-11-23T05:00:00Z".to_owned(), "2026-11-23T06:00:00Z".to_owned());
        Order {
            request: Asked {
                dataset: "decisions".to_owned(),
                interval: Interval { start, end },
                lateness_s: None,
                horizon_s: None,
                tiers: None,
                deduplicate: false,
                split: None,
                layout: Layout::default(),
            },
            canonical: serde_json::json!({}),
            topic_ids: BTreeSet::new(),
            source: "lake".to_owned(),
            created_at: "2026-11-23T07:00:00Z".to_owned(),
        }
    }

    async fn all(settings: &Settings) -> Vec<Export> {
        of(settings).unwrap().rows().try_collect().await.unwrap()
    }

    #[tokio::test]
    async fn what_the_journal_has_is_told_and_nothing_is_written() {
        let folder = tempfile::tempdir().unwrap();
        let place = folder.path().join("exports");
        let settings = Settings::at(url::Url::from_directory_path(&place).unwrap());
        assert!(all(&settings).await.is_empty(), "nobody has asked for any");
        assert!(!place.exists());

        let journal = Journal::new(Store::open(&settings.url, &settings.options).unwrap());
        journal.order(ID, &order()).await.unwrap();
        let first = place.join(format!("_jobs/{ID}/000001.json"));
        std::fs::remove_file(&first).unwrap();
        let queued = all(&settings).await;
        assert_eq!((queued[0].state, queued[0].attempt), ("queued", 0), "who asked has died");
        assert!(!first.exists());
        assert_eq!((&queued[0].made, &queued[0].finished_at), (&None, &None));
        let start = parse("2026-11-23T05:00:00Z").unwrap();
        assert_eq!((queued[0].id.as_str(), queued[0].start), (ID, Some(start)));

        journal.job(ID).await.unwrap();
        let at = "2026-11-23T07:01:00Z".to_owned();
        let fault = Fault {
            code: "expired".to_owned(),
            message: "it is gone".to_owned(),
            retryable: false,
        };
        let failed = Entry { error: Some(fault), ..entry(State::Failed, 1, at.clone()) };
        assert!(journal.put(ID, 2, &failed).await.unwrap());
        let told = &all(&settings).await[0];
        assert_eq!(told.error, Some(("expired".to_owned(), "it is gone".to_owned())));
        assert_eq!((told.state, told.finished_at), ("failed", parse(&at).ok()));

        let (rows, bytes, files, gaps) = (9, 100, 2, 1);
        let outcome = Outcome { rows, bytes, files, gaps, digest: "d".to_owned() };
        let made = Entry { result: Some(outcome), ..entry(State::Succeeded, 2, at) };
        assert!(journal.put(ID, 3, &made).await.unwrap());
        let told = &all(&settings).await[0];
        let wanted = Made { rows, files, bytes, gaps, digest: "d".to_owned() };
        assert_eq!((told.made.as_ref(), told.error.as_ref()), (Some(&wanted), None));
        assert_eq!((told.state, told.attempt), ("succeeded", 2));
    }

    #[tokio::test]
    async fn an_export_that_is_being_removed_is_whole_or_gone() {
        let folder = tempfile::tempdir().unwrap();
        let settings = Settings::at(url::Url::from_directory_path(folder.path()).unwrap());
        let journal = Journal::new(Store::open(&settings.url, &settings.options).unwrap());
        for _ in 0..20 {
            journal.order(ID, &order()).await.unwrap();
            for (number, state) in [(2, State::Running), (3, State::Succeeded)] {
                let at = "2026-11-23T07:01:00Z".to_owned();
                assert!(journal.put(ID, number, &entry(state, 1, at)).await.unwrap());
            }
            let looking = async {
                while let Some(job) = journal.seen(ID).await.unwrap() {
                    assert_eq!(job.last().state, State::Succeeded);
                }
            };
            let (removed, ()) = tokio::join!(journal.forget(ID), looking);
            removed.unwrap();
        }
    }

    #[tokio::test]
    async fn a_state_that_cannot_be_read_is_an_error() {
        let folder = tempfile::tempdir().unwrap();
        let settings = Settings::at(url::Url::from_directory_path(folder.path()).unwrap());
        let journal = Journal::new(Store::open(&settings.url, &settings.options).unwrap());
        journal.order(ID, &order()).await.unwrap();
        std::fs::write(folder.path().join(format!("_jobs/{ID}/000001.json")), "{").unwrap();
        let told: Result<Vec<Export>, String> = of(&settings).unwrap().rows().try_collect().await;
        assert!(told.unwrap_err().contains("000001.json"));
    }
}
