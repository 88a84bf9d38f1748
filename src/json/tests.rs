use proptest::collection::vec;
use proptest::prelude::*;
use serde::de::IgnoredAny;

use super::*;

/// Documents that have much in them where a reader can go wrong.
const DOCUMENTS: [&str; 6] = [
    r#"{"messages":[{"role":"user","content":[{"text":"a \"b\"\n\\ \u00e9 \ud83d\ude00 \/"},{"n":-1.5e+3}]}],"n":[0,10,1E5,true,null]}"#,
    " { \"a\" : [ ] , \"b\" : { } ,\r\n\t\"c\" : [ [ 1 , 2 ] , { \"d\" : false } ] } ",
    r#"["a string that is longer than what is looked at word by word, and then goes on to its end \" here","é😀"]"#,
    r#"{"a":18446744073709551615,"b":18446744073709551616,"c":-0,"d":0.10,"a":1e400}"#,
    r#""\ud83d""#,
    "7",
];

/// What changes a document into another one, or into none.
fn change() -> impl Strategy<Value = (prop::sample::Index, u8, Vec<u8>)> {
    let piece = prop_oneof![
        vec(prop::sample::select(b"{}[],:\"\\/u019aeE.+- \n\ttfn\x00\x1f\xc3\xa9\xff".to_vec()), 1..4),
        prop::sample::select(vec![
            "\\u", "\\ud83d", "\\udc00", "\\u00", "null", "true", "1e", "00", "{}", "[]", "\"\""
        ])
        .prop_map(|piece| piece.as_bytes().to_vec()),
    ];
    (any::<prop::sample::Index>(), 0..8_u8, piece)
}

fn changed(document: &str, changes: Vec<(prop::sample::Index, u8, Vec<u8>)>) -> Vec<u8> {
    let mut bytes = document.as_bytes().to_vec();
    for (at, removed, piece) in changes {
        let at = at.index(bytes.len() + 1);
        let end = bytes.len().min(at + usize::from(removed));
        bytes.splice(at..end, piece);
    }
    bytes
}

fn is_json(mut reader: Reader<'_>) -> bool {
    reader.skip().and_then(|_| reader.end()).is_some()
}

/// Whether `serde_json` takes it, of any depth and with numbers of any size.
fn is_ignored(document: &[u8]) -> bool {
    serde_json::from_slice::<IgnoredAny>(document).is_ok()
}

#[derive(Debug, PartialEq)]
enum Tree {
    Leaf(Option<String>),
    Count(u64),
    Array(Vec<Tree>),
    Object(Vec<(String, Tree)>),
}

fn read(reader: &mut Reader<'_>) -> Option<Tree> {
    Some(match reader.value()? {
        Value::Text(text) => {
            let decoded = text.decoded()?.into_owned();
            assert_eq!(text.len(), decoded.len());
            assert!(text.is(&decoded) && !text.is("another"));
            Tree::Leaf(Some(decoded))
        }
        Value::Count(count) => Tree::Count(count),
        Value::Number(number) => {
            serde_json::from_slice::<f64>(number).ok()?;
            Tree::Leaf(None)
        }
        Value::Null | Value::Bool => Tree::Leaf(None),
        Value::Array => {
            let mut elements = Vec::new();
            reader.elements(|reader| {
                elements.push(read(reader)?);
                Some(())
            })?;
            Tree::Array(elements)
        }
        Value::Object => {
            let mut members = Vec::new();
            reader.members(|reader, name| {
                members.push((name.decoded()?.into_owned(), read(reader)?));
                Some(())
            })?;
            Tree::Object(members)
        }
    })
}

/// The same by `serde_json`.
fn tree(value: &serde_json::Value) -> Tree {
    match value {
        serde_json::Value::String(text) => Tree::Leaf(Some(text.clone())),
        serde_json::Value::Number(number) => number.as_u64().map_or(Tree::Leaf(None), Tree::Count),
        serde_json::Value::Array(elements) => Tree::Array(elements.iter().map(tree).collect()),
        serde_json::Value::Object(members) => {
            Tree::Object(members.iter().map(|(name, value)| (name.clone(), tree(value))).collect())
        }
        _ => Tree::Leaf(None),
    }
}

/// Names sorted, of equal ones the last: what a tree of `serde_json` has.
fn without_duplicates(tree: Tree) -> Tree {
    match tree {
        Tree::Array(elements) => Tree::Array(elements.into_iter().map(without_duplicates).collect()),
        Tree::Object(members) => {
            let last: std::collections::BTreeMap<_, _> = members.into_iter().collect();
            Tree::Object(last.into_iter().map(|(name, value)| (name, without_duplicates(value))).collect())
        }
        leaf => leaf,
    }
}

fn compare(document: &[u8]) -> Result<(), TestCaseError> {
    let shown = String::from_utf8_lossy(document);
    prop_assert_eq!(is_json(Reader::new(document)), is_ignored(document), "{}", shown);
    let expected = serde_json::from_slice::<serde_json::Value>(document).ok();
    let found = Reader::strict(document).and_then(|mut reader| {
        let tree = read(&mut reader)?;
        reader.end().map(|()| tree)
    });
    prop_assert_eq!(found.map(without_duplicates), expected.as_ref().map(tree), "{}", shown);
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4_000))]

    #[test]
    fn it_is_json_if_it_is_for_serde(document in prop::sample::select(DOCUMENTS.to_vec()), changes in vec(change(), 0..4)) {
        compare(&changed(document, changes))?;
    }

    #[test]
    fn it_is_a_string_if_it_is_for_serde(
        inside in vec(prop::sample::select(b"aaaaaaaaaaaaaaaa\\\\\"nu/d80c \x1f\xc3\xa9".to_vec()), 0..90),
    ) {
        compare(&[&b"\""[..], &inside, b"\""].concat())?;
    }

    #[test]
    fn it_is_a_number_if_it_is_for_serde(number in "[-+]?[0-9]{0,22}[.]?[0-9]{0,3}([eE][-+]?[0-9]{0,3})?") {
        compare(number.as_bytes())?;
        compare(format!("[{number}]").as_bytes())?;
    }
}

#[test]
fn depth_is_no_limit_to_what_is_leapt_over() {
    let deep = [r#"{"a":["#.repeat(5_000), "]}".repeat(5_000)].concat();
    let outline = Outline::read(deep.as_bytes(), &["a", "b"]).unwrap();
    assert_eq!(outline.member("a"), Member::Once { value: &deep.as_bytes()[5..deep.len() - 1], at: 5 });
    assert_eq!(outline.member("b"), Member::Missing);
    assert!(Outline::read(&deep.as_bytes()[..deep.len() - 1], &["a"]).is_none());
}

#[test]
fn members_are_found_wherever_they_stand() {
    let document = r#" {"x":{"user":"no"},"us\u0065r" : "a\"b" ,"n":[{"user":1}], "other":null } "#;
    let outline = Outline::read(document.as_bytes(), &["user", "other", "none"]).unwrap();
    assert_eq!(outline.member("user").value(), Some(&br#""a\"b""#[..]));
    assert_eq!(outline.member("other"), Member::Once { value: b"null", at: document.find("null").unwrap() });
    assert_eq!((outline.member("none"), outline.member("x")), (Member::Missing, Member::Missing));
}

#[test]
fn what_is_no_object_or_has_a_member_twice_has_none() {
    for document in ["", "[]", "{", "7", r#"{"a":1} 2"#, r#"{"a":1,}"#, r#"{"a" 1}"#, r#"{"a":1"#] {
        assert!(Outline::read(document.as_bytes(), &["a"]).is_none(), "{document}");
    }
    for document in [r#"{"a":1,"a":1}"#, r#"{"a":1,"\u0061":1}"#, r#"{"a":1,"a":2,"a":3}"#] {
        let outline = Outline::read(document.as_bytes(), &["a"]).unwrap();
        assert_eq!((outline.member("a"), outline.member("a").value()), (Member::Twice, None), "{document}");
    }
}

#[test]
fn half_a_character_is_text_only_where_nobody_reads_it() {
    for document in [r#"["\ud83d"]"#, r#"["\ude00"]"#, r#"["\ud83d\u0041"]"#] {
        assert!(is_json(Reader::new(document.as_bytes())), "{document}");
        assert!(!is_json(Reader::strict(document.as_bytes()).unwrap()), "{document}");
    }
    assert!(Reader::strict(b"\"\xff\"").is_none());
}
