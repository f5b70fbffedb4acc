//! The routing document.
//!
//! - What is read is written and read again as the same document.
//! - Whatever a valid document says, each session is folded by one region of the deployment, which
//!   is not draining.
//! - Each profile is on one path, and lists win over shares.

use playback::rollout::Path;
use playback::routing::{Document, Regions, Routes, State};

pub(crate) fn run(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let Ok(document) = text.parse::<Document>() else { return };
    let written = serde_json::to_string(&document).unwrap();
    assert_eq!(serde_json::from_str::<Document>(&written).unwrap(), document);

    if let Some(rollout) = &document.rollout {
        for path in Path::ALL {
            assert!(rollout.always().of(path).iter().all(|profile_id| rollout.path(profile_id) == path));
        }
        let covered: u16 = Path::ALL.into_iter().map(|path| rollout.share_of(path).buckets()).sum();
        assert_eq!(covered, playback::rollout::BUCKETS);
    }

    let regions = Regions::parse("us-east-1", "us-east-1,us-west-2,eu-west-1").unwrap();
    let Ok(routes) = Routes::new(regions, document.clone()) else { return };
    for region in routes.regions().all() {
        let target = routes.target(&region.home);
        assert!(routes.regions().all().any(|region| region == target));
        assert!(!matches!(document.regions.get(&target.name), Some(State::Draining { .. })), "{target:?} is draining");
    }
}
