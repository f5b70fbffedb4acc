//! Converts the SDK's errors to the port's.

use crate::table::{Fault, StoreError};
use aws_sdk_dynamodb::error::{DisplayErrorContext, ProvideErrorMetadata, SdkError};
use aws_sdk_dynamodb::types::{BatchStatementError, BatchStatementErrorCodeEnum as Code};

/// Error codes that mean throttling. Source: DynamoDB developer guide, "Error handling with
/// DynamoDB".
const THROTTLES: [&str; 4] =
    ["ProvisionedThroughputExceededException", "RequestLimitExceeded", "ThrottlingException", "Throttling"];

/// Error codes that mean that the item itself cannot be stored. Source: as above.
const REFUSALS: [&str; 2] = ["ValidationException", "ItemCollectionSizeLimitExceededException"];

/// Classifies a failed call. Without permission or without a table the store counts as away: that
/// is a mistake in the deployment, and no fault of the record.
pub(super) fn classify<E, R>(operation: &'static str, subject: impl Into<String>, error: SdkError<E, R>) -> StoreError
where
    E: ProvideErrorMetadata + std::error::Error + 'static,
    R: std::fmt::Debug,
{
    let is_one_of = |codes: &[&str]| error.code().is_some_and(|code| codes.contains(&code));
    let text = || DisplayErrorContext(&error).to_string();
    let fault = if is_one_of(&THROTTLES) {
        Fault::Throttled(text())
    } else if is_one_of(&REFUSALS) {
        Fault::Refused(text())
    } else {
        Fault::Unavailable(text())
    };
    StoreError { operation, subject: subject.into(), fault }
}

/// What the failure of one statement of a batch means.
pub(super) fn of_statement(error: &BatchStatementError) -> Fault {
    let code = error.code.as_ref();
    let text =
        || format!("{}: {}", code.map_or("no code", Code::as_str), error.message.as_deref().unwrap_or("no message"));
    match code {
        Some(Code::ProvisionedThroughputExceeded | Code::RequestLimitExceeded | Code::ThrottlingError) => {
            Fault::Throttled(text())
        }
        Some(Code::ValidationError | Code::ItemCollectionSizeLimitExceeded) => Fault::Refused(text()),
        _ => Fault::Unavailable(text()),
    }
}
