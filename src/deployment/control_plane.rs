//! The one question that the proxy itself asks of AWS's control plane: which models stand behind an application
//! inference profile (`GetInferenceProfile`; path and answer as in botocore 1.44.5).
//!
//! Blocking, on tokio's threads for that: it is asked once an hour at most for each profile. It does not cache, does not
//! repeat, and does not know prices.

use std::fmt;
use std::path::Path;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use rustls_native_certs::load_native_certs;
use serde::Deserialize;
use ureq::tls::{Certificate, PemItem, RootCerts, TlsConfig, parse_pem};
use ureq::{Agent, Body, http};

use super::fleet;
use super::host::Host;
use crate::aws::operation::Service;
use crate::aws::sigv4::{EMPTY_PAYLOAD_SHA256, Scope, SignableRequest, Signer, SigningTime};
use crate::config::Endpoints;
use crate::credentials::{Source, UpstreamAuth};
use crate::types::secret::Secret;

/// From the first byte sent to the last byte read, names and certificates included.
pub(super) const TIMEOUT: Duration = Duration::from_secs(5);
/// A profile of every region there is takes a few kilobytes.
const ANSWER_BYTES_MAX: u64 = 256 * 1024;

/// What `encodeURIComponent` leaves, as AWS's SDKs write a label of a path.
const LABEL: &percent_encoding::AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// Why a profile's models are not known. [`fmt::Display`] is for clients and names neither accounts nor hosts;
/// [`Self::detail`] is for the operator.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LookupError {
    /// AWS knows an ARN in its own region only, and the deployment calls another.
    OtherRegion,
    /// AWS was not asked, because too many questions were waiting.
    Busy,
    Credentials(String),
    /// An error of AWS.
    Refused {
        error_type: String,
        message: String,
    },
    Unreachable(String),
    /// The answer is none that says one model.
    Unusable(String),
}

impl LookupError {
    /// Whether it may work when it is tried again.
    #[must_use]
    pub const fn may_pass(&self) -> bool {
        matches!(self, Self::Busy | Self::Unreachable(_))
    }

    /// A stable word for labels.
    #[must_use]
    pub const fn as_str(&self) -> &'static str {
        match self {
            Self::OtherRegion => "other_region",
            Self::Busy => "busy",
            Self::Credentials(_) => "credentials",
            Self::Refused { .. } => "refused",
            Self::Unreachable(_) => "unreachable",
            Self::Unusable(_) => "unusable",
        }
    }

    /// What the operator's log says beside [`fmt::Display`].
    #[must_use]
    pub fn detail(&self) -> &str {
        match self {
            Self::OtherRegion | Self::Busy => "",
            Self::Refused { message: text, .. }
            | Self::Credentials(text)
            | Self::Unreachable(text)
            | Self::Unusable(text) => text,
        }
    }
}

impl fmt::Display for LookupError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::OtherRegion => f.write_str("its ARN is of another region than the one that is called"),
            Self::Busy => f.write_str("too many other profiles were being looked up"),
            Self::Credentials(_) => f.write_str("there are no usable AWS credentials"),
            Self::Refused { error_type, .. } => write!(f, "AWS answered {error_type}"),
            Self::Unreachable(_) => f.write_str("AWS's control plane did not answer"),
            Self::Unusable(_) => f.write_str("AWS's answer does not say which model it stands for"),
        }
    }
}

impl std::error::Error for LookupError {}

/// Where and how the control plane is asked.
pub(super) struct ControlPlane {
    endpoints: Endpoints,
    signer: Signer,
    /// Made at the first question: most installations never ask one.
    agent: OnceLock<Result<Agent, String>>,
}

impl fmt::Debug for ControlPlane {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ControlPlane").field("endpoints", &self.endpoints).finish_non_exhaustive()
    }
}

impl ControlPlane {
    pub(super) fn new(endpoints: Endpoints) -> Self {
        Self { endpoints, signer: Signer::new(), agent: OnceLock::new() }
    }

    /// The `modelArn`s of the profile `arn`, asked in `region`. `held` is kept until the question has really ended.
    ///
    /// # Errors
    /// When there is no list.
    pub(super) async fn models(
        self: &Arc<Self>,
        arn: &str,
        region: &str,
        source: &Source,
        held: impl Send + 'static,
    ) -> Result<Vec<String>, LookupError> {
        let auth = source.ready().await.map_err(|error| LookupError::Credentials(error.to_string()))?;
        let (own, arn, region) = (Arc::clone(self), arn.to_owned(), region.to_owned());
        let asked = tokio::task::spawn_blocking(move || {
            let _held = held;
            own.ask(&arn, &region, &auth)
        });
        asked.await.unwrap_or_else(|ended| Err(LookupError::Unreachable(ended.to_string())))
    }

    fn ask(&self, arn: &str, region: &str, auth: &UpstreamAuth) -> Result<Vec<String>, LookupError> {
        let agent = self.agent.get_or_init(|| agent(self.endpoints.ca_bundle.as_deref()));
        let agent = agent.as_ref().map_err(|why| LookupError::Unreachable(why.clone()))?;
        let endpoint = fleet::endpoint(&self.endpoints, None, Service::Bedrock, region)
            .map_err(|error| LookupError::Unreachable(format!("`{region}` {error}")))?;
        let scheme = if endpoint.tls { "https" } else { "http" };
        let label = utf8_percent_encode(arn, LABEL);
        let path = format!("{}/inference-profiles/{label}", endpoint.path_prefix);
        let host = Host::new(endpoint).authority;
        let mut request = agent.get(format!("{scheme}://{host}{path}")).header("accept", "application/json");
        for (name, value) in self.headers(&host, &path, region, auth) {
            request = request.header(name, value);
        }
        read(request.call())
    }

    /// The headers that prove who asks.
    fn headers(&self, host: &str, path: &str, region: &str, auth: &UpstreamAuth) -> Vec<(&'static str, String)> {
        let credentials = match auth {
            UpstreamAuth::Bearer(token) => return vec![("authorization", format!("Bearer {}", token.expose()))],
            UpstreamAuth::SigV4(credentials) => credentials,
        };
        let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |elapsed| elapsed.as_secs());
        let time = SigningTime::from_unix_seconds(now);
        let token = credentials.session_token.as_ref().map(Secret::expose);
        let mut signed = vec![("host", host), ("x-amz-date", time.amz_date())];
        signed.extend(token.map(|token| ("x-amz-security-token", token)));
        let request = SignableRequest {
            method: "GET",
            path,
            query: "",
            headers: &signed,
            payload_sha256_hex: EMPTY_PAYLOAD_SHA256,
        };
        let scope = Scope { region, service: Service::Bedrock.signing_name() };
        let authorization = self.signer.authorization(credentials, &time, scope, &request);
        let mut headers: Vec<_> = signed.iter().map(|(name, value)| (*name, (*value).to_owned())).collect();
        headers.push(("authorization", authorization));
        headers
    }
}

/// A client that trusts what the rest of the proxy does: the system's certificates and those of `AWS_CA_BUNDLE`.
fn agent(ca_bundle: Option<&Path>) -> Result<Agent, String> {
    let system = load_native_certs();
    let mut trusted: Vec<Certificate<'static>> =
        system.certs.iter().map(|certificate| Certificate::from_der(certificate).to_owned()).collect();
    if let Some(path) = ca_bundle {
        let of_no_use = |why: String| format!("the CA bundle {} is of no use: {why}", path.display());
        let pem = std::fs::read(path).map_err(|error| of_no_use(error.to_string()))?;
        for item in parse_pem(&pem) {
            if let PemItem::Certificate(certificate) = item.map_err(|error| of_no_use(error.to_string()))? {
                trusted.push(certificate);
            }
        }
    }
    let config = Agent::config_builder()
        .timeout_global(Some(TIMEOUT))
        .http_status_as_error(false)
        // A signature is good for one host only.
        .max_redirects(0)
        .max_redirects_will_error(false)
        .proxy(None)
        .user_agent(concat!("dheera_ai/", env!("CARGO_PKG_VERSION")))
        .tls_config(TlsConfig::builder().root_certs(RootCerts::Specific(trusted.into())).build())
        .build();
    Ok(config.new_agent())
}

/// The part of the answer that matters.
#[derive(Deserialize)]
struct Found {
    #[serde(default)]
    models: Vec<Model>,
}

#[derive(Deserialize)]
struct Model {
    #[serde(rename = "modelArn")]
    model_arn: String,
}

#[derive(Deserialize)]
struct Refusal {
    #[serde(alias = "Message")]
    message: String,
}

fn read(answer: Result<http::Response<Body>, ureq::Error>) -> Result<Vec<String>, LookupError> {
    let unreachable = |error: ureq::Error| LookupError::Unreachable(error.to_string());
    let mut answer = answer.map_err(unreachable)?;
    let status = answer.status().as_u16();
    let error_type = answer.headers().get("x-amzn-errortype").and_then(|value| value.to_str().ok()).map(type_name);
    let body = answer.body_mut().with_config().limit(ANSWER_BYTES_MAX).read_to_vec().map_err(unreachable)?;
    if status == 200 {
        let found: Result<Found, _> = serde_json::from_slice(&body);
        let found = found.map_err(|error| LookupError::Unusable(error.to_string()))?;
        return Ok(found.models.into_iter().map(|model| model.model_arn).collect());
    }
    let refusal: Option<Refusal> = serde_json::from_slice(&body).ok();
    Err(LookupError::Refused {
        error_type: error_type.unwrap_or_else(|| format!("status {status}")),
        message: refusal.map(|refusal| refusal.message).unwrap_or_default(),
    })
}

/// `AccessDeniedException` of `AccessDeniedException:http://…`; what is no such name is not repeated to clients.
fn type_name(header: &str) -> String {
    let name = header.split(':').next().unwrap_or_default();
    if !name.is_empty() && name.len() <= 64 && name.bytes().all(|byte| byte.is_ascii_alphanumeric()) {
        name.to_owned()
    } else {
        "an error".to_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_name_of_an_error_is_repeated() {
        for (header, expected) in [
            ("AccessDeniedException", "AccessDeniedException"),
            ("ThrottlingException:http://internal.amazon.com/coral/x/", "ThrottlingException"),
            ("", "an error"),
            ("<script>", "an error"),
        ] {
            assert_eq!(type_name(header), expected);
        }
    }

    #[test]
    fn what_a_client_is_told_names_no_account() {
        let secret = || "arn:aws:iam::123456789012:role/internal".to_owned();
        for error in [
            LookupError::OtherRegion,
            LookupError::Busy,
            LookupError::Credentials(secret()),
            LookupError::Refused { error_type: "AccessDeniedException".to_owned(), message: secret() },
            LookupError::Unreachable(secret()),
            LookupError::Unusable(secret()),
        ] {
            assert!(!error.to_string().contains("123456789012"), "{error}");
            assert_eq!(error.detail().is_empty(), matches!(error, LookupError::OtherRegion | LookupError::Busy));
        }
    }

    #[test]
    fn a_bundle_that_is_none_is_told_with_its_path() {
        let error = agent(Some(Path::new("/nonexistent/bundle.pem"))).unwrap_err();
        assert!(error.contains("/nonexistent/bundle.pem"), "{error}");
    }
}
