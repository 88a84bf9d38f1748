//! Why the management API did not do what it was asked, as it is told to the client: in AWS's form, with what to do
//! about it. What went wrong inside goes to the log only.

use std::time::Duration;

use crate::admin::request::Answer;
use crate::aws::error_body::{ErrorResponse, ErrorType};
use crate::keys::register::Unreachable;
use crate::store::{CommitError, StoreError};

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Problem {
    /// The request makes no sense as it is.
    Invalid(String),
    /// It would, if it were not for something that exists already.
    Exists(String),
    NotFound(String),
    Forbidden(String),
    /// The path answers these methods only.
    Method(&'static str),
    TooLarge(String),
    /// Others changed the same documents again and again.
    Busy,
    Store(StoreError),
    Internal(String),
}

impl From<StoreError> for Problem {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}

impl From<Unreachable> for Problem {
    fn from(error: Unreachable) -> Self {
        Self::Store(StoreError::Unavailable(error.to_string()))
    }
}

impl From<CommitError> for Problem {
    fn from(error: CommitError) -> Self {
        match error {
            CommitError::Conflict(_) => Self::Busy,
            CommitError::Store(error) => Self::Store(error),
        }
    }
}

impl Problem {
    pub(super) fn answer(self) -> Answer {
        let soon = Duration::from_secs(1);
        let response = match self {
            Self::Invalid(message) => ErrorResponse::new(ErrorType::Validation, message),
            Self::Exists(message) => ErrorResponse::new(ErrorType::Validation, message).status(409),
            Self::NotFound(message) => ErrorResponse::new(ErrorType::ResourceNotFound, message),
            Self::Forbidden(message) => ErrorResponse::new(ErrorType::AccessDenied, message),
            Self::TooLarge(message) => ErrorResponse::new(ErrorType::Validation, message).status(413),
            Self::Method(allowed) => {
                let message = format!("This path answers {allowed} only.");
                let mut answer = Answer::error(&ErrorResponse::new(ErrorType::Validation, message).status(405));
                answer.headers.push(("allow", allowed.to_owned()));
                return answer;
            }
            Self::Busy => {
                let message = "Others are changing the same record. Nothing was changed; try again.";
                ErrorResponse::new(ErrorType::ServiceUnavailable, message).retry_after(soon)
            }
            Self::Store(StoreError::Unavailable(why)) => {
                tracing::warn!("keys cannot be managed: {why}");
                let message = "The store of keys and budgets did not answer, so it is not known whether anything was \
                               changed. Try again shortly.";
                ErrorResponse::new(ErrorType::ServiceUnavailable, message).retry_after(soon)
            }
            Self::Store(StoreError::Failed(why)) | Self::Internal(why) => {
                tracing::error!("keys cannot be managed: {why}");
                let message = "The proxy could not do that; see its log.";
                ErrorResponse::new(ErrorType::InternalServer, message)
            }
        };
        Answer::error(&response)
    }
}
