use super::*;
use proptest::prelude::*;

const SITES: &[Site<&str, &str>] = &[
    Site {
        path: &[],
        role: "root",
        members: &[
            Member { name: "n", want: Want::Number, field: "n" },
            Member { name: "list", want: Want::Elements, field: "list" },
            Member { name: "long", want: Want::Length, field: "long" },
        ],
    },
    Site {
        path: &["usage"],
        role: "usage",
        members: &[
            Member { name: "in", want: Want::Number, field: "in" },
            Member { name: "tier", want: Want::Text, field: "tier" },
        ],
    },
    Site {
        path: &["any", ANY, EACH, "x"],
        role: "deep",
        members: &[Member { name: "v", want: Want::Number, field: "v" }],
    },
];

#[derive(Default, Debug, PartialEq, Eq, Clone)]
struct Log(Vec<String>);

impl Sink for Log {
    type Role = &'static str;
    type Field = &'static str;
    fn begin(&mut self, role: &'static str) {
        self.0.push(format!("<{role}"));
    }
    fn end(&mut self, role: &'static str) {
        self.0.push(format!("{role}>"));
    }
    fn value(&mut self, role: &'static str, field: &'static str, value: Value<'_>) {
        self.0.push(format!("{role}.{field}={value:?}"));
    }
}

fn scan<'a>(pieces: impl IntoIterator<Item = &'a [u8]>) -> (Vec<String>, bool, bool) {
    let mut scanner = Scanner::new(SITES);
    let mut log = Log::default();
    let mut failed = false;
    for piece in pieces {
        failed |= scanner.push(piece, &mut log).is_err();
    }
    (log.0, scanner.complete(), failed)
}

const DOCUMENT: &str = r#" {"skip":{"usage":{"in":9},"n":8,"s":"}]\"{"},"long":"ab\"c","n":12,"list":[1,{"in":2},[3]],
 "usage":{"in":3,"tier":"flex","other":[{"in":4}]},"any":{"k":[{"x":{"v":5}},{"y":1},{"x":{"v":6}}]},"t":true} "#;

#[test]
fn only_wanted_values_at_their_paths_are_found() {
    let (log, complete, failed) = scan([DOCUMENT.as_bytes()]);
    assert_eq!(
        log,
        [
            "<root",
            "root.long=Length(5)",
            "root.n=Count(12)",
            "root.list=Elements(3)",
            "<usage",
            "usage.in=Count(3)",
            "usage.tier=Text([102, 108, 101, 120])",
            "usage>",
            "<deep",
            "deep.v=Count(5)",
            "deep>",
            "<deep",
            "deep.v=Count(6)",
            "deep>",
            "root>",
        ]
    );
    assert!(complete && !failed);
}

#[test]
fn every_cut_and_single_bytes_find_the_same() {
    let whole = scan([DOCUMENT.as_bytes()]);
    for at in 0..=DOCUMENT.len() {
        let (left, right) = DOCUMENT.as_bytes().split_at(at);
        assert_eq!(scan([left, right]), whole, "cut at {at}");
    }
    assert_eq!(scan(DOCUMENT.as_bytes().chunks(1)), whole);
}

#[test]
fn numbers_are_whole_or_shown_as_written() {
    for (json, value) in [
        ("0", "Count(0)"),
        ("18446744073709551615", "Count(18446744073709551615)"),
        ("99999999999999999999999999999999999999999", "Count(18446744073709551615)"),
        ("-1", "Number([45, 49])"),
        ("1.5", "Number([49, 46, 53])"),
        ("1e3", "Number([49, 101, 51])"),
        ("null", "Null"),
        ("true", "Other"),
        ("\"7\"", "Other"),
        ("{}", "Other"),
        ("[7]", "Other"),
    ] {
        let document = format!("{{\"n\":{json}}}");
        assert_eq!(scan([document.as_bytes()]).0, ["<root", &format!("root.n={value}"), "root>"], "{json}");
    }
}

#[test]
fn malformed_text_stops_the_scan_for_good() {
    for text in
        ["{]", "{\"a\" 1}", "{\"a\":}", "{\"any\":{\"k\":[,]}}", "}", "{\"a\":1}x", "{1:2}", "{\"usage\":{\"in\":1]}"]
    {
        let mut scanner = Scanner::new(SITES);
        let mut log = Log::default();
        assert_eq!(scanner.push(text.as_bytes(), &mut log), Err(Malformed), "{text}");
        assert_eq!(scanner.push(b"{}", &mut log), Err(Malformed), "{text}");
        assert!(!scanner.complete());
    }
}

#[test]
fn depth_costs_no_memory_and_no_stack() {
    let mut bomb = b"{\"a\":".to_vec();
    bomb.extend(std::iter::repeat_n(b'[', 1_000_000));
    bomb.extend(std::iter::repeat_n(b']', 1_000_000));
    bomb.extend_from_slice(b",\"n\":1}");
    let (log, complete, _) = scan([bomb.as_slice()]);
    assert!(complete);
    assert_eq!(log, ["<root", "root.n=Count(1)", "root>"]);
}

#[test]
fn a_long_key_matches_only_a_wildcard() {
    let key = "k".repeat(500);
    let json = format!(r#"{{"{key}":1,"any":{{"{key}":[{{"x":{{"v":1}}}}]}}}}"#);
    for pieces in [vec![json.as_bytes()], json.as_bytes().chunks(3).collect()] {
        assert_eq!(scan(pieces).0, ["<root", "<deep", "deep.v=Count(1)", "deep>", "root>"]);
    }
}

#[test]
fn a_text_over_the_limit_is_not_kept_however_it_is_cut() {
    let json = format!(r#"{{"usage":{{"tier":"{}"}}}}"#, "x".repeat(TEXT_BYTES_MAX + 1));
    let whole = scan([json.as_bytes()]);
    assert!(whole.0.contains(&"usage.tier=Other".to_owned()));
    assert_eq!(scan(json.as_bytes().chunks(7)), whole);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn arbitrary_bytes_read_the_same_however_they_are_cut(
        bytes in proptest::collection::vec(prop_oneof![any::<u8>(), proptest::sample::select(b"{}[]\",:\\0un".to_vec())], 0..300),
        size in 1usize..40,
    ) {
        prop_assert_eq!(scan([bytes.as_slice()]), scan(bytes.chunks(size)));
    }

    #[test]
    fn what_serde_json_reads_at_the_path_is_what_the_scanner_reads(count in any::<u64>(), noise in "\\PC{0,40}") {
        let document = serde_json::json!({"noise": {"usage": {"in": 1}, "t": noise}, "usage": {"z": noise, "in": count}});
        let text = document.to_string();
        let expected = format!("usage.in=Count({count})");
        prop_assert!(scan(text.as_bytes().chunks(5)).0.contains(&expected));
    }
}
