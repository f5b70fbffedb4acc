//! Converts the SDK's errors to the port's.

use crate::table::{Fault, StoreError};
use aws_sdk_dynamodb::error::{DisplayErrorContext, ProvideErrorMetadata, SdkError};

/// Error codes that mean throttling. Source: DynamoDB developer guide, "Error handling with
/// DynamoDB".
const THROTTLES: [&str; 4] =
    ["ProvisionedThroughputExceededException", "RequestLimitExceeded", "ThrottlingException", "Throttling"];

/// Classifies a failed call.
pub(super) fn classify<E, R>(operation: &'static str, subject: impl Into<String>, error: SdkError<E, R>) -> StoreError
where
    E: ProvideErrorMetadata + std::error::Error + 'static,
    R: std::fmt::Debug,
{
    let throttled = error.code().is_some_and(|code| THROTTLES.contains(&code));
    let text = DisplayErrorContext(&error).to_string();
    let fault = if throttled { Fault::Throttled(text) } else { Fault::Unavailable(text) };
    StoreError { operation, subject: subject.into(), fault }
}
