//! A record of the log, or several in a message between regions.
//!
//! - What can be read can be written, and is read again as the same envelope.
//! - The head, which is all that `forward` reads, says the same as the envelope, and a hop changes
//!   nothing else.
//! - The view of an envelope does not depend on the order of its events, nor on how often each comes.
//! - Envelopes that were split are joined again to the same bytes' worth.

use crate::view;
use playback::envelope::{Envelope, Head, join_delimited, split_delimited, trace_id, with_hop};
use playback::view::View;

pub(crate) fn run(bytes: &[u8]) {
    one(bytes);
    if let Ok(parts) = split_delimited(bytes) {
        let joined = join_delimited(parts.iter().copied());
        assert_eq!(split_delimited(&joined).unwrap(), parts);
        parts.into_iter().for_each(one);
    }
}

fn one(bytes: &[u8]) {
    let head = Head::peek(bytes.to_vec().into());
    let Ok(envelope) = Envelope::decode(bytes) else { return };
    assert_eq!(Envelope::decode(&envelope.encode()).as_ref(), Ok(&envelope));
    assert_eq!(trace_id(bytes).is_some(), envelope.stamp.trace_id.is_some());

    let head = head.unwrap();
    assert_eq!((&head.session_id, head.events), (&envelope.session_id, envelope.events.len() as u64));
    assert_eq!((head.received_at.unwrap_or(0), head.shadow), (envelope.stamp.received_at, envelope.stamp.shadow));
    let forwarded = with_hop(bytes, "eu-west-1");
    assert_eq!(Envelope::decode(&forwarded).as_ref(), Ok(&envelope));
    assert_eq!(Head::peek(forwarded.into()).unwrap().hops.len(), head.hops.len() + 1);

    let of_all = View::of_envelope(&envelope).unwrap();
    let reversed = Envelope { events: envelope.events.iter().rev().cloned().collect(), ..envelope.clone() };
    assert_eq!(View::of_envelope(&reversed).as_ref(), Some(&of_all));
    let twice = Envelope { events: [&envelope.events[..], &envelope.events].concat(), ..envelope };
    assert_eq!(View::of_envelope(&twice).as_ref(), Some(&of_all));
    view::check(&of_all);
}
