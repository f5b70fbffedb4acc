//! Packed views, as items of the table hold them: one, or several that are joined.
//!
//! - What can be unpacked can be packed, and is unpacked again as the same view.
//! - Merging is commutative, associative and idempotent for whatever was unpacked.
//! - Any view can be shown to a member.

use playback::envelope::split_delimited;
use playback::history::{Rules, ShownView};
use playback::view::{Sequence, View};

pub(crate) fn run(bytes: &[u8]) {
    if let Ok(view) = View::unpack(bytes) {
        check(&view);
    }
    let Ok(parts) = split_delimited(bytes) else { return };
    let views = parts.into_iter().filter_map(|packed| View::unpack(packed).ok());
    // Views of one title, as are all that are merged.
    let views: Vec<View> = views.map(|view| View { title_id: "t1".to_owned(), ..view }).take(3).collect();
    views.iter().for_each(check);
    if let [a, b, rest @ ..] = &views[..] {
        let c = rest.first().unwrap_or(a);
        assert_eq!(merged(a, b), merged(b, a));
        assert_eq!(merged(&merged(a, b), c), merged(a, &merged(b, c)));
        check(&merged(a, b));
    }
}

/// What holds for every view.
pub(crate) fn check(view: &View) {
    assert_eq!(View::unpack(&view.pack()).as_ref(), Ok(view));
    assert_eq!(&merged(view, view), view);
    let shown = ShownView::of(view, &Rules::default());
    serde_json::to_vec(&shown).unwrap();
    let sequence = Sequence::of([view]);
    let holes = sequence.holes_since(&Sequence::default());
    assert!(holes.opened <= sequence.missing() && holes.closed == 0);
}

fn merged(a: &View, b: &View) -> View {
    let mut merged = a.clone();
    merged.merge(b);
    merged
}
