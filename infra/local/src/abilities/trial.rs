//! Tries the abilities of an endpoint, with stacks of its own.

use super::super::deploy::{create_bucket, create_cluster, delete_stack, s3};
use super::ApiForm;
use super::package::package;
use anyhow::{Context as _, Result, anyhow, bail, ensure};
use aws_config::SdkConfig;
use aws_config::retry::RetryConfig;
use aws_config::timeout::TimeoutConfig;
use aws_sdk_cloudformation::types::{Capability, ResourceStatus, StackStatus, TemplateStage};
use aws_sdk_dynamodb::types::{AttributeValue, BatchStatementRequest, ReturnValuesOnConditionCheckFailure};
use aws_sdk_kinesis::primitives::Blob;
use operate::sdk_config;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

const BOOTSTRAP: &str = include_str!("../../assets/bootstrap.sh");
/// The line that it writes to the logs.
const LOGGED: &str = "this line is for the logs";
const ANSWERS_WITHIN: Duration = Duration::from_secs(5);
const CALL_WITHIN: Duration = Duration::from_secs(30);
const STACK_WITHIN: Duration = Duration::from_secs(60);
/// How long something may take until it shows.
const SHOWS_WITHIN: Duration = Duration::from_secs(15);
const LOOK_EVERY: Duration = Duration::from_millis(100);

pub(super) const CLOUDFORMATION: &str = "CloudFormation";
pub(super) const TRANSFORM: &str = "the SAM transform of templates";
pub(super) const PARAMETERS: &str = "Parameter Store";
pub(super) const S3: &str = "Amazon S3";
pub(super) const DYNAMODB: &str = "DynamoDB with conditional PartiQL writes";
pub(super) const TABLE_STREAMS: &str = "DynamoDB Streams of PartiQL writes";
pub(super) const KINESIS: &str = "Amazon Kinesis";
pub(super) const LAMBDA: &str = "AWS Lambda";
pub(super) const BROKERS: &str = "a way from functions to the brokers";
pub(super) const LOGS: &str = "CloudWatch Logs of functions";
pub(super) const SQS: &str = "Amazon SQS that invokes functions";
pub(super) const HTTP_API: &str = "API Gateway HTTP APIs (v2)";
pub(super) const ALARMS: &str = "CloudWatch alarms on metric math";
pub(super) const APP_CONFIG: &str = "AppConfig in CloudFormation";
pub(super) const MSK: &str = "Amazon MSK";

#[cfg(test)]
pub(super) const ABILITIES: [&str; 15] = [
    CLOUDFORMATION,
    TRANSFORM,
    PARAMETERS,
    S3,
    DYNAMODB,
    TABLE_STREAMS,
    KINESIS,
    LAMBDA,
    BROKERS,
    LOGS,
    SQS,
    HTTP_API,
    ALARMS,
    APP_CONFIG,
    MSK,
];

/// What was tried, and how it ended.
type Tried = Vec<(&'static str, Result<()>)>;

/// A trial of one endpoint.
pub(super) struct Trial {
    endpoint: String,
    sdk: SdkConfig,
    http: reqwest::Client,
    /// Of all that it makes.
    name: String,
}

impl Trial {
    /// # Errors
    /// If nothing answers there.
    pub(super) async fn begin(endpoint: &str, region: &str) -> Result<Self> {
        let http = reqwest::Client::builder().no_proxy().timeout(ANSWERS_WITHIN).build().context("an HTTP client")?;
        http.get(endpoint).send().await.with_context(|| format!("no AWS emulator answers at {endpoint}"))?;
        let time_outs = TimeoutConfig::builder().operation_timeout(CALL_WITHIN).build();
        let sdk = sdk_config(endpoint, region)
            .to_builder()
            .timeout_config(time_outs)
            .retry_config(RetryConfig::disabled())
            .build();
        let name = format!("playhead-trial-{:08x}", rand::random::<u32>());
        Ok(Self { endpoint: endpoint.to_owned(), sdk, http, name })
    }

    /// Tries all abilities: where HTTP APIs are, and how each trial ended. `brokers` are those that
    /// functions must reach.
    pub(super) async fn run(self, brokers: Option<&str>, msk: bool) -> (ApiForm, Tried) {
        let (cloudformation, parameters) = self.parameter().await;
        if cloudformation.is_err() {
            // All the rest is deployed by it, so it would only be named again and again.
            return (ApiForm::default(), vec![(CLOUDFORMATION, cloudformation)]);
        }
        let (transform, (dynamodb, streams), kinesis, (apis, functions), alarms, app_config, msk) = tokio::join!(
            self.transform(),
            self.table(),
            self.stream(),
            self.functions(brokers),
            self.alarm(),
            self.app_config(),
            self.cluster(msk)
        );
        let mut tried = vec![(CLOUDFORMATION, cloudformation), (PARAMETERS, parameters), (DYNAMODB, dynamodb)];
        tried.extend([(TABLE_STREAMS, streams), (KINESIS, kinesis), (ALARMS, alarms), (APP_CONFIG, app_config)]);
        tried.extend([(TRANSFORM, transform), (MSK, msk)]);
        tried.extend(functions);
        (apis, tried)
    }

    /// Runs `test` with the outputs of a stack that has these resources, and deletes the stack.
    async fn with_stack<T>(
        &self,
        part: &str,
        template: &Value,
        test: impl AsyncFnOnce(BTreeMap<String, String>) -> Result<T>,
    ) -> Result<T> {
        let name = format!("{}-{part}", self.name);
        let tested = match self.create(&name, template).await {
            Ok(outputs) => test(outputs).await,
            Err(error) => Err(error),
        };
        if let Err(error) = delete_stack(&self.sdk, &name).await {
            tracing::warn!("the stack {name} is still at {}: {error:#}", self.endpoint);
        }
        tested
    }

    async fn create(&self, name: &str, template: &Value) -> Result<BTreeMap<String, String>> {
        let cloudformation = aws_sdk_cloudformation::Client::new(&self.sdk);
        let create = cloudformation.create_stack().stack_name(name).template_body(template.to_string());
        let capabilities = [Capability::CapabilityIam, Capability::CapabilityAutoExpand];
        create.set_capabilities(Some(capabilities.into())).send().await.context("creating a stack")?;
        let deadline = Instant::now() + STACK_WITHIN;
        loop {
            let described = cloudformation.describe_stacks().stack_name(name).send().await?;
            let stack = described.stacks().first().context("the stack is gone")?;
            match stack.stack_status() {
                Some(StackStatus::CreateComplete) => {
                    let outputs = stack.outputs().iter();
                    return Ok(outputs
                        .filter_map(|output| Some((output.output_key()?.into(), output.output_value()?.into())))
                        .collect());
                }
                Some(StackStatus::CreateInProgress | StackStatus::RollbackInProgress) if Instant::now() < deadline => {
                    tokio::time::sleep(LOOK_EVERY).await;
                }
                status => {
                    let events = cloudformation.describe_stack_events().stack_name(name).send().await?;
                    let failed = events
                        .stack_events()
                        .iter()
                        .filter(|event| event.resource_status() == Some(&ResourceStatus::CreateFailed));
                    let reasons: Vec<&str> = failed.filter_map(|event| event.resource_status_reason()).collect();
                    let reason = reasons.first().copied().or(stack.stack_status_reason()).unwrap_or("no reason given");
                    bail!("its stack is {}: {reason}", status.map_or("in no status", StackStatus::as_str));
                }
            }
        }
    }

    /// CloudFormation, and Parameter Store.
    async fn parameter(&self) -> (Result<()>, Result<()>) {
        let template = json!({
            "Resources": {"Parameter": self.named_parameter("parameter")},
            "Outputs": {"Name": {"Value": {"Ref": "Parameter"}}},
        });
        let tried = self.with_stack("parameter", &template, async |outputs| {
            let got = aws_sdk_ssm::Client::new(&self.sdk).get_parameter().name(output(&outputs, "Name")?).send().await;
            Ok(match got.context("getting a parameter") {
                Ok(got) => {
                    check(got.parameter().and_then(|found| found.value()) == Some("x"), "another value is stored")
                }
                Err(error) => Err(error),
            })
        });
        match tried.await {
            Ok(parameters) => (Ok(()), parameters),
            Err(error) => (Err(error), Ok(())),
        }
    }

    fn named_parameter(&self, name: &str) -> Value {
        let name = format!("/{}/{name}", self.name);
        json!({"Type": "AWS::SSM::Parameter", "Properties": {"Name": name, "Type": "String", "Value": "x"}})
    }

    /// The SAM transform, whose result the pollers read.
    async fn transform(&self) -> Result<()> {
        let resources = json!({"Parameter": self.named_parameter("transform")});
        let template = json!({"Transform": "AWS::Serverless-2016-10-31", "Resources": resources});
        let stack = format!("{}-transform", self.name);
        self.with_stack("transform", &template, async |_| {
            let get = aws_sdk_cloudformation::Client::new(&self.sdk).get_template().stack_name(&stack);
            let got = get.template_stage(TemplateStage::Processed).send().await.context("getting its template")?;
            let processed = got.template_body().and_then(|body| serde_json::from_str::<Value>(body).ok());
            let processed = processed.context("the processed template is not JSON")?;
            check(processed["Resources"]["Parameter"].is_object(), "the processed template has no resource")
        })
        .await
    }

    /// DynamoDB, and what its stream has.
    async fn table(&self) -> (Result<()>, Result<()>) {
        let key = |name, kind| json!({"AttributeName": name, "KeyType": kind});
        let text = |name| json!({"AttributeName": name, "AttributeType": "S"});
        let template = json!({
            "Resources": {"Table": {"Type": "AWS::DynamoDB::Table", "Properties": {
                "BillingMode": "PAY_PER_REQUEST",
                "KeySchema": [key("pk", "HASH"), key("sk", "RANGE")],
                "AttributeDefinitions": [text("pk"), text("sk")],
                "StreamSpecification": {"StreamViewType": "NEW_AND_OLD_IMAGES"},
            }}},
            "Outputs": {"Name": {"Value": {"Ref": "Table"}}, "Stream": {"Value": {"Fn::GetAtt": ["Table", "StreamArn"]}}},
        });
        let tried = self.with_stack("table", &template, async |outputs| {
            let written = self.write(output(&outputs, "Name")?).await;
            let streamed = match (&written, output(&outputs, "Stream")) {
                (Ok(()), Ok(stream)) => self.changes(stream).await,
                (Ok(()), Err(error)) => Err(error),
                (Err(_), _) => Err(anyhow!("nothing could be written")),
            };
            Ok((written, streamed))
        });
        tried.await.unwrap_or_else(|error| (Err(error), Err(anyhow!("there is no table"))))
    }

    /// Inserts an item, updates it, and fails to update it, all as `process` does.
    async fn write(&self, table: &str) -> Result<()> {
        let dynamodb = aws_sdk_dynamodb::Client::new(&self.sdk);
        let update = format!(r#"UPDATE "{table}" SET "version" = ? WHERE "pk" = ? AND "sk" = ? AND "version" = ?"#);
        let insert = format!(r#"INSERT INTO "{table}" VALUE {{'version': ?, 'pk': ?, 'sk': ?}}"#);
        let number = |n: u8| AttributeValue::N(n.to_string());
        let text = |text: &str| AttributeValue::S(text.to_owned());
        let execute = async |statement: &str, parameters: Vec<AttributeValue>| {
            let statement = BatchStatementRequest::builder()
                .statement(statement)
                .set_parameters(Some(parameters))
                .return_values_on_condition_check_failure(ReturnValuesOnConditionCheckFailure::AllOld)
                .build()?;
            let answer = dynamodb.batch_execute_statement().statements(statement).send().await;
            let answer = answer.context("executing a PartiQL statement")?;
            answer.responses.unwrap_or_default().pop().context("a PartiQL statement got no answer")
        };
        let inserted = execute(&insert, vec![number(1), text("p"), text("s")]).await?;
        ensure!(inserted.error().is_none(), "an INSERT failed: {:?}", inserted.error());
        let updated = execute(&update, vec![number(2), text("p"), text("s"), number(1)]).await?;
        ensure!(updated.error().is_none(), "an UPDATE whose condition holds failed: {:?}", updated.error());
        let lost = execute(&update, vec![number(2), text("p"), text("s"), number(1)]).await?;
        let error = lost.error().context("an UPDATE whose condition does not hold succeeded")?;
        let stored = error.item().and_then(|item| item.get("version"));
        check(stored == Some(&number(2)), "the failure of a condition does not return the stored item")
    }

    /// Waits until a table's stream has both changes.
    async fn changes(&self, stream: &str) -> Result<()> {
        use aws_sdk_dynamodbstreams::types::ShardIteratorType;
        let streams = aws_sdk_dynamodbstreams::Client::new(&self.sdk);
        let described = streams.describe_stream().stream_arn(stream).send().await.context("describing a stream")?;
        let shards = described.stream_description().map(|stream| stream.shards()).unwrap_or_default();
        let shard = shards.first().and_then(|shard| shard.shard_id()).context("the stream has no shard")?;
        shows("both changes on the stream", async || {
            let from = streams.get_shard_iterator().stream_arn(stream).shard_id(shard);
            let from = from.shard_iterator_type(ShardIteratorType::TrimHorizon).send().await?.shard_iterator;
            let got = streams.get_records().set_shard_iterator(from).send().await?;
            Ok(got.records().len() >= 2)
        })
        .await
    }

    /// Kinesis.
    async fn stream(&self) -> Result<()> {
        use aws_sdk_kinesis::types::ShardIteratorType;
        let template = json!({
            "Resources": {"Stream": {"Type": "AWS::Kinesis::Stream", "Properties": {"ShardCount": 1}}},
            "Outputs": {"Name": {"Value": {"Ref": "Stream"}}},
        });
        self.with_stack("stream", &template, async |outputs| {
            let (kinesis, name) = (aws_sdk_kinesis::Client::new(&self.sdk), output(&outputs, "Name")?);
            let put = kinesis.put_record().stream_name(name).partition_key("k").data(Blob::new(*b"x"));
            let put = put.send().await.context("putting a record")?;
            shows("the record on the stream", async || {
                let from = kinesis.get_shard_iterator().stream_name(name).shard_id(put.shard_id());
                let from = from.shard_iterator_type(ShardIteratorType::TrimHorizon).send().await?.shard_iterator;
                let got = kinesis.get_records().set_shard_iterator(from).send().await?;
                Ok(!got.records().is_empty())
            })
            .await
        })
        .await
    }

    /// S3, Lambda and what invokes it.
    async fn functions(&self, brokers: Option<&str>) -> (ApiForm, Tried) {
        let mut tried = vec![(S3, self.package().await)];
        let mut form = ApiForm::default();
        if tried.iter().all(|(_, tried)| tried.is_ok()) {
            let lambda = self.function(brokers, &mut form, &mut tried).await;
            tried.push((LAMBDA, lambda));
        }
        let s3 = s3(&self.sdk);
        let object = s3.delete_object().bucket(&self.name).key("f.zip").send().await;
        let bucket = s3.delete_bucket().bucket(&self.name).send().await;
        if let (Err(error), _) | (_, Err(error)) = (object.map_err(anyhow::Error::from), bucket.map_err(Into::into)) {
            tracing::warn!("the bucket {} is still at {}: {error:#}", self.name, self.endpoint);
        }
        (form, tried)
    }

    /// Puts the function's package into a bucket.
    async fn package(&self) -> Result<()> {
        let (s3, package) = (s3(&self.sdk), package(BOOTSTRAP.as_bytes()));
        create_bucket(&self.sdk, &self.name).await?;
        let put = s3.put_object().bucket(&self.name).key("f.zip").body(package.clone().into());
        put.send().await.context("putting an object")?;
        let got = s3.get_object().bucket(&self.name).key("f.zip").send().await.context("getting an object")?;
        check(got.body.collect().await?.into_bytes() == package, "an object is not what was put")
    }

    async fn function(&self, brokers: Option<&str>, form: &mut ApiForm, tried: &mut Tried) -> Result<()> {
        let function = format!("{}-function", self.name);
        let trust = json!({"Version": "2012-10-17", "Statement": [
            {"Effect": "Allow", "Principal": {"Service": "lambda.amazonaws.com"}, "Action": "sts:AssumeRole"},
        ]});
        let brokers = brokers.map(|brokers| brokers.replace(',', " "));
        let template = json!({
            "Resources": {
                "Role": {"Type": "AWS::IAM::Role", "Properties": {"AssumeRolePolicyDocument": trust}},
                "Function": {"Type": "AWS::Lambda::Function", "Properties": {
                    "FunctionName": function,
                    "Runtime": "provided.al2023",
                    "Handler": "bootstrap",
                    "Timeout": 20,
                    "Role": {"Fn::GetAtt": ["Role", "Arn"]},
                    "Code": {"S3Bucket": self.name, "S3Key": "f.zip"},
                    "Environment": {"Variables": {"BROKERS": brokers.unwrap_or_default()}},
                }},
            },
            "Outputs": {"Arn": {"Value": {"Fn::GetAtt": ["Function", "Arn"]}}},
        });
        self.with_stack("function", &template, async |outputs| {
            let arn = output(&outputs, "Arn")?;
            tried.push((BROKERS, self.invoke(&function).await?));
            let (logs, queue, api) = tokio::join!(self.logs(&function), self.queue(&function), self.api(arn));
            *form = api.as_ref().copied().unwrap_or_default();
            tried.extend([(LOGS, logs), (SQS, queue), (HTTP_API, api.map(drop))]);
            // The stack does not have it: Lambda made it. Nothing is lost if there is none.
            let logs = aws_sdk_cloudwatchlogs::Client::new(&self.sdk).delete_log_group();
            let _ = logs.log_group_name(log_group(&function)).send().await;
            Ok(())
        })
        .await
    }

    /// Invokes the function. The inner result says whether it reaches the brokers.
    async fn invoke(&self, function: &str) -> Result<Result<()>> {
        let lambda = aws_sdk_lambda::Client::new(&self.sdk);
        let invoke = lambda.invoke().function_name(function).payload(aws_sdk_lambda::primitives::Blob::new("{}"));
        let answer = invoke.send().await.context("invoking a function")?;
        let payload = answer.payload.map(aws_sdk_lambda::primitives::Blob::into_inner).unwrap_or_default();
        let text = String::from_utf8_lossy(&payload);
        ensure!(answer.function_error.is_none(), "the function fails: {text}");
        let answer: Value = serde_json::from_str(&text).with_context(|| format!("the function answered {text}"))?;
        let said = answer["body"].as_str().with_context(|| format!("the function answered {text}"))?;
        let (endpoint, unreachable) = said.split_once(" unreachable=").context("the function did not run")?;
        check(
            endpoint.starts_with("endpoint=http"),
            "functions get no AWS_ENDPOINT_URL: start the emulator with it in its environment",
        )?;
        Ok(check(
            unreachable.is_empty(),
            &format!(
                "they cannot connect to {}: give the address that they can with --function-kafka",
                unreachable.trim()
            ),
        ))
    }

    /// Waits for the line that the function printed.
    async fn logs(&self, function: &str) -> Result<()> {
        let logs = aws_sdk_cloudwatchlogs::Client::new(&self.sdk);
        shows("the function's line in its log group", async || {
            let filter = logs.filter_log_events().log_group_name(log_group(function));
            let lines = filter.send().await.map(|found| found.events.unwrap_or_default()).unwrap_or_default();
            Ok(lines.iter().filter_map(|event| event.message()).any(|line| line.contains(LOGGED)))
        })
        .await
    }

    /// Sends a message to a queue, and waits until the function has taken it.
    async fn queue(&self, function: &str) -> Result<()> {
        use aws_sdk_sqs::types::QueueAttributeName::{
            ApproximateNumberOfMessages, ApproximateNumberOfMessagesNotVisible, QueueArn,
        };
        let template = json!({
            "Resources": {"Queue": {"Type": "AWS::SQS::Queue"}, "Mapping": {
                "Type": "AWS::Lambda::EventSourceMapping",
                "Properties": {"FunctionName": function, "EventSourceArn": {"Fn::GetAtt": ["Queue", "Arn"]}},
            }},
            "Outputs": {"Url": {"Value": {"Ref": "Queue"}}},
        });
        self.with_stack("queue", &template, async |outputs| {
            let (sqs, url) = (aws_sdk_sqs::Client::new(&self.sdk), output(&outputs, "Url")?);
            sqs.send_message().queue_url(url).message_body("x").send().await.context("sending a message")?;
            shows("the message taken by the function", async || {
                let asked = sqs.get_queue_attributes().queue_url(url).attribute_names(QueueArn);
                let counts = [ApproximateNumberOfMessages, ApproximateNumberOfMessagesNotVisible];
                let asked = counts.iter().cloned().fold(asked, |asked, count| asked.attribute_names(count));
                let found = asked.send().await?.attributes.unwrap_or_default();
                Ok(counts.iter().all(|count| found.get(count).is_some_and(|count| count == "0")))
            })
            .await
        })
        .await
    }

    /// An HTTP API with the function behind it: where it is.
    async fn api(&self, function: &str) -> Result<ApiForm> {
        let api = || json!({"Ref": "Api"});
        let template = json!({
            "Resources": {
                "Api": {"Type": "AWS::ApiGatewayV2::Api", "Properties": {"Name": self.name, "ProtocolType": "HTTP"}},
                "Integration": {"Type": "AWS::ApiGatewayV2::Integration", "Properties": {
                    "ApiId": api(), "IntegrationType": "AWS_PROXY", "IntegrationUri": function,
                    "PayloadFormatVersion": "2.0",
                }},
                "Route": {"Type": "AWS::ApiGatewayV2::Route", "Properties": {
                    "ApiId": api(), "RouteKey": "GET /trial",
                    "Target": {"Fn::Sub": "integrations/${Integration}"},
                }},
                "DefaultStage": {"Type": "AWS::ApiGatewayV2::Stage", "Properties": {
                    "ApiId": api(), "StageName": "$default", "AutoDeploy": true,
                }},
                "Permission": {"Type": "AWS::Lambda::Permission", "Properties": {
                    "Action": "lambda:InvokeFunction", "FunctionName": function,
                    "Principal": "apigateway.amazonaws.com",
                }},
            },
            "Outputs": {"Id": {"Value": api()}},
        });
        self.with_stack("api", &template, async |outputs| {
            let id = output(&outputs, "Id")?;
            let mut form = None;
            let shown = shows("an answer from the function", async || {
                for one in ApiForm::ALL {
                    let got = self.http.get(format!("{}/trial", one.url(&self.endpoint, id))).send().await;
                    let Ok(got) = got else { continue };
                    if got.text().await.is_ok_and(|text| text.contains("endpoint=")) {
                        form = Some(one);
                    }
                }
                Ok(form.is_some())
            });
            shown.await?;
            form.context("no form of URL leads to the API")
        })
        .await
    }

    async fn alarm(&self) -> Result<()> {
        let metric = json!({"Namespace": "playhead", "MetricName": "trial"});
        let template = json!({"Resources": {"Alarm": {"Type": "AWS::CloudWatch::Alarm", "Properties": {
            "ComparisonOperator": "GreaterThanThreshold",
            "Threshold": 1,
            "EvaluationPeriods": 1,
            "Metrics": [
                {"Id": "twice", "Expression": "once * 2"},
                {"Id": "once", "ReturnData": false, "MetricStat": {"Metric": metric, "Stat": "Sum", "Period": 60}},
            ],
        }}}});
        self.with_stack("alarm", &template, async |_| Ok(())).await
    }

    async fn app_config(&self) -> Result<()> {
        let properties = json!({"Name": self.name});
        let template =
            json!({"Resources": {"Application": {"Type": "AWS::AppConfig::Application", "Properties": properties}}});
        self.with_stack("app-config", &template, async |_| Ok(())).await
    }

    /// MSK, if a log is on Kafka.
    async fn cluster(&self, is_needed: bool) -> Result<()> {
        if !is_needed {
            return Ok(());
        }
        let arn = create_cluster(&self.sdk, &self.name).await?;
        let deleted = aws_sdk_kafka::Client::new(&self.sdk).delete_cluster().cluster_arn(arn).send().await;
        deleted.context("deleting an MSK cluster").map(drop)
    }
}

fn log_group(function: &str) -> String {
    format!("/aws/lambda/{function}")
}

fn check(holds: bool, otherwise: &str) -> Result<()> {
    ensure!(holds, "{otherwise}");
    Ok(())
}

fn output<'a>(outputs: &'a BTreeMap<String, String>, name: &str) -> Result<&'a str> {
    outputs.get(name).map(String::as_str).with_context(|| format!("its stack has no output {name}"))
}

/// Waits until `look` is true.
async fn shows(what: &str, mut look: impl AsyncFnMut() -> Result<bool>) -> Result<()> {
    let deadline = Instant::now() + SHOWS_WITHIN;
    while !look().await? {
        ensure!(Instant::now() < deadline, "not there within {} s: {what}", SHOWS_WITHIN.as_secs());
        tokio::time::sleep(LOOK_EVERY).await;
    }
    Ok(())
}
