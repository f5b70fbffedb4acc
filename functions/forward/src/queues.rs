//! The queues `inbound` of all regions.

use aws_config::{Region as SdkRegion, SdkConfig};
use aws_sdk_sqs::Client;
use aws_sdk_sqs::config::retry::RetryConfig;
use aws_sdk_sqs::config::timeout::TimeoutConfig;
use aws_sdk_sqs::error::DisplayErrorContext;
use playback::routing::{Region, Regions};
use queue::{Queue, SendError};
use std::collections::HashMap;
use std::fmt;
use std::future::Future;
use std::time::Duration;
use tokio::sync::OnceCell;

/// How long looking up a region's queue may take.
pub const FIND_FOR: Duration = Duration::from_secs(8);

/// Where messages for a region go.
pub trait Inbound: Send + Sync {
    /// Sends messages to a region's queue: one result each, in order. A message counts as sent only
    /// when it is durable there.
    fn send(&self, region: &Region, bodies: Vec<String>) -> impl Future<Output = Vec<Result<(), InboundError>>> + Send;
}

/// Why a region did not take a message. It may have it anyway.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InboundError {
    /// The region's queue could not be found, so it was not sent.
    #[error("no queue {queue} in {region}: {why}")]
    NoQueue {
        /// The queue's name.
        queue: String,
        /// The region's name.
        region: String,
        /// The answer.
        why: String,
    },
    /// The queue refused it, or did not answer.
    #[error(transparent)]
    Send(#[from] SendError),
}

impl InboundError {
    /// Whether the region may have the message anyway.
    pub fn may_have_arrived(&self) -> bool {
        matches!(self, Self::Send(error) if error.may_have_arrived())
    }
}

/// The queues of all regions of the deployment. All have the same name, and each is looked up when
/// it is first needed.
pub struct RegionQueues {
    name: String,
    /// By name of the region.
    queues: HashMap<String, RegionQueue>,
}

struct RegionQueue {
    client: Client,
    queue: OnceCell<Queue>,
}

impl fmt::Debug for RegionQueues {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RegionQueues").field("name", &self.name).field("regions", &self.queues.keys()).finish()
    }
}

impl RegionQueues {
    /// The queues called `name` in these regions, with credentials and endpoint of `sdk`. Attempts
    /// are short and few: unsent records stay on the log, and a region that does not answer must
    /// not delay the others.
    pub fn new(sdk: &SdkConfig, name: impl Into<String>, regions: &Regions) -> Self {
        let client = |region: &Region| {
            let config = aws_sdk_sqs::config::Builder::from(sdk)
                .region(SdkRegion::new(region.name.clone()))
                .retry_config(RetryConfig::standard().with_max_attempts(2))
                .timeout_config(
                    TimeoutConfig::builder()
                        .connect_timeout(Duration::from_secs(2))
                        .operation_attempt_timeout(Duration::from_secs(4))
                        .operation_timeout(FIND_FOR)
                        .build(),
                );
            Client::from_conf(config.build())
        };
        let queue = |region: &Region| RegionQueue { client: client(region), queue: OnceCell::new() };
        let queues = regions.all().map(|region| (region.name.clone(), queue(region))).collect();
        Self { name: name.into(), queues }
    }

    /// Looks up every region's queue, so the first batch need not.
    pub async fn warm_up(&self) -> Result<(), InboundError> {
        let found = futures::future::join_all(self.queues.keys().map(|region| self.find(region))).await;
        found.into_iter().try_for_each(|queue| queue.map(drop))
    }

    async fn find(&self, region: &str) -> Result<&Queue, InboundError> {
        let failed = |why| InboundError::NoQueue { queue: self.name.clone(), region: region.to_owned(), why };
        let of_region = self.queues.get(region).ok_or_else(|| failed("not a region of this deployment".to_owned()))?;
        let find = || async {
            let answer = of_region.client.get_queue_url().queue_name(&self.name).send().await;
            let answer = answer.map_err(|error| failed(DisplayErrorContext(error).to_string()))?;
            let url = answer.queue_url.ok_or_else(|| failed("the answer has no URL".to_owned()))?;
            Ok(Queue::new(of_region.client.clone(), url))
        };
        of_region.queue.get_or_try_init(find).await
    }
}

impl Inbound for RegionQueues {
    async fn send(&self, region: &Region, bodies: Vec<String>) -> Vec<Result<(), InboundError>> {
        match self.find(&region.name).await {
            Ok(queue) => queue.send_all(bodies).await.into_iter().map(|sent| Ok(sent?)).collect(),
            Err(error) => bodies.iter().map(|_| Err(error.clone())).collect(),
        }
    }
}
