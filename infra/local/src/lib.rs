//! The local cloud: the real template, deployed with the real tool, running the real binaries against a real broker.
//!
//! | part | is |
//! |---|---|
//! | AWS | [ministack](https://github.com/ministackorg/ministack), a LocalStack-compatible emulator, no Docker needed |
//! | Kafka | [tansu](https://github.com/tansu-io/tansu) in memory, or brokers of the user's, or none |
//! | Lambda's event source mapping for Kafka | [`poller`], ours: no emulator has one |
//! | other regions ([`LocalRegions`]) | a local cloud each, with an emulator of its own |
//! | DynamoDB's global tables | `replicate`, ours ([`Replicator`]): the emulators know nothing of each other |
//! | the way to another region's SQS | `link`, ours ([`Link`]), which can be slow or cut |
//!
//! **Invariant:** nothing outlives the process that holds a [`LocalCloud`], even if that is killed
//! (test `letting_go_ends_the_child_and_what_it_started`).
//! **Invariant:** nothing of the user's AWS settings, proxies or secrets reaches the children, and nothing is written outside `target/`.

pub mod args;
mod broker;
mod build;
mod child;
mod cloud;
pub mod command;
mod deploy;
mod dynamodb;
mod emulator;
mod java;
mod kafka_cluster;
mod link;
pub mod poller;
mod progress;
mod regions;
mod replicate;
mod tools;

pub use broker::{create_topic, delete_topic};
pub use build::function_names;
pub use cloud::{Brokers, DEFAULT_REGION, LocalCloud, LocalOptions, Primary, Standby};
pub use dynamodb::LocalDynamoDb;
pub use kafka_cluster::ApacheKafka;
pub use link::{Crossing, Cut, Link};
pub use progress::Progress;
pub use regions::LocalRegions;
pub use replicate::{ReplicationStats, Replicator};
pub use tools::Tools;
