//! Views in DynamoDB: batch read, conditional write, merge on conflict; queries.
