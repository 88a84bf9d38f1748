//! What the operator sees: metrics, one record per request, and the program's own log.

pub mod logging;
pub mod metrics;
pub mod request_record;
