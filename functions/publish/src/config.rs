//! Configuration of `publish`.

use lambda::config::{Common, Env, completed_percent};
use playback::history::Rules;
use std::collections::BTreeSet;

/// Configuration of `publish`.
#[derive(Debug, Clone)]
pub struct Config {
    /// Configuration that every function has.
    pub common: Common,
    /// The Kinesis stream of the feed (`VIEW_CHANGES_STREAM`).
    pub stream: String,
    /// The queue for changes that cannot be published (`PUBLISH_FAILED_QUEUE_URL`).
    pub failed_queue_url: String,
    /// The table `views` (`JOINED_TABLE`), if several regions write it: then a view may have parts
    /// that are joined.
    pub joined_table: Option<String>,
    /// When a title counts as finished (`COMPLETED_PERCENT`).
    pub rules: Rules,
}

impl Config {
    /// Reads the configuration; `None` if there is a problem.
    pub fn read(env: &mut Env) -> Option<Self> {
        let common = Common::read(env);
        let stream = env.required("VIEW_CHANGES_STREAM");
        let failed_queue_url = env.required("PUBLISH_FAILED_QUEUE_URL");
        let joined_table = env.optional("JOINED_TABLE");
        let completed_percent = completed_percent(env);
        Some(Self {
            common: common?,
            stream: stream?,
            failed_queue_url: failed_queue_url?,
            joined_table: joined_table?,
            rules: Rules { completed_percent: completed_percent?, ..Rules::default() },
        })
    }

    /// Where the changes happened, for consumers of several feeds: `/playhead/<stage>/<region>`.
    pub fn source(&self) -> String {
        format!("/playhead/{}/{}", self.common.stage, self.common.region)
    }

    /// The variables that the template must set.
    pub fn variables() -> BTreeSet<&'static str> {
        lambda::config::variables_of(Self::read)
    }
}
