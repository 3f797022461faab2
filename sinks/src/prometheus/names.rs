//! Names and labels as Prometheus wants them, made of what producers write.
//!
//! | written | becomes |
//! |---|---|
//! | a character of a name that Prometheus doesn't take | `_` |
//! | a counter's name without `_total` | with it |
//! | another's name that ends as a counter's or a histogram's series do | with `_value` after it |
//! | a label that begins with a digit or with `__` | with one `_` before it |
//! | a label that stands for something here: `component`, `partition`, `le`, `quantile`, `overflow` | `exported_` before it, as Prometheus itself does |
//! | two labels that become one | their values, joined by `;` |
//! | a label that is empty or null | left out: to Prometheus that is the same |
//!
//! **Invariant:** two kinds never share a name, so no page has a family of two types; what a gauge and a histogram of
//! one name do is said in `page`.

use std::{borrow::Cow, collections::BTreeMap, fmt::Write};

use serde_json::Value;

use super::Kind;

/// How the names of all metrics begin that components report.
pub(super) const PREFIX: &str = "aion_runtime_";
const MAX_NAME_BYTES: usize = 200;
const MAX_LABELS: usize = 32;
const MAX_LABELS_BYTES: usize = 2_048;
const RESERVED: [&str; 5] = ["component", "partition", "le", "quantile", "overflow"];
/// How the series of counters and histograms end; nobody else's may.
const TAKEN: [&str; 4] = ["_total", "_bucket", "_sum", "_count"];

/// The name of a metric's family.
pub(super) fn family(metric: &str, kind: Kind) -> String {
    let mut name = PREFIX.to_owned();
    let valid = |c: char| if c.is_ascii_alphanumeric() { c } else { '_' };
    name.extend(metric.chars().take(MAX_NAME_BYTES).map(valid));
    match kind {
        Kind::Counter if !name.ends_with("_total") => name.push_str("_total"),
        Kind::Gauge | Kind::Histogram if TAKEN.iter().any(|end| name.ends_with(end)) => {
            name.push_str("_value");
        }
        _ => {}
    }
    name
}

/// The labels of a series, as they stand between the braces: sorted, escaped. `None` when they are more or longer than
/// a series may have.
pub(super) fn labels<'a>(
    component: Option<&'a str>,
    others: impl IntoIterator<Item = (Cow<'a, str>, Cow<'a, str>)>,
) -> Option<String> {
    let mut pairs: BTreeMap<String, Cow<'a, str>> = BTreeMap::new();
    for (name, value) in others {
        if value.is_empty() {
            continue;
        }
        let joined = match pairs.remove(&label(&name)) {
            Some(before) => Cow::Owned(format!("{before};{value}")),
            None => value,
        };
        pairs.insert(label(&name), joined);
    }
    if let Some(component) = component.filter(|component| !component.is_empty()) {
        pairs.insert("component".to_owned(), component.into());
    }
    let mut text = String::new();
    for (name, value) in &pairs {
        let comma = if text.is_empty() { "" } else { "," };
        write!(text, "{comma}{name}=\"{}\"", escaped(value)).ok()?;
    }
    (pairs.len() <= MAX_LABELS && text.len() <= MAX_LABELS_BYTES).then_some(text)
}

/// The labels that an event has as canonical JSON text; the values are scalars, by the contract.
pub(super) fn of_json(text: Option<&str>) -> Vec<(Cow<'static, str>, Cow<'static, str>)> {
    let parsed = text.and_then(|text| serde_json::from_str::<BTreeMap<String, Value>>(text).ok());
    let value = |value: Value| match value {
        Value::Null => String::new(),
        Value::String(text) => text,
        other => other.to_string(),
    };
    let pairs = parsed.unwrap_or_default().into_iter();
    pairs.map(|(name, of)| (name.into(), value(of).into())).collect()
}

/// The name of a label.
pub(super) fn label(name: &str) -> String {
    let valid = |c: char| if c.is_ascii_alphanumeric() { c } else { '_' };
    let mut made: String = name.chars().map(valid).collect();
    if made.starts_with("__") || made.is_empty() || made.starts_with(|c: char| c.is_ascii_digit()) {
        made = format!("_{}", made.trim_start_matches('_'));
    }
    if RESERVED.contains(&&*made) { format!("exported_{made}") } else { made }
}

/// Text between quotes, or after `# HELP` where quotes may stay as they are.
pub(super) fn escaped(text: &str) -> Cow<'_, str> {
    if !text.contains(['\\', '"', '\n']) {
        return text.into();
    }
    text.replace('\\', r"\\").replace('"', "\\\"").replace('\n', r"\n").into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_valid_and_their_endings_tell_the_kind() {
        let cases = [
            ("queue_depth", Kind::Gauge, "queue_depth"),
            ("requests", Kind::Counter, "requests_total"),
            ("requests_total", Kind::Counter, "requests_total"),
            ("requests_total", Kind::Gauge, "requests_total_value"),
            ("wait_seconds", Kind::Histogram, "wait_seconds"),
            ("wait_bucket", Kind::Histogram, "wait_bucket_value"),
            ("wait_sum", Kind::Gauge, "wait_sum_value"),
            ("gpu.0:use %", Kind::Gauge, "gpu_0_use__"),
            ("9lives", Kind::Gauge, "9lives"),
            ("größe", Kind::Gauge, "gr__e"),
        ];
        for (metric, kind, wanted) in cases {
            assert_eq!(family(metric, kind), format!("{PREFIX}{wanted}"), "{metric}");
        }
        assert!(family(&"x".repeat(10_000), Kind::Gauge).len() < 256);
    }

    fn of(component: &str, json: &str) -> Option<String> {
        labels(Some(component), of_json(Some(json)))
    }

    #[test]
    fn labels_are_valid_sorted_and_escaped() {
        let cases = [
            (r#"{"method":"POST","code":200}"#, r#"code="200",component="c",method="POST""#),
            (r#"{"tls":true,"zone":null,"a":""}"#, r#"component="c",tls="true""#),
            (r#"{"a.b":"1","a-b":"2"}"#, r#"a_b="2;1",component="c""#),
            (
                r#"{"component":"x","le":"9","__name__":"up"}"#,
                r#"_name__="up",component="c",exported_component="x",exported_le="9""#,
            ),
            (r#"{"9":"n"}"#, r#"_9="n",component="c""#),
            (r#"{"t":"a\"b\\c\nd"}"#, r#"component="c",t="a\"b\\c\nd""#),
            ("not json", r#"component="c""#),
        ];
        for (json, wanted) in cases {
            assert_eq!(of("c", json).as_deref(), Some(wanted), "{json}");
        }
    }

    #[test]
    fn more_than_a_series_may_have_has_no_labels() {
        let many: BTreeMap<String, u32> = (0..40).map(|n| (format!("l{n}"), n)).collect();
        assert_eq!(of("c", &serde_json::to_string(&many).unwrap_or_default()), None);
        assert_eq!(of("c", &format!(r#"{{"a":"{}"}}"#, "x".repeat(3_000))), None);
    }
}
