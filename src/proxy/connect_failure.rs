//! What kind of failure kept a connection from being made, out of Pingora's error.
//!
//! Pure. Pingora 0.9.1 (`connectors/`, `protocols/l4/ext.rs`, `protocols/tls/`) wraps what the system says: the innermost
//! type is the one that tells. A handshake that takes too long is `ConnectTimedout`, like a connection that does.

use pingora_core::{Error, ErrorType};

use crate::deployment::host::ConnectFailure;

/// The kind of a failure to connect; `Other` for what is not one.
#[must_use]
pub fn connect_failure(error: &Error) -> ConnectFailure {
    match error.root_etype() {
        ErrorType::ConnectRefused => ConnectFailure::Refused,
        ErrorType::ConnectTimedout | ErrorType::TLSHandshakeTimedout => ConnectFailure::TimedOut,
        ErrorType::TLSHandshakeFailure
        | ErrorType::TLSWantX509Lookup
        | ErrorType::InvalidCert
        | ErrorType::HandshakeError => ConnectFailure::Tls,
        _ => ConnectFailure::Other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_error_of_pingora_is_of_one_kind() {
        for (etype, expected) in [
            (ErrorType::ConnectRefused, ConnectFailure::Refused),
            (ErrorType::ConnectTimedout, ConnectFailure::TimedOut),
            (ErrorType::TLSHandshakeTimedout, ConnectFailure::TimedOut),
            (ErrorType::TLSHandshakeFailure, ConnectFailure::Tls),
            (ErrorType::TLSWantX509Lookup, ConnectFailure::Tls),
            (ErrorType::HandshakeError, ConnectFailure::Tls),
            (ErrorType::InvalidCert, ConnectFailure::Tls),
            (ErrorType::ConnectNoRoute, ConnectFailure::Other),
            (ErrorType::ConnectError, ConnectFailure::Other),
            (ErrorType::BindError, ConnectFailure::Other),
            (ErrorType::SocketError, ConnectFailure::Other),
            (ErrorType::H2Error, ConnectFailure::Other),
            (ErrorType::ReadTimedout, ConnectFailure::Other),
            (ErrorType::InternalError, ConnectFailure::Other),
            (ErrorType::new("Ours"), ConnectFailure::Other),
        ] {
            let plain = Error::explain(etype.clone(), "while connecting");
            assert_eq!(connect_failure(&plain), expected, "{etype:?}");
            let wrapped = Error::because(ErrorType::InternalError, "wrapped", plain);
            assert_eq!(connect_failure(&wrapped), expected, "{etype:?} in another");
        }
    }
}
