//! The registry's paths, and what each asks the store.

use std::{
    collections::HashMap,
    future::Future,
    pin::Pin,
    sync::{Arc, Mutex},
};

use aion_schemas::compatibility::Level;
use axum::{
    Router,
    body::Bytes,
    extract::{DefaultBodyLimit, FromRequest, FromRequestParts, Path, Query, Request},
    http::{StatusCode, header},
    response::{IntoResponse, Response},
    routing::{get, post},
};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use serde_json::{Value, json, value::RawValue};
use tokio::task::spawn_blocking;

use super::{
    refusal::Refusal,
    schema::Schema,
    store::{Registered, Store, Wanted},
};
use crate::flusher::lock;

/// The greatest request: a schema of a megabyte, quoted.
const BODY_BYTES: usize = 2 << 20;
const MEDIA_TYPE: &str = "application/vnd.schemaregistry.v1+json";

type Shared = Arc<Mutex<Store>>;

pub(super) fn routes(store: Shared) -> Router {
    let refuse =
        |status, message: &'static str| move || async move { Refusal::http(status, message) };
    schemas()
        .merge(subjects())
        .merge(settings())
        .fallback(refuse(StatusCode::NOT_FOUND, "HTTP 404 Not Found"))
        .method_not_allowed_fallback(refuse(
            StatusCode::METHOD_NOT_ALLOWED,
            "HTTP 405 Method Not Allowed",
        ))
        .layer(DefaultBodyLimit::max(BODY_BYTES))
        .with_state(store)
}

fn schemas() -> Router<Shared> {
    Router::new()
        .route("/", get(to(|_, _| Ok(json!({})))))
        .route("/schemas/types", get(to(|_, _| Ok(["AVRO"]))))
        .route("/schemas/ids/{id}", get(to(|store, ask| store.schema(ask.id()?).cloned())))
        .route("/schemas/ids/{id}/schema", get(to(|store, ask| raw(store.schema(ask.id()?)?))))
        .route(
            "/schemas/ids/{id}/subjects",
            get(to(|store, ask| {
                let places = store.places(ask.id()?, ask.flag("deleted"))?;
                let mut names: Vec<String> = places.into_iter().map(|one| one.subject).collect();
                names.dedup();
                Ok(names)
            })),
        )
        .route(
            "/schemas/ids/{id}/versions",
            get(to(|store, ask| store.places(ask.id()?, ask.flag("deleted")))),
        )
}

fn subjects() -> Router<Shared> {
    let of_subject = post(to(|store, ask| {
        let schema = ask.schema()?;
        store.lookup(ask.subject(), &schema, ask.flag("normalize"), ask.flag("deleted"))
    }))
    .delete(to(|store, ask| store.delete(ask.subject(), None, ask.flag("permanent"))));
    let of_versions = get(to(|store, ask| store.versions(ask.subject(), ask.flag("deleted"))))
        .post(to(|store, ask| {
            let id = store.register(ask.subject(), ask.schema()?, ask.flag("normalize"))?;
            Ok(json!({ "id": id }))
        }));
    let of_version = get(to(|store, ask| ask.registered(store))).delete(to(|store, ask| {
        let gone = store.delete(ask.subject(), Some(ask.version()?), ask.flag("permanent"))?;
        Ok(gone.first().copied())
    }));
    let users = get(to(|store, ask| store.referred_by(ask.subject(), ask.version()?)));
    Router::new()
        .route("/subjects", get(to(|store, ask| Ok(store.subjects(ask.flag("deleted"))))))
        .route("/subjects/{subject}", of_subject)
        .route("/subjects/{subject}/versions", of_versions)
        .route("/subjects/{subject}/versions/{version}", of_version)
        .route(
            "/subjects/{subject}/versions/{version}/schema",
            get(to(|store, ask| raw(&ask.registered(store)?.schema))),
        )
        .route("/subjects/{subject}/versions/{version}/referencedby", users)
        .route(
            "/compatibility/subjects/{subject}/versions",
            post(to(|store, ask| ask.verdict(store, None))),
        )
        .route(
            "/compatibility/subjects/{subject}/versions/{version}",
            post(to(|store, ask| ask.verdict(store, Some(ask.version()?)))),
        )
}

fn settings() -> Router<Shared> {
    let of_all = get(to(|store, _| Ok(shown(store.level(None)))))
        .put(to(|store, ask| {
            let level = ask.level()?;
            store.set_level(None, Some(level))?;
            Ok(json!({ "compatibility": level }))
        }))
        .delete(to(|store, _| {
            let before = store.level(None);
            store.set_level(None, None)?;
            Ok(shown(before))
        }));
    let of_subject = get(to(|store, ask| {
        let own = store.level(Some(ask.subject()));
        let level = if ask.flag("defaultToGlobal") { own.or(store.level(None)) } else { own };
        level.map(|level| shown(Some(level))).ok_or_else(|| Refusal::no_level(ask.subject()))
    }))
    .put(to(|store, ask| {
        let level = ask.level()?;
        store.set_level(Some(ask.subject().to_owned()), Some(level))?;
        Ok(json!({ "compatibility": level }))
    }))
    .delete(to(|store, ask| {
        let before = store.level(Some(ask.subject()));
        let before = before.ok_or_else(|| Refusal::no_level(ask.subject()))?;
        store.set_level(Some(ask.subject().to_owned()), None)?;
        Ok(shown(Some(before)))
    }));
    let mode_of_subject = get(to(|_, ask| {
        let or_global = ask.flag("defaultToGlobal");
        or_global.then(read_write).ok_or_else(|| Refusal::no_mode(ask.subject()))
    }));
    Router::new()
        .route("/config", of_all)
        .route("/config/{subject}", of_subject)
        .route("/mode", get(to(|_, _| Ok(read_write()))).put(|| async { Refusal::mode() }))
        .route("/mode/{subject}", mode_of_subject.put(|| async { Refusal::mode() }))
}

fn shown(level: Option<Level>) -> Value {
    json!({ "compatibilityLevel": level })
}

fn read_write() -> Value {
    json!({ "mode": "READWRITE" })
}

/// A request, taken apart.
struct Ask {
    store: Shared,
    path: HashMap<String, String>,
    flags: HashMap<String, String>,
    body: Bytes,
}

impl FromRequest<Shared> for Ask {
    type Rejection = Refusal;

    async fn from_request(request: Request, store: &Shared) -> Result<Ask, Refusal> {
        let bad = |why: String| Refusal::http(StatusCode::BAD_REQUEST, why);
        let (mut parts, body) = request.into_parts();
        let path = Option::<Path<HashMap<String, String>>>::from_request_parts(&mut parts, store);
        let path = path
            .await
            .map_err(|cause| bad(cause.body_text()))?
            .map(|path| path.0)
            .unwrap_or_default();
        let flags = Query::try_from_uri(&parts.uri).map_err(|cause| bad(cause.body_text()))?.0;
        let body = Bytes::from_request(Request::from_parts(parts, body), store).await;
        let body = body.map_err(|cause| Refusal::http(cause.status(), cause.body_text()))?;
        Ok(Ask { store: Arc::clone(store), path, flags, body })
    }
}

impl Ask {
    fn subject(&self) -> &str {
        self.path.get("subject").map_or("", String::as_str)
    }

    fn version(&self) -> Result<Wanted, Refusal> {
        let text = self.path.get("version").map_or("", String::as_str);
        match text.parse::<i32>() {
            Ok(-1) => Ok(Wanted::Latest),
            Ok(number @ 1..) => Ok(Wanted::Number(number.unsigned_abs())),
            _ if text == "latest" => Ok(Wanted::Latest),
            _ => Err(Refusal::version(text)),
        }
    }

    fn id(&self) -> Result<u32, Refusal> {
        let text = self.path.get("id").map_or("", String::as_str);
        text.parse().map_err(|_| Refusal::no_schema(text))
    }

    /// Most clients write `true`, and one of them `True`.
    fn flag(&self, name: &str) -> bool {
        self.flags.get(name).is_some_and(|value| value.eq_ignore_ascii_case("true"))
    }

    fn schema(&self) -> Result<Schema, Refusal> {
        Schema::read(&self.body)
    }

    fn registered(&self, store: &Store) -> Result<Registered, Refusal> {
        store.version(self.subject(), self.version()?, self.flag("deleted"))
    }

    fn level(&self) -> Result<Level, Refusal> {
        let request: LevelRequest = parse(&self.body)?;
        if let Some((other, _)) = request.others.iter().find(|(_, value)| !value.is_null()) {
            return Err(Refusal::level(&format!("the embedded registry has no setting {other:?}")));
        }
        let level = request.compatibility.ok_or_else(|| Refusal::level("none is given"))?;
        level.parse().map_err(|why: String| Refusal::level(&why))
    }

    fn verdict(&self, store: &Store, wanted: Option<Wanted>) -> Result<Value, Refusal> {
        let messages = store.check(self.subject(), wanted, &self.schema()?)?;
        let mut verdict = json!({ "is_compatible": messages.is_empty() });
        if self.flag("verbose") {
            verdict["messages"] = json!(messages);
        }
        Ok(verdict)
    }
}

#[derive(Deserialize)]
struct LevelRequest {
    compatibility: Option<String>,
    #[serde(flatten)]
    others: HashMap<String, Value>,
}

type Answering = Pin<Box<dyn Future<Output = Result<Response, Refusal>> + Send>>;

/// A handler that asks the store on a thread which may parse, compare and wait for the disk.
fn to<T: Serialize + Send + 'static>(
    work: fn(&mut Store, &Ask) -> Result<T, Refusal>,
) -> impl Fn(Ask) -> Answering + Clone + Send + Sync + 'static {
    move |ask| {
        Box::pin(async move {
            let done = spawn_blocking(move || work(&mut lock(&ask.store), &ask)).await;
            let done = done.unwrap_or_else(|cause| {
                let what = format!("the registry broke: {cause}");
                Err(Refusal::http(StatusCode::INTERNAL_SERVER_ERROR, what))
            });
            done.map(|done| answer(StatusCode::OK, &done))
        })
    }
}

/// An answer of the type that clients expect.
pub(super) fn answer(status: StatusCode, body: &impl Serialize) -> Response {
    // Structs of text and numbers always encode.
    let text = serde_json::to_vec(body).unwrap_or_default();
    (status, [(header::CONTENT_TYPE, MEDIA_TYPE)], text).into_response()
}

/// Reads a request's body.
pub(super) fn parse<T: DeserializeOwned>(body: &[u8]) -> Result<T, Refusal> {
    serde_json::from_slice(body)
        .map_err(|cause| Refusal::http(StatusCode::BAD_REQUEST, format!("request's body: {cause}")))
}

/// The schema's own JSON, as it was registered.
fn raw(schema: &Schema) -> Result<Box<RawValue>, Refusal> {
    serde_json::from_str(&schema.schema).map_err(|cause| Refusal::schema(&cause.to_string()))
}
