//! What an AWS endpoint that is not ours can do. Each ability that a deployment needs is tried, with
//! resources of its own that are deleted again, before anything is deployed. So a missing one is
//! named at once, and not found one by one in failed deployments.
//!
//! An ability that only an extra needs is not required: the extra is left out, and the run says so.
//! Resources are created through CloudFormation, as those of the template will be, and then used:
//! some emulators accept a resource that they do not have.

mod package;
mod trial;

use self::trial::Trial;
use super::cloud::{LocalOptions, Primary, Standby};
use anyhow::{Result, bail};
use std::collections::BTreeMap;
use std::fmt::Write as _;

/// Part of a deployment that it can do without.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Extra {
    /// The standby log on Kinesis.
    Standby,
    /// The change feed.
    ChangeFeed,
}

impl Extra {
    fn name(self) -> &'static str {
        match self {
            Self::Standby => "the standby log",
            Self::ChangeFeed => "the change feed",
        }
    }

    /// The template's parameter that leaves it out.
    fn parameter(self) -> (&'static str, &'static str) {
        match self {
            Self::Standby => ("StandbyLog", "none"),
            Self::ChangeFeed => ("ChangeFeed", "off"),
        }
    }
}

/// Who needs an ability.
#[derive(Debug, Clone, PartialEq, Eq)]
enum NeededBy {
    /// Every deployment.
    All,
    /// One with these options. The advice says what to choose instead.
    Options(&'static str),
    /// Only these.
    Extras(Vec<Extra>),
}

/// An ability that was tried.
#[derive(Debug)]
struct Ability {
    name: &'static str,
    needed_by: NeededBy,
    tried: Result<()>,
}

/// What was found out about an endpoint.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Abilities {
    /// Where its HTTP APIs are.
    pub(super) apis: ApiForm,
    /// By extra, why it is left out.
    without: BTreeMap<Extra, String>,
}

impl Abilities {
    /// Tries everything that a deployment with these options needs.
    ///
    /// # Errors
    /// If the endpoint does not answer, or lacks something that is required. The message names all
    /// of it.
    pub(super) async fn ask(endpoint: &str, options: &LocalOptions) -> Result<Self> {
        let trial = Trial::begin(endpoint, &options.region).await?;
        let brokers = options.brokers_for_functions();
        let (apis, tried) = trial.run(brokers.as_deref(), options.needs_msk()).await;
        let abilities: Vec<Ability> = tried
            .into_iter()
            .map(|(name, tried)| Ability { name, needed_by: needed_by(name, options), tried })
            .collect();
        Ok(Self { apis, without: verdict(endpoint, &abilities)? })
    }

    /// The template's parameters that leave out what the endpoint cannot do.
    pub(super) fn parameters(&self) -> impl Iterator<Item = (String, String)> {
        self.without.keys().map(|extra| extra.parameter()).map(|(name, value)| (name.to_owned(), value.to_owned()))
    }

    /// What is left out and why, one line each.
    pub(super) fn left_out(&self) -> Vec<String> {
        self.without.iter().map(|(extra, why)| format!("{}: {why}", extra.name())).collect()
    }
}

fn needed_by(name: &str, options: &LocalOptions) -> NeededBy {
    let mut extras = vec![Extra::ChangeFeed];
    match name {
        trial::MSK => NeededBy::Options("--primary kinesis needs none"),
        trial::TABLE_STREAMS => NeededBy::Extras(extras),
        trial::KINESIS if options.primary == Primary::Kinesis => NeededBy::Options("--primary kafka needs none"),
        trial::KINESIS => {
            extras.extend((options.standby == Standby::Kinesis).then_some(Extra::Standby));
            NeededBy::Extras(extras)
        }
        _ => NeededBy::All,
    }
}

/// What to leave out, and why.
///
/// # Errors
/// If something that is required is missing.
fn verdict(endpoint: &str, abilities: &[Ability]) -> Result<BTreeMap<Extra, String>> {
    let (mut missing, mut without) = (String::new(), BTreeMap::new());
    for Ability { name, needed_by, tried } in abilities {
        let Err(why) = tried else { continue };
        let why = format!("{why:#}").replace('\n', " ");
        match needed_by {
            NeededBy::All => write!(missing, "\n  {name}: {why}")?,
            NeededBy::Options(instead) => write!(missing, "\n  {name}: {why} ({instead})")?,
            NeededBy::Extras(extras) => {
                for extra in extras {
                    without.entry(*extra).or_insert_with(|| format!("{name}: {why}"));
                }
            }
        }
    }
    if !missing.is_empty() {
        bail!(
            "{endpoint} cannot run Playhead; nothing was deployed. It lacks:{missing}\nUse another emulator, or ours: \
             without --aws. docs/local.md says which emulators can."
        );
    }
    Ok(without)
}

/// Where an emulator has its HTTP APIs. On AWS each has a host name.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) enum ApiForm {
    /// Under a path of the endpoint.
    #[default]
    Path,
    /// At a host name that is on this machine, as with LocalStack.
    Host,
}

impl ApiForm {
    const ALL: [Self; 2] = [Self::Path, Self::Host];

    /// The URL of an API's default stage.
    pub(super) fn url(self, endpoint: &str, api_id: &str) -> String {
        match self {
            Self::Path => format!("{endpoint}/_aws/execute-api/{api_id}/$default"),
            Self::Host => {
                let port = endpoint.rsplit_once(':').map_or("", |(_, port)| port);
                format!("http://{api_id}.execute-api.localhost.localstack.cloud:{port}")
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Brokers, LocalDynamoDb};
    use anyhow::anyhow;
    use tokio::net::TcpListener;

    fn options(primary: Primary, standby: Standby) -> LocalOptions {
        LocalOptions { primary, standby, ..LocalOptions::named("abilities-test").unwrap() }
    }

    fn without(missing: &[&'static str], options: &LocalOptions) -> Result<Abilities> {
        let tried = |name: &'static str| match missing.contains(&name) {
            true => Err(anyhow!("not implemented")),
            false => Ok(()),
        };
        let ability = |name| Ability { name, needed_by: needed_by(name, options), tried: tried(name) };
        let abilities: Vec<Ability> = trial::ABILITIES.map(ability).into();
        Ok(Abilities { without: verdict("http://emulator", &abilities)?, ..Abilities::default() })
    }

    #[test]
    fn everything_required_that_is_missing_is_named_at_once() {
        let options = options(Primary::Kafka, Standby::Kinesis);
        let error = without(&[trial::LAMBDA, trial::MSK, trial::KINESIS], &options).unwrap_err().to_string();
        for part in ["http://emulator", "AWS Lambda: not implemented", "Amazon MSK: not implemented (--primary kinesis"]
        {
            assert!(error.contains(part), "{part}: {error}");
        }
        assert!(!error.contains(trial::KINESIS), "that is not required: {error}");
    }

    #[test]
    fn extras_are_left_out_by_parameters_and_said_with_the_reason() {
        let found = without(&[trial::KINESIS], &options(Primary::Kafka, Standby::Kinesis)).unwrap();
        let parameters: Vec<_> = found.parameters().map(|(name, value)| format!("{name}={value}")).collect();
        assert_eq!(parameters, ["StandbyLog=none", "ChangeFeed=off"]);
        assert_eq!(found.left_out()[0], "the standby log: Amazon Kinesis: not implemented");
        let found = without(&[trial::TABLE_STREAMS], &options(Primary::Kinesis, Standby::None)).unwrap();
        assert_eq!(found.left_out().len(), 1);
        assert_eq!(without(&[], &options(Primary::Kafka, Standby::Kinesis)).unwrap(), Abilities::default());
    }

    #[test]
    fn log_decides_what_is_required() {
        let kinesis = options(Primary::Kinesis, Standby::None);
        assert!(without(&[trial::KINESIS], &kinesis).unwrap_err().to_string().contains("--primary kafka needs none"));
        let no_standby = without(&[trial::KINESIS], &options(Primary::Kafka, Standby::None)).unwrap();
        assert_eq!(no_standby.without.into_keys().collect::<Vec<_>>(), [Extra::ChangeFeed]);
    }

    /// On an endpoint that refuses all, only what everything else needs is named.
    #[tokio::test]
    async fn endpoint_that_refuses_all_gets_nothing_deployed() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let endpoint = format!("http://{}", listener.local_addr().unwrap());
        let refuse = axum::Router::new().fallback(async || axum::http::StatusCode::NOT_IMPLEMENTED);
        tokio::spawn(async move { axum::serve(listener, refuse).await.unwrap() });
        let error = Abilities::ask(&endpoint, &options(Primary::Kafka, Standby::Kinesis)).await.unwrap_err();
        let error = error.to_string();
        let named = trial::ABILITIES.into_iter().filter(|name| error.contains(name));
        assert_eq!(named.collect::<Vec<_>>(), [trial::CLOUDFORMATION], "{error}");
        assert!(error.contains("nothing was deployed"), "{error}");
    }

    #[tokio::test]
    async fn our_emulator_can_do_everything_and_keeps_nothing_of_the_trial() {
        let emulator = LocalDynamoDb::emulator("test-abilities").await.unwrap();
        let unreachable = Brokers::At("127.0.0.1:1".to_owned());
        let options = LocalOptions { kafka: unreachable, ..options(Primary::Kafka, Standby::Kinesis) };
        let error = Abilities::ask(emulator.endpoint(), &options).await.unwrap_err().to_string();
        let missing: Vec<&str> = error.lines().filter(|line| line.starts_with("  ")).collect();
        assert!(missing.len() == 1 && missing[0].contains("cannot connect to 127.0.0.1:1"), "{error}");

        let options = LocalOptions { kafka: Brokers::Embedded, ..options };
        let found = Abilities::ask(emulator.endpoint(), &options).await.unwrap();
        assert_eq!(found, Abilities::default(), "nothing is left out, and APIs are under a path");
        let sdk = emulator.sdk_config();
        let tables = aws_sdk_dynamodb::Client::new(&sdk).list_tables().send().await.unwrap();
        assert_eq!(tables.table_names(), [""; 0]);
        let functions = aws_sdk_lambda::Client::new(&sdk).list_functions().send().await.unwrap();
        let buckets = aws_sdk_s3::Client::new(&sdk).list_buckets().send().await.unwrap();
        assert_eq!((functions.functions().len(), buckets.buckets().len()), (0, 0));
    }

    #[test]
    fn apis_are_found_in_both_forms() {
        let url = |form: ApiForm| form.url("http://localhost:4566", "a1");
        assert_eq!(url(ApiForm::Path), "http://localhost:4566/_aws/execute-api/a1/$default");
        assert_eq!(url(ApiForm::Host), "http://a1.execute-api.localhost.localstack.cloud:4566");
    }
}
