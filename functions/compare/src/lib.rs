//! Compares shadow views with live ones.

mod judge;
mod mapping;
mod report;
mod session;
#[cfg(test)]
mod testing;

pub use judge::{Answer, Ask, Row, Window, asks};
pub use mapping::{MalformedMapping, Mapping, Unmapped};
pub use report::{Cause, Example, MAX_EXAMPLES, Report, Verdict, redact};
pub use session::{Field, FieldDifference, MalformedTolerances, Session, Tolerances, Value, diff};
