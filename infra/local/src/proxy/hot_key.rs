//! Throttles some items of a batch as DynamoDB does: the call succeeds for the others.

use super::Call;
use anyhow::Result;
use axum::body::to_bytes;
use axum::response::Response;
use serde_json::{Map, Value, json};

/// What was taken out of a call.
#[derive(Debug)]
pub(super) enum Hot {
    /// The keys of a BatchGetItem, by table.
    Keys(Map<String, Value>),
    /// For each statement of a BatchExecuteStatement, whether it was taken out.
    Statements(Vec<bool>),
}

/// Takes the keys or statements with this text out of a call. `None` if it is another call, or if
/// nothing or no other would be left.
pub(super) fn without(call: &Call, text: &str) -> Option<(Call, Hot)> {
    let mut body: Value = serde_json::from_slice(&call.body).ok()?;
    let hot = if call.name.ends_with(".BatchGetItem") {
        without_keys(&mut body, text)?
    } else if call.name.ends_with(".BatchExecuteStatement") {
        without_statements(&mut body, text)?
    } else {
        return None;
    };
    let (name, method, target, headers) =
        (call.name.clone(), call.method.clone(), call.target.clone(), call.headers.clone());
    Some((Call { name, method, target, headers, body: body.to_string().into() }, hot))
}

fn without_keys(body: &mut Value, text: &str) -> Option<Hot> {
    let tables = body.get_mut("RequestItems")?.as_object_mut()?;
    let mut hot = Map::new();
    for (table, asked) in tables.iter_mut() {
        let mut left = asked.clone();
        let keys = asked.get_mut("Keys")?.as_array_mut()?;
        let (with, without) = std::mem::take(keys).into_iter().partition(|key| key.to_string().contains(text));
        *keys = without;
        left["Keys"] = Value::Array(with);
        hot.insert(table.clone(), left);
    }
    let has_keys = |asked: &Value| asked["Keys"].as_array().is_some_and(|keys| !keys.is_empty());
    tables.retain(|_, asked| has_keys(asked));
    hot.retain(|_, asked| has_keys(asked));
    (!tables.is_empty() && !hot.is_empty()).then_some(Hot::Keys(hot))
}

fn without_statements(body: &mut Value, text: &str) -> Option<Hot> {
    let statements = body.get_mut("Statements")?.as_array_mut()?;
    let hot: Vec<bool> = statements.iter().map(|statement| statement.to_string().contains(text)).collect();
    statements.retain(|statement| !statement.to_string().contains(text));
    (!statements.is_empty() && hot.contains(&true)).then_some(Hot::Statements(hot))
}

impl Hot {
    /// Adds to the answer for the others that these were throttled.
    pub(super) async fn throttle(self, answer: Response) -> Result<Response> {
        let (mut head, body) = answer.into_parts();
        let bytes = to_bytes(body, usize::MAX).await?;
        if !head.status.is_success() {
            return Ok(Response::from_parts(head, bytes.into()));
        }
        let mut body: Value = serde_json::from_slice(&bytes)?;
        match self {
            Self::Keys(hot) => body["UnprocessedKeys"] = Value::Object(hot),
            Self::Statements(hot) => {
                let mut others = body["Responses"].as_array().cloned().unwrap_or_default().into_iter();
                let throttled = || json!({ "Error": { "Code": "ThrottlingError", "Message": "a hot key" } });
                let all = hot.into_iter().filter_map(|is_hot| if is_hot { Some(throttled()) } else { others.next() });
                body["Responses"] = all.collect();
            }
        }
        for stale in ["content-length", "x-amz-crc32"] {
            head.headers.remove(stale);
        }
        Ok(Response::from_parts(head, body.to_string().into()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::http::{HeaderMap, Method, StatusCode};
    use axum::response::IntoResponse as _;

    #[tokio::test]
    async fn hot_statements_fail_and_the_others_keep_their_places() {
        let body = json!({ "Statements": [
            { "Statement": "s", "Parameters": [{ "S": "HOT#1" }] },
            { "Statement": "s", "Parameters": [{ "S": "A#1" }] },
            { "Statement": "s", "Parameters": [{ "S": "HOT#2" }] },
        ] });
        let name = "DynamoDB_20120810.BatchExecuteStatement".to_owned();
        let call = |body: &Value| Call {
            name: name.clone(),
            method: Method::POST,
            target: "/".to_owned(),
            headers: HeaderMap::new(),
            body: body.to_string().into(),
        };
        let (others, hot) = without(&call(&body), "HOT#").unwrap();
        assert_eq!(
            serde_json::from_slice::<Value>(&others.body).unwrap()["Statements"],
            json!([body["Statements"][1]])
        );
        let answer = (StatusCode::OK, json!({ "Responses": [{ "TableName": "views" }] }).to_string()).into_response();
        let bytes = to_bytes(hot.throttle(answer).await.unwrap().into_body(), usize::MAX).await.unwrap();
        let answers = serde_json::from_slice::<Value>(&bytes).unwrap()["Responses"].clone();
        assert_eq!(answers[1], json!({ "TableName": "views" }));
        assert!([0, 2].iter().all(|at| answers[*at]["Error"]["Code"] == "ThrottlingError"), "{answers}");
        assert!(without(&call(&body), "COLD#").is_none(), "nothing is hot");
        assert!(
            without(&call(&json!({ "Statements": [body["Statements"][0]] })), "HOT#").is_none(),
            "no other is left"
        );
    }
}
