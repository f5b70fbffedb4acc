//! `playhead compare`: what the function `compare` found, in all regions of a deployment.
//!
//! Each region's function keeps its reports in a bucket in the same region, under keys that sort by
//! time. This module reads them, adds them up and shows them. It compares nothing: the crate
//! `compare` does. A region that cannot be read is named, and never mistaken for one that found
//! nothing. The promotion rule of `rollout` relies on that.

mod command;
mod read;
mod sites;
mod table;
#[cfg(test)]
pub(crate) mod testing;

pub use command::{Args, run, run_on};
pub use read::{Found, last_hour, run_now, since};
pub use sites::{Site, Sites};
pub(crate) use table::percent;
