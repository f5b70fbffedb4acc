//! `playhead routing`: reads, changes and writes the routing document of a deployment in all of its
//! regions.
//!
//! Functions read the copy in their own region's Parameter Store, so that they need no other
//! region. This module keeps the copies the same. It writes nothing that functions would not
//! follow, and it writes to every region that answers. A region that does not answer stops nothing:
//! that is when regions are drained.
//!
//! This module decides nothing about sessions or logs: `playback::routing` defines what a document
//! means.

mod change;
mod command;
mod copies;
mod document;
mod edit;
mod history;
mod parameter;
mod show;
#[cfg(test)]
pub(crate) mod testing;

pub(crate) use copies::Copies;
pub(crate) use document::read;

pub use command::{Args, run, run_on};
pub use edit::{Edit, Edited};

use crate::endpoints::Endpoints;
use anyhow::{Context as _, Result};
use parameter::Parameter;
use playback::routing::Document;

/// Writes a document to a running local cloud and its peers, without any check. Functions follow
/// within [`lambda::routing::MAX_AGE`].
///
/// # Errors
/// If one of them refuses it.
pub async fn write(endpoints: &Endpoints, document: &Document) -> Result<()> {
    let text = serde_json::to_string(document)?;
    for cloud in std::iter::once(endpoints).chain(&endpoints.peers) {
        let parameter = Parameter::of(&cloud.sdk_config(), &cloud.routing_parameter);
        parameter.write(&text).await.with_context(|| format!("the routing document of {}", cloud.region))?;
    }
    Ok(())
}
