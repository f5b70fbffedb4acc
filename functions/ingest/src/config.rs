//! What `ingest` is told.

use lambda::auth::AuthConfig;
use lambda::config::{Common, Env};
use playback::edge::SessionWindow;
use playback::session::Home;
use std::collections::BTreeSet;
use stream::{KafkaConfig, KafkaSecurity};

/// What `ingest` is told.
#[derive(Debug, Clone)]
pub struct Config {
    /// What every function is told.
    pub common: Common,
    /// Whose tokens are believed.
    pub auth: AuthConfig,
    /// Where the log is (`KAFKA_BOOTSTRAP` or `KAFKA_CLUSTER_ARN`, `KAFKA_SECURITY`, `KAFKA_TOPIC`).
    pub kafka: KafkaConfig,
    /// How old and how far ahead a session may be (`SESSION_MAX_AGE_DAYS`, `SESSION_MAX_AHEAD_MINUTES`).
    pub window: SessionWindow,
    /// The home of sessions that begin here, from the region's name.
    pub home: Home,
}

impl Config {
    /// Reads the configuration; `None` when a problem was noted.
    pub fn read(env: &mut Env) -> Option<Self> {
        let common = Common::read(env);
        let auth = AuthConfig::read(env);
        let kafka = read_kafka(env, common.as_ref().map(|common| common.region.as_str()));
        let days = env.parsed::<u32>("SESSION_MAX_AGE_DAYS", 30);
        let minutes = env.parsed::<u32>("SESSION_MAX_AHEAD_MINUTES", 10);
        let common = common?;
        let home = Home::of_region(&common.region);
        if home.is_none() {
            env.problem("AWS_REGION", "is not the name of a region, such as us-east-1");
        }
        let window = SessionWindow {
            max_age_ms: u64::from(days?) * 24 * 60 * 60 * 1000,
            max_ahead_ms: u64::from(minutes?) * 60 * 1000,
        };
        Some(Self { common, auth: auth?, kafka: kafka?, window, home: home? })
    }

    /// The variables that the template has to set.
    pub fn variables() -> BTreeSet<&'static str> {
        lambda::config::variables_of(Self::read)
    }
}

fn read_kafka(env: &mut Env, region: Option<&str>) -> Option<KafkaConfig> {
    let topic = env.required::<String>("KAFKA_TOPIC");
    let security = env.parsed("KAFKA_SECURITY", "iam".to_owned());
    let bootstrap = env.optional("KAFKA_BOOTSTRAP");
    let cluster_arn = env.optional("KAFKA_CLUSTER_ARN");
    let security = match security?.as_str() {
        "iam" => KafkaSecurity::Iam { region: region?.to_owned() },
        "plaintext" => KafkaSecurity::Plaintext,
        _ => {
            env.problem("KAFKA_SECURITY", "must be iam or plaintext");
            return None;
        }
    };
    let (bootstrap, cluster_arn) = (bootstrap?, cluster_arn?);
    if bootstrap.is_none() && cluster_arn.is_none() {
        env.problem("KAFKA_CLUSTER_ARN", "is not set: set it, or KAFKA_BOOTSTRAP");
        return None;
    }
    Some(KafkaConfig { bootstrap, cluster_arn, ..KafkaConfig::new(topic?, security) })
}
