//! The history: what a page holds.

use crate::case::{BEGAN, Case, TITLE_MS, Watched, numbers};
use crate::reading::largest_view;
use aws_sdk_dynamodb::primitives::Blob;
use aws_sdk_dynamodb::types::AttributeValue;
use playback::history::{Entry, Rules};

pub(crate) async fn a_profile_without_a_history_has_one_empty_page(case: Case) {
    let page = case.page(10, None, true).await;
    assert!(page.entries.is_empty() && page.next.is_none());
    assert!(case.continued(10).await.is_empty());
    assert_eq!(case.resume("t1").await, None);
}

pub(crate) async fn sessions_come_newest_first_with_every_field(case: Case) {
    let finished = Watched::new(2, "t2").seq(4).at(TITLE_MS).received(9);
    case.watch(&[Watched::new(1, "t1"), Watched::new(3, "t3"), Watched::new(2, "t2"), finished]).await;
    let (entries, _) = case.history(10, false).await;
    assert_eq!(numbers(&entries), [3, 2, 1]);
    let Entry { session_id, view, hidden, missing } = &entries[1];
    assert_eq!((session_id, *hidden), (&case.key(2).session_id, false));
    assert_eq!((view.first.watched_at, view.first.received_at), (BEGAN + 2000, BEGAN + 2000));
    assert_eq!((view.latest.watched_at, view.latest.received_at), (BEGAN + 9000, BEGAN + 9000));
    assert_eq!((view.events(), *missing, view.played_ms()), (2, 3, 20));
    assert_eq!((view.title_id.as_str(), Rules::default().is_finished(view)), ("t2", true));
    assert_eq!(view.latest.device.kind.as_deref(), Some("tv"));
}

/// Sessions with parts from several regions, some without a part from the home region.
pub(crate) async fn a_page_never_splits_a_session(case: Case) {
    const SESSIONS: u64 = 9;
    let mut expected = Vec::new();
    for number in 0..SESSIONS {
        let part = |seq: u16| Watched::new(number, "t1").seq(seq).at(u64::from(seq) * 50).view();
        // 1 to 4 parts; every third session was hidden and shown again, which adds a row.
        let writers = [None, Some("euw1"), Some("use2"), Some("usw2")];
        let writers = &writers[..=(number as usize % 4)];
        case.put(writers.iter().zip(1..).map(|(writer, seq)| case.view_item(number, *writer, &part(seq)))).await;
        if number.is_multiple_of(3) {
            case.put([case.hidden_item(number, false)]).await;
        }
        let mut whole = part(1);
        (2..=writers.len() as u16).for_each(|seq| whole.merge(&part(seq)));
        expected.push((number, whole));
    }
    expected.reverse();
    for limit in 1..=10 {
        let (entries, lengths) = case.history(limit, false).await;
        let found: Vec<_> = numbers(&entries).into_iter().zip(entries.into_iter().map(|entry| entry.view)).collect();
        assert_eq!(found, expected, "in pages of {limit}");
        // Full pages, and no token after the last session.
        let (last, full) = lengths.split_last().unwrap();
        assert!(full.iter().all(|length| *length == limit) && *last > 0, "pages of {limit}: {lengths:?}");
    }
}

/// A query answers with at most a megabyte, however many rows were requested.
pub(crate) async fn rows_beyond_a_megabyte_make_whole_pages(case: Case) {
    const SESSIONS: u64 = 10;
    for number in 0..SESSIONS {
        case.put([case.view_item(number, None, &largest_view(number))]).await;
    }
    for limit in [1, 4, 10] {
        let (entries, lengths) = case.history(limit, false).await;
        assert_eq!(numbers(&entries), (0..SESSIONS).rev().collect::<Vec<_>>(), "in pages of {limit}");
        assert_eq!(lengths[0], limit);
    }
}

pub(crate) async fn an_unreadable_item_hides_no_other(case: Case) {
    case.watch(&[Watched::new(1, "t1"), Watched::new(3, "t1")]).await;
    let mut broken = case.view_item(2, None, &Watched::new(2, "t1").view());
    broken.insert("view".to_owned(), AttributeValue::B(Blob::new(b"broken")));
    case.put([broken]).await;
    for limit in 1..4 {
        assert_eq!(numbers(&case.history(limit, false).await.0), [3, 1], "in pages of {limit}");
    }
    let continued = case.continued(10).await;
    assert_eq!(numbers(&continued), [3]);
    let bookmark = case.resume("t1").await.unwrap();
    assert_eq!(numbers(&[bookmark]), [3]);
}

pub(crate) async fn another_profile_never_appears(case: Case) {
    // Neighbours on both sides, and one whose name begins with this one's.
    let others = ["a-neighbour", "z-neighbour", &format!("{}-2", case.profile)].map(|name| case.of(name));
    case.watch(&[Watched::new(2, "t1")]).await;
    for other in &others {
        other.watch(&[Watched::new(1, "t1"), Watched::new(2, "t1"), Watched::new(3, "t1")]).await;
    }
    let sees = async |case: &Case| {
        let bookmark = case.resume("t1").await;
        let continued = case.continued(10).await;
        (numbers(&case.history(1, false).await.0), numbers(&continued), numbers(bookmark.as_slice()))
    };
    assert_eq!(sees(&case).await, (vec![2], vec![2], vec![2]));
    // A token from another history is a point in time, not a key: it pages through this history.
    let token = others[2].page(1, None, false).await.next;
    assert!(token.is_some());
    assert_eq!(numbers(&case.page(10, token, false).await.entries), [2]);
    // What one member does leaves the others unchanged.
    case.views.set_hidden(&case.profile, &case.key(2).session_id, true, BEGAN).await.unwrap();
    case.erase(&case.everything(60)).await;
    assert_eq!(sees(&case).await, (vec![], vec![], vec![]));
    for other in &others {
        assert_eq!(sees(other).await, (vec![3, 2, 1], vec![3], vec![3]));
    }
}
