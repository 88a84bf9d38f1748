//! Names as types, so that a client's model name is never taken for AWS's model id.

use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

macro_rules! name_type {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(Arc<str>);

        impl $name {
            #[must_use]
            pub fn new(text: impl Into<Arc<str>>) -> Self {
                Self(text.into())
            }

            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl std::borrow::Borrow<str> for $name {
            fn borrow(&self) -> &str {
                &self.0
            }
        }
    };
}

name_type! {
    /// The name a client calls a model by: a `model_name` of the configuration, or an id or ARN of AWS.
    ModelName
}
name_type! {
    /// AWS's id of a model, of an inference profile, or an ARN, decoded.
    ModelId
}
name_type! {
    /// An AWS region, such as `us-west-2`.
    Region
}
name_type! {
    /// Names one deployment in logs, metrics and headers; stable over restarts with the same configuration.
    DeploymentId
}
name_type! {
    /// One counter: whose, and of which period. `key/<id>/total`, `team/<id>/30d/1793491200` (start of the period in
    /// Unix seconds), `key/<id>/model/<name>/1d/…`. A new period is a new account, so a reset cannot race with anything.
    AccountId
}
name_type! {
    /// One lease: `<call id>.<attempt>` or `slice.<uuid>`. Never used twice.
    LeaseId
}
name_type! {
    /// A replica, by the journal it owns; the same after a restart.
    NodeId
}
