//! Queries saved in Logs Insights, in the folder `playhead/<stage>`. A test holds each field that
//! they name against what our log lines have.

use serde_json::{Value, json};

/// Where a query looks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Logs {
    /// The log groups of the functions.
    Functions,
    /// The access log of the API.
    Api,
}

/// A saved query.
#[derive(Debug)]
pub struct Query {
    /// The beginning of its logical id.
    pub id: &'static str,
    /// What people see.
    pub name: &'static str,
    /// Where it looks.
    pub logs: Logs,
    /// One command per line.
    pub text: &'static str,
}

impl Query {
    pub(crate) fn resource(&self) -> Value {
        let groups = match self.logs {
            Logs::Api => json!([{ "Ref": "ApiLogs" }]),
            Logs::Functions => {
                let always = ["IngestFunction", "ProcessFunction", "RetryFunction", "QueryFunction"];
                let group = |function: &str| json!({ "Fn::Sub": format!("/aws/lambda/${{{function}}}") });
                let sometimes = [
                    ("ForwardFunction", "HasOtherRegions"),
                    ("PublishFunction", "HasChangeFeed"),
                    ("CompareFunction", "Compares"),
                    ("ProcessCandidateFunction", "HasCandidate"),
                ];
                let sometimes = sometimes.map(|(function, condition)| {
                    json!({ "Fn::If": [condition, group(function), { "Ref": "AWS::NoValue" }] })
                });
                always.map(group).into_iter().chain(sometimes).collect()
            }
        };
        json!({
            "Type": "AWS::Logs::QueryDefinition",
            "Condition": "SavesQueries",
            "Properties": {
                "Name": { "Fn::Sub": format!("playhead/${{Stage}}/{}", self.name) },
                "LogGroupNames": groups,
                "QueryString": self.text,
            },
        })
    }
}

/// Every query.
pub fn all() -> [Query; 6] {
    [
        Query {
            id: "Errors",
            name: "errors by function",
            logs: Logs::Functions,
            text: "filter level = \"ERROR\"\n\
                   | stats count(*) as lines, latest(@timestamp) as last by @log, message, error\n\
                   | sort lines desc\n",
        },
        // An id of the API, of Lambda or of a trace: whichever the operator has. The ingest line has
        // the three of them.
        Query {
            id: "Trace",
            name: "follow a trace or request id",
            logs: Logs::Functions,
            text: "fields @timestamp, @log, level, message, trace_id, api_request_id, span.requestId, reason, cause, error\n\
                   | filter @message like /PASTE-THE-ID-HERE/\n\
                   | sort @timestamp asc\n\
                   | limit 1000\n",
        },
        Query {
            id: "Retries",
            name: "why records are retried or dead",
            logs: Logs::Functions,
            text: "filter message in [\"sent a record to retry\", \"dead-lettered a record\"]\n\
                   | stats count(*) as records, latest(trace_id) as a_trace by message, cause, reason\n\
                   | sort records desc\n",
        },
        Query {
            id: "Slowest",
            name: "slowest invocations",
            logs: Logs::Functions,
            text: "filter @type = \"REPORT\"\n\
                   | fields @timestamp, @log, @requestId, @duration, @initDuration, @maxMemoryUsed\n\
                   | sort @duration desc\n\
                   | limit 50\n",
        },
        Query {
            id: "Rejected",
            name: "rejected events by code",
            logs: Logs::Functions,
            text: "filter ispresent(EventsRejected)\n\
                   | stats sum(EventsRejected) as events by Code, bin(5m)\n\
                   | sort events desc\n",
        },
        Query {
            id: "ServerErrors",
            name: "5xx by route",
            logs: Logs::Api,
            text: "filter status >= 500\n\
                   | stats count(*) as requests, latest(requestId) as a_request by routeKey, status, error, integrationError\n\
                   | sort requests desc\n",
        },
    ]
}
