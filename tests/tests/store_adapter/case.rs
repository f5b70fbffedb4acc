//! What a case works with: the table of `template.yaml`, and its own profile in it.

use anyhow::{Context as _, Result, ensure};
use aws_sdk_dynamodb::Client;
use aws_sdk_dynamodb::primitives::Blob;
use aws_sdk_dynamodb::types::{AttributeValue, DeleteRequest, PutRequest, WriteRequest};
use local::LocalDynamoDb;
use operate::workspace_root;
use playback::contract::{Event, Kind};
use playback::envelope::Envelope;
use playback::fold::{ViewKey, fold};
use playback::history::{Entry, Rules, TitleState};
use playback::outcome::Counts;
use playback::proto;
use playback::session::SessionId;
use playback::view::View;
use playhead_tests::sample;
pub(crate) use playhead_tests::sample::TITLE_DURATION_MS as TITLE_MS;
use prost::Message as _;
use serde_json::{Map, Value};
use std::collections::{BTreeSet, HashMap};
use std::time::Duration;
use store::dynamodb::{HistoryPage, PageToken, Request, Views};
use store::testing::settle_in_time;
use store::{Erase, ViewTable as _};
use tokio::time::Instant;

/// When session 0 of every profile began, Unix milliseconds; session `n` began `n` seconds later.
pub(crate) const BEGAN: u64 = 1_790_000_000_000;
const TABLE: &str = "views";

/// An item as the SDK has it.
pub(crate) type Item = HashMap<String, AttributeValue>;

/// The table, and clients of it.
pub(crate) struct Table {
    client: Client,
    views: Views,
}

impl Table {
    /// Creates it from the properties of the template's ViewsTable. CloudFormation and DynamoDB use
    /// the same names, so the test uses exactly what the template says.
    pub(crate) async fn create(server: &LocalDynamoDb) -> Result<Self> {
        let template = std::fs::read_to_string(workspace_root()?.join("template.yaml"))?;
        let template: yaml_serde::Value = yaml_serde::from_str(&template)?;
        let properties = &template["Resources"]["ViewsTable"]["Properties"];
        let mut table = Map::from_iter([("TableName".to_owned(), TABLE.into())]);
        for name in ["AttributeDefinitions", "KeySchema", "GlobalSecondaryIndexes", "BillingMode"] {
            let property = serde_json::to_value(&properties[name])?;
            ensure!(!property.is_null(), "the template's ViewsTable has no {name}");
            table.insert(name.to_owned(), property);
        }
        let answer = reqwest::Client::builder()
            .no_proxy()
            .build()?
            .post(server.endpoint())
            .header("content-type", "application/x-amz-json-1.0")
            .header("x-amz-target", "DynamoDB_20120810.CreateTable")
            // Nobody checks the signature, but account and region are read from here.
            .header(
                "authorization",
                "AWS4-HMAC-SHA256 Credential=test/20260101/us-east-1/dynamodb/aws4_request, SignedHeaders=host, Signature=0",
            )
            .body(Value::Object(table).to_string())
            .send()
            .await?;
        let (status, text) = (answer.status(), answer.text().await?);
        ensure!(status.is_success(), "CreateTable answered {status}: {text}");

        let sdk = server.sdk_config();
        let client = Client::new(&sdk);
        let found = client.describe_table().table_name(TABLE).send().await.context("the table just made")?;
        let found = found.table.context("no description")?;
        let found = (found.key_schema().len(), found.global_secondary_indexes().len());
        ensure!(found == (2, 1), "(keys, indexes) are {found:?}");
        Ok(Self { client, views: Views::new(&sdk, TABLE, "use1".parse()?) })
    }

    pub(crate) fn case(&self, profile: &str) -> Case {
        Case { client: self.client.clone(), views: self.views.clone(), profile: profile.to_owned() }
    }
}

/// One profile of the table.
#[derive(Clone)]
pub(crate) struct Case {
    pub(crate) client: Client,
    pub(crate) views: Views,
    pub(crate) profile: String,
}

/// A session by its number.
pub(crate) fn session(number: u64) -> SessionId {
    SessionId::mint("use1".parse().unwrap(), BEGAN + number * 1000, u128::from(number))
}

/// One event of a session.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Watched {
    pub(crate) session: u64,
    pub(crate) title: &'static str,
    pub(crate) seq: u16,
    pub(crate) position_ms: u64,
    /// What it played up to the position, if there is as much before it.
    pub(crate) played_ms: u64,
    pub(crate) kind: Kind,
    /// Seconds after [`BEGAN`].
    pub(crate) received: u64,
}

impl Watched {
    /// The first event of a session, received as it began.
    pub(crate) fn new(session: u64, title: &'static str) -> Self {
        Self { session, title, seq: 0, position_ms: 10, played_ms: 10, kind: Kind::Progressed, received: session }
    }

    pub(crate) fn seq(self, seq: u16) -> Self {
        Self { seq, ..self }
    }

    pub(crate) fn at(self, position_ms: u64) -> Self {
        Self { position_ms, ..self }
    }

    pub(crate) fn playing(self, played_ms: u64) -> Self {
        Self { played_ms, ..self }
    }

    pub(crate) fn stopped(self) -> Self {
        Self { kind: Kind::Stopped, ..self }
    }

    pub(crate) fn received(self, received: u64) -> Self {
        Self { received, ..self }
    }

    pub(crate) fn envelope(self, profile: &str) -> Envelope {
        let received_at = BEGAN + self.received * 1000;
        let event = Event {
            position_ms: self.position_ms,
            played_ms: self.position_ms.min(self.played_ms),
            kind: self.kind,
            country: "US".parse().ok(),
            ..sample::event(self.seq, received_at)
        };
        sample::envelope(session(self.session), profile, self.title, received_at, vec![event])
    }

    pub(crate) fn view(self) -> View {
        View::of_envelope(&self.envelope("any")).unwrap()
    }
}

impl Case {
    /// Another profile of the same table.
    pub(crate) fn of(&self, profile: impl Into<String>) -> Self {
        Self { profile: profile.into(), ..self.clone() }
    }

    /// The key of the view of `t1` in a session.
    pub(crate) fn key(&self, number: u64) -> ViewKey {
        self.key_of(number, "t1")
    }

    pub(crate) fn key_of(&self, number: u64, title: &str) -> ViewKey {
        ViewKey { profile_id: self.profile.clone(), session_id: session(number), title_id: title.to_owned() }
    }

    /// Events arrive in one batch, as in `process`.
    pub(crate) async fn watch(&self, events: &[Watched]) {
        self.settle(events).await;
    }

    /// As [`Case::watch`]; returns how many events were applied and how many changed nothing.
    pub(crate) async fn settle(&self, events: &[Watched]) -> Counts {
        let envelopes = events.iter().map(|event| event.envelope(&self.profile)).enumerate();
        let (settled, _) = settle_in_time(&self.views, fold(envelopes)).await;
        let mut total = Counts::default();
        for (_, counts) in settled.into_iter().flat_map(|one| one.result.unwrap()) {
            total += counts;
        }
        total
    }

    /// The item of a view as the home region writes it, or with a `writer` the part that another
    /// region wrote.
    pub(crate) fn view_item(&self, number: u64, writer: Option<&str>, view: &View) -> Item {
        let title = &view.title_id;
        self.item_of(&first_release_sk(number, writer, &format!("#~{title}")), view, view.pack())
    }

    /// The item of a session as the first release wrote it.
    pub(crate) fn first_release_item(&self, number: u64, writer: Option<&str>, view: &View) -> Item {
        let mut packed = proto::View::decode(view.pack().as_slice()).unwrap();
        packed.second = None;
        self.item_of(&first_release_sk(number, writer, ""), view, packed.encode_to_vec())
    }

    fn item_of(&self, sk: &str, view: &View, packed: Vec<u8>) -> Item {
        let mut item = self.keys(sk);
        item.insert("version".to_owned(), AttributeValue::N("1".to_owned()));
        item.insert("title_id".to_owned(), AttributeValue::S(view.title_id.clone()));
        item.insert("view".to_owned(), AttributeValue::B(Blob::new(packed)));
        item
    }

    /// The item of the register that hides a session or shows it.
    pub(crate) fn hidden_item(&self, number: u64, hidden: bool) -> Item {
        let mut item = self.keys(&format!("{}#~hidden", session(number).ulid));
        item.insert("hidden".to_owned(), AttributeValue::Bool(hidden));
        item.insert("changed_at".to_owned(), AttributeValue::N(BEGAN.to_string()));
        item
    }

    pub(crate) fn keys(&self, sk: &str) -> Item {
        let text = |value: &str| AttributeValue::S(value.to_owned());
        HashMap::from([("pk".to_owned(), text(&self.profile)), ("sk".to_owned(), text(sk))])
    }

    /// Puts items without the adapter.
    pub(crate) async fn put(&self, items: impl IntoIterator<Item = Item>) {
        let put =
            |item| WriteRequest::builder().put_request(PutRequest::builder().set_item(Some(item)).build().unwrap());
        self.write_all(items.into_iter().map(|item| put(item).build()).collect()).await;
    }

    /// Deletes the view of `t1` in a session without the adapter.
    pub(crate) async fn delete(&self, number: u64) {
        let key = self.keys(&first_release_sk(number, None, "#~t1"));
        let delete = DeleteRequest::builder().set_key(Some(key)).build().unwrap();
        self.write_all(vec![WriteRequest::builder().delete_request(delete).build()]).await;
    }

    async fn write_all(&self, writes: Vec<WriteRequest>) {
        for batch in writes.chunks(25) {
            let answer = self.client.batch_write_item().request_items(TABLE, batch.to_vec()).send().await.unwrap();
            assert!(answer.unprocessed_items.unwrap_or_default().is_empty());
        }
    }

    /// The stored items of the profile, by sort key.
    pub(crate) async fn items(&self) -> Vec<Item> {
        let query = self.client.query().table_name(TABLE).consistent_read(true);
        let query = query.key_condition_expression("pk = :profile");
        let query = query.expression_attribute_values(":profile", AttributeValue::S(self.profile.clone()));
        let mut pages = query.into_paginator().items().send();
        let mut items = Vec::new();
        while let Some(item) = pages.next().await {
            items.push(item.unwrap());
        }
        items
    }

    /// The sort keys of the stored items of the profile.
    pub(crate) async fn sort_keys(&self) -> Vec<String> {
        self.items().await.iter().map(|item| item["sk"].as_s().unwrap().clone()).collect()
    }

    pub(crate) async fn page(&self, limit: usize, after: Option<PageToken>, include_hidden: bool) -> HistoryPage {
        let page = self.views.history(&self.profile, Request { limit, after, include_hidden }).await.unwrap();
        let sessions: BTreeSet<_> = page.entries.iter().map(|entry| entry.session_id.ulid).collect();
        let length = page.entries.len();
        assert!(length <= limit || sessions.len() == 1, "{length} entries of {sessions:?} in a page of {limit}");
        page
    }

    /// The history read in pages of `limit`, with each page's length.
    pub(crate) async fn history(&self, limit: usize, include_hidden: bool) -> (Vec<Entry>, Vec<usize>) {
        let (mut entries, mut lengths, mut after) = (Vec::new(), Vec::new(), None);
        loop {
            let page = self.page(limit, after, include_hidden).await;
            lengths.push(page.entries.len());
            entries.extend(page.entries);
            // As a member sends it back.
            after = page.next.map(|token| token.to_string().parse().unwrap());
            if after.is_none() {
                return (entries, lengths);
            }
            assert!(lengths.len() < 10_000, "the pages never end");
        }
    }

    /// What is known of a title.
    pub(crate) async fn title(&self, title: &str) -> TitleState {
        let mut states = self.titles(&[title]).await;
        assert_eq!(states.len(), 1);
        states.remove(title).unwrap()
    }

    /// What is known of titles that are asked for at once.
    pub(crate) async fn titles(&self, titles: &[&str]) -> HashMap<String, TitleState> {
        let ids: Vec<String> = titles.iter().map(|&title| title.to_owned()).collect();
        self.views.titles(&self.profile, &ids, &Rules::default()).await.unwrap()
    }

    /// Where to go on with a title.
    pub(crate) async fn resume(&self, title: &str) -> Option<Entry> {
        self.title(title).await.resume
    }

    pub(crate) async fn continued(&self, limit: usize) -> Vec<Entry> {
        self.views.continue_watching(&self.profile, limit, &Rules::default()).await.unwrap()
    }

    /// An erasure of this profile's whole history up to `at` seconds after [`BEGAN`].
    pub(crate) fn everything(&self, seconds: u64) -> Erase {
        Erase { profile_id: self.profile.clone(), at: BEGAN + seconds * 1000, title_id: None, session_id: None }
    }

    /// As [`Case::everything`], of one title.
    pub(crate) fn title_up_to(&self, title: &str, seconds: u64) -> Erase {
        Erase { title_id: Some(title.to_owned()), ..self.everything(seconds) }
    }

    /// An erasure of one session.
    pub(crate) fn session_erased(&self, number: u64) -> Erase {
        Erase { session_id: Some(session(number)), ..self.everything(0) }
    }

    /// Carries out an erasure with enough time.
    pub(crate) async fn erase(&self, erase: &Erase) {
        let deadline = Instant::now() + Duration::from_secs(60);
        assert!(self.views.erase(erase, deadline).await.unwrap(), "not all was deleted");
    }

    /// Writes an erasure's mark without time to delete anything. Returns whether nothing had to be
    /// deleted.
    pub(crate) async fn mark(&self, erase: &Erase) -> bool {
        self.views.erase(erase, Instant::now()).await.unwrap()
    }

    /// The numbers of the sessions in the history that a member sees.
    pub(crate) async fn visible(&self) -> Vec<u64> {
        numbers(&self.page(100, None, false).await.entries)
    }
}

/// The sort key of a session's item in the first release; `after` follows.
fn first_release_sk(number: u64, writer: Option<&str>, after: &str) -> String {
    let session = session(number);
    let writer = writer.map_or_else(String::new, |writer| format!("#{writer}"));
    format!("{}#{}{writer}{after}", session.ulid, session.home)
}

/// The numbers of entries' sessions.
pub(crate) fn numbers(entries: &[Entry]) -> Vec<u64> {
    entries.iter().map(|entry| (entry.session_id.started_at() - BEGAN) / 1000).collect()
}
