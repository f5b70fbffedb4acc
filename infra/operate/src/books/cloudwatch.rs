//! Reads the books of a stack from CloudWatch, which extracts metrics from the functions' logs.
//!
//! CloudWatch extracts a metric from a log event at least once ("Specification: Embedded metric
//! format"). So a sum is sometimes a little too high. The views are authoritative.

use super::Minute;
use super::sums::MINUTE_MS;
use anyhow::{Context as _, Result, ensure};
use aws_config::SdkConfig;
use aws_sdk_cloudwatch::Client;
use aws_sdk_cloudwatch::primitives::DateTime;
use aws_sdk_cloudwatch::types::{Dimension, Metric, MetricDataQuery, MetricDataResult, MetricStat, StatusCode};
use lambda::metrics::NAMESPACE;
use std::collections::BTreeMap;

/// The metrics that the books are made of.
const METRICS: [&str; 11] = [
    "EventsAccepted",
    "EventsApplied",
    "EventsDuplicate",
    "EventsRetried",
    "EventsDead",
    "EventsRedriven",
    "EventsUnclaimed",
    "EventsForwarded",
    "EventsArrived",
    "HolesOpened",
    "HolesClosed",
];
/// Maximum number of queries in one GetMetricData.
const QUERIES: usize = 500;

/// The books of these functions by minute (Unix milliseconds), from the minute of `since` until
/// now.
///
/// # Errors
/// If a call to CloudWatch fails, or CloudWatch has only a part of the data.
pub async fn minutes(
    sdk: &SdkConfig,
    stage: &str,
    functions: &[&str],
    since: u64,
    now: u64,
) -> Result<BTreeMap<u64, Minute>> {
    let client = Client::new(sdk);
    let series: Vec<(&str, &str)> =
        METRICS.iter().flat_map(|metric| functions.iter().map(move |function| (*metric, *function))).collect();
    let mut minutes = BTreeMap::<u64, Minute>::new();
    for series in series.chunks(QUERIES) {
        let queries = series.iter().enumerate().map(|(at, (metric, function))| query(at, metric, stage, function));
        let call = client
            .get_metric_data()
            .set_metric_data_queries(Some(queries.collect()))
            .start_time(time(since - since % MINUTE_MS)?)
            .end_time(time(now)?);
        let mut pages = call.into_paginator().send();
        while let Some(page) = pages.next().await {
            for found in page.context("reading the books from CloudWatch")?.metric_data_results.unwrap_or_default() {
                add(&mut minutes, series, &found)?;
            }
        }
    }
    Ok(minutes)
}

/// Adds the answer to one of these queries. A page may have only some of its values. The others
/// follow on the next page.
fn add(minutes: &mut BTreeMap<u64, Minute>, series: &[(&str, &str)], found: &MetricDataResult) -> Result<()> {
    let whole = matches!(found.status_code, Some(StatusCode::Complete | StatusCode::PartialData));
    ensure!(whole, "CloudWatch has incomplete data: {found:?}");
    let at: Option<usize> = found.id().and_then(|id| id.strip_prefix('q')?.parse().ok());
    let (metric, _) = at.and_then(|at| series.get(at)).context("CloudWatch answered a query that was not sent")?;
    for (at, value) in found.timestamps().iter().zip(found.values()) {
        let at = u64::try_from(at.to_millis()?)?;
        let minute = minutes.entry(at - at % MINUTE_MS).or_default();
        // Sums of whole numbers, far below 2^53.
        *minute.count(metric).context("CloudWatch answered with a metric that is not in the books")? +=
            value.round() as u64;
    }
    Ok(())
}

fn query(at: usize, metric: &str, stage: &str, function: &str) -> MetricDataQuery {
    let dimension = |name: &str, value: &str| Dimension::builder().name(name).value(value).build();
    let metric = Metric::builder().namespace(NAMESPACE).metric_name(metric);
    let metric = metric.dimensions(dimension("Stage", stage)).dimensions(dimension("Function", function)).build();
    let sum = MetricStat::builder().metric(metric).period(60).stat("Sum").build();
    MetricDataQuery::builder().id(format!("q{at}")).metric_stat(sum).build()
}

fn time(ms: u64) -> Result<DateTime> {
    Ok(DateTime::from_millis(i64::try_from(ms)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_queried_metric_is_in_the_books() {
        for metric in METRICS {
            assert!(Minute::default().count(metric).is_some(), "{metric}");
        }
    }

    #[test]
    fn answers_add_up_by_minute_and_a_failed_one_is_an_error() {
        let series = [("EventsAccepted", "ingest"), ("EventsApplied", "process"), ("EventsApplied", "retry")];
        let answer = |id: &str, status: StatusCode, values: &[(i64, f64)]| {
            let (at, values): (Vec<i64>, Vec<f64>) = values.iter().copied().unzip();
            let at = at.into_iter().map(DateTime::from_secs).collect();
            let answer = MetricDataResult::builder().id(id).status_code(status);
            answer.set_timestamps(Some(at)).set_values(Some(values)).build()
        };
        let mut minutes = BTreeMap::new();
        for found in [
            answer("q0", StatusCode::PartialData, &[(60, 7.0)]),
            answer("q0", StatusCode::Complete, &[(120, 3.0)]),
            answer("q1", StatusCode::Complete, &[(60, 4.0), (120, 3.0)]),
            answer("q2", StatusCode::Complete, &[(60, 2.0)]),
        ] {
            add(&mut minutes, &series, &found).unwrap();
        }
        let first = Minute { accepted: 7, applied: 6, ..Minute::default() };
        let second = Minute { accepted: 3, applied: 3, ..Minute::default() };
        assert_eq!(minutes, BTreeMap::from([(60_000, first), (120_000, second)]));
        for bad in [answer("q0", StatusCode::InternalError, &[]), answer("q3", StatusCode::Complete, &[])] {
            assert!(add(&mut minutes, &series, &bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn query_asks_for_one_functions_sum_per_minute() {
        let query = query(3, "EventsApplied", "prod", "playhead-process");
        let (id, stat) = (query.id().unwrap(), query.metric_stat().unwrap());
        let metric = stat.metric().unwrap();
        assert_eq!((id, stat.period(), stat.stat()), ("q3", Some(60), Some("Sum")));
        assert_eq!((metric.namespace(), metric.metric_name()), (Some("Playhead"), Some("EventsApplied")));
        let dimensions: Vec<_> =
            metric.dimensions().iter().map(|one| (one.name().unwrap(), one.value().unwrap())).collect();
        assert_eq!(dimensions, [("Stage", "prod"), ("Function", "playhead-process")]);
    }
}
