use super::{Number, NumberFlaw};

fn number(text: &str) -> Number<'_> {
    let number = Number::starting(text.as_bytes()).unwrap_or_else(|| panic!("{text}: no number"));
    assert_eq!(number.text, text.as_bytes());
    number
}

#[test]
fn integers_are_exact() {
    for (text, expected) in [
        ("0", 0),
        ("-0", 0),
        ("-0.000e5", 0),
        ("0e999999999999999999999999", 0),
        ("5.0", 5),
        ("5e0", 5),
        ("50e-1", 5),
        ("-50.00E-1", -5),
        ("1.5e1", 15),
        ("0.001e3", 1),
        ("1e18", 1_000_000_000_000_000_000),
        ("9007199254740993", 9_007_199_254_740_993),
        ("9007199254740993.000", 9_007_199_254_740_993),
        ("9223372036854775807", i64::MAX),
        ("-9223372036854775808", i64::MIN),
        ("-9.223372036854775808e18", i64::MIN),
    ] {
        assert_eq!(number(text).integer(), Ok(expected), "{text}");
    }
}

#[test]
fn integers_refuse_fractions_and_what_64_bits_do_not_hold() {
    for text in ["0.5", "5e-1", "1e-999999999999999999999", "9007199254740993.1"] {
        assert_eq!(number(text).integer(), Err(NumberFlaw::Fraction), "{text}");
    }
    for text in [
        "9223372036854775808",
        "-9223372036854775809",
        "1e19",
        "1e999999999999999999999",
        "100000000000000000000",
        "9.3e18",
    ] {
        assert_eq!(number(text).integer(), Err(NumberFlaw::Range), "{text}");
    }
}

#[test]
fn doubles_are_the_nearest_and_finite() {
    for text in ["0.1", "-0", "1.7976931348623157e308", "5e-324", "1e-400", "123456789012345678901"]
    {
        let expected: f64 = serde_json::from_str(text).unwrap_or_else(|e| panic!("{text}: {e}"));
        assert_eq!(number(text).double().map(f64::to_bits), Ok(expected.to_bits()), "{text}");
    }
    assert_eq!(number("1e309").double(), Err(NumberFlaw::Range));
    assert_eq!(number("-1.8e308").double(), Err(NumberFlaw::Range));
}

#[test]
fn the_grammar_is_that_of_json() {
    for text in
        ["", "-", "+1", ".5", "00", "01", "-01", "1.", "1.e5", "1e", "1e+", "NaN", "Infinity"]
    {
        assert!(Number::starting(text.as_bytes()).is_none(), "{text}");
    }
    let number = Number::starting(b"12,").map(|n| n.text);
    assert_eq!(number, Some(&b"12"[..]));
}
