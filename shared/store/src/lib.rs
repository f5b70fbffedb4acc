//! The views table. [`settle`] brings a batch's deltas into it by conditional writes; [`dynamodb`] is the table
//! itself, and what a member asks of it.
//!
//! The port [`ViewTable`] is all that settling knows of a store: read some views, write one if it is still as it
//! was read. It takes no lock, keeps no record of work in progress, and needs no second table.

pub mod dynamodb;
mod settle;
mod table;
pub mod testing;

pub use settle::{Settled, Usage, settle};
pub use table::{Fault, StoreError, Stored, ViewTable, WriteError};
