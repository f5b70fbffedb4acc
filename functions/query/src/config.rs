//! Configuration of `query`.

use lambda::auth::AuthConfig;
use lambda::config::{Common, Env};
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
}

impl Config {
    /// Reads the configuration; `None` when a problem was noted.
    pub fn read(env: &mut Env) -> Option<Self> {
        let common = Common::read(env);
        let auth = AuthConfig::read(env);
        let views_table = env.required("VIEWS_TABLE");
        Some(Self { common: common?, auth: auth?, views_table: views_table? })
    }

    /// The variables that the template must set.
    pub fn variables() -> BTreeSet<&'static str> {
        lambda::config::variables_of(Self::read)
    }
}
