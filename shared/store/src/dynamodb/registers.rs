//! What a member says, each as a register: the later time wins, in whatever order the commands
//! arrive.

use super::Views;
use super::error::classify;
use super::item;
use crate::table::StoreError;
use aws_sdk_dynamodb::operation::update_item::UpdateItemError;
use aws_sdk_dynamodb::types::AttributeValue;
use playback::session::SessionId;

impl Views {
    /// Hides a session or shows it again, as of `at` (Unix milliseconds). The session need not exist
    /// yet.
    ///
    /// # Errors
    /// When the table cannot be written.
    pub async fn set_hidden(
        &self,
        profile_id: &str,
        session: &SessionId,
        hidden: bool,
        at: u64,
    ) -> Result<(), StoreError> {
        let attribute = Some(("hidden", AttributeValue::Bool(hidden)));
        self.set_register(profile_id, item::hidden_sk(session.ulid), "changed_at", at, attribute).await
    }

    /// Marks a title as watched or not watched, as of `at` (Unix milliseconds).
    ///
    /// # Errors
    /// When the table cannot be written.
    pub async fn set_watched(
        &self,
        profile_id: &str,
        title_id: &str,
        watched: bool,
        at: u64,
    ) -> Result<(), StoreError> {
        let attribute = Some(("watched", AttributeValue::Bool(watched)));
        self.set_register(profile_id, item::watched_sk(title_id), "changed_at", at, attribute).await
    }

    /// Sets a register's clock and attribute, if the register was last set before or at `at`. Uses
    /// placeholders for names, since some, such as `hidden`, are reserved words in DynamoDB.
    pub(super) async fn set_register(
        &self,
        profile_id: &str,
        sk: String,
        clock: &str,
        at: u64,
        attribute: Option<(&str, AttributeValue)>,
    ) -> Result<(), StoreError> {
        let subject = format!("{} ({profile_id}, {sk})", self.table);
        let update = self
            .client
            .update_item()
            .table_name(&self.table)
            .set_key(Some(item::primary_key(profile_id, sk)))
            .condition_expression("attribute_not_exists(#clock) OR #clock <= :at")
            .expression_attribute_names("#clock", clock)
            .expression_attribute_values(":at", item::number(at));
        let update = match attribute {
            None => update.update_expression("SET #clock = :at"),
            Some((name, value)) => update
                .update_expression("SET #clock = :at, #attribute = :attribute")
                .expression_attribute_names("#attribute", name)
                .expression_attribute_values(":attribute", value),
        };
        let result = update.send().await;
        match result {
            Ok(_) => Ok(()),
            Err(error) => match error.as_service_error() {
                // A later command was stored already: it wins.
                Some(UpdateItemError::ConditionalCheckFailedException(_)) => Ok(()),
                _ => Err(classify("UpdateItem", subject, error)),
            },
        }
    }
}
