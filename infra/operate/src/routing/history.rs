//! `playhead routing history`: who changed what, and when.

use super::document::{read, words};
use super::parameter::Kept;
use crate::text::clock_time;
use anyhow::Result;
use serde::Serialize;
use std::fmt::Write as _;

/// A version, and what it changed.
#[derive(Debug, PartialEq, Eq, Serialize)]
pub(super) struct Entry {
    version: i64,
    /// Unix milliseconds.
    changed_at: u64,
    /// ARN of the user or role that wrote it.
    by: String,
    /// The changes from the version before, in words.
    changes: Vec<String>,
    /// Its text.
    document: String,
}

/// The newest versions, at most `limit`, newest first.
///
/// # Errors
/// Never, for documents that were read.
pub(super) fn entries(kept: Vec<Kept>, limit: usize) -> Result<Vec<Entry>> {
    let before = kept.iter().skip(1).map(Some).chain(std::iter::once(None));
    let changes = kept.iter().zip(before).take(limit).map(|(one, before)| changes(one, before));
    let changes: Vec<_> = changes.collect::<Result<_>>()?;
    let entry = |(Kept { copy, by }, changes): (Kept, Vec<String>)| Entry {
        version: copy.version,
        changed_at: copy.changed_at,
        by,
        changes,
        document: copy.text,
    };
    Ok(kept.into_iter().zip(changes).map(entry).collect())
}

fn changes(one: &Kept, before: Option<&Kept>) -> Result<Vec<String>> {
    let said = match (before.map(|before| read(&before.copy.text)), read(&one.copy.text)) {
        (_, Err(error)) => vec![format!("cannot be followed: {error:#}")],
        (None, Ok(_)) if one.copy.version == 1 => vec!["the first version".to_owned()],
        (None, Ok(_)) => vec!["the oldest version that is kept".to_owned()],
        (Some(Err(_)), Ok(_)) => vec!["can be followed again".to_owned()],
        (Some(Ok(before)), Ok(after)) => words(&before, &after)?,
    };
    Ok(if said.is_empty() { vec!["nothing".to_owned()] } else { said })
}

/// The versions as text.
pub(super) fn text(entries: &[Entry]) -> String {
    let mut text = format!("{:>7}  {:<20}  {:<32}  what changed\n", "version", "when", "who");
    for Entry { version, changed_at, by, changes, .. } in entries {
        // arn:aws:iam::123456789012:user/alice
        let who = by.splitn(6, ':').last().unwrap_or_default();
        // Writing to a string cannot fail.
        let _ = writeln!(text, "{version:>7}  {:<20}  {who:<32}  {}", clock_time(*changed_at), changes.join("; "));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::super::parameter::Parameter;
    use super::super::testing::{Ssm, deployment};
    use super::*;

    #[tokio::test]
    async fn history_lists_versions_newest_first_with_who_and_what() {
        let drained = r#"{"version":1,"regions":{"us-west-2":{"state":"draining","to":"us-east-1"}}}"#;
        let versions = [r#"{"version":1}"#, drained, drained, "{", r#"{"version":1,"log":"standby"}"#];
        let ssm = Ssm::start(&versions).await;
        let deployment = deployment(&[("us-east-1", &ssm)]);
        let parameter = Parameter::of(&deployment.sdks["us-east-1"], &deployment.routing_parameter);
        let kept = parameter.history().await.unwrap();
        let all = entries(kept.clone(), 100).unwrap();
        let said: Vec<&str> = all.iter().map(|entry| entry.changes[0].split(':').next().unwrap()).collect();
        let expect = [
            "can be followed again",
            "cannot be followed",
            "nothing",
            "us-west-2 drains to us-east-1",
            "the first version",
        ];
        assert_eq!(said, expect);
        let newest = "version  when                  who                               what changed
      5  2026-09-21 14:13:25Z  user/u5                           can be followed again\n";
        assert_eq!(text(&all[..1]), newest);
        assert_eq!(entries(kept[..2].to_vec(), 100).unwrap()[1].changes.len(), 1);
        assert_eq!(entries(kept[..3].to_vec(), 100).unwrap()[2].changes, ["the oldest version that is kept"]);
        assert_eq!(entries(kept, 3).unwrap(), all[..3], "the limit only cuts the list");
    }
}
