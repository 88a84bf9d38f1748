//! `POST /config/reload`: the answer to whoever asks for the configuration to be read again. It is for the master key
//! alone; without one nobody may ask this way, because then every page that a browser shows could.
//!
//! What reading and applying mean is decided in `app`. A problem never holds a secret: `config::problem` sees to that.

use async_trait::async_trait;
use serde_json::{Value, json};

use super::request::Answer;
use crate::aws::error_body::{ErrorResponse, ErrorType};
use crate::config::problem::{Finding, Problems, Warning};
use crate::keys::authenticate::{Caller, Denied};

const PATH: &str = "/config/reload";

/// Whoever can have the configuration read again.
#[async_trait]
pub trait Reloads: Send + Sync {
    /// `None` when the process is about to end.
    async fn reload(&self) -> Option<Report>;
}

/// What became of a configuration that was read again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Report {
    /// It is in force.
    Applied(Notes),
    /// It is the one in force, as far as it can change.
    Unchanged(Notes),
    /// It cannot be used; the one before stays in force.
    Refused(Problems),
}

/// What an operator should know of a configuration that can be used.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Notes {
    pub warnings: Vec<Warning>,
    /// Keys whose new values wait for the next start.
    pub restart_required: Vec<&'static str>,
}

impl Report {
    /// One word, as in the metric.
    #[must_use]
    pub const fn result(&self) -> &'static str {
        match self {
            Self::Applied(_) => "applied",
            Self::Unchanged(_) => "unchanged",
            Self::Refused(_) => "refused",
        }
    }

    fn answer(&self) -> Answer {
        match self {
            Self::Applied(notes) | Self::Unchanged(notes) => {
                let body = json!({
                    "result": self.result(),
                    "warnings": lines(&notes.warnings),
                    "restart_required": notes.restart_required,
                });
                Answer::of(200, "application/json", body.to_string().into_bytes())
            }
            Self::Refused(problems) => {
                let message = format!("The configuration before stays in force.\n{problems}");
                let response = ErrorResponse::new(ErrorType::Validation, message);
                let body = json!({
                    "message": response.message,
                    "result": self.result(),
                    "problems": problems.problems.iter().map(problem).collect::<Vec<_>>(),
                    "warnings": lines(&problems.warnings),
                });
                Answer { body: body.to_string().into_bytes(), ..Answer::error(&response) }
            }
        }
    }
}

fn lines(warnings: &[Warning]) -> Vec<String> {
    warnings.iter().map(ToString::to_string).collect()
}

fn problem(finding: &Finding) -> Value {
    json!({
        "where": finding.origin.to_string(),
        "key": finding.path,
        "what": finding.what,
        "remedy": finding.remedy,
    })
}

/// Whether a path, without its query, is this page.
#[must_use]
pub fn owns(path: &str) -> bool {
    path == PATH
}

/// Answers a request for the page.
pub async fn answer(reloads: &dyn Reloads, method: &str, caller: Result<Caller, Denied>) -> Answer {
    if method != "POST" {
        let refused = ErrorResponse::new(ErrorType::Validation, "This path answers POST only.").status(405);
        let mut answer = Answer::error(&refused);
        answer.headers.push(("allow", "POST".to_owned()));
        return answer;
    }
    let denied = |message| Answer::error(&ErrorResponse::new(ErrorType::AccessDenied, message));
    match caller {
        Ok(Caller::Master) => match reloads.reload().await {
            Some(report) => report.answer(),
            None => Answer::error(&ErrorResponse::new(ErrorType::ServiceUnavailable, STOPPING)),
        },
        Ok(Caller::Key(_)) => denied(MASTER_ONLY),
        Ok(Caller::Anonymous) => denied(NO_MASTER_KEY),
        Err(denied) => Answer::error(&ErrorResponse::new(denied.error_type(), denied.message())),
    }
}

const STOPPING: &str = "The proxy is stopping. Its next start reads the configuration.";
const MASTER_ONLY: &str = "Only the master key may have the configuration read again.";
const NO_MASTER_KEY: &str =
    "Without a master key the configuration is read again on a signal only: send the process SIGHUP.";

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::problem::Origin;

    struct Always(Option<Report>);

    #[async_trait]
    impl Reloads for Always {
        async fn reload(&self) -> Option<Report> {
            self.0.clone()
        }
    }

    async fn asked(report: Option<Report>, method: &str, caller: Result<Caller, Denied>) -> (u16, Value) {
        let answer = answer(&Always(report), method, caller).await;
        (answer.status, serde_json::from_slice(&answer.body).unwrap())
    }

    #[tokio::test]
    async fn only_the_master_key_may_ask_and_only_by_post() {
        let applied = || Some(Report::Applied(Notes::default()));
        for (method, caller, status) in [
            ("POST", Ok(Caller::Master), 200),
            ("GET", Ok(Caller::Master), 405),
            ("POST", Ok(Caller::Anonymous), 403),
            ("POST", Err(Denied::Unknown), 403),
            ("POST", Err(Denied::Missing), 403),
        ] {
            assert_eq!(asked(applied(), method, caller).await.0, status, "{method}");
        }
        assert_eq!(asked(None, "POST", Ok(Caller::Master)).await.0, 503);
    }

    #[tokio::test]
    async fn a_refusal_lists_every_problem_with_its_place_and_remedy() {
        let finding = |line| Finding {
            origin: Origin::File { name: "c.yaml".into(), line, column: 3 },
            path: format!("key{line}"),
            what: "is wrong".into(),
            remedy: "Correct it".into(),
        };
        let problems = Problems { problems: vec![finding(2), finding(9)], warnings: vec![Warning(finding(4))] };
        let (status, body) = asked(Some(Report::Refused(problems)), "POST", Ok(Caller::Master)).await;
        assert_eq!((status, &body["result"]), (400, &json!("refused")));
        let second = json!({ "where": "c.yaml:9:3", "key": "key9", "what": "is wrong", "remedy": "Correct it" });
        assert_eq!((body["problems"].as_array().unwrap().len(), &body["problems"][1]), (2, &second));
        assert!(body["message"].as_str().unwrap().contains("c.yaml:2:3: key2: is wrong. Correct it"), "{body}");
        assert_eq!(body["warnings"][0], "c.yaml:4:3: key4: is wrong. Correct it");
    }
}
