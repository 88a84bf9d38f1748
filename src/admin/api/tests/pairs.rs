use super::*;
use crate::keys::access_key::is_access_key_id;
use crate::keys::record::AccessKeyRecord;
use crate::store::Kind;

const SALT_KEY: Option<&str> = Some("a salt key of the tests");

/// The stored pair, and the secret in it.
fn opened(world: &World, id: &str) -> Option<(AccessKeyRecord, Secret)> {
    let record: AccessKeyRecord = serde_json::from_str(&world.directory.json(Kind::AccessKey, id)?).unwrap();
    let secret = world.management.authenticator.sealer().unwrap().open(&record.sealed_secret, id, &record.key_id);
    Some((record, secret.unwrap()))
}

#[tokio::test]
async fn a_pair_is_shown_once_and_stored_sealed() {
    let world = World::with_salt_key(SALT_KEY);
    let made = world.ok("/key/generate", r#"{"sigv4":true}"#).await;
    let (id, secret) = (text(&made["aws_access_key_id"]), text(&made["aws_secret_access_key"]));
    assert!(is_access_key_id(&id) && secret.len() == 40, "{made}");
    let (record, opened) = opened(&world, &id).unwrap();
    assert_eq!((record.key_id.as_str(), opened.expose()), (made["key_id"].as_str().unwrap(), secret.as_str()));
    let documents = [(Kind::AccessKey, id.clone()), (Kind::Key, text(&made["key_id"]))];
    for (kind, name) in documents {
        assert!(!world.directory.json(kind, &name).unwrap().contains(&secret), "{kind:?}");
    }
    let info = world.get(&format!("/key/info?key={id}")).await;
    assert_eq!(info["info"]["aws_access_key_id"], id.as_str());
    assert!(!info.to_string().contains(&secret));
    // Neither part of a pair is a key.
    for part in [&id, &secret] {
        assert_eq!(world.prove(part).await.unwrap_err(), Denied::Unknown);
    }
    let without = world.ok("/key/generate", "{}").await;
    assert_eq!((&without["aws_access_key_id"], without.get("aws_secret_access_key")), (&Value::Null, None));
    assert_eq!(world.directory.count(Kind::AccessKey), 1);
}

#[tokio::test]
async fn without_a_salt_key_there_are_no_pairs() {
    let world = World::new();
    let message = world.refused(400, "/key/generate", r#"{"sigv4":true}"#).await;
    assert!(message.contains("`sigv4`") && message.contains("DHEERA_AI_SALT_KEY"), "{message}");
    let key = text(&world.ok("/key/generate", r#"{"sigv4":false}"#).await["key_id"]);
    world.refused(400, "/key/update", &format!(r#"{{"key":"{key}","sigv4":true}}"#)).await;
    world.refused(400, "/key/generate", r#"{"sigv4":"yes"}"#).await;
    assert_eq!(world.directory.count(Kind::Key), 1);
}

#[tokio::test]
async fn a_pair_is_added_and_taken_away_by_an_update() {
    let world = World::with_salt_key(SALT_KEY);
    let key = text(&world.ok("/key/generate", "{}").await["key_id"]);
    let added = world.ok("/key/update", &format!(r#"{{"key":"{key}","sigv4":true,"rpm_limit":3}}"#)).await;
    let id = text(&added["aws_access_key_id"]);
    assert_eq!((added["aws_secret_access_key"].as_str().unwrap().len(), &added["rpm_limit"]), (40, &Value::from(3)));
    for fields in [r#""sigv4":true"#, r#""sigv4":null"#, r#""rpm_limit":4"#] {
        let same = world.ok("/key/update", &format!(r#"{{"key":"{key}",{fields}}}"#)).await;
        assert_eq!(
            (same["aws_access_key_id"].as_str(), same.get("aws_secret_access_key")),
            (Some(&*id), None),
            "{fields}"
        );
    }
    let none = world.ok("/key/update", &format!(r#"{{"key":"{key}","sigv4":false}}"#)).await;
    assert_eq!((&none["aws_access_key_id"], world.directory.count(Kind::AccessKey)), (&Value::Null, 0));
}

#[tokio::test]
async fn a_pair_that_is_replaced_ends_when_the_old_secret_does() {
    let world = World::with_salt_key(SALT_KEY);
    let made = world.ok("/key/generate", r#"{"sigv4":true}"#).await;
    let (key, first) = (text(&made["key_id"]), text(&made["aws_access_key_id"]));
    let renew = |fields: &str| format!(r#"{{"key":"{key}"{fields}}}"#);
    let second = text(&world.ok("/key/regenerate", &renew(r#","grace_period":"1h""#)).await["aws_access_key_id"]);
    assert_ne!(first, second);
    assert_eq!(opened(&world, &first).unwrap().0.expires_at_ms, Some(NOW_MS + 3_600 * SECOND_MS));
    assert_eq!(opened(&world, &second).unwrap().0.expires_at_ms, None);
    let third = text(&world.ok("/key/regenerate", &renew("")).await["aws_access_key_id"]);
    assert!(opened(&world, &second).is_none() && opened(&world, &first).is_some());
    world.sleep(3_600 * SECOND_MS);
    let fourth = text(&world.ok("/key/regenerate", &renew(r#","grace_period":"1h""#)).await["aws_access_key_id"]);
    assert!(opened(&world, &first).is_none() && opened(&world, &third).is_some(), "what has ended is cleared away");
    let none = world.ok("/key/regenerate", &renew(r#","sigv4":false"#)).await;
    assert_eq!((&none["aws_access_key_id"], world.directory.count(Kind::AccessKey)), (&Value::Null, 0));
    assert!(opened(&world, &fourth).is_none());
    let again = world.ok("/key/regenerate", &renew(r#","sigv4":true"#)).await;
    world.ok("/key/regenerate", &renew(r#","grace_period":"1h""#)).await;
    assert!(opened(&world, &text(&again["aws_access_key_id"])).is_some());
    world.ok("/key/delete", &format!(r#"{{"keys":["{key}"]}}"#)).await;
    assert_eq!(world.directory.count(Kind::AccessKey), 0);
}

#[tokio::test]
async fn who_signs_is_nobody_before_the_signature_is_verified() {
    let world = World::with_salt_key(SALT_KEY);
    let id = text(&world.ok("/key/generate", r#"{"sigv4":true}"#).await["aws_access_key_id"]);
    let authorization = format!(
        "AWS4-HMAC-SHA256 Credential={id}/20261122/us-east-1/bedrock/aws4_request, SignedHeaders=host, Signature={}",
        "0".repeat(64)
    );
    let header = |name: &str| match name {
        "authorization" => Some(authorization.as_bytes()),
        "x-amz-date" => Some(b"20261122T234916Z".as_slice()),
        _ => None,
    };
    let authenticator = &world.management.authenticator;
    let identity = authenticator.prove(authenticator.present(header, "").unwrap(), NOW_MS).await.unwrap();
    assert_eq!(identity.without_signature().unwrap_err(), Denied::SignatureHere);
    // In front of the key stands another one: then that is meant.
    let with_key = |name: &str| if name == "x-dheera-ai-api-key" { Some(id.as_bytes()) } else { header(name) };
    assert_eq!(authenticator.authenticate(NOW_MS, with_key).await.unwrap_err(), Denied::Unknown);
}
