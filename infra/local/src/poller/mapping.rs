//! A mapping without its log, its function and its clock, for simulations: the same core as the
//! poller's, with times and answers as arguments.

use super::PollerStats;
use super::core::{Batching, Core, Step};
use super::failure::{Mapping as Named, failure_record};
use super::record::{KafkaRecord, KinesisRecord, Record, Source, Stream, TableStream, TimestampType, Topic};
use super::settle::{Discard, Policy, Resolution, Response};

/// Maximum size of a payload, bytes.
const PAYLOAD_LIMIT: usize = 6 * 1024 * 1024;

/// The settings of a mapping, as in the template.
#[derive(Debug, Clone, Copy)]
pub struct MappingSettings {
    /// `BatchSize`.
    pub batch_size: usize,
    /// `MaximumBatchingWindowInSeconds`, in milliseconds.
    pub window_ms: i64,
    /// `MaximumRetryAttempts`.
    pub max_retries: u32,
    /// `MaximumRecordAgeInSeconds`, in milliseconds.
    pub max_age_ms: i64,
}

/// What a mapping does next.
#[derive(Debug)]
pub enum MappingStep {
    /// Invoke the function with this event, then call [`Mapping::answered`].
    Invoke {
        /// Identifies the work.
        id: u64,
        /// The event, JSON.
        event: String,
    },
    /// Put this object into the failure bucket, then call [`Mapping::delivered`].
    Discard {
        /// Identifies the work.
        id: u64,
        /// The object, JSON.
        object: String,
    },
    /// Nothing before this time (Unix milliseconds), or before the next record.
    Wait(Option<i64>),
}

/// An event source mapping of a log.
#[derive(Debug)]
pub struct Mapping {
    core: Core,
    source: Source,
    named: Named,
}

impl Mapping {
    /// A mapping of a Kafka topic.
    #[must_use]
    pub fn of_topic(topic: &str, settings: MappingSettings) -> Self {
        let topic = Topic {
            event_source_arn: "arn:aws:kafka:us-east-1:000000000000:cluster/simulated/1".to_owned(),
            bootstrap_servers: "simulated:9092".to_owned(),
            topic: topic.to_owned(),
        };
        Self::of(Source::Kafka(topic), settings)
    }

    /// A mapping of a Kinesis stream.
    #[must_use]
    pub fn of_stream(name: &str, settings: MappingSettings) -> Self {
        let stream = Stream {
            arn: format!("arn:aws:kinesis:us-east-1:000000000000:stream/{name}"),
            role: "arn:aws:iam::000000000000:role/simulated".to_owned(),
        };
        Self::of(Source::Kinesis(stream), settings)
    }

    /// A mapping of a table's stream. A record's key is its sequence number, and its value the JSON that
    /// Lambda passes on.
    #[must_use]
    pub fn of_table(name: &str, settings: MappingSettings) -> Self {
        let arn = format!("arn:aws:dynamodb:us-east-1:000000000000:table/{name}/stream/simulated");
        Self::of(Source::Table(TableStream { arn, shard: "simulated".to_owned() }), settings)
    }

    fn of(source: Source, settings: MappingSettings) -> Self {
        let MappingSettings { batch_size, window_ms, max_retries, max_age_ms } = settings;
        let policy = Policy {
            max_retries: Some(max_retries),
            max_age_ms: Some(max_age_ms),
            bisect: true,
            partial_answers: true,
        };
        let batching = Batching { size: batch_size, window_ms, payload_limit: PAYLOAD_LIMIT, concurrency: 1 };
        let named = Named { uuid: "simulated".to_owned(), function_arn: "simulated".to_owned() };
        Self { core: Core::new(policy, batching, source.clone()), source, named }
    }

    /// The log has a record. Records of a partition come in their order.
    ///
    /// # Errors
    /// Only if serde_json cannot write a plain struct, which would be a bug.
    pub fn receive(&mut self, partition: i32, offset: i64, at: i64, key: &str, value: &[u8]) -> serde_json::Result<()> {
        let record = match &self.source {
            Source::Kafka(topic) => Record::kafka(&KafkaRecord {
                topic: &topic.topic,
                partition,
                offset,
                timestamp: at,
                timestamp_type: TimestampType::CreateTime,
                key: Some(key.as_bytes()),
                value: Some(value),
                headers: Vec::new(),
            }),
            Source::Table(_) => Ok(Record::of_table(offset, key.to_owned(), at, String::from_utf8_lossy(value).into())),
            Source::Kinesis(stream) => Record::kinesis(
                stream,
                &KinesisRecord {
                    shard: partition,
                    ordinal: offset,
                    sequence_number: &format!("{:020}", offset + 1),
                    arrival: at,
                    partition_key: key,
                    data: value,
                },
            ),
        };
        self.core.receive(record?, at);
        Ok(())
    }

    /// What to do at `now`, Unix milliseconds.
    ///
    /// # Errors
    /// If a time is not one.
    pub fn next(&mut self, now: i64) -> anyhow::Result<MappingStep> {
        Ok(match self.core.next(now) {
            Step::Wait(until) => MappingStep::Wait(until),
            Step::Invoke { id, batch } => MappingStep::Invoke { id, event: self.source.payload(&batch.records) },
            Step::Deliver { id, discard } => MappingStep::Discard { id, object: self.object(&discard, now)? },
        })
    }

    fn object(&self, discard: &Discard, now: i64) -> anyhow::Result<String> {
        let payload = self.source.payload(&discard.batch.records);
        let mut object = failure_record(&self.named, &self.source, discard, payload.len(), now)?;
        object["payload"] = payload.into();
        Ok(object.to_string())
    }

    /// The function answered with `payload`, or failed.
    pub fn answered(&mut self, id: u64, payload: Option<Vec<u8>>, now: i64) {
        let resolution = match payload {
            Some(payload) => Resolution::Answered { payload, response: Response::default() },
            None => Resolution::FunctionError { response: Response::default() },
        };
        self.core.invoked(id, resolution, now);
    }

    /// The bucket took the object, or did not.
    pub fn delivered(&mut self, id: u64, succeeded: bool, now: i64) {
        self.core.delivered(id, succeeded, now);
    }

    /// What it has done so far.
    #[must_use]
    pub fn stats(&self) -> PollerStats {
        self.core.stats()
    }
}
