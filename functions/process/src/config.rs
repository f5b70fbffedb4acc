//! Configuration of `process`.

use crate::candidate::Sample;
use lambda::config::{Common, Env};
use playback::rollout::Share;
use std::collections::BTreeSet;

/// Configuration of `process`.
#[derive(Debug, Clone)]
pub struct Config {
    /// Configuration that every function has.
    pub common: Common,
    /// The table of shadow views, if there is one (`SHADOW_TABLE`).
    pub shadow_table: Option<String>,
    /// What this copy of `process` does.
    pub mode: Mode,
}

/// What a copy of `process` does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Mode {
    /// It writes the views that members see.
    Live {
        /// The table `views` (`VIEWS_TABLE`).
        views_table: String,
        /// The queue `dead-letter` (`DEAD_LETTER_QUEUE_URL`).
        dead_letter_queue_url: String,
        /// The queue `retry` (`RETRY_QUEUE_URL`).
        retry_queue_url: String,
        /// What a candidate needs of this function, if there is one that has to see what other
        /// regions send.
        candidate: Option<ForCandidate>,
    },
    /// It is a candidate: it folds a share of the live profiles into the shadow table
    /// (`CANDIDATE_SAMPLE`, such as `5%`).
    Candidate(Sample),
}

/// What a candidate needs of the live function.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ForCandidate {
    /// Its queue, for copies of what arrives from other regions (`CANDIDATE_QUEUE_URL`).
    pub queue_url: String,
    /// The profiles that it folds (`COPIED_SAMPLE`, such as `5%`).
    pub sample: Sample,
}

impl Config {
    /// Reads the configuration; `None` if there is a problem.
    pub fn read(env: &mut Env) -> Option<Self> {
        let common = Common::read(env);
        let shadow_table = env.optional::<String>("SHADOW_TABLE");
        let sample = env.optional::<Share>("CANDIDATE_SAMPLE");
        let mode = match sample {
            Some(Some(sample)) => {
                if shadow_table == Some(None) {
                    env.problem("SHADOW_TABLE", "is not set: a candidate folds into it");
                }
                Some(Mode::Candidate(Sample(sample)))
            }
            // Also read if the sample is invalid: all problems are reported together.
            _ => Self::read_live(env).filter(|_| sample.is_some()),
        };
        Some(Self { common: common?, shadow_table: shadow_table?, mode: mode? })
    }

    fn read_live(env: &mut Env) -> Option<Mode> {
        let views_table = env.required("VIEWS_TABLE");
        let dead_letter_queue_url = env.required("DEAD_LETTER_QUEUE_URL");
        let retry_queue_url = env.required("RETRY_QUEUE_URL");
        let candidate = Self::read_for_candidate(env);
        Some(Mode::Live {
            views_table: views_table?,
            dead_letter_queue_url: dead_letter_queue_url?,
            retry_queue_url: retry_queue_url?,
            candidate: candidate?,
        })
    }

    fn read_for_candidate(env: &mut Env) -> Option<Option<ForCandidate>> {
        let queue_url = env.optional::<String>("CANDIDATE_QUEUE_URL");
        let sample = env.optional::<Share>("COPIED_SAMPLE");
        match (queue_url?, sample?) {
            (Some(queue_url), Some(sample)) => Some(Some(ForCandidate { queue_url, sample: Sample(sample) })),
            (Some(_), None) => {
                env.problem("COPIED_SAMPLE", "is not set: it says what CANDIDATE_QUEUE_URL gets copies of");
                None
            }
            (None, _) => Some(None),
        }
    }

    /// The variables that the template must set.
    pub fn variables() -> BTreeSet<&'static str> {
        lambda::config::variables_of(Self::read)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const COMMON: [(&str, &str); 3] =
        [("STAGE", "dev"), ("AWS_LAMBDA_FUNCTION_NAME", "process"), ("AWS_REGION", "us-east-1")];

    fn read(more: &[(&str, &str)]) -> Result<Mode, Vec<&'static str>> {
        let env = Env::from_pairs(COMMON.iter().chain(more).copied());
        let config = lambda::config::read(env, Config::read);
        config.map(|config| config.mode).map_err(|errors| errors.0.iter().map(|problem| problem.variable).collect())
    }

    #[test]
    fn candidate_needs_a_shadow_table_and_nothing_live() {
        let sample = |text: &str| Mode::Candidate(Sample(text.parse().unwrap()));
        assert_eq!(read(&[("CANDIDATE_SAMPLE", "5%"), ("SHADOW_TABLE", "s")]), Ok(sample("5%")));
        assert_eq!(read(&[("CANDIDATE_SAMPLE", "5%")]), Err(vec!["SHADOW_TABLE"]));
        assert_eq!(read(&[("CANDIDATE_SAMPLE", "5")]).unwrap_err()[0], "CANDIDATE_SAMPLE");
        let live = [("VIEWS_TABLE", "v"), ("DEAD_LETTER_QUEUE_URL", "d"), ("RETRY_QUEUE_URL", "r")];
        let copies = |more: &[(&'static str, &'static str)]| match read(&[&live[..], more].concat()) {
            Ok(Mode::Live { candidate, .. }) => Ok(candidate.map(|candidate| candidate.queue_url)),
            other => Err(other),
        };
        let queue = ("CANDIDATE_QUEUE_URL", "c");
        assert_eq!(copies(&[("COPIED_SAMPLE", "5%")]), Ok(None));
        assert_eq!(copies(&[queue, ("COPIED_SAMPLE", "5%")]), Ok(Some("c".to_owned())));
        assert_eq!(copies(&[queue]), Err(Err(vec!["COPIED_SAMPLE"])));
        assert_eq!(read(&[]), Err(vec!["VIEWS_TABLE", "DEAD_LETTER_QUEUE_URL", "RETRY_QUEUE_URL"]));
    }
}
