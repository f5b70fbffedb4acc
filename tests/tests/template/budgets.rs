//! What a request may wait for, one thing after the other, fits into the time that the template gives
//! its function. So a device gets our answer, and never the gateway's when Lambda ends the function.

use super::{logical_id, number, properties, template};
use lambda::{auth, routing};
use std::time::Duration;

/// What is left for everything that is not waiting.
const MARGIN: Duration = Duration::from_secs(2);

/// Checks that a function's waits fit.
fn check(function: &str, waits: &[(&str, Duration)]) {
    let limit = Duration::from_secs(number(&properties(&template(), &logical_id(function))["Timeout"]));
    let sum: Duration = waits.iter().map(|(_, wait)| *wait).sum();
    assert!(sum + MARGIN <= limit, "{function} may wait {sum:?} of {limit:?}: {waits:?}");
}

/// What a function of batches keeps for the rest leaves the store enough time, even while a bucket
/// hangs.
#[test]
fn batches_leave_time_for_the_store() {
    let store = ("the store", Duration::from_secs(20));
    check("process", &[store, ("letters and the answer", process::RESERVE)]);
    let read = ("objects, in two rounds", retry::READ_FOR * 2);
    let store = ("the store", Duration::from_secs(10));
    check("retry", &[read, store, ("letters, erasures and the answer", retry::RESERVED)]);
    check("publish", &[store, ("the last request, the queue and the answer", publish::RESERVE)]);
    let routing = ("the routing document", routing::READ_TIME_OUT);
    let sends = [("the region's queue", queue::SEND_FOR), ("dead letters", queue::SEND_FOR)];
    check("forward", &[routing, ("looking up the region's queue", forward::FIND_FOR), sends[0], sends[1]]);
}

#[test]
fn waits_of_a_request_fit_into_its_functions_timeout() {
    let legacy = number(&template()["Parameters"]["LegacyTimeoutMs"]["MaxValue"]);
    let append = stream::Policy::default();
    // A request with profiles on both sides waits for the legacy system, and then for the logs, to
    // which it appends at once. Each log's own time limits are within the policy's.
    check(
        "ingest",
        &[
            ("the routing document", routing::READ_TIME_OUT),
            ("the issuer's keys", auth::FETCH_TIME_OUT),
            ("the legacy system", Duration::from_millis(legacy)),
            ("the append", append.total + append.grace),
        ],
    );
    let store = [("the issuer's keys", auth::FETCH_TIME_OUT), ("the store", query::CALL_FOR)];
    check("query", &store);
    let erasure = query::MARK_FOR + query::HAND_OVER_FOR + query::DELETE_FOR;
    assert!(erasure < query::CALL_FOR, "a marked erasure is answered before its call is overdue");
}
