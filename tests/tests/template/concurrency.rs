//! Concurrency: what each function may reserve of the account's quota, and how much of it the
//! queues may take.

use serde_json::{Value, json};

use super::choice::Choice;
use super::regions::ONE_OF_TWO;
use super::{number, of_type, template};

const RESERVING: [&str; 5] = ["Forward", "Ingest", "Process", "Query", "Retry"];

/// A small account has a quota of 10 to 50 and can reserve none of it, so the default must deploy
/// there.
#[test]
fn concurrency_is_reserved_only_where_a_parameter_says_so() {
    let template = template();
    let reserved = |given: &[(&str, &str)], function: &str| -> Option<Value> {
        let parameters = [("PrimaryLog", "kinesis"), ONE_OF_TWO].into_iter().chain(given.iter().copied());
        let made = Choice::of(&template, parameters).resources();
        made[&format!("{function}Function")]["Properties"].get("ReservedConcurrentExecutions").cloned()
    };
    for function in RESERVING {
        let parameter = format!("{function}Concurrency");
        assert_eq!(reserved(&[], function), None, "{function}");
        for other in RESERVING {
            let expected = (other == function).then(|| json!({ "Ref": parameter }));
            assert_eq!(reserved(&[(&parameter, "150")], other), expected, "{parameter} and {other}");
        }
    }
}

/// Without a maximum, a backlog on a queue takes as many executions as the account has.
#[test]
fn every_mapping_of_a_queue_limits_its_concurrency() {
    let template = template();
    let queues = of_type(&template, "AWS::SQS::Queue");
    let mut limited = Vec::new();
    for (id, mapping) in of_type(&template, "AWS::Lambda::EventSourceMapping") {
        let source = mapping["EventSourceArn"]["Fn::GetAtt"][0].as_str();
        if source.is_some_and(|source| queues.contains_key(source)) {
            assert!((2..=1_000).contains(&number(&mapping["ScalingConfig"]["MaximumConcurrency"])), "{id}");
            limited.push(id);
        }
    }
    assert_eq!(limited, ["CandidateInboundMapping", "ProcessInboundMapping", "RetryMapping"]);
}
