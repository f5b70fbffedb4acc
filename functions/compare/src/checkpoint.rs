//! How far the walk through the shadow table has come. The checkpoint is one item of that table,
//! under a profile id that no profile can have, so walks skip it.
//!
//! A write is conditional on the revision that was read: of two concurrent runs, one counts.

use aws_sdk_dynamodb::Client;
use aws_sdk_dynamodb::error::{DisplayErrorContext, SdkError};
use aws_sdk_dynamodb::operation::put_item::PutItemError;
use aws_sdk_dynamodb::types::AttributeValue;
use std::collections::HashMap;
use store::dynamodb::Place;

const PK: &str = "~compare";
const SK: &str = "~checkpoint";

/// The state of the walks.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Checkpoint {
    /// When the previous walk began, Unix milliseconds; 0 for the first walk.
    pub since: u64,
    /// When the current walk began, and the place it continues after. `None` after the last walk
    /// ended: the next run starts a new one.
    pub under_way: Option<(u64, Place)>,
    /// How often the checkpoint was written.
    pub revision: u64,
}

/// Why the checkpoint could not be read or written.
#[derive(Debug, thiserror::Error)]
pub enum CheckpointError {
    /// The table did not answer.
    #[error("{operation} of the checkpoint in {table} failed: {detail}")]
    Unavailable {
        /// The operation.
        operation: &'static str,
        /// The table.
        table: String,
        /// The SDK's error.
        detail: String,
    },
    /// Another run wrote the checkpoint since it was read.
    #[error("another run continued from the same checkpoint in {0}: this run's result does not count")]
    Overtaken(String),
}

/// The checkpoint's item.
#[derive(Debug, Clone)]
pub struct Checkpoints {
    client: Client,
    table: String,
}

impl Checkpoints {
    /// The checkpoint of walks through `table`.
    pub fn new(client: Client, table: impl Into<String>) -> Self {
        Self { client, table: table.into() }
    }

    /// Reads the checkpoint. If there is none, the first walk starts.
    ///
    /// # Errors
    /// When the table cannot be read.
    pub async fn read(&self) -> Result<Checkpoint, CheckpointError> {
        let get = self.client.get_item().table_name(&self.table).set_key(Some(key())).consistent_read(true);
        let answer = get.send().await.map_err(|error| self.unavailable("GetItem", error))?;
        Ok(answer.item.as_ref().map(checkpoint).unwrap_or_default())
    }

    /// Writes the checkpoint, if the stored revision is still that of `checkpoint`.
    ///
    /// # Errors
    /// When another run was faster, or the table cannot be written.
    pub async fn write(&self, checkpoint: &Checkpoint) -> Result<(), CheckpointError> {
        let number = |value: u64| AttributeValue::N(value.to_string());
        let mut item = key();
        item.insert("since".to_owned(), number(checkpoint.since));
        item.insert("revision".to_owned(), number(checkpoint.revision + 1));
        if let Some((until, after)) = &checkpoint.under_way {
            item.insert("until".to_owned(), number(*until));
            item.insert("after_pk".to_owned(), AttributeValue::S(after.profile_id.clone()));
            item.insert("after_sk".to_owned(), AttributeValue::S(after.sk.clone()));
        }
        let put = self.client.put_item().table_name(&self.table).set_item(Some(item));
        let put = match checkpoint.revision {
            0 => put.condition_expression("attribute_not_exists(pk)"),
            revision => put
                .condition_expression("revision = :revision")
                .expression_attribute_values(":revision", number(revision)),
        };
        match put.send().await {
            Ok(_) => Ok(()),
            Err(error) if error.as_service_error().is_some_and(PutItemError::is_conditional_check_failed_exception) => {
                Err(CheckpointError::Overtaken(self.table.clone()))
            }
            Err(error) => Err(self.unavailable("PutItem", error)),
        }
    }

    fn unavailable<E, R>(&self, operation: &'static str, error: SdkError<E, R>) -> CheckpointError
    where
        E: std::error::Error + 'static,
        R: std::fmt::Debug,
    {
        let detail = DisplayErrorContext(&error).to_string();
        CheckpointError::Unavailable { operation, table: self.table.clone(), detail }
    }
}

fn key() -> HashMap<String, AttributeValue> {
    let text = |value: &str| AttributeValue::S(value.to_owned());
    HashMap::from([("pk".to_owned(), text(PK)), ("sk".to_owned(), text(SK))])
}

fn checkpoint(item: &HashMap<String, AttributeValue>) -> Checkpoint {
    let number = |name: &str| item.get(name)?.as_n().ok()?.parse().ok();
    let text = |name: &str| item.get(name)?.as_s().ok().cloned();
    let place = || Some(Place { profile_id: text("after_pk")?, sk: text("after_sk")? });
    Checkpoint {
        since: number("since").unwrap_or_default(),
        under_way: number("until").zip(place()),
        revision: number("revision").unwrap_or_default(),
    }
}
