//! Wiring only: configuration, clients, and the loop that Lambda drives.

use ingest::{Budgets, Config, Ingest, Legacy};
use lambda::auth::Authenticator;
use lambda::clock::now_ms;
use lambda::config::Env;
use lambda::metrics::Emitter;
use lambda::routing::Routing;
use lambda::warm_up::{BOUND, warm_up};
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Instant;
use stream::{Failover, Log, Policy};

fn main() -> anyhow::Result<()> {
    lambda::runtime::block_on(run())
}

async fn run() -> anyhow::Result<()> {
    let config = lambda::config::read(Env::from_process(), Config::read)?;
    lambda::logs::init(config.common.log_level);
    anyhow::ensure!(
        stream::TLS || !config.logs.need_tls(),
        "KAFKA_SECURITY is `iam`, which needs TLS: build with `infra/build-functions`, or with `--features ingest/tls`"
    );
    let sdk = aws_config::load_defaults(aws_config::BehaviorVersion::latest()).await;
    let primary = Log::new(config.logs.primary, &sdk);
    let standby = config.logs.standby.map(|standby| Log::new(standby, &sdk));
    let remote = config.logs.remote.map(|names| {
        let in_standby = names.standby.as_deref();
        let standby = standby.as_ref().zip(in_standby).map(|(log, name)| log.beside(name));
        Failover::new(primary.beside(&names.primary), standby, Policy::default())
    });
    let local = Failover::new(primary, standby, Policy::default());
    let routing = Routing::of_parameter(&sdk, config.routing_parameter, config.regions);
    let authenticator = Authenticator::new(&config.auth)?;
    let emitter = Emitter::stdout(&config.common.stage, &config.common.function);
    let warming = emitter.start(now_ms());
    let warm_log = async |what, log: Option<&Log>| {
        if let Some(log) = log {
            warm_up(what, BOUND, log.warm_up()).await;
        }
    };
    tokio::join!(
        warm_log("primary log", Some(local.primary())),
        warm_log("standby log", local.standby()),
        warm_up("keys", BOUND, authenticator.warm_up()),
        warm_up("routing", BOUND, async { Ok::<_, Infallible>(routing.routes(&warming, Instant::now()).await) })
    );

    drop(warming);
    let legacy = config.legacy_endpoint.map(|endpoint| Legacy::new(endpoint, config.legacy_time_out)).transpose()?;
    let (window, budgets, shadows) = (config.window, Budgets::new(config.events_per_minute), Arc::default());
    let ingest = Ingest { local, remote, routing, authenticator, window, budgets, legacy, shadows };
    Ok(lambda::runtime::run_http(emitter, ingest).await?)
}
