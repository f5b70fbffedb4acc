//! Property tests of batches, tests of answers entry by entry, and the queue against a small fake
//! SQS on loopback.

use super::*;

use std::sync::{Arc, Mutex};

use aws_sdk_sqs::config::{BehaviorVersion, Credentials, Region};
use aws_sdk_sqs::types::{BatchResultErrorEntry, SendMessageBatchResultEntry};
use axum::http::{StatusCode, header};
use axum::response::IntoResponse;
use proptest::prelude::*;
use serde_json::{Value, json};

const QUEUE: &str = "http://127.0.0.1/1/dead-letter";

fn sizes() -> impl Strategy<Value = Vec<usize>> {
    let size = prop_oneof![
        4 => 1..2_000usize,
        2 => 100_000..600_000usize,
        1 => (MAX_BYTES - 1)..=(MAX_BYTES + 1),
        1 => Just(0),
    ];
    prop::collection::vec(size, 0..40)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn batches_are_full_ordered_and_within_limits(sizes in sizes()) {
        let bodies: Vec<String> = sizes.iter().map(|&size| "x".repeat(size)).collect();
        let plan = plan(QUEUE, &bodies);
        let bytes = |batch: &[usize]| batch.iter().map(|&index| sizes[index]).sum::<usize>();

        let sendable = |index: &usize| (1..=MAX_BYTES).contains(&sizes[*index]);
        let (expected, refused): (Vec<usize>, Vec<usize>) =
            (0..bodies.len()).partition(sendable);
        prop_assert_eq!(plan.batches.concat(), expected);
        let found: Vec<usize> = plan.refused.iter().map(|(index, _)| *index).collect();
        prop_assert_eq!(found, refused);
        prop_assert!(plan.refused.iter().all(|(_, result)| result.is_err()));

        for batch in &plan.batches {
            prop_assert!((1..=MAX_BATCH_MESSAGES).contains(&batch.len()));
            prop_assert!(bytes(batch) <= MAX_BYTES);
        }
        for pair in plan.batches.windows(2) {
            let full = pair[0].len() == MAX_BATCH_MESSAGES;
            prop_assert!(full || bytes(&pair[0]) + sizes[pair[1][0]] > MAX_BYTES);
        }
    }
}

#[test]
fn characters_that_sqs_refuses_are_not_sent() {
    for (body, sendable) in [
        ("{\"reason\":\"\\u0000\"}\t\r\n", true),
        ("größer 🎬 \u{FFFD}", true),
        ("\u{0}", false),
        ("a\u{1b}b", false),
        ("\u{FFFE}", false),
        ("\u{FFFF}", false),
    ] {
        let plan = plan(QUEUE, &[body.to_owned()]);
        assert_eq!(plan.refused.is_empty(), sendable, "{body:?}");
    }
}

fn sent(id: usize) -> SendMessageBatchResultEntry {
    SendMessageBatchResultEntry::builder().id(id.to_string()).message_id("m").md5_of_message_body("").build().unwrap()
}

fn refused(id: usize) -> BatchResultErrorEntry {
    BatchResultErrorEntry::builder().id(id.to_string()).code("InternalError").sender_fault(false).build().unwrap()
}

#[test]
fn only_an_entry_named_as_sent_alone_counts_as_sent() {
    let bodies = vec!["a".to_owned(); 4];
    let answer = SendMessageBatchOutput::builder()
        .successful(sent(0))
        .successful(sent(1))
        .successful(sent(99))
        .failed(refused(1))
        .failed(refused(2))
        .build()
        .unwrap();
    let settled = settle(QUEUE, &[0, 1, 2, 3], &bodies, &answer);
    let words: Vec<&str> = settled
        .iter()
        .map(|(_, result)| match result {
            Ok(()) => "sent",
            Err(SendError::Refused { .. }) => "refused",
            Err(SendError::Unanswered { .. }) => "unanswered",
            Err(_) => "other",
        })
        .collect();
    assert_eq!(words, ["sent", "refused", "refused", "unanswered"]);
}

/// A fake SQS. It accepts messages whose body begins with `take`, refuses `refuse`, omits `forget`
/// from its answer, and fails every call with a `crash`. It records the batches it received.
async fn small_sqs() -> (Queue, Arc<Mutex<Vec<Vec<String>>>>) {
    let taken = Arc::new(Mutex::new(Vec::new()));
    let seen = Arc::clone(&taken);
    let answer = move |body: String| {
        let entries: Vec<(String, String)> = serde_json::from_str::<Value>(&body).unwrap()["Entries"]
            .as_array()
            .unwrap()
            .iter()
            .map(|entry| {
                let text = |key: &str| entry[key].as_str().unwrap().to_owned();
                (text("Id"), text("MessageBody"))
            })
            .collect();
        let status = if entries.iter().any(|(_, body)| body.starts_with("crash")) {
            StatusCode::BAD_REQUEST
        } else {
            StatusCode::OK
        };
        let of = |kind: &str, form: fn(&str) -> Value| -> Vec<Value> {
            entries.iter().filter(|(_, body)| body.starts_with(kind)).map(|(id, _)| form(id)).collect()
        };
        let answer = json!({
            "__type": "com.amazonaws.sqs#QueueDoesNotExist",
            "Successful": of("take", |id| json!({"Id": id, "MessageId": "m", "MD5OfMessageBody": ""})),
            "Failed": of("refuse", |id| json!({"Id": id, "Code": "Broken", "SenderFault": true})),
        });
        let bodies = entries.into_iter().map(|(_, body)| body).collect();
        seen.lock().unwrap().push(bodies);
        let form = [(header::CONTENT_TYPE, "application/x-amz-json-1.0")];
        async move { (status, form, answer.to_string()).into_response() }
    };
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let router = axum::Router::new().fallback(answer).layer(axum::extract::DefaultBodyLimit::disable());
    tokio::spawn(async move { axum::serve(listener, router).await });

    let config = aws_sdk_sqs::Config::builder()
        .behavior_version(BehaviorVersion::latest())
        .region(Region::new("us-east-1"))
        .credentials_provider(Credentials::new("AKID", "secret", None, None, "test"))
        .endpoint_url(format!("http://{address}"))
        .retry_config(RetryConfig::disabled())
        .build();
    let queue = Queue::new(Client::from_conf(config), format!("http://{address}/1/q"));
    (queue, taken)
}

#[tokio::test]
async fn results_keep_the_order_of_the_bodies_across_batches() {
    let (queue, taken) = small_sqs().await;
    let mut bodies: Vec<String> = (0..25).map(|n| format!("take {n}")).collect();
    bodies[3] = "refuse".to_owned();
    bodies[12] = "forget".to_owned();
    bodies[21] = "crash".to_owned();
    bodies[24] = "x".repeat(MAX_BYTES + 1);
    let results = queue.send_all(bodies).await;
    for (index, result) in results.iter().enumerate() {
        let as_expected = match index {
            3 => matches!(result, Err(SendError::Refused { sender_fault: true, code, .. }) if code == "Broken"),
            12 => matches!(result, Err(SendError::Unanswered { .. })),
            20..=23 => matches!(result, Err(SendError::Call { code, .. }) if code.contains("QueueDoesNotExist")),
            24 => matches!(result, Err(SendError::TooLarge { .. })),
            _ => result.is_ok(),
        };
        assert!(as_expected, "{index}: {result:?}");
    }
    assert_eq!(results.len(), 25);
    let mut lengths: Vec<usize> = taken.lock().unwrap().iter().map(Vec::len).collect();
    lengths.sort_unstable();
    assert_eq!(lengths, [4, 10, 10]);
}

#[tokio::test]
async fn nothing_to_send_makes_no_call() {
    let (queue, taken) = small_sqs().await;
    assert!(queue.send_all(Vec::new()).await.is_empty());
    assert!(queue.send_all(vec![String::new()]).await[0].is_err());
    assert!(taken.lock().unwrap().is_empty());
}

#[tokio::test]
async fn unreachable_queue_fails_every_message() {
    let (queue, _) = small_sqs().await;
    let config = queue.client.config().to_builder();
    let lost = config.endpoint_url("http://127.0.0.1:1").build();
    let queue = Queue::new(Client::from_conf(lost), QUEUE);
    let results = queue.send_all(vec!["a".to_owned(), "b".to_owned()]).await;
    assert_eq!(results.len(), 2);
    for result in results {
        assert!(matches!(result, Err(SendError::Call { queue, .. }) if queue == QUEUE));
    }
}

/// However many messages there are: the function must answer before Lambda ends it.
#[tokio::test]
async fn hanging_queue_is_given_up_in_time() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let config = aws_config::defaults(BehaviorVersion::latest())
        .region(Region::new("us-east-1"))
        .credentials_provider(Credentials::new("AKID", "secret", None, None, "test"))
        .endpoint_url(format!("http://{}", listener.local_addr().unwrap()))
        .load()
        .await;
    let queue = Queue::new(client(&config), QUEUE);
    let began = Instant::now();
    let results = queue.send_all((0..500).map(|n| n.to_string()).collect()).await;
    assert!(began.elapsed() < SEND_FOR + Duration::from_secs(2), "{:?}", began.elapsed());
    assert_eq!(results.len(), 500);
    let unsent = results.iter().filter(|result| matches!(result, Err(SendError::NotSent { .. }))).count();
    assert!(results.iter().all(Result::is_err) && unsent >= 300, "{unsent}");
    assert!(!results[499].as_ref().unwrap_err().may_have_arrived());
}
