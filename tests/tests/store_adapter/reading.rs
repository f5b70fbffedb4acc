//! Batch reads: chunks, order, size, and items that cannot be read.

use crate::case::{Case, Watched};
use aws_sdk_dynamodb::primitives::Blob;
use aws_sdk_dynamodb::types::AttributeValue;
use playback::contract::{MAX_SEQ, MAX_TITLE_DURATION_MS};
use playback::fold::ViewKey;
use playback::proto;
use playback::view::{UnreadableView, View};
use prost::Message as _;
use store::testing::write_one;
use store::{Fault, READ_AT_ONCE, Stored, ViewTable as _, WRITE_AT_ONCE, Write, WriteError};

pub(crate) async fn reading_no_keys_makes_no_call(case: Case) {
    assert!(case.views.read(&[]).await.is_empty());
}

pub(crate) async fn over_a_hundred_keys_come_in_order_with_absent_ones(case: Case) {
    const KEYS: u64 = 250;
    let absent = |number: u64| number.is_multiple_of(3);
    let view = |number: u64| Watched::new(number, "t1").view();
    case.put((0..KEYS).filter(|number| !absent(*number)).map(|number| case.view_item(number, None, &view(number))))
        .await;
    // In an order that the table does not have.
    let order: Vec<u64> = (0..KEYS).map(|at| at * 77 % KEYS).collect();
    let keys: Vec<ViewKey> = order.iter().map(|number| case.key(*number)).collect();
    let mut found = Vec::new();
    for keys in keys.chunks(READ_AT_ONCE) {
        found.extend(case.views.read(keys).await.into_iter().map(Result::unwrap));
    }
    let expected: Vec<Option<Stored>> =
        order.iter().map(|n| (!absent(*n)).then(|| Stored { view: view(*n), version: 1 })).collect();
    assert_eq!(found, expected);
}

/// Every second sequence number is missing and every event is a separate interval: the largest
/// possible view.
pub(crate) fn largest_view(number: u64) -> View {
    let mut view = Watched::new(number, "t1").view();
    view.seen = (0..=MAX_SEQ).step_by(2).map(|seq| seq..seq + 1).collect();
    (view.first.seq, view.latest.seq) = (0, u16::MAX - 1);
    let step = MAX_TITLE_DURATION_MS / (MAX_SEQ + 1);
    view.played = (0..=MAX_SEQ).map(|at| at * step..at * step + step / 2).collect();
    view
}

pub(crate) async fn the_largest_view_is_written_and_read_back(case: Case) {
    let mut view = largest_view(1);
    assert!(view.pack().len() > 300_000, "{} bytes", view.pack().len());
    write_one(&case.views, &case.key(1), &view, None).await.unwrap();
    let found = case.views.read(&[case.key(1)]).await.remove(0).unwrap();
    assert_eq!(found, Some(Stored { view: view.clone(), version: 1 }));
    // A lost race returns it whole too.
    let lost = write_one(&case.views, &case.key(1), &view, None).await;
    assert!(matches!(lost, Err(WriteError::Lost(Some(current))) if current.view == view));
    view.merge(&Watched::new(1, "t1").seq(1).view());
    write_one(&case.views, &case.key(1), &view, Some(1)).await.unwrap();
}

/// BatchGetItem answers with at most 16 MB and leaves the rest unprocessed (on AWS and DynamoDB
/// Local; ministack answers with everything).
pub(crate) async fn what_one_answer_cannot_carry_is_requested_again(case: Case) {
    const KEYS: u64 = 55;
    let view = largest_view(0);
    assert!(view.pack().len() as u64 * KEYS > 16 * 1024 * 1024);
    for number in 0..KEYS {
        case.put([case.view_item(number, None, &view)]).await;
    }
    let keys: Vec<ViewKey> = (0..KEYS).map(|number| case.key(number)).collect();
    for found in case.views.read(&keys).await {
        assert!(found.unwrap().unwrap().view == view);
    }
}

/// The greatest request: as many views as go together, each as large as a view can be.
pub(crate) async fn views_of_any_size_are_written_together(case: Case) {
    let view = largest_view(0);
    let keys: Vec<ViewKey> = (0..WRITE_AT_ONCE as u64).map(|number| case.key(number)).collect();
    for expected in [None, Some(1)] {
        let writes: Vec<Write<'_>> = keys.iter().map(|key| Write { key, view: &view, expected }).collect();
        assert!(case.views.write(&writes).await.into_iter().all(|result| result.is_ok()));
    }
    let lost = keys.iter().map(|key| Write { key, view: &view, expected: Some(1) }).collect::<Vec<_>>();
    for result in case.views.write(&lost).await {
        let Err(WriteError::Lost(Some(stored))) = result else { panic!("{result:?}") };
        assert!(stored.version == 2 && stored.view == view);
    }
}

pub(crate) async fn corrupt_and_newer_items_are_told_apart(case: Case) {
    let view = Watched::new(0, "t1").view();
    let item = |number| case.view_item(number, None, &view);
    let binary = |bytes: Vec<u8>| AttributeValue::B(Blob::new(bytes));
    let mut packed = proto::View::decode(view.pack().as_slice()).unwrap();
    packed.schema_version = 7;
    let changed = |number, name: &str, value: Option<AttributeValue>| {
        let mut item = item(number);
        item.remove(name);
        item.extend(value.map(|value| (name.to_owned(), value)));
        item
    };
    case.put([
        item(0),
        changed(1, "view", Some(binary(packed.encode_to_vec()))),
        changed(2, "view", Some(binary(b"not a view at all".to_vec()))),
        changed(3, "view", Some(AttributeValue::S("text".to_owned()))),
        changed(4, "view", None),
        changed(5, "version", None),
        changed(6, "version", Some(AttributeValue::S("1".to_owned()))),
        item(7),
    ])
    .await;
    let keys: Vec<ViewKey> = (0..8).map(|number| case.key(number)).collect();
    let found = case.views.read(&keys).await;
    let newer = |fault: &Fault| matches!(fault, Fault::Unreadable(UnreadableView::Newer(7)));
    let corrupt = |fault: &Fault| matches!(fault, Fault::Unreadable(UnreadableView::Corrupt(_)));
    for number in [0, 7] {
        assert_eq!(found[number], Ok(Some(Stored { view: view.clone(), version: 1 })));
    }
    for (number, result) in found.iter().enumerate().take(7).skip(1) {
        let error = result.as_ref().unwrap_err();
        assert!(if number == 1 { newer(&error.fault) } else { corrupt(&error.fault) }, "{number}: {error}");
        assert!(error.subject.contains(&case.profile), "{error}");
        // A writer gets the same error, and overwrites nothing.
        match write_one(&case.views, &keys[number], &view, None).await {
            Err(WriteError::Failed(met)) => assert_eq!(met.fault, error.fault),
            other => panic!("{number}: {other:?}"),
        }
    }
}
