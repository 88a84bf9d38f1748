//! What application inference profiles stand for: an ARN of theirs hides the model, and with it the price. Looked up at
//! AWS, kept for an hour, and used for prices and bounds only; the request upstream keeps the ARN.
//!
//! Profiles of listed deployments are known by the deployment and never forgotten; those that clients name by ARN are
//! bounded in number, because a client can send any. An answer that has grown old is used while it is asked for again,
//! and for as long as that fails. Which id a list of models means is `price::profile`'s to say.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwapOption;
use futures::future::join_all;
use futures::{StreamExt as _, stream};
use quick_cache::sync::Cache;
use tokio::sync::{Mutex, OwnedMutexGuard, Semaphore};
use tokio::task::JoinHandle;
use tokio::time::{Instant, timeout};

pub use super::control_plane::LookupError;
use super::control_plane::{ControlPlane, TIMEOUT};
use super::fleet::{Fleet, Group, Target};
use crate::aws::endpoint::{arn_region, is_application_inference_profile};
use crate::aws::operation::Service;
use crate::config::Endpoints;
use crate::price::book::PriceBook;
use crate::price::profile::base_model;
use crate::telemetry::metrics::Metrics;
use crate::types::ids::{DeploymentId, ModelId};

/// How long an answer is used before it is asked for again. A profile cannot be changed, only deleted and made anew.
const FRESH: Duration = Duration::from_hours(1);
/// How long nobody asks again after a failure.
const BACKOFF: Duration = Duration::from_secs(30);
/// Profiles that clients have named by ARN.
const NAMED_MAX: usize = 1_000;
/// Questions at a time; AWS allows an account few of them a second.
const QUESTIONS_MAX: usize = 4;
/// How long a question waits for its turn; the rest of [`TIMEOUT`] is AWS's.
const TURN_TIMEOUT: Duration = Duration::from_secs(2);

/// A profile, called in one way: a deployment of the list, or by its ARN.
#[derive(Debug)]
struct Profile {
    arn: String,
    /// The target as it was configured, without a base model.
    target: Arc<Target>,
    found: ArcSwapOption<Found>,
    failure: ArcSwapOption<Failure>,
    asking: Arc<Mutex<()>>,
}

/// The target with its base model.
#[derive(Debug)]
struct Found {
    target: Arc<Target>,
    at: Instant,
}

#[derive(Debug)]
struct Failure {
    why: LookupError,
    at: Instant,
}

/// What is known of a profile now.
enum Known {
    Target(Arc<Target>),
    /// Good for use; time to ask again.
    Old(Arc<Target>),
    Failed(LookupError),
    Nothing,
}

/// All profiles that are named.
#[derive(Debug)]
pub struct Profiles {
    control_plane: Arc<ControlPlane>,
    book: Arc<PriceBook>,
    metrics: Arc<Metrics>,
    listed: HashMap<DeploymentId, Arc<Profile>>,
    named: Cache<String, Arc<Profile>>,
    questions: Arc<Semaphore>,
}

impl Profiles {
    /// Asks nothing yet. What `previous` has found out of profiles of the list stays known.
    #[must_use]
    pub fn new(
        fleet: &Fleet,
        endpoints: Endpoints,
        book: Arc<PriceBook>,
        metrics: Arc<Metrics>,
        previous: Option<&Self>,
    ) -> Self {
        let targets = fleet.groups().into_iter().flat_map(|group| &group.targets);
        let listed = targets.filter_map(|target| {
            let arn = target.model_id.as_ref().filter(|id| hides_model(target, id.as_str()))?;
            let profile = Profile::new(arn.as_str(), target);
            if let Some(known) = previous.and_then(|previous| previous.listed.get(&target.id)) {
                profile.inherit(known);
            }
            Some((target.id.clone(), Arc::new(profile)))
        });
        Self {
            listed: listed.collect(),
            named: Cache::new(NAMED_MAX),
            control_plane: Arc::new(ControlPlane::new(endpoints)),
            questions: Arc::new(Semaphore::new(QUESTIONS_MAX)),
            book,
            metrics,
        }
    }

    /// Asks for the profiles of all listed deployments, so that no request has to wait for it.
    pub async fn look_up_listed(self: &Arc<Self>) {
        // No more at once than may ask: whoever waits for long is not asked for.
        stream::iter(self.listed.values())
            .for_each_concurrent(QUESTIONS_MAX, |profile| async { drop(self.target(Arc::clone(profile)).await) })
            .await;
    }

    /// A listed target with its base model, if it has one and it is known. Asks nothing.
    #[must_use]
    pub fn known(&self, target: &Arc<Target>) -> Arc<Target> {
        let found = self.listed.get(&target.id).and_then(|profile| profile.found.load_full());
        Arc::clone(found.as_ref().map_or(target, |found| &found.target))
    }

    /// `group` with the base models of its targets, as far as they are known or can be found out, and why the first of
    /// the others is not known. `called` is the id or ARN that a client named, for targets that serve any.
    pub async fn with_base_models(
        self: &Arc<Self>,
        group: Arc<Group>,
        called: Option<&str>,
    ) -> (Arc<Group>, Option<LookupError>) {
        if !group.kinds.iter().any(|target| called_model(target, called).is_some_and(|id| hides_model(target, id))) {
            return (group, None);
        }
        let known = join_all(group.targets.iter().map(|target| async {
            match self.profile(target, called) {
                Some(profile) => self.target(profile).await,
                None => Ok(Arc::clone(target)),
            }
        }));
        let mut failure = None;
        let mut targets = Vec::with_capacity(group.targets.len());
        for (plain, known) in group.targets.iter().zip(known.await) {
            targets.push(known.unwrap_or_else(|why| {
                failure.get_or_insert(why);
                Arc::clone(plain)
            }));
        }
        (Arc::new(group.with(targets)), failure)
    }

    fn profile(&self, target: &Arc<Target>, called: Option<&str>) -> Option<Arc<Profile>> {
        if target.model_id.is_some() {
            return self.listed.get(&target.id).cloned();
        }
        let arn = called.filter(|id| hides_model(target, id))?;
        let made = self.named.get_or_insert_with(arn, || Ok::<_, ()>(Arc::new(Profile::new(arn, target))));
        made.ok()
    }

    /// The target with its base model, waiting for AWS's answer if there is none yet.
    async fn target(self: &Arc<Self>, profile: Arc<Profile>) -> Result<Arc<Target>, LookupError> {
        match profile.known(Instant::now()) {
            Known::Target(target) => Ok(target),
            Known::Old(target) => {
                if let Ok(turn) = Arc::clone(&profile.asking).try_lock_owned() {
                    // Nobody waits for it.
                    drop(self.ask(profile, turn));
                }
                Ok(target)
            }
            Known::Failed(why) => Err(why),
            Known::Nothing => {
                let turn = Arc::clone(&profile.asking).lock_owned().await;
                if matches!(profile.known(Instant::now()), Known::Nothing)
                    && let Err(ended) = self.ask(Arc::clone(&profile), turn).await
                {
                    return Err(LookupError::Unreachable(ended.to_string()));
                }
                match profile.known(Instant::now()) {
                    Known::Target(target) | Known::Old(target) => Ok(target),
                    Known::Failed(why) => Err(why),
                    Known::Nothing => Err(LookupError::Busy),
                }
            }
        }
    }

    /// Asks in a task of its own, so that the answer is kept even if the request that wanted it has gone.
    fn ask(self: &Arc<Self>, profile: Arc<Profile>, turn: OwnedMutexGuard<()>) -> JoinHandle<()> {
        let own = Arc::clone(self);
        tokio::spawn(async move {
            let answer = timeout(TIMEOUT, own.base_model(&profile)).await;
            let answer = answer
                .unwrap_or_else(|_| Err(LookupError::Unreachable(format!("no answer within {} s", TIMEOUT.as_secs()))));
            own.metrics.profile_looked_up(answer.as_ref().err().map_or("found", LookupError::as_str));
            profile.keep(answer);
            drop(turn);
        })
    }

    async fn base_model(&self, profile: &Profile) -> Result<ModelId, LookupError> {
        let target = &profile.target;
        let region = target.region.as_str();
        if arn_region(&profile.arn) != Some(region) {
            return Err(LookupError::OtherRegion);
        }
        let turn = timeout(TURN_TIMEOUT, Arc::clone(&self.questions).acquire_owned()).await;
        let turn = turn.map_err(|_| LookupError::Busy)?.map_err(|_| LookupError::Busy)?;
        let source = target.bearer.as_ref().unwrap_or(&target.credentials);
        let models = self.control_plane.models(&profile.arn, region, source, turn).await?;
        let listed: Vec<&str> = models.iter().map(String::as_str).collect();
        base_model(&self.book, &listed, region)
            .map(ModelId::new)
            .ok_or_else(|| LookupError::Unusable(format!("its models: {listed:?}")))
    }
}

impl Profile {
    fn new(arn: &str, target: &Arc<Target>) -> Self {
        Self {
            arn: arn.to_owned(),
            target: Arc::clone(target),
            found: ArcSwapOption::empty(),
            failure: ArcSwapOption::empty(),
            asking: Arc::default(),
        }
    }

    /// Takes over what another found out of the same profile. A profile stands for a model whoever calls it.
    fn inherit(&self, other: &Self) {
        let found = other.found.load();
        let Some(found) = found.as_ref().filter(|_| other.arn == self.arn) else { return };
        let target = Target { base_model: found.target.base_model.clone(), ..Target::clone(&self.target) };
        self.found.store(Some(Arc::new(Found { target: Arc::new(target), at: found.at })));
    }

    fn known(&self, now: Instant) -> Known {
        let (found, failure) = (self.found.load(), self.failure.load());
        let failed = failure.as_deref().filter(|failure| now.saturating_duration_since(failure.at) < BACKOFF);
        match (found.as_deref(), failed) {
            (Some(found), None) if now.saturating_duration_since(found.at) >= FRESH => {
                Known::Old(Arc::clone(&found.target))
            }
            (Some(found), _) => Known::Target(Arc::clone(&found.target)),
            (None, Some(failed)) => Known::Failed(failed.why.clone()),
            (None, None) => Known::Nothing,
        }
    }

    fn keep(&self, answer: Result<ModelId, LookupError>) {
        let (deployment, arn) = (&self.target.id, &self.arn);
        match answer {
            Ok(base_model) => {
                tracing::info!(%deployment, arn, %base_model, "an application inference profile was looked up");
                let target = Target { base_model: Some(base_model), ..Target::clone(&self.target) };
                self.found.store(Some(Arc::new(Found { target: Arc::new(target), at: Instant::now() })));
                self.failure.store(None);
            }
            // Nothing was learnt of the profile: whoever comes next asks.
            Err(LookupError::Busy) => {}
            Err(why) => {
                if why == LookupError::OtherRegion && self.target.model_id.is_none() {
                    // A client can make up any number of them: they are not worth a line each.
                    tracing::debug!(arn, "{why}");
                    return self.failure.store(Some(Arc::new(Failure { why, at: Instant::now() })));
                }
                let stands =
                    if self.found.load().is_some() { "its last answer stays in use" } else { "it has no price" };
                tracing::warn!(
                    %deployment,
                    arn,
                    detail = why.detail(),
                    "an application inference profile could not be looked up, {stands}: {why}; allow \
                     bedrock:GetInferenceProfile, or set model_info.base_model"
                );
                self.failure.store(Some(Arc::new(Failure { why, at: Instant::now() })));
            }
        }
    }
}

/// What a target calls: its own model, or what the client named.
fn called_model<'a>(target: &'a Target, called: Option<&'a str>) -> Option<&'a str> {
    target.model_id.as_ref().map(ModelId::as_str).or(called)
}

/// Whether only AWS can say which model a target calls under this id.
fn hides_model(target: &Target, id: &str) -> bool {
    target.base_model.is_none() && target.service == Service::BedrockRuntime && is_application_inference_profile(id)
}

#[cfg(test)]
mod tests;
