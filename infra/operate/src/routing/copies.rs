//! The regions' copies of the document, and the choice of one of them.

use super::document::{not_of, same};
use super::parameter::{Copy, Parameter};
use crate::stack::Deployment;
use crate::text::clock_time;
use anyhow::{Context as _, Error, Result, bail};
use futures::future::join_all;

/// What each region answered, by its name.
#[derive(Debug)]
pub(crate) struct Copies(pub(crate) Vec<(String, Result<Copy>)>);

impl Copies {
    /// Asks all regions at once.
    pub(crate) async fn read(deployment: &Deployment) -> Self {
        let read = deployment.sdks.iter().map(|(region, sdk)| async move {
            (region.clone(), Parameter::of(sdk, &deployment.routing_parameter).read(None).await)
        });
        Self(join_all(read).await)
    }

    /// The regions that answered.
    pub(crate) fn reached(&self) -> impl Iterator<Item = (&str, &Copy)> {
        self.0.iter().filter_map(|(region, copy)| Some((region.as_str(), copy.as_ref().ok()?)))
    }

    /// The regions that did not answer, and why.
    pub(crate) fn missed(&self) -> impl Iterator<Item = (&str, &Error)> {
        self.0.iter().filter_map(|(region, copy)| Some((region.as_str(), copy.as_ref().err()?)))
    }

    /// Whether the regions that answered have the same document.
    pub(crate) fn agree(&self) -> bool {
        let mut reached = self.reached();
        let first = reached.next();
        reached.all(|(_, copy)| first.is_some_and(|(_, first)| same(&first.text, &copy.text)))
    }

    /// The chosen copy: the one of the region `from`, else the one that all answering regions
    /// share.
    ///
    /// # Errors
    /// If that region did not answer, no region did, or they differ and `from` does not choose one.
    pub(crate) fn chosen(&self, from: Option<&str>) -> Result<(&str, &Copy)> {
        if let Some(from) = from {
            let found = self.0.iter().find(|(region, _)| region == from);
            let names = self.0.iter().map(|(region, _)| region.as_str());
            let (region, copy) = found.with_context(|| not_of(from, names))?;
            return match copy {
                Ok(copy) => Ok((region, copy)),
                Err(error) => bail!("{region} was not reached: {error:#}"),
            };
        }
        let newest = self.reached().max_by_key(|(_, copy)| copy.changed_at);
        let Some((region, copy)) = newest else {
            let why: Vec<String> = self.missed().map(|(region, error)| format!("\n  {region}: {error:#}")).collect();
            bail!("no region was reached:{}", why.concat());
        };
        if !self.agree() {
            let have = self.reached().map(|(region, copy)| {
                format!("\n  {region} has version {} of {}: {}", copy.version, clock_time(copy.changed_at), copy.text)
            });
            bail!(
                "the regions have different documents:{}\nChoose the right one for all regions with --from. The newest is --from {region}",
                have.collect::<String>()
            );
        }
        Ok((region, copy))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn copies(of: &[(&str, Option<(&str, u64)>)]) -> Copies {
        let copy = |(region, copy): &(&str, Option<(&str, u64)>)| {
            let copy = copy.map(|(text, changed_at)| Copy { text: text.into(), version: 1, changed_at });
            ((*region).to_owned(), copy.context("it is down"))
        };
        Copies(of.iter().map(copy).collect())
    }

    #[test]
    fn chosen_copy_is_the_named_one_or_the_one_all_share() {
        let chosen = |copies: &Copies, from: Option<&str>| copies.chosen(from).map(|(_, copy)| copy.text.clone());
        let refused = |copies: &Copies, from: Option<&str>, because: &str| {
            let error = format!("{:#}", copies.chosen(from).unwrap_err());
            assert!(error.contains(because), "{error}");
        };
        let one_down = copies(&[("a", None), ("b", Some((r#"{"x":1}"#, 1))), ("c", Some((r#"{ "x": 1}"#, 2)))]);
        assert_eq!(chosen(&one_down, None).unwrap(), r#"{ "x": 1}"#, "formatting makes no difference");
        assert_eq!(chosen(&one_down, Some("b")).unwrap(), r#"{"x":1}"#);
        refused(&one_down, Some("a"), "a was not reached: it is down");
        refused(&one_down, Some("d"), "d is not one of the deployment's regions: a, b, c");

        let differ = copies(&[("a", Some(("1", 7))), ("b", Some(("2", 6)))]);
        refused(&differ, None, "The newest is --from a");
        assert_eq!(chosen(&differ, Some("b")).unwrap(), "2");
        refused(&copies(&[("a", None), ("b", None)]), None, "no region was reached:\n  a: it is down\n  b: it is down");
    }
}
