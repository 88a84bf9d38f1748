//! The attempts of one request: after each, where the next one goes, or that there is none.
//!
//! Pure; [`super::outcome::judge`] says what may be tried, [`super::select`] where, this module how often. Every
//! deployment gets at most one attempt, and only when none is left and its `max_retries` allows it, a further one after
//! a pause. All attempts together are at most `1 + num_retries`, over all model names. A retry to a deployment that is
//! known to work is free; one to a deployment in trouble comes out of the retry budget.

use std::time::{Duration, Instant};

use super::cooldown::Availability;
use super::outcome::{Next, Verdict};
use super::retry::{self, RetryBudget};
use super::select::{Asked, Choice, Nothing, Strategy, View, may_begin, select};

/// Counts the attempts of one request.
#[derive(Debug, Clone)]
pub struct Attempts {
    allowed: u32,
    made: u32,
    /// Attempts at each deployment of the present model name.
    tries: Vec<u32>,
}

/// What the next attempt depends on besides the deployments.
#[derive(Debug, Clone, Copy)]
pub struct Circumstances {
    pub strategy: Strategy,
    /// As [`Asked::affinity`].
    pub affinity: Option<u64>,
    pub retry_budget_percent: u32,
    pub now: Instant,
    /// Uniform over `u64`.
    pub random: u64,
}

/// What happens next to a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// An attempt at this deployment, after a pause.
    Try { choice: Choice, pause: Duration },
    /// The same attempt, over a new connection.
    Same,
    /// The request needs another model; where there is none, the answer is delivered.
    OtherModel,
    /// The answer goes to the client as it is, or an error of ours.
    Deliver(Why),
    /// What the client got of the answer ends here.
    BreakOff,
}

/// Why there is no further attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Why {
    /// The answer is for the client.
    Final,
    /// `1 + num_retries` attempts were made.
    Exhausted,
    /// Every deployment was tried.
    NoneLeft,
    /// Those that are left are at their limits; one has room again after this time.
    Full { free_in: Duration },
    /// The retry budget is used up.
    RetryBudget,
}

impl Attempts {
    #[must_use]
    pub const fn new(num_retries: u32) -> Self {
        Self { allowed: num_retries.saturating_add(1), made: 0, tries: Vec::new() }
    }

    /// Over all model names.
    #[must_use]
    pub const fn made(&self) -> u32 {
        self.made
    }

    #[must_use]
    pub fn tried(&self, index: usize) -> bool {
        self.tries.get(index).is_some_and(|tries| *tries > 0)
    }

    /// Whether there may be a further attempt, wherever it goes.
    #[must_use]
    pub const fn are_left(&self) -> bool {
        self.made < self.allowed
    }

    /// Whether there may be a further attempt, at one of so many deployments that was not tried yet.
    #[must_use]
    pub fn may_go_on(&self, deployments: usize) -> bool {
        self.are_left() && (0..deployments).any(|index| !self.tried(index))
    }

    /// The request goes on with another model name, of whose deployments none was tried.
    pub fn enter_next_model(&mut self) {
        self.tries.clear();
    }

    /// The present attempt is the last one: what goes there cannot be sent again.
    pub const fn stay(&mut self) {
        self.allowed = self.made;
    }

    /// An attempt at the deployment of this index begins.
    pub fn begun(&mut self, index: usize) {
        self.made = self.made.saturating_add(1);
        if self.tries.len() <= index {
            self.tries.resize(index.saturating_add(1), 0);
        }
        if let Some(tries) = self.tries.get_mut(index) {
            *tries = tries.saturating_add(1);
        }
    }

    /// What follows from the attempt that has just ended.
    pub fn after(
        &self,
        verdict: &Verdict,
        views: &[View],
        budget: &mut RetryBudget,
        circumstances: &Circumstances,
    ) -> Step {
        match verdict.next {
            Next::Deliver => Step::Deliver(Why::Final),
            Next::BreakOff => Step::BreakOff,
            Next::SameDeployment => Step::Same,
            Next::OtherModel => Step::OtherModel,
            Next::OtherDeployment => self.next(views, budget, circumstances),
        }
    }

    /// Where the first attempt goes: to the deployment of this index, drawn by weight from all of the name. `None` where
    /// it may not serve, and one is to be selected.
    pub fn first(&self, index: usize, view: &View, budget: &mut RetryBudget, now: Instant) -> Option<Step> {
        if self.made > 0 || self.allowed == 0 || !may_begin(view) {
            return None;
        }
        budget.request(now);
        let choice = Choice { index, availability: view.availability, affinity: None };
        Some(Step::Try { choice, pause: Duration::ZERO })
    }

    /// Where the next attempt goes, the first of the request or a further one.
    pub fn next(&self, views: &[View], budget: &mut RetryBudget, circumstances: &Circumstances) -> Step {
        let Circumstances { strategy, affinity, retry_budget_percent, now, random } = *circumstances;
        if self.made >= self.allowed {
            return Step::Deliver(Why::Exhausted);
        }
        let first = self.made == 0;
        let (choice, pause) = match select(&Asked { strategy, affinity, first }, views, random) {
            Ok(choice) => (choice, Duration::ZERO),
            Err(nothing) => match self.again(views, circumstances) {
                Some(again) => again,
                None => return Step::Deliver(nothing.into()),
            },
        };
        if first {
            budget.request(now);
        } else if (choice.availability != Availability::Healthy || self.tried(choice.index))
            && !budget.retry(now, retry_budget_percent)
        {
            return Step::Deliver(Why::RetryBudget);
        }
        Step::Try { choice, pause }
    }

    /// The tried deployment that may be tried again, and the pause before that. None that asked for a longer one.
    fn again(&self, views: &[View], circumstances: &Circumstances) -> Option<(Choice, Duration)> {
        let now = circumstances.now;
        let waits = |view: &View| match view.availability {
            Availability::Cooling { until } => until.saturating_duration_since(now),
            _ => Duration::ZERO,
        };
        let candidates = views.iter().zip(&self.tries).enumerate().filter(|(_, (view, tries))| {
            (1..=view.max_retries).contains(*tries) && view.full_for.is_none() && waits(view) <= retry::PAUSE_MAX
        });
        let (index, (view, tries)) = candidates.min_by_key(|(_, (view, tries))| (waits(view), **tries))?;
        let choice = Choice { index, availability: view.availability, affinity: None };
        Some((choice, retry::pause(*tries, circumstances.random).max(waits(view))))
    }
}

impl From<Nothing> for Why {
    fn from(nothing: Nothing) -> Self {
        match nothing {
            Nothing::Tried => Self::NoneLeft,
            Nothing::Full { free_in } => Self::Full { free_in },
        }
    }
}

#[cfg(test)]
mod tests;
