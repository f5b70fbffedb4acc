//! The fields of a protobuf message that this code does not know. Code that packs a message again
//! must keep them: newer code wrote them, and reads them again after the deployment or the
//! rollback.

use prost::DecodeError;
use prost::bytes::Buf;
use prost::encoding::{DecodeContext, bytes, decode_key, skip_field};

/// The bytes of all fields of `message` except those with a `known` number, in order; and the
/// content of its message with the number `inner`, of which Protobuf reads several as one.
///
/// # Errors
/// When the bytes are not a message.
pub(crate) fn unknown_fields(
    message: &[u8],
    known: &[u32],
    inner: Option<u32>,
) -> Result<(Vec<u8>, Vec<u8>), DecodeError> {
    let (mut unknown, mut content) = (Vec::new(), Vec::new());
    let mut rest = message;
    while rest.has_remaining() {
        let field = rest;
        let (number, wire_type) = decode_key(&mut rest)?;
        if Some(number) == inner {
            let mut part = Vec::new();
            bytes::merge(wire_type, &mut part, &mut rest, DecodeContext::default())?;
            content.extend(part);
            continue;
        }
        skip_field(wire_type, number, &mut rest, DecodeContext::default())?;
        if !known.contains(&number) {
            unknown.extend_from_slice(&field[..field.len() - rest.len()]);
        }
    }
    Ok((unknown, content))
}
