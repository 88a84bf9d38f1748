//! The ways to reach a Redis: alone, with TLS, as an ACL user, in a cluster; and what is said where one does not lead
//! there.

use std::sync::Arc;
use std::time::Duration;

use dheera_ai::budget::command::{AccountId, NodeId, Reserved};
use dheera_ai::config::{Redis, RedisTopology};
use dheera_ai::store::redis::RedisStore;
use dheera_ai::store::{Change, Directory, Expect, Kind, LedgerStore, StoreError};
use dheera_ai::types::secret::Secret;

use crate::make::{charge, reserve, settle};
use crate::redis_server::{Directory as Folder, RedisServer, at, certificates, config, free_port};

/// Reserves, settles, reads, and keeps a document.
async fn works(store: &RedisStore) {
    let charges = [charge("a", 100)];
    assert!(matches!(store.reserve(&reserve("l1", 60, &charges)).await.unwrap(), Reserved::Granted { .. }));
    let node = NodeId::new("n");
    assert_eq!(store.apply(&node, 1, &[settle("l1", 25, &charges)]).await.unwrap().last, 1);
    assert_eq!(store.balances(&[AccountId::new("a")]).await.unwrap()[0].spent.0, 25);
    let change = Change { kind: Kind::Key, id: "k".to_owned(), expect: Expect::Nothing, json: Some("{}".to_owned()) };
    store.commit(&[change]).await.unwrap();
    assert_eq!(store.list(Kind::Key, None, 10).await.unwrap().len(), 1);
    assert!(store.get(Kind::Key, "k").await.unwrap().is_some());
    assert!(!store.changes(None).await.unwrap().lost);
    assert_eq!(store.rollups("0000", "9999").await.unwrap().len(), 1);
    store.forget(0).await.unwrap();
    assert!(store.clock_offset_ms().abs() < 5_000);
}

async fn error(config: &Redis) -> StoreError {
    let store = RedisStore::new(config).unwrap();
    let started = std::time::Instant::now();
    let mut error = store.lease_counts().await.unwrap_err();
    assert!(started.elapsed() < Duration::from_millis(900), "{error} took {:?}", started.elapsed());
    // The first command may not have waited for the attempt to end.
    for _ in 0..100 {
        if !error.to_string().contains("being connected to") {
            break;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
        error = store.lease_counts().await.unwrap_err();
    }
    error
}

#[track_caller]
fn failed(error: &StoreError, words: &str) {
    assert!(matches!(error, StoreError::Failed(text) if text.contains(words)), "{error:?} does not say {words}");
}

#[tokio::test]
async fn a_password_and_a_database_are_used() {
    let server = RedisServer::start(&["--requirepass", "open sesame"]).await;
    let mut config = Redis { password: Some(Secret::new("open sesame")), database: 3, ..server.config() };
    works(&RedisStore::new(&config).unwrap()).await;
    config.password = Some(Secret::new("wrong-canary"));
    let refused = error(&config).await;
    failed(&refused, "password");
    assert!(!format!("{refused:?}").contains("canary"));
    config.password = None;
    failed(&error(&config).await, "password");
}

#[tokio::test]
async fn an_acl_user_needs_no_more_than_is_documented() {
    let server = RedisServer::start(&[]).await;
    let rights = "on >pw ~{dheera_ai}:* +@read +@write +@scripting +@connection +info +time";
    let user = |name: &str, more: &str| {
        let rule = format!("{rights} {more}");
        let words: Vec<_> = ["ACL", "SETUSER", name].into_iter().chain(rule.split_whitespace()).collect();
        assert_eq!(server.command(&words), "OK");
        let config = Redis { username: Some(name.to_owned()), password: Some(Secret::new("pw")), ..server.config() };
        RedisStore::new(&config).unwrap()
    };
    works(&user("functions", "")).await;
    assert!(server.command(&["FUNCTION", "LIST"]).contains("dheera_ai_"));
    for (number, forbidden) in ["-function", "-fcall", "-function -fcall -info"].into_iter().enumerate() {
        assert_eq!(server.command(&["FLUSHALL"]), "OK");
        let name = format!("scripts-{number}");
        works(&user(&name, forbidden)).await;
        assert!(server.command(&["INFO", "commandstats"]).contains("cmdstat_evalsha"), "{forbidden}");
    }
    let powerless = user("powerless", "-@scripting");
    failed(&settled(&powerless).await, "~{dheera_ai}:*");
}

/// The error of a store when it has finished trying.
async fn settled(store: &Arc<RedisStore>) -> StoreError {
    loop {
        let error = store.lease_counts().await.unwrap_err();
        if !error.to_string().contains("being connected to") {
            return error;
        }
    }
}

#[tokio::test]
async fn tls_trusts_the_configured_authority_and_no_other() {
    let folder = Folder::new();
    certificates(&folder.0);
    let path = |name: &str| folder.0.join(name).display().to_string();
    let (port, certificate, key, authority) = (free_port(), path("server.crt"), path("server.key"), path("ca.crt"));
    let arguments = [
        "--tls-port",
        &port.to_string(),
        "--tls-cert-file",
        &certificate,
        "--tls-key-file",
        &key,
        "--tls-ca-cert-file",
        &authority,
        "--tls-auth-clients",
        "no",
    ];
    let _server = RedisServer::start(&arguments).await;
    let mut config = Redis {
        tls: true,
        ca_file: Some(authority.into()),
        // Making the first connection reads the system's certificates.
        connect_timeout: Duration::from_secs(10),
        ..config(RedisTopology::Single(at(port)))
    };
    let store = RedisStore::new(&config).unwrap();
    while matches!(store.lease_counts().await, Err(StoreError::Unavailable(_))) {}
    works(&store).await;
    certificates(&folder.0);
    let other = RedisStore::new(&config).unwrap();
    let refused = settled(&other).await;
    assert!(refused.to_string().contains("certificate"), "{refused}");
    config.ca_file = Some(folder.0.join("missing.crt"));
    failed(&RedisStore::new(&config).unwrap_err(), "missing.crt");
}

#[tokio::test]
async fn a_cluster_keeps_everything_in_one_slot() {
    let nodes = RedisServer::start_cluster().await;
    let all = Redis { namespace: "elsewhere".to_owned(), ..config(RedisTopology::Cluster(vec![at(nodes[1].port)])) };
    let store = RedisStore::new(&all).unwrap();
    while matches!(store.lease_counts().await, Err(StoreError::Unavailable(_))) {}
    works(&store).await;
    for node in &nodes {
        node.command(&["FUNCTION", "FLUSH"]);
    }
    assert_eq!(store.balances(&[AccountId::new("a")]).await.unwrap()[0].spent.0, 25);
    let scripts = RedisStore::with_scripts_only(&Redis { namespace: "third".to_owned(), ..all }).unwrap();
    while matches!(scripts.lease_counts().await, Err(StoreError::Unavailable(_))) {}
    works(&scripts).await;
    let holders = nodes.iter().filter(|node| node.command(&["DBSIZE"]) != "0").count();
    assert!((1..=2).contains(&holders), "{holders}");
    failed(&error(&nodes[0].config()).await, "redis_startup_nodes");
}

#[tokio::test]
async fn what_cannot_serve_says_why() {
    let server = RedisServer::start(&[]).await;
    let replica = server.start_replica(&[]).await;
    let said = error(&replica.config()).await;
    assert!(matches!(&said, StoreError::Unavailable(text) if text.contains("replica")), "{said}");

    let nobody = config(RedisTopology::Single(at(free_port())));
    assert!(matches!(error(&nobody).await, StoreError::Unavailable(_)));

    let store = RedisStore::new(&server.config()).unwrap();
    works(&store).await;
    assert_eq!(server.command(&["CONFIG", "SET", "maxmemory", "1"]), "OK");
    let full = store.reserve(&reserve("l2", 1, &[charge("a", 100)])).await.unwrap_err();
    failed(&full, "maxmemory");
    assert_eq!(server.command(&["CONFIG", "SET", "maxmemory", "0"]), "OK");
    assert_eq!(server.command(&["CONFIG", "SET", "min-replicas-to-write", "5"]), "OK");
    let alone = store.reserve(&reserve("l2", 1, &[charge("a", 100)])).await.unwrap_err();
    assert!(matches!(alone, StoreError::Unavailable(_)), "{alone}");
    assert_eq!(server.command(&["CONFIG", "SET", "min-replicas-to-write", "0"]), "OK");
    assert!(matches!(store.reserve(&reserve("l2", 1, &[charge("a", 100)])).await, Ok(Reserved::Granted { .. })));
}
