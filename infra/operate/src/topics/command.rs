//! The command: which topics there are, and what it prints.

use super::judge::{COPIES_SETTING, Promise, TopicSettings, Wrong, corrected, judge};
use super::msk::Cluster;
use crate::stack::{Stack, Which};
use anyhow::{Context as _, Result};
use std::fmt::Write as _;
use std::process::ExitCode;

/// Check that the topics of a stack keep what "accepted" promises
///
/// Run it after each deployment of a log on Kafka. For each topic of the primary log and of the
/// standby it prints each setting that is wrong, and the command that corrects it. Exit status 1 if
/// there is one, or if a topic cannot be described. It reads Amazon MSK's API (kafka:DescribeTopic,
/// kafka:DescribeClusterV2, and kafka-cluster:DescribeTopic and DescribeTopicDynamicConfiguration
/// for the topics), so it needs no way to the brokers.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  cargo playhead topics --stack playhead --region us-east-1
  cargo playhead topics        the local cloud's; its embedded broker has one copy, which is wrong for accepted events")]
pub struct Args {
    #[command(flatten)]
    which: Which,
}

/// Where topics are.
enum Place {
    Msk(Cluster),
    /// Brokers of the local cloud, as `host:port,…`.
    Brokers(String),
}

/// Runs `playhead topics`. `of_brokers` reads the settings of a topic from the brokers of a local
/// cloud.
///
/// # Errors
/// If the stack cannot be found. A topic that cannot be described is not an error, but exit status
/// 1.
pub async fn run(args: Args, of_brokers: impl AsyncFn(&str, &str) -> Result<TopicSettings>) -> Result<ExitCode> {
    let stack = args.which.find().await?;
    let places = places(&stack).await?;
    if places.is_empty() {
        println!("The stack {} has no log on Kafka, so there is no topic to check.", stack.name);
        return Ok(ExitCode::SUCCESS);
    }
    let min_insync_replicas = stack.parameter("KafkaMinInsyncReplicas")?.parse()?;
    let mut all_right = true;
    for place in &places {
        let kept_by_brokers = match place {
            Place::Msk(cluster) => match cluster.is_express().await {
                Ok(express) => express,
                Err(error) => {
                    println!("UNKNOWN  {error:#}");
                    all_right = false;
                    continue;
                }
            },
            Place::Brokers(_) => false,
        };
        let promise = Promise { min_insync_replicas, kept_by_brokers };
        for topic in topics(&stack)? {
            let found = match place {
                Place::Msk(cluster) => cluster.topic(&topic).await,
                Place::Brokers(brokers) => of_brokers(brokers, &topic).await,
            };
            let (text, right) = place.report(&topic, found, promise);
            print!("{text}");
            all_right &= right;
        }
    }
    Ok(if all_right { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// The clusters of the primary log and of the standby.
async fn places(stack: &Stack) -> Result<Vec<Place>> {
    if let Some(local) = &stack.local {
        let brokers = [&local.log_bootstrap, &local.standby_bootstrap].into_iter().flatten();
        return Ok(brokers.cloned().map(Place::Brokers).collect());
    }
    let client = aws_sdk_kafka::Client::new(&stack.sdk);
    let mut places = Vec::new();
    for (log, nested) in [("PrimaryLog", "Kafka"), ("StandbyLog", "StandbyKafka")] {
        if stack.parameter(log)? == "kafka" {
            let arn = stack.nested(nested).await?.output("ClusterArn")?.to_owned();
            places.push(Place::Msk(Cluster::new(client.clone(), arn)));
        }
    }
    Ok(places)
}

/// The topics of each cluster.
fn topics(stack: &Stack) -> Result<Vec<String>> {
    let mut topics = vec![stack.parameter("KafkaTopic")?.to_owned()];
    if !stack.parameter("Regions")?.is_empty() {
        topics.push(stack.parameter("KafkaRemoteTopic")?.to_owned());
    }
    Ok(topics)
}

impl Place {
    fn name(&self) -> &str {
        match self {
            Self::Msk(cluster) => cluster.arn(),
            Self::Brokers(brokers) => brokers,
        }
    }

    /// What is printed of a topic, and whether it is right.
    fn report(&self, name: &str, found: Result<TopicSettings>, promise: Promise) -> (String, bool) {
        let place = self.name();
        let topic = match found.with_context(|| format!("{name} on {place}")) {
            Ok(topic) => topic,
            Err(error) => return (format!("UNKNOWN  {error:#}\n"), false),
        };
        let wrong = judge(&topic, promise);
        let mut text = String::new();
        let verdict = if wrong.is_empty() { "right" } else { "WRONG" };
        // Writing to a string cannot fail.
        let _ = writeln!(text, "{verdict}  {name} on {place}: {} partitions", topic.partitions);
        for Wrong { setting, is, must_be, why } in &wrong {
            let is = is.as_deref().unwrap_or("not set on the topic");
            let _ = writeln!(text, "       {setting} is {is}. It must be {must_be}: {why}.");
        }
        if wrong.iter().any(|wrong| wrong.setting == COPIES_SETTING) {
            let _ = writeln!(
                text,
                "       Copies: reassign the partitions (kafka-reassign-partitions.sh), or make another topic."
            );
        }
        if wrong.iter().any(|wrong| wrong.setting != COPIES_SETTING) {
            let _ = writeln!(text, "       Settings: {}", self.repair(name, &topic, &wrong, promise));
        }
        (text, wrong.is_empty())
    }

    /// The command that corrects the settings.
    fn repair(&self, name: &str, topic: &TopicSettings, wrong: &[Wrong], promise: Promise) -> String {
        match self {
            Self::Msk(cluster) => cluster.repair(name, topic, wrong, promise),
            Self::Brokers(brokers) => {
                let pairs: Vec<String> =
                    corrected(wrong, promise).into_iter().map(|(name, value)| format!("{name}={value}")).collect();
                let what =
                    format!("--alter --entity-type topics --entity-name {name} --add-config {}", pairs.join(","));
                format!("kafka-configs.sh --bootstrap-server {brokers} {what}")
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::judge::right;
    use super::*;

    const PROMISE: Promise = Promise { min_insync_replicas: 2, kept_by_brokers: false };

    fn topic(changed: &[(&str, &str)]) -> TopicSettings {
        let mut settings: std::collections::BTreeMap<_, _> =
            right(PROMISE).into_iter().map(|(name, value)| (name.to_owned(), value)).collect();
        settings.extend(changed.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())));
        TopicSettings { partitions: 96, replication_factor: 3, settings }
    }

    #[test]
    fn report_names_each_wrong_setting_and_the_command_that_corrects_it() {
        let brokers = Place::Brokers("127.0.0.1:9092".to_owned());
        let (text, is_right) = brokers.report("events", Ok(topic(&[])), PROMISE);
        assert_eq!((text.as_str(), is_right), ("right  events on 127.0.0.1:9092: 96 partitions\n", true));

        let short = [("retention.ms", "1000"), ("min.insync.replicas", "1")];
        let (text, is_right) = brokers.report("events", Ok(topic(&short)), PROMISE);
        assert!(!is_right && text.contains("retention.ms is 1000. It must be above 432000000"), "{text}");
        let settings = "--entity-name events --add-config min.insync.replicas=2,retention.ms=604800000\n";
        assert!(text.ends_with(settings), "{text}");

        let few = TopicSettings { replication_factor: 1, ..topic(&[]) };
        let (text, is_right) = brokers.report("events", Ok(few), PROMISE);
        assert!(
            !is_right && text.contains("kafka-reassign-partitions.sh") && !text.contains("kafka-configs"),
            "{text}"
        );
    }

    #[test]
    fn topic_that_cannot_be_described_is_not_right() {
        let brokers = Place::Brokers("127.0.0.1:9092".to_owned());
        let (text, is_right) = brokers.report("events", Err(anyhow::anyhow!("no such topic")), PROMISE);
        assert_eq!((text.as_str(), is_right), ("UNKNOWN  events on 127.0.0.1:9092: no such topic\n", false));
    }
}
