//! A fake DynamoDB over HTTP, for `query`, whose store is DynamoDB itself. It answers reads from
//! the case's rows, and records writes without doing them. Other tests cover how the store behaves
//! on a real table; the cases assert which calls a request makes.

use crate::case::{Given, Marked, Part, Place};
use crate::player::envelopes;
use aws_config::SdkConfig;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::routing::post;
use axum::{Json, Router};
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use operate::sdk_config;
use playback::fold::{ViewKey, fold};
use playback::session::SessionId;
use playback::view::View;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use store::Erase;

/// The table's name in every request.
pub(crate) const TABLE: &str = "playhead-golden-views";

/// The views of what a case says was played before.
pub(crate) fn views(given: &Given) -> BTreeMap<ViewKey, View> {
    let mut views = BTreeMap::<ViewKey, View>::new();
    for delta in fold(given.played.iter().flat_map(envelopes).enumerate()) {
        views.insert(delta.key, delta.view);
    }
    views
}

/// A served table.
pub(crate) struct Table {
    rows: Vec<Value>,
    away: bool,
    queue_is_away: bool,
    calls: Mutex<BTreeMap<String, u64>>,
    writes: Mutex<Vec<Value>>,
}

impl Table {
    /// Serves the rows of `given` until the runtime ends. The configuration points the SDK here.
    pub(crate) async fn serve(given: &Given) -> (Arc<Self>, SdkConfig) {
        let rows = rows(given);
        let [away, queue_is_away] = [Part::Store, Part::RetryQueue].map(|part| given.away.contains(&part));
        let table = Arc::new(Self { rows, away, queue_is_away, calls: Mutex::default(), writes: Mutex::default() });
        let router = Router::new().route("/", post(answer)).with_state(Arc::clone(&table));
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let endpoint = format!("http://{}", listener.local_addr().unwrap());
        tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
        (table, sdk_config(&endpoint, "us-east-1"))
    }

    /// What was asked of the table: how often each operation was called, and what each write says.
    pub(crate) fn asked(&self) -> Value {
        json!({"calls": *self.calls.lock().unwrap(), "writes": *self.writes.lock().unwrap()})
    }

    fn perform(&self, operation: &str, request: &Value) -> Value {
        let matches_key = |row: &&Value, key: &Value| row["pk"] == key["pk"] && row["sk"] == key["sk"];
        match operation {
            "GetItem" => match self.rows.iter().find(|row| matches_key(row, &request["Key"])) {
                Some(row) => json!({"Item": row}),
                None => json!({}),
            },
            "BatchGetItem" => {
                let keys = request["RequestItems"][TABLE]["Keys"].as_array().unwrap();
                let found: Vec<_> =
                    self.rows.iter().filter(|row| keys.iter().any(|key| matches_key(row, key))).collect();
                json!({"Responses": {TABLE: found}, "UnprocessedKeys": {}})
            }
            "Query" => self.query(request),
            "UpdateItem" | "DeleteItem" => json!({}),
            "BatchWriteItem" => json!({"UnprocessedItems": {}}),
            // Of SQS.
            "SendMessage" => json!({"MessageId": "m"}),
            other => panic!("query does not need {other}"),
        }
    }

    fn query(&self, request: &Value) -> Value {
        let values = &request["ExpressionAttributeValues"];
        let of_profile = self.rows.iter().filter(|row| row["pk"] == values[":profile"]);
        if request["IndexName"] == "by_title" {
            let keys = of_profile.filter(|row| row["title_id"] == values[":title"]);
            let keys: Vec<_> =
                keys.map(|row| json!({"pk": row["pk"], "sk": row["sk"], "title_id": row["title_id"]})).collect();
            return json!({"Items": keys});
        }
        if request["KeyConditionExpression"] == "pk = :profile AND sk BETWEEN :first AND :last" {
            let bound = |name: &str| values[name]["S"].as_str().unwrap();
            let range = bound(":first")..=bound(":last");
            let found = of_profile.filter(|row| range.contains(&row["sk"]["S"].as_str().unwrap()));
            return json!({"Items": found.collect::<Vec<_>>()});
        }
        assert_eq!(request["KeyConditionExpression"], "pk = :profile AND sk < :before");
        assert_eq!(request["ScanIndexForward"], false);
        let sk = |row: &Value| row["sk"]["S"].as_str().unwrap().to_owned();
        let before = values[":before"]["S"].as_str().unwrap();
        let mut found: Vec<_> = of_profile.filter(|row| sk(row).as_str() < before).collect();
        found.sort_by_key(|row| std::cmp::Reverse(sk(row)));
        let limit = usize::try_from(request["Limit"].as_u64().unwrap()).unwrap();
        let more = found.len() > limit;
        found.truncate(limit);
        match found.last().filter(|_| more) {
            Some(last) => json!({"Items": found, "LastEvaluatedKey": {"pk": last["pk"], "sk": last["sk"]}}),
            None => json!({"Items": found}),
        }
    }
}

async fn answer(State(table): State<Arc<Table>>, headers: HeaderMap, body: String) -> (StatusCode, Json<Value>) {
    let target = headers["x-amz-target"].to_str().unwrap();
    let (_, operation) = target.split_once('.').unwrap();
    if table.away || (table.queue_is_away && operation == "SendMessage") {
        // Not what an unreachable DynamoDB says, but an error that the SDK does not retry.
        let error =
            json!({"__type": "com.amazonaws.dynamodb.v20120810#ResourceNotFoundException", "message": "unreachable"});
        return (StatusCode::BAD_REQUEST, Json(error));
    }
    let request: Value = serde_json::from_str(&body).unwrap();
    let answer = table.perform(operation, &request);
    *table.calls.lock().unwrap().entry(operation.to_owned()).or_default() += 1;
    if let Some(write) = readable_write(operation, &request) {
        table.writes.lock().unwrap().push(write);
    }
    (StatusCode::OK, Json(answer))
}

/// What a write says, with its placeholders filled in. So only a change of meaning is a difference.
fn readable_write(operation: &str, request: &Value) -> Option<Value> {
    match operation {
        "UpdateItem" => {
            let update = fill(request, "UpdateExpression");
            let set: BTreeMap<_, _> =
                update.strip_prefix("SET ").unwrap().split(", ").map(|one| one.split_once(" = ").unwrap()).collect();
            let condition = fill(request, "ConditionExpression");
            Some(json!({"update": request["Key"], "set": set, "if": condition}))
        }
        "DeleteItem" => Some(json!({"delete": [request["Key"]], "if": fill(request, "ConditionExpression")})),
        "BatchWriteItem" => {
            let deleted = request["RequestItems"][TABLE].as_array().unwrap().iter();
            let mut keys: Vec<_> = deleted.map(|one| &one["DeleteRequest"]["Key"]).collect();
            // They are deleted at once, in no order.
            keys.sort_by_key(|key| std::cmp::Reverse(key["sk"]["S"].as_str()));
            Some(json!({"delete": keys}))
        }
        "SendMessage" => {
            let body: Value = serde_json::from_str(request["MessageBody"].as_str().unwrap()).unwrap();
            Some(json!({"send": body, "after_s": request["DelaySeconds"]}))
        }
        _ => None,
    }
}

/// An expression of a request with its `#name` and `:value` placeholders replaced.
fn fill(request: &Value, expression: &str) -> String {
    let mut placeholders = BTreeMap::<&str, String>::new();
    for (name, attribute) in request["ExpressionAttributeNames"].as_object().into_iter().flatten() {
        placeholders.insert(name, attribute.as_str().unwrap().to_owned());
    }
    for (name, typed) in request["ExpressionAttributeValues"].as_object().into_iter().flatten() {
        let (_, value) = typed.as_object().unwrap().iter().next().unwrap();
        placeholders.insert(name, value.as_str().map_or_else(|| value.to_string(), str::to_owned));
    }
    let mut text = request[expression].as_str().unwrap().to_owned();
    // In descending order, so the longer of two names with the same beginning is replaced first.
    for (name, value) in placeholders.iter().rev() {
        text = text.replace(name, value);
    }
    text
}

/// The items of DESIGN's table `views`.
fn rows(given: &Given) -> Vec<Value> {
    let views = views(given).into_iter().map(|(ViewKey { profile_id, session_id, title_id }, view)| {
        json!({
            "pk": {"S": profile_id},
            "sk": {"S": format!("{}#{}#~{title_id}", session_id.ulid, session_id.home)},
            "version": {"N": "1"},
            "title_id": {"S": title_id},
            "view": {"B": BASE64_STANDARD.encode(view.pack())},
        })
    });
    let hidden = given.hidden.iter().map(|Place { profile_id, session_id, .. }| {
        let session_id: SessionId = session_id.parse().unwrap();
        json!({
            "pk": {"S": profile_id},
            "sk": {"S": format!("{}#~hidden", session_id.ulid)},
            "hidden": {"BOOL": true},
            "changed_at": {"N": given.now.to_string()},
        })
    });
    let erased = given.erased_at.iter().map(|(profile_id, erased_at)| {
        json!({"pk": {"S": profile_id}, "sk": {"S": "~erased"}, "erased_at": {"N": erased_at.to_string()}})
    });
    let forgotten = given.forgotten.iter().map(|Erase { profile_id, at, title_id, session_id }| {
        let sk = match (session_id, title_id) {
            (Some(session_id), _) => format!("{}#~forgotten", session_id.ulid),
            (None, title_id) => format!("~forgotten#{}", title_id.as_ref().unwrap()),
        };
        json!({"pk": {"S": profile_id}, "sk": {"S": sk}, "forgotten_at": {"N": at.to_string()}})
    });
    let marked = given.marked.iter().map(|Marked { profile_id, title_id, watched, at }| {
        json!({
            "pk": {"S": profile_id},
            "sk": {"S": format!("~watched#{title_id}")},
            "watched": {"BOOL": watched},
            "changed_at": {"N": at.to_string()},
        })
    });
    views.chain(hidden).chain(erased).chain(forgotten).chain(marked).collect()
}
