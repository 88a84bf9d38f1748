//! Requests straight to the simulator, signed by AWS's own crate: what the proxy's answers are compared with.

use std::time::SystemTime;

use aws_credential_types::Credentials;
use aws_sigv4::http_request::{
    PercentEncodingMode, SignableBody, SignableRequest, SigningSettings, UriPathNormalizationMode, sign,
};
use aws_sigv4::sign::v4::SigningParams;
use bedrock_sim::Running;

use super::{ACCESS_KEY, Answer, Asked, Http, SECRET_KEY, call};

/// Sends `asked`, without the proxy's key and prefix, to the simulator.
pub async fn direct(simulator: &Running, asked: &Asked, signing_name: &str) -> Answer {
    let mut asked = asked.clone();
    asked.path = asked.path.strip_prefix("/bedrock/").map_or(asked.path.clone(), |rest| format!("/{rest}"));
    asked.headers.retain(|(name, _)| name != "authorization");
    let identity = Credentials::new(ACCESS_KEY, SECRET_KEY, None, None, "tests").into();
    let mut settings = SigningSettings::default();
    settings.percent_encoding_mode = PercentEncodingMode::Double;
    settings.uri_path_normalization_mode = UriPathNormalizationMode::Disabled;
    let params = SigningParams::builder()
        .identity(&identity)
        .region("us-east-1")
        .name(signing_name)
        .time(SystemTime::now())
        .settings(settings)
        .build()
        .unwrap();
    let url = format!("http://proxy.test{}", asked.path);
    let signable =
        SignableRequest::new(&asked.method, &url, std::iter::empty(), SignableBody::Bytes(&asked.body)).unwrap();
    let (instructions, _) = sign(signable, &params.into()).unwrap().into_parts();
    let headers: Vec<_> = instructions.headers().map(|(name, value)| (name.to_owned(), value.to_owned())).collect();
    asked.headers.extend(headers);
    call(simulator.addr(), Http::One, &asked).await
}
