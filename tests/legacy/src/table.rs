//! The service's table: one item per session, one attribute per event, written by update
//! expressions.

use crate::viewing::{Kept, Viewing};
use anyhow::{Context as _, Result};
use aws_config::SdkConfig;
use aws_sdk_dynamodb::Client;
use aws_sdk_dynamodb::types::{
    AttributeDefinition, AttributeValue, BillingMode, KeySchemaElement, KeyType, ReturnValue, ScalarAttributeType,
};
use std::collections::{BTreeMap, BTreeSet, HashMap};

/// Maximum number of events in one update, to keep its expression below 4 KB. Source: DynamoDB
/// developer guide, "Limits".
const EVENTS_IN_AN_UPDATE: usize = 50;

type Item = HashMap<String, AttributeValue>;

#[derive(Clone)]
pub(crate) struct Table {
    client: Client,
    name: String,
}

/// Events of one session in one request, in their order.
pub(crate) struct Arrived {
    pub(crate) profile: String,
    pub(crate) session: String,
    pub(crate) events: Vec<(u16, Kept)>,
}

impl Table {
    /// Opens the table, and creates it if it does not exist.
    pub(crate) async fn open(sdk: &SdkConfig, name: &str) -> Result<Self> {
        let client = Client::new(sdk);
        let key = |attribute: &str, kind| KeySchemaElement::builder().attribute_name(attribute).key_type(kind).build();
        let text = |attribute: &str| {
            AttributeDefinition::builder().attribute_name(attribute).attribute_type(ScalarAttributeType::S).build()
        };
        let created = client
            .create_table()
            .table_name(name)
            .billing_mode(BillingMode::PayPerRequest)
            .key_schema(key("profile", KeyType::Hash)?)
            .key_schema(key("session", KeyType::Range)?)
            .attribute_definitions(text("profile")?)
            .attribute_definitions(text("session")?)
            .send()
            .await;
        match created {
            Err(error) if error.as_service_error().is_some_and(|error| error.is_resource_in_use_exception()) => {}
            created => drop(created.with_context(|| format!("cannot create the table {name}"))?),
        }
        Ok(Self { client, name: name.to_owned() })
    }

    /// Stores events. Returns those that were stored already.
    pub(crate) async fn keep(&self, arrived: &Arrived) -> Result<BTreeSet<u16>> {
        let mut again = BTreeSet::new();
        for chunk in arrived.events.chunks(EVENTS_IN_AN_UPDATE) {
            again.extend(self.update(arrived, chunk).await?);
        }
        Ok(again)
    }

    async fn update(&self, arrived: &Arrived, events: &[(u16, Kept)]) -> Result<BTreeSet<u16>> {
        let mut again = BTreeSet::new();
        let mut distinct = BTreeMap::new();
        for (seq, kept) in events {
            if distinct.insert(seq, kept).is_some() {
                again.insert(*seq);
            }
        }
        let mut set = "SET arrived_last = :last".to_owned();
        let last = events.last().map(|(seq, _)| *seq).unwrap_or_default();
        let mut update = self
            .client
            .update_item()
            .table_name(&self.name)
            .set_key(Some(key(&arrived.profile, &arrived.session)))
            .expression_attribute_values(":last", AttributeValue::N(last.to_string()))
            .return_values(ReturnValue::UpdatedOld);
        for (seq, kept) in distinct {
            set.push_str(&format!(", e{seq} = if_not_exists(e{seq}, :e{seq})"));
            let kept = AttributeValue::S(serde_json::to_string(kept)?);
            update = update.expression_attribute_values(format!(":e{seq}"), kept);
        }
        let old = update.update_expression(set).send().await?.attributes.unwrap_or_default();
        again.extend(old.keys().filter_map(|name| seq_of(name)));
        Ok(again)
    }

    /// Removes events from a session.
    pub(crate) async fn remove(&self, profile: &str, session: &str, events: &BTreeSet<u16>) -> Result<()> {
        let events: Vec<String> = events.iter().map(|seq| format!("e{seq}")).collect();
        for chunk in events.chunks(EVENTS_IN_AN_UPDATE) {
            let remove = format!("REMOVE {}", chunk.join(", "));
            let update = self.client.update_item().table_name(&self.name).set_key(Some(key(profile, session)));
            update.update_expression(remove).send().await?;
        }
        Ok(())
    }

    /// One session.
    pub(crate) async fn get(&self, profile: &str, session: &str) -> Result<Option<Viewing>> {
        let get = self.client.get_item().table_name(&self.name).set_key(Some(key(profile, session)));
        let answer = get.consistent_read(true).send().await?;
        answer.item.as_ref().map(viewing).transpose()
    }

    /// All sessions of a profile, by id.
    pub(crate) async fn list(&self, profile: &str) -> Result<Vec<(String, Viewing)>> {
        let query = self.client.query().table_name(&self.name).consistent_read(true);
        let query = query.key_condition_expression("profile = :profile");
        let query = query.expression_attribute_values(":profile", AttributeValue::S(profile.to_owned()));
        let mut items = query.into_paginator().items().send();
        let mut sessions = Vec::new();
        while let Some(item) = items.next().await {
            let item = item?;
            let session = item.get("session").and_then(|value| value.as_s().ok()).context("an item has no session")?;
            sessions.push((session.clone(), viewing(&item)?));
        }
        Ok(sessions)
    }
}

fn key(profile: &str, session: &str) -> Item {
    let text = |value: &str| AttributeValue::S(value.to_owned());
    HashMap::from([("profile".to_owned(), text(profile)), ("session".to_owned(), text(session))])
}

/// The sequence number in an event attribute's name.
fn seq_of(name: &str) -> Option<u16> {
    name.strip_prefix('e')?.parse().ok()
}

fn viewing(item: &Item) -> Result<Viewing> {
    let mut viewing = Viewing::default();
    for (name, value) in item {
        match (name.as_str(), value) {
            ("arrived_last", AttributeValue::N(seq)) => viewing.arrived_last = seq.parse()?,
            (name, AttributeValue::S(kept)) => {
                if let Some(seq) = seq_of(name) {
                    viewing.events.insert(seq, serde_json::from_str(kept)?);
                }
            }
            _ => {}
        }
    }
    Ok(viewing)
}
