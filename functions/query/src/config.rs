//! Configuration of `query`.

use crate::FrameAncestors;
use lambda::auth::AuthConfig;
use lambda::config::{Common, Env, completed_percent};
use playback::edge::SessionWindow;
use playback::history::Rules;
use std::collections::BTreeSet;

/// Configuration of `query`.
#[derive(Debug, Clone)]
pub struct Config {
    /// Settings that all functions share.
    pub common: Common,
    /// Which tokens are accepted.
    pub auth: AuthConfig,
    /// The table `views` (`VIEWS_TABLE`).
    pub views_table: String,
    /// The queue `retry`, which carries erasures to the end (`RETRY_QUEUE_URL`).
    pub retry_queue_url: String,
    /// When a title counts as begun and as finished (`RESUME_MINIMUM_PERCENT`,
    /// `RESUME_MINIMUM_SECONDS`, `COMPLETED_PERCENT`).
    pub rules: Rules,
    /// How far ahead of our clock a session may begin (`SESSION_MAX_AHEAD_MINUTES`).
    pub window: SessionWindow,
    /// Which pages may have the activity page in a frame (`ALLOWED_ORIGINS`; none if absent).
    pub frame_ancestors: FrameAncestors,
}

impl Config {
    /// Reads the configuration; `None` when a problem was noted.
    pub fn read(env: &mut Env) -> Option<Self> {
        let common = Common::read(env);
        let auth = AuthConfig::read(env);
        let views_table = env.required("VIEWS_TABLE");
        let retry_queue_url = env.required("RETRY_QUEUE_URL");
        let rules = read_rules(env);
        let frame_ancestors = env.parsed("ALLOWED_ORIGINS", FrameAncestors::default());
        let minutes = env.parsed::<u32>("SESSION_MAX_AHEAD_MINUTES", 10);
        let window = SessionWindow { max_ahead_ms: u64::from(minutes?) * 60 * 1000, ..SessionWindow::default() };
        Some(Self {
            common: common?,
            auth: auth?,
            views_table: views_table?,
            retry_queue_url: retry_queue_url?,
            rules: rules?,
            window,
            frame_ancestors: frame_ancestors?,
        })
    }

    /// The variables that the template must set.
    pub fn variables() -> BTreeSet<&'static str> {
        lambda::config::variables_of(Self::read)
    }
}

fn read_rules(env: &mut Env) -> Option<Rules> {
    let default = Rules::default();
    let minimum = env.parsed("RESUME_MINIMUM_PERCENT", default.resume_minimum_percent);
    let seconds = env.parsed::<u32>("RESUME_MINIMUM_SECONDS", 120);
    let completed = completed_percent(env);
    let rules = Rules {
        resume_minimum_percent: minimum?,
        resume_minimum_ms: u64::from(seconds?) * 1000,
        completed_percent: completed?,
    };
    if rules.resume_minimum_percent > 100 {
        env.problem("RESUME_MINIMUM_PERCENT", "must be between 0 and 100");
    }
    Some(rules)
}
