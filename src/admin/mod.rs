//! What the proxy answers itself: probes, metrics, and what models there are. Everything here is read-only.

pub mod status;
