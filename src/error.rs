//! Why a request ends without an answer of Bedrock, and whose fault that is.
//!
//! The text for the client and the text for the operator are different fields, so an internal error can never reach a
//! client by way of `Display`. The wire form is made in `aws::error_body` and nowhere else.

use crate::aws::error_body::{ErrorResponse, ErrorType};

/// Who is at fault: a label of metrics and records.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Fault {
    /// The request is wrong or not allowed.
    Client,
    /// A budget or a limit said no.
    Limit,
    /// Bedrock, or the way to it.
    Upstream,
    /// The key store.
    Store,
    /// This program or its configuration.
    Internal,
    /// The client went away.
    Disconnect,
}

impl Fault {
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Client => "client",
            Self::Limit => "limit",
            Self::Upstream => "upstream",
            Self::Store => "store",
            Self::Internal => "internal",
            Self::Disconnect => "disconnect",
        }
    }
}

/// A request that this proxy answers with an error of its own.
#[derive(Debug)]
pub struct Failure {
    pub fault: Fault,
    /// A short fixed word for metrics and records: `unknown_operation`, `body_too_large` …
    pub reason: &'static str,
    /// What the client gets.
    pub response: ErrorResponse,
    /// What only the operator's log gets.
    pub internal: Option<String>,
}

impl Failure {
    #[must_use]
    pub fn new(fault: Fault, reason: &'static str, kind: ErrorType, message: impl Into<String>) -> Self {
        Self { fault, reason, response: ErrorResponse::new(kind, message), internal: None }
    }

    /// A mistake of the client.
    #[must_use]
    pub fn client(reason: &'static str, kind: ErrorType, message: impl Into<String>) -> Self {
        Self::new(Fault::Client, reason, kind, message)
    }

    /// Trouble on Bedrock's side.
    #[must_use]
    pub fn upstream(reason: &'static str, kind: ErrorType, message: impl Into<String>) -> Self {
        Self::new(Fault::Upstream, reason, kind, message)
    }

    /// Adds what only the operator may read.
    #[must_use]
    pub fn because(mut self, internal: impl Into<String>) -> Self {
        self.internal = Some(internal.into());
        self
    }

    /// Adjusts the response: a retry hint, a status.
    #[must_use]
    pub fn with(mut self, adjust: impl FnOnce(ErrorResponse) -> ErrorResponse) -> Self {
        self.response = adjust(self.response);
        self
    }
}
