//! `playhead routing`: the routing document of a deployment, read, changed and written in all of its regions.
//!
//! Each region's functions read a copy of their own, in their region's Parameter Store, so that none needs another region. Here is what keeps
//! the copies the same: nothing is written that functions would not follow, and whatever is written goes to every region that answers. One
//! that does not answer stops nothing, for that is when regions are drained.
//!
//! It decides nothing about sessions or logs: what a document means is said in `playback::routing`.

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
pub use edit::{Edit, Outcome};

use crate::endpoints::Endpoints;
use anyhow::{Context as _, Result};
use parameter::Parameter;
use playback::routing::Document;

/// Writes a document to a running local cloud and to its peers, without holding it against anything. Functions follow within
/// [`lambda::routing::MAX_AGE`].
///
/// # Errors
/// If one of them does not take it.
pub async fn write(endpoints: &Endpoints, document: &Document) -> Result<()> {
    let text = serde_json::to_string(document)?;
    for cloud in std::iter::once(endpoints).chain(&endpoints.peers) {
        let parameter = Parameter::of(&cloud.sdk_config(), &cloud.routing_parameter);
        parameter.write(&text).await.with_context(|| format!("the routing document of {}", cloud.region))?;
    }
    Ok(())
}
