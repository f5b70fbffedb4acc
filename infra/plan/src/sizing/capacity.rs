//! What a region needs at the peak: requests, records, bytes, concurrency, brokers, capacity, time.

use super::{Approach, Demand, IngestOn, LogService};
use crate::sheet::{Sheet, Term};
use anyhow::Result;

/// The lines that limits and dollars build upon. Rates are per second.
#[derive(Debug)]
pub(super) struct Capacity {
    /// Events at the peak in a region.
    pub(super) events: Term,
    /// Events on average in all regions.
    pub(super) mean: Term,
    /// POSTs at the peak in a region.
    pub(super) posts: Term,
    /// POSTs on average in all regions.
    pub(super) mean_posts: Term,
    /// Environments of `ingest`.
    pub(super) environments: Term,
    /// What they take of the account's concurrency.
    pub(super) ingest_concurrency: Term,
    /// What is paid for a POST, ms.
    pub(super) ingest_billed: Term,
    /// Instances of a region, if `ingest` runs on them.
    pub(super) instances: Option<Term>,
    /// Bytes on the log for each event.
    pub(super) log_bytes: Term,
    /// MB at the peak in a region.
    pub(super) log_mb: Term,
    /// Records on the log for each event.
    pub(super) records_per_event: Term,
    pub(super) partitions: Term,
    pub(super) log: LogCapacity,
    /// Records in a batch, and what an invocation takes, ms.
    pub(super) batch_records: Term,
    pub(super) batch_ms: Term,
    pub(super) process_concurrency: Term,
    /// CPU that folding an event takes, µs.
    pub(super) cpu_per_event: Term,
    pub(super) pollers: Option<[Term; 2]>,
    /// Writes for each event.
    pub(super) writes_per_event: Term,
    /// Write units for each event: of the table, and of its index for new views.
    pub(super) units_per_event: Term,
    /// Write units at the peak. Each region's replica of the table takes the writes of all.
    pub(super) units: Term,
    /// Read units for each event, where it is folded.
    pub(super) reads_per_event: Term,
    /// Read units at the peak in a region.
    pub(super) reads: Term,
    pub(super) feed: Option<FeedCapacity>,
}

/// The change feed of a region. Each region's tells of all changes.
#[derive(Debug)]
pub(super) struct FeedCapacity {
    pub(super) changes_per_event: Term,
    /// Changes at the peak, per second.
    pub(super) changes: Term,
    /// MB at the peak, per second.
    pub(super) mb: Term,
    /// Read units for each change, if there may be parts to join.
    pub(super) reads_per_change: Option<Term>,
    /// What an invocation of `publish` takes, ms.
    pub(super) publish_ms: Term,
    /// Invocations of `publish` at once.
    pub(super) publish_concurrency: Term,
}

/// What holds the log in a region.
#[derive(Debug)]
pub(super) enum LogCapacity {
    /// So many brokers, of so many times the smallest size; and the MB/s that the largest cluster takes.
    Brokers {
        count: Term,
        size: Term,
        largest: Term,
    },
    Serverless,
    Shards(Term),
    OnDemand,
}

/// Sizes of express and standard brokers, as multiples of `m7g.large`.
const SIZES: [f64; 7] = [1.0, 2.0, 4.0, 8.0, 16.0, 24.0, 32.0];
/// A cluster has a multiple of as many brokers.
const ZONES: f64 = 3.0;

pub(super) fn compute(sheet: &mut Sheet, demand: &Demand, approach: Approach) -> Result<Capacity> {
    let (events, mean) = traffic(sheet, demand);
    let events_per_post = sheet.argument("events per POST", demand.events_per_post);
    let posts = sheet.line("traffic", "POSTs", "/s", &events / &events_per_post);
    let mean_posts = sheet.line("traffic", "mean POSTs", "/s", &mean / &events_per_post);
    let ingest = ingest(sheet, demand, &posts)?;
    let (records_per_event, log_bytes) = log_bytes(sheet, approach, &events_per_post)?;
    let records = sheet.line("the log", "records", "/s", &events * &records_per_event);
    let log_mb = sheet.line("the log", "MB into the log", "MB/s", &events * &log_bytes / Term::number(1e6));

    let posts_per_write = sheet.argument("POSTs per write", demand.posts_per_write);
    let writes_per_event = match approach {
        Approach::Playhead => Term::number(1.0) / (&events_per_post * &posts_per_write),
        Approach::WritePerEvent => Term::number(1.0),
        Approach::TwoWritesPerEvent => Term::number(2.0),
    };
    let writes_per_event = sheet.line("the store", "writes per event", "", writes_per_event);
    let batch = batch(sheet, demand, approach, [&events, &records, &records_per_event, &writes_per_event])?;
    let log = log(sheet, demand, [&log_mb, &records, &batch.partitions])?;
    let pollers = match demand.log.is_kafka() {
        true => Some(pollers(sheet, &log_mb, &batch.concurrency)?),
        false => None,
    };

    let per_session = sheet.get("player.events_per_session")?;
    let units_per_view = sheet.get("process.units_per_view")?;
    let units_per_event = &writes_per_event * units_per_view + Term::number(1.0) / per_session;
    let units_per_event = sheet.line("the store", "write units per event", "", units_per_event);
    // An eventually consistent read of up to 4 KB is half a unit. A plain consumer does not read.
    let reads_per_event =
        if approach == Approach::Playhead { &writes_per_event / Term::number(2.0) } else { Term::number(0.0) };
    let reads_per_event = sheet.line("the store", "read units per event", "", reads_per_event);
    let rate = sheet.argument("rate", demand.rate);
    let units = sheet.line("the store", "write units", "/s", rate * &units_per_event);
    let feed = if demand.no_change_feed { None } else { Some(feed(sheet, demand, &writes_per_event, approach)?) };
    let mut reads = &events * &reads_per_event;
    if let Some(FeedCapacity { changes, reads_per_change: Some(each), .. }) = &feed {
        reads = reads + changes * each;
    }
    let reads = sheet.line("the store", "read units", "/s", reads);
    latency(sheet, &ingest, &batch, &records)?;
    Ok(Capacity {
        events,
        mean,
        posts,
        mean_posts,
        environments: ingest.environments,
        ingest_concurrency: ingest.counted,
        ingest_billed: ingest.billed,
        instances: ingest.instances,
        log_bytes,
        log_mb,
        records_per_event,
        partitions: batch.partitions,
        log,
        batch_records: batch.records,
        batch_ms: batch.ms,
        process_concurrency: batch.concurrency,
        cpu_per_event: batch.cpu_per_event,
        pollers,
        writes_per_event,
        units_per_event,
        units,
        reads_per_event,
        reads,
        feed,
    })
}

/// Events per second: at the peak in a region, and on average in all.
fn traffic(sheet: &mut Sheet, demand: &Demand) -> (Term, Term) {
    let rate = sheet.argument("rate", demand.rate);
    let regions = sheet.argument("regions", f64::from(demand.regions));
    // While a region is evacuated the others share its load.
    let share = if demand.regions > 1 { &rate / (&regions - Term::number(1.0)) } else { rate };
    let events = sheet.line("traffic", "events", "/s", share);
    let mean = sheet.argument("mean", demand.mean.unwrap_or(demand.rate));
    (events, sheet.line("traffic", "mean events", "/s", mean))
}

struct Ingest {
    ms: Term,
    billed: Term,
    environments: Term,
    counted: Term,
    instances: Option<Term>,
}

fn ingest(sheet: &mut Sheet, demand: &Demand, posts: &Term) -> Result<Ingest> {
    const PART: &str = "ingest";
    let (one, many) = (sheet.get("ingest.cpu_of_1")?, sheet.get("ingest.cpu_of_500")?);
    let more = sheet.argument("events per POST", demand.events_per_post) - Term::number(1.0);
    let per_event = sheet.line(PART, "CPU of one more event", "µs", (many - &one) / Term::number(499.0));
    let append = sheet.get("assumed.append")?;
    let (millis, micros) = (Term::number(1e3), Term::number(1e6));
    if demand.ingest == IngestOn::ManagedInstances {
        let shared = sheet.get("ingest.cpu_shared")?;
        let cpu = sheet.line(PART, "CPU of a POST", "µs", shared + per_event * more);
        let busy = sheet.get("assumed.busy")?;
        let vcpus = sheet.line(PART, "vCPUs", "", posts * &cpu / micros / busy);
        let vcpu = sheet.get("lambda.managed_instance_vcpu")?;
        let instances = sheet.line(PART, "instances", "", (vcpus / vcpu).ceil());
        let ms = sheet.line(PART, "duration of a POST", "ms", cpu / millis + append);
        // One environment on an instance, so one connection to each broker.
        let environments = sheet.line(PART, "environments of ingest", "", instances.clone());
        let nothing = Term::number(0.0);
        return Ok(Ingest { billed: nothing.clone(), ms, environments, counted: nothing, instances: Some(instances) });
    }
    let cpu = sheet.line(PART, "CPU of a POST", "µs", one + per_event * more);
    let vcpus = sheet.get("template.ingest_memory")? / sheet.get("lambda.mb_per_vcpu")?;
    let vcpus = sheet.line(PART, "vCPUs of ingest", "", vcpus);
    let ms = sheet.line(PART, "duration of a POST", "ms", cpu / millis / vcpus + append);
    let billed = sheet.line(PART, "billed for a POST", "ms", ms.ceil());
    let busy = posts * &ms / Term::number(1e3);
    let environments = sheet.line(PART, "environments of ingest", "", busy.ceil());
    // The quota also limits requests: 10 per second for each, however short they are.
    let counted = posts / sheet.get("lambda.requests_per_environment")?;
    let counted = sheet.line(PART, "concurrency that the quota counts", "", environments.max(counted).ceil());
    if demand.log.is_kafka() {
        // From nothing, each connects to every broker: as fast as Lambda starts them, and as brokers let them in.
        let rate = sheet.get("lambda.environments_per_s")?.min(sheet.get("msk.new_connections_per_s")?);
        sheet.line(PART, "until all are connected, from nothing", "s", &environments / rate);
    }
    Ok(Ingest { ms, billed, environments, counted, instances: None })
}

/// Records and bytes on the log, for each event.
fn log_bytes(sheet: &mut Sheet, approach: Approach, events_per_post: &Term) -> Result<(Term, Term)> {
    const PART: &str = "the log";
    let (batch, record) = (sheet.get("bytes.batch")?, sheet.get("bytes.record")?);
    let (records, bytes) = match approach {
        Approach::Playhead => {
            let (envelope, event) = (sheet.get("bytes.envelope")?, sheet.get("bytes.event")?);
            let post = batch + record + envelope + event * events_per_post;
            (Term::number(1.0) / events_per_post, post / events_per_post)
        }
        _ => (Term::number(1.0), batch / events_per_post + record + sheet.get("bytes.json_event")?),
    };
    let records = sheet.line(PART, "records per event", "", records);
    Ok((records, sheet.line(PART, "bytes per event", "B", bytes)))
}

struct Batch {
    partitions: Term,
    records: Term,
    ms: Term,
    concurrency: Term,
    cpu_per_event: Term,
}

/// Partitions, batches, and how many invocations of `process` run at once.
fn batch(sheet: &mut Sheet, demand: &Demand, approach: Approach, of: [&Term; 4]) -> Result<Batch> {
    const PART: &str = "process";
    let [events, records, records_per_event, writes_per_event] = of;
    let per_partition = sheet.get("template.events_per_partition")?;
    let by_rate = sheet.line("the log", "partitions by rate", "", (events / per_partition).ceil());
    let lanes = demand.partitions.map_or(by_rate, |count| sheet.argument("partitions", count));

    let (size, window) = (sheet.get("template.batch_size")?, sheet.get("template.window")?);
    let in_window = records / &lanes * window;
    let batch_records = sheet.line(PART, "records in a batch", "", in_window.min(size).max(Term::number(1.0)));
    let batch_events = sheet.line(PART, "events in a batch", "", &batch_records / records_per_event);
    let batch_writes = sheet.line(PART, "writes of a batch", "", &batch_events * writes_per_event);
    let cpu = match approach {
        Approach::Playhead => {
            let (few, many) = (sheet.get("process.cpu_at_fold_1_5")?, sheet.get("process.cpu_at_fold_12")?);
            let (fold_few, fold_many) = (Term::number(1.0) / Term::number(1.5), Term::number(1.0) / Term::number(12.0));
            let per_view = sheet.line(PART, "CPU of a view", "µs", (few - &many) / (&fold_few - &fold_many));
            let per_event = sheet.line(PART, "CPU of an event", "µs", many - &per_view * fold_many);
            per_event * &batch_events + per_view * &batch_writes
        }
        _ => sheet.get("reference.cpu")? * &batch_writes,
    };
    let cpu = sheet.line(PART, "CPU of a batch", "ms", cpu / Term::number(1e3));
    let cpu_per_event = &cpu * Term::number(1e3) / &batch_events;
    let cpu_per_event = sheet.line(PART, "CPU per event", "µs", cpu_per_event);
    let vcpus = sheet.get("template.process_memory")? / sheet.get("lambda.mb_per_vcpu")?;
    let vcpus = sheet.line(PART, "vCPUs of process", "", vcpus.min(Term::number(1.0)));
    let rounds = match approach {
        // One round reads the views, another writes them.
        Approach::Playhead => Term::number(2.0) * (&batch_writes / sheet.get("assumed.views_per_round")?).ceil(),
        _ => (&batch_writes / sheet.get("assumed.writes_per_round")?).ceil(),
    };
    let calls = rounds * sheet.get("assumed.call")?;
    let ms = sheet.get("assumed.batch")? + calls + cpu / vcpus;
    let ms = sheet.line(PART, "duration of a batch", "ms", ms);
    let batches = sheet.line(PART, "batches", "/s", records / &batch_records);
    let concurrency = (&batches * &ms / Term::number(1e3)).max(Term::number(1.0));
    let concurrency = sheet.line(PART, "invocations of process at once", "", concurrency);
    // A partition has one batch at a time, and must have time left to catch up.
    let busy = (&concurrency / sheet.get("assumed.busy")?).ceil();
    let partitions = sheet.line("the log", "partitions", "", lanes.max(busy));
    Ok(Batch { partitions, records: batch_records, ms, concurrency, cpu_per_event })
}

fn pollers(sheet: &mut Sheet, log_mb: &Term, concurrency: &Term) -> Result<[Term; 2]> {
    const PART: &str = "process";
    let by_bytes = log_mb / sheet.get("lambda.poller_mb_s")?;
    let by_invocations = concurrency / sheet.get("lambda.poller_invocations")?;
    let pollers = sheet.line(PART, "event pollers", "", by_bytes.max(by_invocations).ceil());
    let by_pollers = &pollers / sheet.get("lambda.epu_pollers")?;
    let by_bytes = log_mb / sheet.get("lambda.epu_mb_s")?;
    let units = sheet.line(PART, "event poller units", "", by_pollers.max(by_bytes).ceil());
    Ok([pollers, units])
}

fn log(sheet: &mut Sheet, demand: &Demand, of: [&Term; 3]) -> Result<LogCapacity> {
    const PART: &str = "the log";
    let [log_mb, records, partitions] = of;
    let kind = match demand.log {
        LogService::MskExpress => "express",
        LogService::MskStandard => "standard",
        LogService::MskServerless => return Ok(LogCapacity::Serverless),
        LogService::KinesisOnDemand => return Ok(LogCapacity::OnDemand),
        LogService::KinesisProvisioned => {
            let by_bytes = log_mb / sheet.get("kinesis.shard_mb_s")?;
            let by_records = records / sheet.get("kinesis.shard_records_per_s")?;
            let busy = sheet.get("assumed.busy")?;
            return Ok(LogCapacity::Shards(sheet.line(PART, "shards", "", (by_bytes.max(by_records) / busy).ceil())));
        }
    };
    let (per_mb, per_partition) =
        (sheet.get(&format!("msk.{kind}_mb_s"))?, sheet.get(&format!("msk.{kind}_partitions"))?);
    let loss = sheet.get("assumed.zone_loss")?;
    // In brokers of the smallest size. Connections do not count: every environment connects to every broker, so more
    // brokers have as many each.
    let by_bytes = log_mb * &loss / &per_mb;
    let by_partitions = partitions * Term::number(ZONES) / per_partition;
    let most = sheet.get("msk.brokers")?;
    let need = |size: f64| {
        let brokers = by_bytes.max(&by_partitions) / Term::number(size);
        (brokers / Term::number(ZONES)).ceil() * Term::number(ZONES)
    };
    // The cheapest cluster: prices grow with sizes, so this is the one with the least left over. If none is large
    // enough, the one that comes closest: the limit on brokers then says so.
    let fits = |size: &f64| need(*size).value <= most.value;
    let cost = |size: &f64| need(*size).value * size;
    let best = SIZES.iter().copied().filter(fits).min_by(|one, two| cost(one).total_cmp(&cost(two)));
    let size = best.unwrap_or(SIZES[SIZES.len() - 1]);
    let count = sheet.line(PART, "brokers", "", need(size));
    let size = sheet.line(PART, "size of a broker", "× m7g.large", Term::number(size));
    let largest = most * Term::number(SIZES[SIZES.len() - 1]) * per_mb / loss;
    let largest = sheet.line(PART, "MB into the largest cluster", "MB/s", largest);
    Ok(LogCapacity::Brokers { count, size, largest })
}

/// What `publish` does in each region, where the table's stream has the changes of all.
fn feed(sheet: &mut Sheet, demand: &Demand, writes_per_event: &Term, approach: Approach) -> Result<FeedCapacity> {
    const PART: &str = "the change feed";
    // The second write of an event, to a table of ids, is no change of a view.
    let per_event = if approach == Approach::TwoWritesPerEvent { Term::number(1.0) } else { writes_per_event.clone() };
    let changes_per_event = sheet.line(PART, "changes per event", "", per_event);
    let rate = sheet.argument("rate", demand.rate);
    let changes = sheet.line(PART, "changes", "/s", rate * &changes_per_event);
    let mb = &changes * sheet.get("bytes.change")? / Term::number(1e6);
    let mb = sheet.line(PART, "MB into the change feed", "MB/s", mb);
    let size = sheet.get("template.batch_size")?;
    let mut ms = sheet.get("assumed.publish")?;
    let mut reads_per_change = None;
    if demand.regions > 1 && approach == Approach::Playhead {
        // A query for each changed session, and none changes twice in a batch's second. It is a consistent read of up
        // to 4 KB: a unit.
        reads_per_change = Some(sheet.line(PART, "read units per change", "", Term::number(1.0)));
        ms = ms + (&size / sheet.get("assumed.joins_per_round")?).ceil() * sheet.get("assumed.call")?;
    }
    let publish_ms = sheet.line(PART, "duration of publish", "ms", ms);
    let at_once = &changes / size * &publish_ms / Term::number(1e3);
    let publish_concurrency =
        sheet.line(PART, "invocations of publish at once", "", at_once.max(Term::number(1.0)).ceil());
    Ok(FeedCapacity { changes_per_event, changes, mb, reads_per_change, publish_ms, publish_concurrency })
}

/// When a device is answered, and when its events are readable.
fn latency(sheet: &mut Sheet, ingest: &Ingest, batch: &Batch, records: &Term) -> Result<()> {
    const PART: &str = "latency";
    let answered = sheet.get("assumed.gateway")? + &ingest.ms;
    let answered = sheet.line(PART, "answered after", "ms", answered);
    let fill = (&batch.records * &batch.partitions / records).min(sheet.get("template.window")?);
    let wait = sheet.line(PART, "waits for its batch, at most", "ms", fill * Term::number(1e3));
    // The batch before it may have to end first.
    let applied = &batch.ms * Term::number(2.0);
    sheet.line(PART, "readable after, at most", "ms", answered + wait + applied);
    Ok(())
}
