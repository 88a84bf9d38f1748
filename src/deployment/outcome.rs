//! What an upstream's answer, or its silence, says about the deployment: deliver it, or try the next one.
//!
//! Pure. It decides for one attempt before the first byte of the answer went to the client; after that nothing is
//! ever replayed. The client's own mistakes (4xx) are delivered: another deployment would refuse them too.

/// Why an attempt did not count and another deployment is tried: a label of metrics and records.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Setback {
    /// No connection, or no TLS session; nothing was sent.
    Connect,
    /// The credentials of the deployment are missing or expired; nothing was sent.
    Credentials,
    /// 429.
    Throttled,
    /// 5xx.
    ServerError,
    /// 408, the model's own timeout.
    ModelTimeout,
}

impl Setback {
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Connect => "connect",
            Self::Credentials => "credentials",
            Self::Throttled => "throttled",
            Self::ServerError => "server_error",
            Self::ModelTimeout => "model_timeout",
        }
    }
}

/// Whether a status of the upstream is a setback that another deployment may not have.
#[must_use]
pub const fn of_status(status: u16) -> Option<Setback> {
    match status {
        408 => Some(Setback::ModelTimeout),
        429 => Some(Setback::Throttled),
        500..=599 => Some(Setback::ServerError),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_another_deployment_may_not_have_is_a_setback() {
        for (status, expected) in [
            (200, None),
            (400, None),
            (403, None),
            (404, None),
            (408, Some(Setback::ModelTimeout)),
            (413, None),
            (424, None),
            (429, Some(Setback::Throttled)),
            (500, Some(Setback::ServerError)),
            (503, Some(Setback::ServerError)),
            (599, Some(Setback::ServerError)),
            (600, None),
        ] {
            assert_eq!(of_status(status), expected, "{status}");
        }
    }
}
