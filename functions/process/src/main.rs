//! Wiring only: configuration, clients, and the loop that Lambda drives.

use anyhow::Context as _;
use lambda::config::Env;
use lambda::metrics::Emitter;
use lambda::runtime::run_batches;
use lambda::warm_up::{BOUND, warm_up};
use process::{Candidate, Config, Part, Process, Shadow};
use store::dynamodb::Views;
use stream::Queue;

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let config = lambda::config::read(Env::from_process(), Config::read)?;
    lambda::logs::init(config.common.log_level);
    let sdk = aws_config::load_defaults(aws_config::BehaviorVersion::latest()).await;
    let views = |table: &str| Views::new(&sdk, table, config.common.home.clone());
    let emitter = Emitter::stdout(&config.common.stage, &config.common.function);
    let shadow = config.shadow_table.as_deref().map(|table| Shadow::new(views(table)));

    match config.part {
        Part::Live { views_table, dead_letter_queue_url, retry_queue_url } => {
            let sqs = aws_sdk_sqs::Client::new(&sdk);
            let retry = Queue::new(sqs.clone(), retry_queue_url);
            let dead_letters = Queue::new(sqs, dead_letter_queue_url);
            let process = Process { table: views(&views_table), shadow, retry, dead_letters };
            warm_up("views", BOUND, process.table.warm_up()).await;
            run_batches(emitter, process).await?;
        }
        Part::Candidate(sample) => {
            let shadow = shadow.context("a candidate has a shadow table")?;
            run_batches(emitter, Candidate { shadow, sample }).await?;
        }
    }
    Ok(())
}
