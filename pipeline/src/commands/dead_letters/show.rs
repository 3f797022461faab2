//! `aion dead-letters show`.

use std::{
    fmt::Write as _,
    io::{self, IsTerminal, Write},
    process::ExitCode,
};

use aion_schemas::log::Origin;
use anyhow::Context;

use super::{
    columns::bytes,
    letters::{self, Case, Letter, each, parse_key, quoted},
};
use crate::{
    args::jobs::{Place, PlaceArgs},
    commands::sql::format::harmless_lines,
    exit::{Exit, Failure},
    job::times::rfc3339,
};

/// So much of a record is shown; `--raw` has all of it.
const SHOWN_BYTES: usize = 4096;

/// The arguments of `aion dead-letters show`.
#[derive(Debug, clap::Args)]
pub(super) struct ShowArgs {
    /// Its key, as `list` has it: job:topic id:partition:offset.
    key: String,
    /// Print the record's value and nothing else, byte by byte.
    #[arg(long)]
    raw: bool,
    #[command(flatten)]
    place: PlaceArgs,
}

/// Runs it.
pub(super) fn run(args: &ShowArgs) -> anyhow::Result<ExitCode> {
    let Some((job, at)) = parse_key(&args.key) else {
        let message = format!("{:?} is no key: job:topic id:partition:offset is wanted", args.key);
        return Err(Failure::new(Exit::Usage, message).into());
    };
    let place = args.place.open()?;
    let runtime = tokio::runtime::Runtime::new().context("start the runtime")?;
    let one = format!(
        "job = {} and topic_id = '{}' and \"partition\" = {} and \"offset\" = {}",
        quoted(job),
        at.topic_id,
        at.partition,
        at.offset
    );
    let text = runtime.block_on(async {
        let (key, value) = record(&place, &one).await?.ok_or_else(|| none(&args.key))?;
        if args.raw {
            return Ok(Err(value.unwrap_or_default()));
        }
        let letter = letters::one(&place, &one).await?.ok_or_else(|| none(&args.key))?;
        let Origin { topic_id, partition, offset } = letter.first.origin;
        let record = format!(
            "job = {} and (origin = '{}' or (topic_id = '{topic_id}' and \"partition\" = {partition} \
             and \"offset\" = {offset}))",
            quoted(job),
            letter.first.origin
        );
        let (cases, _) = letters::find(&place, &record).await?;
        let mut text = String::new();
        describe(&mut text, &letter, cases.first())?;
        content(&mut text, "key", key.as_deref())?;
        content(&mut text, "value", value.as_deref())?;
        anyhow::Ok(Ok(text))
    })?;
    let mut out = io::stdout().lock();
    let printed = match text {
        Err(raw) => out.write_all(&raw),
        Ok(text) if io::stdout().is_terminal() => out.write_all(harmless_lines(&text).as_bytes()),
        Ok(text) => out.write_all(text.as_bytes()),
    };
    match printed.and_then(|()| out.flush()) {
        Err(cause) if cause.kind() == io::ErrorKind::BrokenPipe => {}
        printed => printed.context("print the dead letter")?,
    }
    Ok(ExitCode::SUCCESS)
}

fn none(key: &str) -> Failure {
    let message = format!(
        "no dead letter {key} in the lake; what was rejected within the last flush isn't there yet"
    );
    Failure::new(Exit::Failed, message)
}

/// Key and value of the record, as they were.
type Content = (Option<Vec<u8>>, Option<Vec<u8>>);

async fn record(place: &Place, condition: &str) -> anyhow::Result<Option<Content>> {
    let sql = format!("select key, value from dead_letters_raw where {condition} limit 1");
    let mut found = None;
    each(place, &sql, |rows| {
        let (keys, values) = (bytes(rows, 0)?, bytes(rows, 1)?);
        found = keys.into_iter().zip(values).next().or(found.take());
        Ok(())
    })
    .await?;
    Ok(found)
}

fn describe(
    text: &mut String,
    letter: &Letter,
    case: Option<&Case>,
) -> Result<(), std::fmt::Error> {
    writeln!(text, "key       {}", letter.key())?;
    if let Some(Case { letter: newest, letters, state }) = case {
        writeln!(text, "state     {}", state.word())?;
        let (is_newest, plural) = (newest.at == letter.at, if *letters == 1 { "" } else { "s" });
        let last = if is_newest { String::new() } else { format!(", at last as {}", newest.key()) };
        writeln!(text, "rejected  {letters} time{plural}{last}")?;
    }
    let field = letter.field.as_ref().map_or_else(String::new, |field| format!(", field {field}"));
    writeln!(text, "reason    {}{field}", letter.reason)?;
    if !letter.detail.is_empty() {
        writeln!(text, "detail    {}", letter.detail)?;
    }
    let at = letter.at;
    writeln!(text, "record    {}/{} at {}", letter.topic, at.partition, at.offset)?;
    writeln!(text, "topic id  {}", at.topic_id)?;
    writeln!(text, "appended  {}", rfc3339(letter.append_time))?;
    writeln!(text, "refused   {}", rfc3339(letter.rejected_at))?;
    if letter.first.origin != at {
        writeln!(text, "origin    {}", letter.first.origin)?;
    }
    if let Some(id) = letter.schema_id {
        writeln!(text, "schema    id {id}")?;
    }
    Ok(())
}

/// What a record has: as text where it is text, else in hexadecimal.
fn content(text: &mut String, name: &str, bytes: Option<&[u8]>) -> Result<(), std::fmt::Error> {
    let Some(bytes) = bytes else { return writeln!(text, "\nno {name}") };
    let shown = &bytes[..bytes.len().min(SHOWN_BYTES)];
    let is_text = |c: char| !c.is_control() || matches!(c, '\n' | '\t' | '\r');
    let whole = match std::str::from_utf8(shown) {
        Ok(whole) => Some(whole),
        // The cut may go through a character.
        Err(cause) if cause.error_len().is_none() && shown.len() < bytes.len() => {
            std::str::from_utf8(&shown[..cause.valid_up_to()]).ok()
        }
        Err(_) => None,
    };
    writeln!(text, "\n{name}, {} bytes", bytes.len())?;
    match whole.filter(|whole| whole.chars().all(is_text)) {
        Some(whole) => writeln!(text, "{whole}")?,
        None => hexadecimal(text, shown)?,
    }
    if shown.len() < bytes.len() {
        writeln!(text, "... {} bytes more: --raw prints all", bytes.len() - shown.len())?;
    }
    Ok(())
}

fn hexadecimal(text: &mut String, bytes: &[u8]) -> Result<(), std::fmt::Error> {
    for (line, bytes) in bytes.chunks(16).enumerate() {
        let pairs: Vec<String> = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        let plain = |byte: &u8| if (0x20..0x7f).contains(byte) { char::from(*byte) } else { '.' };
        let plain: String = bytes.iter().map(plain).collect();
        writeln!(text, "{:08x}  {:47}  {plain}", line * 16, pairs.join(" "))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test may panic")]

    use super::*;

    fn shown(bytes: &[u8]) -> String {
        let mut text = String::new();
        content(&mut text, "value", Some(bytes)).unwrap();
        text
    }

    #[test]
    fn text_is_text_and_bytes_are_hexadecimal() {
        assert_eq!(shown(b"{\"a\": 1}\n"), "\nvalue, 9 bytes\n{\"a\": 1}\n\n");
        let frame = "\nvalue, 6 bytes\n00000000  00 00 00 00 07 41                                \
                     .....A\n";
        assert_eq!(shown(&[0, 0, 0, 0, 7, 65]), frame);
        let long = "é".repeat(SHOWN_BYTES);
        let cut = shown([b"x", long.as_bytes()].concat().as_slice());
        assert!(cut.contains("xé") && cut.ends_with("bytes more: --raw prints all\n"), "{cut}");
        assert!(shown(b"\x1b[31m").contains("1b 5b"), "nothing that a terminal obeys");
    }
}
