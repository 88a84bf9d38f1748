//! The AWS SDK for Rust, unmodified and with its default settings, as a driver of the client tests: jobs in, answers
//! out, one JSON object a line (tests/clients/registry.py has the contract).
//!
//! A job's `auth` says how the key is given: `bearer`, `sigv4` (as access key id, with its `secret`), or `environment`,
//! where the SDK finds it by itself. The scenario `conversation` is InvokeModelWithBidirectionalStream.

#![expect(clippy::print_stdout, reason = "the answers go to the tests on standard output")]

mod conversation;
mod report;
mod scenarios;

use std::error::Error;
use std::io::BufRead;

use aws_config::{BehaviorVersion, Region, SdkConfig};
use aws_sdk_bedrockruntime::config::{Credentials, Token};
use aws_smithy_http_client::tls::Provider;
use aws_smithy_http_client::tls::rustls_provider::CryptoMode;
use serde_json::Value;

/// What goes wrong beside the SDK is the tests' mistake and ends the driver.
type Failed = Box<dyn Error + Send + Sync>;

#[tokio::main]
async fn main() -> Result<(), Failed> {
    for line in std::io::stdin().lock().lines() {
        let job: Value = serde_json::from_str(&line?)?;
        println!("{}", Box::pin(answer(&job)).await?);
    }
    Ok(())
}

async fn answer(job: &Value) -> Result<Value, Failed> {
    let (scenario, model) = (member(job, "scenario")?, member(job, "model")?);
    let agent = scenario == "agent";
    let config = Box::pin(config(job, agent)).await?;
    if agent {
        return Ok(scenarios::agent(&aws_sdk_bedrockagentruntime::Client::new(&config)).await);
    }
    let client = aws_sdk_bedrockruntime::Client::new(&config);
    Ok(match scenario {
        "chat" => scenarios::chat(&client, model).await,
        "stream" => scenarios::stream(&client, model).await,
        "invoke" => scenarios::invoke(&client, model).await,
        "invoke-stream" => scenarios::invoke_stream(&client, model).await,
        "conversation" => conversation::hold(&client, model, job["turns"].as_u64().unwrap_or(100)).await,
        other => return Err(format!("there is no scenario {other}").into()),
    })
}

async fn config(job: &Value, agent: bool) -> Result<SdkConfig, Failed> {
    // The SDK's default client, but for where its cryptography comes from.
    let http_client =
        aws_smithy_http_client::Builder::new().tls_provider(Provider::Rustls(CryptoMode::Ring)).build_https();
    let loader = aws_config::defaults(BehaviorVersion::latest())
        .http_client(http_client)
        .endpoint_url(member(job, "url")?)
        .region(Region::new("us-west-2"));
    let key = || member(job, "key");
    let loader = match member(job, "auth")? {
        "environment" => loader,
        // Operations of agents take no bearer token: the SDK would find no way to authenticate.
        "bearer" if !agent => loader.no_credentials().token_provider(Token::new(key()?, None)),
        _ => loader.credentials_provider(Credentials::new(key()?, member(job, "secret")?, None, None, "driver")),
    };
    Ok(loader.load().await)
}

fn member<'a>(job: &'a Value, name: &str) -> Result<&'a str, Failed> {
    job[name].as_str().ok_or_else(|| format!("the job has no {name}: {job}").into())
}
