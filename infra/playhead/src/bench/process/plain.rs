//! What `process` is compared with: a consumer as one would write it by hand in Rust, on the same
//! runtime and the same SDK.
//!
//! It decodes the batch and writes each event by itself, on condition that it is newer than what is
//! stored. It keeps a position only: no ranges of what was played, no books, no retry queue. So it
//! does less than `process`, and what it costs is the cost of one write per event.

use anyhow::{Context as _, Result};
use aws_config::BehaviorVersion;
use aws_sdk_dynamodb::Client;
use aws_sdk_dynamodb::types::AttributeValue;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use futures::{StreamExt as _, TryStreamExt as _};
use lambda_runtime::{LambdaEvent, service_fn};
use playback::contract::Event;
use playback::envelope::Envelope;
use serde::Deserialize;
use serde_json::{Value, json};
use std::collections::HashMap;
use std::process::ExitCode;

/// Concurrent writes.
const CONCURRENCY: usize = 64;

#[derive(Deserialize)]
struct KafkaEvent {
    records: HashMap<String, Vec<Record>>,
}

#[derive(Deserialize)]
struct Record {
    value: String,
}

/// Serves invocations until the Runtime API is gone.
///
/// # Errors
/// If the environment is not that of a function.
pub(in crate::bench) async fn run() -> Result<ExitCode> {
    let table = std::env::var("VIEWS_TABLE").context("VIEWS_TABLE is not set")?;
    let sdk = aws_config::load_defaults(BehaviorVersion::latest()).await;
    let client = Client::new(&sdk);
    let (client, table) = (&client, table.as_str());
    let serve = service_fn(async move |event: LambdaEvent<KafkaEvent>| {
        serve(client, table, event.payload).await.map_err(|error| format!("{error:#}"))
    });
    lambda_runtime::run(serve).await.map_err(|error| anyhow::anyhow!("{error}"))?;
    Ok(ExitCode::SUCCESS)
}

async fn serve(client: &Client, table: &str, event: KafkaEvent) -> Result<Value> {
    let mut envelopes = Vec::new();
    for record in event.records.into_values().flatten() {
        envelopes.push(Envelope::decode(&BASE64.decode(record.value)?)?);
    }
    let events = envelopes.iter().flat_map(|envelope| envelope.events.iter().map(move |event| (envelope, event)));
    let writes = futures::stream::iter(events).map(|(envelope, event)| write(client, table, envelope, event));
    writes.buffer_unordered(CONCURRENCY).try_collect::<()>().await?;
    Ok(json!({"batchItemFailures": []}))
}

/// Writes an event unless a later one of its session is stored.
async fn write(client: &Client, table: &str, envelope: &Envelope, event: &Event) -> Result<()> {
    let text = |text: &str| AttributeValue::S(text.to_owned());
    let number = |number: u64| AttributeValue::N(number.to_string());
    let sent = client
        .update_item()
        .table_name(table)
        .key("pk", text(&envelope.profile_id))
        .key("sk", text(&envelope.session_id.to_string()))
        .update_expression(
            "SET title_id = :title, position_ms = :position, duration_ms = :duration, kind = :kind, \
             device_id = :device, country = :country, updated_at = :received, last_seq = :seq ADD played_ms :played",
        )
        .condition_expression("attribute_not_exists(last_seq) OR last_seq < :seq")
        .expression_attribute_values(":title", text(&envelope.title_id))
        .expression_attribute_values(":position", number(event.position_ms))
        .expression_attribute_values(":duration", number(event.title_duration_ms.unwrap_or_default()))
        .expression_attribute_values(":kind", text(event.kind.as_str()))
        .expression_attribute_values(":device", text(event.device.id.as_deref().unwrap_or_default()))
        .expression_attribute_values(":country", text(&event.country.map(|code| code.to_string()).unwrap_or_default()))
        .expression_attribute_values(":received", number(envelope.stamp.received_at))
        .expression_attribute_values(":seq", number(event.seq.into()))
        .expression_attribute_values(":played", number(event.played_ms))
        .send()
        .await;
    match sent {
        Ok(_) => Ok(()),
        // A later event of the session was there first.
        Err(error) if error.as_service_error().is_some_and(|error| error.is_conditional_check_failed_exception()) => {
            Ok(())
        }
        Err(error) => Err(error).context("writing an event"),
    }
}
