//! The logs of the functions on the emulator, which hold the books.

#![allow(clippy::unwrap_used, clippy::expect_used)]

use aws_sdk_lambda::primitives::Blob;
use aws_sdk_lambda::types::{FunctionCode, Runtime};
use local::LocalDynamoDb;
use std::process::Command;
use std::time::{Duration, Instant};

/// A runtime that prints after it has answered, as a busy machine makes any function do, and pauses
/// between its lines.
const BOOTSTRAP: &str = r#"#!/usr/bin/env python3
import os, sys, time, urllib.request
api = f"http://{os.environ['AWS_LAMBDA_RUNTIME_API']}/2018-06-01/runtime/invocation"
while True:
    id = urllib.request.urlopen(f"{api}/next").headers["Lambda-Runtime-Aws-Request-Id"]
    urllib.request.urlopen(f"{api}/{id}/response", b"{}").read()
    for line in ['{"_aws": 1}', '{"_aws": 2}', '{"_aws": 3}']:
        time.sleep(0.3)
        print(line, flush=True)
"#;

/// The bootstrap as a deployment package.
fn package() -> Vec<u8> {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("bootstrap"), BOOTSTRAP).unwrap();
    let zip = "import os, zipfile; os.chmod('bootstrap', 0o755); zipfile.ZipFile('f.zip', 'w').write('bootstrap')";
    assert!(Command::new("python3").args(["-c", zip]).current_dir(&folder).status().unwrap().success());
    std::fs::read(folder.path().join("f.zip")).unwrap()
}

#[tokio::test]
async fn line_printed_after_the_answer_is_in_the_logs() {
    let emulator = LocalDynamoDb::emulator("test-logs").await.unwrap();
    let lambda = aws_sdk_lambda::Client::new(&emulator.sdk_config());
    let logs = aws_sdk_cloudwatchlogs::Client::new(&emulator.sdk_config());
    let code = FunctionCode::builder().zip_file(Blob::new(package())).build();
    let create = lambda.create_function().function_name("late").runtime(Runtime::Providedal2023).handler("bootstrap");
    create.role("arn:aws:iam::000000000000:role/r").code(code).send().await.unwrap();

    let answer = lambda.invoke().function_name("late").send().await.unwrap();
    assert_eq!(answer.function_error(), None);
    let deadline = Instant::now() + Duration::from_secs(20);
    loop {
        let lines = match logs.filter_log_events().log_group_name("/aws/lambda/late").send().await {
            Ok(answer) => answer.events.unwrap_or_default(),
            Err(error) => panic!("the first line creates the log group: {error:?}"),
        };
        let lines: Vec<_> = lines.iter().filter_map(|event| event.message()).collect();
        if lines == [r#"{"_aws": 1}"#, r#"{"_aws": 2}"#, r#"{"_aws": 3}"#] {
            return;
        }
        assert!(Instant::now() < deadline, "of three lines, the logs have {lines:?}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}
