//! `playhead books`: what the functions counted, by the minute in which the events were accepted.
//!
//! accepted = applied + duplicates + dead + in flight. If "in flight" does not fall to zero after a
//! while, events are lost. An append that failed may have reached the log anyway. Its events are
//! *unclaimed*, and may end as duplicates. So, once nothing is in flight: accepted ≤ applied +
//! duplicates + dead ≤ accepted + unclaimed.
//!
//! With several regions, each has its own books. Events enter them when they are accepted or
//! arrive, and leave them when they end or are forwarded:
//! accepted + arrived ≤ applied + duplicates + dead + forwarded ≤ accepted + arrived + unclaimed.
//! Over all regions together, what was forwarded must have arrived.

mod cloudwatch;
mod command;
mod logs;
mod sums;

pub use cloudwatch::minutes as from_cloudwatch;
pub use command::{Args, run};
pub use logs::Reader;
pub use sums::{Books, Minute};
