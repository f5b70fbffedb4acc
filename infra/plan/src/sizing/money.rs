//! Dollars a month, by part. What is paid by use follows the mean rate; what is provisioned is there
//! for the peak, in every region.

use super::capacity::{Capacity, FeedCapacity, LogCapacity};
use super::{Demand, Dollars, LogService, Processor};
use crate::sheet::{Sheet, Term};
use anyhow::Result;

const PART: &str = "dollars";
const HOURS: f64 = 730.0;
const DAYS: f64 = 365.0 / 12.0;

pub(super) fn compute(sheet: &mut Sheet, demand: &Demand, capacity: &Capacity) -> Result<Vec<Dollars>> {
    let hours = sheet.line("the month", "hours", "h", Term::number(HOURS));
    let seconds = sheet.line("the month", "seconds", "s", &hours * Term::number(3_600.0));
    let events = sheet.line("the month", "events a month", "", &capacity.mean * &seconds);
    let posts = sheet.line("the month", "POSTs a month", "", &capacity.mean_posts * &seconds);
    let batches = &events * &capacity.records_per_event / &capacity.batch_records;
    let batches = sheet.line("the month", "batches a month", "", batches);
    let gb_s = |sheet: &mut Sheet, name, memory, times: &Term, ms: &Term| -> Result<Term> {
        let memory = sheet.get(memory)? / Term::number(1_024.0);
        Ok(sheet.line("the month", name, "GB-s", times * ms / Term::number(1e3) * memory))
    };
    let ingest_gb_s = gb_s(sheet, "GB-s of ingest", "template.ingest_memory", &posts, &capacity.ingest_billed)?;
    let process_gb_s = gb_s(sheet, "GB-s of process", "template.process_memory", &batches, &capacity.batch_ms.ceil())?;
    let mut month = Month {
        sheet,
        demand,
        capacity,
        hours,
        events,
        posts,
        batches,
        ingest_gb_s,
        process_gb_s,
        gb_second: Term::number(0.0),
        found: Vec::new(),
    };
    month.gb_second = month.gb_second()?;
    month.edge()?;
    month.ingest()?;
    month.log()?;
    month.process()?;
    month.store()?;
    month.change_feed()?;
    month.logs()?;
    month.regions()?;
    month.elsewhere()?;
    Ok(month.found)
}

struct Month<'s, 'c> {
    sheet: &'s mut Sheet<'c>,
    demand: &'s Demand,
    capacity: &'s Capacity,
    hours: Term,
    events: Term,
    posts: Term,
    batches: Term,
    ingest_gb_s: Term,
    process_gb_s: Term,
    /// Its mean price, dollars.
    gb_second: Term,
    found: Vec<Dollars>,
}

impl Month<'_, '_> {
    fn pay(&mut self, part: &'static str, term: Term) {
        let dollars = self.sheet.line(PART, part, "$/month", term).value;
        self.found.push(Dollars { part, on_demand: dollars, provisioned: dollars });
    }

    fn regions_count(&mut self) -> Term {
        self.sheet.argument("regions", f64::from(self.demand.regions))
    }

    fn edge(&mut self) -> Result<()> {
        let price = self.sheet.get_per_million("http_api.request")?;
        let term = &self.posts * price;
        self.pay("the API", term);
        Ok(())
    }

    /// The mean price of a GB-second, in the tiers that all functions together reach.
    fn gb_second(&mut self) -> Result<Term> {
        let (arch, widths) = match self.demand.arch {
            Processor::X86 => ("x86", [6e9, 9e9]),
            Processor::Arm64 => ("arm", [7.5e9, 11.25e9]),
        };
        let total = self.sheet.line("the month", "GB-seconds", "GB-s", &self.ingest_gb_s + &self.process_gb_s);
        let keys = ["", "_2", "_3"].map(|tier| format!("lambda.gb_s_{arch}{tier}"));
        let bill = self.tiers(&total, &widths, &keys.each_ref().map(String::as_str), 1e6)?;
        Ok(self.sheet.line("the month", "mean price of a GB-second", "$", bill / total))
    }

    /// The bill of an amount that is priced in tiers of these widths, the last without end.
    fn tiers(&mut self, amount: &Term, widths: &[f64], keys: &[&str], per: f64) -> Result<Term> {
        let mut bill: Option<Term> = None;
        let mut below = 0.0;
        for (index, key) in keys.iter().enumerate() {
            let above = (amount - Term::number(below)).max(Term::number(0.0));
            let part = widths.get(index).map_or(above.clone(), |width| above.min(Term::number(*width)));
            below += widths.get(index).copied().unwrap_or_default();
            let dollars = part * (self.sheet.get(key)? / Term::number(per));
            bill = Some(bill.map_or(dollars.clone(), |bill| bill + dollars));
        }
        Ok(bill.unwrap_or(Term::number(0.0)))
    }

    fn ingest(&mut self) -> Result<()> {
        let mut term = &self.posts * self.sheet.get_per_million("lambda.request")?;
        term = match &self.capacity.instances {
            Some(instances) => {
                let regions = self.regions_count();
                term + instances * self.sheet.get("lambda.managed_instance")? * &self.hours * regions
            }
            None => term + &self.ingest_gb_s * &self.gb_second,
        };
        self.pay("ingest", term);
        Ok(())
    }

    fn log(&mut self) -> Result<()> {
        let regions = self.regions_count();
        let bytes = &self.events * &self.capacity.log_bytes;
        let gb = self.sheet.line("the month", "GB into the log", "GB", bytes / Term::number(1e9));
        let retention = self.sheet.argument("log retention, days", self.demand.log_retention.as_secs_f64() / 86_400.0);
        let kept = &gb / Term::number(DAYS) * &retention;
        let kept = self.sheet.line("the month", "GB on the log", "GB", kept);
        let records = &self.events * &self.capacity.records_per_event;
        let hours = self.hours.clone();
        let term = match (&self.capacity.log, self.demand.log) {
            (LogCapacity::Brokers { count, size, .. }, LogService::MskExpress) => {
                let brokers = count * size * self.sheet.get("msk.express_broker")? * hours * regions;
                let written = &gb * self.sheet.get("msk.express_ingest")?;
                brokers + written + kept * self.sheet.get("msk.storage")?
            }
            (LogCapacity::Brokers { count, size, .. }, _) => {
                let brokers = count * size * self.sheet.get("msk.standard_broker")? * hours * regions;
                // Each of three replicas has its volume, which must not be full.
                let volumes = kept * Term::number(3.0) / self.sheet.get("assumed.busy")?;
                brokers + volumes * self.sheet.get("msk.storage")?
            }
            (LogCapacity::Serverless, _) => {
                let partition = self.sheet.get("msk.serverless_partition")?;
                let standing = self.sheet.get("msk.serverless_cluster")? + &self.capacity.partitions * partition;
                let moved = &gb * (self.sheet.get("msk.serverless_in")? + self.sheet.get("msk.serverless_out")?);
                standing * hours * regions + moved + kept * self.sheet.get("msk.storage")?
            }
            (LogCapacity::Shards(shards), _) => {
                let mut an_hour = self.sheet.get("kinesis.shard")?;
                if retention.value > 1.0 {
                    an_hour = an_hour + self.sheet.get("kinesis.shard_retention")?;
                }
                shards * an_hour * hours * regions + records * self.sheet.get_per_million("kinesis.put")?
            }
            (LogCapacity::OnDemand, _) => {
                let step = self.sheet.get("kinesis.rounding")?;
                let bytes_per_record = &self.capacity.log_bytes / &self.capacity.records_per_event;
                let billed = records * (bytes_per_record / &step).ceil() * step / Term::number(1e9);
                let billed = self.sheet.line("the month", "GB billed by Kinesis", "GB", billed);
                let moved = billed * (self.sheet.get("kinesis.gb_in")? + self.sheet.get("kinesis.gb_out")?);
                let days = (&retention - Term::number(1.0)).max(Term::number(0.0));
                let kept = &gb / Term::number(DAYS) * days * self.sheet.get("kinesis.gb_retention")?;
                moved + kept + self.sheet.get("kinesis.stream")? * hours * regions
            }
        };
        self.pay("the log", term);
        if self.demand.log.is_kafka() {
            let other_zone = self.sheet.get("assumed.other_zone")?;
            let term = gb * other_zone * self.sheet.get("transfer.zone")?;
            self.pay("between zones", term);
        }
        Ok(())
    }

    fn process(&mut self) -> Result<()> {
        if let Some([_, units]) = &self.capacity.pollers {
            let regions = self.regions_count();
            let term = units * self.sheet.get("lambda.epu")? * &self.hours * regions;
            self.pay("pollers", term);
        }
        let requests = &self.batches * self.sheet.get_per_million("lambda.request")?;
        let term = requests + &self.process_gb_s * &self.gb_second;
        self.pay("process", term);
        Ok(())
    }

    fn store(&mut self) -> Result<()> {
        let regions = self.regions_count();
        let (write, read) = (
            self.sheet.get_per_million("dynamodb.write_request")?,
            self.sheet.get_per_million("dynamodb.read_request")?,
        );
        // Every region's replica takes every write. Only the home region reads to fold; every region's `publish` reads
        // to join.
        let writes = &self.events * &self.capacity.units_per_event * &regions * write;
        let mut reads = &self.events * &self.capacity.reads_per_event * &read;
        if let Some(FeedCapacity { changes_per_event, reads_per_change: Some(each), .. }) = &self.capacity.feed {
            reads = reads + &self.events * changes_per_event * each * &regions * read;
        }
        let on_demand = self.sheet.line(PART, "the store, on demand", "$/month", writes + reads);

        let busy = self.sheet.get("assumed.busy")?;
        let units = &self.capacity.units / &busy;
        let units = self.sheet.line("the store", "write capacity of a replica", "/s", units);
        let read_units = &self.capacity.reads / busy;
        let writes = units * self.sheet.get("dynamodb.write_capacity")?;
        let reads = read_units * self.sheet.get("dynamodb.read_capacity")?;
        let term = (writes + reads) * &self.hours * &regions;
        let provisioned = self.sheet.line(PART, "the store, provisioned", "$/month", term);
        self.found.push(Dollars { part: "the store", on_demand: on_demand.value, provisioned: provisioned.value });

        let sessions = &self.events / self.sheet.get("player.events_per_session")?;
        let days = self.sheet.argument("history, days", self.demand.history.as_secs_f64() / 86_400.0);
        let views = sessions / Term::number(DAYS) * days;
        let views = self.sheet.line("the store", "views kept", "", views);
        let overhead = self.sheet.get("dynamodb.item_overhead")?;
        let bytes = self.sheet.get("bytes.item")? + self.sheet.get("bytes.index")? + overhead * Term::number(2.0);
        let gb = self.sheet.line("the store", "GB of views", "GB", views * bytes / Term::number(1e9));
        let price = self.sheet.get("dynamodb.storage")? + self.sheet.get("dynamodb.recovery")?;
        self.pay("storage", gb * price * regions);
        Ok(())
    }

    fn change_feed(&mut self) -> Result<()> {
        let Some(feed) = &self.capacity.feed else { return Ok(()) };
        // Each region's feed tells of all changes.
        let changes = &self.events * &feed.changes_per_event * self.regions_count();
        let changes = self.sheet.line("the month", "changes a month, in all feeds", "", changes);
        let step = self.sheet.get("kinesis.rounding")?;
        let billed = (self.sheet.get("bytes.change")? / &step).ceil() * step;
        let gb = self.sheet.line("the month", "GB of changes, as billed", "GB", &changes * billed / Term::number(1e9));
        let kept = &gb / Term::number(DAYS) * Term::number(6.0) * self.sheet.get("kinesis.gb_retention")?;
        // One consumer reads it.
        let moved = gb * (self.sheet.get("kinesis.gb_in")? + self.sheet.get("kinesis.gb_out")?);
        let batches = changes / self.sheet.get("template.batch_size")?;
        let memory = self.sheet.get("template.publish_memory")? / Term::number(1_024.0);
        let time = &batches * (&feed.publish_ms / Term::number(1e3)) * memory * &self.gb_second;
        let term = moved + kept + batches * self.sheet.get_per_million("lambda.request")? + time;
        self.pay("the change feed", term);
        Ok(())
    }

    fn logs(&mut self) -> Result<()> {
        let platform = self.sheet.get("bytes.platform_log")?;
        let ingest = &self.posts * (self.sheet.get("bytes.ingest_log")? + &platform);
        let process = &self.batches * (self.sheet.get("bytes.process_log")? + platform);
        let gb = self.sheet.line("the month", "GB of log lines", "GB", (ingest + process) / Term::number(1e9));
        let keys = ["logs.tier_1", "logs.tier_2", "logs.tier_3", "logs.tier_4"];
        let term = self.tiers(&gb, &[10e3, 20e3, 20e3], &keys, 1.0)?;
        self.pay("log lines", term);
        Ok(())
    }

    /// What crosses from region to region: replicas of views, and forwarded events.
    fn regions(&mut self) -> Result<()> {
        if self.demand.regions < 2 {
            return Ok(());
        }
        let others = self.regions_count() - Term::number(1.0);
        let away = self.sheet.argument("away", self.demand.away);
        let forwarded = self.sheet.line("the month", "events forwarded", "", &self.events * away);
        let item = self.sheet.get("bytes.item")?;
        let replicas = &self.events * &self.capacity.writes_per_event * item * others;
        let bytes = replicas + &forwarded * self.sheet.get("assumed.forward_bytes")?;
        let gb = self.sheet.line("the month", "GB between regions", "GB", bytes / Term::number(1e9));
        // A message is sent, received and deleted.
        let requests = forwarded * self.sheet.get("assumed.forward_requests")? * Term::number(3.0);
        let requests = requests * self.sheet.get_per_million("sqs.request")?;
        let term = gb * self.sheet.get("transfer.region")? + requests;
        self.pay("between regions", term);
        Ok(())
    }

    /// What folding would cost on other platforms. It is in no total.
    fn elsewhere(&mut self) -> Result<()> {
        const PART: &str = "elsewhere";
        let regions = self.regions_count();
        let cpu = &self.capacity.cpu_per_event / Term::number(1e6) / self.sheet.get("assumed.busy")?;
        let vcpus = (&self.capacity.events * cpu).ceil();
        let vcpus = self.sheet.line(PART, "vCPUs to fold at the peak", "", vcpus);
        let task = self.sheet.get("fargate.vcpu")? + Term::number(2.0) * self.sheet.get("fargate.gb")?;
        let tasks = &vcpus * task * &self.hours * &regions;
        self.sheet.line(PART, "tasks of Fargate, a month", "$/month", tasks);
        // An application pays for one more, which coordinates.
        let kpus = (vcpus + Term::number(1.0)) * self.sheet.get("flink.kpu")? * &self.hours * regions;
        self.sheet.line(PART, "KPUs of Flink, a month", "$/month", kpus);
        Ok(())
    }
}
