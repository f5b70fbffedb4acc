//! Wiring only: configuration, clients, and the loop that Lambda drives.

fn main() {}
