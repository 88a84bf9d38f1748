//! For whom and for what a request is: its end user and its tags, from headers and from the members of a body that AWS
//! or the model's maker meant for that.
//!
//! - end user: a configured header; `X-Amzn-Bedrock-Request-Metadata` (JSON) and Converse's `requestMetadata`, members
//!   `end_user`, `end_user_id`, `user_id`, `user`; Anthropic's `metadata.user_id`; OpenAI's `user`, `safety_identifier`;
//! - tags: those of the key, its team and its user, then a configured header, separated by commas.
//!
//! A client may say what it wants here, so this only ever adds limits and is never a proof. Pure.

use std::borrow::Cow;
use std::sync::LazyLock;

use memchr::memmem::Finder;
use serde::Deserialize;

use super::authenticate::{Caller, Holder};
use crate::aws::operation::Metering;
use crate::budget::estimate::Content;
use crate::json::Member;

/// Characters of an end user's name or of a tag.
const NAME_CHARACTERS_MAX: usize = 256;
const TAG_CHARACTERS_MAX: usize = 128;
const TAGS_MAX: usize = 32;

/// AWS's header for what Converse has in its body.
const REQUEST_METADATA_HEADER: &str = "x-amzn-bedrock-request-metadata";

/// Gives the first value of a header by its lower-case name.
pub type Header<'h> = dyn Fn(&str) -> Option<&'h [u8]> + 'h;

/// Finds the end user. `names` are the configured headers, the first that is present wins; the body may be empty where it
/// was not read.
#[must_use]
pub fn end_user(names: &[String], header: &Header<'_>, metering: Metering, body: &Content<'_>) -> Option<String> {
    let text = |name: &str| header(name).and_then(|value| std::str::from_utf8(value).ok());
    names
        .iter()
        .find_map(|name| text(name).and_then(|value| clean(value, NAME_CHARACTERS_MAX)))
        .or_else(|| {
            let metadata: Option<Metadata<'_>> = serde_json::from_str(text(REQUEST_METADATA_HEADER)?).ok();
            metadata?.end_user()
        })
        .or_else(|| from_body(metering, body))
}

/// The tags of a request, those that the operator gave first, without repetitions.
#[must_use]
pub fn tags(names: &[String], header: &Header<'_>, caller: &Caller) -> Vec<String> {
    let own = caller.holder().into_iter().flat_map(Holder::records).flat_map(|(_, record)| &record.tags);
    let sent = names.iter().find_map(|name| header(name)).and_then(|value| std::str::from_utf8(value).ok());
    let mut tags: Vec<String> = Vec::new();
    for tag in own.map(String::as_str).chain(sent.unwrap_or_default().split(',')) {
        if tags.len() == TAGS_MAX {
            break;
        }
        if let Some(tag) = clean(tag, TAG_CHARACTERS_MAX)
            && !tags.contains(&tag)
        {
            tags.push(tag);
        }
    }
    tags
}

/// Looks for the name of a member. That is ten times cheaper than reading, and few bodies have one. Preparing it
/// takes as long as looking through a kilobyte.
struct Name(LazyLock<Finder<'static>>);

impl Name {
    const fn new(prepare: fn() -> Finder<'static>) -> Self {
        Self(LazyLock::new(prepare))
    }

    fn is_in(&self, body: &[u8]) -> bool {
        self.0.find(body).is_some()
    }
}

static REQUEST_METADATA: Name = Name::new(|| Finder::new("\"requestMetadata\""));
static USER: Name = Name::new(|| Finder::new("\"user\""));
static USER_ID: Name = Name::new(|| Finder::new("\"user_id\""));
static SAFETY_IDENTIFIER: Name = Name::new(|| Finder::new("\"safety_identifier\""));
static ANTHROPIC_VERSION: Name = Name::new(|| Finder::new("\"anthropic_version\""));

fn from_body(metering: Metering, body: &Content<'_>) -> Option<String> {
    let has = |name: &Name| name.is_in(body.bytes());
    match metering {
        Metering::Converse | Metering::ConverseStream => {
            if has(&REQUEST_METADATA) {
                metadata(body, "requestMetadata")?.end_user()
            } else {
                None
            }
        }
        Metering::InvokeModel | Metering::InvokeModelStream | Metering::AnthropicMessages => {
            let is_openai = || metering != Metering::AnthropicMessages && has(&USER) && !has(&ANTHROPIC_VERSION);
            let of_anthropic = if has(&USER_ID) { anthropic(body) } else { None };
            of_anthropic.or_else(|| if is_openai() { openai(body) } else { None })
        }
        Metering::OpenAiChat | Metering::OpenAiResponses => {
            if has(&USER) || has(&SAFETY_IDENTIFIER) {
                openai(body)
            } else {
                None
            }
        }
        _ => None,
    }
}

fn metadata<'b>(body: &Content<'b>, name: &str) -> Option<Metadata<'b>> {
    serde_json::from_slice(body.member(name).value()?).ok()
}

fn anthropic(body: &Content<'_>) -> Option<String> {
    let user = metadata(body, "metadata")?.user_id?;
    // Claude Code writes `user_<hash>_account_<id>_session_<id>`: the session is not the user.
    let user = match user.split_once("_session_") {
        Some((who, _)) if who.starts_with("user_") => who,
        _ => &user,
    };
    clean(user, NAME_CHARACTERS_MAX)
}

fn openai(body: &Content<'_>) -> Option<String> {
    let (user, safety_identifier) = (text(body, "user").ok()?, text(body, "safety_identifier").ok()?);
    clean(&user.or(safety_identifier)?, NAME_CHARACTERS_MAX)
}

/// A member is there twice, or is no text.
struct Unusable;

/// A member that is text or nothing.
fn text<'b>(body: &Content<'b>, name: &str) -> Result<Option<Cow<'b, str>>, Unusable> {
    match body.member(name) {
        Member::Missing => Ok(None),
        Member::Once { value, .. } => serde_json::from_slice(value).map_err(|_| Unusable),
        Member::Twice => Err(Unusable),
    }
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct Metadata<'b> {
    #[serde(borrow)]
    end_user: Option<Cow<'b, str>>,
    #[serde(borrow)]
    end_user_id: Option<Cow<'b, str>>,
    #[serde(borrow)]
    user_id: Option<Cow<'b, str>>,
    #[serde(borrow)]
    user: Option<Cow<'b, str>>,
}

impl Metadata<'_> {
    fn end_user(&self) -> Option<String> {
        let named = [&self.end_user, &self.end_user_id, &self.user_id, &self.user];
        named.into_iter().flatten().find_map(|user| clean(user, NAME_CHARACTERS_MAX))
    }
}

/// Without control characters, trimmed, and cut; `None` when nothing is left.
fn clean(text: &str, characters_max: usize) -> Option<String> {
    let visible: String =
        text.trim().chars().filter(|character| !character.is_control()).take(characters_max).collect();
    let trimmed = visible.trim();
    if trimmed.is_empty() { None } else { Some(trimmed.to_owned()) }
}

#[cfg(test)]
mod tests;
