//! Takes events in over HTTP and appends them to the durable log.
