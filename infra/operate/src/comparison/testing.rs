//! For tests: a region with a bucket of reports and a function `compare`, on loopback.

use super::sites::{Site, Sites};
use crate::endpoints::sdk_config;
use ::compare::{Report, key};
use axum::Json;
use axum::extract::Query;
use axum::http::{StatusCode, Uri};
use axum::response::{IntoResponse as _, Response};
use serde_json::json;
use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex};
use tokio::net::TcpListener;

const BUCKET: &str = "reports";
const FUNCTION: &str = "playhead-test-compare";

#[derive(Debug, Default)]
struct State {
    objects: BTreeMap<String, String>,
    /// What the function returns. `None` makes it fail.
    answer: Option<Report>,
}

pub(crate) struct Region {
    state: Arc<Mutex<State>>,
    endpoint: String,
}

/// A report with these numbers of sessions.
pub(crate) fn report(compared: u64, matched: u64) -> Report {
    Report { compared, matched, differing: compared - matched, ..Report::default() }
}

impl Region {
    pub(crate) async fn start() -> Self {
        let state: Arc<Mutex<State>> = Arc::default();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let endpoint = format!("http://{}", listener.local_addr().unwrap());
        let shared = Arc::clone(&state);
        let app = axum::Router::new()
            .fallback(async move |uri: Uri, Query(query)| shared.lock().unwrap().answer(uri.path(), &query));
        tokio::spawn(async move { axum::serve(listener, app).await.unwrap() });
        Self { state, endpoint }
    }

    /// Stores the report of a run at that time, Unix milliseconds.
    pub(crate) fn keep(&self, at: u64, report: &Report) {
        self.put(&key(at, 1), &serde_json::to_string(report).unwrap());
    }

    pub(crate) fn put(&self, key: &str, text: &str) {
        self.state.lock().unwrap().objects.insert(key.to_owned(), text.to_owned());
    }

    /// From now on the function returns this.
    pub(crate) fn will_find(&self, report: Report) {
        self.state.lock().unwrap().answer = Some(report);
    }

    /// The site of this region. It has a legacy system even without `compare`.
    pub(crate) fn site(&self, with_compare: bool) -> Site {
        Site {
            sdk: sdk_config(&self.endpoint, "us-east-1"),
            legacy_endpoint: Some("https://legacy.example".to_owned()),
            reports_bucket: with_compare.then(|| BUCKET.to_owned()),
            compare_function: with_compare.then(|| FUNCTION.to_owned()),
            tables: Vec::new(),
        }
    }
}

/// Regions that were reached, or not.
pub(crate) fn sites(of: Vec<(&str, Result<Site, String>)>) -> Sites {
    Sites(of.into_iter().map(|(region, site)| (region.to_owned(), site)).collect())
}

impl State {
    fn answer(&self, path: &str, query: &HashMap<String, String>) -> Response {
        if path.ends_with("/invocations") {
            assert!(path.contains(FUNCTION), "{path}");
            return match &self.answer {
                Some(report) => Json(report).into_response(),
                None => {
                    let error = json!({"errorType": "Error", "errorMessage": "the legacy system is down"});
                    ([("x-amz-function-error", "Unhandled")], Json(error)).into_response()
                }
            };
        }
        match path.trim_start_matches('/').split_once('/') {
            Some((BUCKET, key)) if !key.is_empty() => match self.objects.get(key) {
                Some(text) => text.clone().into_response(),
                None => (StatusCode::NOT_FOUND, "").into_response(),
            },
            _ => self.list(query).into_response(),
        }
    }

    /// Lists two keys per page.
    fn list(&self, query: &HashMap<String, String>) -> String {
        let after = query.get("continuation-token").or(query.get("start-after")).unwrap();
        let prefix = &query["prefix"];
        let found = self.objects.keys().filter(|key| *key > after && key.starts_with(prefix));
        let found: Vec<&String> = found.take(3).collect();
        let page = &found[..found.len().min(2)];
        let keys: String = page.iter().map(|key| format!("<Contents><Key>{key}</Key></Contents>")).collect();
        let next = match found.len() {
            3 => format!("<IsTruncated>true</IsTruncated><NextContinuationToken>{}</NextContinuationToken>", page[1]),
            _ => "<IsTruncated>false</IsTruncated>".to_owned(),
        };
        format!(r#"<?xml version="1.0"?><ListBucketResult>{keys}{next}</ListBucketResult>"#)
    }
}
