//! `playhead compare`: what the function `compare` found, in all regions of a deployment.
//!
//! Each region's function keeps its reports in a bucket of its own region, under keys that sort by time. Here they are read, added up and shown.
//! What they say of a session is said in the crate `compare`; nothing is compared here. A region that cannot be read is named, and never
//! taken for one that found nothing: the promotion rule of `rollout` rests on that.

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
