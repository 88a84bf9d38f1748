//! The environment variables that mean something by themselves: regions, endpoints and switches as the AWS SDKs read
//! them (AWS SDKs and Tools Reference Guide, "Environment variables"), the master key, and those that do nothing here.
//!
//! It does not read credentials: the AWS chain does that itself. A variable that is set to nothing counts as unset,
//! except the master key, where that would open the proxy.

use std::path::PathBuf;

use super::Timeouts;
use crate::aws::endpoint::partition;
use crate::aws::operation::Service;
use crate::config::problem::{At, Findings, Told};
use crate::config::raw::RawGeneral;
use crate::config::secrets::Environment;
use crate::config::section::Text;
use crate::config::{Credentials, Direct, Endpoint, Endpoints, SecretRef, defaults, endpoint_url};
use crate::types::ids::Region;

/// In the order in which they are asked; the first is LiteLLM's.
const REGION_VARIABLES: [&str; 3] = ["AWS_REGION_NAME", "AWS_REGION", "AWS_DEFAULT_REGION"];

/// Variables that other versions or LiteLLM read, with what to do instead.
const UNUSED: &[(&str, &str)] = &[
    ("REDIS_CLUSTER_NODES", "Write `redis_startup_nodes` under `general_settings`"),
    ("REDIS_SENTINEL_NODES", "Write `redis_sentinel_nodes` under `general_settings`"),
    ("LITELLM_MASTER_KEY", "Set DHEERA_AI_MASTER_KEY instead"),
    ("AWS_PROFILE_NAME", "Set AWS_PROFILE, or write `aws_profile_name: os.environ/AWS_PROFILE_NAME`"),
    ("AWS_ROLE_NAME", "Write `aws_role_name: os.environ/AWS_ROLE_NAME` into the entries that assume it"),
    ("AWS_EXTERNAL_ID", "Write `aws_external_id: os.environ/AWS_EXTERNAL_ID` beside the role"),
    ("AWS_WEB_IDENTITY_TOKEN", "Set AWS_WEB_IDENTITY_TOKEN_FILE, or write `aws_web_identity_token` beside the role"),
    ("AWS_STS_ENDPOINT", "Write `aws_sts_endpoint: os.environ/AWS_STS_ENDPOINT` beside the role"),
];

/// The environment, and where mistakes in it are told.
pub(super) struct Variables<'a> {
    pub(super) environment: &'a dyn Environment,
    pub(super) findings: &'a mut Findings,
}

impl Variables<'_> {
    /// A variable that is set to something.
    pub(super) fn text(&mut self, name: &str) -> Option<Text> {
        self.lookup(name).ok().flatten().filter(|text| !text.value.expose().trim().is_empty())
    }

    fn lookup(&mut self, name: &str) -> Result<Option<Text>, Told> {
        let at = At::environment(name);
        if let Ok(value) = self.environment.variable(name) {
            return Ok(value.map(|value| Text { value, at }));
        }
        self.findings.problem(&at, "is not UTF-8", "Set it to plain text or unset it");
        Err(Told)
    }

    /// The master key of the environment, `None` when the variable is not set.
    pub(super) fn master_key(&mut self, name: &str) -> Result<Option<Text>, Told> {
        let text = self.lookup(name)?;
        if let Some(text) = text.as_ref().filter(|text| text.value.expose().trim().is_empty()) {
            let remedy = "Give it a value, or unset it to run without keys on this machine only";
            self.findings.problem(&text.at, "is set but empty", remedy);
            return Err(Told);
        }
        Ok(text)
    }

    pub(super) fn warn_of_unused(&mut self) {
        for (name, remedy) in UNUSED {
            if self.text(name).is_some() {
                self.findings.warn(&At::environment(name), "is not used by this version", *remedy);
            }
        }
    }

    /// The region of `AWS_REGION_NAME`, `AWS_REGION` or `AWS_DEFAULT_REGION`.
    pub(super) fn region(&mut self) -> Option<Region> {
        let text = REGION_VARIABLES.iter().find_map(|name| self.text(name))?;
        let name = text.value.expose().trim();
        if partition(name).is_none() {
            self.findings.problem(&text.at, "is not an AWS region", "Write a region such as `us-west-2`");
            // That was told: nobody else need complain that there is none.
            return Some(Region::new(defaults::DIRECT_REGION));
        }
        Some(Region::new(name))
    }

    /// `AWS_BEARER_TOKEN_BEDROCK`, the Bedrock API key of the AWS SDKs.
    pub(super) fn bearer(&mut self) -> Option<SecretRef> {
        let text = self.text("AWS_BEARER_TOKEN_BEDROCK")?;
        if !text.value.expose().bytes().all(|byte| byte.is_ascii_graphic()) {
            let what = "holds white space or characters other than ASCII, which no header can carry";
            self.findings.problem(&text.at, what, "Copy the key again without line breaks");
            return None;
        }
        Some(SecretRef(text.value))
    }

    pub(super) fn direct(
        &mut self,
        region: Option<&Region>,
        bearer: Option<SecretRef>,
        general: &RawGeneral,
        timeouts: &Timeouts,
    ) -> Direct {
        let region = region.cloned().unwrap_or_else(|| {
            let what = format!(
                "no region is set: ids outside `model_list` and operations without a model go to {}",
                defaults::DIRECT_REGION
            );
            self.findings.warn(&At::environment("AWS_REGION"), what, "Set AWS_REGION to choose another");
            Region::new(defaults::DIRECT_REGION)
        });
        Direct {
            region,
            credentials: Credentials::Chain,
            bearer,
            allow_unlisted_models: general.allow_unlisted_models.as_ref().is_none_or(|located| located.value),
            timeout: timeouts.timeout,
            stream_timeout: timeouts.stream_timeout,
            total_timeout: timeouts.total,
            stream_total_timeout: timeouts.stream_total,
        }
    }

    /// `AWS_ENDPOINT_URL…`, `AWS_USE_FIPS_ENDPOINT`, `AWS_USE_DUALSTACK_ENDPOINT`, `AWS_CA_BUNDLE`.
    pub(super) fn endpoints(&mut self) -> Endpoints {
        let mut endpoints = Endpoints {
            fips: self.switch("AWS_USE_FIPS_ENDPOINT"),
            dual_stack: self.switch("AWS_USE_DUALSTACK_ENDPOINT"),
            ca_bundle: self.ca_bundle(),
            ..Endpoints::default()
        };
        if !self.switch("AWS_IGNORE_CONFIGURED_ENDPOINT_URLS") {
            endpoints.all = self.endpoint("AWS_ENDPOINT_URL");
            for service in Service::ALL {
                let name = format!("AWS_ENDPOINT_URL_{}", service.endpoint_variable_suffix());
                if let Some(endpoint) = self.endpoint(&name) {
                    endpoints.by_service.insert(service, endpoint);
                }
            }
        }
        if let Some(endpoint) = self.endpoint("AWS_BEDROCK_RUNTIME_ENDPOINT") {
            let other = endpoints.by_service.insert(Service::BedrockRuntime, endpoint.clone());
            if other.is_some_and(|other| other != endpoint) {
                let at = At::environment("AWS_BEDROCK_RUNTIME_ENDPOINT");
                self.findings.problem(&at, "differs from AWS_ENDPOINT_URL_BEDROCK_RUNTIME", "Set one of the two");
            }
        }
        if (endpoints.fips || endpoints.dual_stack) && (endpoints.all.is_some() || !endpoints.by_service.is_empty()) {
            let at = At::environment("AWS_ENDPOINT_URL");
            let what = "endpoints that are set explicitly are called as they are, FIPS and dual-stack notwithstanding";
            self.findings.warn(&at, what, "Set either the endpoints or the switches");
        }
        endpoints
    }

    fn endpoint(&mut self, name: &str) -> Option<Endpoint> {
        let text = self.text(name)?;
        match endpoint_url::parse(text.value.expose()) {
            Ok(endpoint) => Some(endpoint),
            Err(what) => {
                self.findings.problem(&text.at, what, "Write a URL such as `https://host:443/prefix`");
                None
            }
        }
    }

    pub(super) fn switch(&mut self, name: &str) -> bool {
        let Some(text) = self.text(name) else { return false };
        let value = text.value.expose().trim().to_ascii_lowercase();
        if !matches!(value.as_str(), "true" | "false") {
            self.findings.problem(&text.at, "is neither true nor false", "Set it to `true` or `false`");
        }
        value == "true"
    }

    fn ca_bundle(&mut self) -> Option<PathBuf> {
        let text = self.text("AWS_CA_BUNDLE")?;
        let path = PathBuf::from(text.value.expose());
        if !path.is_file() {
            self.findings.problem(&text.at, "names no file", "Set it to a file of PEM certificates or unset it");
        }
        Some(path)
    }
}
