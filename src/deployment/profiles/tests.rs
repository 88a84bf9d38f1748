use bedrock_sim::{Credential, Options as SimulatorOptions, Running, Simulator};

use super::*;
use crate::config::{self, Credentials, Direct, SecretRef};
use crate::credentials::{CredentialStore, Options};
use crate::types::ids::{ModelName, Region};
use crate::types::secret::Secret;

const ARN: &str = "arn:aws:bedrock:us-east-1:123456789012:application-inference-profile/abc123";
const HAIKU: &str = "anthropic.claude-haiku-4-5-20251001-v1:0";
const IDLE: Duration = Duration::from_mins(1);

/// A simulator, and a fleet whose only deployment is [`ARN`], both with the same credentials.
struct Stand {
    simulator: Running,
    fleet: Fleet,
    profiles: Arc<Profiles>,
}

fn credentials(secret: &str) -> Credentials {
    Credentials::Static {
        access_key_id: "AKIDTEST".to_owned(),
        secret_access_key: SecretRef(Secret::new(secret)),
        session_token: None,
    }
}

fn deployment(id: &str, model_id: &str, base_model: Option<&str>) -> config::Deployment {
    config::Deployment {
        id: DeploymentId::new(id),
        model_name: ModelName::new("m"),
        model_id: ModelId::new(model_id),
        region: Region::new("us-east-1"),
        bearer: None,
        credentials: credentials("secret"),
        runtime_endpoint: None,
        weight: 1,
        timeout: IDLE,
        rpm: None,
        tpm: None,
        parallel: None,
        max_retries: 0,
        stream_timeout: IDLE,
        total_timeout: None,
        stream_total_timeout: None,
        base_model: base_model.map(ModelId::new),
        price: None,
    }
}

async fn stand(deployments: &[config::Deployment]) -> Stand {
    let credential = Credential {
        access_key_id: "AKIDTEST".to_owned(),
        secret_access_key: "secret".to_owned(),
        session_token: None,
    };
    let options = SimulatorOptions { credentials: vec![credential], ..SimulatorOptions::default() };
    let simulator = Simulator::start(options).await.unwrap();
    let (fleet, profiles) = build(&simulator, deployments, None);
    Stand { simulator, fleet, profiles }
}

fn build(
    simulator: &Running,
    deployments: &[config::Deployment],
    previous: Option<(&Fleet, &Profiles)>,
) -> (Fleet, Arc<Profiles>) {
    let address = simulator.addr();
    let endpoint = config::Endpoint {
        tls: false,
        host: address.ip().to_string(),
        port: address.port(),
        path_prefix: String::new(),
    };
    let endpoints = Endpoints { all: Some(endpoint), ..Endpoints::default() };
    let direct = Direct {
        region: Region::new("us-east-1"),
        credentials: credentials("secret"),
        bearer: None,
        allow_unlisted_models: true,
        timeout: IDLE,
        stream_timeout: IDLE,
        total_timeout: None,
        stream_total_timeout: None,
    };
    let options = Options { ca_bundle: None, region: "us-east-1".to_owned() };
    let store = CredentialStore::new([credentials("secret")], options, None);
    let fleet = Fleet::new(deployments, &direct, &endpoints, &store, IDLE, previous.map(|(fleet, _)| fleet)).unwrap();
    let metrics = Arc::new(Metrics::new().unwrap());
    let previous = previous.map(|(_, profiles)| profiles);
    let profiles = Arc::new(Profiles::new(&fleet, endpoints, PriceBook::bundled(), metrics, previous));
    (fleet, profiles)
}

impl Stand {
    /// Demands an answer of GetInferenceProfile.
    fn answers(&self, models: &[&str]) {
        let rules = serde_json::json!({ "rules": [{ "profile_models": models }] });
        self.simulator.behave(serde_json::from_value(rules).unwrap());
    }

    fn refuses(&self) {
        let fault = serde_json::json!({ "kind": "error", "status": 403, "error_type": "AccessDeniedException",
            "message": "role/internal may not" });
        let rules =
            serde_json::json!({ "rules": [{ "match": { "operation": "GetInferenceProfile" }, "fault": fault }] });
        self.simulator.behave(serde_json::from_value(rules).unwrap());
    }

    fn lookups(&self) -> u64 {
        self.simulator.counters().profile_lookups
    }

    /// The base models of the listed deployments.
    async fn listed(&self) -> (Vec<Option<String>>, Option<LookupError>) {
        let group = Arc::clone(self.fleet.group("m").unwrap());
        base_models(self.profiles.with_base_models(group, None).await)
    }

    /// The base model of an id that a client names.
    async fn named(&self, id: &str) -> (Option<String>, Option<LookupError>) {
        let group = Arc::clone(self.fleet.direct(Service::BedrockRuntime).unwrap());
        let (mut found, failure) = base_models(self.profiles.with_base_models(group, Some(id)).await);
        (found.remove(0), failure)
    }
}

fn base_models(found: (Arc<Group>, Option<LookupError>)) -> (Vec<Option<String>>, Option<LookupError>) {
    let base = |target: &Arc<Target>| target.base_model.as_ref().map(ToString::to_string);
    (found.0.targets.iter().map(base).collect(), found.1)
}

fn model_arn(region: &str, id: &str) -> String {
    format!("arn:aws:bedrock:{region}::foundation-model/{id}")
}

#[tokio::test]
async fn a_listed_profile_is_asked_for_once_with_a_good_signature() {
    let stand = stand(&[deployment("d", ARN, None)]).await;
    stand.answers(&[&model_arn("us-east-1", HAIKU), &model_arn("us-west-2", HAIKU)]);
    stand.profiles.look_up_listed().await;
    let many = join_all((0..20).map(|_| stand.listed())).await;
    assert!(many.iter().all(|found| *found == (vec![Some(format!("us.{HAIKU}"))], None)), "{many:?}");
    let requests = stand.simulator.requests();
    assert_eq!(requests.len(), 1);
    assert!(requests[0].auth.ok && requests[0].violations.is_empty(), "{requests:?}");
    assert_eq!((requests[0].operation, requests[0].model.as_deref()), (Some("GetInferenceProfile"), Some(ARN)));
}

#[tokio::test]
async fn the_next_fleet_knows_what_this_one_found_out_and_keeps_its_hosts() {
    let mut stand = stand(&[deployment("d", ARN, None)]).await;
    let found = stand.listed().await;
    assert!(found.0[0].is_some(), "{found:?}");
    let host = Arc::clone(&stand.fleet.group("m").unwrap().targets[0].host);
    let heavier = config::Deployment { weight: 7, ..deployment("d", ARN, None) };
    let other = deployment("other", &ARN.replace("abc123", "def456"), None);
    let previous = (&stand.fleet, &*stand.profiles);
    (stand.fleet, stand.profiles) = build(&stand.simulator, &[heavier, other], Some(previous));
    let targets = &stand.fleet.group("m").unwrap().targets;
    assert!(targets.iter().all(|target| Arc::ptr_eq(&target.host, &host)));
    let known: Vec<_> = targets.iter().map(|target| stand.profiles.known(target)).collect();
    assert_eq!(known[0].base_model.as_ref().map(ToString::to_string), found.0[0], "without another question");
    assert_eq!((known[0].traits.weight, &known[1].base_model, stand.lookups()), (7, &None, 1));
}

#[tokio::test]
async fn requests_that_come_together_wait_for_one_answer() {
    let stand = stand(&[deployment("d", ARN, None)]).await;
    let many = join_all((0..20).map(|_| stand.listed())).await;
    assert!(many.iter().all(|(found, failure)| found[0].is_some() && failure.is_none()), "{many:?}");
    assert_eq!(stand.lookups(), 1);
}

#[tokio::test]
async fn what_tells_its_model_is_never_asked_for() {
    let profile = "arn:aws:bedrock:us-east-1:123456789012:inference-profile/us.amazon.nova-pro-v1:0";
    let stand = stand(&[
        deployment("a", ARN, Some("us.amazon.nova-pro-v1:0")),
        deployment("b", profile, None),
        deployment("c", "us.amazon.nova-pro-v1:0", None),
    ])
    .await;
    stand.profiles.look_up_listed().await;
    let (found, failure) = stand.listed().await;
    assert_eq!((found[0].as_deref(), &found[1..], failure), (Some("us.amazon.nova-pro-v1:0"), &[None, None][..], None));
    for id in ["us.amazon.nova-pro-v1:0", profile, "arn:aws:bedrock:us-east-1:1:provisioned-model/x"] {
        assert_eq!(stand.named(id).await, (None, None), "{id}");
    }
    assert_eq!(stand.simulator.counters().requests, 0);
}

#[tokio::test]
async fn a_failure_says_why_and_is_not_repeated_at_once() {
    let stand = stand(&[deployment("d", ARN, None)]).await;
    stand.refuses();
    for _ in 0..3 {
        let (found, failure) = stand.listed().await;
        assert_eq!((found, failure.as_ref().map(LookupError::as_str)), (vec![None], Some("refused")));
        let failure = failure.unwrap();
        assert_eq!(
            (failure.to_string(), failure.detail()),
            ("AWS answered AccessDeniedException".to_owned(), "role/internal may not")
        );
    }
    assert_eq!(stand.lookups(), 1);
    for (models, expected) in [(&[][..], "unusable"), (&["arn:aws:bedrock:us-east-1:1:custom-model/x"], "unusable")] {
        stand.answers(models);
        let (_, failure) = stand.named(&format!("{ARN}{}", models.len())).await;
        assert_eq!(failure.map(|failure| failure.as_str()), Some(expected));
    }
}

#[tokio::test]
async fn a_client_s_arn_is_asked_for_only_in_the_region_that_is_called() {
    let stand = stand(&[]).await;
    let (found, failure) = stand.named(ARN).await;
    assert!(found.is_some() && failure.is_none(), "{failure:?}");
    let elsewhere = ARN.replace("us-east-1", "eu-west-1");
    assert_eq!(stand.named(&elsewhere).await, (None, Some(LookupError::OtherRegion)));
    assert_eq!(stand.lookups(), 1);
}

#[tokio::test]
async fn clients_cannot_make_more_profiles_than_are_kept() {
    let stand = stand(&[]).await;
    let group = Arc::clone(stand.fleet.direct(Service::BedrockRuntime).unwrap());
    for number in 0..3 * NAMED_MAX {
        stand.profiles.profile(&group.targets[0], Some(&format!("{ARN}{number}"))).unwrap();
    }
    assert!(stand.profiles.named.len() <= NAMED_MAX, "{}", stand.profiles.named.len());
}

#[tokio::test]
async fn an_old_answer_is_used_while_it_is_asked_for_again_and_while_that_fails() {
    let stand = stand(&[deployment("d", ARN, None)]).await;
    stand.answers(&[&model_arn("us-east-1", HAIKU)]);
    assert_eq!(stand.listed().await.0, [Some(HAIKU.to_owned())]);
    let profile = &stand.profiles.listed[&DeploymentId::new("d")];
    let found = profile.found.load_full().unwrap();
    let at = found.at.checked_sub(FRESH).unwrap();
    profile.found.store(Some(Arc::new(Found { target: Arc::clone(&found.target), at })));
    stand.refuses();
    assert_eq!(stand.listed().await, (vec![Some(HAIKU.to_owned())], None));
    while profile.failure.load().is_none() {
        tokio::task::yield_now().await;
    }
    assert_eq!(stand.listed().await, (vec![Some(HAIKU.to_owned())], None));
    assert_eq!(stand.lookups(), 2, "after a failure nobody asks for a while");
    stand.answers(&[&model_arn("us-east-1", HAIKU), &model_arn("us-east-2", HAIKU)]);
    profile.failure.store(None);
    assert_eq!(stand.listed().await.0, [Some(HAIKU.to_owned())]);
    while stand.listed().await.0 != [Some(format!("us.{HAIKU}"))] {
        tokio::task::yield_now().await;
    }
    assert_eq!(stand.lookups(), 3);
}
