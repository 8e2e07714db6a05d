//! Tests of expressions: accepted and rejected ones, their results, and that none can harm the node.

mod bounds;

use std::time::Duration;

use bytes::Bytes;
use proptest::prelude::*;
use ropewalk_proto::batch::{BatchBuilder, BatchView, Compression, Header, Record};
use ropewalk_proto::error::ErrorCode;

use super::*;

const ORIGIN: Origin<'static> = Origin {
    topic: "orders",
    partition: 3,
};

fn header(key: &str, value: &[u8]) -> Header {
    Header {
        key: key.to_owned(),
        value: Some(Bytes::copy_from_slice(value)),
    }
}

fn record(value: &str) -> Record {
    Record {
        offset_delta: 0,
        timestamp_ms: 1_700_000_000_000,
        key: Some(Bytes::from_static(b"key-7")),
        value: Some(Bytes::copy_from_slice(value.as_bytes())),
        headers: vec![
            header("ce_type", b"order.placed"),
            header("source", b"web"),
            header("source", b"app"),
            header("raw", &[0xff, 0xfe]),
        ],
    }
}

fn wants(source: &str, record: &Record) -> Result<bool, TooCostly> {
    let filter = Filter::compile(source).unwrap_or_else(|error| panic!("{source}: {error}"));
    filter.wants(&ORIGIN, 41, record)
}

fn refused(source: &str) -> String {
    let error = Filter::compile(source).expect_err(source);
    assert_eq!(error.code, ErrorCode::InvalidFilter);
    error.message
}

const JSON: &str =
    r#"{"price": 12.5, "n": 3, "tags": ["a", "b"], "to": {"city": "Köln"}, "none": null}"#;

#[test]
fn a_filter_sees_all_of_a_record() {
    for source in [
        "topic == 'orders' && partition == 3 && offset == 41",
        "timestamp >= 1700000000000",
        "key == 'key-7' && key.startsWith('key-') && !key.endsWith('8')",
        "type == 'order.placed'",
        "headers['source'] == 'app'",
        "headers.source in ['web', 'app']",
        "'source' in headers && !('other' in headers)",
        "has(headers.source) && size(headers) == 3",
        r"headers.raw == b'\xff\xfe'",
        "value.contains('price')",
        "json.price > 12 && json.n == 3",
        "json.to.city == 'Köln'",
        "'b' in json.tags && json.tags[0] == 'a' && size(json.tags) == 2",
        "json.tags == ['a', 'b'] && json.tags != ['a'] && json == json && json != headers",
        "json.tags == json['tags'] && !(json.n in json.tags) && json.tags[1u] == 'b'",
        "type(headers) == map && type(json.tags) == list && 'to' in json",
        "json.none == null && has(json.to.city) && !has(json.to.street)",
        "type(json.n) == int && int(json.price) == 12",
        "key.matches('^key-[0-9]+$') && matches(topic, 'o.*s')",
        "json.n > 5 ? false : true",
        "true",
    ] {
        assert_eq!(wants(source, &record(JSON)), Ok(true), "{source}");
    }
}

#[test]
fn a_record_on_which_a_filter_fails_or_is_not_true_does_not_match() {
    for source in [
        "headers.other == 'x'",
        "json.other > 1",
        "json.price == 'dear'",
        "key > 3",
        "value + 1 == 2",
        "topic",
        "1",
        "size(1) == 1",
        "1 / 0 == 1",
        "9223372036854775807 + 1 > 0",
        "json.tags[9] == 'a'",
        "false",
    ] {
        assert_eq!(wants(source, &record(JSON)), Ok(false), "{source}");
    }
    assert_eq!(wants("json.a == 1", &record("no json")), Ok(false));
    assert_eq!(wants("json.a == 1 || true", &record("no json")), Ok(true));
}

#[test]
fn what_is_absent_is_null_and_what_is_no_text_is_bytes() {
    let mut one = record("");
    assert_eq!(wants("value == '' && value != null", &one), Ok(true));
    one.key = Some(Bytes::from_static(&[0x80]));
    one.value = None;
    one.headers = vec![Header {
        key: "h".into(),
        value: None,
    }];
    assert_eq!(wants(r"key == b'\x80'", &one), Ok(true));
    assert_eq!(wants("value == null && headers.h == null", &one), Ok(true));
    assert_eq!(wants("type == ''", &one), Ok(true));
    assert_eq!(wants("json == null", &one), Ok(false));
    one.key = None;
    assert_eq!(wants("key == null", &one), Ok(true));
}

#[test]
fn an_invalid_filter_is_refused_where_it_is_wrong() {
    for (source, place, what) in [
        ("type = 'x'", "line 1, column 6", ""),
        ("type == 'x' &&", "line 1, column 15", ""),
        (
            "type == 'x'\n  && kye == 'y'",
            "line 2, column 6",
            "name kye",
        ),
        (
            "'ä' == key && vaule == ''",
            "line 1, column 15",
            "name vaule",
        ),
        ("'ä' == key key", "line 1, column 12", ""),
        ("key == 'x", "line 1, column 8", "unterminated"),
        ("key == § ", "line 1, column 8", ""),
        ("key.lowerCase() == ''", "line 1, column 5", "lowerCase"),
        ("lower(key) == ''", "line 1, column 1", "function lower"),
        (
            "json.tags.exists(t, t == 'a')",
            "line 1, column 11",
            "exists",
        ),
        ("key in [1, 2].all(t, t > 0)", "line 1, column 15", "all"),
        ("['a'] == json.tags", "line 1, column 1", "follow"),
        ("key in [key]", "line 1, column 9", "literals"),
        ("{'a': 1}.a == 1", "line 1, column 1", "maps"),
        ("key.matches('a(')", "line 1, column 5", "unclosed group"),
        ("key.matches(value)", "line 1, column 5", "literal"),
        (
            "true && key.matches('a') && key.matches('[')",
            "line 1, column 33",
            "",
        ),
        (
            "key.matches('(a{1000}){1000}')",
            "line 1, column 5",
            "pattern",
        ),
    ] {
        let message = refused(source);
        assert!(message.contains(place), "{source}: {message}");
        assert!(message.contains(what), "{source}: {message}");
    }
    refused("");
    refused("   ");
}

#[test]
fn an_expression_has_a_bound_in_every_direction() {
    let long = format!("key == '{}'", "x".repeat(EXPRESSION_BYTES));
    let nested = |depth: usize| format!("{}true{}", "(".repeat(depth), ")".repeat(depth));
    let chained = |length: usize| format!("1{} < 1", " - 1".repeat(length));
    let any = |length: usize| format!("key == 'a'{}", " || key == 'b'".repeat(length));
    let calls = ["key.matches('a')"; 40].join(" || ");
    for source in [
        long,
        nested(2_000),
        chained(60),
        any(200),
        format!("!{}true", "!".repeat(2_000)),
        format!("key{} == ''", ".a".repeat(400)),
        format!("key{} == ''", "[0]".repeat(160)),
        format!("true{}", " ? true : true".repeat(120)),
        format!("key in [{}]", "1,".repeat(300)),
        format!("value == value{}", " + value".repeat(9)),
    ] {
        refused(&source);
    }
    for source in [nested(10), chained(15), any(100), calls] {
        assert!(Filter::compile(&source).is_ok(), "{source}");
    }
}

#[test]
fn the_deepest_expression_fits_on_a_small_stack() {
    let around: &[(&str, &str, &str)] = &[
        ("true", "!(", ")"),
        ("true", "(true ? ", " : false)"),
        ("key", "string(", ")"),
        ("key", "(", " + '')"),
        ("1", "(1 - ", ")"),
        ("key", "", ".a"),
        ("true", "true == (json.a in [1]) == (", ")"),
        ("true", "false || (false || ", ")"),
        ("true", "false == (", " == 1)"),
        ("key", "bytes(dyn(", "))"),
        ("'k'", "string(key.contains(", "))"),
        ("true", "string(", ").matches('a')"),
    ];
    let json = record(&("[".repeat(100) + &"]".repeat(100)));
    for (inner, before, after) in around {
        let mut source = (*inner).to_owned();
        let mut levels = 0;
        while levels < 60 && Filter::compile(&format!("{before}{source}{after}")).is_ok() {
            source = format!("{before}{source}{after}");
            levels += 1;
        }
        assert!((5..60).contains(&levels), "{source}");
        assert!(wants(&source, &json).is_ok(), "{source}");
    }
    assert_eq!(wants("json == json", &json), Ok(true));
}

#[test]
fn what_would_cost_too_much_is_neither_found_nor_passed_over() {
    let large = record(&format!("\"{}\"", "x".repeat(1 << 20)));
    assert_eq!(wants("json == 'x'", &large), Err(TooCostly::Json));
    assert_eq!(
        wants("size(value) < 1000 && json == 'x'", &large),
        Ok(false)
    );
    assert_eq!(wants("value.matches('y')", &large), Err(TooCostly::Pattern));
    assert_eq!(
        wants("key.matches('y') || value.contains('xx')", &large),
        Ok(true)
    );
    let any = format!("key == 'a'{}", " || key == 'b'".repeat(120));
    assert_eq!(wants(&any, &large), Err(TooCostly::Work));
    assert_eq!(wants("key == 'key-7'", &large), Ok(true));
    let smaller = record(&"x".repeat(200 << 10));
    assert_eq!(wants(&any, &smaller), Ok(false));
}

fn batch(codec: Compression, kinds: &str) -> Bytes {
    let mut builder = BatchBuilder::new(codec, 1 << 20);
    for (number, kind) in kinds.chars().enumerate() {
        let headers = [header("ce_type", kind.to_string().as_bytes())];
        let value = format!("value {number} {}", "-".repeat(50));
        let value = (kind != 't').then_some(value.as_bytes());
        assert!(builder.push(Some(b"k"), value, &headers, 7).unwrap());
    }
    builder.build()
}

/// Applies a filter to a batch at offset 100, decompressed as for a reader.
fn apply(
    filter: &Filter,
    bytes: &Bytes,
    from: u64,
    budget: &mut Budget,
) -> Result<Outcome, WireError> {
    let corrupt = |error| unreadable(&ORIGIN, 100, &error);
    let view = BatchView::trusted(bytes.clone()).map_err(corrupt)?;
    let mut unpacking = view.unpacking(16 << 20).map_err(corrupt)?;
    while !unpacking.step(1 << 20).map_err(corrupt)? {}
    filter.apply(&ORIGIN, 100, &view, &unpacking.into_payload(), from, budget)
}

fn applied(
    filter: &str,
    bytes: &Bytes,
    from: u64,
    budget: &mut Budget,
) -> (Vec<u64>, u64, Option<Bytes>) {
    let filter = Filter::compile(filter).unwrap();
    let outcome = apply(&filter, bytes, from, budget).unwrap();
    let mut offsets = Vec::new();
    if let Some(left) = &outcome.batch {
        let view = BatchView::trusted(left.clone()).unwrap();
        view.check_crc().unwrap();
        assert!(100 + view.last_offset_delta() as u64 + 1 >= outcome.next_offset);
        let whole = BatchView::trusted(bytes.clone()).unwrap();
        let whole = whole.records(1 << 20).unwrap();
        for record in view.records(1 << 20).unwrap() {
            let delta = record.offset_delta as usize;
            assert_eq!(record, whole[delta], "what is left is as it was");
            offsets.push(100 + delta as u64);
        }
    }
    (offsets, outcome.next_offset, outcome.batch)
}

#[test]
fn of_a_batch_what_matches_is_left_at_its_offsets() {
    for codec in Compression::ALL {
        let bytes = batch(codec, "aabatbba");
        let apply = |filter, from| applied(filter, &bytes, from, &mut Budget::ample());
        let (offsets, next, _) = apply("type == 'a'", 100);
        assert_eq!((offsets, next), (vec![100, 101, 103, 107], 108), "{codec}");
        let (offsets, next, _) = apply("type == 'b'", 104);
        assert_eq!((offsets, next), (vec![105, 106], 108));
        let (offsets, next, _) = apply("value == null", 100);
        assert_eq!((offsets, next), (vec![104], 108));
        let (_, next, left) = apply("type == 'z'", 100);
        assert_eq!((next, left), (108, None));
        let (_, next, left) = apply("offset >= 0", 100);
        assert_eq!((next, left.as_ref()), (108, Some(&bytes)), "untouched");
        let (offsets, next, _) = apply("offset >= 0", 103);
        assert_eq!((offsets, next), (vec![103, 104, 105, 106, 107], 108));
    }
}

#[tokio::test(start_paused = true)]
async fn where_the_time_is_up_an_answer_is_short_and_the_next_one_goes_on() {
    let kinds: String = (0..100)
        .map(|n| if n % 3 == 0 { 'a' } else { 'b' })
        .collect();
    let bytes = batch(Compression::Lz4, &kinds);
    let (mut from, mut found, mut answers) = (100, Vec::new(), 0);
    while from < 200 {
        let (offsets, next, left) = applied("type == 'a'", &bytes, from, &mut Budget::none());
        assert!(next == from + 1, "{from} to {next}");
        let last = left.map(|left| BatchView::trusted(left).unwrap().last_offset_delta());
        assert!(last.is_none_or(|last| 100 + last as u64 + 1 == next));
        found.extend(offsets);
        (from, answers) = (next, answers + 1);
    }
    assert_eq!(found, (100..200).step_by(3).collect::<Vec<u64>>());
    assert_eq!(answers, 100);
}

#[test]
fn what_was_found_before_a_costly_record_goes_out_first() {
    let mut builder = BatchBuilder::new(Compression::None, 1 << 20);
    for value in [r#"{"a": 1}"#, &"x".repeat(20_000), r#"{"a": 1}"#] {
        assert!(builder.push(None, Some(value.as_bytes()), &[], 7).unwrap());
    }
    let bytes = builder.build();
    let filter = Filter::compile("value.matches('a')").unwrap();
    let mut budget = Budget::ample();
    let outcome = apply(&filter, &bytes, 100, &mut budget).unwrap();
    assert_eq!((outcome.next_offset, outcome.stopped), (101, true));
    assert!(outcome.batch.is_some());
    let error = apply(&filter, &bytes, 101, &mut budget).unwrap_err();
    assert_eq!(error.code, ErrorCode::FilterTooCostly);
    assert!(error.message.contains("offset 101 of orders/3"), "{error}");
    let outcome = apply(&filter, &bytes, 102, &mut budget).unwrap();
    assert_eq!(outcome.next_offset, 103);
}

#[test]
fn what_does_not_unpack_is_an_error_and_not_skipped() {
    let mut damaged = batch(Compression::Zstd, "aaaa").to_vec();
    damaged.truncate(70);
    let length = (damaged.len() as i32 - 12).to_be_bytes();
    damaged[8..12].copy_from_slice(&length);
    let filter = Filter::compile("true").unwrap();
    let bytes = Bytes::from(damaged);
    let error = apply(&filter, &bytes, 100, &mut Budget::ample()).unwrap_err();
    assert_eq!(error.code, ErrorCode::CorruptBatch);
}

#[test]
fn the_most_a_filter_may_do_to_a_record_ends_soon() {
    let patterns = ["value.matches('(x+x+)+y|[a-z]{1,50}\\\\d')"; 8].join(" || ");
    let text = record(&"x".repeat(16 << 10));
    let large = record(&"x".repeat(1 << 20));
    let joined = format!("size(value{}) > 0", " + value".repeat(8));
    let contains = ["value.contains('xxxxxxxxxxxxxxxxxy')"; 18].join(" || ");
    let clock = tokio::time::Instant::now();
    // An error quotes the value that caused it. That must not copy the value.
    let numbers = record(&format!("[{}0]", "0,".repeat(30_000)));
    let failing = ["json - 1 == 1"; 80].join(" || ");
    let mut many = record("");
    many.headers = vec![header("a", b""); 1_000];
    let headers = ["headers - 1 == 1"; 80].join(" || ");
    assert_eq!(wants(&failing, &numbers), Ok(false));
    assert_eq!(wants(&headers, &many), Ok(false));
    for (source, record) in [(&patterns, &text), (&joined, &large), (&contains, &large)] {
        assert!(wants(source, record).is_ok(), "{source}");
    }
    assert!(clock.elapsed() < Duration::from_secs(10));
}

fn piece() -> impl Strategy<Value = String> {
    prop_oneof![
        prop::sample::select(vec![
            "key",
            "value",
            "json",
            "headers",
            "type",
            "topic",
            "offset",
            "'a'",
            "b'\\xff'",
            "1",
            "2u",
            "1.5",
            "null",
            "true",
            "==",
            "!=",
            "<",
            "<=",
            "&&",
            "||",
            "!",
            "-",
            "+",
            "*",
            "/",
            "%",
            "(",
            ")",
            "[",
            "]",
            "{",
            "}",
            ".",
            ",",
            "?",
            ":",
            "in",
            "has(",
            "size(",
            ".a",
            ".contains(",
            ".matches('a')",
            "string(",
            "int(",
            "`",
            "'",
            "\"",
            "\\",
            "//",
            "\n",
            "é",
            "0x",
            "1e",
        ])
        .prop_map(str::to_owned),
        "\\PC{0,3}",
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(3_000))]

    #[test]
    fn no_text_does_harm_as_a_filter(
        pieces in prop::collection::vec(piece(), 0..24),
        spaced in any::<bool>(),
    ) {
        let source = pieces.join(if spaced { " " } else { "" });
        // `compile` turns a panic into an error; here a panic fails the test.
        match std::panic::catch_unwind(|| read(&source)) {
            Err(_) => prop_assert!(false, "{source:?} panics"),
            Ok(Err(error)) => prop_assert_eq!(error.code, ErrorCode::InvalidFilter),
            Ok(Ok(filter)) => {
                for record in [record(JSON), record("")] {
                    let wants = filter.wants(&ORIGIN, 1, &record);
                    prop_assert!(wants != Err(TooCostly::Fault), "{source:?}");
                }
            }
        }
    }

}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(100))]

    #[test]
    fn a_batch_in_pieces_gives_what_it_gives_at_once(
        kinds in "[abt]{1,30}",
        codec in prop::sample::select(&Compression::ALL[..]),
        from in 0_u64..30,
    ) {
        let bytes = batch(codec, &kinds);
        let end = 100 + kinds.len() as u64;
        let from = 100 + from % kinds.len() as u64;
        let (at_once, next, _) = applied("type == 'a'", &bytes, from, &mut Budget::ample());
        prop_assert_eq!(next, end);
        let (mut at, mut found) = (from, Vec::new());
        while at < end {
            let (offsets, next, _) = applied("type == 'a'", &bytes, at, &mut Budget::none());
            found.extend(offsets.into_iter().filter(|offset| *offset >= at));
            at = next;
        }
        let wanted = at_once.into_iter().filter(|offset| *offset >= from);
        prop_assert_eq!(found, wanted.collect::<Vec<_>>());
    }
}
