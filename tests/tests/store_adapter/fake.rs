//! A fake DynamoDB that answers as a test says, and records its calls.
//!
//! Protocol: JSON 1.0 over HTTP; the header `x-amz-target` names the operation, `__type` the error.
//! Source: DynamoDB developer guide, "DynamoDB low-level API".

use axum::Router;
use axum::body::Bytes;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::IntoResponse as _;
use operate::sdk_config;
use serde_json::{Value, json};
use std::sync::{Arc, Mutex};
use store::dynamodb::Views;

/// The table of [`Fake::views`].
pub(crate) const TABLE: &str = "views";

/// One call.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Call {
    pub(crate) operation: String,
    pub(crate) body: Value,
}

/// An answer: status and body.
pub(crate) type Answer = (StatusCode, Value);

/// The server. It ends with the test's runtime.
pub(crate) struct Fake {
    calls: Arc<Mutex<Vec<Call>>>,
    pub(crate) views: Views,
}

impl Fake {
    /// Answers each call with `answer`, given the call and how many calls of its operation came
    /// before.
    pub(crate) async fn start(answer: impl Fn(&Call, usize) -> Answer + Send + Sync + 'static) -> Self {
        let calls = Arc::new(Mutex::new(Vec::<Call>::new()));
        let answer = Arc::new(answer);
        let handler = {
            let calls = Arc::clone(&calls);
            move |headers: HeaderMap, body: Bytes| async move {
                let target = headers["x-amz-target"].to_str().unwrap();
                let operation = target.strip_prefix("DynamoDB_20120810.").unwrap().to_owned();
                let call = Call { operation, body: serde_json::from_slice(&body).unwrap() };
                let before = {
                    let mut calls = calls.lock().unwrap();
                    calls.push(call.clone());
                    calls.iter().filter(|other| other.operation == call.operation).count() - 1
                };
                let (status, body) = answer(&call, before);
                (status, [(header::CONTENT_TYPE, "application/x-amz-json-1.0")], body.to_string()).into_response()
            }
        };
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let endpoint = format!("http://{}", listener.local_addr().unwrap());
        let router = Router::new().fallback(handler);
        tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
        Self { calls, views: Self::views_of(&endpoint) }
    }

    /// The adapter, for whatever is behind `endpoint`.
    pub(crate) fn views_of(endpoint: &str) -> Views {
        Views::new(&sdk_config(endpoint, "us-east-1"), TABLE, "use1".parse().unwrap())
    }

    /// The calls of an operation, in order.
    pub(crate) fn calls(&self, operation: &str) -> Vec<Value> {
        let calls = self.calls.lock().unwrap();
        calls.iter().filter(|call| call.operation == operation).map(|call| call.body.clone()).collect()
    }
}

pub(crate) fn ok(body: Value) -> Answer {
    (StatusCode::OK, body)
}

/// An error by the code that clients see.
pub(crate) fn error(status: StatusCode, code: &str) -> Answer {
    (status, json!({ "__type": format!("com.amazonaws.dynamodb.v20120810#{code}"), "message": "the test says so" }))
}
