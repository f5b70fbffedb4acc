//! Configuration of `retry`.

use lambda::config::{Common, Env};
use std::collections::BTreeSet;

/// Configuration of `retry`.
#[derive(Debug, Clone)]
pub struct Config {
    /// Configuration that every function has.
    pub common: Common,
    /// The table `views` (`VIEWS_TABLE`).
    pub views_table: String,
    /// The table of shadow views, if there is one (`SHADOW_TABLE`).
    pub shadow_table: Option<String>,
    /// The queue `retry`, which wakes it and takes single records of a batch (`RETRY_QUEUE_URL`).
    pub retry_queue_url: String,
    /// The queue `dead-letter` (`DEAD_LETTER_QUEUE_URL`).
    pub dead_letter_queue_url: String,
    /// How often a record is tried before it is dead-lettered, if the failure may be its own
    /// (`RETRY_MAX_ATTEMPTS`, default 16: 46 to 92 minutes).
    pub max_attempts: u32,
}

impl Config {
    /// Reads the configuration; `None` if there is a problem.
    pub fn read(env: &mut Env) -> Option<Self> {
        let common = Common::read(env);
        let views_table = env.required("VIEWS_TABLE");
        let shadow_table = env.optional("SHADOW_TABLE");
        let retry_queue_url = env.required("RETRY_QUEUE_URL");
        let dead_letter_queue_url = env.required("DEAD_LETTER_QUEUE_URL");
        let max_attempts = env.parsed("RETRY_MAX_ATTEMPTS", 16);
        if max_attempts == Some(0) {
            env.problem("RETRY_MAX_ATTEMPTS", "is 0: set it to at least 1");
        }
        Some(Self {
            common: common?,
            views_table: views_table?,
            shadow_table: shadow_table?,
            retry_queue_url: retry_queue_url?,
            dead_letter_queue_url: dead_letter_queue_url?,
            max_attempts: max_attempts?,
        })
    }

    /// The variables that the template must set.
    pub fn variables() -> BTreeSet<&'static str> {
        lambda::config::variables_of(Self::read)
    }
}
