//! The registry's properties, by the names that Confluent's tools have for them.
//!
//! | property | also as | |
//! |---|---|---|
//! | `schema.registry.url` | | one URL, or several with commas |
//! | `basic.auth.credentials.source` | `schema.registry.…` | `USER_INFO`, or `URL` |
//! | `basic.auth.user.info` | `schema.registry.…` | `name:password` |
//! | `schema.registry.ssl.truststore.location`, `.type=PEM` | `ssl.ca.location` | trusted authorities |
//! | `schema.registry.ssl.keystore.location`, `.type=PEM` | `ssl.certificate.location` and `ssl.key.location` | client certificate and key |
//! | `schema.registry.request.timeout.ms` | | how long one URL may take |
//!
//! Others that begin like these are refused by name, since what they ask for isn't done; the rest
//! belong to other programs that read the same file, and are named and passed over.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    time::Duration,
};

use aion_schemas::suggest::nearest;

use super::usage;
use crate::{
    config::secret,
    exit::Failure,
    registry::{Login, Password, Settings},
};

const URL: &str = "schema.registry.url";
const SOURCE: &str = "basic.auth.credentials.source";
const USER_INFO: &str = "basic.auth.user.info";
const TRUSTSTORE: &str = "ssl.truststore.location";
const TRUSTSTORE_TYPE: &str = "ssl.truststore.type";
const KEYSTORE: &str = "ssl.keystore.location";
const KEYSTORE_TYPE: &str = "ssl.keystore.type";
const CA: &str = "ssl.ca.location";
const CERTIFICATE: &str = "ssl.certificate.location";
const KEY: &str = "ssl.key.location";
const TIMEOUT: &str = "request.timeout.ms";

/// Those that may also stand behind `schema.registry.`.
const KNOWN: [&str; 10] = [
    SOURCE,
    USER_INFO,
    TRUSTSTORE,
    TRUSTSTORE_TYPE,
    KEYSTORE,
    KEYSTORE_TYPE,
    CA,
    CERTIFICATE,
    KEY,
    TIMEOUT,
];
const PREFIX: &str = "schema.registry.";
/// What begins so is meant for a registry's client.
const OURS: [&str; 4] = [PREFIX, "basic.auth.", "bearer.auth.", "ssl."];

/// The settings that a file of properties says.
pub(super) fn settings(path: &Path) -> Result<Settings, Failure> {
    let text = std::fs::read_to_string(path)
        .map_err(|cause| usage(format!("read properties {}: {cause}", path.display())))?;
    let (settings, others) =
        parse(&text).map_err(|cause| usage(format!("properties {}: {cause}", path.display())))?;
    if !others.is_empty() {
        eprintln!("{}: passed over, not the registry's: {}", path.display(), others.join(", "));
    }
    Ok(settings)
}

/// Reads properties; also gives the names of those that aren't the registry's.
fn parse(text: &str) -> Result<(Settings, Vec<String>), String> {
    let (mut properties, others) = lines(text)?;
    let mut take = |name: &str| properties.remove(name);
    let urls = take(URL).ok_or("schema.registry.url is missing: give the registry's URL")?;
    let source = take(SOURCE);
    let info = take(USER_INFO);
    let mut settings = Settings::new(Vec::new());
    let texts = urls.split(',').map(str::trim).filter(|url| !url.is_empty());
    (settings.urls, settings.login) = match source.as_deref() {
        Some("URL") => urls_with_login(texts)?,
        None | Some("USER_INFO") => {
            let urls = texts.map(|url| Settings::url(url).map_err(|cause| cause.to_string()));
            (urls.collect::<Result<_, _>>()?, info.as_deref().map(login).transpose()?)
        }
        Some(other) => return Err(format!("{SOURCE}={other}: known are USER_INFO and URL")),
    };
    for (location, kind) in [(TRUSTSTORE, TRUSTSTORE_TYPE), (KEYSTORE, KEYSTORE_TYPE)] {
        let kind = properties.remove(kind);
        if properties.contains_key(location) && kind.as_deref() != Some("PEM") {
            return Err(format!(
                "{location}: Java's key stores can't be read; give a PEM file, and {}=PEM",
                location.replace("location", "type")
            ));
        }
    }
    let mut take = |name: &str| properties.remove(name).map(PathBuf::from);
    settings.ca = take(CA).or(take(TRUSTSTORE));
    settings.certificate = match (take(CERTIFICATE), take(KEY), take(KEYSTORE)) {
        (None, None, store) => store.map(|both| (both.clone(), both)),
        (Some(certificate), Some(key), _) => Some((certificate, key)),
        _ => return Err(format!("{CERTIFICATE} and {KEY} go together; give both")),
    };
    if let Some(text) = properties.remove(TIMEOUT) {
        let ms: u64 = text.parse().map_err(|_| format!("{TIMEOUT}={text}: a number is wanted"))?;
        settings.timeout = Duration::from_millis(ms.max(1));
    }
    settings.check().map_err(|cause| cause.to_string())?;
    Ok((settings, others))
}

/// The properties by their short names, and the names of those that aren't the registry's.
fn lines(text: &str) -> Result<(BTreeMap<String, String>, Vec<String>), String> {
    let mut properties = BTreeMap::new();
    let mut others = Vec::new();
    for (number, line) in (1..).zip(text.lines()) {
        let line = line.trim();
        if line.is_empty() || line.starts_with(['#', '!']) {
            continue;
        }
        let at = |cause: String| format!("line {number}: {cause}");
        let (name, value) =
            line.split_once(['=', ':']).ok_or_else(|| at("a property is NAME=VALUE".to_owned()))?;
        let (name, value) = (name.trim(), value.trim());
        let short = if name == URL { URL } else { name.strip_prefix(PREFIX).unwrap_or(name) };
        if short != URL && !KNOWN.contains(&short) {
            if !OURS.iter().any(|beginning| name.starts_with(beginning)) {
                others.push(name.to_owned());
                continue;
            }
            let near = nearest(short, KNOWN.into_iter().chain([URL]));
            let hint = near.map_or(String::new(), |near| format!("; did you mean {near}?"));
            return Err(at(format!("{name} isn't supported{hint}")));
        }
        let value = secret::resolve(value).map_err(|cause| at(format!("{name}: {cause}")))?;
        properties.insert(short.to_owned(), value);
    }
    Ok((properties, others))
}

fn login(info: &str) -> Result<Login, String> {
    let (username, password) =
        info.split_once(':').ok_or_else(|| format!("{USER_INFO}: name:password is wanted"))?;
    Ok(Login { username: username.to_owned(), password: Password(password.to_owned()) })
}

/// URLs of the form `http://name:password@host`, all for one account.
fn urls_with_login<'a>(
    texts: impl Iterator<Item = &'a str>,
) -> Result<(Vec<url::Url>, Option<Login>), String> {
    let mut urls = Vec::new();
    let mut account = None;
    for text in texts {
        let (scheme, rest) = text.split_once("://").ok_or("a URL is http://...")?;
        let (info, host) = rest.split_once('@').ok_or_else(|| {
            format!("{SOURCE}=URL, and a URL has no account: http://name:password@host is wanted")
        })?;
        // Special characters are percent-encoded in a URL.
        let decoded = |part: &str| {
            percent_decode(part).ok_or_else(|| format!("{URL}: the account isn't UTF-8"))
        };
        let login = login(info)?;
        account = Some(Login {
            username: decoded(&login.username)?,
            password: Password(decoded(&login.password.0)?),
        });
        urls.push(Settings::url(&format!("{scheme}://{host}")).map_err(|cause| cause.to_string())?);
    }
    Ok((urls, account))
}

fn percent_decode(text: &str) -> Option<String> {
    // A query's value is decoded the same way, apart from the plus sign.
    let text = text.replace('+', "%2B");
    let query = format!("x={text}");
    let mut pairs = url::form_urlencoded::parse(query.as_bytes());
    pairs.next().map(|(_, value)| value.into_owned())
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test may panic")]

    use super::*;

    #[test]
    fn confluents_names_are_understood() {
        let text = "# of the registry\n\
            schema.registry.url = https://a:8081, https://b:8081\n\
            basic.auth.credentials.source=USER_INFO\n\
            schema.registry.basic.auth.user.info=sr:p:w=1\n\
            schema.registry.ssl.truststore.type=PEM\n\
            schema.registry.ssl.truststore.location=/etc/ca.pem\n\
            schema.registry.ssl.keystore.location=/etc/me.pem\n\
            schema.registry.ssl.keystore.type=PEM\n\
            schema.registry.request.timeout.ms=2500\n\
            bootstrap.servers: a:9092\n";
        let (settings, others) = parse(text).unwrap();
        assert_eq!(settings.urls.len(), 2);
        let login = settings.login.unwrap();
        assert_eq!((&*login.username, &*login.password.0), ("sr", "p:w=1"));
        assert_eq!(settings.ca, Some("/etc/ca.pem".into()));
        let both = PathBuf::from("/etc/me.pem");
        assert_eq!(settings.certificate, Some((both.clone(), both)));
        assert_eq!(settings.timeout, Duration::from_millis(2500));
        assert_eq!(others, ["bootstrap.servers"]);
    }

    #[test]
    fn an_account_may_stand_in_the_url_where_that_is_said() {
        let text = "schema.registry.url=http://u:p%40+1@a:8081\n";
        let error = parse(text).unwrap_err();
        assert!(error.contains("apart from the URL") && !error.contains("p%40"), "{error}");
        let (settings, _) = parse(&format!("{text}basic.auth.credentials.source=URL")).unwrap();
        assert_eq!(settings.urls[0].as_str(), "http://a:8081/");
        assert_eq!(settings.login.unwrap().password.0, "p@+1");
    }

    #[test]
    fn what_is_not_done_is_refused_by_name() {
        let with = |line: &str| parse(&format!("{URL}=https://a:1\n{line}")).unwrap_err();
        for (line, wanted) in [
            ("bearer.auth.token=x", "line 2: bearer.auth.token isn't supported"),
            ("schema.registry.proxy.host=p", "schema.registry.proxy.host isn't supported"),
            ("basic.auth.user.inf=a:b", "did you mean basic.auth.user.info?"),
            ("basic.auth.credentials.source=SASL_INHERIT", "known are USER_INFO and URL"),
            ("ssl.truststore.location=t.jks", "Java's key stores can't be read"),
            ("ssl.certificate.location=c.pem", "go together"),
            ("basic.auth.user.info=alice", "name:password is wanted"),
            ("basic.auth.user.info=env:AION_UNSET", "AION_UNSET is not set"),
            ("request.timeout.ms=soon", "a number is wanted"),
            ("nonsense", "line 2: a property is NAME=VALUE"),
        ] {
            assert!(with(line).contains(wanted), "{line}: {}", with(line));
        }
        assert!(parse("").unwrap_err().contains("schema.registry.url is missing"));
    }
}
