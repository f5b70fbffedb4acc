//! Applies again what `process` could not, and gives it up after the last attempt.
