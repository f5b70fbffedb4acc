//! One region's table: reads its stream, and writes items on condition. Decides nothing.

use super::core::Apply;
use crate::table_stream::TableReader;
use anyhow::{Context as _, Result, bail};
use aws_config::SdkConfig;
use aws_config::retry::RetryConfig;
use aws_sdk_dynamodb::Client;
use aws_sdk_dynamodb::error::SdkError;
use aws_sdk_dynamodb::operation::delete_item::DeleteItemError;
use aws_sdk_dynamodb::operation::put_item::PutItemError;
use aws_sdk_dynamodb::types::AttributeValue;
use aws_sdk_dynamodbstreams::types::{AttributeValue as Streamed, Record, ShardIteratorType};
use std::collections::HashMap;
use std::sync::Arc;

const PK: &str = "pk";
const SK: &str = "sk";

/// An item's `pk` and `sk`.
pub(super) type Key = (String, String);
/// An item, with its key.
pub(super) type Image = Arc<HashMap<String, AttributeValue>>;

/// A record of a stream.
#[derive(Debug)]
pub(super) struct Change {
    pub(super) key: Key,
    /// The new item. `None` if it was deleted.
    pub(super) image: Option<Image>,
    /// When, Unix milliseconds.
    pub(super) at: u64,
}

/// A table and its stream.
#[derive(Debug)]
pub(super) struct Table {
    name: String,
    items: Client,
    stream: TableReader,
}

impl Table {
    /// Opens the stream at its beginning.
    ///
    /// # Errors
    /// If the table has no stream, or the stream cannot be read.
    pub(super) async fn open(sdk: &SdkConfig, name: &str) -> Result<Self> {
        // No SDK retries: a second attempt would be refused if the first one succeeded.
        let once = aws_sdk_dynamodb::config::Builder::from(sdk).retry_config(RetryConfig::disabled()).build();
        let items = Client::from_conf(once);
        let described = items.describe_table().table_name(name).send().await;
        let described = described.with_context(|| format!("describing the table {name}"))?;
        let stream = described.table.and_then(|table| table.latest_stream_arn);
        let stream = stream.with_context(|| format!("the table {name} has no stream"))?;
        let stream = TableReader::open(sdk, &stream, ShardIteratorType::TrimHorizon, None).await?;
        Ok(Self { name: name.to_owned(), items, stream })
    }

    /// The next records, in the order of their writes. Empty if there are none yet.
    ///
    /// # Errors
    /// If the stream is unavailable.
    pub(super) async fn read(&mut self) -> Result<Vec<Change>> {
        self.stream.read().await?.iter().map(change).collect()
    }

    /// Makes a due write if the item still is the expected one. Returns whether it did.
    ///
    /// # Errors
    /// If the table is unavailable. The write then counts as not made. If it was made anyway, its
    /// echo counts as an own write of the region.
    pub(super) async fn apply(&self, apply: &Apply<Key, Image>) -> Result<bool> {
        let Condition { expression, names, values } = Condition::that(apply);
        let done = match &apply.image {
            Some(image) => {
                let put = self.items.put_item().table_name(&self.name).set_item(Some((**image).clone()));
                let put = put.condition_expression(expression).set_expression_attribute_names(names);
                let put = put.set_expression_attribute_values(values).send().await;
                unless_refused(put, PutItemError::is_conditional_check_failed_exception)
            }
            None => {
                let (pk, sk) = apply.key.clone();
                let delete = self.items.delete_item().table_name(&self.name);
                let delete = delete.key(PK, AttributeValue::S(pk)).key(SK, AttributeValue::S(sk));
                let delete = delete.condition_expression(expression).set_expression_attribute_names(names);
                let delete = delete.set_expression_attribute_values(values).send().await;
                unless_refused(delete, DeleteItemError::is_conditional_check_failed_exception)
            }
        };
        done.with_context(|| format!("writing to {}", self.name))
    }
}

/// Whether a conditional write was made.
fn unless_refused<O, E>(answer: Result<O, SdkError<E>>, refused: fn(&E) -> bool) -> Result<bool>
where
    SdkError<E>: std::error::Error + Send + Sync + 'static,
{
    match answer {
        Ok(_) => Ok(true),
        Err(error) if error.as_service_error().is_some_and(refused) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

/// The condition that an item has the expected attributes, and none of the new ones.
struct Condition {
    expression: String,
    names: Option<HashMap<String, String>>,
    values: Option<HashMap<String, AttributeValue>>,
}

impl Condition {
    fn that(apply: &Apply<Key, Image>) -> Self {
        let Some(expected) = &apply.expected else {
            return Self { expression: format!("attribute_not_exists({PK})"), names: None, values: None };
        };
        let (mut terms, mut names, mut values) = (Vec::new(), HashMap::new(), HashMap::new());
        for (at, (name, value)) in expected.iter().enumerate() {
            names.insert(format!("#e{at}"), name.clone());
            values.insert(format!(":e{at}"), value.clone());
            terms.push(format!("#e{at} = :e{at}"));
        }
        let new = apply.image.iter().flat_map(|image| image.keys()).filter(|name| !expected.contains_key(*name));
        for (at, name) in new.enumerate() {
            names.insert(format!("#n{at}"), name.clone());
            terms.push(format!("attribute_not_exists(#n{at})"));
        }
        Self { expression: terms.join(" AND "), names: Some(names), values: Some(values) }
    }
}

fn change(record: &Record) -> Result<Change> {
    let change = record.dynamodb.as_ref().context("a record without a change")?;
    let part = |name: &str| {
        let value = change.keys.as_ref().and_then(|keys| keys.get(name)).and_then(|value| value.as_s().ok());
        value.cloned().with_context(|| format!("a record without a string {name}"))
    };
    let image = |image: &HashMap<String, Streamed>| {
        let attributes = image.iter().map(|(name, value)| Ok((name.clone(), attribute(value)?)));
        attributes.collect::<Result<_>>().map(Arc::new)
    };
    let at = change.approximate_creation_date_time.context("a record without a time")?.to_millis()?;
    Ok(Change {
        key: (part(PK)?, part(SK)?),
        image: change.new_image.as_ref().map(image).transpose()?,
        at: u64::try_from(at)?,
    })
}

/// Converts a value: the two SDK clients have different types for it.
fn attribute(value: &Streamed) -> Result<AttributeValue> {
    Ok(match value {
        Streamed::S(text) => AttributeValue::S(text.clone()),
        Streamed::N(number) => AttributeValue::N(number.clone()),
        Streamed::B(bytes) => AttributeValue::B(bytes.clone()),
        Streamed::Bool(is) => AttributeValue::Bool(*is),
        Streamed::Null(is) => AttributeValue::Null(*is),
        Streamed::Ss(texts) => AttributeValue::Ss(texts.clone()),
        Streamed::Ns(numbers) => AttributeValue::Ns(numbers.clone()),
        Streamed::Bs(all) => AttributeValue::Bs(all.clone()),
        Streamed::L(values) => AttributeValue::L(values.iter().map(attribute).collect::<Result<_>>()?),
        Streamed::M(values) => {
            let values = values.iter().map(|(name, value)| Ok((name.clone(), attribute(value)?)));
            AttributeValue::M(values.collect::<Result<_>>()?)
        }
        other => bail!("unknown kind of attribute: {other:?}"),
    })
}
