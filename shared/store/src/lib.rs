//! The views table. [`settle()`] brings a batch's deltas into it with conditional writes.
//! [`dynamodb`] is the table itself, and the member's queries.
//!
//! Settling knows a store only through the port [`ViewTable`]: read some views, write one if it has
//! not changed since. It takes no lock, keeps no record of work in progress, and needs no second
//! table.

pub mod dynamodb;
mod settle;
mod table;
pub mod testing;

pub use settle::{Settled, Usage, settle};
pub use table::{Fault, StoreError, Stored, ViewTable, WriteError};
