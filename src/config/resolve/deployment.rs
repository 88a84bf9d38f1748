//! Turns the entries of `model_list` into deployments: which id goes upstream, in which region, at what price.
//!
//! Region precedence follows LiteLLM, so that a configuration from there means the same: the key, the region in the
//! model string, the region of the ARN, the environment. Unlike there, no region at all is a mistake and not
//! `us-west-2`. It does not check that a model exists.

use std::collections::BTreeMap;

use percent_encoding::{AsciiSet, CONTROLS, utf8_percent_encode};

use super::{Timeouts, credentials, optional_seconds};
use crate::aws::endpoint::{arn_region, partition};
use crate::config::model_form::{self, ModelForm};
use crate::config::problem::{At, Findings, Located, Told};
use crate::config::raw::{RawModel, RawParams};
use crate::config::secrets::Environment;
use crate::config::section::Text;
use crate::config::{Credentials, Deployment, Endpoint, SecretRef, defaults, endpoint_url};
use crate::price::book::PriceOverride;
use crate::types::ids::{DeploymentId, ModelId, ModelName, Region};

/// What an entry may take from outside itself.
pub(super) struct Surroundings<'a> {
    pub(super) environment: &'a dyn Environment,
    pub(super) region: Option<&'a Region>,
    pub(super) bearer: Option<SecretRef>,
    pub(super) timeouts: &'a Timeouts,
}

/// LiteLLM's words for what a model does. The path of a request says it here, so the word is checked and not used.
const MODES: &[&str] = &[
    "audio_speech",
    "audio_transcription",
    "batch",
    "chat",
    "completion",
    "embedding",
    "guardrail",
    "image_edit",
    "image_generation",
    "moderation",
    "ocr",
    "realtime",
    "rerank",
    "responses",
    "search",
    "vector_store",
    "video_generation",
];

const NAME_CHARS_MAX: usize = 512;

/// Not in a header, a log line or a label; the rest of an id stays readable.
const OUTSIDE_ID: &AsciiSet = &CONTROLS.add(b' ').add(b'%').add(b'"').add(b'\\');

/// All deployments that are without mistakes, in the order of the list.
pub(super) fn all(models: Vec<RawModel>, from: &Surroundings<'_>, findings: &mut Findings) -> Vec<Deployment> {
    let mut ordinals: BTreeMap<String, usize> = BTreeMap::new();
    let mut places: BTreeMap<String, At> = BTreeMap::new();
    let mut deployments = Vec::with_capacity(models.len());
    for model in models {
        let at = model.id.as_ref().map_or_else(|| model.at.clone(), |id| id.at.clone());
        let Some(name) = name(&model, findings) else {
            // Still read, for its other mistakes.
            entry(model, String::new(), "-", from, findings);
            continue;
        };
        let ordinal = ordinals.entry(name.clone()).or_default();
        *ordinal += 1;
        let generated = format!("{}-{ordinal}", utf8_percent_encode(&name, OUTSIDE_ID));
        let id = model.id.as_ref().map_or(generated, |id| id.value.expose().to_owned());
        if !id.bytes().all(|byte| byte.is_ascii_graphic()) || id.len() > NAME_CHARS_MAX * 3 {
            findings.problem(&at, "is not a plain word", "Use letters, digits, `-`, `_`, `.` and `/`");
        } else if let Some(first) = places.get(&id) {
            let what = format!("{} is used twice, first at {}", at.quote(&id), first.origin);
            findings.problem(&at, what, "Give each entry its own `model_info.id`");
        } else {
            places.insert(id.clone(), at);
        }
        deployments.extend(entry(model, name, &id, from, findings));
    }
    deployments
}

fn name(model: &RawModel, findings: &mut Findings) -> Option<String> {
    let text = model.name.as_ref()?;
    let name = text.value.expose();
    if name.trim() != name || name.chars().any(char::is_control) || name.chars().count() > NAME_CHARS_MAX {
        let what = "has white space at an end, a line break, or more than 512 characters";
        findings.problem(&text.at, what, "Write a plain name; slashes and spaces inside are fine");
        return None;
    }
    if name.contains('*') {
        let what = "holds a wildcard";
        findings.problem(&text.at, what, "Remove the entry: ids that no entry names are served directly");
        return None;
    }
    Some(name.to_owned())
}

fn entry(
    model: RawModel,
    name: String,
    id: &str,
    from: &Surroundings<'_>,
    findings: &mut Findings,
) -> Option<Deployment> {
    check_mode(model.mode.as_ref(), findings);
    let base_model = model.base_model.as_ref().map(|text| form(text, findings));
    let price = price(&model.prices, findings);
    let params = model.params?;
    check_provider(params.provider.as_ref(), findings);
    let called = called_model(&params, findings);
    let endpoint = endpoint(params.runtime_endpoint.as_ref(), findings);
    let region = region(&params, called.as_ref(), from.region, findings);
    // Without a region the entry fails anyway; its credentials are read for their own mistakes.
    let region_name = region.as_ref().map_or("", Region::as_str);
    let credentials = credentials::resolve(params.credentials, region_name, &params.at, from.environment, findings);
    let Called { form, base } = called?;
    let credentials = credentials?;
    let weight = params.weight.map_or(Some(defaults::WEIGHT), |located| u32::try_from(located.value).ok())?;
    let value = |written: Option<Located<u64>>| written.map(|located| located.value);
    let own_timeout = optional_seconds(params.timeout);
    let own_stream_timeout = optional_seconds(params.stream_timeout);
    Some(Deployment {
        id: DeploymentId::new(id),
        model_name: ModelName::new(name),
        model_id: ModelId::new(form.id),
        region: region?,
        // The SDKs' rule: the token of the environment stands before the chain, but not before credentials of its own.
        bearer: from.bearer.clone().filter(|_| credentials == Credentials::Chain),
        credentials,
        runtime_endpoint: endpoint.ok()?,
        weight,
        rpm: value(params.rpm),
        tpm: value(params.tpm),
        parallel: value(params.parallel).and_then(|parallel| u32::try_from(parallel).ok()),
        max_retries: value(params.max_retries).and_then(|retries| u32::try_from(retries).ok()).unwrap_or_default(),
        timeout: own_timeout.unwrap_or(from.timeouts.timeout),
        stream_timeout: own_stream_timeout.or(own_timeout).unwrap_or(from.timeouts.stream_timeout),
        total_timeout: optional_seconds(params.total_timeout).or(from.timeouts.total),
        stream_total_timeout: optional_seconds(params.stream_total_timeout).or(from.timeouts.stream_total),
        base_model: match base_model {
            Some(form) => Some(ModelId::new(form?.id)),
            None => base.map(ModelId::new),
        },
        price: price.ok()?,
    })
}

/// The model that goes upstream, and the one that says its price where that differs.
struct Called {
    form: ModelForm,
    base: Option<String>,
}

fn called_model(params: &RawParams, findings: &mut Findings) -> Option<Called> {
    let model = form(params.model.as_ref()?, findings);
    let Some(replacement) = &params.model_id else { return model.map(|form| Called { form, base: None }) };
    let replacement = form(replacement, findings);
    let (model, replacement) = (model?, replacement?);
    let region = replacement.region.or(model.region);
    Some(Called { form: ModelForm { id: replacement.id, region }, base: Some(model.id) })
}

fn form(text: &Text, findings: &mut Findings) -> Option<ModelForm> {
    match model_form::parse(text.value.expose()) {
        Ok(form) => Some(form),
        Err(error) => {
            // The error repeats parts of the text.
            let why = if text.at.is_withheld() { "is no model of Bedrock" } else { error.what.as_str() };
            let what = format!("{} {why}", text.at.quote(text.value.expose()));
            findings.problem(&text.at, what, error.remedy);
            None
        }
    }
}

fn region(
    params: &RawParams,
    called: Option<&Called>,
    default: Option<&Region>,
    findings: &mut Findings,
) -> Option<Region> {
    let of_arn = called.and_then(|called| arn_region(&called.form.id));
    if let Some(text) = &params.region {
        let written = text.value.expose();
        if partition(written).is_none() {
            let what = format!("{} is not an AWS region", text.at.quote(written));
            findings.problem(&text.at, what, "Write a region such as `us-west-2`");
            return None;
        }
        if let Some(of_arn) = of_arn.filter(|of_arn| *of_arn != written) {
            let what = format!("the ARN belongs to {of_arn}, which is not the region that is called");
            findings.warn(&text.at, what, "AWS knows an ARN in its own region only: remove this key");
        }
        return Some(Region::new(written));
    }
    // A region that cannot be read, and a model that says nothing about one: both were told already.
    if params.region_written {
        return None;
    }
    let called = called?;
    let region = called.form.region.as_deref().or(of_arn).map(Region::new).or_else(|| default.cloned());
    if region.is_none() {
        findings.problem(&params.at, "names no region", "Add `aws_region_name`, or set AWS_REGION");
    }
    region
}

fn check_provider(provider: Option<&Text>, findings: &mut Findings) {
    if let Some(text) = provider.filter(|text| text.value.expose() != "bedrock") {
        let what =
            format!("{} is not served: this proxy serves Amazon Bedrock only", text.at.quote(text.value.expose()));
        findings.problem(&text.at, what, "Write `bedrock` or remove the key");
    }
}

fn check_mode(mode: Option<&Text>, findings: &mut Findings) {
    if let Some(text) = mode.filter(|text| !MODES.contains(&text.value.expose())) {
        let what = format!("{} is not a mode", text.at.quote(text.value.expose()));
        findings.problem(&text.at, what, format!("Remove it or write one of {}", MODES.join(", ")));
    }
}

fn endpoint(text: Option<&Text>, findings: &mut Findings) -> Result<Option<Endpoint>, Told> {
    let Some(text) = text else { return Ok(None) };
    endpoint_url::parse(text.value.expose()).map(Some).map_err(|what| {
        findings.problem(&text.at, what, "Write a URL such as `https://host:443/prefix`");
        Told
    })
}

fn price(written: &[(&'static str, Text)], findings: &mut Findings) -> Result<Option<PriceOverride>, Told> {
    if written.is_empty() {
        return Ok(None);
    }
    let fields: Vec<(&str, &str)> = written.iter().map(|(name, text)| (*name, text.value.expose().trim())).collect();
    match PriceOverride::from_fields(&fields) {
        Ok(price) => Ok(Some(price)),
        Err(errors) => {
            for (field, error) in errors {
                let Some((_, text)) = written.iter().find(|(name, _)| *name == field) else { continue };
                let what = format!("{} {error}", text.at.quote(text.value.expose()));
                findings.problem(&text.at, what, "Write US dollars for one unit (a token, an image), such as `3e-06`");
            }
            Err(Told)
        }
    }
}
