//! `key …` and `spend` against a server that answers as a proxy does.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpListener;
use std::sync::mpsc::{Receiver, channel};
use std::thread;

use super::run;

const SECRET: &str = "sk-canary-0123456789abcdef";
/// SHA-256 of [`SECRET`].
const DIGEST: &str = "f344b384b305d4c8a266a89b8f41e7b6bfd9fbd9477ed260a960ec4ad1dd4dfa";
const MASTER_KEY: (&str, &str) = ("DHEERA_AI_MASTER_KEY", "sk-master-0123456789");

/// A request as it arrived: `GET /path?query`, headers in lower case, body.
#[derive(Debug)]
struct Seen {
    line: String,
    headers: String,
    body: String,
}

/// Answers each request with status and text, and tells what it saw.
struct Stub {
    url: String,
    seen: Receiver<Seen>,
}

impl Stub {
    /// `answers` in order, each on a connection of its own.
    fn new(answers: &[(u16, &str)]) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let answers: Vec<(u16, String)> = answers.iter().map(|(status, text)| (*status, (*text).to_owned())).collect();
        let (tell, seen) = channel();
        thread::spawn(move || {
            for (status, text) in answers {
                let (mut stream, _) = listener.accept().unwrap();
                let mut reader = BufReader::new(stream.try_clone().unwrap());
                let mut head = String::new();
                while !head.ends_with("\r\n\r\n") {
                    assert!(reader.read_line(&mut head).unwrap() > 0, "{head}");
                }
                let (line, headers) = head.split_once("\r\n").unwrap();
                let headers = headers.to_lowercase();
                let length = headers.lines().find_map(|header| header.strip_prefix("content-length: "));
                let mut body = vec![0; length.map_or(0, |length| length.parse().unwrap())];
                reader.read_exact(&mut body).unwrap();
                let line = line.strip_suffix(" HTTP/1.1").unwrap().to_owned();
                tell.send(Seen { line, headers, body: String::from_utf8(body).unwrap() }).unwrap();
                write!(
                    stream,
                    "HTTP/1.1 {status} X\r\nlocation: http://127.0.0.1:1/elsewhere\r\ncontent-length: {}\r\n\
                     connection: close\r\n\r\n{text}",
                    text.len()
                )
                .unwrap();
            }
        });
        Self { url, seen }
    }

    fn run(&self, arguments: &[&str]) -> (String, String, String) {
        run(&[arguments, &["--url", &self.url]].concat(), &[MASTER_KEY])
    }

    /// The requests so far.
    fn seen(&self) -> Vec<Seen> {
        self.seen.try_iter().collect()
    }
}

fn info(id: &str) -> String {
    format!(
        r#"{{"key":"x","info":{{"key_id":"{id}","key_alias":"ci","spend":0.1,"max_budget":9007199.254740991,"models":[]}}}}"#
    )
}

const NOT_FOUND: (u16, &str) = (404, r#"{"message":"No such key."}"#);

#[test]
fn a_new_key_stands_alone_on_stdout() {
    let made = format!(r#"{{"key":"{SECRET}","key_id":"k-1","key_alias":"ci","max_budget":10}}"#);
    let stub = Stub::new(&[(200, &made)]);
    let (code, out, err) = stub.run(&[
        "key",
        "create",
        "--alias",
        "ci",
        "--models",
        "a,b/*",
        "--max-budget",
        "10.000000001",
        "--soft-budget",
        "5",
        "--budget-duration",
        "30d",
        "--duration",
        "-1",
        "--rpm",
        "60",
        "--tpm",
        "9000",
        "--max-parallel",
        "4",
        "--team",
        "t",
        "--user",
        "u",
        "--budget",
        "b",
        "--tags",
        "x,y",
        "--operations",
        "Converse*",
        "--regions",
        "us-west-2",
        "--metadata",
        "{\"a\": 1}",
        "--set",
        "blocked=false",
    ]);
    assert_eq!((code.as_str(), out.as_str()), ("0", format!("{SECRET}\n").as_str()), "{err}");
    assert_eq!(err, "id k-1, alias ci, budget 10. This key is shown only once: keep it.\n");
    let [seen] = &stub.seen()[..] else { panic!() };
    assert_eq!(seen.line, "POST /key/generate");
    assert!(seen.headers.contains("authorization: bearer sk-master-0123456789\r\n"), "{}", seen.headers);
    assert!(seen.headers.contains("content-type: application/json\r\n"), "{}", seen.headers);
    assert_eq!(
        seen.body,
        r#"{"allowed_operations":["Converse*"],"allowed_regions":["us-west-2"],"blocked":false,"budget_duration":"30d","budget_id":"b","duration":"-1","key_alias":"ci","max_budget":10.000000001,"max_parallel_requests":4,"metadata":{"a": 1},"models":["a","b/*"],"rpm_limit":60,"soft_budget":5,"tags":["x","y"],"team_id":"t","tpm_limit":9000,"user_id":"u"}"#
    );
}

#[test]
fn nothing_but_the_answer_is_printed_with_json() {
    let made = format!(r#"{{"key":"{SECRET}","max_budget":0.1}}"#);
    let stub = Stub::new(&[(200, &made)]);
    let (code, out, err) = stub.run(&["key", "create", "--json"]);
    assert_eq!((code.as_str(), out, err.as_str()), ("0", format!("{made}\n"), ""));
    assert_eq!(stub.seen()[0].body, "{}");
}

#[test]
fn keys_are_listed_as_a_table() {
    let keys = r#"{"keys":[
        {"key_id":"k-1","key_alias":"ci","spend":0.000000001,"max_budget":10,"status":"active","expires":null},
        {"key_id":"k-22","key_alias":null,"spend":12.5,"max_budget":null,"status":"blocked","expires":null}
    ],"total_count":2,"current_page":1,"total_pages":1}"#;
    let stub = Stub::new(&[(200, keys)]);
    let (code, out, _) = stub.run(&["key", "list", "--team", "a b&c"]);
    assert_eq!(code, "0");
    assert_eq!(
        out,
        "KEY ID  KEY ALIAS  STATUS         SPEND  MAX BUDGET\n\
         k-1     ci         active   0.000000001          10\n\
         k-22               blocked         12.5\n"
    );
    assert_eq!(stub.seen()[0].line, "GET /key/list?page=1&size=100&return_full_object=true&team_id=a%20b%26c");
    let empty = Stub::new(&[(200, r#"{"keys":[]}"#)]);
    assert!(empty.run(&["key", "list"]).1.contains("dheera_ai key create"));
}

#[test]
fn a_key_is_found_by_id_alias_or_secret_and_no_secret_stands_in_a_url() {
    let shown = "key_id      k-1\nkey_alias   ci\nspend       0.1\nmax_budget  9007199.254740991\n";
    let by_id = Stub::new(&[(200, &info("k-1"))]);
    assert_eq!(by_id.run(&["key", "show", "k-1"]), ("0".to_owned(), shown.to_owned(), String::new()));
    assert_eq!(by_id.seen()[0].line, "GET /key/info?key=k%2D1");

    let by_secret = Stub::new(&[(200, &info("k-1"))]);
    assert_eq!(by_secret.run(&["key", "show", SECRET]).0, "0");
    let line = by_secret.seen().remove(0).line;
    let digest = line.strip_prefix("GET /key/info?key=").unwrap();
    assert!(digest.len() == 64 && digest.bytes().all(|byte| byte.is_ascii_hexdigit()), "{line}");
    assert_eq!(digest, DIGEST);

    let listed = r#"{"keys":[{"key_id":"k-0","key_alias":"ci-old"},{"key_id":"k-1","key_alias":"ci"}]}"#;
    let by_alias = Stub::new(&[NOT_FOUND, (200, listed), (200, &info("k-1")), (200, "{}")]);
    let (code, out, err) = by_alias.run(&["key", "update", "ci", "--max-budget", "0", "--clear", "rpm_limit,models"]);
    assert_eq!((code.as_str(), out.as_str(), err.as_str()), ("0", "", "k-1 is changed.\n"));
    let seen = by_alias.seen();
    assert_eq!(seen[1].line, "GET /key/list?key_alias=ci&size=100&return_full_object=true");
    assert_eq!(
        (seen[3].line.as_str(), seen[3].body.as_str()),
        ("POST /key/update", r#"{"key":"k-1","max_budget":0,"models":null,"rpm_limit":null}"#)
    );

    let nobody = Stub::new(&[NOT_FOUND, (200, r#"{"keys":[{"key_id":"k-0","key_alias":"ci-old"}]}"#)]);
    let (code, out, err) = nobody.run(&["key", "block", "ci"]);
    assert_eq!((code.as_str(), out.as_str()), ("1", ""));
    assert!(err.contains("`ci`: no key has this id or alias"), "{err}");
}

#[test]
fn every_command_asks_for_what_it_says() {
    for (arguments, path, body, said) in [
        (vec!["key", "block", "k"], "POST /key/block", r#"{"key":"k-1"}"#, "k-1 is blocked.\n"),
        (vec!["key", "unblock", "k"], "POST /key/unblock", r#"{"key":"k-1"}"#, "k-1 is not blocked any more.\n"),
        (vec!["key", "delete", "k"], "POST /key/delete", r#"{"keys":["k-1"]}"#, "k-1 is deleted.\n"),
        (
            vec!["key", "regenerate", "k", "--grace-period", "24h"],
            "POST /key/regenerate",
            r#"{"grace_period":"24h","key":"k-1"}"#,
            "id k-1. This key is shown only once: keep it.\n",
        ),
    ] {
        let stub = Stub::new(&[(200, &info("k-1")), (200, r#"{"key":"sk-new","key_id":"k-1"}"#)]);
        let (code, out, err) = stub.run(&arguments);
        assert_eq!((code.as_str(), err.as_str()), ("0", said), "{arguments:?}");
        assert_eq!(out, if path.ends_with("regenerate") { "sk-new\n" } else { "" });
        let seen = stub.seen();
        assert_eq!((seen[1].line.as_str(), seen[1].body.as_str()), (path, body));
    }
}

#[test]
fn spend_is_shown_to_the_last_nano_dollar() {
    let report = r#"{"data":[
        {"api_key":"k-1","key_alias":"ci","spend":9007199.254740991,"requests":2,"total_tokens":30},
        {"api_key":null,"key_alias":null,"spend":-0.1,"requests":1,"total_tokens":0}
    ],"group_by":"key","start_date":"2026-11-01","end_date":"2026-11-22","total_spend":9007199.154740991,"left_off":3}"#;
    let stub = Stub::new(&[(200, report)]);
    let (code, out, err) = stub.run(&["spend", "--by", "key", "--from", "2026-11-01", "--limit", "2"]);
    assert_eq!((code.as_str(), err.as_str()), ("0", ""));
    assert_eq!(
        out,
        "API KEY  KEY ALIAS              SPEND  REQUESTS  TOTAL TOKENS\n\
         k-1      ci         9007199.254740991         2            30\n\
         \u{20}                                -0.1         1             0\n\
         3 more lines, see --limit\n\
         Spent from 2026-11-01 to 2026-11-22: $9007199.154740991\n"
    );
    assert_eq!(stub.seen()[0].line, "GET /global/spend/report?group_by=key&start_date=2026%2D11%2D01&limit=2");
    let csv = Stub::new(&[(200, "date,spend\n2026-11-22,1\n")]);
    assert_eq!(csv.run(&["spend", "--csv"]).1, "date,spend\n2026-11-22,1\n");
    let seen = csv.seen();
    assert!(seen[0].line.ends_with("group_by=day") && seen[0].headers.contains("accept: text/csv\r\n"), "{seen:?}");
}

#[test]
fn the_proxy_s_message_is_passed_on_and_exits_with_one() {
    let refused = r#"{"message":"`max_budgt` is unknown. Did you mean `max_budget`?"}"#;
    let stub = Stub::new(&[(400, refused)]);
    let (code, out, err) = stub.run(&["key", "create", "--set", "max_budgt=1"]);
    assert_eq!((code.as_str(), out.as_str()), ("1", ""));
    assert_eq!(err, "error: `max_budgt` is unknown. Did you mean `max_budget`?\n");
    let denied = Stub::new(&[(403, r#"{"message":"The key is wrong."}"#)]);
    assert_eq!(denied.run(&["key", "show", "k"]).2, "error: The key is wrong.\n");
    for (status, text, told) in
        [(502, "<html>", "answers 502"), (307, "", "points elsewhere"), (200, "<html>", "same version")]
    {
        let (code, _, err) = Stub::new(&[(status, text)]).run(&["key", "list"]);
        assert!(code == "1" && err.contains(told), "{err}");
    }
}

#[test]
fn a_proxy_that_is_not_there_is_told_with_what_to_do() {
    // A port that was free a moment ago.
    let url = format!("http://{}", TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap());
    let (code, out, err) = run(&["spend", "--url", &url], &[MASTER_KEY]);
    assert_eq!((code.as_str(), out.as_str()), ("1", ""));
    assert!(err.contains("nothing listens there") && err.contains("dheera_ai --config"), "{err}");
    let (code, _, err) = run(&["key", "list"], &[]);
    assert!(code == "1" && err.contains("DHEERA_AI_MASTER_KEY"), "{err}");
    let (_, _, err) = run(&["key", "list", "--url", "localhost:4000"], &[MASTER_KEY]);
    assert!(err.contains("is not the URL of a proxy"), "{err}");
    let (_, _, err) = run(&["key", "list", "--ca", "/nowhere.pem"], &[MASTER_KEY]);
    assert!(err.contains("/nowhere.pem cannot be read"), "{err}");
    let stub = Stub::new(&[(200, r#"{"keys":[]}"#)]);
    assert_eq!(run(&["key", "list"], &[MASTER_KEY, ("DHEERA_AI_URL", &stub.url)]).0, "0");
}

#[test]
fn a_wrong_option_is_named_before_anything_is_sent() {
    for (arguments, told) in [
        (vec!["key", "create", "--max-budget", "ten"], "US dollars"),
        (vec!["key", "create", "--max-budget", "1e-10"], "US dollars"),
        (vec!["key", "create", "--max-budget=-1"], "US dollars"),
        (vec!["key", "create", "--metadata", "{a}"], "is not JSON"),
        (vec!["key", "create", "--set", "blocked"], "FIELD=JSON"),
        (vec!["key", "create", "--set", "a b=1"], "name of a field"),
        (vec!["key", "update"], "<KEY>"),
        (vec!["key", "delete"], "<KEY>"),
        (vec!["key", "list", "--size", "101"], "1..=100"),
        (vec!["spend", "--by", "hour"], "possible values"),
        (vec!["spend", "--csv", "--json"], "cannot be used with"),
    ] {
        let (code, out, err) = run(&arguments, &[MASTER_KEY]);
        assert_eq!((code.as_str(), out.as_str()), ("2", ""), "{arguments:?}");
        assert!(err.contains(told), "{err}");
    }
    for arguments in [
        vec!["key", "create", "--metadata", "{}", "--set", "metadata={}"],
        vec!["key", "update", "k"],
        vec!["key", "update", "k", "--rpm", "1", "--clear", "rpm_limit"],
    ] {
        assert_eq!(run(&[&arguments[..], &["--url", "http://127.0.0.1:1"]].concat(), &[MASTER_KEY]).0, "1");
    }
}

#[test]
fn help_teaches_by_examples() {
    for (arguments, taught) in [
        (vec!["key", "--help"], "regenerate"),
        (vec!["key", "create", "--help"], "KEY=$(dheera_ai key create"),
        (vec!["key", "update", "--help"], "--clear"),
        (vec!["spend", "--help"], "--by model"),
    ] {
        let (code, out, _) = run(&arguments, &[]);
        assert!(code == "0" && out.contains(taught), "{out}");
        assert!(!out.contains("--num-workers"), "{out}");
    }
}
