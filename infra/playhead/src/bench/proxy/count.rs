//! What calls of the store are counted as, from the bytes of requests and answers.

use axum::body::Bytes;
use serde::Deserialize;
use std::collections::BTreeMap;

/// What was counted.
#[derive(Debug, Clone, Default, PartialEq)]
pub(in crate::bench) struct Counts {
    /// Requests, by operation.
    pub(in crate::bench) requests: BTreeMap<String, u64>,
    /// Items written or tried to, one per statement.
    pub(in crate::bench) write_statements: u64,
    /// Consumed capacity as reported.
    pub(in crate::bench) write_units: f64,
    /// Consumed capacity as reported.
    pub(in crate::bench) read_units: f64,
    /// Successful requests with writes for which no capacity was reported.
    pub(in crate::bench) unreported: u64,
}

impl Counts {
    /// All requests.
    pub(in crate::bench) fn requests(&self) -> u64 {
        self.requests.values().sum()
    }

    /// A write whose condition failed consumes what it would have, but the answer does not say so.
    pub(super) fn add(&mut self, operation: &str, statements: u64, consumed: Option<f64>, succeeded: bool) {
        *self.requests.entry(operation.to_owned()).or_default() += 1;
        self.write_statements += statements;
        match consumed {
            Some(units) if statements > 0 => self.write_units += units,
            Some(units) => self.read_units += units,
            // One unit for each, which is right up to 1 KB.
            None if statements > 0 => {
                self.unreported += u64::from(succeeded);
                self.write_units += statements as f64;
            }
            None => {}
        }
    }
}

/// How many items a request writes; 0 if it only reads.
pub(super) fn statements(operation: &str, body: &[u8]) -> u64 {
    match operation {
        "UpdateItem" | "PutItem" | "DeleteItem" => 1,
        "BatchWriteItem" => occurrences(body, b"\"PutRequest\"") + occurrences(body, b"\"DeleteRequest\""),
        "BatchExecuteStatement" | "ExecuteStatement" => {
            let selects = occurrences(body, b"\"Statement\":\"SELECT") + occurrences(body, b"\"Statement\":\"select");
            occurrences(body, b"\"Statement\":") - selects
        }
        _ => 0,
    }
}

fn occurrences(text: &[u8], wanted: &[u8]) -> u64 {
    text.windows(wanted.len()).filter(|window| *window == wanted).count() as u64
}

/// Adds `ReturnConsumedCapacity` to a request, unless it is there.
pub(super) fn ask_for_capacity(body: Bytes) -> Bytes {
    let asks = occurrences(&body, b"\"ReturnConsumedCapacity\"") > 0;
    match body.strip_prefix(b"{") {
        Some(rest) if !asks && rest != b"}" => {
            [br#"{"ReturnConsumedCapacity":"TOTAL","#.as_slice(), rest].concat().into()
        }
        _ => body,
    }
}

/// The capacity that an answer reports.
#[derive(Deserialize)]
pub(super) struct Consumed {
    #[serde(rename = "ConsumedCapacity")]
    consumed: Option<OneOrMany>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum OneOrMany {
    // First, since an empty list would also do for the other.
    Many(Vec<Units>),
    One(Units),
}

#[derive(Deserialize)]
struct Units {
    #[serde(rename = "CapacityUnits", default)]
    units: f64,
}

impl Consumed {
    /// The sum of the reported units; `None` if none are reported.
    pub(super) fn of(answer: &[u8]) -> Option<f64> {
        match serde_json::from_slice::<Self>(answer).ok()?.consumed? {
            OneOrMany::One(one) => Some(one.units),
            OneOrMany::Many(many) if many.is_empty() => None,
            OneOrMany::Many(many) => Some(many.iter().map(|one| one.units).sum()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn capacity_is_asked_for_once() {
        let ask = |body: &'static str| String::from_utf8(ask_for_capacity(body.into()).to_vec()).unwrap();
        assert_eq!(ask(r#"{"TableName":"t"}"#), r#"{"ReturnConsumedCapacity":"TOTAL","TableName":"t"}"#);
        let asks = r#"{"ReturnConsumedCapacity":"INDEXES"}"#;
        assert_eq!((ask(asks).as_str(), ask("{}").as_str()), (asks, "{}"));
    }

    #[test]
    fn reported_units_are_summed() {
        assert_eq!(Consumed::of(br#"{"ConsumedCapacity":{"CapacityUnits":1.5,"TableName":"t"}}"#), Some(1.5));
        let many = br#"{"Responses":[{}],"ConsumedCapacity":[{"CapacityUnits":2},{"CapacityUnits":1}]}"#;
        assert_eq!(Consumed::of(many), Some(3.0));
        assert_eq!((Consumed::of(b"{}"), Consumed::of(br#"{"ConsumedCapacity":[]}"#)), (None, None));
    }

    #[test]
    fn each_statement_that_writes_counts() {
        let batch = br#"{"Statements":[{"Statement":"UPDATE t SET a=1"},{"Statement":"SELECT * FROM t"},{"Statement":"INSERT"}]}"#;
        assert_eq!(statements("BatchExecuteStatement", batch), 2);
        assert_eq!((statements("UpdateItem", b"{}"), statements("BatchGetItem", b"{}")), (1, 0));
        let mut counts = Counts::default();
        counts.add("BatchExecuteStatement", 2, None, true);
        counts.add("UpdateItem", 1, Some(2.0), true);
        counts.add("UpdateItem", 1, None, false);
        counts.add("BatchGetItem", 0, Some(0.5), true);
        assert_eq!((counts.write_units, counts.read_units, counts.unreported, counts.requests()), (5.0, 0.5, 1, 4));
        assert_eq!(counts.write_statements, 4);
    }
}
