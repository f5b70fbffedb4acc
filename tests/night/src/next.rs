//! The next version of the functions, as far as versions can differ: `ingest` writes envelopes of a
//! schema version that this code does not read, and the others read them.
//!
//! This code plays both: what the next version of a function is handed is first written as this
//! version would have it. A letter that it writes then holds that form.

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use playback::envelope::{SCHEMA_VERSION, join_delimited, split_delimited};
use serde_json::Value;

/// The field `schema_version`, which comes first, and its value in the two versions.
const THIS: [u8; 2] = [8, 1];
const NEXT: [u8; 2] = [8, SCHEMA_VERSION as u8 + 1];

/// An envelope, as the next version of `ingest` writes it.
pub(crate) fn of_next_version(envelope: &[u8]) -> Vec<u8> {
    replaced(envelope, THIS, NEXT)
}

fn replaced(envelope: &[u8], from: [u8; 2], to: [u8; 2]) -> Vec<u8> {
    match envelope.strip_prefix(&from) {
        Some(rest) => [&to, rest].concat(),
        None => envelope.to_vec(),
    }
}

/// An event of a trigger, or an object of the bucket, with all its envelopes as this version reads
/// them.
pub(crate) fn readable(json: &str) -> String {
    match serde_json::from_str(json) {
        Ok(mut value) => {
            make_readable(&mut value);
            value.to_string()
        }
        Err(_) => json.to_owned(),
    }
}

fn make_readable(value: &mut Value) {
    match value {
        Value::String(text) if text.starts_with('{') => *text = readable(text),
        Value::String(text) => {
            if let Ok(bytes) = BASE64_STANDARD.decode(&*text) {
                *text = BASE64_STANDARD.encode(this_version(&bytes));
            }
        }
        Value::Array(values) => values.iter_mut().for_each(make_readable),
        Value::Object(members) => members.values_mut().for_each(make_readable),
        _ => {}
    }
}

/// The bytes of an envelope, or of a message of several.
fn this_version(bytes: &[u8]) -> Vec<u8> {
    let this = |envelope: &[u8]| replaced(envelope, NEXT, THIS);
    match split_delimited(bytes) {
        Ok(parts) if parts.iter().all(|part| part.starts_with(&NEXT) || part.starts_with(&THIS)) => {
            let parts: Vec<Vec<u8>> = parts.into_iter().map(this).collect();
            join_delimited(parts.iter().map(Vec::as_slice))
        }
        _ => this(bytes),
    }
}
