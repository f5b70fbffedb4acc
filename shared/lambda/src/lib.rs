//! What every function needs around its handler: configuration, telemetry, authentication, HTTP
//! answers, batch answers.
//!
//! **Invariant:** there is no global mutable state: an environment may serve several invocations at
//! once.

pub mod auth;
pub mod batch;
pub mod clock;
pub mod config;
pub mod http_client;
pub mod logs;
pub mod metrics;
pub mod problem;
pub mod route;
pub mod routing;
pub mod runtime;
pub mod testing;
pub mod warm_up;
