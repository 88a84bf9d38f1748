//! The pages against a store and a directory that are lists in memory.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use serde_json::{Value, json};

use super::Spend;
use crate::admin::request::{Answer, ApiRequest};
use crate::budget::command::{AccountId, Applied, Balance, Charge, LeaseId, NodeId, Op, Reserve, Reserved};
use crate::budget::entry::{Dimension, Entry, EntryKind, Rollup, RollupKey, Row};
use crate::keys::secret_key::digest;
use crate::store::{
    Change, Changes, CommitError, Directory, Document, EntryPage, EntryQuery, Kind, LeaseCounts, LedgerStore,
    StoreError,
};
use crate::types::money::NanoUsd;

/// 2026-11-22T12:00:00Z.
const NOW_MS: u64 = 1_795_348_800_000;

/// A ledger that gives what it was made with, and remembers what it was asked.
#[derive(Debug, Default)]
struct Books {
    entries: Vec<Entry>,
    rollups: Vec<Rollup>,
    next: Option<String>,
    fails: Option<StoreError>,
    asked: Mutex<Vec<EntryQuery>>,
    ranges: Mutex<Vec<(String, String)>>,
}

#[async_trait]
impl LedgerStore for Books {
    fn is_local(&self) -> bool {
        true
    }

    fn clock_offset_ms(&self) -> i64 {
        0
    }

    async fn reserve(&self, _: &Reserve) -> Result<Reserved, StoreError> {
        unreachable!()
    }

    async fn extend(&self, _: &LeaseId, _: NanoUsd, _: &[Charge]) -> Result<Reserved, StoreError> {
        unreachable!()
    }

    async fn apply(&self, _: &NodeId, _: u64, _: &[Op]) -> Result<Applied, StoreError> {
        unreachable!()
    }

    async fn touch(&self, _: &[LeaseId], _: u64) -> Result<Vec<LeaseId>, StoreError> {
        unreachable!()
    }

    async fn reap(&self, _: usize) -> Result<usize, StoreError> {
        unreachable!()
    }

    async fn balances(&self, _: &[AccountId]) -> Result<Vec<Balance>, StoreError> {
        unreachable!()
    }

    async fn claim(&self, _: &AccountId, _: &str) -> Result<bool, StoreError> {
        unreachable!()
    }

    async fn entries(&self, query: &EntryQuery) -> Result<EntryPage, StoreError> {
        self.asked.lock().unwrap().push(query.clone());
        match &self.fails {
            Some(error) => Err(error.clone()),
            None => Ok(EntryPage { entries: self.entries.clone(), next: self.next.clone() }),
        }
    }

    async fn rollups(&self, from: &str, to: &str) -> Result<Vec<Rollup>, StoreError> {
        self.ranges.lock().unwrap().push((from.to_owned(), to.to_owned()));
        match &self.fails {
            Some(error) => Err(error.clone()),
            None => Ok(self.rollups.clone()),
        }
    }

    async fn forget(&self, _: u64) -> Result<(), StoreError> {
        unreachable!()
    }

    async fn lease_counts(&self) -> Result<LeaseCounts, StoreError> {
        unreachable!()
    }
}

#[derive(Debug, Default)]
struct Documents(BTreeMap<(Kind, String), String>);

#[async_trait]
impl Directory for Documents {
    async fn get(&self, kind: Kind, id: &str) -> Result<Option<Document>, StoreError> {
        let json = self.0.get(&(kind, id.to_owned()));
        Ok(json.map(|json| Document { id: id.to_owned(), version: 1, json: json.as_str().into() }))
    }

    async fn list(&self, _: Kind, _: Option<&str>, _: usize) -> Result<Vec<Document>, StoreError> {
        unreachable!()
    }

    async fn commit(&self, _: &[Change]) -> Result<(), CommitError> {
        unreachable!()
    }

    async fn changes(&self, _: Option<&str>) -> Result<Changes, StoreError> {
        unreachable!()
    }
}

struct Rig {
    books: Arc<Books>,
    spend: Spend,
}

fn rig(books: Books) -> Rig {
    let documents = [
        (Kind::Key, "k1", r#"{"id":"k1","alias":"reports","blocked":false}"#),
        (Kind::Team, "t1", r#"{"id":"t1","alias":"=cmd()"}"#),
    ];
    let mut kept: BTreeMap<(Kind, String), String> =
        documents.into_iter().map(|(kind, id, json)| ((kind, id.to_owned()), json.to_owned())).collect();
    kept.insert((Kind::Secret, digest("sk-0123456789abcdef")), r#"{"key_id":"k1"}"#.to_owned());
    let books = Arc::new(books);
    let ledger: Arc<dyn LedgerStore> = books.clone();
    Rig { books, spend: Spend { ledger, directory: Arc::new(Documents(kept)) } }
}

impl Rig {
    async fn ask(&self, accept: Option<&str>, target: &str) -> Answer {
        let (path, query) = target.split_once('?').unwrap_or((target, ""));
        let request = ApiRequest {
            method: "GET".to_owned(),
            path: path.to_owned(),
            query: query.to_owned(),
            accept: accept.map(str::to_owned),
            ..ApiRequest::default()
        };
        self.spend.answer_at(&request, NOW_MS).await.unwrap()
    }

    async fn json(&self, target: &str) -> Value {
        let answer = self.ask(None, target).await;
        assert_eq!(answer.status, 200, "{target}: {}", String::from_utf8_lossy(&answer.body));
        serde_json::from_slice(&answer.body).unwrap()
    }

    async fn text(&self, accept: Option<&str>, target: &str) -> String {
        let answer = self.ask(accept, target).await;
        assert_eq!(answer.status, 200, "{target}");
        String::from_utf8(answer.body).unwrap()
    }

    async fn refusal(&self, target: &str) -> (u16, String) {
        let answer = self.ask(None, target).await;
        assert!(answer.headers.iter().any(|(name, _)| *name == "x-amzn-errortype"), "{answer:?}");
        let body: Value = serde_json::from_slice(&answer.body).unwrap();
        (answer.status, body["message"].as_str().unwrap().to_owned())
    }
}

fn entry() -> Entry {
    Entry {
        at_ms: NOW_MS,
        kind: EntryKind::Request,
        cost_nano_usd: 12_870_000,
        row: Row {
            request_id: "r1".to_owned(),
            attempt: 1,
            started_at_ms: NOW_MS - 1500,
            duration_ms: 1250,
            key_id: "k1".to_owned(),
            key_alias: Some("reports".to_owned()),
            team_id: Some("t1".to_owned()),
            end_user: Some("-2+3".to_owned()),
            tags: vec!["a".to_owned(), "b".to_owned()],
            operation: "Converse".to_owned(),
            model: "claude".to_owned(),
            model_id: Some("us.anthropic.claude".to_owned()),
            deployment: Some("claude-1".to_owned()),
            region: Some("us-west-2".to_owned()),
            status: 200,
            prompt_tokens: 100,
            completion_tokens: 20,
            cache_read_tokens: 60,
            certainty: "exact".to_owned(),
            ..Row::default()
        }
        .into(),
    }
}

fn rollup(day: &str, dimension: Dimension, id: &str, model: &str, nano_usd: i64) -> Rollup {
    Rollup {
        day: day.to_owned(),
        of: RollupKey { dimension, id: id.to_owned(), model: model.to_owned() },
        cost_nano_usd: nano_usd,
        requests: 1,
        prompt_tokens: 10,
        completion_tokens: 1,
    }
}

fn rollups() -> Vec<Rollup> {
    vec![
        rollup("2026-11-20", Dimension::Key, "k1", "claude", 100),
        rollup("2026-11-20", Dimension::Team, "t1", "claude", 100),
        rollup("2026-11-20", Dimension::Tag, "a", "claude", 100),
        rollup("2026-11-20", Dimension::Tag, "b", "claude", 100),
        rollup("2026-11-21", Dimension::Key, "k1", "nova", 5),
        rollup("2026-11-21", Dimension::Key, "k2", "nova", 700),
        rollup("2026-11-21", Dimension::Customer, "c1", "nova", 700),
        // Late settles can make a day's sum negative.
        rollup("2026-11-22", Dimension::Key, "", "nova", -3),
    ]
}

#[tokio::test]
async fn an_entry_is_told_in_litellms_words_with_its_exact_cost() {
    let books = Books { entries: vec![entry()], next: Some("p2".to_owned()), ..Books::default() };
    let rig = rig(books);
    assert_eq!(
        rig.json("/spend/logs").await,
        json!({
            "data": [{
                "request_id": "r1", "call_type": "Converse", "api_key": "k1", "key_alias": "reports",
                "spend": 0.01287, "total_tokens": 120, "prompt_tokens": 100, "completion_tokens": 20,
                "startTime": "2026-11-22T11:59:58.500Z", "endTime": "2026-11-22T11:59:59.750Z",
                "model": "claude", "model_group": "claude", "model_id": "us.anthropic.claude",
                "user": null, "team_id": "t1", "end_user": "-2+3", "request_tags": ["a", "b"], "status": "success",
                "metadata": {
                    "kind": "request", "certainty": "exact", "booked_at": "2026-11-22T12:00:00.000Z",
                    "http_status": 200, "attempt": 1, "deployment": "claude-1", "region": "us-west-2",
                    "cache_read_tokens": 60, "cache_write_tokens": 0,
                },
            }],
            "next_page_token": "p2",
        })
    );
    assert!(rig.text(None, "/spend/logs").await.contains("\"spend\":0.01287,"));
}

#[tokio::test]
async fn entries_without_a_request_are_told_too() {
    let expired = Entry { kind: EntryKind::Expired, row: Arc::default(), ..entry() };
    let corrected = Entry { kind: EntryKind::Corrected, cost_nano_usd: -1, row: Arc::default(), ..entry() };
    let rig = rig(Books { entries: vec![expired, corrected], ..Books::default() });
    let told = rig.json("/spend/logs").await;
    assert_eq!(told["data"][0]["metadata"]["kind"], "expired");
    assert_eq!(told["data"][0]["startTime"], "2026-11-22T12:00:00.000Z");
    assert_eq!((&told["data"][0]["status"], &told["data"][0]["api_key"]), (&Value::Null, &Value::Null));
    assert!(rig.text(None, "/spend/logs").await.contains("\"spend\":-0.000000001,"));
    assert_eq!(told["next_page_token"], Value::Null);
}

#[tokio::test]
async fn every_filter_reaches_the_store() {
    let rig = rig(Books::default());
    rig.json(
        "/spend/logs?api_key=k9&user_id=u&team_id=t&end_user=e%20f&model=m&tag=g&request_id=r&page_token=p&page_size=7\
         &start_date=2026-11-01&end_date=2026-11-02",
    )
    .await;
    let some = |text: &str| Some(text.to_owned());
    let expected = EntryQuery {
        from_ms: 1_793_491_200_000,
        to_ms: 1_793_491_200_000 + 2 * 86_400_000,
        key_id: some("k9"),
        team_id: some("t"),
        user_id: some("u"),
        end_user: some("e f"),
        model: some("m"),
        tag: some("g"),
        request_id: some("r"),
        after: some("p"),
        limit: 7,
    };
    assert_eq!(*rig.books.asked.lock().unwrap(), [expected]);
}

#[tokio::test]
async fn without_dates_the_last_day_is_shown() {
    let rig = rig(Books::default());
    rig.json("/spend/logs").await;
    let asked = rig.books.asked.lock().unwrap().remove(0);
    assert_eq!((asked.from_ms, asked.to_ms, asked.limit), (NOW_MS - 86_400_000, NOW_MS + 1, 100));
}

#[tokio::test]
async fn a_key_is_found_by_secret_digest_or_id() {
    let rig = rig(Books::default());
    let by_digest = format!("/spend/logs?api_key={}", digest("sk-0123456789abcdef"));
    for target in ["/spend/logs?api_key=sk-0123456789abcdef", &by_digest, "/spend/logs?api_key=k1"] {
        rig.json(target).await;
        let asked = rig.books.asked.lock().unwrap().pop().unwrap();
        assert_eq!(asked.key_id.as_deref(), Some("k1"), "{target}");
    }
    let (status, message) = rig.refusal("/spend/logs?api_key=sk-unknown").await;
    assert_eq!(status, 404);
    assert!(message.contains("key_id") && !message.contains("sk-unknown"), "{message}");
}

#[tokio::test]
async fn mistakes_are_refused_by_name() {
    let rig = rig(Books::default());
    for (target, word) in [
        ("/spend/logs?team=t1", "`team`"),
        ("/spend/logs?api_key=", "`api_key` is empty"),
        ("/spend/logs?tag=a&tag=b", "`tag` is given twice"),
        ("/spend/logs?page_size=0", "`page_size`"),
        ("/spend/logs?page_size=1001", "`page_size`"),
        ("/spend/logs?page_size=ten", "`page_size`"),
        ("/spend/logs?start_date=yesterday", "`start_date`"),
        ("/spend/logs?tag=%ff", "UTF-8"),
        ("/global/spend?group_by=day", "`group_by`"),
        ("/global/spend/report?group_by=week", "day, key, team, user, customer, tag, model"),
        ("/spend/tags?limit=10001", "`limit`"),
    ] {
        let (status, message) = rig.refusal(target).await;
        assert_eq!(status, 400, "{target}");
        assert!(message.contains(word), "{target}: {message}");
    }
    let long = format!("/spend/logs?tag={}", "x".repeat(513));
    assert_eq!(rig.refusal(&long).await.0, 400);
    assert!(rig.books.asked.lock().unwrap().is_empty());
}

#[tokio::test]
async fn only_get_is_answered() {
    let rig = rig(Books::default());
    let request = ApiRequest { method: "POST".into(), path: "/spend/logs".into(), ..ApiRequest::default() };
    assert_eq!(rig.spend.answer(&request).await.unwrap().status, 405);
    let request = ApiRequest { method: "GET".into(), path: "/key/list".into(), ..ApiRequest::default() };
    assert!(rig.spend.answer(&request).await.is_none());
}

#[tokio::test]
async fn an_absent_store_is_a_503_and_a_broken_one_a_500_without_its_words() {
    for (error, status) in
        [(StoreError::Unavailable("10.0.0.1 timed out".into()), 503), (StoreError::Failed("/var/x".into()), 500)]
    {
        let rig = rig(Books { fails: Some(error), ..Books::default() });
        for target in ["/spend/logs", "/global/spend", "/spend/keys"] {
            let (seen, message) = rig.refusal(target).await;
            assert_eq!(seen, status);
            assert!(!message.contains("10.0.0.1") && !message.contains("/var"), "{message}");
        }
    }
}

#[tokio::test]
async fn reports_sum_by_what_is_asked_most_spent_first() {
    let rig = rig(Books { rollups: rollups(), ..Books::default() });
    let told = rig.json("/global/spend/report?group_by=key&start_date=2026-11-20&end_date=2026-11-22").await;
    assert_eq!(*rig.books.ranges.lock().unwrap(), [("2026-11-20".to_owned(), "2026-11-22".to_owned())]);
    assert_eq!(
        told,
        json!({
            "data": [
                { "api_key": "k2", "key_alias": null, "spend": 7e-7, "requests": 1, "total_tokens": 11,
                  "prompt_tokens": 10, "completion_tokens": 1 },
                { "api_key": "k1", "key_alias": "reports", "spend": 1.05e-7, "requests": 2, "total_tokens": 22,
                  "prompt_tokens": 20, "completion_tokens": 2 },
                { "api_key": null, "key_alias": null, "spend": -3e-9, "requests": 1, "total_tokens": 11,
                  "prompt_tokens": 10, "completion_tokens": 1 },
            ],
            "group_by": "key", "start_date": "2026-11-20", "end_date": "2026-11-22",
            "total_spend": 8.02e-7, "left_off": 0,
        })
    );
    let spent = |told: &Value, member: &str| -> Vec<(String, String)> {
        let lines = told["data"].as_array().unwrap().iter();
        lines.map(|line| (line[member].as_str().unwrap().to_owned(), line["spend"].to_string())).collect()
    };
    let pair = |name: &str, spend: &str| (name.to_owned(), spend.to_owned());
    let by_day = rig.json("/global/spend/report").await;
    assert_eq!(
        spent(&by_day, "date"),
        [pair("2026-11-20", "1e-7"), pair("2026-11-21", "7.05e-7"), pair("2026-11-22", "-3e-9")]
    );
    assert_eq!(spent(&rig.json("/spend/models").await, "model"), [pair("nova", "7.02e-7"), pair("claude", "1e-7")]);
    assert_eq!(spent(&rig.json("/spend/tags").await, "tag"), [pair("a", "1e-7"), pair("b", "1e-7")]);
    assert_eq!(spent(&rig.json("/spend/teams").await, "team_id"), [pair("t1", "1e-7")]);
    assert_eq!(spent(&rig.json("/spend/customers").await, "end_user"), [pair("c1", "7e-7")]);
    assert_eq!(rig.json("/spend/users").await["data"], json!([]));
    let first = rig.json("/spend/keys?limit=1").await;
    assert_eq!((spent(&first, "api_key").len(), &first["left_off"]), (1, &json!(2)));
}

#[tokio::test]
async fn the_total_is_this_months_unless_days_are_given() {
    let rig = rig(Books { rollups: rollups(), ..Books::default() });
    assert_eq!(
        rig.text(None, "/global/spend").await,
        "{\"spend\":0.000000802,\"requests\":4,\"total_tokens\":44,\"prompt_tokens\":40,\"completion_tokens\":4,\
         \"start_date\":\"2026-11-01\",\"end_date\":\"2026-11-22\"}"
    );
    assert_eq!(
        rig.text(Some("text/csv"), "/global/spend?start_date=2026-11-20").await,
        "spend,requests,total_tokens,prompt_tokens,completion_tokens,start_date,end_date\n\
         0.000000802,4,44,40,4,2026-11-20,2026-11-22\n"
    );
}

#[tokio::test]
async fn csv_has_a_header_and_runs_no_formula() {
    let books = Books { entries: vec![entry()], rollups: rollups(), next: Some("p2".to_owned()), ..Books::default() };
    let rig = rig(books);
    assert_eq!(
        rig.text(Some("text/csv"), "/spend/logs").await,
        "request_id,call_type,api_key,key_alias,spend,total_tokens,prompt_tokens,completion_tokens,startTime,endTime,\
         model,model_group,model_id,user,team_id,end_user,request_tags,status,kind,certainty,booked_at,http_status,\
         attempt,deployment,region,cache_read_tokens,cache_write_tokens\n\
         r1,Converse,k1,reports,0.01287,120,100,20,2026-11-22T11:59:58.500Z,2026-11-22T11:59:59.750Z,claude,claude,\
         us.anthropic.claude,,t1,'-2+3,a;b,success,request,exact,2026-11-22T12:00:00.000Z,200,1,claude-1,us-west-2,\
         60,0\n"
    );
    let answer = rig.ask(Some("text/csv"), "/spend/logs").await;
    assert!(answer.headers.contains(&("x-dheera-ai-next-page-token", "p2".to_owned())), "{:?}", answer.headers);
    assert_eq!(
        rig.text(Some("text/csv"), "/spend/teams").await,
        "team_id,team_alias,spend,requests,total_tokens,prompt_tokens,completion_tokens\n\
         t1,'=cmd(),0.0000001,1,11,10,1\n"
    );
    assert_eq!(
        rig.text(Some("text/csv"), "/spend/users").await,
        "user_id,user_alias,spend,requests,total_tokens,prompt_tokens,completion_tokens\n"
    );
}
