//! The settings of a topic as MSK's API tells them, and the command that corrects them.

use super::judge::{Promise, TopicSettings, Wrong, corrected};
use anyhow::{Context as _, Result};
use aws_sdk_kafka::Client;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use std::collections::BTreeMap;

/// A cluster of Amazon MSK.
#[derive(Debug)]
pub(super) struct Cluster {
    client: Client,
    arn: String,
}

impl Cluster {
    pub(super) fn new(client: Client, arn: String) -> Self {
        Self { client, arn }
    }

    pub(super) fn arn(&self) -> &str {
        &self.arn
    }

    /// Whether its brokers are Express brokers.
    ///
    /// # Errors
    /// If it cannot be described.
    pub(super) async fn is_express(&self) -> Result<bool> {
        let described = self.client.describe_cluster_v2().cluster_arn(&self.arn).send().await;
        let described = described.with_context(|| format!("describing the cluster {}", self.arn))?;
        let provisioned = described.cluster_info().and_then(|cluster| cluster.provisioned());
        let nodes = provisioned.and_then(|provisioned| provisioned.broker_node_group_info());
        Ok(nodes.and_then(|nodes| nodes.instance_type()).is_some_and(|kind| kind.starts_with("express.")))
    }

    /// How a topic is set.
    ///
    /// # Errors
    /// If there is no such topic, access is denied, or the cluster has no API for topics (a
    /// serverless one, or Kafka before 3.6).
    pub(super) async fn topic(&self, name: &str) -> Result<TopicSettings> {
        let described = self.client.describe_topic().cluster_arn(&self.arn).topic_name(name).send().await;
        let described = described.with_context(|| format!("describing the topic {name} of {}", self.arn))?;
        Ok(TopicSettings {
            partitions: described.partition_count().unwrap_or_default(),
            replication_factor: described.replication_factor().unwrap_or_default(),
            settings: settings(described.configs().unwrap_or_default())
                .with_context(|| format!("reading the settings of the topic {name}"))?,
        })
    }

    /// The command that corrects a topic's settings. It gives all of them, in case that it replaces
    /// what the topic has.
    pub(super) fn repair(&self, name: &str, topic: &TopicSettings, wrong: &[Wrong], promise: Promise) -> String {
        let mut all = topic.settings.clone();
        all.extend(corrected(wrong, promise));
        let lines = all.iter().map(|(name, value)| format!("{name}={value}")).collect::<Vec<_>>().join("\n");
        format!(
            "aws kafka update-topic --cluster-arn {} --topic-name {name} --configs {}",
            self.arn,
            STANDARD.encode(lines)
        )
    }
}

/// `name=value` lines in Base64.
fn settings(encoded: &str) -> Result<BTreeMap<String, String>> {
    let text = String::from_utf8(STANDARD.decode(encoded.trim()).context("they are not Base64")?)?;
    let lines = text.lines().map(str::trim).filter(|line| !line.is_empty());
    let pair = |line: &str| {
        let (name, value) = line.split_once('=').with_context(|| format!("{line:?} is not name=value"))?;
        Ok((name.trim().to_owned(), value.trim().to_owned()))
    };
    lines.map(pair).collect()
}

#[cfg(test)]
mod tests {
    use super::super::judge::judge;
    use super::*;

    /// The example of AWS's guide (Describe a topic using the CLI).
    #[test]
    fn settings_are_read_as_msk_tells_them() {
        let found = settings("Y29tcHJlc3Npb24udHlwZT1wcm9kdWNlcgpyZXRlbnRpb24ubXM9NjA0ODAwMDAw").unwrap();
        let expected = [("compression.type", "producer"), ("retention.ms", "604800000")];
        assert_eq!(found, expected.map(|(name, value)| (name.to_owned(), value.to_owned())).into());
        assert!(settings("").unwrap().is_empty());
        assert!(settings("not Base64!").is_err() && settings(&STANDARD.encode("no pair")).is_err());
    }

    /// What the API answers, by the end of its path.
    async fn answer(uri: axum::http::Uri) -> &'static str {
        match uri.path().rsplit('/').next() {
            Some("events") => {
                r#"{"topicName":"events","partitionCount":96,"replicationFactor":2,"configs":"cmV0ZW50aW9uLm1zPTEwMDA="}"#
            }
            _ => r#"{"clusterInfo":{"provisioned":{"brokerNodeGroupInfo":{"instanceType":"express.m7g.large"}}}}"#,
        }
    }

    #[tokio::test]
    async fn topic_and_kind_of_cluster_come_from_the_api() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let endpoint = format!("http://{}", listener.local_addr().unwrap());
        tokio::spawn(async move { axum::serve(listener, axum::Router::new().fallback(answer)).await });
        let client = Client::new(&crate::sdk_config(&endpoint, "us-east-1"));
        let cluster = Cluster::new(client, "arn:aws:kafka:us-east-1:123456789012:cluster/c/1".to_owned());
        assert!(cluster.is_express().await.unwrap());
        let settings = [("retention.ms".to_owned(), "1000".to_owned())].into();
        let expected = TopicSettings { partitions: 96, replication_factor: 2, settings };
        assert_eq!(cluster.topic("events").await.unwrap(), expected);
    }

    #[test]
    fn repair_corrects_what_is_wrong_and_keeps_the_rest() {
        let client = Client::new(&crate::sdk_config("http://127.0.0.1:9", "us-east-1"));
        let cluster = Cluster::new(client, "arn:aws:kafka:us-east-1:123456789012:cluster/c/1".to_owned());
        let own = [("compression.type", "zstd"), ("min.insync.replicas", "1"), ("cleanup.policy", "compact")];
        let own = own.map(|(name, value)| (name.to_owned(), value.to_owned())).into();
        let topic = TopicSettings { partitions: 1, replication_factor: 3, settings: own };
        let promise = Promise { min_insync_replicas: 2, kept_by_brokers: false };
        let command = cluster.repair("events", &topic, &judge(&topic, promise), promise);
        let (start, encoded) = command.rsplit_once(' ').unwrap();
        assert_eq!(
            start,
            format!("aws kafka update-topic --cluster-arn {} --topic-name events --configs", cluster.arn)
        );
        let repaired = TopicSettings { settings: settings(encoded).unwrap(), ..topic };
        assert_eq!(judge(&repaired, promise), []);
        assert_eq!(repaired.settings["compression.type"], "zstd");
    }
}
