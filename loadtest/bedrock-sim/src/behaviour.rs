//! What tests demand of the simulator, as JSON: `GET`/`PUT`/`POST`/`DELETE /_sim/behaviour`. Every matching rule counts;
//! each setting comes from the first matching rule that has it. Unknown members are refused, because a misspelt fault
//! that never happens is a test that never tests.

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use serde::{Deserialize, Serialize};

use crate::coding::Coding;
use crate::text::fits;
use crate::usage::UsageOverride;

/// Everything that can be demanded.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Behaviour {
    pub rules: Vec<Rule>,
    /// So many of the next connections are closed as soon as they are accepted.
    pub refuse_connections: u64,
}

/// One rule. Absent settings leave the answer as it is.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Rule {
    #[serde(rename = "match")]
    pub matching: Match,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub usage: Option<UsageOverride>,
    /// The service tier that the response states, whatever was asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tier: Option<String>,
    /// The latency mode that the response states.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub latency: Option<String>,
    /// How many text deltas an answer has.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub frames: Option<usize>,
    /// Bytes of text in each delta.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub frame_bytes: Option<usize>,
    /// Frames per second; 0 is as fast as they are taken.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub frame_rate_hz: Option<u32>,
    /// The answer's text.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub text: Option<String>,
    /// Whether InvokeModel answers carry `X-Amzn-Bedrock-*-Token-Count`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub token_headers: Option<bool>,
    /// What the answer's body is compressed with, whatever was asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub coding: Option<Coding>,
    /// The model that is billed in place of the one named: behind a prompt router, a profile ARN or an agent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub billed_model: Option<String>,
    /// The `modelArn`s that GetInferenceProfile lists for an application inference profile.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub profile_models: Option<Vec<String>>,
    /// How a generation's tokens are counted.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tokens: Option<Tokens>,
    /// When a generation is billed, and how much of it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bill: Option<Billing>,
    /// The header, or the fault in its place, leaves so much later; beside any fault, and for any number of requests.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub delay_ms: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fault: Option<Fault>,
}

/// How tokens are counted where no `usage` is demanded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Tokens {
    /// Four characters of the prompt, and a word of the answer, are one.
    Words,
    /// As many as can be: every byte of the request's body, and all of `max_tokens`. The answer's text has at least a
    /// byte for each. An upper bound made of these numbers is then what the call costs.
    Bytes,
}

/// When a generation is billed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Billing {
    /// In full when its first byte leaves: the default.
    Full,
    /// A stream when it ends, and of its output only the share that left, by bytes. Everything else in full.
    Delivered,
    /// In full when the request has arrived, even if nobody waits for the answer or a fault takes its place; but not
    /// when the answer is an error status or begins with an exception.
    Arrived,
}

/// To which requests a rule applies. Texts may contain `*`; absent members fit everything.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Match {
    /// The decoded model id or ARN.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub model: Option<String>,
    /// The raw path.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
    /// The operation's name, such as `ConverseStream`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub operation: Option<String>,
    /// The region of the signature.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub region: Option<String>,
    /// The Host header.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub host: Option<String>,
    /// The access key id of the signature.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub access_key_id: Option<String>,
    /// How many requests the rule applies to; it then stays in the list without effect.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub times: Option<u64>,
    /// How many fitting requests pass before the rule begins to apply.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub skip: Option<u64>,
}

/// A failure on demand. `after_frames` counts pieces that are sent unharmed; a non-streamed body is two pieces.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
pub enum Fault {
    /// 429 ThrottlingException.
    Throttle { retry_after_s: Option<u64> },
    /// Any other error status in AWS's form.
    Error { status: u16, error_type: String, message: Option<String>, retry_after_s: Option<u64> },
    /// The header leaves late.
    SlowFirstByte { ms: u64 },
    /// No header ever leaves.
    StallBeforeHeader {},
    /// The answer stops, `bytes` into the next frame, and the connection stays open; with `ms` it goes on after that
    /// time.
    StallMidStream { after_frames: Option<usize>, bytes: Option<usize>, ms: Option<u64> },
    /// The answer ends between two frames: the connection breaks, or with `clean` the HTTP message ends properly.
    Cut {
        after_frames: Option<usize>,
        #[serde(default)]
        clean: bool,
    },
    /// The answer ends inside a frame: after `bytes` of it, at most all but one; without them after half.
    CutMidFrame {
        after_frames: Option<usize>,
        bytes: Option<usize>,
        #[serde(default)]
        clean: bool,
    },
    /// One frame (counted from 0) has a wrong message checksum.
    BadCrc { frame: usize },
    /// An exception frame ends the stream.
    ExceptionFrame { after_frames: Option<usize>, name: String, message: Option<String> },
    /// An unmodelled error frame ends the stream.
    ErrorFrame { after_frames: Option<usize>, code: String, message: Option<String> },
    /// TCP reset, before the header or after so many frames.
    Reset { after_frames: Option<usize> },
    /// The body trickles.
    SlowBody { bytes: usize, interval_ms: u64 },
}

/// What rules are matched against.
#[derive(Debug, Clone, Copy, Default)]
pub struct Facts<'a> {
    pub model: &'a str,
    pub path: &'a str,
    pub operation: &'a str,
    pub region: &'a str,
    pub host: &'a str,
    pub access_key_id: &'a str,
}

#[derive(Default)]
struct Active {
    rule: Rule,
    fitted: u64,
}

/// The rules in force.
#[derive(Default)]
pub struct Rules {
    active: Mutex<Vec<Active>>,
    any: AtomicBool,
    refuse: AtomicU64,
}

impl Rules {
    pub fn set(&self, behaviour: Behaviour) {
        self.refuse.store(behaviour.refuse_connections, Ordering::Relaxed);
        if let Ok(mut active) = self.active.lock() {
            *active = behaviour.rules.into_iter().map(|rule| Active { rule, fitted: 0 }).collect();
            self.any.store(!active.is_empty(), Ordering::Release);
        }
    }

    pub fn add(&self, rule: Rule) {
        if let Ok(mut active) = self.active.lock() {
            active.push(Active { rule, fitted: 0 });
            self.any.store(true, Ordering::Release);
        }
    }

    pub fn get(&self) -> Behaviour {
        let rules = self.active.lock().map(|active| active.iter().map(|active| active.rule.clone()).collect());
        Behaviour { rules: rules.unwrap_or_default(), refuse_connections: self.refuse.load(Ordering::Relaxed) }
    }

    /// Whether the connection just accepted is to be closed; counts it.
    pub fn refuses_connection(&self) -> bool {
        let take = |left: u64| left.checked_sub(1);
        self.refuse.fetch_update(Ordering::Relaxed, Ordering::Relaxed, take).is_ok()
    }

    /// The settings for one request; counts it against every rule that fits.
    pub fn effect(&self, facts: &Facts<'_>) -> Rule {
        let mut effect = Rule::default();
        if !self.any.load(Ordering::Acquire) {
            return effect;
        }
        let Ok(mut active) = self.active.lock() else { return effect };
        for Active { rule, fitted } in active.iter_mut() {
            if !rule.matching.fits(facts) {
                continue;
            }
            let skipped = rule.matching.skip.unwrap_or(0);
            let last = rule.matching.times.map(|times| skipped.saturating_add(times));
            *fitted += 1;
            if *fitted > skipped && last.is_none_or(|last| *fitted <= last) {
                effect.fill_from(rule);
            }
        }
        effect
    }
}

impl Match {
    fn fits(&self, facts: &Facts<'_>) -> bool {
        let fit = |pattern: &Option<String>, text: &str| pattern.as_deref().is_none_or(|pattern| fits(pattern, text));
        fit(&self.model, facts.model)
            && fit(&self.path, facts.path)
            && fit(&self.operation, facts.operation)
            && fit(&self.region, facts.region)
            && fit(&self.host, facts.host)
            && fit(&self.access_key_id, facts.access_key_id)
    }
}

impl Rule {
    fn fill_from(&mut self, other: &Self) {
        fn fill<T: Clone>(own: &mut Option<T>, other: Option<&T>) {
            if own.is_none() {
                *own = other.cloned();
            }
        }
        fill(&mut self.usage, other.usage.as_ref());
        fill(&mut self.tier, other.tier.as_ref());
        fill(&mut self.latency, other.latency.as_ref());
        fill(&mut self.frames, other.frames.as_ref());
        fill(&mut self.frame_bytes, other.frame_bytes.as_ref());
        fill(&mut self.frame_rate_hz, other.frame_rate_hz.as_ref());
        fill(&mut self.text, other.text.as_ref());
        fill(&mut self.token_headers, other.token_headers.as_ref());
        fill(&mut self.coding, other.coding.as_ref());
        fill(&mut self.billed_model, other.billed_model.as_ref());
        fill(&mut self.profile_models, other.profile_models.as_ref());
        fill(&mut self.tokens, other.tokens.as_ref());
        fill(&mut self.bill, other.bill.as_ref());
        fill(&mut self.delay_ms, other.delay_ms.as_ref());
        fill(&mut self.fault, other.fault.as_ref());
    }
}

impl Fault {
    /// Whether nothing is generated, and so nothing billed: the answer is an error status, or begins with an exception.
    pub fn generates_nothing(&self) -> bool {
        matches!(
            self,
            Self::Throttle { .. }
                | Self::Error { .. }
                | Self::ExceptionFrame { after_frames: Some(0), .. }
                | Self::ErrorFrame { after_frames: Some(0), .. }
        )
    }

    /// The word for records.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Throttle { .. } => "throttle",
            Self::Error { .. } => "error",
            Self::SlowFirstByte { .. } => "slow_first_byte",
            Self::StallBeforeHeader {} => "stall_before_header",
            Self::StallMidStream { .. } => "stall_mid_stream",
            Self::Cut { .. } => "cut",
            Self::CutMidFrame { .. } => "cut_mid_frame",
            Self::BadCrc { .. } => "bad_crc",
            Self::ExceptionFrame { .. } => "exception_frame",
            Self::ErrorFrame { .. } => "error_frame",
            Self::Reset { .. } => "reset",
            Self::SlowBody { .. } => "slow_body",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rules(json: &str) -> Rules {
        let rules = Rules::default();
        rules.set(serde_json::from_str(json).unwrap());
        rules
    }

    #[test]
    fn each_setting_comes_from_the_first_rule_that_has_it() {
        let rules = rules(
            r#"{"rules":[{"match":{"model":"us.*"},"tier":"flex"},{"tier":"priority","frames":3},{"frames":9}]}"#,
        );
        let effect = rules.effect(&Facts { model: "us.x", ..Facts::default() });
        assert_eq!((effect.tier.as_deref(), effect.frames), (Some("flex"), Some(3)));
        let effect = rules.effect(&Facts { model: "eu.x", ..Facts::default() });
        assert_eq!(effect.tier.as_deref(), Some("priority"));
    }

    #[test]
    fn times_and_skip_bound_a_rule() {
        let rules =
            rules(r#"{"rules":[{"match":{"times":2,"skip":1},"fault":{"kind":"throttle","retry_after_s":2}}]}"#);
        let hits: Vec<bool> = (0..5).map(|_| rules.effect(&Facts::default()).fault.is_some()).collect();
        assert_eq!(hits, [false, true, true, false, false]);
    }

    #[test]
    fn misspelt_rules_are_refused() {
        for bad in [
            r#"{"rules":[{"match":{"modle":"x"}}]}"#,
            r#"{"rules":[{"fualt":{"kind":"throttle"}}]}"#,
            r#"{"rules":[{"fault":{"kind":"explode"}}]}"#,
            r#"{"rules":[{"fault":{"kind":"reset","after":1}}]}"#,
            r#"{"rules":[{"usage":{"inputs":1}}]}"#,
            r#"{"rules":[{"tokens":"characters"}]}"#,
            r#"{"rules":[{"bill":"never"}]}"#,
        ] {
            assert!(serde_json::from_str::<Behaviour>(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn refused_connections_are_counted_down() {
        let rules = rules(r#"{"refuse_connections":2}"#);
        assert_eq!([(); 3].map(|()| rules.refuses_connection()), [true, true, false]);
    }
}
