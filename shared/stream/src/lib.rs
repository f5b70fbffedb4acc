//! The durable log: what ingest appends to and process is woken by.
