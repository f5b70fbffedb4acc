//! Erasing: readers obey the mark; deleting follows, and may be interrupted and resumed.

use crate::case::{BEGAN, Case, Watched, numbers, session};
use aws_sdk_dynamodb::primitives::Blob;
use aws_sdk_dynamodb::types::AttributeValue;
use playback::outcome::Counts;
use store::testing::write_one;

/// Erases everything up to `seconds` after [`BEGAN`], with enough time.
async fn erase(case: &Case, seconds: u64) {
    case.erase(&case.everything(seconds)).await;
}

/// What a member sees in history, continue watching and bookmark.
async fn sees(case: &Case) -> (Vec<u64>, Vec<u64>, Vec<u64>) {
    let (history, _) = case.history(2, true).await;
    let continued = case.continued(100).await;
    let bookmark = case.resume("t1").await;
    (numbers(&history), numbers(&continued), numbers(bookmark.as_slice()))
}

pub(crate) async fn nothing_is_visible_or_stored_after_erasing(case: Case) {
    case.watch(&[Watched::new(1, "t1"), Watched::new(2, "t1"), Watched::new(3, "t1")]).await;
    case.put([case.view_item(2, Some("usw2"), &Watched::new(2, "t1").seq(1).view())]).await;
    case.views.set_hidden(&case.profile, &session(1), true, BEGAN).await.unwrap();
    erase(&case, 3).await;
    assert_eq!(sees(&case).await, (vec![], vec![], vec![]));
    assert_eq!(case.sort_keys().await, ["~erased"]);
    // What begins afterwards is visible, and survives the same erasure again.
    case.watch(&[Watched::new(4, "t1"), Watched::new(5, "t2")]).await;
    case.views.set_hidden(&case.profile, &session(5), true, BEGAN + 5000).await.unwrap();
    erase(&case, 3).await;
    assert_eq!(sees(&case).await, (vec![5, 4], vec![4], vec![4]));
    assert_eq!(case.sort_keys().await.len(), 4);
}

pub(crate) async fn late_events_of_an_erased_session_are_not_written(case: Case) {
    case.watch(&[Watched::new(1, "t1"), Watched::new(2, "t1")]).await;
    erase(&case, 2).await;
    let late = [Watched::new(1, "t1").seq(1).received(30), Watched::new(2, "t9").seq(1).received(30)];
    assert_eq!(case.settle(&late).await, Counts { applied: 0, duplicate: 2 });
    assert_eq!(case.sort_keys().await, ["~erased"]);
    assert_eq!(sees(&case).await, (vec![], vec![], vec![]));
    // A `process` that asked before the mark was written may write afterwards: readers obey the mark,
    // and the repeated erasure deletes it.
    write_one(&case.views, &case.key(1), &late[0].view(), None).await.unwrap();
    assert_eq!(sees(&case).await, (vec![], vec![], vec![]));
    erase(&case, 2).await;
    assert_eq!(case.sort_keys().await, ["~erased"]);
}

pub(crate) async fn without_time_to_delete_the_mark_is_enough(case: Case) {
    let events: Vec<Watched> = (0..30).map(|number| Watched::new(number, "t1")).collect();
    case.watch(&events).await;
    let all = case.everything(20);
    assert!(!case.mark(&all).await);
    assert_eq!(case.sort_keys().await.len(), 31, "nothing is deleted yet");
    let left: Vec<u64> = (21..30).rev().collect();
    assert_eq!(sees(&case).await, (left.clone(), vec![29], vec![29]));
    // Calling again continues.
    erase(&case, 20).await;
    assert_eq!(case.sort_keys().await.len(), 10);
    assert_eq!(sees(&case).await, (left, vec![29], vec![29]));
    // With nothing left to delete, no time is needed.
    assert!(case.mark(&all).await);
}

/// Its id says that it began a minute after the erasure, but its events arrived before.
pub(crate) async fn a_session_minted_ahead_of_time_is_erased_too(case: Case) {
    case.watch(&[Watched::new(70, "t1").received(5), Watched::new(71, "t1").received(30)]).await;
    assert!(!case.mark(&case.everything(10)).await);
    assert_eq!(sees(&case).await, (vec![71], vec![71], vec![71]));
    erase(&case, 10).await;
    assert_eq!(sees(&case).await, (vec![71], vec![71], vec![71]));
    assert_eq!(case.sort_keys().await.len(), 3, "its register, the other session, and the mark");
    // Case 18 of the field: one more event of that session, and of another title of it.
    let late = [Watched::new(70, "t1").seq(1).received(40), Watched::new(70, "t2").seq(2).received(40)];
    assert_eq!(case.settle(&late).await, Counts { applied: 0, duplicate: 2 });
    erase(&case, 10).await;
    assert_eq!(sees(&case).await, (vec![71], vec![71], vec![71]));
    // Once the id's time has passed, nothing of it is left to tell.
    erase(&case, 80).await;
    assert_eq!(case.sort_keys().await, ["~erased"]);
}

pub(crate) async fn more_than_one_batch_is_deleted(case: Case) {
    // More rows than one query of the erasure reads, one of them unreadable.
    let view = Watched::new(0, "t1").view();
    let rows = |number| {
        [
            case.view_item(number, None, &view),
            case.view_item(number, Some("usw2"), &view),
            case.hidden_item(number, true),
        ]
    };
    case.put((0..700).flat_map(rows)).await;
    let mut broken = case.view_item(700, None, &view);
    broken.insert("view".to_owned(), AttributeValue::B(Blob::new(b"broken")));
    case.put([broken]).await;
    case.watch(&[Watched::new(701, "t1")]).await;
    erase(&case, 700).await;
    assert_eq!(sees(&case).await, (vec![701], vec![701], vec![701]));
    assert_eq!(case.sort_keys().await.len(), 2);
}

pub(crate) async fn older_erasure_reverts_nothing(case: Case) {
    erase(&case, 10).await;
    erase(&case, 5).await;
    case.watch(&[Watched::new(7, "t1"), Watched::new(11, "t1")]).await;
    assert_eq!(sees(&case).await, (vec![11], vec![11], vec![11]));
}
