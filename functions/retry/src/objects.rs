//! The failure bucket: batches that Lambda gave up on, one object each.

use crate::message::Object;
use aws_config::SdkConfig;
use aws_sdk_s3::Client;
use aws_sdk_s3::config::retry::RetryConfig;
use aws_sdk_s3::config::timeout::TimeoutConfig;
use aws_sdk_s3::error::DisplayErrorContext;
use aws_sdk_s3::operation::get_object::GetObjectError;
use bytes::{Bytes, BytesMut};
use std::fmt;
use std::future::Future;
use std::time::Duration;
use tokio::time::timeout;

/// The largest object that is read. An invocation carries at most 6 MB, and escaping it as a JSON
/// string adds little.
pub const MAX_OBJECT_BYTES: usize = 16 * 1024 * 1024;

/// How long reading an object may take. What is not read in time is read when its message is
/// delivered again.
pub const READ_FOR: Duration = Duration::from_secs(6);

/// A client of the bucket, whose calls end in time.
pub fn bucket(sdk: &SdkConfig) -> Client {
    let config = aws_sdk_s3::config::Builder::from(sdk)
        .retry_config(RetryConfig::standard().with_max_attempts(2))
        .timeout_config(
            TimeoutConfig::builder()
                .connect_timeout(Duration::from_secs(1))
                .operation_attempt_timeout(Duration::from_secs(3))
                .operation_timeout(Duration::from_secs(5))
                .build(),
        );
    Client::from_conf(config.build())
}

/// The bucket of the batches that Lambda gave up on.
pub trait Objects: Send + Sync {
    /// Why an object could not be read or deleted.
    type Error: fmt::Display + Send;

    /// Reads an object.
    fn get(&self, object: &Object) -> impl Future<Output = Result<ObjectBody, Self::Error>> + Send;

    /// Deletes an object. It is no error if there is none.
    fn delete(&self, object: &Object) -> impl Future<Output = Result<(), Self::Error>> + Send;
}

/// The body of an object, if it can be read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ObjectBody {
    /// These bytes.
    Bytes(Bytes),
    /// No such object.
    Missing,
    /// More than [`MAX_OBJECT_BYTES`].
    TooLarge,
}

/// An object that could not be read or deleted.
#[derive(Debug, thiserror::Error)]
#[error("{operation} of s3://{}/{}: {detail}", object.bucket, object.key)]
pub struct ObjectError {
    operation: &'static str,
    object: Object,
    detail: String,
}

impl Objects for Client {
    type Error = ObjectError;

    async fn get(&self, object: &Object) -> Result<ObjectBody, ObjectError> {
        // The client's time-outs end with the headers; the body may stall too.
        let read = timeout(READ_FOR, read(self, object)).await;
        read.unwrap_or_else(|_| Err(unread(object, format!("no complete answer within {READ_FOR:?}"))))
    }

    async fn delete(&self, object: &Object) -> Result<(), ObjectError> {
        let deleted = self.delete_object().bucket(&object.bucket).key(&object.key).send().await;
        deleted.map(drop).map_err(|error| ObjectError {
            operation: "DeleteObject",
            object: object.clone(),
            detail: DisplayErrorContext(error).to_string(),
        })
    }
}

fn unread(object: &Object, detail: String) -> ObjectError {
    ObjectError { operation: "GetObject", object: object.clone(), detail }
}

async fn read(client: &Client, object: &Object) -> Result<ObjectBody, ObjectError> {
    let failed = |detail| unread(object, detail);
    let mut body = match client.get_object().bucket(&object.bucket).key(&object.key).send().await {
        Ok(answer) => answer.body,
        Err(error) if error.as_service_error().is_some_and(GetObjectError::is_no_such_key) => {
            return Ok(ObjectBody::Missing);
        }
        Err(error) => return Err(failed(DisplayErrorContext(error).to_string())),
    };
    // Read in chunks: the announced length may be wrong.
    let mut bytes = BytesMut::new();
    while let Some(chunk) = body.next().await {
        let chunk = chunk.map_err(|error| failed(DisplayErrorContext(error).to_string()))?;
        if bytes.len() + chunk.len() > MAX_OBJECT_BYTES {
            return Ok(ObjectBody::TooLarge);
        }
        bytes.extend_from_slice(&chunk);
    }
    Ok(ObjectBody::Bytes(bytes.freeze()))
}
