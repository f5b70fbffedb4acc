//! Folds batches of records into views.
