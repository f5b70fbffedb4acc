//! Wiring only: configuration, clients, and Lambda's loop.

use compare::{Archive, Checkpoints, Compare, Config, Legacy, LegacyConfig, Live, authorization};
use lambda::config::Env;
use lambda::metrics::Emitter;
use store::dynamodb::Views;

fn main() -> anyhow::Result<()> {
    lambda::runtime::block_on(run())
}

async fn run() -> anyhow::Result<()> {
    let config = lambda::config::read(Env::from_process(), Config::read)?;
    lambda::logs::init(config.common.log_level);
    let sdk = aws_config::load_defaults(aws_config::BehaviorVersion::latest()).await;
    let views = |table: &str| Views::new(&sdk, table, config.common.home.clone());
    let live = match config.legacy {
        None => Live::Views(views(&config.views_table)),
        Some(LegacyConfig { url, mapping, authorization_parameter, time_out }) => {
            let authorization = match authorization_parameter {
                Some(name) => Some(authorization(&aws_sdk_ssm::Client::new(&sdk), &name).await?),
                None => None,
            };
            Live::Legacy(Legacy::new(url, mapping, authorization, time_out)?)
        }
    };
    let compare = Compare {
        shadow: views(&config.shadow_table),
        live,
        checkpoints: Checkpoints::new(aws_sdk_dynamodb::Client::new(&sdk), &config.shadow_table),
        archive: Archive::new(aws_sdk_s3::Client::new(&sdk), &config.reports_bucket),
        tolerances: config.tolerances,
        settled_after: config.settled_after,
    };
    let emitter = Emitter::stdout(&config.common.stage, &config.common.function);
    Ok(lambda::runtime::run_schedule(emitter, compare).await?)
}
