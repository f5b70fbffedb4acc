//! What `query` is told.

use lambda::auth::AuthConfig;
use lambda::config::{Common, Env};
use std::collections::BTreeSet;

/// What `query` is told.
#[derive(Debug, Clone)]
pub struct Config {
    /// What every function is told.
    pub common: Common,
    /// Whose tokens are believed.
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

    /// The variables that the template has to set.
    pub fn variables() -> BTreeSet<&'static str> {
        lambda::config::variables_of(Self::read)
    }
}
