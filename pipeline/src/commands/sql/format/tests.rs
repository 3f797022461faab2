#![expect(clippy::unwrap_used, reason = "a test may panic")]

use std::{slice, sync::Arc};

use arrow::{
    array::{
        ArrayRef, BinaryArray, BooleanArray, Float64Array, Int64Array, StringArray,
        TimestampMicrosecondArray,
    },
    record_batch::RecordBatch,
};

use super::{Format, Printer};

fn printed(format: Format, terminal: bool, batches: &[RecordBatch]) -> String {
    let mut out = Vec::new();
    let mut printer = Printer::new(&mut out, format, terminal, batches[0].schema());
    for batch in batches {
        printer.rows(batch).unwrap();
    }
    printer.end().unwrap();
    String::from_utf8(out).unwrap()
}

fn every_kind() -> RecordBatch {
    let times = TimestampMicrosecondArray::from(vec![Some(1_500_000), None]).with_timezone("UTC");
    let columns: Vec<(&str, ArrayRef)> = vec![
        ("text", Arc::new(StringArray::from(vec![Some("a, \"b\""), Some("")]))),
        ("whole", Arc::new(Int64Array::from(vec![Some(-7), None]))),
        ("number", Arc::new(Float64Array::from(vec![0.1, 12345.0]))),
        ("flag", Arc::new(BooleanArray::from(vec![true, false]))),
        ("at", Arc::new(times)),
        ("bytes", Arc::new(BinaryArray::from(vec![&b"{}"[..], &[0xff, 0x00]]))),
    ];
    RecordBatch::try_from_iter(columns).unwrap()
}

fn texts(values: &[&str]) -> RecordBatch {
    let column = Arc::new(StringArray::from(values.to_vec())) as ArrayRef;
    RecordBatch::try_from_iter([("text", column)]).unwrap()
}

#[test]
fn a_table() {
    let expected = "\
+--------+-------+---------+-------+--------------------------+--------+
| text   | whole |  number | flag  | at                       | bytes  |
+--------+-------+---------+-------+--------------------------+--------+
| a, \"b\" |    -7 |     0.1 | true  | 1970-01-01T00:00:01.500Z | {}     |
|        |  NULL | 12345.0 | false | NULL                     | \\xff00 |
+--------+-------+---------+-------+--------------------------+--------+
";
    assert_eq!(printed(Format::Table, false, &[every_kind()]), expected);
}

#[test]
fn csv_quotes_what_needs_it_and_tells_null_from_empty() {
    let expected = "\
text,whole,number,flag,at,bytes
\"a, \"\"b\"\"\",-7,0.1,true,1970-01-01T00:00:01.500Z,{}
\"\",,12345.0,false,,\\xff00
";
    assert_eq!(printed(Format::Csv, false, &[every_kind()]), expected);
}

#[test]
fn json_is_one_object_a_line() {
    let first = r#"{"text":"a, \"b\"","whole":-7,"number":0.1,"flag":true,"#.to_owned()
        + r#""at":"1970-01-01T00:00:01.500Z","bytes":"7b7d"}"#;
    let second = r#"{"text":"","whole":null,"number":12345.0,"flag":false,"#.to_owned()
        + r#""at":null,"bytes":"ff00"}"#;
    let expected = format!("{first}\n{second}\n");
    assert_eq!(printed(Format::Json, false, &[every_kind()]), expected);
}

#[test]
fn no_rows_still_have_a_header() {
    let none = texts(&[]);
    assert_eq!(
        printed(Format::Table, false, slice::from_ref(&none)),
        "+------+\n| text |\n+------+\n+------+\n"
    );
    assert_eq!(printed(Format::Csv, false, slice::from_ref(&none)), "text\n");
    assert_eq!(printed(Format::Json, false, &[none]), "");
}

#[test]
fn stored_text_can_not_command_a_terminal() {
    let attack =
        "\u{1b}]0;owned\u{7}\u{1b}[2J\u{9b}31m\r\u{8}\u{7f}\n\u{202e}gnp.exe\u{200b}\u{e0041}";
    for format in [Format::Table, Format::Csv, Format::Json] {
        let shown = printed(format, true, &[texts(&[attack])]);
        let obeyed: Vec<_> = shown.chars().filter(|c| c.is_control() && *c != '\n').collect();
        assert!(obeyed.is_empty(), "{format:?}: {obeyed:?}");
        for hidden in ['\u{202e}', '\u{200b}', '\u{e0041}'] {
            assert!(!shown.contains(hidden), "{format:?}: {hidden:?}");
        }
    }
    let table = printed(Format::Table, false, &[texts(&[attack])]);
    assert!(table.contains(r"\u{1b}]0;owned\u{7}") && table.lines().count() == 6, "{table}");
}

#[test]
fn programs_get_the_text_as_it_is() {
    let text = "tab\there \u{1b}[0m";
    assert_eq!(printed(Format::Csv, false, &[texts(&[text])]), format!("text\n{text}\n"));
    let json = printed(Format::Json, false, &[texts(&[text])]);
    let value: serde_json::Value = serde_json::from_str(&json).unwrap();
    assert_eq!(value["text"], text);
}

#[test]
fn wide_characters_keep_columns_straight() {
    use unicode_width::UnicodeWidthStr;
    let shown = printed(Format::Table, false, &[texts(&["漢字", "plain", "é"])]);
    assert!(shown.lines().all(|line| line.width() == 9), "{shown}");
}

#[test]
fn lines_of_a_value_stay_within_its_column() {
    let texts: ArrayRef = Arc::new(StringArray::from(vec!["a\n| 漢\u{1b}[2J\n", "plain"]));
    let counts: ArrayRef = Arc::new(Int64Array::from(vec![10, 2]));
    let notes: ArrayRef = Arc::new(StringArray::from(vec![Some("one\n  two"), None]));
    let rows =
        RecordBatch::try_from_iter([("text", texts), ("n", counts), ("note", notes)]).unwrap();
    let expected = r"
+---------------+----+-------+
| text          |  n | note  |
+---------------+----+-------+
| a            +| 10 | one  +|
| | 漢\u{1b}[2J+|    |   two |
|               |    |       |
| plain         |  2 | NULL  |
+---------------+----+-------+
";
    for terminal in [false, true] {
        let shown = printed(Format::Table, terminal, slice::from_ref(&rows));
        assert_eq!(shown, expected.trim_start(), "{terminal}");
    }
    let csv = printed(Format::Csv, false, &[rows]);
    assert!(csv.starts_with("text,n,note\n\"a\n| 漢\u{1b}[2J\n\",10,\"one\n  two\"\n"), "{csv}");
}

#[test]
fn many_lines_are_cut_on_a_terminal_only() {
    let many = "line\n".repeat(1000) + &"x".repeat(500);
    let shown = printed(Format::Table, true, &[texts(&[&many])]);
    assert_eq!(shown.lines().filter(|line| line.starts_with("| line")).count(), 200);
    assert!(shown.contains("| …    |\n") && shown.contains("long values are cut"), "{shown}");
    let whole = printed(Format::Table, false, &[texts(&[&many])]);
    assert_eq!(whole.lines().count(), 4 + 1001);
}

#[test]
fn later_rows_follow_the_widths_of_the_first() {
    let many = vec!["1234"; 1500];
    let shown = printed(Format::Table, false, &[texts(&many), texts(&["longer than the others"])]);
    assert_eq!(shown.lines().count(), 4 + 1501);
    assert!(shown.contains("| longer than the others |\n"), "never cut where nobody looks");
}

#[test]
fn long_values_are_cut_on_a_terminal_only() {
    let long = "x".repeat(500);
    let shown = printed(Format::Table, true, &[texts(&[&long])]);
    assert!(shown.contains('…') && shown.contains("long values are cut"), "{shown}");
    let second = printed(Format::Table, true, &[texts(&[&format!("short\n{long}")])]);
    assert!(second.contains('…') && !second.contains(&long), "{second}");
    assert!(printed(Format::Table, false, &[texts(&[&long])]).contains(&long));
    assert!(printed(Format::Csv, true, &[texts(&[&long])]).contains(&long));
}
