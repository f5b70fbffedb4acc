//! A reverse proxy between a function and the store. It counts requests and the capacity that they
//! consume, and can make conditional writes lose.
//!
//! It asks for `ReturnConsumedCapacity` in each request. DynamoDB Local reports it as DynamoDB does;
//! ministack does so for writes, but reports next to nothing for BatchGetItem. What DynamoDB charges
//! for an index or a global table is not in it: the tables here have neither.

mod count;

use self::count::Consumed;
pub(super) use self::count::Counts;
use anyhow::{Context as _, Result};
use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::{DefaultBodyLimit, State};
use axum::http::header::{CONTENT_LENGTH, CONTENT_TYPE, HOST};
use axum::http::{HeaderMap, Response, StatusCode};
use axum::serve::ListenerExt as _;
use serde_json::{Value, json};
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

const TARGET: &str = "x-amz-target";
/// DynamoDB's limit for a request is 16 MB.
const MAX_BODY_BYTES: usize = 32 * 1024 * 1024;

/// A running proxy. It ends when it is dropped.
#[derive(Debug)]
pub(super) struct Proxy {
    address: SocketAddr,
    shared: Arc<Shared>,
    server: JoinHandle<()>,
}

#[derive(Debug)]
struct Shared {
    client: reqwest::Client,
    store: String,
    counts: Mutex<Counts>,
    /// The share of items read that another writer changes before the function can write them.
    conflicts: Mutex<f64>,
}

impl Proxy {
    /// Listens on a free port, in front of the store with this URL.
    pub(super) async fn start(store: &str) -> Result<Self> {
        let client = reqwest::Client::builder().no_proxy().build().context("an HTTP client")?;
        let (store, counts, conflicts) = (store.to_owned(), Mutex::default(), Mutex::default());
        let shared = Arc::new(Shared { client, store, counts, conflicts });
        let router = Router::new()
            .fallback(forward)
            .layer(DefaultBodyLimit::max(MAX_BODY_BYTES))
            .with_state(Arc::clone(&shared));
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.context("listening for calls of the store")?;
        let address = listener.local_addr()?;
        let listener = listener.tap_io(|stream| drop(stream.set_nodelay(true)));
        let server = tokio::spawn(async move { drop(axum::serve(listener, router).await) });
        Ok(Self { address, shared, server })
    }

    /// Its URL.
    pub(super) fn endpoint(&self) -> String {
        format!("http://{}", self.address)
    }

    /// What was counted since the last call.
    pub(super) fn take(&self) -> Counts {
        std::mem::take(&mut *self.shared.counts())
    }

    /// Changes this share of the items that are read before their reader can write them.
    pub(super) fn set_conflicts(&self, share: f64) {
        *self.shared.conflicts.lock().unwrap_or_else(PoisonError::into_inner) = share;
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.server.abort();
    }
}

async fn forward(State(shared): State<Arc<Shared>>, headers: HeaderMap, body: Bytes) -> Response<Body> {
    match shared.forward(&headers, body).await {
        Ok(response) => response,
        Err(error) => {
            tracing::warn!("the store did not answer: {error:#}");
            let mut response = Response::new(Body::from("{}"));
            *response.status_mut() = StatusCode::BAD_GATEWAY;
            response
        }
    }
}

impl Shared {
    fn counts(&self) -> std::sync::MutexGuard<'_, Counts> {
        self.counts.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn forward(&self, headers: &HeaderMap, body: Bytes) -> Result<Response<Body>> {
        let target = headers.get(TARGET).and_then(|target| target.to_str().ok()).unwrap_or_default();
        let operation = target.rsplit('.').next().unwrap_or_default().to_owned();
        let statements = count::statements(&operation, &body);
        let mut forwarded = headers.clone();
        for name in [HOST, CONTENT_LENGTH] {
            forwarded.remove(name);
        }
        let sent = self.client.post(&self.store).headers(forwarded).body(count::ask_for_capacity(body));
        let answer = sent.send().await?;
        let (status, answered) = (answer.status(), answer.headers().clone());
        let body = answer.bytes().await?;
        let consumed = Consumed::of(&body);
        self.counts().add(&operation, statements, consumed, status.is_success());
        if operation == "BatchGetItem" && status.is_success() {
            self.interfere(headers, &body).await?;
        }
        let mut response = Response::builder().status(status);
        // Its checksum too, since the SDK checks it.
        for name in [CONTENT_TYPE.as_str(), "x-amz-crc32", "x-amzn-requestid"] {
            if let Some(value) = answered.get(name) {
                response = response.header(name, value);
            }
        }
        Ok(response.body(Body::from(body))?)
    }

    /// Writes a share of the views in this answer as another writer would, so that the condition of
    /// their reader's write fails.
    async fn interfere(&self, headers: &HeaderMap, answer: &[u8]) -> Result<()> {
        let share = *self.conflicts.lock().unwrap_or_else(PoisonError::into_inner);
        if share == 0.0 {
            return Ok(());
        }
        let answer: Value = serde_json::from_slice(answer)?;
        for (table, items) in answer["Responses"].as_object().into_iter().flatten() {
            let items = items.as_array().into_iter().flatten();
            let chosen = items.filter(|item| item.get("version").is_some() && is_chosen(item, share));
            let writes = chosen.map(|item| {
                let update = json!({
                    "TableName": table,
                    "Key": {"pk": item["pk"], "sk": item["sk"]},
                    "UpdateExpression": "SET #version = #version + :one",
                    "ExpressionAttributeNames": {"#version": "version"},
                    "ExpressionAttributeValues": {":one": {"N": "1"}},
                });
                let mut headers = headers.clone();
                headers.remove(CONTENT_LENGTH);
                headers.remove(HOST);
                headers.insert(TARGET, axum::http::HeaderValue::from_static("DynamoDB_20120810.UpdateItem"));
                self.client.post(&self.store).headers(headers).body(update.to_string()).send()
            });
            for written in futures::future::join_all(writes).await {
                written?.error_for_status()?;
            }
        }
        Ok(())
    }
}

/// Whether this version of an item is one of the share. A later version may be again.
fn is_chosen(item: &Value, share: f64) -> bool {
    let mut hasher = DefaultHasher::new();
    (item["pk"]["S"].as_str(), item["sk"]["S"].as_str(), item["version"]["N"].as_str()).hash(&mut hasher);
    (hasher.finish() as f64 / u64::MAX as f64) < share
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn share_of_items_is_chosen_by_version() {
        let item = |n: u32| json!({"pk": {"S": "p"}, "sk": {"S": "s"}, "version": {"N": n.to_string()}});
        let chosen = (0..10_000).filter(|n| is_chosen(&item(*n), 0.3)).count();
        assert!((2_700..3_300).contains(&chosen), "{chosen}");
        assert!((0..100).all(|n| !is_chosen(&item(n), 0.0)));
    }
}
