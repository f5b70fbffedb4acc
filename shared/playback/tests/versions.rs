//! Old and new code side by side, during a deployment and after a rollback: bytes that the first
//! release wrote (commit 5802b66, by its own code), read and written on by today's; and today's,
//! judged by a model of the first release's rules. `tests/tests/versions.rs` does the same with
//! the old binaries.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use playback::contract::Kind;
use playback::envelope::{Envelope, Head};
use playback::proto;
use playback::view::{Sequence, View};
use prost::Message;

/// Two events, as a record on the log.
const FIRST: &str = "0801121f757365312d30314d3332353056335457334b4735444435434556534d4a43431a097030303030303035342207 \
    7430303030303228d8a7c2a28c34320975732d656173742d313a10070707070707070707070707070707074225100128 \
    fad8c1a28c3450e0e5a4015a0964303030303033303862067461626c65746a02555342110801100218904e20904e288a \
    a7c2a28c34";
/// Two later events of the session, on another device.
const SECOND: &str = "0801121f757365312d30314d3332353056335457334b4735444435434556534d4a43431a097030303030303035342207 \
    74303030303032288892c4a28c34320975732d656173742d3142200803100518c0cf2428aac3c3a28c3450e0e5a4015a \
    0474763a31620274766a0042160804100618d09d2520904e28ba91c4a28c346a024445";
/// A shadow.
const SHADOW: &str = "0802121f757365312d30314d3332353056335457334b4735444435434556534d4a43431a097030303030303035342207 \
    7430303030303228d8a7c2a28c34320975732d656173742d3142270802100318a09c0120904e280550e0e5a4015a0964 \
    303030303033303862067461626c65746a005001";
/// The packed view of `FIRST`.
const VIEW: &str = "0801120200021a0300904e28d8a7c2a28c3432077430303030303238e0e5a40142025553480150d8a7c2a28c3458904e \
    60026a0964303030303033303872067461626c657478d8a7c2a28c348001d8a7c2a28c34";
/// The packed view of `FIRST` and `SECOND`.
const BOTH: &str = "08011204000201021a0800904eb08124904e28d8a7c2a28c3432077430303030303238e0e5a401420255534804508892 \
    c4a28c3458d09d2560066a0474763a317202747678d8a7c2a28c3480018892c4a28c34";

fn bytes(hex: &str) -> Vec<u8> {
    let digits: Vec<u8> = hex.bytes().filter(u8::is_ascii_hexdigit).collect();
    let byte = |pair: &[u8]| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap();
    digits.chunks(2).map(byte).collect()
}

fn envelope(hex: &str) -> Envelope {
    Envelope::decode(&bytes(hex)).unwrap()
}

#[test]
fn old_envelopes_are_read_and_written_again_unchanged() {
    for hex in [FIRST, SECOND, SHADOW] {
        let envelope = envelope(hex);
        assert_eq!(envelope.encode(), bytes(hex), "today's code writes the same bytes for plain events");
        assert_eq!(Head::peek(bytes(hex).into()).unwrap().events, envelope.events.len() as u64);
    }
    let second = envelope(SECOND);
    assert_eq!((second.stamp.sent_at, second.stamp.shadow), (None, false));
    let last = &second.events[1];
    assert_eq!((last.title_duration_ms, last.credits_ms), (Some(2_700_000), None));
    assert_eq!((last.device.id.as_deref(), last.device.kind.as_deref()), (Some("tv:1"), Some("tv")));
    assert_eq!(last.country, "DE".parse().ok());
    assert!(envelope(SHADOW).stamp.shadow);
}

#[test]
fn old_views_are_read_and_continued() {
    let old = View::unpack(&bytes(VIEW)).unwrap();
    let both = View::unpack(&bytes(BOTH)).unwrap();
    assert_eq!((old.first.watched_at, old.latest.watched_at), (1_790_000_010_200, 1_790_000_010_200), "the receipt");
    assert_eq!((both.title_duration_ms(), both.position_ms()), (Some(2_700_000), 610_000));
    assert_eq!((both.latest.kind, Sequence::of([&both]).missing()), (Kind::Stopped, 1));
    // Today's code folds the same events into an item of its own: a reader joins both.
    let mut today = View::of_envelope(&envelope(FIRST)).unwrap();
    today.merge(&View::of_envelope(&envelope(SECOND)).unwrap());
    let mut joined = today.clone();
    joined.merge(&both);
    for view in [&joined, &both] {
        assert_eq!((&view.seen, &view.played), (&today.seen, &today.played));
        assert_eq!((view.latest.seq, view.position_ms(), view.events()), (4, 610_000, 4));
        assert_eq!(view.title_duration_ms(), today.title_duration_ms());
    }
    assert_eq!(View::unpack(&joined.pack()), Ok(joined));
}

/// What the first release wrote where the new contract has nothing to say: it is not mistaken for a
/// statement.
#[test]
fn placeholders_of_old_readers_mean_nothing_was_stated() {
    let mut packed = proto::View::decode(bytes(VIEW).as_slice()).unwrap();
    packed.title_duration_ms = 604_800_000;
    (packed.device_id, packed.device_kind) = ("unknown".to_owned(), "unknown".to_owned());
    let view = View::unpack(&packed.encode_to_vec()).unwrap();
    assert_eq!(view.title_duration_ms(), None);
    assert_eq!((view.latest.device.id.as_deref(), view.latest.device.kind.as_deref()), (None, None));
}

/// A later version of today's format has two more fields. Code of today that writes such a view on,
/// in the middle of a deployment or after a rollback, must not lose them.
#[test]
fn fields_of_newer_code_survive_a_write() {
    let mut newer = proto::View::decode(&*bytes(VIEW)).unwrap().encode_to_vec();
    prost::encoding::string::encode(99, &"of the view".to_owned(), &mut newer);
    let mut second = proto::view::Second { first_position_ms: 7, ..Default::default() }.encode_to_vec();
    prost::encoding::uint64::encode(98, &4_711, &mut second);
    prost::encoding::bytes::encode(20, &second, &mut newer);
    let stored = View::unpack(&newer).unwrap();
    assert_eq!(View::unpack(&stored.pack()).unwrap(), stored);

    let event = View::of_envelope(&envelope(SECOND)).unwrap();
    let (mut one, mut other) = (stored.clone(), event.clone());
    one.merge(&event);
    other.merge(&stored);
    assert_eq!(one, other);
    let written = one.pack();
    assert_eq!(View::unpack(&written).unwrap(), one);
    assert_eq!(one.newer, stored.newer);

    #[derive(Clone, PartialEq, prost::Message)]
    struct NewerSecond {
        #[prost(uint64, tag = "3")]
        first_position_ms: u64,
        #[prost(uint64, tag = "98")]
        number: u64,
    }
    #[derive(Clone, PartialEq, prost::Message)]
    struct NewerView {
        #[prost(message, tag = "20")]
        second: Option<NewerSecond>,
        #[prost(string, tag = "99")]
        text: String,
    }
    let read = NewerView::decode(&*written).unwrap();
    assert_eq!(
        read,
        NewerView { second: Some(NewerSecond { first_position_ms: 7, number: 4_711 }), text: "of the view".to_owned() }
    );
}
