//! The local cloud: the real template, deployed with the real tool, running the real binaries
//! against a real broker.
//!
//! | part | what it is |
//! |---|---|
//! | AWS | [ministack](https://github.com/ministackorg/ministack), which needs no Docker, or the user's (`abilities`) |
//! | Kafka | [tansu](https://github.com/tansu-io/tansu), Apache Kafka, the user's brokers, or none |
//! | Lambda's event source mappings | our [`poller`]: the emulator has none for Kafka |
//! | other regions ([`LocalRegions`]) | one local cloud per region, each with its own emulator |
//! | DynamoDB's global tables | our `replicate` ([`Replicator`]) |
//! | the way to another region's SQS | our `link` ([`Link`]), which can be slow or cut |
//! | calls of AWS that fail | our [`proxy`], for tests and for the live page |
//!
//! **Invariant:** no process outlives the one that holds a [`LocalCloud`], even if that is killed
//! (test `letting_go_ends_the_child_and_its_descendants`). What it deployed to a user's emulator is
//! deleted by the next run.
//!
//! **Invariant:** the children see none of the user's AWS settings, proxies or secrets, and nothing is
//! written outside `target/`.

mod abilities;
pub mod args;
mod aws;
mod bare;
mod broker;
mod build;
mod child;
mod cloud;
pub mod command;
mod deploy;
mod dynamodb;
mod emulator;
pub mod functions;
mod java;
mod kafka_cluster;
mod link;
pub mod poller;
mod progress;
pub mod proxy;
mod regions;
mod replicate;
mod servers;
mod table_stream;
mod tools;

pub use bare::BareCloud;
pub use broker::{LocalBroker, append_poison, create_topic, delete_topic, topic_settings};
pub use build::{build_release, function_names};
pub use cloud::{Brokers, DEFAULT_REGION, LocalCloud, LocalOptions, Primary, Standby};
pub use dynamodb::LocalDynamoDb;
pub use kafka_cluster::ApacheKafka;
pub use link::{Crossing, Cut, Link};
pub use progress::Progress;
pub use regions::LocalRegions;
pub use replicate::{ReplicationStats, Replicator};
pub use servers::{BrokerState, Role};
pub use tools::{Tools, python_environment};
