//! For tests: a small Parameter Store on loopback, for one region and one parameter.

use crate::endpoints::sdk_config;
use crate::stack::Deployment;
use axum::Json;
use axum::body::Bytes;
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse as _, Response};
use playback::routing::Regions;
use serde_json::{Value, json};
use std::sync::{Arc, Mutex, MutexGuard};
use tokio::net::TcpListener;

/// Name of the parameter.
const NAME: &str = "/playhead-test/routing";

#[derive(Debug, Default)]
struct State {
    versions: Vec<String>,
    down: bool,
    read_only: bool,
}

pub(crate) struct Ssm {
    state: Arc<Mutex<State>>,
    endpoint: String,
}

impl Ssm {
    /// Starts a Parameter Store whose parameter has had these versions.
    pub(crate) async fn start(versions: &[&str]) -> Self {
        let versions = versions.iter().map(|&version| version.to_owned()).collect();
        let state = Arc::new(Mutex::new(State { versions, ..State::default() }));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let endpoint = format!("http://{}", listener.local_addr().unwrap());
        let shared = Arc::clone(&state);
        let app = axum::Router::new().fallback(async move |headers: HeaderMap, body: Bytes| {
            let action = headers["x-amz-target"].to_str().unwrap().trim_start_matches("AmazonSSM.").to_owned();
            shared.lock().unwrap().answer(&action, &serde_json::from_slice(&body).unwrap())
        });
        tokio::spawn(async move { axum::serve(listener, app).await.unwrap() });
        Self { state, endpoint }
    }

    /// A Parameter Store whose address refuses connections.
    pub(crate) async fn nowhere() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        Self { state: Arc::default(), endpoint: format!("http://{}", listener.local_addr().unwrap()) }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    /// All versions, oldest first.
    pub(crate) fn versions(&self) -> Vec<String> {
        self.state().versions.clone()
    }

    pub(crate) fn put(&self, text: &str) {
        self.state().versions.push(text.to_owned());
    }

    pub(crate) fn set_down(&self, down: bool) {
        self.state().down = down;
    }

    pub(crate) fn set_read_only(&self, read_only: bool) {
        self.state().read_only = read_only;
    }
}

/// A deployment with a standby log in these regions.
pub(crate) fn deployment(regions: &[(&str, &Ssm)]) -> Deployment {
    let names: Vec<&str> = regions.iter().map(|(name, _)| *name).collect();
    let sdk = |(name, ssm): &(&str, &Ssm)| ((*name).to_owned(), sdk_config(&ssm.endpoint, name));
    Deployment {
        name: "playhead-test".into(),
        regions: Regions::parse(names[0], &names.join(",")).unwrap(),
        sdks: regions.iter().map(sdk).collect(),
        routing_parameter: NAME.into(),
        has_standby: true,
        is_local: true,
    }
}

impl State {
    fn answer(&mut self, action: &str, call: &Value) -> Response {
        // An error that the SDK does not retry, so that tests do not wait.
        if self.down || (self.read_only && action == "PutParameter") {
            return error("AccessDeniedException");
        }
        let name = call["Name"].as_str().unwrap();
        let (name, version) = name
            .split_once(':')
            .map_or((name, self.versions.len()), |(name, version)| (name, version.parse().unwrap()));
        assert_eq!(name, NAME);
        match action {
            "GetParameter" => match self.versions.get(version.wrapping_sub(1)) {
                Some(_) => Json(json!({"Parameter": self.version(version)})).into_response(),
                None => error("ParameterVersionNotFound"),
            },
            // Two per page, oldest first.
            "GetParameterHistory" => {
                let from: usize = call["NextToken"].as_str().map_or(1, |token| token.parse().unwrap());
                let to = self.versions.len().min(from + 1);
                let page: Vec<Value> = (from..=to).map(|version| self.version(version)).collect();
                let next = (to < self.versions.len()).then(|| (to + 1).to_string());
                Json(json!({"Parameters": page, "NextToken": next})).into_response()
            }
            "PutParameter" => {
                assert_eq!((&call["Overwrite"], &call["Tier"]), (&json!(true), &json!("Intelligent-Tiering")));
                self.versions.push(call["Value"].as_str().unwrap().to_owned());
                Json(json!({"Version": self.versions.len(), "Tier": "Standard"})).into_response()
            }
            other => panic!("unexpected action {other}"),
        }
    }

    fn version(&self, version: usize) -> Value {
        json!({
            "Name": NAME, "Type": "String", "Value": self.versions[version - 1], "Version": version,
            "LastModifiedDate": 1_790_000_000 + version, "LastModifiedUser": format!("arn:aws:iam::1:user/u{version}"),
        })
    }
}

fn error(code: &str) -> Response {
    (StatusCode::BAD_REQUEST, Json(json!({"__type": code, "message": "because of a test"}))).into_response()
}
