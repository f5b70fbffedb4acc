//! Hide and unhide: a register in which the later time wins.

use crate::case::{BEGAN, Case, Watched, numbers, session};

pub(crate) async fn hidden_sessions_are_left_out_of_full_pages(case: Case) {
    let events: Vec<Watched> = (0..12).map(|number| Watched::new(number, "t1")).collect();
    case.watch(&events).await;
    let hidden = [2, 4, 5, 6, 7, 11];
    for number in hidden {
        case.views.set_hidden(&case.profile, &session(number), true, BEGAN).await.unwrap();
    }
    let shown = [10, 9, 8, 3, 1, 0];
    for limit in 1..=7 {
        let (entries, lengths) = case.history(limit, false).await;
        assert_eq!(numbers(&entries), shown, "in pages of {limit}");
        assert_eq!(lengths.len(), shown.len().div_ceil(limit), "in pages of {limit}: {lengths:?}");
        let (all, _) = case.history(limit, true).await;
        assert_eq!(numbers(&all), (0..12).rev().collect::<Vec<_>>(), "in pages of {limit}");
        for (entry, number) in all.iter().zip(numbers(&all)) {
            assert_eq!(entry.hidden, hidden.contains(&number), "{number}");
        }
    }
}

pub(crate) async fn session_can_be_hidden_before_it_exists(case: Case) {
    case.views.set_hidden(&case.profile, &session(1), true, BEGAN).await.unwrap();
    let page = case.page(10, None, true).await;
    assert!(page.entries.is_empty() && page.next.is_none(), "hiding creates no session: {page:?}");
    case.watch(&[Watched::new(1, "t1"), Watched::new(2, "t1")]).await;
    assert_eq!(case.visible().await, [2]);
    case.views.set_hidden(&case.profile, &session(1), false, BEGAN + 1).await.unwrap();
    assert_eq!(case.visible().await, [2, 1]);
}

pub(crate) async fn later_hide_or_unhide_wins_in_any_order(case: Case) {
    case.watch(&[Watched::new(1, "t1")]).await;
    let say = async |hidden, at| case.views.set_hidden(&case.profile, &session(1), hidden, BEGAN + at).await.unwrap();
    say(true, 10).await;
    assert_eq!(case.visible().await, [0; 0]);
    say(false, 20).await;
    assert_eq!(case.visible().await, [1]);
    say(true, 15).await;
    assert_eq!(case.visible().await, [1], "hidden before it was shown again");
    say(true, 20).await;
    assert_eq!(case.visible().await, [0; 0], "in the same millisecond, the later call wins");
    say(false, 9).await;
    assert_eq!(case.visible().await, [0; 0]);
    // Numbers are compared as numbers.
    say(false, 1_000_000_000_000_000).await;
    say(true, 900).await;
    assert_eq!(case.visible().await, [1]);
}
