//! What `process` is told.

use lambda::config::{Common, Env};
use std::collections::BTreeSet;

/// What `process` is told.
#[derive(Debug, Clone)]
pub struct Config {
    /// What every function is told.
    pub common: Common,
    /// The table `views` (`VIEWS_TABLE`).
    pub views_table: String,
    /// Where poison goes (`DEAD_LETTER_QUEUE_URL`).
    pub dead_letter_queue_url: String,
    /// Where records go that are worth another try (`RETRY_QUEUE_URL`).
    pub retry_queue_url: String,
}

impl Config {
    /// Reads the configuration; `None` when a problem was noted.
    pub fn read(env: &mut Env) -> Option<Self> {
        let common = Common::read(env);
        let views_table = env.required("VIEWS_TABLE");
        let dead_letter_queue_url = env.required("DEAD_LETTER_QUEUE_URL");
        let retry_queue_url = env.required("RETRY_QUEUE_URL");
        Some(Self {
            common: common?,
            views_table: views_table?,
            dead_letter_queue_url: dead_letter_queue_url?,
            retry_queue_url: retry_queue_url?,
        })
    }

    /// The variables that the template has to set.
    pub fn variables() -> BTreeSet<&'static str> {
        lambda::config::variables_of(Self::read)
    }
}
