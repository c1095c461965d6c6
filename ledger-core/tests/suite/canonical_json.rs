//! Canonical JSON: the examples of RFC 8785 that lie inside the subset, and the refusal of the
//! rest.

use ledger_core::json::{DEPTH_MAX, INTEGER_MAX, JsonError, Value, to_canonical};
use proptest::prelude::*;

fn accepts(text: &str) -> bool {
    Value::parse(text.as_bytes()).is_ok_and(|value| to_canonical(&value) == text.as_bytes())
}

#[test]
fn strings_of_rfc_8785() {
    // Section 3.2.2.2: the string of the example, whose control characters have one escape each.
    let canonical = r#"{"string":"€$\u000f\nA'B\"\\\\\"/"}"#;
    let value = Value::parse(canonical.as_bytes()).unwrap();
    assert_eq!(value.get("string").and_then(Value::as_str), Some("\u{20ac}$\u{f}\nA'B\"\\\\\"/"));
    assert!(accepts(canonical));
    // Every other spelling of it is refused.
    for other in [
        r#"{"string":"\u20ac$\u000f\nA'B\"\\\\\"/"}"#,
        r#"{"string":"€$\u000F\nA'B\"\\\\\"/"}"#,
        r#"{"string":"€$\u000f\u000aA'B\"\\\\\"/"}"#,
        r#"{"string":"€$\u000f\nA'\u0042\"\\\\\"/"}"#,
        r#"{"string":"€$\u000f\nA'B\u0022\\\\\"/"}"#,
        r#"{"string":"€$\u000f\nA'B\"\\\\\"\/"}"#,
    ] {
        assert!(matches!(Value::parse(other.as_bytes()), Err(JsonError::NotCanonical)), "{other}");
    }
}

#[test]
fn every_character_has_one_spelling() {
    for code in 0..=0x2100_u32 {
        let Some(character) = char::from_u32(code) else { continue };
        let literal = match character {
            '"' => "\\\"".to_owned(),
            '\\' => "\\\\".to_owned(),
            '\u{8}' => "\\b".to_owned(),
            '\t' => "\\t".to_owned(),
            '\n' => "\\n".to_owned(),
            '\u{c}' => "\\f".to_owned(),
            '\r' => "\\r".to_owned(),
            control if control < ' ' => format!("\\u{code:04x}"),
            other => other.to_string(),
        };
        assert!(accepts(&format!("\"{literal}\"")), "U+{code:04X}");
        assert_eq!(to_canonical(&Value::String(character.to_string())), format!("\"{literal}\"").into_bytes());
        let escaped = format!("\"\\u{code:04x}\"");
        assert_eq!(accepts(&escaped), literal == escaped.trim_matches('"'), "{escaped}");
    }
}

#[test]
fn keys_ascend_and_come_once() {
    // Section 3.2.3, the keys of the example that are ASCII.
    assert!(accepts(r#"{"\n":"Newline","\r":"Carriage Return","1":"One","</script>":"Browser Challenge"}"#));
    assert!(accepts(r#"{"":1,"A":2,"a":[],"a-b":{},"a_b":true,"ab":false}"#));
    for refused in [r#"{"b":1,"a":2}"#, r#"{"a":1,"A":2}"#, r#"{"10":1,"1":2}"#] {
        assert!(matches!(Value::parse(refused.as_bytes()), Err(JsonError::NotCanonical)), "{refused}");
    }
    for refused in [r#"{"a":1,"a":1}"#, r#"{"a":1,"\u0061":1}"#, r#"{"é":1}"#, "{\"a\":{\"b\":1,\"b\":2}}"] {
        assert!(matches!(Value::parse(refused.as_bytes()), Err(JsonError::Syntax(_))), "{refused}");
    }
}

#[test]
fn integers_below_two_to_the_53() {
    for accepted in ["0", "1", "10", "9007199254740991", "[0,1]"] {
        assert!(accepts(accepted), "{accepted}");
    }
    assert_eq!(INTEGER_MAX, 9_007_199_254_740_991);
    for refused in [
        "-0",
        "-1",
        "1.0",
        "1e3",
        "1E3",
        "1e0",
        "0.5",
        "1.",
        ".1",
        "01",
        "+1",
        "0x1",
        "NaN",
        "Infinity",
        "9007199254740992",
        "18446744073709551615",
        "18446744073709551616",
        "333333333.33333329",
        "1e400",
        "null",
        "[null]",
        r#"{"a":null}"#,
    ] {
        assert!(matches!(Value::parse(refused.as_bytes()), Err(JsonError::Syntax(_))), "{refused}");
    }
}

#[test]
fn one_document_without_white_space() {
    for refused in [" {}", "{} ", "{}\n", "{ }", "[1, 2]", "{\"a\" :1}", "{\"a\": 1}", "\t1"] {
        assert!(matches!(Value::parse(refused.as_bytes()), Err(JsonError::NotCanonical)), "{refused:?}");
    }
    for refused in
        ["", "{", "}", "{}{}", "[1,]", "{\"a\":1,}", "'a'", "{a:1}", "\"\n\"", "\"\\x41\"", "tru", "\u{feff}{}"]
    {
        assert!(matches!(Value::parse(refused.as_bytes()), Err(JsonError::Syntax(_))), "{refused:?}");
    }
    for refused in
        [&b"\"\xff\""[..], b"\"\xed\xa0\x80\"", b"\"\\ud800\"", b"\"\\udc00\\ud800\"", b"\"\xc0\xaf\"", b"\"a\0\""]
    {
        assert!(matches!(Value::parse(refused), Err(JsonError::Syntax(_))), "{refused:?}");
    }
    // A pair of surrogates is a character, but escaped it is not canonical.
    assert!(matches!(Value::parse(br#""\ud83d\ude00""#), Err(JsonError::NotCanonical)));
    assert!(accepts("\"😀\""));
}

#[test]
fn depth_is_bounded() {
    let nested = |depth: usize| "[".repeat(depth) + &"]".repeat(depth);
    assert!(accepts(&nested(DEPTH_MAX)));
    assert!(matches!(Value::parse(nested(DEPTH_MAX + 1).as_bytes()), Err(JsonError::TooDeep)));
    assert!(Value::parse(nested(100_000).as_bytes()).is_err());
    assert!(Value::parse("[".repeat(1_000_000).as_bytes()).is_err());
    let objects = r#"{"a":"#.repeat(100_000);
    assert!(Value::parse(objects.as_bytes()).is_err());
}

fn value() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        any::<bool>().prop_map(Value::Bool),
        (0..=INTEGER_MAX).prop_map(Value::Integer),
        any::<String>().prop_map(Value::String),
    ];
    leaf.prop_recursive(5, 40, 6, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..6).prop_map(Value::Array),
            prop::collection::btree_map("[ -~\\n]{0,8}", inner, 0..6).prop_map(Value::Object),
        ]
    })
}

proptest! {
    #[test]
    fn what_is_written_is_read(value in value()) {
        let bytes = to_canonical(&value);
        prop_assert_eq!(Value::parse(&bytes).unwrap(), value);
    }

    #[test]
    fn what_is_read_is_the_one_spelling(bytes in prop::collection::vec(any::<u8>(), 0..60), text in "[\\[\\]{}\",:0-9a-f\\\\ueE.+ -]{0,40}") {
        for input in [&bytes[..], text.as_bytes()] {
            if let Ok(value) = Value::parse(input) {
                prop_assert_eq!(to_canonical(&value), input);
            }
        }
    }
}
