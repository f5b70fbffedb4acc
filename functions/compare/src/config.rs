//! Configuration of `compare`.

use crate::legacy::UrlTemplate;
use crate::mapping::Mapping;
use crate::session::Tolerances;
use lambda::config::{Common, Env};
use std::collections::BTreeSet;
use std::time::Duration;

/// Configuration of `compare`.
#[derive(Debug, Clone)]
pub struct Config {
    /// Configuration of every function.
    pub common: Common,
    /// The table of shadow views (`SHADOW_TABLE`), which also holds the checkpoint.
    pub shadow_table: String,
    /// The table of live views (`VIEWS_TABLE`).
    pub views_table: String,
    /// The bucket of reports (`REPORTS_BUCKET`).
    pub reports_bucket: String,
    /// A session is compared after this time without events (`SETTLED_AFTER_S`, default 1,800).
    pub settled_after: Duration,
    /// How much numbers may differ (`TOLERANCES`): JSON, see [`Tolerances`]. Default: not at all
    /// for live views. For a legacy system, which has another clock, 5 s for times.
    pub tolerances: Tolerances,
    /// The legacy system to compare shadow views with; if none, they are compared with the live
    /// views.
    pub legacy: Option<LegacyConfig>,
}

/// Configuration of the legacy system's API.
#[derive(Debug, Clone)]
pub struct LegacyConfig {
    /// Its URL (`LEGACY_SESSIONS_URL`): see [`UrlTemplate`].
    pub url: UrlTemplate,
    /// Where its answers hold which field (`LEGACY_MAPPING`): JSON, see [`Mapping`].
    pub mapping: Mapping,
    /// The SSM parameter with the value of the `authorization` header, if any
    /// (`LEGACY_AUTHORIZATION_PARAMETER`). It is a secret, so it must not be in the function's
    /// configuration, where others can read it.
    pub authorization_parameter: Option<String>,
    /// How long to wait for one answer (`LEGACY_TIMEOUT_MS`, default 2,000).
    pub time_out: Duration,
}

impl Config {
    /// Reads the configuration; `None` when a problem was noted.
    pub fn read(env: &mut Env) -> Option<Self> {
        let common = Common::read(env);
        let shadow_table = env.required("SHADOW_TABLE");
        let views_table = env.required("VIEWS_TABLE");
        let reports_bucket = env.required("REPORTS_BUCKET");
        let settled_after = env.parsed("SETTLED_AFTER_S", 1_800);
        let tolerances = env.optional("TOLERANCES");
        let legacy = LegacyConfig::read(env);
        let default =
            if matches!(legacy, Some(Some(_))) { Tolerances::of_another_clock() } else { Tolerances::default() };
        Some(Self {
            common: common?,
            shadow_table: shadow_table?,
            views_table: views_table?,
            reports_bucket: reports_bucket?,
            settled_after: Duration::from_secs(settled_after?),
            tolerances: tolerances?.unwrap_or(default),
            legacy: legacy?,
        })
    }

    /// The variables that the template must set.
    pub fn variables() -> BTreeSet<&'static str> {
        lambda::config::variables_of(Self::read)
    }
}

impl LegacyConfig {
    fn read(env: &mut Env) -> Option<Option<Self>> {
        let url = env.optional::<UrlTemplate>("LEGACY_SESSIONS_URL");
        let mapping = env.optional::<Mapping>("LEGACY_MAPPING");
        let authorization = env.optional("LEGACY_AUTHORIZATION_PARAMETER");
        let time_out = env.parsed("LEGACY_TIMEOUT_MS", 2_000);
        let (url, mapping, authorization_parameter, time_out) = (url?, mapping?, authorization?, time_out?);
        match (url, mapping) {
            (None, _) => Some(None),
            (Some(_), None) => {
                env.problem("LEGACY_MAPPING", "is not set: LEGACY_SESSIONS_URL needs a mapping of the answers' fields");
                None
            }
            (Some(url), Some(mapping)) if !url.names_a_session() && !mapping.reads_lists() => {
                env.problem(
                    "LEGACY_MAPPING",
                    "has no `sessions`, and LEGACY_SESSIONS_URL has no {session_id}: set one of them",
                );
                None
            }
            (Some(url), Some(mapping)) => {
                let time_out = Duration::from_millis(time_out);
                Some(Some(Self { url, mapping, authorization_parameter, time_out }))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use lambda::config::read;

    const BASE: [(&str, &str); 6] = [
        ("AWS_LAMBDA_FUNCTION_NAME", "compare"),
        ("AWS_REGION", "us-east-1"),
        ("STAGE", "test"),
        ("SHADOW_TABLE", "shadow"),
        ("VIEWS_TABLE", "views"),
        ("REPORTS_BUCKET", "reports"),
    ];

    fn config(more: &[(&str, &str)]) -> Result<Config, String> {
        let pairs = BASE.iter().chain(more).copied();
        read(Env::from_pairs(pairs), Config::read).map_err(|errors| errors.to_string())
    }

    const LIST: &str = "https://legacy.example/{profile_id}";
    const ONE: &str = "https://legacy.example/{profile_id}/{session_id}";
    const FIELDS: &str = r#"{"fields":{"title_id":{"pointer":"/t"}}}"#;

    #[test]
    fn without_a_legacy_system_views_are_compared_exactly() {
        let config = config(&[("LEGACY_SESSIONS_URL", ""), ("LEGACY_MAPPING", "")]).unwrap();
        assert!(config.legacy.is_none());
        assert_eq!((config.tolerances, config.settled_after.as_secs()), (Tolerances::default(), 1_800));
    }

    #[test]
    fn a_legacy_system_has_another_clock() {
        let set = [("LEGACY_SESSIONS_URL", ONE), ("LEGACY_MAPPING", FIELDS)];
        assert_eq!(config(&set).unwrap().tolerances, Tolerances::of_another_clock());
        let exact = config(&[set[0], set[1], ("TOLERANCES", "{}")]).unwrap();
        assert_eq!(exact.tolerances, Tolerances::default());
        assert_eq!(exact.legacy.unwrap().time_out.as_millis(), 2_000);
    }

    #[test]
    fn an_inconsistent_configuration_is_rejected() {
        let check = |more: &[(&str, &str)], expected: &str| {
            let errors = config(more).unwrap_err();
            assert!(errors.contains(expected), "{errors}");
        };
        check(&[("LEGACY_SESSIONS_URL", ONE)], "LEGACY_MAPPING is not set");
        check(&[("LEGACY_SESSIONS_URL", LIST), ("LEGACY_MAPPING", FIELDS)], "LEGACY_MAPPING has no `sessions`");
        check(&[("LEGACY_SESSIONS_URL", "legacy"), ("LEGACY_MAPPING", FIELDS)], "LEGACY_SESSIONS_URL cannot be read");
        check(&[("TOLERANCES", r#"{"title_id":1}"#)], "TOLERANCES cannot be read");
    }
}
