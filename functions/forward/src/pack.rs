//! Packs many envelopes into few messages of the queue `inbound`.

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use playback::envelope::join_delimited;

/// Maximum size of a message before base64, bytes, unless one envelope alone is larger. As text
/// that is 240 KiB. SQS bills by 64 KiB, so larger messages save nothing, and the whole message is
/// redelivered when one of its records fails.
pub const MAX_PACKED_BYTES: usize = 180 * 1024;

/// Maximum size of the length in front of an envelope, bytes.
const LENGTH_BYTES: usize = 5;

/// A message, and the envelopes in it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message {
    /// The envelopes, length-delimited, in base64.
    pub body: String,
    /// The envelopes' places in the batch, in order.
    pub holds: Vec<usize>,
}

/// Packs envelopes, each with its place in the batch, into as few messages as their order allows.
pub fn pack(envelopes: Vec<(usize, Vec<u8>)>) -> Vec<Message> {
    let mut messages = Vec::new();
    let (mut holds, mut packed, mut bytes): (Vec<usize>, Vec<Vec<u8>>, usize) = (Vec::new(), Vec::new(), 0);
    for (at, envelope) in envelopes {
        let size = envelope.len() + LENGTH_BYTES;
        if bytes + size > MAX_PACKED_BYTES && !packed.is_empty() {
            messages.push(message(std::mem::take(&mut holds), &std::mem::take(&mut packed)));
            bytes = 0;
        }
        bytes += size;
        holds.push(at);
        packed.push(envelope);
    }
    if !packed.is_empty() {
        messages.push(message(holds, &packed));
    }
    messages
}

fn message(holds: Vec<usize>, packed: &[Vec<u8>]) -> Message {
    let joined = join_delimited(packed.iter().map(Vec::as_slice));
    Message { body: BASE64_STANDARD.encode(joined), holds }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use playback::envelope::split_delimited;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn every_envelope_is_in_one_message_whole_and_in_order(sizes in prop::collection::vec(1usize..90_000, 0..40)) {
            let envelopes: Vec<_> = sizes.iter().enumerate().map(|(at, size)| (at, vec![at as u8; *size])).collect();
            let messages = pack(envelopes.clone());
            let mut back = Vec::new();
            for message in &messages {
                let joined = BASE64_STANDARD.decode(&message.body).unwrap();
                prop_assert!(joined.len() <= MAX_PACKED_BYTES);
                let parts: Vec<Vec<u8>> = split_delimited(&joined).unwrap().into_iter().map(<[u8]>::to_vec).collect();
                back.extend(message.holds.iter().copied().zip(parts));
            }
            prop_assert_eq!(back, envelopes);
            // No two neighbours would fit into one.
            let sum = |message: &Message| message.holds.iter().map(|at| sizes[*at] + LENGTH_BYTES).sum::<usize>();
            let first = |message: &Message| sizes[message.holds[0]] + LENGTH_BYTES;
            prop_assert!(messages.windows(2).all(|two| sum(&two[0]) + first(&two[1]) > MAX_PACKED_BYTES));
        }
    }

    #[test]
    fn envelope_larger_than_a_message_has_one_to_itself() {
        let messages = pack(vec![(0, vec![1; 10]), (1, vec![2; MAX_PACKED_BYTES + 1]), (2, vec![3; 10])]);
        assert_eq!(messages.iter().map(|message| message.holds.clone()).collect::<Vec<_>>(), [[0], [1], [2]]);
    }
}
