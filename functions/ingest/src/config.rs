//! Configuration of `ingest`.

use lambda::auth::AuthConfig;
use lambda::config::{Common, Env};
use lambda::http_client::is_private;
use playback::edge::SessionWindow;
use playback::routing::Regions;
use std::collections::BTreeSet;
use std::time::Duration;
use stream::{KafkaConfig, KafkaSecurity, KinesisConfig, LogConfig};
use url::Url;

/// Configuration of `ingest`.
#[derive(Debug, Clone)]
pub struct Config {
    /// Settings that all functions share.
    pub common: Common,
    /// Which tokens are accepted.
    pub auth: AuthConfig,
    /// The durable logs.
    pub logs: Logs,
    /// How old and how far ahead a session may be (`SESSION_MAX_AGE_DAYS`,
    /// `SESSION_MAX_AHEAD_MINUTES`).
    pub window: SessionWindow,
    /// How many events of a profile are accepted per minute in one environment
    /// (`EVENTS_PER_PROFILE_PER_MINUTE`, default 6,000); 0 means any number.
    pub events_per_minute: u32,
    /// The deployment's regions, separated by commas (`REGIONS`); empty means this one alone.
    pub regions: Regions,
    /// The SSM parameter that holds the routing document (`ROUTING_PARAMETER`).
    pub routing_parameter: String,
    /// The legacy system's endpoint for events (`LEGACY_ENDPOINT`), if there is one.
    pub legacy_endpoint: Option<Url>,
    /// How long it may take to answer (`LEGACY_TIMEOUT_MS`, default 8,000).
    pub legacy_time_out: Duration,
}

/// The durable logs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Logs {
    /// The log that is used while it is healthy (`PRIMARY_LOG`: `kafka` or `kinesis`). Kafka:
    /// `KAFKA_BOOTSTRAP` or `KAFKA_CLUSTER_ARN`. Kinesis: `KINESIS_STREAM`.
    pub primary: LogConfig,
    /// The log that is used while the primary is not (`STANDBY_LOG`: `none`, `kafka` or `kinesis`).
    /// Kafka: `STANDBY_KAFKA_BOOTSTRAP` or `STANDBY_KAFKA_CLUSTER_ARN`. Kinesis:
    /// `STANDBY_KINESIS_STREAM`.
    ///
    /// Both Kafkas have `KAFKA_TOPIC`, `KAFKA_SECURITY` and `KAFKA_MIN_INSYNC_REPLICAS` in common.
    pub standby: Option<LogConfig>,
    /// Where these two take the events of other regions' sessions, if there are other regions.
    pub remote: Option<Remote>,
}

/// The topic or stream for other regions' sessions in each log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Remote {
    /// In the primary (Kafka: `KAFKA_REMOTE_TOPIC`; Kinesis: `KINESIS_REMOTE_STREAM`).
    pub primary: String,
    /// In the standby (Kafka: `KAFKA_REMOTE_TOPIC`; Kinesis: `STANDBY_KINESIS_REMOTE_STREAM`).
    pub standby: Option<String>,
}

impl Config {
    /// Reads the configuration; `None` when a problem was noted.
    pub fn read(env: &mut Env) -> Option<Self> {
        let common = Common::read(env);
        let auth = AuthConfig::read(env);
        let region = common.as_ref().map(|common| common.region.as_str());
        let regions = read_regions(env, region);
        let has_others = regions.as_ref().is_some_and(|regions| !regions.others().is_empty());
        let logs = Logs::read(env, region, has_others);
        let routing_parameter = env.required("ROUTING_PARAMETER");
        let legacy_endpoint = env.optional::<Url>("LEGACY_ENDPOINT");
        if legacy_endpoint.as_ref().and_then(Option::as_ref).is_some_and(|url| !is_private(url)) {
            env.problem(
                "LEGACY_ENDPOINT",
                "must be an https URL without a user name (http only on a loopback address)",
            );
        }
        let legacy_time_out = env.parsed::<u64>("LEGACY_TIMEOUT_MS", 8_000);
        let events_per_minute = env.parsed::<u32>("EVENTS_PER_PROFILE_PER_MINUTE", 6_000);
        let days = env.parsed::<u32>("SESSION_MAX_AGE_DAYS", 30);
        let minutes = env.parsed::<u32>("SESSION_MAX_AHEAD_MINUTES", 10);
        let window = SessionWindow {
            max_age_ms: u64::from(days?) * 24 * 60 * 60 * 1000,
            max_ahead_ms: u64::from(minutes?) * 60 * 1000,
        };
        Some(Self {
            common: common?,
            auth: auth?,
            logs: logs?,
            window,
            events_per_minute: events_per_minute?,
            regions: regions?,
            routing_parameter: routing_parameter?,
            legacy_endpoint: legacy_endpoint?,
            legacy_time_out: Duration::from_millis(legacy_time_out?),
        })
    }

    /// The variables that the template must set.
    pub fn variables() -> BTreeSet<&'static str> {
        lambda::config::variables_of(Self::read)
    }
}

/// The variables that locate one of the logs.
struct Place {
    bootstrap: &'static str,
    cluster_arn: &'static str,
    stream: &'static str,
    remote_stream: &'static str,
}

const PRIMARY: Place = Place {
    bootstrap: "KAFKA_BOOTSTRAP",
    cluster_arn: "KAFKA_CLUSTER_ARN",
    stream: "KINESIS_STREAM",
    remote_stream: "KINESIS_REMOTE_STREAM",
};
const STANDBY: Place = Place {
    bootstrap: "STANDBY_KAFKA_BOOTSTRAP",
    cluster_arn: "STANDBY_KAFKA_CLUSTER_ARN",
    stream: "STANDBY_KINESIS_STREAM",
    remote_stream: "STANDBY_KINESIS_REMOTE_STREAM",
};

impl Logs {
    /// Whether one of the logs is reached over TLS.
    pub fn need_tls(&self) -> bool {
        std::iter::once(&self.primary).chain(&self.standby).any(LogConfig::needs_tls)
    }

    fn read(env: &mut Env, region: Option<&str>, has_others: bool) -> Option<Self> {
        let primary = env.parsed("PRIMARY_LOG", "kafka".to_owned());
        let standby = env.parsed("STANDBY_LOG", "none".to_owned());
        let topic = env.optional::<String>("KAFKA_TOPIC");
        let remote_topic = env.optional::<String>("KAFKA_REMOTE_TOPIC");
        let security = env.parsed("KAFKA_SECURITY", "iam".to_owned());
        let replicas = env.parsed::<usize>("KAFKA_MIN_INSYNC_REPLICAS", 2);
        let primary_at = PRIMARY.read(env);
        let standby_at = STANDBY.read(env);

        let (primary, standby) = (primary?, standby?);
        let uses_kafka = [primary.as_str(), standby.as_str()].contains(&"kafka");
        let kafka = if uses_kafka { read_kafka(env, topic?, &security?, replicas?, region) } else { None };
        let (primary_at, standby_at) = (primary_at?, standby_at?);
        let (remote_topic, remote_names) =
            (remote_topic?, [primary_at.remote_stream.clone(), standby_at.remote_stream.clone()]);
        let primary = match primary.as_str() {
            "kafka" => primary_at.kafka(env, kafka.as_ref()),
            "kinesis" => primary_at.kinesis(env),
            _ => {
                env.problem("PRIMARY_LOG", "must be kafka or kinesis");
                None
            }
        };
        let standby = match standby.as_str() {
            "none" => Some(None),
            "kafka" => standby_at.kafka(env, kafka.as_ref()).map(Some),
            "kinesis" => standby_at.kinesis(env).map(Some),
            _ => {
                env.problem("STANDBY_LOG", "must be none, kafka or kinesis");
                None
            }
        };
        let (primary, standby) = (primary?, standby?);
        if standby.as_ref() == Some(&primary) {
            env.problem("STANDBY_LOG", "is the primary log itself: choose another cluster or stream");
        }
        let remote = if has_others {
            let [in_primary, in_standby] = remote_names;
            let mut name = |log: &LogConfig, stream: Option<String>, place: &Place| match log {
                LogConfig::Kafka(_) => named(env, "KAFKA_REMOTE_TOPIC", remote_topic.clone(), "topic"),
                LogConfig::Kinesis(_) => named(env, place.remote_stream, stream, "stream"),
            };
            let in_primary = name(&primary, in_primary, &PRIMARY);
            let in_standby = standby.as_ref().map(|log| name(log, in_standby, &STANDBY));
            Some(Remote { primary: in_primary?, standby: in_standby.map_or(Some(None), |name| name.map(Some))? })
        } else {
            None
        };
        Some(Self { primary, standby, remote })
    }
}

/// The name of a topic or stream, which must be set; `None` when a problem was noted.
fn named(env: &mut Env, variable: &'static str, name: Option<String>, what: &str) -> Option<String> {
    if name.is_none() {
        env.problem(variable, format!("is not set: name the {what} for other regions' sessions"));
    }
    name
}

/// The regions; `None` when a problem was noted.
fn read_regions(env: &mut Env, here: Option<&str>) -> Option<Regions> {
    let list = env.parsed("REGIONS", String::new());
    let regions = Regions::parse(here?, &list?);
    regions.map_err(|error| env.problem("REGIONS", error.to_string())).ok()
}

/// The values of a [`Place`].
struct At {
    place: &'static Place,
    bootstrap: Option<String>,
    cluster_arn: Option<String>,
    stream: Option<String>,
    remote_stream: Option<String>,
}

impl Place {
    fn read(&'static self, env: &mut Env) -> Option<At> {
        let bootstrap = env.optional(self.bootstrap);
        let cluster_arn = env.optional(self.cluster_arn);
        let stream = env.optional(self.stream);
        let remote_stream = env.optional(self.remote_stream);
        Some(At {
            place: self,
            bootstrap: bootstrap?,
            cluster_arn: cluster_arn?,
            stream: stream?,
            remote_stream: remote_stream?,
        })
    }
}

impl At {
    fn kafka(self, env: &mut Env, common: Option<&KafkaConfig>) -> Option<LogConfig> {
        if self.bootstrap.is_none() && self.cluster_arn.is_none() {
            env.problem(self.place.cluster_arn, format!("is not set: set it, or {}", self.place.bootstrap));
            return None;
        }
        let (bootstrap, cluster_arn) = (self.bootstrap, self.cluster_arn);
        Some(LogConfig::Kafka(KafkaConfig { bootstrap, cluster_arn, ..common?.clone() }))
    }

    fn kinesis(self, env: &mut Env) -> Option<LogConfig> {
        if self.stream.is_none() {
            env.problem(self.place.stream, "is not set: name the stream");
        }
        Some(LogConfig::Kinesis(KinesisConfig::new(self.stream?)))
    }
}

/// What all Kafka logs have in common.
fn read_kafka(
    env: &mut Env,
    topic: Option<String>,
    security: &str,
    min_insync_replicas: usize,
    region: Option<&str>,
) -> Option<KafkaConfig> {
    if topic.is_none() {
        env.problem("KAFKA_TOPIC", "is not set: name the topic");
    }
    let security = match security {
        "iam" => KafkaSecurity::Iam { region: region?.to_owned() },
        "plaintext" => KafkaSecurity::Plaintext,
        _ => {
            env.problem("KAFKA_SECURITY", "must be iam or plaintext");
            return None;
        }
    };
    Some(KafkaConfig { min_insync_replicas, ..KafkaConfig::new(topic?, security) })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The logs that these variables give, or the variables that are wrong.
    fn read(pairs: &[(&str, &str)]) -> Result<Logs, Vec<&'static str>> {
        let env = Env::from_pairs(pairs.iter().copied());
        let has_others = pairs.iter().any(|(name, _)| *name == "REGIONS");
        let logs = lambda::config::read(env, |env| Logs::read(env, Some("us-east-1"), has_others));
        logs.map_err(|errors| errors.0.iter().map(|problem| problem.variable).collect())
    }

    const KAFKA: [(&str, &str); 2] = [("KAFKA_TOPIC", "t"), ("KAFKA_BOOTSTRAP", "a:9098")];

    #[test]
    fn primary_defaults_to_kafka_without_standby() {
        let logs = read(&KAFKA).unwrap();
        let LogConfig::Kafka(kafka) = logs.primary else { panic!("{logs:?}") };
        assert_eq!((kafka.topic.as_str(), kafka.bootstrap.as_deref()), ("t", Some("a:9098")));
        assert_eq!((kafka.security, kafka.min_insync_replicas), (KafkaSecurity::Iam { region: "us-east-1".into() }, 2));
        assert_eq!((logs.standby, logs.remote), (None, None));
    }

    #[test]
    fn each_log_can_be_kafka_or_kinesis() {
        let names = |pairs: &[(&str, &str)]| {
            let name = |log: LogConfig| match log {
                LogConfig::Kafka(config) => config.bootstrap.unwrap(),
                LogConfig::Kinesis(config) => config.stream,
            };
            let all = [&KAFKA[..], &[("KINESIS_STREAM", "s"), ("STANDBY_KINESIS_STREAM", "s2")], pairs].concat();
            let logs = read(&all).unwrap();
            (name(logs.primary), logs.standby.map(name))
        };
        let second = ("STANDBY_KAFKA_BOOTSTRAP", "b:9098");
        let primary = ("PRIMARY_LOG", "kinesis");
        assert_eq!(names(&[("STANDBY_LOG", "kinesis")]), ("a:9098".into(), Some("s2".into())));
        assert_eq!(names(&[("STANDBY_LOG", "kafka"), second]), ("a:9098".into(), Some("b:9098".into())));
        assert_eq!(names(&[primary]), ("s".into(), None));
        assert_eq!(names(&[primary, ("STANDBY_LOG", "kafka"), second]), ("s".into(), Some("b:9098".into())));
        assert_eq!(names(&[primary, ("STANDBY_LOG", "kinesis")]), ("s".into(), Some("s2".into())));
        let no_kafka = read(&[primary, ("KINESIS_STREAM", "s"), ("KAFKA_SECURITY", "unknown")]);
        assert!(matches!(no_kafka.unwrap().primary, LogConfig::Kinesis(_)), "Kafka's variables do not matter");
    }

    #[test]
    fn every_problem_with_the_logs_is_reported() {
        let check = |pairs: &[(&str, &str)], expected: &[&str]| {
            assert_eq!(read(pairs).unwrap_err(), expected, "{pairs:?}");
        };
        check(&[], &["KAFKA_TOPIC", "KAFKA_CLUSTER_ARN"]);
        check(&[("PRIMARY_LOG", "kinesis")], &["KINESIS_STREAM"]);
        check(&[("PRIMARY_LOG", "paper")], &["PRIMARY_LOG"]);
        let with = |more: &[(&'static str, &'static str)]| [&KAFKA[..], more].concat();
        check(&with(&[("STANDBY_LOG", "kafka")]), &["STANDBY_KAFKA_CLUSTER_ARN"]);
        check(&with(&[("STANDBY_LOG", "kinesis")]), &["STANDBY_KINESIS_STREAM"]);
        check(&with(&[("STANDBY_LOG", "paper")]), &["STANDBY_LOG"]);
        check(&with(&[("REGIONS", "two")]), &["KAFKA_REMOTE_TOPIC"]);
        let kinesis = [("PRIMARY_LOG", "kinesis"), ("KINESIS_STREAM", "s"), ("REGIONS", "two")];
        check(&kinesis, &["KINESIS_REMOTE_STREAM"]);
        let standby = [("STANDBY_LOG", "kinesis"), ("STANDBY_KINESIS_STREAM", "s"), ("KAFKA_REMOTE_TOPIC", "r")];
        check(&with(&[&standby[..], &[("REGIONS", "two")]].concat()), &["STANDBY_KINESIS_REMOTE_STREAM"]);
        check(&with(&[("KAFKA_MIN_INSYNC_REPLICAS", "two")]), &["KAFKA_MIN_INSYNC_REPLICAS"]);
        check(&with(&[("STANDBY_LOG", "kafka"), ("STANDBY_KAFKA_BOOTSTRAP", "a:9098")]), &["STANDBY_LOG"]);
    }

    #[test]
    fn each_log_has_its_own_remote_topic_or_stream() {
        let remote = |pairs: &[(&str, &str)]| {
            let others = [("REGIONS", "two"), ("KAFKA_REMOTE_TOPIC", "r"), ("KINESIS_REMOTE_STREAM", "rs")];
            let streams =
                [("KINESIS_STREAM", "s"), ("STANDBY_KINESIS_STREAM", "s2"), ("STANDBY_KINESIS_REMOTE_STREAM", "rs2")];
            let Remote { primary, standby } =
                read(&[&KAFKA[..], &others, &streams, pairs].concat()).unwrap().remote.unwrap();
            (primary, standby.unwrap_or_default())
        };
        let of = |primary: &str, standby: &str| (primary.to_owned(), standby.to_owned());
        assert_eq!(remote(&[]), of("r", ""));
        assert_eq!(remote(&[("STANDBY_LOG", "kinesis")]), of("r", "rs2"));
        assert_eq!(remote(&[("PRIMARY_LOG", "kinesis"), ("STANDBY_LOG", "kinesis")]), of("rs", "rs2"));
    }

    #[test]
    fn regions_default_to_this_one_alone() {
        let read = |list: &str| {
            let env = Env::from_pairs([("REGIONS", list)]);
            lambda::config::read(env, |env| read_regions(env, Some("us-east-1"))).map(|regions| regions.others().len())
        };
        assert_eq!((read("").unwrap(), read("us-west-2,us-east-1").unwrap()), (0, 1));
        assert_eq!(read("us-west-2").unwrap_err().0[0].variable, "REGIONS");
    }

    /// Whatever the other variables contain: the template's test relies on it.
    #[test]
    fn every_variable_of_the_logs_is_read() {
        let asked = lambda::config::variables_of(|env| Logs::read(env, None, true));
        let expected = [
            "KAFKA_BOOTSTRAP",
            "KAFKA_CLUSTER_ARN",
            "KAFKA_MIN_INSYNC_REPLICAS",
            "KAFKA_REMOTE_TOPIC",
            "KAFKA_SECURITY",
            "KAFKA_TOPIC",
            "KINESIS_REMOTE_STREAM",
            "KINESIS_STREAM",
            "PRIMARY_LOG",
            "STANDBY_KAFKA_BOOTSTRAP",
            "STANDBY_KAFKA_CLUSTER_ARN",
            "STANDBY_KINESIS_REMOTE_STREAM",
            "STANDBY_KINESIS_STREAM",
            "STANDBY_LOG",
        ];
        assert_eq!(asked, BTreeSet::from(expected));
    }
}
