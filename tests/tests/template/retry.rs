//! Retry: what invokes it, how long a letter may wait, and that only crashes use the queue's own
//! redrive.

use serde_json::json;

use super::{arn_of, behind, number, properties, statements, template};

#[test]
fn the_retry_queue_invokes_retry_and_outwaits_it() {
    let template = template();
    let mapping = properties(&template, "RetryMapping");
    assert_eq!(behind(&mapping["FunctionName"]), "RetryFunction");
    assert_eq!(mapping["EventSourceArn"], arn_of("RetryQueue"));
    assert_eq!(mapping["FunctionResponseTypes"], json!(["ReportBatchItemFailures"]));
    assert!((2..=1_000).contains(&number(&mapping["ScalingConfig"]["MaximumConcurrency"])));
    let queue = properties(&template, "RetryQueue");
    let timeout = number(&properties(&template, "RetryFunction")["Timeout"]);
    assert!(number(&queue["VisibilityTimeout"]) >= 6 * timeout);
    assert_eq!(number(&queue["MessageRetentionPeriod"]), 14 * 24 * 60 * 60);
}

#[test]
fn the_queue_itself_redrives_only_letters_that_crash_retry() {
    let template = template();
    let redrive = &properties(&template, "RetryQueue")["RedrivePolicy"];
    assert_eq!(redrive["deadLetterTargetArn"], arn_of("DeadLetterQueue"));
    // Attempts and throttled invocations both count as deliveries: there must be room for both.
    let receives = number(&redrive["maxReceiveCount"]);
    let most_attempts = number(&template["Parameters"]["RetryMaxAttempts"]["MaxValue"]);
    assert!((2 * most_attempts..=1_000).contains(&receives));
    // A letter that waits for the store does so for 5 days, with pauses of at least 7.5 minutes
    // once they no longer grow.
    assert!(receives * 450 >= 5 * 24 * 60 * 60);
}

#[test]
fn retry_is_notified_of_every_object_in_the_failure_bucket() {
    let template = template();
    let bucket = &template["Resources"]["FailureBucket"];
    let told = &bucket["Properties"]["NotificationConfiguration"];
    let everything = json!([{ "Event": "s3:ObjectCreated:*", "Queue": arn_of("RetryQueue") }]);
    assert_eq!(*told, json!({ "QueueConfigurations": everything }));
    // S3 sends to the queue as soon as it is configured, so the policy must exist by then.
    assert_eq!(bucket["DependsOn"], "RetryQueuePolicy");
}

#[test]
fn only_s3_may_send_to_retry_and_only_for_the_failure_bucket() {
    let policy = properties(&template(), "RetryQueuePolicy");
    assert_eq!(policy["Queues"], json!([{ "Ref": "RetryQueue" }]));
    let allowed: Vec<_> = statements(&policy).into_iter().filter(|statement| statement["Effect"] == "Allow").collect();
    let [allowed] = allowed[..] else { panic!("one is allowed: {allowed:?}") };
    assert_eq!(allowed["Principal"], json!({ "Service": "s3.amazonaws.com" }));
    assert_eq!(allowed["Action"], "sqs:SendMessage");
    assert_eq!(allowed["Resource"], arn_of("RetryQueue"));
    // CloudFormation puts the logical id, in lower case, into the bucket's name.
    let bucket = format!("arn:${{AWS::Partition}}:s3:::*-{}-*", "FailureBucket".to_lowercase());
    let condition = json!({
        "StringEquals": { "aws:SourceAccount": { "Ref": "AWS::AccountId" } },
        "ArnLike": { "aws:SourceArn": { "Fn::Sub": bucket } },
    });
    assert_eq!(allowed["Condition"], condition);
}
