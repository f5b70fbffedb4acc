//! `playhead books`: what the functions counted, by the minute in which the events were accepted.
//!
//! accepted = applied + duplicates + dead + in flight. So what does not come to zero after a while is lost. An attempt to
//! append that failed may have reached the log all the same: its events are *unclaimed*, and may end as duplicates.
//! So, once nothing is in flight: accepted ≤ applied + duplicates + dead ≤ accepted + unclaimed.
//!
//! Of several regions, each has books of its own, which end where events leave it and begin where they arrive: accepted + arrived ≤ applied +
//! duplicates + dead + forwarded ≤ accepted + arrived + unclaimed. Added up over all regions, what was forwarded must have arrived.

mod cloudwatch;
mod command;
mod logs;
mod sums;

pub use cloudwatch::minutes as from_cloudwatch;
pub use command::{Args, run};
pub use logs::Reader;
pub use sums::{Books, Minute};
