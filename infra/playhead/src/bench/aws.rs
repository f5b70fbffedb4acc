//! Stands in for AWS where the store does not matter: the routing document of SSM, queues that take
//! everything, and a table that is empty and takes everything.
//!
//! It answers at once and keeps nothing, so what a function takes is its own doing.

use anyhow::{Context as _, Result};
use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::DefaultBodyLimit;
use axum::http::{HeaderMap, HeaderValue, Response};
use axum::serve::ListenerExt as _;
use serde_json::{Value, json};
use std::net::SocketAddr;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

/// A running stand-in. It ends when it is dropped.
#[derive(Debug)]
pub(super) struct Aws {
    address: SocketAddr,
    server: JoinHandle<()>,
}

impl Aws {
    /// Listens on a free port.
    pub(super) async fn start() -> Result<Self> {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.context("listening for calls of AWS")?;
        let address = listener.local_addr()?;
        let listener = listener.tap_io(|stream| drop(stream.set_nodelay(true)));
        let router = Router::new().fallback(answer).layer(DefaultBodyLimit::disable());
        let server = tokio::spawn(async move { drop(axum::serve(listener, router).await) });
        Ok(Self { address, server })
    }

    /// Its URL.
    pub(super) fn endpoint(&self) -> String {
        format!("http://{}", self.address)
    }
}

impl Drop for Aws {
    fn drop(&mut self) {
        self.server.abort();
    }
}

async fn answer(headers: HeaderMap, body: Bytes) -> Response<Body> {
    let target = headers.get("x-amz-target").and_then(|target| target.to_str().ok()).unwrap_or_default();
    let answer = to(target.rsplit('.').next().unwrap_or_default(), &body);
    let mut response = Response::new(Body::from(answer.to_string()));
    response.headers_mut().insert("content-type", HeaderValue::from_static("application/x-amz-json-1.0"));
    response
}

/// The answer to an operation.
fn to(operation: &str, body: &[u8]) -> Value {
    match operation {
        "GetParameter" => {
            json!({"Parameter": {"Name": "routing", "Type": "String", "Value": r#"{"version":1}"#, "Version": 1}})
        }
        "GetQueueUrl" => json!({"QueueUrl": "http://127.0.0.1:9/000000000000/inbound"}),
        "BatchGetItem" => json!({"Responses": {}, "UnprocessedKeys": {}}),
        "BatchExecuteStatement" => {
            let statements = serde_json::from_slice::<Value>(body).unwrap_or_default();
            let statements = statements["Statements"].as_array().map_or(0, Vec::len);
            json!({"Responses": vec![json!({}); statements]})
        }
        "Query" => json!({"Items": [], "Count": 0, "ScannedCount": 0}),
        _ => json!({}),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn batch_of_statements_is_answered_one_by_one() {
        let answer = to("BatchExecuteStatement", br#"{"Statements":[{"Statement":"a"},{"Statement":"b"}]}"#);
        assert_eq!(answer, json!({"Responses": [{}, {}]}));
        assert_eq!(to("UpdateItem", b"{}"), json!({}));
    }
}
