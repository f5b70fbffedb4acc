//! Walking through the table across profiles.

use crate::case::{Case, Watched, session};
use store::dynamodb::{Place, PlacedView};

/// All views of this case's profiles, in the order of a walk in pages of `limit`. Other cases write
/// at the same time.
async fn walk(case: &Case, limit: u16) -> Vec<PlacedView> {
    let (mut found, mut after) = (Vec::new(), None::<Place>);
    loop {
        let page = case.views.scan(after.as_ref(), limit).await.unwrap();
        found.extend(page.views.into_iter().filter(|view| view.place.profile_id.starts_with(&case.profile)));
        after = page.next;
        if after.is_none() {
            return found;
        }
    }
}

/// Each view's profile and session number.
fn numbers(views: &[PlacedView]) -> Vec<(String, u64)> {
    let number = |view: &PlacedView| (view.session_id.started_at() - session(0).started_at()) / 1000;
    views.iter().map(|view| (view.place.profile_id.clone(), number(view))).collect()
}

pub(crate) async fn a_walk_in_pages_of_any_size_meets_every_view_once(case: Case) {
    let names: Vec<String> = (0..4).map(|n| format!("{}-{n}", case.profile)).collect();
    for name in &names {
        let events: Vec<Watched> = (0..5).map(|number| Watched::new(number, "t1")).collect();
        case.of(name).watch(&events).await;
        case.of(name).put([case.of(name).hidden_item(2, true)]).await;
    }
    let expected: Vec<(String, u64)> =
        names.iter().flat_map(|name| (0..5).map(move |number| (name.clone(), number))).collect();
    for limit in [1, 3, 100] {
        let met = walk(&case, limit).await;
        let met = numbers(&met);
        assert!(met.chunk_by(|a, b| a.0 == b.0).all(|one| one.len() == 5 && one.is_sorted()), "{met:?}");
        let mut sorted = met;
        sorted.sort();
        assert_eq!(sorted, expected, "in pages of {limit}");
    }
}

pub(crate) async fn range_of_sort_keys_has_views_and_nothing_else(case: Case) {
    case.watch(&(0..6).map(|number| Watched::new(number, "t1")).collect::<Vec<_>>()).await;
    let part = case.view_item(2, Some("usw2"), &Watched::new(2, "t1").seq(7).view());
    case.put([part, case.hidden_item(3, true)]).await;
    let place = |number| Place::of(&case.key(number));
    let found = case.views.between(&case.profile, &place(1).sk, &place(3).sk).await.unwrap();
    let parts: Vec<bool> = found.views.iter().map(|view| view.place.is_part()).collect();
    assert_eq!(parts, [false, true, false, false]);
    assert_eq!(found.views[2].place, place(2));
    assert_eq!(found.views[1].session_id, session(2));
    assert_eq!(found.views[1].view, Watched::new(2, "t1").seq(7).view());
    assert_eq!((found.unreadable, found.next), (0, None));
    let nothing = case.views.between(&case.profile, &place(7).sk, &place(9).sk).await.unwrap();
    assert!(nothing.views.is_empty());
}

pub(crate) async fn unreadable_view_is_counted_and_stops_no_walk(case: Case) {
    case.watch(&[Watched::new(0, "t1"), Watched::new(2, "t1")]).await;
    let mut broken = case.view_item(1, None, &Watched::new(1, "t1").view());
    broken.remove("version");
    case.put([broken]).await;
    let place = |number| Place::of(&case.key(number));
    let found = case.views.between(&case.profile, &place(0).sk, &place(2).sk).await.unwrap();
    assert_eq!((found.views.len(), found.unreadable), (2, 1));
    // It would not disturb other cases, but every walk would complain.
    case.delete(1).await;
}
