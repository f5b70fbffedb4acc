//! Wiring only: configuration, clients, and the loop that Lambda drives.

use anyhow::Context as _;
use apply::Recent;
use lambda::runtime::{block_on, run_batches};
use lambda::warm_up::{BOUND, warm_up};
use lambda::{clock::now_ms, config::Env, metrics::Emitter};
use process::{Candidate, Config, Copies, Mode, Process, Shadow, WithCopies};
use queue::Queue;
use store::dynamodb::Views;

fn main() -> anyhow::Result<()> {
    block_on(run())
}

async fn run() -> anyhow::Result<()> {
    let config = lambda::config::read(Env::from_process(), Config::read)?;
    lambda::logs::init(config.common.log_level);
    let sdk = aws_config::load_defaults(aws_config::BehaviorVersion::latest()).await;
    let views = |table: &str| Views::new(&sdk, table, config.common.home.clone());
    let emitter = Emitter::stdout(&config.common.stage, &config.common.function);
    let shadow = config.shadow_table.as_deref().map(|table| Shadow::new(views(table).with_write_times(now_ms)));

    match config.mode {
        Mode::Live { views_table, dead_letter_queue_url, retry_queue_url, candidate } => {
            let sqs = queue::client(&sdk);
            let [retry, dead_letters] =
                [retry_queue_url, dead_letter_queue_url].map(|url| Queue::new(sqs.clone(), url));
            let process =
                Process { table: views(&views_table), shadow, retry, dead_letters, recent: Recent::default() };
            warm_up("views", BOUND, process.table.warm_up()).await;
            let copies = candidate.map(|of_it| Copies::new(Queue::new(sqs, of_it.queue_url), of_it.sample));
            Ok(run_batches(emitter, WithCopies { process, copies }).await?)
        }
        Mode::Candidate(sample) => {
            let shadow = shadow.context("a candidate has a shadow table")?;
            Ok(run_batches(emitter, Candidate { shadow, sample }).await?)
        }
    }
}
