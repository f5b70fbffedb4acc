//! Wiring only: configuration, clients, and the loop that Lambda drives.

use forward::{Config, Forward, RegionQueues};
use lambda::config::Env;
use lambda::metrics::Emitter;
use lambda::routing::Routing;
use lambda::warm_up::{BOUND, warm_up};
use queue::Queue;

fn main() -> anyhow::Result<()> {
    lambda::runtime::block_on(run())
}

async fn run() -> anyhow::Result<()> {
    let config = lambda::config::read(Env::from_process(), Config::read)?;
    lambda::logs::init(config.common.log_level);
    let sdk = aws_config::load_defaults(aws_config::BehaviorVersion::latest()).await;
    let inbound = RegionQueues::new(&sdk, config.inbound_queue_name, &config.regions);
    let dead_letters = Queue::new(queue::client(&sdk), config.dead_letter_queue_url);
    let routing = Routing::of_parameter(&sdk, config.routing_parameter, config.regions);
    let emitter = Emitter::stdout(&config.common.stage, &config.common.function);
    warm_up("inbound queues", BOUND, inbound.warm_up()).await;
    Ok(lambda::runtime::run_batches(emitter, Forward { inbound, dead_letters, routing }).await?)
}
