//! Which limit is reached first, and what to do about it.

use super::capacity::{Capacity, LogCapacity};
use super::{Bound, Demand};
use crate::sheet::{Sheet, Term};
use anyhow::Result;

const PART: &str = "limits";

pub(super) fn compute(sheet: &mut Sheet, demand: &Demand, capacity: &Capacity) -> Result<Vec<Bound>> {
    let mut bounds = Bounds { sheet, rate: demand.rate, found: Vec::new() };
    bounds.add(
        "requests per second to the API",
        "http_api.requests_per_s",
        &capacity.posts,
        "raise the account's quota and the stage's throttle (both the same number); or let players send more events in a POST",
    )?;
    let publish = capacity.feed.as_ref().map_or(Term::number(0.0), |feed| feed.publish_concurrency.clone());
    bounds.add(
        "concurrent executions",
        "lambda.concurrency",
        &(&capacity.ingest_concurrency + &capacity.process_concurrency + publish),
        "raise the account's quota; or let players send more events in a POST",
    )?;
    bounds.add(
        "write units per second of the table",
        "dynamodb.table_units_per_s",
        &capacity.units,
        "raise the table's quota; or let players send more events in a POST",
    )?;
    bounds.add(
        "write units per second of a new table",
        "dynamodb.new_table_units_per_s",
        &capacity.units,
        "set the table's warm throughput before the first traffic; it stays",
    )?;
    bounds.add(
        "read units per second of the table",
        "dynamodb.table_read_units_per_s",
        &capacity.reads,
        "raise the table's quota; or let players send more events in a POST",
    )?;
    bounds.add(
        "read units per second of a new table",
        "dynamodb.new_table_read_units_per_s",
        &capacity.reads,
        "set the table's warm throughput before the first traffic; it stays",
    )?;
    if let Some(feed) = &capacity.feed {
        // In on-demand mode, as it is without StreamShards.
        bounds.add(
            "MB/s into a new change feed",
            "kinesis.new_stream_mb_s",
            &feed.mb,
            "give it shards (StreamShards), or set its warm throughput before the first traffic",
        )?;
    }
    if let Some([pollers, _]) = &capacity.pollers {
        bounds.add("pollers in the template", "template.pollers", pollers, "raise MaximumPollers of the mapping")?;
        bounds.add("pollers of a mapping", "lambda.pollers", pollers, "split the topic in two, with a mapping each")?;
    }
    match &capacity.log {
        LogCapacity::Brokers { largest, .. } => {
            let largest = largest.clone();
            bounds.compare(
                "MB/s into the largest cluster",
                &largest,
                &capacity.log_mb,
                "raise the quota on brokers, or use a second cluster",
            );
            bounds.add(
                "IAM connections of a broker",
                "msk.connections",
                &capacity.environments,
                "fewer environments: let players send more events in a POST, or reserve concurrency for ingest; or run it on \
                 managed instances, which this template does not deploy",
            )?;
        }
        LogCapacity::Serverless => bounds.add(
            "MB/s into MSK Serverless",
            "msk.serverless_mb_s",
            &capacity.log_mb,
            "use provisioned brokers",
        )?,
        LogCapacity::Shards(shards) => {
            bounds.add("shards of the account", "kinesis.shards", shards, "raise the quota")?;
        }
        LogCapacity::OnDemand => bounds.add(
            "MB/s into a new stream on demand",
            "kinesis.new_stream_mb_s",
            &capacity.log_mb,
            "set the stream's warm throughput, or give it shards at first",
        )?,
    }
    let mut found = bounds.found;
    found.sort_by(|one, two| one.reached_at.total_cmp(&two.reached_at));
    Ok(found)
}

struct Bounds<'s, 'c> {
    sheet: &'s mut Sheet<'c>,
    rate: f64,
    found: Vec<Bound>,
}

impl Bounds<'_, '_> {
    fn add(&mut self, name: &'static str, key: &str, needed: &Term, advice: &'static str) -> Result<()> {
        let limit = self.sheet.get(key)?;
        self.compare(name, &limit, needed, advice);
        Ok(())
    }

    /// What is needed grows with the rate, so the limit is reached at the rate times what is left of it.
    fn compare(&mut self, name: &'static str, limit: &Term, needed: &Term, advice: &'static str) {
        if needed.value > 0.0 {
            let reached = self.sheet.argument("rate", self.rate) * limit / needed;
            let reached = self.sheet.line(PART, &format!("{name}, reached at"), "events/s", reached);
            let reached_at = reached.value;
            self.found.push(Bound { name, limit: limit.value, needed: needed.value, reached_at, advice });
        }
    }
}
