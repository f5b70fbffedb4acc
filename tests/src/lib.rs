//! End to end, golden and template tests on the local cloud.
