//! Where to resume: continue watching, and a title's bookmark.

use crate::case::{BEGAN, Case, TITLE_MS, Watched, numbers, session};

async fn hide(case: &Case, number: u64) {
    case.views.set_hidden(&case.profile, &session(number), true, BEGAN).await.unwrap();
}

pub(crate) async fn the_newest_session_of_each_title_continues(case: Case) {
    case.watch(&[
        Watched::new(1, "twice"),
        Watched::new(2, "finished").at(TITLE_MS),
        Watched::new(3, "hidden"),
        Watched::new(4, "finished later"),
        Watched::new(5, "finished later").at(TITLE_MS * 95 / 100),
        Watched::new(6, "shown again"),
        Watched::new(7, "twice"),
    ])
    .await;
    hide(&case, 3).await;
    hide(&case, 6).await;
    case.views.set_hidden(&case.profile, &session(6), false, BEGAN + 1).await.unwrap();
    let continued = async |limit| numbers(&case.continued(limit).await);
    assert_eq!(continued(10).await, [7, 6]);
    assert_eq!(continued(1).await, [7]);
}

pub(crate) async fn bookmark_is_of_the_session_updated_last(case: Case) {
    case.watch(&[
        Watched::new(1, "t1").at(10_000).playing(5_000).received(1),
        Watched::new(2, "t1").at(20_000).playing(5_000).received(50),
        Watched::new(3, "t1").at(30_000).playing(5_000).received(3),
        Watched::new(4, "t2").at(40_000).playing(5_000).received(90),
    ])
    .await;
    let bookmark = async || case.resume("t1").await;
    let found = bookmark().await.unwrap();
    assert_eq!((found.session_id, found.view.latest.position_ms), (session(2), 20_000));
    // An old session continues, on a device that was offline.
    case.watch(&[Watched::new(1, "t1").seq(1).at(15_000).received(60)]).await;
    assert_eq!(bookmark().await.unwrap().session_id, session(1));
    // Hiding affects the list, not where to resume.
    hide(&case, 1).await;
    assert_eq!(bookmark().await.unwrap().session_id, session(1));
    assert_eq!(case.resume("t").await, None);
    // An erasure affects everything, even before anything is deleted.
    case.mark(&case.everything(2)).await;
    assert_eq!(bookmark().await.unwrap().session_id, session(3));
    case.mark(&case.everything(3)).await;
    assert_eq!(bookmark().await, None);
}

pub(crate) async fn a_bookmark_joins_the_parts_of_a_session_and_needs_only_one(case: Case) {
    let part = |number: u64, seq: u16, at: u64, received: u64| {
        Watched::new(number, "t1").seq(seq).at(at).playing(5_000).received(received).view()
    };
    case.put([
        case.view_item(1, None, &part(1, 0, 10_000, 10)),
        case.view_item(1, Some("usw2"), &part(1, 1, 20_000, 90)),
        case.view_item(2, Some("usw2"), &part(2, 0, 30_000, 80)),
    ])
    .await;
    let found = case.resume("t1").await.unwrap();
    assert_eq!((found.session_id, found.view.latest.position_ms, found.view.events()), (session(1), 20_000, 2));
    case.watch(&[Watched::new(2, "t1").seq(1).at(35_000).received(95)]).await;
    assert_eq!(case.resume("t1").await.unwrap().session_id, session(2));
}
