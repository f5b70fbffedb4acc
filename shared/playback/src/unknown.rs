//! The fields of a protobuf message that this code does not know. Code that packs a message again
//! must keep them: newer code wrote them, and reads them again after the deployment or the
//! rollback.

use prost::DecodeError;
use prost::bytes::Buf;
use prost::encoding::{DecodeContext, decode_key, skip_field};

/// The bytes of all fields of `message` except those with a `known` number, in order.
///
/// # Errors
/// When the bytes are not a message.
pub(crate) fn unknown_fields(message: &[u8], known: &[u32]) -> Result<Vec<u8>, DecodeError> {
    let mut unknown = Vec::new();
    let mut rest = message;
    while rest.has_remaining() {
        let field = rest;
        let (number, wire_type) = decode_key(&mut rest)?;
        skip_field(wire_type, number, &mut rest, DecodeContext::default())?;
        if !known.contains(&number) {
            unknown.extend_from_slice(&field[..field.len() - rest.len()]);
        }
    }
    Ok(unknown)
}

/// The fields of `message` that are themselves messages under `number`, joined. Protobuf reads
/// several as one.
///
/// # Errors
/// When the bytes are not a message.
pub(crate) fn submessage(message: &[u8], number: u32) -> Result<Vec<u8>, DecodeError> {
    let mut joined = Vec::new();
    let mut rest = message;
    while rest.has_remaining() {
        let (field, wire_type) = decode_key(&mut rest)?;
        if field == number {
            let mut bytes = Vec::new();
            prost::encoding::bytes::merge(wire_type, &mut bytes, &mut rest, DecodeContext::default())?;
            joined.extend(bytes);
        } else {
            skip_field(wire_type, field, &mut rest, DecodeContext::default())?;
        }
    }
    Ok(joined)
}
