//! Wiring only: configuration, clients, and the loop that Lambda drives.

use forward::{Config, Forward, RegionQueues};
use lambda::clock::now_ms;
use lambda::config::Env;
use lambda::metrics::Emitter;
use lambda::routing::Routing;
use lambda::warm_up::{BOUND, warm_up};
use queue::Queue;
use std::sync::Arc;
use std::time::Instant;

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let config = lambda::config::read(Env::from_process(), Config::read)?;
    lambda::logs::init(config.common.log_level);
    let sdk = aws_config::load_defaults(aws_config::BehaviorVersion::latest()).await;
    let inbound = RegionQueues::new(&sdk, config.inbound_queue_name, &config.regions);
    let dead_letters = Queue::new(aws_sdk_sqs::Client::new(&sdk), config.dead_letter_queue_url);
    let routing = Routing::of_parameter(&sdk, config.routing_parameter, config.regions);
    let emitter = Emitter::stdout(&config.common.stage, &config.common.function);
    warm_up("inbound queues", BOUND, inbound.warm_up()).await;

    let shared = Arc::new((Forward { inbound, dead_letters }, routing, emitter));
    let handle = move |batch, _context| {
        let shared = Arc::clone(&shared);
        async move {
            let (forward, routing, emitter) = &*shared;
            let now = now_ms();
            let metrics = emitter.start(now);
            let routes = routing.routes(&metrics, Instant::now()).await;
            forward.serve(&metrics, batch, &routes, now).await
        }
    };
    lambda::runtime::run_batches(handle).await.map_err(anyhow::Error::from_boxed)
}
