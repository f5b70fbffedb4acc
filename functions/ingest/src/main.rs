//! Wiring only: configuration, clients, and the loop that Lambda drives.

use ingest::{Config, Ingest};
use lambda::auth::Authenticator;
use lambda::clock::now_ms;
use lambda::config::Env;
use lambda::metrics::Emitter;
use lambda::warm_up::{BOUND, warm_up};
use std::sync::Arc;
use stream::{Failover, Log, Policy};

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let config = lambda::config::read(Env::from_process(), Config::read)?;
    lambda::logs::init(config.common.log_level);
    let sdk = aws_config::load_defaults(aws_config::BehaviorVersion::latest()).await;
    let primary = Log::new(config.logs.primary, &sdk);
    let standby = config.logs.standby.map(|standby| Log::new(standby, &sdk));
    let log = Failover::new(primary, standby, config.logs.operator, Policy::default());
    let authenticator = Authenticator::new(&config.auth)?;
    let emitter = Emitter::stdout(&config.common.stage, &config.common.function);
    let warm_log = async |what, log: Option<&Log>| {
        if let Some(log) = log {
            warm_up(what, BOUND, log.warm_up()).await;
        }
    };
    tokio::join!(
        warm_log("primary log", Some(log.primary())),
        warm_log("standby log", log.standby()),
        warm_up("keys", BOUND, authenticator.warm_up())
    );

    let (window, home, region) = (config.window, config.home, config.common.region);
    let shared = Arc::new((Ingest { log, authenticator, window, home, region }, emitter));
    let handle = move |request| {
        let shared = Arc::clone(&shared);
        async move {
            let (ingest, emitter) = &*shared;
            let now = now_ms();
            ingest.answer(&request, &emitter.start(now), now).await
        }
    };
    lambda::runtime::run_http(handle).await.map_err(anyhow::Error::from_boxed)
}
