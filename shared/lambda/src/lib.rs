//! What every function needs around its handler: configuration, telemetry, authentication, batch answers.
