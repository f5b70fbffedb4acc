//! The named changes: drain and restore. Each refuses what would leave sessions without a region,
//! and says what to do instead.

use super::document::{not_of, successor};
use anyhow::{Result, bail, ensure};
use playback::routing::{Document, Regions, State};

/// The document that sends new events of this region's sessions to another region.
///
/// # Errors
/// If the region does not exist, or the other one cannot be its successor.
pub(super) fn drain(document: &Document, regions: &Regions, region: &str, to: &str) -> Result<Document> {
    known(regions, region)?;
    ensure!(!regions.others().is_empty(), "the deployment is in {region} alone: there is nowhere to drain it to");
    known(regions, to)?;
    ensure!(region != to, "{region} cannot be drained to itself: choose another region");
    if let Some(next) = successor(document, to) {
        bail!("{to} is itself draining to {next}: choose an active region, or `routing restore {to}` first");
    }
    if let Some(other) = document.regions.keys().find(|other| successor(document, other) == Some(region)) {
        bail!(
            "{region} takes the sessions of {other}, which is draining: `routing restore {other}`, or `routing drain {other}` to another region, first"
        );
    }
    let mut document = document.clone();
    document.regions.insert(region.to_owned(), State::Draining { to: to.to_owned() });
    Ok(document)
}

/// The document that sends this region's sessions home again.
///
/// # Errors
/// If the region is neither in the deployment nor in the document.
pub(super) fn restore(document: &Document, regions: &Regions, region: &str) -> Result<Document> {
    let mut document = document.clone();
    if document.regions.remove(region).is_none() {
        known(regions, region)?;
    }
    Ok(document)
}

fn known(regions: &Regions, region: &str) -> Result<()> {
    let is_known = regions.all().any(|known| known.name == region);
    ensure!(is_known, not_of(region, regions.all().map(|region| region.name.as_str())));
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::document::check;
    use super::*;
    use proptest::prelude::*;

    const ALL: [&str; 3] = ["us-east-1", "us-west-2", "eu-west-1"];

    fn three() -> Regions {
        Regions::parse(ALL[0], &ALL.join(",")).unwrap()
    }

    #[test]
    fn drain_that_leaves_sessions_nowhere_is_refused() {
        let refused = |document: &Document, regions: &Regions, region: &str, to: &str, because: &str| {
            let error = drain(document, regions, region, to).unwrap_err().to_string();
            assert!(error.contains(because), "{error}");
        };
        let (none, regions) = (Document::default(), three());
        refused(
            &none,
            &regions,
            "us-east-2",
            "us-west-2",
            "us-east-2 is not one of the deployment's regions: us-east-1,",
        );
        refused(&none, &regions, "us-west-2", "mars", "mars is not one of");
        refused(&none, &regions, "us-west-2", "us-west-2", "to itself");
        let drained = drain(&none, &regions, "us-west-2", "us-east-1").unwrap();
        refused(&drained, &regions, "eu-west-1", "us-west-2", "`routing restore us-west-2` first");
        refused(&drained, &regions, "us-east-1", "eu-west-1", "us-east-1 takes the sessions of us-west-2");
        let two = Regions::parse("us-east-1", "us-east-1,us-west-2").unwrap();
        refused(&drained, &two, "us-east-1", "us-west-2", "us-west-2 is itself draining to us-east-1");
        let alone = Regions::parse("us-east-1", "").unwrap();
        refused(&none, &alone, "us-east-1", "us-west-2", "in us-east-1 alone");
    }

    #[test]
    fn drain_can_be_repeated_redirected_and_restored() {
        let (none, regions) = (Document::default(), three());
        let drained = drain(&none, &regions, "us-west-2", "us-east-1").unwrap();
        assert_eq!(drain(&drained, &regions, "us-west-2", "us-east-1").unwrap(), drained);
        let elsewhere = drain(&drained, &regions, "us-west-2", "eu-west-1").unwrap();
        assert_eq!(successor(&elsewhere, "us-west-2"), Some("eu-west-1"));
        assert_eq!(restore(&elsewhere, &regions, "us-west-2").unwrap(), none);
        assert_eq!(restore(&none, &regions, "us-west-2").unwrap(), none);
        restore(&none, &regions, "mars").unwrap_err();
        // The document may still name a region that the deployment has left.
        let two = Regions::parse("us-east-1", "us-east-1,eu-west-1").unwrap();
        assert_eq!(restore(&drained, &two, "us-west-2").unwrap(), none);
    }

    proptest! {
        #[test]
        fn drains_and_restores_leave_every_session_an_active_region(
            steps in proptest::collection::vec((0..3usize, 0..3usize, any::<bool>()), 0..20),
        ) {
            let (mut document, regions) = (Document::default(), three());
            for (region, to, drains) in steps {
                let changed = match drains {
                    true => drain(&document, &regions, ALL[region], ALL[to]),
                    false => restore(&document, &regions, ALL[region]),
                };
                document = changed.unwrap_or(document);
                for route in check(&document, &regions, true).unwrap() {
                    prop_assert_eq!(successor(&document, &route.target), None);
                }
            }
        }
    }
}
