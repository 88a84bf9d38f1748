use std::sync::atomic::Ordering;

use super::*;
use crate::keys::memory_directory::MemoryDirectory;
use crate::store::Directory;
use crate::types::secret::Secret;

const KEY: &str = "sk-master-0123456789";
const VIRTUAL: &str = "sk-virtual-0123456789";
const NOW_MS: u64 = 1_800_000_000_000;

fn access(master_key: Option<&str>) -> Access {
    Access {
        master_key: master_key.map(Secret::new),
        salt_key: None,
        allow_anonymous: false,
        require_auth_for_metrics: true,
    }
}

fn with_directory() -> (Arc<MemoryDirectory>, Authenticator) {
    let directory = Arc::new(MemoryDirectory::default());
    let register = Register::new(Arc::clone(&directory) as Arc<dyn Directory>, 100);
    (directory, Authenticator::new(&access(Some(KEY)), Some(Arc::new(register))))
}

async fn try_key(authenticator: &Authenticator, key: &str) -> Result<Caller, Denied> {
    let value = format!("Bearer {key}");
    authenticator.authenticate(NOW_MS, |asked| (asked == "authorization").then_some(value.as_bytes())).await
}

async fn try_with(name: &'static str, value: &str) -> Result<Caller, Denied> {
    let (_, authenticator) = with_directory();
    authenticator.authenticate(NOW_MS, |asked| (asked == name).then_some(value.as_bytes())).await
}

fn who(result: Result<Caller, Denied>) -> Result<String, Denied> {
    result.map(|caller| caller.alias().to_owned())
}

/// What a key is told after these documents are written.
async fn after(documents: &[(Kind, &str, &str)]) -> Result<String, Denied> {
    let (directory, authenticator) = with_directory();
    for (kind, id, json) in documents {
        directory.put(*kind, id, *json);
    }
    who(try_key(&authenticator, VIRTUAL).await)
}

#[tokio::test]
async fn the_key_is_found_in_every_place_a_client_can_put_it() {
    let sigv4 = format!(
        "AWS4-HMAC-SHA256 Credential={KEY}/20260101/us-east-1/bedrock/aws4_request, SignedHeaders=host, Signature=00"
    );
    let basic = format!("Basic {}", base64::engine::general_purpose::STANDARD.encode(format!("user:{KEY}")));
    for (name, value) in [
        ("authorization", format!("Bearer {KEY}")),
        ("authorization", format!("bearer  {KEY} ")),
        ("authorization", sigv4),
        ("authorization", basic),
        ("x-dheera-ai-api-key", KEY.to_owned()),
        ("x-dheera-ai-api-key", format!("Bearer {KEY}")),
        ("x-litellm-api-key", KEY.to_owned()),
        ("x-api-key", KEY.to_owned()),
        ("api-key", KEY.to_owned()),
        ("litellm_user_api_key", KEY.to_owned()),
    ] {
        assert_eq!(who(try_with(name, &value).await), Ok("master".to_owned()), "{name}: {value}");
    }
}

#[tokio::test]
async fn everything_else_is_denied() {
    for (name, value, denied) in [
        ("authorization", "Bearer sk-master-012345678", Denied::Unknown),
        ("authorization", "Bearer sk-master-0123456789x", Denied::Unknown),
        ("authorization", "Bearer sk-0123456789abcdefghij", Denied::Unknown),
        ("authorization", "Bearer ", Denied::Missing),
        ("authorization", KEY, Denied::Malformed),
        ("authorization", "AWS4-HMAC-SHA256 Credential=x", Denied::Malformed),
        ("authorization", "AWS4-HMAC-SHA256 Credential=a/b/c/d/aws4_request", Denied::Unknown),
        ("authorization", "Basic !!!", Denied::Malformed),
        ("authorization", "Digest x", Denied::Malformed),
        ("x-api-key", "", Denied::Missing),
        ("x-api-key", "a\u{1}b", Denied::Malformed),
        ("cookie", KEY, Denied::Missing),
    ] {
        assert_eq!(who(try_with(name, value).await), Err(denied), "{name}: {value}");
    }
    assert_eq!(who(try_with("authorization", &"x".repeat(10_000)).await), Err(Denied::Malformed));
}

#[tokio::test]
async fn without_a_master_key_anyone_is_anonymous() {
    let open = Authenticator::new(&access(None), None);
    assert!(open.is_open());
    assert_eq!(who(open.authenticate(NOW_MS, |_| None).await), Ok("anonymous".to_owned()));
    assert_eq!(who(open.authenticate(NOW_MS, |_| Some(b"Bearer whatever")).await), Ok("anonymous".to_owned()));
    assert!(!open.is_master(""));
}

#[tokio::test]
async fn a_virtual_key_is_proved_with_its_team_and_user() {
    let (directory, authenticator) = with_directory();
    directory.put(Kind::Secret, &secret_key::digest(VIRTUAL), r#"{"key_id":"k"}"#);
    directory.put(Kind::Key, "k", r#"{"id":"k","alias":"mine","team_id":"t","user_id":"u","budget_id":"b"}"#);
    directory.put(Kind::Team, "t", r#"{"id":"t"}"#);
    directory.put(Kind::User, "u", r#"{"id":"u"}"#);
    directory.put(Kind::Budget, "b", r#"{"id":"b"}"#);
    let caller = try_key(&authenticator, VIRTUAL).await.unwrap();
    assert_eq!((caller.alias(), caller.id()), ("mine", "k"));
    let parts: Vec<_> = caller.holder().unwrap().records().map(|(part, record)| (part, record.id.clone())).collect();
    assert_eq!(parts, [(Part::Key, "k".to_owned()), (Part::Team, "t".to_owned()), (Part::User, "u".to_owned())]);
    assert_eq!(who(try_key(&authenticator, "sk-virtual-0123456780").await), Err(Denied::Unknown));
    assert_eq!(who(try_key(&authenticator, KEY).await), Ok("master".to_owned()));
}

#[tokio::test]
async fn a_key_is_denied_for_what_is_the_matter_with_it() {
    let digest = secret_key::digest(VIRTUAL);
    let secret = (Kind::Secret, digest.as_str(), r#"{"key_id":"k"}"#);
    let team = (Kind::Team, "t", r#"{"id":"t","blocked":true}"#);
    let user = (Kind::User, "u", r#"{"id":"u","blocked":true}"#);
    let key = |json| (Kind::Key, "k", json);
    for (documents, expected) in [
        (vec![], Denied::Unknown),
        (vec![secret], Denied::Unknown),
        (vec![secret, key(r#"{"id":"k","expires_at_ms":1800000000000}"#)], Denied::Expired),
        (vec![secret, key(r#"{"id":"k","blocked":true}"#)], Denied::Blocked(Part::Key)),
        (vec![secret, team, key(r#"{"id":"k","team_id":"t"}"#)], Denied::Blocked(Part::Team)),
        (vec![secret, user, key(r#"{"id":"k","user_id":"u"}"#)], Denied::Blocked(Part::User)),
        (vec![secret, key(r#"{"id":"k","team_id":"t"}"#)], Denied::Orphaned(Part::Team)),
        (vec![secret, key(r#"{"id":"k","budget_id":"b"}"#)], Denied::StoreUnavailable),
        (vec![secret, key(r#"{"id":"k","expires_at_ms":"soon"}"#)], Denied::StoreUnavailable),
        (
            vec![(Kind::Secret, digest.as_str(), r#"{"key_id":"k","expires_at_ms":1}"#), key(r#"{"id":"k"}"#)],
            Denied::Expired,
        ),
    ] {
        assert_eq!(after(&documents).await, Err(expected), "{documents:?}");
    }
    assert_eq!(after(&[secret, key(r#"{"id":"k","expires_at_ms":1800000000001}"#)]).await, Ok("k".to_owned()));
}

#[tokio::test]
async fn what_has_not_the_form_of_a_key_never_reaches_the_store() {
    let (directory, authenticator) = with_directory();
    for key in ["sk-short", "AKIAIOSFODNN7EXAMPLE", "sk-with/slash/0123456789", &format!("sk-{}", "a".repeat(129))] {
        assert_eq!(who(try_key(&authenticator, key).await), Err(Denied::Unknown));
    }
    assert_eq!(directory.gets.load(Ordering::SeqCst), 0);
}

#[tokio::test]
async fn a_store_that_is_down_is_no_reason_to_call_a_key_wrong() {
    let (directory, authenticator) = with_directory();
    directory.down.store(true, Ordering::SeqCst);
    let denied = try_key(&authenticator, VIRTUAL).await.unwrap_err();
    assert_eq!(denied, Denied::StoreUnavailable);
    assert_eq!(denied.error_type().status(), 503);
    assert_eq!(who(try_key(&authenticator, KEY).await), Ok("master".to_owned()));
}

#[test]
fn every_denial_has_a_word_and_says_what_to_do() {
    let blocked = [Part::Key, Part::Team, Part::User].map(Denied::Blocked);
    let others = [Denied::Missing, Denied::Malformed, Denied::Unknown, Denied::Expired, Denied::StoreUnavailable];
    for denied in blocked.into_iter().chain(others).chain([Denied::Orphaned(Part::Team)]) {
        assert!(!denied.reason().is_empty());
        let message = denied.message();
        assert!(["Send", "Check", "Ask", "Try"].iter().any(|verb| message.contains(verb)), "{message}");
        assert_eq!(denied.error_type().status() == 503, denied == Denied::StoreUnavailable);
    }
}
