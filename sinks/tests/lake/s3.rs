//! A store that speaks S3 (moto) as a process, for all tests of this program; each has a lake of its own in it.

use std::{process::Child, sync::OnceLock};

use aion_sinks::lake::{Lake, StoreOptions};
use url::Url;
use uuid::Uuid;

use crate::python;

/// It ends when its standard input does, with this process.
struct Moto {
    _process: Child,
    endpoint: String,
}

/// A new lake in it, opened as a user's configuration opens one.
pub(crate) fn lake() -> Lake {
    static MOTO: OnceLock<Moto> = OnceLock::new();
    let endpoint = &MOTO.get_or_init(start).endpoint;
    let options = [
        ("aws_endpoint", endpoint.as_str()),
        ("aws_allow_http", "true"),
        ("aws_region", "us-east-1"),
        ("aws_access_key_id", "test"),
        ("aws_secret_access_key", "test"),
    ];
    let options: StoreOptions =
        options.map(|(name, value)| (name.to_owned(), value.to_owned())).into_iter().collect();
    let url = Url::parse(&format!("s3://lake/{}", Uuid::new_v4())).unwrap();
    Lake::open(&url, &options).unwrap()
}

fn start() -> Moto {
    let (process, endpoint) = python::start("object_store.py", &[]);
    let endpoint = endpoint.filter(|word| word.starts_with("http"));
    let endpoint =
        endpoint.expect("the store's address: `scripts/setup test` installs what it needs");
    Moto { _process: process, endpoint }
}
