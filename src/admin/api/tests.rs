use std::collections::HashMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use serde_json::Value;

use super::*;
use crate::config::Access;
use crate::keys::memory_directory::MemoryDirectory;
use crate::types::money::NanoUsd;
use crate::types::secret::Secret;

mod groups;
mod keys;
mod pairs;
mod round_trip;

const MASTER: &str = "sk-master-0123456789";
/// Sunday 22 November 2026, 23:49:16 UTC.
const NOW_MS: u64 = 1_795_391_356_000;
const SECOND_MS: u64 = 1_000;

/// Books of which only balances are kept.
#[derive(Debug, Default)]
struct Books {
    now_ms: AtomicU64,
    balances: Mutex<HashMap<String, Balance>>,
}

#[async_trait]
impl Accounts for Books {
    fn now_ms(&self) -> u64 {
        self.now_ms.load(Ordering::SeqCst)
    }

    async fn balances(&self, accounts: &[AccountId]) -> Result<Vec<Balance>, StoreError> {
        let balances = self.balances.lock().unwrap();
        Ok(accounts.iter().map(|account| balances.get(account.as_str()).copied().unwrap_or_default()).collect())
    }

    async fn submit(&self, op: Op) -> Result<(), StoreError> {
        let Op::Reset { account, spent, .. } = op else { panic!("{op:?}") };
        self.balances.lock().unwrap().entry(account.to_string()).or_default().spent = spent;
        Ok(())
    }
}

struct World {
    directory: Arc<MemoryDirectory>,
    books: Arc<Books>,
    management: Management,
}

impl World {
    fn new() -> Self {
        Self::with_salt_key(None)
    }

    fn with_salt_key(salt_key: Option<&str>) -> Self {
        let directory = Arc::new(MemoryDirectory::default());
        let register = Arc::new(Register::new(Arc::clone(&directory) as Arc<dyn Directory>, 1_000));
        let access = Access {
            master_key: Some(Secret::new(MASTER)),
            salt_key: salt_key.map(Secret::new),
            allow_anonymous: false,
            require_auth_for_metrics: true,
        };
        let books = Arc::new(Books::default());
        books.now_ms.store(NOW_MS, Ordering::SeqCst);
        let management = Management {
            directory: Arc::clone(&directory) as Arc<dyn Directory>,
            register: Arc::clone(&register),
            accounts: Arc::clone(&books) as Arc<dyn Accounts>,
            authenticator: Arc::new(Authenticator::new(&access, Some(register))),
            zone: TimeZone::UTC,
        };
        Self { directory, books, management }
    }

    fn sleep(&self, ms: u64) {
        self.books.now_ms.fetch_add(ms, Ordering::SeqCst);
    }

    /// What the holder of a key is taken for.
    async fn prove(&self, key: &str) -> Result<Caller, Denied> {
        let value = format!("Bearer {key}");
        let header = |name: &str| (name == "authorization").then_some(value.as_bytes());
        self.management.authenticator.authenticate(self.books.now_ms(), header).await
    }

    async fn text(&self, key: &str, method: &str, target: &str, body: &str) -> (u16, String) {
        let (path, query) = target.split_once('?').unwrap_or((target, ""));
        let request = ApiRequest {
            method: method.to_owned(),
            path: path.to_owned(),
            query: query.to_owned(),
            accept: None,
            body: Bytes::copy_from_slice(body.as_bytes()),
        };
        let answer = self.management.answer(&request, self.prove(key).await).await.unwrap();
        (answer.status, String::from_utf8(answer.body).unwrap())
    }

    /// A request with the master key that succeeds.
    async fn ok(&self, target: &str, body: &str) -> Value {
        let (status, text) = self.text(MASTER, "POST", target, body).await;
        assert_eq!(status, 200, "{target} {body}: {text}");
        serde_json::from_str(&text).unwrap()
    }

    async fn get(&self, target: &str) -> Value {
        let (status, text) = self.text(MASTER, "GET", target, "").await;
        assert_eq!(status, 200, "{target}: {text}");
        serde_json::from_str(&text).unwrap()
    }

    /// A request with the master key that is refused with this status; returns the message.
    async fn refused(&self, status: u16, target: &str, body: &str) -> String {
        let (found, text) = self.text(MASTER, "POST", target, body).await;
        assert_eq!(found, status, "{target} {body}: {text}");
        let error: Value = serde_json::from_str(&text).unwrap();
        error["message"].as_str().unwrap().to_owned()
    }

    fn spend(&self, account: &str, nano: u64) {
        let balance = Balance { spent: NanoUsd(nano), reserved: NanoUsd(1), overrun: NanoUsd(0) };
        self.books.balances.lock().unwrap().insert(account.to_owned(), balance);
    }
}

fn text(value: &Value) -> String {
    value.as_str().unwrap().to_owned()
}

#[test]
fn paths_are_ours_by_their_first_segment() {
    for (path, expected) in [
        ("/key/generate", true),
        ("/key/sk-1/regenerate", true),
        ("/key/nonsense", true),
        ("/team/member_add", true),
        ("/end_user/new", true),
        ("/v2/key/info", true),
        ("/v2/x", false),
        ("/keys/x", false),
        ("/tags/arn", false),
        ("/bedrock/key/generate", false),
        ("//key/generate", false),
        ("", false),
    ] {
        assert_eq!(owns(path), expected, "{path}");
    }
    assert_eq!(Page::of("/end_user/block"), Page::of("/customer/block"));
    assert_eq!(Page::of("/tag/block"), Some(Page::Unknown));
    assert_eq!(Page::of("/key/a%2Fb/reset_spend"), Some(Page::Key(KeyPage::ResetSpend("a/b".to_owned()))));
}

#[tokio::test]
async fn a_path_answers_its_method_and_says_which() {
    let world = World::new();
    for (method, path, status) in [
        ("GET", "/key/generate", 405),
        ("POST", "/key/list", 405),
        ("DELETE", "/key/delete", 405),
        ("GET", "/team/new", 405),
        ("POST", "/key/nonsense", 404),
        ("GET", "/team/daily/activity", 404),
        ("HEAD", "/key/list", 200),
    ] {
        assert_eq!(world.text(MASTER, method, path, "").await.0, status, "{method} {path}");
    }
}

#[tokio::test]
async fn only_the_master_key_manages() {
    let world = World::new();
    let key = text(&world.ok("/key/generate", r#"{"key_alias":"one"}"#).await["key"]);
    let other = world.ok("/key/generate", "{}").await;
    for path in [
        "/key/generate",
        "/key/update",
        "/key/delete",
        "/key/block",
        "/key/regenerate",
        "/team/new",
        "/user/delete",
        "/customer/new",
        "/tag/new",
        "/budget/new",
        "/v2/key/info",
        "/key/nonsense",
    ] {
        assert_eq!(world.text(&key, "POST", path, "{}").await.0, 403, "{path}");
        assert_eq!(world.text("sk-0123456789012345678", "POST", path, "{}").await.0, 403, "{path}");
    }
    assert_eq!(world.text(&key, "GET", "/key/list", "").await.0, 403);
    assert_eq!(world.text(&key, "POST", "/key/health", "").await.0, 200);
    // About itself a key may ask, under each of its names, and about nobody else.
    let own = world.get(&format!("/key/info?key={key}")).await;
    let id = text(&own["info"]["key_id"]);
    let token = text(&own["info"]["token"]);
    for query in [String::new(), format!("?key={key}"), format!("?key={id}"), format!("?key={token}")] {
        let (status, body) = world.text(&key, "GET", &format!("/key/info{query}"), "").await;
        assert_eq!(status, 200, "{query}: {body}");
        assert!(body.contains(r#""key_alias":"one""#) && !body.contains(&key), "{body}");
    }
    let stranger = world.text(&key, "GET", &format!("/key/info?key={}", text(&other["key_id"])), "").await;
    let nobody = world.text(&key, "GET", "/key/info?key=nobody", "").await;
    assert_eq!(stranger.0, 403);
    assert_eq!(stranger, nobody);
}

#[tokio::test]
async fn a_body_that_makes_no_sense_is_refused_and_changes_nothing() {
    let world = World::new();
    for body in ["[]", "null", "\"x\"", "{", "{\"models\":[}", "{\"blocked\":true,\"blocked\":false}"] {
        world.refused(400, "/key/generate", body).await;
        world.refused(400, "/team/new", body).await;
    }
    let large = format!(r#"{{"key_alias":"{}"}}"#, "x".repeat(BODY_BYTES_MAX));
    world.refused(413, "/key/generate", &large).await;
    let deep = format!(r#"{{"metadata":{}{}}}"#, "[".repeat(10_000), "]".repeat(10_000));
    world.refused(400, "/key/generate", &deep).await;
    assert_eq!(world.directory.count(crate::store::Kind::Key), 0);
}

#[tokio::test]
async fn a_store_that_is_down_is_said_to_be() {
    let world = World::new();
    world.directory.down.store(true, Ordering::SeqCst);
    for (method, path, body) in [
        ("POST", "/key/generate", r#"{"team_id":"t"}"#),
        ("POST", "/team/new", "{}"),
        ("GET", "/key/list", ""),
        ("GET", "/key/info?key=x", ""),
        ("POST", "/key/delete", r#"{"keys":["x"]}"#),
    ] {
        let (status, text) = world.text(MASTER, method, path, body).await;
        assert_eq!(status, 503, "{path}: {text}");
    }
}

#[tokio::test]
async fn a_change_is_made_anew_when_someone_else_was_faster() {
    let world = World::new();
    let key = text(&world.ok("/key/generate", "{}").await["key_id"]);
    world.ok("/team/new", r#"{"team_id":"t"}"#).await;
    let update = format!(r#"{{"key":"{key}","max_budget":1}}"#);
    for (path, body) in [
        ("/key/generate", "{}".to_owned()),
        ("/key/update", update.clone()),
        ("/key/block", format!(r#"{{"key":"{key}"}}"#)),
        ("/key/regenerate", format!(r#"{{"key":"{key}"}}"#)),
        ("/team/update", r#"{"team_id":"t","rpm_limit":1}"#.to_owned()),
        ("/team/delete", r#"{"team_ids":["t"]}"#.to_owned()),
    ] {
        world.directory.conflicts.store(3, Ordering::SeqCst);
        world.ok(path, &body).await;
    }
    world.directory.conflicts.store(100, Ordering::SeqCst);
    world.refused(503, "/key/update", &update).await;
}
