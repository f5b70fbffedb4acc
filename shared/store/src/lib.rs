//! The views table. [`settle()`] brings a batch's deltas into it with conditional writes.
//! [`dynamodb`] is the table itself, and the member's queries.
//!
//! Settling knows a store only through the port [`ViewTable`]: read some views, write those that
//! have not changed since. It takes no lock, keeps no record of work in progress, and needs no second
//! table.

#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used, clippy::panic))]

pub mod dynamodb;
mod erase;
mod patience;
mod settle;
mod table;
pub mod testing;

pub use erase::{Erase, EraseMessage};
pub use settle::{Settled, Usage, settle};
pub use table::{Erasure, Fault, READ_AT_ONCE, StoreError, Stored, ViewTable, WRITE_AT_ONCE, Write, WriteError};
