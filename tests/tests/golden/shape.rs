//! The events that Lambda's triggers send, field by field as AWS documents them (`events/README.md`
//! has the sources), with readable values: no random ids, no time but that of the case.

use crate::case::NOW;
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use jsonwebtoken::{EncodingKey, Header};
use md5::{Digest, Md5};
use serde_json::{Map, Value, json};

/// The shared secret that signs the tokens of the golden events. It is for tests and protects
/// nothing.
pub(crate) const SECRET: &str = "golden-events-secret-that-protects-nothing";
/// When those tokens expire: 1 January 2100, Unix seconds.
const EXPIRES: u64 = 4_102_444_800;

/// A bearer token for these profiles.
pub(crate) fn token_for(profiles: &[&str]) -> String {
    bearer(SECRET, &json!({"profiles": profiles, "exp": EXPIRES}))
}

/// A bearer token of a backend.
pub(crate) fn service_token() -> String {
    bearer(SECRET, &json!({"scope": "service", "exp": EXPIRES}))
}

/// A bearer token with any claims, signed with any secret.
pub(crate) fn bearer(secret: &str, claims: &Value) -> String {
    let key = EncodingKey::from_secret(secret.as_bytes());
    format!("Bearer {}", jsonwebtoken::encode(&Header::default(), claims, &key).unwrap())
}

/// The token's time of expiry.
pub(crate) const fn expires() -> u64 {
    EXPIRES
}

/// A request as API Gateway's HTTP API sends it to a function (payload format 2.0).
#[derive(Debug, Clone)]
pub(crate) struct ApiRequest {
    method: &'static str,
    route: &'static str,
    path: String,
    query: Vec<(&'static str, String)>,
    headers: Map<String, Value>,
    body: Option<(String, bool)>,
    stage: &'static str,
    /// What comes before the route's path: a custom domain's mapping key, or the stage.
    prefix: &'static str,
}

impl ApiRequest {
    /// A request to `path`, matched by the template's route `<method> <route>`.
    pub(crate) fn new(method: &'static str, route: &'static str, path: impl Into<String>) -> Self {
        let headers = json!({
            "accept": "application/json",
            "host": "a1b2c3d4e5.execute-api.us-east-1.amazonaws.com",
            "user-agent": "player/7.4",
            "x-amzn-trace-id": "Root=1-6ab1dc9a-000000000000000000000001",
            "x-forwarded-for": "192.0.2.1",
            "x-forwarded-port": "443",
            "x-forwarded-proto": "https",
        });
        let Value::Object(headers) = headers else { unreachable!() };
        let path = path.into();
        Self { method, route, path, query: Vec::new(), headers, body: None, stage: "$default", prefix: "" }
    }

    /// On a stage with a name, which the path begins with.
    pub(crate) fn on_stage(self, stage: &'static str, prefix: &'static str) -> Self {
        Self { stage, prefix, ..self }
    }

    /// Behind a custom domain, with a mapping key that the path begins with.
    pub(crate) fn behind(self, prefix: &'static str) -> Self {
        Self { prefix, ..self }.header("host", "api.example.com")
    }

    /// With a header.
    pub(crate) fn header(mut self, name: &str, value: impl Into<String>) -> Self {
        self.headers.insert(name.to_owned(), Value::String(value.into()));
        self
    }

    /// With an `authorization` header.
    pub(crate) fn authorized(self, token: String) -> Self {
        self.header("authorization", token)
    }

    /// With a query parameter, whose value needs no escaping.
    pub(crate) fn query(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.query.push((name, value.into()));
        self
    }

    /// With a JSON body.
    pub(crate) fn json(self, body: &Value) -> Self {
        self.text("application/json", body.to_string())
    }

    /// With a body that API Gateway passes on as text.
    pub(crate) fn text(mut self, media_type: &str, body: impl Into<String>) -> Self {
        self.body = Some((body.into(), false));
        self.header("content-type", media_type)
    }

    /// With a body that API Gateway passes on in base64.
    pub(crate) fn binary(mut self, media_type: &str, body: &[u8]) -> Self {
        self.body = Some((BASE64_STANDARD.encode(body), true));
        self.header("content-type", media_type)
    }

    /// The event, without the fields that API Gateway leaves out when they are empty.
    pub(crate) fn event(self) -> Value {
        let Self { method, route, path, query, mut headers, body, stage, prefix } = self;
        let parameters = path_parameters(route, &path);
        let path = format!("{prefix}{path}");
        let raw_query: Vec<String> = query.iter().map(|(name, value)| format!("{name}={value}")).collect();
        if let Some((text, is_base64)) = &body {
            let sent = if *is_base64 { BASE64_STANDARD.decode(text).unwrap().len() } else { text.len() };
            headers.insert("content-length".to_owned(), json!(sent.to_string()));
        }
        let route_key = format!("{method} {route}");
        let mut event = json!({
            "version": "2.0",
            "routeKey": route_key,
            "rawPath": path,
            "rawQueryString": raw_query.join("&"),
            "headers": headers,
            "requestContext": {
                "accountId": "123456789012",
                "apiId": "a1b2c3d4e5",
                "domainName": "a1b2c3d4e5.execute-api.us-east-1.amazonaws.com",
                "domainPrefix": "a1b2c3d4e5",
                "http": {"method": method, "path": path, "protocol": "HTTP/1.1", "sourceIp": "192.0.2.1", "userAgent": "player/7.4"},
                "requestId": "JKJaXmPLvHcESHA=",
                "routeKey": route_key,
                "stage": stage,
                "time": "21/Sep/2026:14:13:30 +0000",
                "timeEpoch": NOW,
            },
            "isBase64Encoded": body.as_ref().is_some_and(|(_, is_base64)| *is_base64),
        });
        if !query.is_empty() {
            event["queryStringParameters"] =
                query.into_iter().map(|(name, value)| (name.to_owned(), json!(value))).collect();
        }
        if !parameters.is_empty() {
            event["pathParameters"] = Value::Object(parameters);
        }
        if let Some((text, _)) = body {
            event["body"] = json!(text);
        }
        event
    }
}

/// The values of a route's `{name}` segments.
fn path_parameters(route: &str, path: &str) -> Map<String, Value> {
    let named = |(pattern, value): (&str, &str)| {
        let name = pattern.strip_prefix('{')?.strip_suffix('}')?;
        Some((name.to_owned(), json!(value)))
    };
    route.split('/').zip(path.split('/')).filter_map(named).collect()
}

/// A record of a Kafka topic: partition, offset, key and value as bytes.
pub(crate) fn kafka_record(partition: u32, offset: u64, key: &str, value: &[u8]) -> Value {
    json!({
        "topic": "playback-events",
        "partition": partition,
        "offset": offset,
        "timestamp": NOW,
        "timestampType": "CREATE_TIME",
        "key": BASE64_STANDARD.encode(key),
        "value": BASE64_STANDARD.encode(value),
        "headers": [],
    })
}

/// An event of an Amazon MSK event source mapping. Records keep their order within their partition.
pub(crate) fn msk(records: impl IntoIterator<Item = Value>) -> Value {
    let mut partitions = Map::new();
    for record in records {
        let label = format!("{}-{}", record["topic"].as_str().unwrap(), record["partition"]);
        let partition = partitions.entry(label).or_insert_with(|| json!([]));
        partition.as_array_mut().unwrap().push(record);
    }
    json!({
        "eventSource": "aws:kafka",
        "eventSourceArn": "arn:aws:kafka:us-east-1:123456789012:cluster/playhead/751d2973-a626-431c-9d4e-d7975eb44dd7-2",
        "bootstrapServers": "b-1.playhead.a1bcde.c1.kafka.us-east-1.amazonaws.com:9098,b-2.playhead.a1bcde.c1.kafka.us-east-1.amazonaws.com:9098",
        "records": partitions,
    })
}

/// A message of the queue `inbound`, received for the `receives`th time.
pub(crate) fn sqs_message(number: u32, receives: u32, body: &str) -> Value {
    message_of("inbound", number, receives, body)
}

/// A message of the queue `retry`, received for the `receives`th time.
pub(crate) fn retry_message(number: u32, receives: u32, body: &Value) -> Value {
    message_of("retry", number, receives, &body.to_string())
}

fn message_of(queue: &str, number: u32, receives: u32, body: &str) -> Value {
    json!({
        "messageId": format!("00000000-0000-4000-8000-{number:012}"),
        "receiptHandle": format!("receipt-{number}-{receives}"),
        "body": body,
        "attributes": {
            "ApproximateReceiveCount": receives.to_string(),
            "SentTimestamp": NOW.to_string(),
            "SenderId": "AROACKCEVSQ6C2EXAMPLE:playhead-forward",
            "ApproximateFirstReceiveTimestamp": (NOW + 2).to_string(),
        },
        "messageAttributes": {},
        "md5OfBody": md5_hex(body.as_bytes()),
        "eventSource": "aws:sqs",
        "eventSourceARN": format!("arn:aws:sqs:us-east-1:123456789012:{queue}"),
        "awsRegion": "us-east-1",
    })
}

/// The message as if it was sent this long before, milliseconds.
pub(crate) fn waiting_for(ms: u64, mut message: Value) -> Value {
    message["attributes"]["SentTimestamp"] = json!((NOW - ms).to_string());
    message
}

/// The message with an attribute of the type String, and the digest of its attributes (SQS
/// developer guide, "Calculating the MD5 message digest for message attributes").
pub(crate) fn with_attribute(mut message: Value, name: &str, value: &str) -> Value {
    let counted = |text: &str| [&(text.len() as u32).to_be_bytes(), text.as_bytes()].concat();
    let is_text = vec![1];
    let digested = [counted(name), counted("String"), is_text, counted(value)].concat();
    message["md5OfMessageAttributes"] = json!(md5_hex(&digested));
    message["messageAttributes"] = json!({name:
        {"stringValue": value, "stringListValues": [], "binaryListValues": [], "dataType": "String"}});
    message
}

fn md5_hex(bytes: &[u8]) -> String {
    Md5::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

/// A record of the first shard of the stream `playback-standby`.
pub(crate) fn kinesis_record(number: u64, key: &str, data: &[u8]) -> Value {
    let sequence_number = format!("4959033827149025660855969253836157109592{number:016}");
    json!({
        "kinesis": {
            "kinesisSchemaVersion": "1.0",
            "partitionKey": key,
            "sequenceNumber": sequence_number,
            "data": BASE64_STANDARD.encode(data),
            "approximateArrivalTimestamp": NOW as f64 / 1000.0,
        },
        "eventSource": "aws:kinesis",
        "eventVersion": "1.0",
        "eventID": format!("shardId-000000000006:{sequence_number}"),
        "eventName": "aws:kinesis:record",
        "invokeIdentityArn": "arn:aws:iam::123456789012:role/playhead-process",
        "awsRegion": "us-east-1",
        "eventSourceARN": "arn:aws:kinesis:us-east-1:123456789012:stream/playback-standby",
    })
}

/// The bucket of the batches that Lambda discarded.
pub(crate) const FAILURE_BUCKET: &str = "playhead-failurebucket-1a2b3c4d5e6f";

/// The notification that S3 sends about a new object in the failure bucket.
pub(crate) fn object_created(key: &str) -> Value {
    let record = json!({
        "eventVersion": "2.1",
        "eventSource": "aws:s3",
        "awsRegion": "us-east-1",
        "eventTime": "2026-09-21T14:13:29.000Z",
        "eventName": "ObjectCreated:Put",
        "userIdentity": {"principalId": "AWS:AROACKCEVSQ6C2EXAMPLE:awslambda"},
        "requestParameters": {"sourceIPAddress": "192.0.2.2"},
        "responseElements": {"x-amz-request-id": "C3D13FE58DE4C810", "x-amz-id-2": "FMyUVURIY8/IgAtTv8xRjskZQpcIZ9KG4V5Wp6S7S/JRWeUWerMUE5JgHvANOjpD"},
        "s3": {
            "s3SchemaVersion": "1.0",
            "configurationId": "failed-batches",
            "bucket": {
                "name": FAILURE_BUCKET,
                "ownerIdentity": {"principalId": "A3NL1KOZZKExample"},
                "arn": format!("arn:aws:s3:::{FAILURE_BUCKET}"),
            },
            "object": {"key": key, "size": 1024, "eTag": "d41d8cd98f00b204e9800998ecf8427e", "sequencer": "0055AED6DCD90281E5"},
        },
    });
    list([record])
}

/// The message that S3 sends when notifications are set up.
pub(crate) fn s3_test() -> Value {
    json!({
        "Service": "Amazon S3",
        "Event": "s3:TestEvent",
        "Time": "2026-09-21T14:13:29.000Z",
        "Bucket": FAILURE_BUCKET,
        "RequestId": "5582815E1AEA5ADF",
        "HostId": "8cLeGAmw098X5cv4Zkwcmo8vvZa3eH3eKxsPzbB9wrR+YstdA6Knx4Ip8EXAMPLE",
    })
}

/// The object that Lambda writes about a discarded batch: where the batch was (`info`), and the
/// event.
pub(crate) fn discarded(info: (&str, Value), event: &Value) -> Value {
    let mut object = json!({
        "requestContext": {
            "requestId": "316aa6d0-8154-xmpl-9af7-85d5f4a6bc81",
            "functionArn": "arn:aws:lambda:us-east-1:123456789012:function:playhead-process",
            "condition": "RetryAttemptsExhausted",
            "approximateInvokeCount": 11,
        },
        "responseContext": {"statusCode": 200, "executedVersion": "$LATEST", "functionError": "Unhandled"},
        "version": "1.0",
        "timestamp": "2026-09-21T14:13:28.000Z",
        "payload": event.to_string(),
    });
    object[info.0] = info.1;
    object
}

/// An event that is one list of records: SQS, Kinesis.
pub(crate) fn list(records: impl IntoIterator<Item = Value>) -> Value {
    json!({"Records": records.into_iter().collect::<Vec<_>>()})
}
