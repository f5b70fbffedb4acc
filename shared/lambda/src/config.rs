//! Configuration: environment variables, read once at cold start into typed values, every problem
//! reported together.
//!
//! Each function has one `read(&mut Env) -> Option<Config>`, the only list of its variables. Each
//! call on [`Env`] records the name it asked for. A problem is recorded too, and reading continues;
//! [`Env::finish`] then returns the configuration or all problems at once. [`variables_of`] runs
//! the same function on an empty environment to learn the names, which a test compares with
//! `template.yaml`.
//!
//! An empty variable counts as absent, since a CloudFormation parameter cannot leave a variable
//! out.
//!
//! **Invariant:** no variable's value is ever printed: a secret may have been put into the wrong
//! one.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::str::FromStr;

use playback::history::Rules;
use playback::session::Home;
use tracing::level_filters::LevelFilter;

/// The environment while a configuration is read from it.
#[derive(Default)]
pub struct Env {
    values: BTreeMap<String, String>,
    asked: BTreeSet<&'static str>,
    problems: Vec<ConfigProblem>,
}

/// What is wrong with one variable.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigProblem {
    /// The variable to fix.
    pub variable: &'static str,
    /// What is wrong, and what to do.
    pub fix: String,
}

/// Every problem of an environment. Both `Display` and `Debug` print one line per problem, since
/// the error that `main` returns is printed with `Debug`.
#[derive(Clone, PartialEq, Eq, thiserror::Error)]
pub struct ConfigErrors(pub Vec<ConfigProblem>);

impl Env {
    /// The environment of this process. Variables that are not UTF-8 count as absent.
    pub fn from_process() -> Self {
        Self::from_pairs(
            std::env::vars_os().filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?))),
        )
    }

    /// An environment of the given variables.
    pub fn from_pairs<N: Into<String>, V: Into<String>>(pairs: impl IntoIterator<Item = (N, V)>) -> Self {
        let values = pairs
            .into_iter()
            .map(|(name, value)| (name.into(), value.into()))
            .filter(|(_, value)| !value.is_empty())
            .collect();
        Self { values, ..Self::default() }
    }

    /// A variable that must be set. `None` means that a problem was noted.
    pub fn required<T: FromStr<Err: fmt::Display>>(&mut self, name: &'static str) -> Option<T> {
        let value = self.optional(name)?;
        if value.is_none() {
            self.problem(name, "is not set: give it a value");
        }
        value
    }

    /// A variable that may be absent (`Some(None)`). `None` means that a problem was noted.
    pub fn optional<T: FromStr<Err: fmt::Display>>(&mut self, name: &'static str) -> Option<Option<T>> {
        self.asked.insert(name);
        self.parse(name)
    }

    /// A variable with a default for when it is absent. `None` means that a problem was noted.
    pub fn parsed<T: FromStr<Err: fmt::Display>>(&mut self, name: &'static str, default: T) -> Option<T> {
        Some(self.optional(name)?.unwrap_or(default))
    }

    /// A variable that Lambda itself sets (`AWS_LAMBDA_FUNCTION_NAME`): required, but not set by
    /// the template.
    pub fn from_lambda(&mut self, name: &'static str) -> Option<String> {
        let value = self.parse(name)?;
        if value.is_none() {
            self.problem(name, "is not set: Lambda sets it; outside Lambda, set it yourself");
        }
        value
    }

    /// Notes a problem that only the caller can see, such as two variables that exclude each other.
    pub fn problem(&mut self, variable: &'static str, fix: impl Into<String>) {
        self.problems.push(ConfigProblem { variable, fix: fix.into() });
    }

    /// Builds the configuration, or reports every problem that was noted. `build` returns `None`
    /// when a part is missing, which only happens together with a noted problem.
    ///
    /// # Errors
    /// All problems, in the order in which the variables were read.
    pub fn finish<C>(self, build: impl FnOnce() -> Option<C>) -> Result<C, ConfigErrors> {
        match build() {
            Some(config) if self.problems.is_empty() => Ok(config),
            _ => Err(ConfigErrors(self.problems)),
        }
    }

    fn parse<T: FromStr<Err: fmt::Display>>(&mut self, name: &'static str) -> Option<Option<T>> {
        let Some(value) = self.values.get(name) else {
            return Some(None);
        };
        match value.parse() {
            Ok(value) => Some(Some(value)),
            Err(_) => {
                let kind = std::any::type_name::<T>().rsplit("::").next().unwrap_or("value");
                self.problem(name, format!("cannot be read: give it a valid {kind}"));
                None
            }
        }
    }
}

/// Reads a configuration from `env` with the function that lists its variables.
///
/// # Errors
/// All problems together.
pub fn read<C>(mut env: Env, read: impl FnOnce(&mut Env) -> Option<C>) -> Result<C, ConfigErrors> {
    let config = read(&mut env);
    env.finish(|| config)
}

/// The names of all variables that `read` wants from the template. `read` must ask for every
/// variable, whatever the others contain; only what it does with the answers may depend on them.
pub fn variables_of<C>(read: impl FnOnce(&mut Env) -> Option<C>) -> BTreeSet<&'static str> {
    let mut env = Env::default();
    read(&mut env);
    env.asked
}

impl fmt::Display for ConfigErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the configuration has {} problem(s):", self.0.len())?;
        for ConfigProblem { variable, fix } in &self.0 {
            write!(f, "\n  {variable} {fix}")?;
        }
        Ok(())
    }
}

impl fmt::Debug for ConfigErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// From what share of its length on a title counts as finished, percent (`COMPLETED_PERCENT`).
/// `None` means that a problem was noted.
pub fn completed_percent(env: &mut Env) -> Option<u8> {
    let share = env.parsed("COMPLETED_PERCENT", Rules::default().completed_percent)?;
    if !(1..=100).contains(&share) {
        env.problem("COMPLETED_PERCENT", "must be between 1 and 100");
    }
    Some(share)
}

/// A value that must not be printed.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// The value itself, for the one place that needs it.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl FromStr for Secret {
    type Err = std::convert::Infallible;

    fn from_str(value: &str) -> Result<Self, Self::Err> {
        Ok(Self(value.to_owned()))
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(redacted)")
    }
}

/// Settings that all functions share.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Common {
    /// The deployment's stage (`STAGE`), a dimension of every metric.
    pub stage: String,
    /// The lowest level that is logged (`LOG_LEVEL`, default `info`).
    pub log_level: LevelFilter,
    /// The function's name, set by Lambda: a dimension of every metric.
    pub function: String,
    /// The AWS region, set by Lambda.
    pub region: String,
    /// The code for that region in session ids.
    pub home: Home,
}

impl Common {
    /// Reads the settings that all functions share.
    pub fn read(env: &mut Env) -> Option<Self> {
        let stage = env.required("STAGE");
        let log_level = env.parsed("LOG_LEVEL", LevelFilter::INFO);
        let function = env.from_lambda("AWS_LAMBDA_FUNCTION_NAME");
        let region = env.from_lambda("AWS_REGION");
        let home = region.as_deref().and_then(Home::of_region);
        if region.is_some() && home.is_none() {
            env.problem("AWS_REGION", "is not the name of a region, such as us-east-1");
        }
        Some(Self { stage: stage?, log_level: log_level?, function: function?, region: region?, home: home? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, PartialEq)]
    struct Config {
        table: String,
        days: u32,
        bootstrap: Option<String>,
        secret: Option<Secret>,
    }

    fn read_config(env: &mut Env) -> Option<Config> {
        let table = env.required("VIEWS_TABLE");
        let days = env.parsed("SESSION_MAX_AGE_DAYS", 30);
        let bootstrap = env.optional("KAFKA_BOOTSTRAP");
        let secret = env.optional("JWT_SECRET");
        Some(Config { table: table?, days: days?, bootstrap: bootstrap?, secret: secret? })
    }

    #[test]
    fn absent_and_empty_variables_take_their_defaults() {
        let env = Env::from_pairs([("VIEWS_TABLE", "views"), ("SESSION_MAX_AGE_DAYS", ""), ("KAFKA_BOOTSTRAP", "")]);
        assert_eq!(
            read(env, read_config).unwrap(),
            Config { table: "views".into(), days: 30, bootstrap: None, secret: None }
        );
    }

    #[test]
    fn every_problem_is_reported_together_and_no_value_is_shown() {
        let env = Env::from_pairs([("SESSION_MAX_AGE_DAYS", "hunter2"), ("VIEWS_TABLE", "")]);
        let errors = read(env, read_config).unwrap_err();
        let text = "the configuration has 2 problem(s):\n  VIEWS_TABLE is not set: give it a value\n  \
                    SESSION_MAX_AGE_DAYS cannot be read: give it a valid u32";
        assert_eq!(errors.to_string(), text);
        assert_eq!(format!("{errors:?}"), text);
    }

    #[test]
    fn problem_noted_by_the_reader_fails_the_configuration() {
        let mut env = Env::from_pairs([("VIEWS_TABLE", "views")]);
        let config = read_config(&mut env);
        env.problem("JWT_SECRET", "excludes JWT_JWKS_URL: set one of them");
        assert_eq!(env.finish(|| config).unwrap_err().0[0].variable, "JWT_SECRET");
    }

    #[test]
    fn variables_exclude_those_that_lambda_sets() {
        let names = variables_of(|env| Some((Common::read(env), read_config(env))));
        let expected = ["JWT_SECRET", "KAFKA_BOOTSTRAP", "LOG_LEVEL", "SESSION_MAX_AGE_DAYS", "STAGE", "VIEWS_TABLE"];
        assert_eq!(names, BTreeSet::from(expected));
    }

    #[test]
    fn missing_lambda_variables_are_reported() {
        let env = Env::from_pairs([("STAGE", "dev"), ("LOG_LEVEL", "loud"), ("AWS_REGION", "us-east-1")]);
        let errors = read(env, Common::read).unwrap_err();
        let names: Vec<_> = errors.0.iter().map(|problem| problem.variable).collect();
        assert_eq!(names, ["LOG_LEVEL", "AWS_LAMBDA_FUNCTION_NAME"]);
    }

    #[test]
    fn a_secret_is_never_printed() {
        let secret: Secret = "hunter2".parse().unwrap();
        assert_eq!(format!("{secret:?}"), "Secret(redacted)");
        assert_eq!(secret.expose(), "hunter2");
    }
}
