//! What a topic must be set to, and why. Pure.

use std::collections::BTreeMap;

/// Lambda's mappings give up a record at this age. It must still be on the topic then.
const GIVEN_UP_AFTER_MS: i64 = 432_000_000;
/// What the template sets.
const RETENTION_MS: i64 = 604_800_000;
/// The size up to which `ingest` makes a batch.
const LARGEST_BATCH: i64 = 1_000_000;
const MAX_MESSAGE_BYTES: i64 = 1_048_588;
const COPIES: i32 = 3;
/// Kafka has no such setting of an existing topic.
pub(super) const COPIES_SETTING: &str = "replication.factor";

/// How a topic is set.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TopicSettings {
    /// Its partitions.
    pub partitions: i32,
    /// Copies of each partition.
    pub replication_factor: i32,
    /// Its other settings by Kafka's names.
    pub settings: BTreeMap<String, String>,
}

/// What the stack relies on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Promise {
    /// The stack's parameter `KafkaMinInsyncReplicas`.
    pub min_insync_replicas: u16,
    /// Whether the brokers themselves keep the copies in order and let nobody change that, as MSK's
    /// Express brokers do.
    pub kept_by_brokers: bool,
}

impl Promise {
    /// What `min.insync.replicas` must be: never one alone, whatever the parameter says.
    fn in_sync(self) -> u16 {
        self.min_insync_replicas.max(2)
    }
}

/// A setting that breaks the promise.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wrong {
    /// Its name.
    pub setting: &'static str,
    /// Its value, unless only the cluster's default counts.
    pub is: Option<String>,
    /// What it must be, in words.
    pub must_be: String,
    /// What may happen otherwise.
    pub why: &'static str,
}

/// The settings that every topic must state, with the values that the template gives to its own.
#[must_use]
pub fn right(promise: Promise) -> Vec<(&'static str, String)> {
    let of_all = [("retention.ms", RETENTION_MS.to_string()), ("max.message.bytes", MAX_MESSAGE_BYTES.to_string())];
    let of_copies = [
        ("min.insync.replicas", promise.in_sync().to_string()),
        ("unclean.leader.election.enable", "false".to_owned()),
    ];
    of_all.into_iter().chain(of_copies.into_iter().filter(|_| !promise.kept_by_brokers)).collect()
}

/// The right values of the settings that are wrong. Copies cannot be set: see `command`.
pub(super) fn corrected(wrong: &[Wrong], promise: Promise) -> BTreeMap<String, String> {
    let others = [("retention.bytes", "-1".to_owned()), ("cleanup.policy", "delete".to_owned())];
    let all = right(promise).into_iter().chain(others);
    let is_wrong = |name: &str| wrong.iter().any(|wrong| wrong.setting == name);
    all.filter(|(name, _)| is_wrong(name)).map(|(name, value)| (name.to_owned(), value)).collect()
}

/// Everything about the topic that breaks the promise.
#[must_use]
pub fn judge(topic: &TopicSettings, promise: Promise) -> Vec<Wrong> {
    let is = |setting: &str| topic.settings.get(setting).map(String::as_str);
    let number = |setting: &str| is(setting).and_then(|value| value.parse::<i64>().ok());
    let mut found = Vec::new();
    let mut check = |holds: bool, setting: &'static str, must_be: String, why: &'static str| {
        if !holds {
            let is = match setting {
                COPIES_SETTING => Some(topic.replication_factor.to_string()),
                _ => is(setting).map(str::to_owned),
            };
            found.push(Wrong { setting, is, must_be, why });
        }
    };
    if !promise.kept_by_brokers {
        let copies = topic.replication_factor;
        let must_be = format!("at least {COPIES}");
        check(copies >= COPIES, COPIES_SETTING, must_be, "a lost broker takes records with it");
        let in_sync = promise.in_sync();
        let must_be = match promise.min_insync_replicas == in_sync {
            true => format!("{in_sync}, as KafkaMinInsyncReplicas says"),
            false => format!("{in_sync}, and so must KafkaMinInsyncReplicas"),
        };
        check(
            number("min.insync.replicas") == Some(in_sync.into()) && promise.min_insync_replicas == in_sync,
            "min.insync.replicas",
            must_be,
            "it decides how many brokers have what was accepted",
        );
        check(
            is("unclean.leader.election.enable") == Some("false"),
            "unclean.leader.election.enable",
            "false".to_owned(),
            "a replica that lags may become the leader, and drop what was accepted",
        );
    }
    check(
        number("retention.ms").is_some_and(|ms| ms == -1 || ms > GIVEN_UP_AFTER_MS),
        "retention.ms",
        format!("above {GIVEN_UP_AFTER_MS}, or -1"),
        "records must outlive the 5 days for which a mapping tries them",
    );
    check(
        number("max.message.bytes").is_some_and(|bytes| bytes >= LARGEST_BATCH),
        "max.message.bytes",
        format!("at least {LARGEST_BATCH}"),
        "brokers refuse larger batches as a whole",
    );
    // A topic need not state these: only a value other than Kafka's default is wrong.
    check(
        number("retention.bytes").is_none_or(|bytes| bytes == -1),
        "retention.bytes",
        "-1".to_owned(),
        "a full topic drops records before they are read",
    );
    check(
        is("cleanup.policy").is_none_or(|policy| policy == "delete"),
        "cleanup.policy",
        "delete".to_owned(),
        "compaction drops all but the last record of each session",
    );
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    const PROMISE: Promise = Promise { min_insync_replicas: 2, kept_by_brokers: false };

    /// A topic as the template makes it, with some settings changed (`None` leaves one out).
    fn topic(changed: &[(&str, Option<&str>)]) -> TopicSettings {
        let mut settings: BTreeMap<String, String> =
            right(PROMISE).into_iter().map(|(name, value)| (name.to_owned(), value)).collect();
        for (name, value) in changed {
            match value {
                Some(value) => drop(settings.insert((*name).to_owned(), (*value).to_owned())),
                None => drop(settings.remove(*name)),
            }
        }
        TopicSettings { partitions: 12, replication_factor: 3, settings }
    }

    fn wrong(topic: &TopicSettings, promise: Promise) -> Vec<&'static str> {
        judge(topic, promise).into_iter().map(|wrong| wrong.setting).collect()
    }

    #[test]
    fn each_setting_that_loses_records_is_found() {
        for (setting, bad, good) in [
            ("min.insync.replicas", &["1", "3", "?"][..], &["2"][..]),
            ("unclean.leader.election.enable", &["true"], &["false"]),
            ("retention.ms", &["432000000", "0", "soon"], &["432000001", "-1"]),
            ("max.message.bytes", &["999999"], &["1000000", "1048588"]),
            ("retention.bytes", &["1073741824"], &["-1"]),
            ("cleanup.policy", &["compact", "compact,delete"], &["delete"]),
        ] {
            for value in bad {
                assert_eq!(wrong(&topic(&[(setting, Some(value))]), PROMISE), [setting], "{value}");
            }
            for value in good {
                assert!(wrong(&topic(&[(setting, Some(value))]), PROMISE).is_empty(), "{setting}={value}");
            }
        }
        let of_two = TopicSettings { replication_factor: 2, ..topic(&[]) };
        assert_eq!(wrong(&of_two, PROMISE), [COPIES_SETTING]);
    }

    /// The cluster's defaults may be anything, and may change.
    #[test]
    fn settings_that_must_be_stated_are_wrong_when_missing() {
        for (setting, _) in right(PROMISE) {
            let found = judge(&topic(&[(setting, None)]), PROMISE);
            assert_eq!(
                found.iter().map(|wrong| (wrong.setting, wrong.is.clone())).collect::<Vec<_>>(),
                [(setting, None)]
            );
        }
    }

    #[test]
    fn one_copy_is_never_enough_whatever_the_stack_says() {
        let promise = Promise { min_insync_replicas: 1, ..PROMISE };
        for in_sync in ["1", "2"] {
            assert_eq!(wrong(&topic(&[("min.insync.replicas", Some(in_sync))]), promise), ["min.insync.replicas"]);
        }
        let found = judge(&topic(&[]), promise);
        assert_eq!(corrected(&found, promise)["min.insync.replicas"], "2");
    }

    #[test]
    fn express_brokers_are_not_asked_for_what_they_keep_themselves() {
        let promise = Promise { kept_by_brokers: true, ..PROMISE };
        let bare = topic(&[("min.insync.replicas", None), ("unclean.leader.election.enable", None)]);
        assert!(wrong(&bare, promise).is_empty());
        let short = topic(&[("retention.ms", Some("1000"))]);
        assert_eq!(wrong(&short, promise), ["retention.ms"]);
    }
}
