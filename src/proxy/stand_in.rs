//! The models that stand in for the one that a client called: `fallbacks` where no deployment of a name could serve,
//! `context_window_fallbacks` where its prompt is too long.
//!
//! They are found before the first attempt, because what is set aside has to cover the dearest of them, and so that a
//! request goes nowhere that its key may not. A key with limits of its own for a model does not come there by a detour:
//! what a request costs counts under the name that was called.

use std::collections::VecDeque;
use std::sync::Arc;

use super::Gateway;
use super::booking::Attribution;
use super::call::{Call, ModelPlace};
use crate::aws::operation::Streaming;
use crate::deployment::fleet::Group;
use crate::keys::authenticate::Caller;
use crate::keys::policy::{self, Question};
use crate::types::ids::{ModelId, ModelName};
use crate::usage::RequestFacts;

/// One of them, as the request sees it.
#[derive(Debug)]
pub(super) struct StandIn {
    pub group: Arc<Group>,
    pub model_id: Option<String>,
    pub facts: RequestFacts,
}

/// Those that are left, in order.
#[derive(Debug, Default)]
pub(super) struct StandIns {
    failing: VecDeque<StandIn>,
    context_window: VecDeque<StandIn>,
}

/// Who asks for what.
#[derive(Clone, Copy)]
pub(super) struct Request<'a> {
    pub caller: &'a Caller,
    pub whose: &'a Attribution,
    pub call: &'a Call,
    /// Of the client's request.
    pub path: &'a str,
    pub body: &'a [u8],
}

impl StandIns {
    /// Those of the name that `group` has.
    pub(super) async fn find(gateway: &Gateway, group: &Group, request: Request<'_>) -> Self {
        let fallbacks = &gateway.router.fallbacks;
        let listed = group.targets.first().is_some_and(|target| target.model_name.is_some());
        // A name in the body goes to AWS as it is, and a conversation cannot be begun anew.
        let is_moved = matches!(request.call.model, ModelPlace::Path(_))
            && request.call.operation.streaming != Streaming::Bidirectional;
        if !listed || !is_moved {
            return Self::default();
        }
        let name = &group.model_name;
        let failing = fallbacks.by_model.get(name).unwrap_or(&fallbacks.default);
        let context_window = fallbacks.context_window.get(name).map(Vec::as_slice).unwrap_or_default();
        let of = |names: &[ModelName]| {
            let names: Vec<_> = names.iter().filter(|other| *other != name).take(fallbacks.max).cloned().collect();
            async move {
                let mut found = VecDeque::with_capacity(names.len());
                for name in names {
                    found.extend(stand_in(gateway, &name, request).await);
                }
                found
            }
        };
        Self { failing: of(failing).await, context_window: of(context_window).await }
    }

    /// Whether there is one for a model that cannot serve.
    pub(super) fn may_serve(&self) -> bool {
        !self.failing.is_empty()
    }

    /// Whether there is one for a prompt that is too long.
    pub(super) fn may_have_room(&self) -> bool {
        !self.context_window.is_empty()
    }

    /// The next of them; it does not come a second time.
    pub(super) fn next(&mut self, for_room: bool) -> Option<StandIn> {
        let next = if for_room { self.context_window.pop_front() } else { self.failing.pop_front() }?;
        self.retain(|other| other.group.model_name != next.group.model_name);
        Some(next)
    }

    /// Leaves out those that `may` says no of.
    pub(super) fn retain(&mut self, mut may: impl FnMut(&StandIn) -> bool) {
        self.failing.retain(&mut may);
        self.context_window.retain(may);
    }
}

/// `None` where the key may not call it, or not in any of its regions.
async fn stand_in(gateway: &Gateway, name: &ModelName, request: Request<'_>) -> Option<StandIn> {
    let Request { caller, whose, call, path, body } = request;
    let question = Question { operation: call.operation, path, model_name: Some(name.as_str()) };
    policy::allow(caller, &question).ok()?;
    let group = Arc::clone(gateway.fleet.group(name.as_str())?);
    let group = whose.allowed(caller, group).ok()?;
    let (group, _) = gateway.profiles.with_base_models(group, None).await;
    let first = group.targets.first()?;
    let model_id = first.model_id.as_ref().map(ToString::to_string);
    let priced = first.base_model.as_ref().map(ModelId::as_str).or(model_id.as_deref());
    let facts = RequestFacts::read(call.operation.metering, priced, body);
    Some(StandIn { group, model_id, facts })
}
