//! What every measurement of whole functions shares: its options, the binaries, and what stands in
//! for AWS.

use super::report::Report;
use anyhow::{Context as _, Result, ensure};
use aws_sdk_dynamodb::types::{AttributeDefinition, BillingMode, KeySchemaElement, KeyType, ScalarAttributeType};
use local::{LocalBroker, LocalDynamoDb, Progress};
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::{SystemTime, UNIX_EPOCH};

/// The run's name, which is its folder in `target/playhead/`.
const NAME: &str = "bench";
const LOGS: &str = "target/playhead/bench/functions";

/// Options of all measurements of whole functions.
#[derive(Debug, Clone, clap::Args)]
pub(super) struct Options {
    /// Runs of each measurement, each with a new process and a new table or topic
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u8).range(1..=100))]
    pub(super) runs: u8,
    /// The DynamoDB to use
    #[arg(long, value_enum, default_value_t)]
    pub(super) store: Store,
    /// Plaintext brokers to append to, instead of the embedded one
    #[arg(long, value_name = "HOST:PORT[,...]")]
    pub(super) brokers: Option<String>,
    /// Folder with the functions' release binaries; they are not built then
    #[arg(long, value_name = "DIR")]
    pub(super) bin_dir: Option<PathBuf>,
    /// Leave out what the functions are compared with
    #[arg(long)]
    pub(super) no_references: bool,
    /// Only scenarios whose name has this text
    #[arg(long, value_name = "TEXT")]
    pub(super) only: Option<String>,
    /// Seed of the viewers
    #[arg(long, value_name = "N", default_value_t = 7)]
    pub(super) seed: u64,
    /// Also write the figures to this file as JSON
    #[arg(long, value_name = "FILE")]
    pub(super) json: Option<PathBuf>,
    /// Compare with the figures in this file, which an earlier run wrote
    #[arg(long, value_name = "FILE")]
    pub(super) baseline: Option<PathBuf>,
}

/// A DynamoDB on this machine.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, clap::ValueEnum)]
pub(super) enum Store {
    /// The emulator of the local cloud
    #[default]
    Emulator,
    /// AWS's own DynamoDB Local, which needs Java 17 and Maven
    DynamodbLocal,
}

/// The options, the binaries, and the figures so far.
#[derive(Debug)]
pub(super) struct Stage {
    pub(super) options: Options,
    pub(super) progress: Progress,
    pub(super) report: Report,
    binaries: BTreeMap<String, PathBuf>,
    folder: PathBuf,
}

impl Stage {
    /// Builds the functions if need be.
    pub(super) async fn set(options: Options) -> Result<Self> {
        let workspace = operate::workspace_root()?;
        let progress = Progress::new();
        let binaries = match &options.bin_dir {
            Some(folder) => {
                let names = local::function_names(&workspace)?;
                names.into_iter().map(|name| (name.clone(), folder.join(name))).collect()
            }
            None => {
                progress.step("Building the functions");
                local::build_release(&workspace, &progress).await?
            }
        };
        progress.finish();
        Ok(Self { options, progress, report: Report::default(), binaries, folder: workspace.join(LOGS) })
    }

    /// The binary of a function.
    pub(super) fn binary(&self, name: &str) -> Result<PathBuf> {
        let binary = self.binaries.get(name).with_context(|| format!("there is no function {name}"))?;
        ensure!(binary.is_file(), "{} is missing", binary.display());
        // The program runs with a clean environment, but in our folder.
        std::path::absolute(binary).context("the folder of the binaries")
    }

    /// The file for the output of a program.
    pub(super) fn log(&self, program: &str) -> PathBuf {
        self.folder.join(format!("{program}.log"))
    }

    /// Whether a scenario with this name is wanted.
    pub(super) fn wants(&self, scenario: &str) -> bool {
        self.options.only.as_ref().is_none_or(|text| scenario.contains(text.as_str()))
    }

    /// Starts the store.
    pub(super) async fn store(&self) -> Result<LocalDynamoDb> {
        match self.options.store {
            Store::Emulator => {
                self.progress.step("Starting the emulator (ministack)");
                LocalDynamoDb::emulator(NAME).await
            }
            Store::DynamodbLocal => {
                self.progress.step("Starting DynamoDB Local");
                LocalDynamoDb::dynamodb_local(NAME).await
            }
        }
    }

    /// Starts a broker, unless the user has named some. Keep what is returned.
    pub(super) async fn broker(&self) -> Result<(Option<LocalBroker>, String)> {
        if let Some(brokers) = &self.options.brokers {
            return Ok((None, brokers.clone()));
        }
        self.progress.step("Starting the broker (tansu)");
        let broker = LocalBroker::start("bench-broker").await?;
        let bootstrap = broker.bootstrap();
        Ok((Some(broker), bootstrap))
    }

    /// Prints and saves the figures.
    pub(super) fn end(self) -> Result<()> {
        self.progress.finish();
        self.report.publish(self.options.json.as_deref(), self.options.baseline.as_deref())
    }
}

/// Creates a table for views. It has no index: what an index costs is not the functions' doing.
pub(super) async fn create_table(sdk: &aws_config::SdkConfig, name: &str) -> Result<()> {
    let attribute =
        |name: &str| AttributeDefinition::builder().attribute_name(name).attribute_type(ScalarAttributeType::S).build();
    let key = |name: &str, of| KeySchemaElement::builder().attribute_name(name).key_type(of).build();
    let client = aws_sdk_dynamodb::Client::new(sdk);
    let table = client.create_table().table_name(name).billing_mode(BillingMode::PayPerRequest);
    let table = table.attribute_definitions(attribute("pk")?).attribute_definitions(attribute("sk")?);
    let table = table.key_schema(key("pk", KeyType::Hash)?).key_schema(key("sk", KeyType::Range)?);
    table.send().await.with_context(|| format!("creating the table {name}"))?;
    Ok(())
}

/// Deletes a table.
pub(super) async fn delete_table(sdk: &aws_config::SdkConfig, name: &str) -> Result<()> {
    let client = aws_sdk_dynamodb::Client::new(sdk);
    client.delete_table().table_name(name).send().await.with_context(|| format!("deleting the table {name}"))?;
    Ok(())
}

/// Now, Unix milliseconds.
pub(super) fn now_ms() -> Result<u64> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).context("the clock is before 1970")?;
    Ok(now.as_millis().try_into()?)
}
