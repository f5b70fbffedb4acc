//! Replication between the tables of two emulators.

#![allow(clippy::unwrap_used, clippy::expect_used)]

use aws_sdk_dynamodb::Client;
use aws_sdk_dynamodb::primitives::Blob;
use aws_sdk_dynamodb::types::{
    AttributeDefinition, AttributeValue, BillingMode, KeySchemaElement, KeyType, ScalarAttributeType,
    StreamSpecification, StreamViewType,
};
use local::{LocalDynamoDb, Replicator};
use std::collections::{BTreeMap, HashMap};
use std::time::{Duration, Instant};

const TABLE: &str = "views";

type Item = HashMap<String, AttributeValue>;

async fn create_table(client: &Client) {
    let attribute = |name: &str| {
        AttributeDefinition::builder().attribute_name(name).attribute_type(ScalarAttributeType::S).build().unwrap()
    };
    let key =
        |name: &str, kind: KeyType| KeySchemaElement::builder().attribute_name(name).key_type(kind).build().unwrap();
    let stream = StreamSpecification::builder().stream_enabled(true).stream_view_type(StreamViewType::NewAndOldImages);
    let create = client.create_table().table_name(TABLE).billing_mode(BillingMode::PayPerRequest);
    let create = create.attribute_definitions(attribute("pk")).attribute_definitions(attribute("sk"));
    let create = create.key_schema(key("pk", KeyType::Hash)).key_schema(key("sk", KeyType::Range));
    create.stream_specification(stream.build().unwrap()).send().await.unwrap();
}

fn item(sk: &str, version: u64) -> Item {
    let view = AttributeValue::B(Blob::new([0, 255, version as u8]));
    let titles = AttributeValue::Ss(vec!["a".into(), "b".into()]);
    Item::from([
        ("pk".into(), AttributeValue::S("p1".into())),
        ("sk".into(), AttributeValue::S(sk.into())),
        ("version".into(), AttributeValue::N(version.to_string())),
        ("view".into(), view),
        ("titles".into(), titles),
    ])
}

async fn put(client: &Client, item: &Item) {
    client.put_item().table_name(TABLE).set_item(Some(item.clone())).send().await.unwrap();
}

async fn all(client: &Client) -> BTreeMap<String, Item> {
    let items = client.scan().table_name(TABLE).send().await.unwrap().items.unwrap_or_default();
    items.into_iter().map(|item| (item["sk"].as_s().unwrap().clone(), item)).collect()
}

/// Waits until both tables hold these items.
async fn both_hold(clients: [&Client; 2], items: &[Item]) {
    let expected: BTreeMap<_, _> =
        items.iter().map(|item| (item["sk"].as_s().unwrap().clone(), item.clone())).collect();
    let deadline = Instant::now() + Duration::from_secs(20);
    loop {
        let held = [all(clients[0]).await, all(clients[1]).await];
        if held.iter().all(|held| *held == expected) {
            return;
        }
        assert!(Instant::now() < deadline, "{held:?}, expected {expected:?}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

#[tokio::test]
async fn two_tables_become_the_same_and_a_cut_loses_nothing() {
    let (east, west) = tokio::try_join!(
        LocalDynamoDb::emulator("test-replication-east"),
        LocalDynamoDb::emulator("test-replication-west")
    )
    .unwrap();
    let clients = [Client::new(&east.sdk_config()), Client::new(&west.sdk_config())];
    let [e, w] = [&clients[0], &clients[1]];
    create_table(e).await;
    create_table(w).await;
    put(e, &item("before", 1)).await;
    let tables = [("us-east-1", &east), ("us-west-2", &west)];
    let tables = tables.map(|(region, db)| (region.to_owned(), (db.sdk_config(), TABLE.to_owned())));
    let replicator = Replicator::start(tables.into(), Duration::from_millis(100)).await.unwrap();

    put(e, &item("a", 1)).await;
    put(w, &item("b", 1)).await;
    put(w, &item("a-too", 1)).await;
    both_hold([e, w], &[item("a", 1), item("a-too", 1), item("b", 1), item("before", 1)]).await;

    // Each region continues alone. After the cut, the later write of `a` and the deletion of `b`
    // hold everywhere.
    replicator.cut();
    put(e, &item("a", 2)).await;
    tokio::time::sleep(Duration::from_millis(20)).await;
    put(w, &item("a", 3)).await;
    e.delete_item().table_name(TABLE).set_key(Some(key("b"))).send().await.unwrap();
    put(w, &item("c", 1)).await;
    tokio::time::sleep(Duration::from_millis(700)).await;
    assert_eq!((all(e).await["a"].clone(), all(w).await["a"].clone()), (item("a", 2), item("a", 3)));
    assert!(all(w).await.contains_key("b") && !all(e).await.contains_key("c"));
    replicator.heal();
    both_hold([e, w], &[item("a", 3), item("a-too", 1), item("before", 1), item("c", 1)]).await;

    // No copy comes back as a write again and again.
    let settled = async || {
        let deadline = Instant::now() + Duration::from_secs(10);
        while replicator.stats().open > 0 {
            assert!(Instant::now() < deadline, "{:?}", replicator.stats());
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        replicator.stats()
    };
    let before = settled().await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(settled().await, before);
    assert_eq!((before.writes, before.applied), (8, 7), "{before:?}");
}

fn key(sk: &str) -> Item {
    item(sk, 0).into_iter().filter(|(name, _)| name == "pk" || name == "sk").collect()
}
