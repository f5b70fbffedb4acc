//! A CloudWatch series: a metric with its dimensions.

use lambda::metrics::{Metric, NAMESPACE};
use serde_json::{Value, json};

/// The value of a dimension.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Dimension {
    /// That of a parameter of the template.
    Parameter(&'static str),
    /// This text.
    Text(&'static str),
}

impl Dimension {
    /// As CloudFormation takes it.
    pub(crate) fn value(self) -> Value {
        match self {
            Self::Parameter(name) => json!({ "Ref": name }),
            Self::Text(text) => json!(text),
        }
    }

    /// As it stands in the text of a `Fn::Sub`.
    pub(crate) fn in_text(self) -> String {
        match self {
            Self::Parameter(name) => format!("${{{name}}}"),
            Self::Text(text) => text.to_owned(),
        }
    }
}

/// A metric with its dimensions.
#[derive(Debug, Clone)]
pub struct Series {
    /// Its namespace.
    pub namespace: &'static str,
    /// Its name.
    pub name: &'static str,
    /// Names and values.
    pub dimensions: Vec<(&'static str, Dimension)>,
    /// Which of the values of a period counts, unless the user of the series says otherwise.
    pub statistic: &'static str,
}

impl Series {
    fn aws(
        namespace: &'static str,
        name: &'static str,
        dimension: &'static str,
        of: &'static str,
        statistic: &'static str,
    ) -> Self {
        Self { namespace, name, dimensions: vec![(dimension, Dimension::Parameter(of))], statistic }
    }
}

/// One of ours, summed over all functions of the stage.
pub(crate) fn of_stage(metric: Metric) -> Series {
    debug_assert!(metric.is_of_stage(), "{} is not summed over the stage", metric.name());
    let statistic = if metric.is_maximum() { "Maximum" } else { "Sum" };
    let dimensions = vec![("Stage", Dimension::Parameter("Stage"))];
    Series { namespace: NAMESPACE, name: metric.name(), dimensions, statistic }
}

/// One of ours as `function` writes it. If it has a third dimension, the sum over that.
pub(crate) fn of(metric: Metric, function: &'static str) -> Series {
    let statistic = if metric.is_maximum() { "Maximum" } else { "Sum" };
    let dimensions = vec![("Stage", Dimension::Parameter("Stage")), ("Function", Dimension::Parameter(function))];
    Series { namespace: NAMESPACE, name: metric.name(), dimensions, statistic }
}

/// The same with one value of the dimension `Code`.
pub(crate) fn with_code(metric: Metric, function: &'static str, code: &'static str) -> Series {
    let mut series = of(metric, function);
    series.dimensions.push(("Code", Dimension::Text(code)));
    series
}

/// A count of Lambda.
pub(crate) fn lambda(name: &'static str, function: &'static str) -> Series {
    Series::aws("AWS/Lambda", name, "FunctionName", function, "Sum")
}

/// A lag or an age that Lambda measures.
pub(crate) fn lambda_lag(name: &'static str, function: &'static str) -> Series {
    Series::aws("AWS/Lambda", name, "FunctionName", function, "Maximum")
}

/// A queue's.
pub(crate) fn sqs(name: &'static str, queue: &'static str) -> Series {
    Series::aws("AWS/SQS", name, "QueueName", queue, "Maximum")
}

/// Capacity units that the table of the views used.
pub(crate) fn units(name: &'static str) -> Series {
    Series::aws("AWS/DynamoDB", name, "TableName", VIEWS, "Sum")
}

/// The same of the table's index.
pub(crate) fn units_of_index(name: &'static str) -> Series {
    let mut series = units(name);
    series.dimensions.push(("GlobalSecondaryIndexName", Dimension::Text("by_title")));
    series
}

/// The name by which the dashboard knows the table of the views, be it the stack's own or a shared one.
pub(crate) const VIEWS: &str = "Views";

/// Bytes that a stream took in.
pub(crate) fn bytes_in(stream: &'static str) -> Series {
    Series::aws("AWS/Kinesis", "IncomingBytes", "StreamName", stream, "Sum")
}

/// Records that a stream refused.
pub(crate) fn throttled(stream: &'static str) -> Series {
    Series::aws("AWS/Kinesis", "WriteProvisionedThroughputExceeded", "StreamName", stream, "Sum")
}

/// How old the oldest record is that a delivery stream has not written, in seconds.
pub(crate) fn freshness(delivery: &'static str) -> Series {
    Series::aws("AWS/Firehose", "DeliveryToS3.DataFreshness", "DeliveryStreamName", delivery, "Maximum")
}

/// The API's.
pub(crate) fn api(name: &'static str) -> Series {
    let dimensions = vec![("ApiId", Dimension::Parameter("Api")), ("Stage", Dimension::Text("$default"))];
    Series { namespace: "AWS/ApiGateway", name, dimensions, statistic: "Sum" }
}

/// Objects in a bucket, which S3 counts once a day.
pub(crate) fn objects(bucket: &'static str) -> Series {
    let dimensions =
        vec![("BucketName", Dimension::Parameter(bucket)), ("StorageType", Dimension::Text("AllStorageTypes"))];
    Series { namespace: "AWS/S3", name: "NumberOfObjects", dimensions, statistic: "Average" }
}
