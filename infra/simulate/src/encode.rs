//! `playhead encode`: turns edge events, one per line, into the events that Lambda would pass to
//! `process`.
//!
//! Lines with the same `post` and `received_at` form one request. It goes through the validation
//! and grouping that `ingest` uses, so the envelopes are those that the log would hold. The event
//! formats are those of the AWS Lambda Developer Guide (Amazon MSK, Amazon SQS, Amazon Kinesis:
//! example events).

use crate::plan::{DEFAULT_START_AT, Plan};
use crate::{Faults, Model};
use anyhow::{Context, Result, bail};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use flate2::Crc;
use md5::{Digest, Md5};
use playback::contract::MAX_EVENTS;
use playback::edge::{self, SessionWindow};
use playback::envelope::{self, Stamp};
use serde_json::value::RawValue;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::io::{BufRead, BufWriter, Write};
use std::time::{SystemTime, UNIX_EPOCH};

/// Turn edge events (JSON lines on standard input) into Lambda events (JSON lines on standard
/// output)
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Event source whose format to write
    #[arg(long)]
    pub trigger: Trigger,
    /// Records per Lambda event (the last one, for kinesis of each shard, may have fewer)
    #[arg(long, value_name = "N", default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub batch: u32,
    /// Name of the Kafka topic, the queue or the stream [default: playback-events, inbound,
    /// playback-standby]
    #[arg(long, value_name = "NAME")]
    pub topic: Option<String>,
    /// Number of partitions of the topic, or shards of the stream
    #[arg(long, value_name = "N", default_value_t = 8, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub partitions: u32,
    /// Region in all names, which is also the ingest region
    #[arg(long, value_name = "REGION", default_value = "us-east-1")]
    pub region: String,
}

/// An event source of `process`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Trigger {
    /// Amazon MSK: records of several partitions in one event
    Msk,
    /// The queue `inbound`: base64 of length-delimited envelopes, one per message
    Sqs,
    /// Kinesis: an event has records of one shard only
    Kinesis,
}

/// What was encoded.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Encoded {
    /// Valid events.
    pub events: usize,
    /// Records: one envelope each.
    pub envelopes: usize,
    /// Lambda events written.
    pub payloads: usize,
    /// Invalid events, by code.
    pub rejected: BTreeMap<&'static str, usize>,
}

/// Runs `playhead encode` on standard input and output.
///
/// # Errors
/// As [`encode`].
pub async fn run(args: Args) -> Result<()> {
    let encoded = tokio::task::spawn_blocking(move || {
        encode(&args, std::io::stdin().lock(), BufWriter::new(std::io::stdout().lock()))
    })
    .await?;
    let encoded = match encoded {
        Err(error) if is_broken_pipe(&error) => return Ok(()),
        encoded => encoded?,
    };
    let Encoded { events, envelopes, payloads, rejected } = encoded;
    eprintln!("{events} events in {envelopes} envelopes in {payloads} Lambda events");
    for (code, count) in rejected {
        eprintln!("{count} events skipped: {code}");
    }
    Ok(())
}

/// Whether the reader of our output has closed it, as `head` does. This is an end, not an error.
pub(crate) fn is_broken_pipe(error: &anyhow::Error) -> bool {
    let kind = error.chain().find_map(|cause| {
        let io = cause.downcast_ref::<std::io::Error>().map(std::io::Error::kind);
        io.or_else(|| cause.downcast_ref::<serde_json::Error>()?.io_error_kind())
    });
    kind == Some(std::io::ErrorKind::BrokenPipe)
}

/// Reads edge events from `input` and writes Lambda events to `output`, each one per line.
///
/// # Errors
/// If a line is not JSON, its `received_at` or `post` is not a number, or reading or writing fails.
/// The error names the line. Events that break the contract are not an error: they are skipped and
/// counted.
pub fn encode(args: &Args, input: impl BufRead, output: impl Write) -> Result<Encoded> {
    let mut encoder =
        Encoder { args, output, next_offset: BTreeMap::new(), pending: BTreeMap::new(), encoded: Encoded::default() };
    let mut request: Option<Request> = None;
    for (index, line) in input.lines().enumerate() {
        let line = line.context("reading events")?;
        if line.trim().is_empty() {
            continue;
        }
        let number = index + 1;
        let raw: Box<RawValue> = serde_json::from_str(&line).with_context(|| format!("line {number} is not JSON"))?;
        let key = RequestKey::of(&raw).with_context(|| format!("line {number}"))?;
        match &mut request {
            Some(open) if open.key == key && open.events.len() < MAX_EVENTS => open.events.push(raw),
            _ => {
                if let Some(done) = request.replace(Request { key, events: vec![raw] }) {
                    encoder.take(done)?;
                }
            }
        }
    }
    if let Some(done) = request {
        encoder.take(done)?;
    }
    encoder.finish()
}

/// The lines of one POST, as far as their fields tell.
struct Request {
    key: RequestKey,
    events: Vec<Box<RawValue>>,
}

#[derive(PartialEq, Eq)]
struct RequestKey {
    received_at: Option<u64>,
    post: Option<u64>,
    /// Without the number of a POST, each session counts as a separate request.
    session_id: Option<String>,
}

impl RequestKey {
    fn of(raw: &RawValue) -> Result<Self> {
        let event: Value = serde_json::from_str(raw.get())?;
        let number = |field: &str| match event.get(field) {
            None | Some(Value::Null) => Ok(None),
            Some(value) => match value.as_u64() {
                Some(number) => Ok(Some(number)),
                None => bail!("`{field}` is {value}, which is not a positive integer"),
            },
        };
        let (received_at, post) = (number("received_at")?, number("post")?);
        let session_id = if post.is_some() { None } else { event["session_id"].as_str().map(str::to_owned) };
        Ok(Self { received_at, post, session_id })
    }
}

/// One envelope on its way into a Lambda event.
struct Record {
    partition: u32,
    offset: u64,
    session_id: String,
    value: Vec<u8>,
    received_at: u64,
}

struct Encoder<'a, W> {
    args: &'a Args,
    output: W,
    next_offset: BTreeMap<u32, u64>,
    /// Records that wait until their event is full: by shard for Kinesis, else together.
    pending: BTreeMap<u32, Vec<Record>>,
    encoded: Encoded,
}

impl<W: Write> Encoder<'_, W> {
    fn take(&mut self, request: Request) -> Result<()> {
        let received_at = match request.key.received_at {
            Some(received_at) => received_at,
            None => now()?,
        };
        let mut events = Vec::with_capacity(request.events.len());
        for raw in &request.events {
            match edge::validate((&**raw).into(), received_at, SessionWindow::default()) {
                Ok(valid) => events.push(valid.event),
                Err(rejection) => *self.encoded.rejected.entry(rejection.code.as_str()).or_default() += 1,
            }
        }
        self.encoded.events += events.len();
        let ingest_region = self.args.region.clone();
        let stamp = Stamp { received_at, sent_at: None, ingest_region, trace_id: None, shadow: false };
        for envelope in envelope::group(events, &stamp) {
            self.append(envelope.session_id.to_string(), envelope.encode(), received_at)?;
        }
        Ok(())
    }

    fn append(&mut self, session_id: String, value: Vec<u8>, received_at: u64) -> Result<()> {
        self.encoded.envelopes += 1;
        let partition = match self.args.trigger {
            Trigger::Msk => kafka_partition(&session_id, self.args.partitions),
            Trigger::Sqs => 0,
            Trigger::Kinesis => kinesis_shard(&session_id, self.args.partitions),
        };
        let next_offset = self.next_offset.entry(partition).or_default();
        let offset = *next_offset;
        *next_offset += 1;
        let batch = if self.args.trigger == Trigger::Kinesis { partition } else { 0 };
        let batch = self.pending.entry(batch).or_default();
        batch.push(Record { partition, offset, session_id, value, received_at });
        if batch.len() >= self.args.batch as usize {
            let records = std::mem::take(batch);
            self.write(&records)?;
        }
        Ok(())
    }

    fn finish(mut self) -> Result<Encoded> {
        for records in std::mem::take(&mut self.pending).into_values().filter(|records| !records.is_empty()) {
            self.write(&records)?;
        }
        self.output.flush().context("writing Lambda events")?;
        Ok(self.encoded)
    }

    fn write(&mut self, records: &[Record]) -> Result<()> {
        let Args { trigger, topic, region, .. } = self.args;
        let name = topic.as_deref().unwrap_or(match trigger {
            Trigger::Msk => "playback-events",
            Trigger::Sqs => "inbound",
            Trigger::Kinesis => "playback-standby",
        });
        let payload = match trigger {
            Trigger::Msk => msk_event(records, name, region),
            Trigger::Sqs => json!({"Records": records.iter().map(|r| sqs_record(r, name, region)).collect::<Vec<_>>()}),
            Trigger::Kinesis => {
                json!({"Records": records.iter().map(|r| kinesis_record(r, name, region)).collect::<Vec<_>>()})
            }
        };
        serde_json::to_writer(&mut self.output, &payload)?;
        self.output.write_all(b"\n").context("writing Lambda events")?;
        self.encoded.payloads += 1;
        Ok(())
    }
}

fn msk_event(records: &[Record], topic: &str, region: &str) -> Value {
    let mut by_partition: BTreeMap<String, Vec<Value>> = BTreeMap::new();
    for record in records {
        by_partition.entry(format!("{topic}-{}", record.partition)).or_default().push(json!({
            "topic": topic,
            "partition": record.partition,
            "offset": record.offset,
            "timestamp": record.received_at,
            "timestampType": "CREATE_TIME",
            "key": BASE64.encode(&record.session_id),
            "value": BASE64.encode(&record.value),
            "headers": [],
        }));
    }
    json!({
        "eventSource": "aws:kafka",
        "eventSourceArn": format!("arn:aws:kafka:{region}:000000000000:cluster/playhead/00000000-0000-4000-8000-000000000000-1"),
        "bootstrapServers": format!("b-1.playhead.kafka.{region}.amazonaws.com:9098"),
        "records": by_partition,
    })
}

fn sqs_record(record: &Record, queue: &str, region: &str) -> Value {
    let body = BASE64.encode(envelope::join_delimited([record.value.as_slice()]));
    json!({
        "messageId": format!("00000000-0000-4000-8000-{:012x}", record.offset),
        "receiptHandle": format!("receipt-{}", record.offset),
        "md5OfBody": hex(&Md5::digest(&body)),
        "body": body,
        "attributes": {
            "ApproximateReceiveCount": "1",
            "SentTimestamp": record.received_at.to_string(),
            "SenderId": "AIDACKCEVSQ6C2EXAMPLE",
            "ApproximateFirstReceiveTimestamp": record.received_at.to_string(),
        },
        "messageAttributes": {},
        "eventSource": "aws:sqs",
        "eventSourceARN": format!("arn:aws:sqs:{region}:000000000000:{queue}"),
        "awsRegion": region,
    })
}

fn kinesis_record(record: &Record, stream: &str, region: &str) -> Value {
    let sequence_number = format!("4959033827149025660855969253836157109592{:016}", record.offset);
    json!({
        "kinesis": {
            "kinesisSchemaVersion": "1.0",
            "partitionKey": record.session_id,
            "sequenceNumber": sequence_number,
            "data": BASE64.encode(&record.value),
            "approximateArrivalTimestamp": record.received_at as f64 / 1000.0,
        },
        "eventSource": "aws:kinesis",
        "eventVersion": "1.0",
        "eventID": format!("shardId-{:012}:{sequence_number}", record.partition),
        "eventName": "aws:kinesis:record",
        "invokeIdentityArn": "arn:aws:iam::000000000000:role/process",
        "awsRegion": region,
        "eventSourceARN": format!("arn:aws:kinesis:{region}:000000000000:stream/{stream}"),
    })
}

/// The choice of librdkafka's default partitioner (`consistent_random`) for a record with a key:
/// CRC-32 of the key.
fn kafka_partition(key: &str, partitions: u32) -> u32 {
    let mut crc = Crc::new();
    crc.update(key.as_bytes());
    crc.sum() % partitions
}

/// The choice of Kinesis among shards that split the key space evenly: the MD5 of the key, read as
/// a 128-bit number.
fn kinesis_shard(key: &str, shards: u32) -> u32 {
    let hash: [u8; 16] = Md5::digest(key).into();
    let width = u128::MAX / u128::from(shards);
    ((u128::from_be_bytes(hash) / width) as u32).min(shards - 1)
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn now() -> Result<u64> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).context("the clock is before 1970")?;
    Ok(now.as_millis().try_into()?)
}

/// A simulated trace with duplicates and reordering, encoded as `batches` Lambda events of
/// `records` records each.
///
/// # Errors
/// If the trace makes fewer.
pub fn msk_batches(seed: u64, batches: usize, records: u32) -> Result<(Plan, Vec<String>)> {
    let faults = Faults { duplicates: 0.05, reorder: 0.1, ..Faults::NONE };
    // A session makes about nine records.
    let sessions = batches * records as usize / 8 + 10;
    let model =
        Model { sessions, viewers: None, titles: 500, homes: vec!["use1".parse()?], travel: None, seed, faults };
    let plan = Plan::new(&model, DEFAULT_START_AT)?;
    let mut lines = Vec::new();
    plan.write_trace(&mut lines)?;
    let region = "us-east-1".to_owned();
    let options = Args { trigger: Trigger::Msk, batch: records, topic: None, partitions: 8, region };
    let mut output = Vec::new();
    encode(&options, lines.as_slice(), &mut output)?;
    let events: Vec<String> = String::from_utf8(output)?.lines().take(batches).map(str::to_owned).collect();
    if events.len() < batches {
        bail!("the trace made only {} batches", events.len());
    }
    Ok((plan, events))
}

#[cfg(test)]
mod tests;
