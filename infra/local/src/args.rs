//! The options of a local cloud, shared by `playhead local up`, `playhead local serve` and
//! `playhead demo`.

use super::cloud::{
    Brokers, DEFAULT_BROKERS, DEFAULT_REGION, DEFAULT_REPLICATION_DELAY, LocalOptions, Primary, Standby,
};
use anyhow::{Context as _, Result, ensure};
use playback::routing::Regions;
use playback::session::Home;
use std::time::Duration;

/// Options of a local cloud.
#[derive(Debug, clap::Args)]
pub struct CloudArgs {
    /// Deploy to this AWS emulator, which you run, such as LocalStack [default: one of ours]
    ///
    /// The run tries what the emulator can do, leaves out what it cannot, uses names of its own,
    /// and deletes all that it made at the end. Functions must reach the brokers: with an emulator
    /// in Docker, see --kafka and --function-kafka.
    #[arg(long, value_name = "URL", value_parser = emulator, help_heading = "AWS")]
    aws: Option<String>,
    /// The brokers of --kafka as the functions of --aws reach them, if that is another address
    #[arg(long, value_name = "HOST:PORT[,…]", requires_all = ["aws", "kafka"], value_parser = addresses, help_heading = "AWS")]
    function_kafka: Option<String>,
    #[command(flatten)]
    regions: RegionArgs,
    #[command(flatten)]
    log: LogArgs,
}

/// Accepts the URL of an endpoint, without a path. AWS itself is not for this.
fn emulator(url: &str) -> Result<String, String> {
    let url = url.trim_end_matches('/');
    let host = url.strip_prefix("http://").or_else(|| url.strip_prefix("https://"));
    match host {
        Some(host) if host.contains(".amazonaws.") => Err("this is AWS itself: see docs/deploy.md".to_owned()),
        Some(host) if !host.is_empty() && !host.contains(['/', '?', '#', '@']) => Ok(url.to_owned()),
        _ => Err("must be a URL such as http://localhost:4566".to_owned()),
    }
}

/// Options of its regions.
#[derive(Debug, clap::Args)]
#[command(next_help_heading = "Regions")]
struct RegionArgs {
    /// AWS regions to run side by side, each a whole local cloud; other commands use the first one
    #[arg(long, value_name = "REGION[,…]", value_delimiter = ',', value_parser = region, default_value = DEFAULT_REGION)]
    regions: Vec<String>,
    /// How long a change of a view takes to reach the other regions, in milliseconds [default: 500]
    #[arg(long, value_name = "MS")]
    replication_delay: Option<u64>,
}

/// Accepts any well-formed region name: the emulator runs any.
fn region(name: &str) -> Result<String, String> {
    let mut parts = name.split('-');
    let letters = |part: &str| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_lowercase());
    let number = parts.next_back().is_some_and(|part| part.parse::<u8>().is_ok());
    let well_formed = number && parts.clone().count() >= 2 && parts.all(letters) && Home::of_region(name).is_some();
    if well_formed { Ok(name.to_owned()) } else { Err("not a valid region name, such as us-west-2".to_owned()) }
}

impl CloudArgs {
    /// The options of the run with this name.
    ///
    /// # Errors
    /// If options exclude each other, or outside a workspace.
    pub fn options(&self, run: &str) -> Result<LocalOptions> {
        let RegionArgs { regions, replication_delay } = &self.regions;
        ensure!(self.aws.is_none() || regions.len() == 1, "--aws has one region: each of several has its own emulator");
        let here = regions.first().map_or(DEFAULT_REGION, String::as_str);
        Regions::parse(here, &regions.join(",")).context("--regions")?;
        ensure!(regions.len() > 1 || replication_delay.is_none(), "--replication-delay needs several --regions");
        let options = self.log.options(run)?;
        Ok(LocalOptions {
            region: here.to_owned(),
            aws: self.aws.clone(),
            function_kafka: self.function_kafka.clone(),
            regions: if regions.len() > 1 { regions.clone() } else { Vec::new() },
            replication_delay: replication_delay.map_or(DEFAULT_REPLICATION_DELAY, Duration::from_millis),
            ..options
        })
    }

    /// The arguments that give another process the same options.
    pub(super) fn as_arguments(&self) -> Vec<String> {
        let RegionArgs { regions, replication_delay } = &self.regions;
        let mut arguments = vec!["--regions".to_owned(), regions.join(",")];
        arguments.extend(self.aws.iter().flat_map(|url| ["--aws".to_owned(), url.clone()]));
        let function_kafka = self.function_kafka.iter();
        arguments.extend(function_kafka.flat_map(|them| ["--function-kafka".to_owned(), them.clone()]));
        arguments.extend(replication_delay.iter().flat_map(|ms| ["--replication-delay".to_owned(), ms.to_string()]));
        arguments.extend(self.log.as_arguments());
        arguments
    }
}

/// Options of the durable log.
#[derive(Debug, clap::Args)]
#[command(next_help_heading = "Durable log")]
pub struct LogArgs {
    /// Service of the primary log
    #[arg(long, value_enum, default_value_t)]
    primary: Primary,
    /// Brokers of a primary log on Kafka [default: embedded]
    ///
    /// `embedded`: one small broker in memory, ready at once. `apache`: a cluster of Apache Kafka
    /// with three copies of each record, two of which must be in sync (needs Java 17, and Maven the
    /// first time). HOST:PORT[,…]: your own brokers, without encryption; the run creates its own
    /// topic there and deletes it at the end.
    #[arg(long, value_name = "embedded|apache|HOST:PORT[,…]")]
    kafka: Option<Brokers>,
    /// Number of brokers in each Apache Kafka cluster, 1 to 5 [default: 3]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=5))]
    brokers: Option<u16>,
    /// Service of the standby log, which accepts what the primary cannot
    #[arg(long, value_enum, default_value_t)]
    standby: Standby,
}

/// Accepts addresses of brokers.
fn addresses(text: &str) -> Result<String, String> {
    match text.parse() {
        Ok(Brokers::At(addresses)) => Ok(addresses),
        _ => Err("must be brokers as HOST:PORT[,…]".to_owned()),
    }
}

impl LogArgs {
    /// The options of the run with this name, in one region.
    ///
    /// # Errors
    /// If options exclude each other, or outside a workspace.
    pub fn options(&self, run: &str) -> Result<LocalOptions> {
        let Self { primary, kafka, brokers, standby } = self;
        ensure!(
            kafka.is_none() || *primary == Primary::Kafka,
            "--kafka chooses the primary log's brokers: it does not go with --primary {}",
            primary.name()
        );
        ensure!(
            brokers.is_none() || *kafka == Some(Brokers::Apache) || *standby == Standby::Apache,
            "--brokers is for Apache Kafka clusters: add --kafka apache or --standby apache"
        );
        Ok(LocalOptions {
            primary: *primary,
            standby: *standby,
            kafka: kafka.clone().unwrap_or_default(),
            brokers: brokers.unwrap_or(DEFAULT_BROKERS),
            ..LocalOptions::named(run)?
        })
    }

    /// The arguments that give another process the same options.
    fn as_arguments(&self) -> Vec<String> {
        let Self { primary, kafka, brokers, standby } = self;
        let mut arguments = ["--primary", primary.name(), "--standby", standby.name()].map(str::to_owned).to_vec();
        arguments.extend(kafka.iter().flat_map(|kafka| ["--kafka".to_owned(), kafka.to_string()]));
        arguments.extend(brokers.iter().flat_map(|brokers| ["--brokers".to_owned(), brokers.to_string()]));
        arguments
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::{Parser, ValueEnum as _};

    #[derive(Debug, Parser)]
    struct Serve {
        #[command(flatten)]
        cloud: CloudArgs,
    }

    fn parse(arguments: &[&str]) -> Result<LocalOptions, String> {
        let all = std::iter::once(&"serve").chain(arguments);
        let Serve { cloud } = Serve::try_parse_from(all).map_err(|error| error.to_string())?;
        cloud.options("args-test").map_err(|error| error.to_string())
    }

    #[track_caller]
    fn refused(arguments: &[&str], because: &str) {
        let error = parse(arguments).unwrap_err();
        assert!(error.contains(because), "{error}");
    }

    #[test]
    fn background_process_gets_the_same_arguments() {
        for primary in Primary::value_variants() {
            for standby in Standby::value_variants() {
                for kafka in [None, Some("embedded"), Some("apache"), Some("b1:9092,b2:9092")] {
                    for brokers in [None, Some(1)] {
                        let kafka = kafka.map(|kafka| kafka.parse().unwrap());
                        let regions = RegionArgs {
                            regions: ["us-east-1", "us-west-2"].map(str::to_owned).to_vec(),
                            replication_delay: brokers.map(u64::from),
                        };
                        let here = brokers.is_some();
                        let aws = here.then(|| "http://localhost:4566".to_owned());
                        let function_kafka = (here && kafka.is_some()).then(|| "kafka:19092".to_owned());
                        let log = LogArgs { primary: *primary, kafka, brokers, standby: *standby };
                        let given = CloudArgs { aws, function_kafka, regions, log };
                        let again = std::iter::once("serve".to_owned()).chain(given.as_arguments());
                        let taken = Serve::parse_from(again).cloud;
                        assert_eq!(format!("{taken:?}"), format!("{given:?}"));
                    }
                }
            }
        }
    }

    #[test]
    fn brokers_are_chosen_by_name_or_by_address() {
        let chosen = |text: &str| parse(&["--kafka", text]).unwrap().kafka;
        assert_eq!(chosen("embedded"), Brokers::Embedded);
        assert_eq!(chosen("apache"), Brokers::Apache);
        assert_eq!(chosen("b1:9092,[::1]:9093"), Brokers::At("b1:9092,[::1]:9093".to_owned()));
        assert_eq!(parse(&[]).unwrap().kafka, Brokers::Embedded);
        refused(&["--kafka", "apace"], "must be `embedded`, `apache`, or brokers as HOST:PORT");
        refused(&["--kafka", "b1:9092,b2"], "HOST:PORT");
        refused(&["--kafka", "b1:99999"], "HOST:PORT");
    }

    #[test]
    fn emulator_of_the_user_is_a_url_and_not_aws_itself() {
        let given = parse(&["--aws", "http://localhost:4566/", "--kafka", "b:1", "--function-kafka", "k:2"]).unwrap();
        assert_eq!(given.aws.as_deref(), Some("http://localhost:4566"));
        assert_eq!(given.brokers_for_functions().as_deref(), Some("k:2"));
        let same = parse(&["--aws", "http://localhost:4566", "--kafka", "b:1"]).unwrap();
        assert_eq!(same.brokers_for_functions().as_deref(), Some("b:1"));
        for wrong in ["localhost:4566", "http://", "http://localhost/path", "ftp://localhost"] {
            refused(&["--aws", wrong], "must be a URL");
        }
        refused(&["--aws", "https://lambda.us-east-1.amazonaws.com"], "AWS itself");
        refused(&["--aws", "http://localhost:4566", "--regions", "us-east-1,us-west-2"], "one region");
        refused(&["--kafka", "b:1", "--function-kafka", "k:2"], "--aws");
        refused(&["--aws", "http://localhost:4566", "--kafka", "b:1", "--function-kafka", "apache"], "HOST:PORT");
    }

    #[test]
    fn regions_have_aws_names_and_are_named_once() {
        let one = parse(&["--regions", "eu-west-1"]).unwrap();
        assert_eq!((one.region.as_str(), one.regions.len()), ("eu-west-1", 0));
        let two = parse(&["--regions", "us-east-1,us-gov-west-1", "--replication-delay", "7"]).unwrap();
        assert_eq!((two.region.as_str(), two.regions.join(" ")), ("us-east-1", "us-east-1 us-gov-west-1".to_owned()));
        assert_eq!(two.replication_delay, Duration::from_millis(7));
        assert_eq!(parse(&[]).unwrap().region, "us-east-1");
        for wrong in ["us-east", "useast1", "us-1", "", "US-EAST-1", "us-east-1,,us-west-2", "us--1"] {
            refused(&["--regions", wrong], "not a valid region name");
        }
        refused(&["--regions", "us-east-1,us-east-1"], "--regions");
        refused(&["--replication-delay", "7"], "several --regions");
    }

    #[test]
    fn options_that_exclude_each_other_are_refused() {
        assert_eq!(parse(&["--kafka", "apache"]).unwrap().brokers, 3);
        assert_eq!(parse(&["--standby", "apache", "--brokers", "1"]).unwrap().brokers, 1);
        refused(&["--brokers", "3"], "--kafka apache or --standby apache");
        refused(&["--kafka", "apache", "--brokers", "6"], "6 is not in 1..=5");
        refused(&["--primary", "kinesis", "--kafka", "apache"], "does not go with --primary kinesis");
    }
}
