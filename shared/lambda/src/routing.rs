//! A function's copy of the routing document: read from SSM Parameter Store, cached for some
//! seconds, and never lost to a failed read.
//!
//! - The first caller to need a copy older than [`MAX_AGE`] reads it again. Meanwhile the others
//!   use the old copy.
//! - A document that cannot be read or is invalid changes nothing: the last good copy stays in
//!   force, or the default if there was none. Each such read is counted as one `RoutingErrors`.
//! - A caller for which the default would be wrong asks for [`Routing::known_routes`]. It gets none
//!   until a document was read, and waits for a read in progress. That there is no parameter at all
//!   is known, too: then the default is right.
//! - Nothing relies on running between two invocations: an environment that was frozen reads before
//!   it decides.

use std::sync::{Arc, PoisonError, RwLock};
use std::time::{Duration, Instant};

use aws_config::SdkConfig;
use aws_sdk_ssm::config::retry::RetryConfig;
use aws_sdk_ssm::error::DisplayErrorContext;
use aws_sdk_ssm::operation::get_parameter::GetParameterError;
use futures::future::BoxFuture;
use playback::routing::{Regions, Routes};

use crate::metrics::{Metric, Metrics};

/// How long a copy is used before it is read again. Parameter Store answers 40 reads a second
/// unless its higher throughput is switched on, which is enough for 400 environments.
pub const MAX_AGE: Duration = Duration::from_secs(10);
/// How soon it is read again while no document is known and a caller needs one.
const UNKNOWN_PAUSE: Duration = Duration::from_secs(2);
/// How long one read may take; a request is waiting for it.
pub const READ_TIME_OUT: Duration = Duration::from_secs(1);

/// Why a document's text was not read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Unread {
    /// There is no document.
    #[error("there is no such parameter")]
    Absent,
    /// There may be one.
    #[error("{0}")]
    Failed(String),
}

/// Reads the document's text, or returns why it could not.
type Read = Box<dyn Fn() -> BoxFuture<'static, Result<String, Unread>> + Send + Sync>;

/// The cached routing document and how to read it; one per process.
pub struct Routing {
    read: Read,
    cache: RwLock<Cache>,
    /// Held by the caller that reads.
    reading: tokio::sync::Mutex<()>,
}

#[derive(Clone)]
struct Cache {
    routes: Arc<Routes>,
    /// Whether these are the routes of a document, or it is known that there is none.
    is_known: bool,
    /// When it was last read, successfully or not.
    asked_at: Option<Instant>,
}

impl Routing {
    /// The document in the parameter `name` of the region of `sdk`, for a deployment in `regions`.
    pub fn of_parameter(sdk: &SdkConfig, name: impl Into<String>, regions: Regions) -> Self {
        // No immediate retry: the cached copy is good enough.
        let config = aws_sdk_ssm::config::Builder::from(sdk).retry_config(RetryConfig::disabled()).build();
        let (client, name) = (aws_sdk_ssm::Client::from_conf(config), name.into());
        Self::read_by(regions, move || {
            let parameter = client.get_parameter().name(&name);
            async move {
                let answer = parameter.send().await.map_err(|error| match error.as_service_error() {
                    Some(GetParameterError::ParameterNotFound(_)) => Unread::Absent,
                    _ => Unread::Failed(DisplayErrorContext(error).to_string()),
                })?;
                let value = answer.parameter.and_then(|parameter| parameter.value);
                value.ok_or_else(|| Unread::Failed("the parameter has no value".to_owned()))
            }
        })
    }

    /// The document whose text `read` returns.
    pub fn read_by<F>(regions: Regions, read: impl Fn() -> F + Send + Sync + 'static) -> Self
    where
        F: Future<Output = Result<String, Unread>> + Send + 'static,
    {
        let cache = Cache { routes: Arc::new(Routes::undirected(regions)), is_known: false, asked_at: None };
        Self {
            read: Box::new(move || Box::pin(read())),
            cache: RwLock::new(cache),
            reading: tokio::sync::Mutex::default(),
        }
    }

    /// The routes in force at `now`. It never fails: see the module's rules.
    pub async fn routes(&self, metrics: &Metrics, now: Instant) -> Arc<Routes> {
        if self.cache().is_older_than(MAX_AGE, now)
            && let Ok(_reading) = self.reading.try_lock()
        {
            self.refresh(metrics, now).await;
        }
        self.cache().routes
    }

    /// The routes in force at `now`, or `None` while no document was ever read and there may be one.
    pub async fn known_routes(&self, metrics: &Metrics, now: Instant) -> Option<Arc<Routes>> {
        if self.cache().is_known {
            return Some(self.routes(metrics, now).await);
        }
        let _reading = self.reading.lock().await;
        // If another caller read while this one waited, its read counts for both.
        if self.cache().is_older_than(UNKNOWN_PAUSE, now) {
            self.refresh(metrics, now).await;
        }
        let cache = self.cache();
        cache.is_known.then_some(cache.routes)
    }

    async fn refresh(&self, metrics: &Metrics, now: Instant) {
        let text = match tokio::time::timeout(READ_TIME_OUT, (self.read)()).await {
            Ok(read) => read,
            Err(_) => Err(Unread::Failed(format!("no answer within {} s", READ_TIME_OUT.as_secs()))),
        };
        let before = self.cache();
        let is_absent = text == Err(Unread::Absent);
        let routes = text.map_err(|why| ("unavailable", why.to_string())).and_then(|text| {
            let document = text.parse().map_err(|error| ("invalid", format!("{error}")))?;
            Routes::new(before.routes.regions().clone(), document).map_err(|error| ("invalid", error.to_string()))
        });
        let is_known = before.is_known || is_absent || routes.is_ok();
        let routes = routes.map(Arc::new).unwrap_or_else(|(reason, why)| {
            tracing::error!(reason, why, "the routing document cannot be used; the last good copy stays in force");
            metrics.add(Metric::RoutingErrors(reason), 1);
            Arc::clone(&before.routes)
        });
        if routes != before.routes {
            tracing::warn!(?routes, "the routing document has changed");
        }
        *self.cache.write().unwrap_or_else(PoisonError::into_inner) = Cache { routes, is_known, asked_at: Some(now) };
    }

    fn cache(&self) -> Cache {
        self.cache.read().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Cache {
    fn is_older_than(&self, age: Duration, now: Instant) -> bool {
        self.asked_at.is_none_or(|asked_at| now.saturating_duration_since(asked_at) >= age)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::Emitter;
    use playback::routing::Override;
    use std::collections::VecDeque;
    use std::sync::Mutex;

    /// A document that gives each of these answers in turn, and how often it was read.
    fn routing(answers: &[Result<&str, &str>]) -> (Routing, Arc<Mutex<usize>>) {
        let failed = |why: &str| if why == ABSENT { Unread::Absent } else { Unread::Failed(why.to_owned()) };
        let owned = |answer: &Result<&str, &str>| answer.map(str::to_owned).map_err(failed);
        let answers: Mutex<VecDeque<_>> = Mutex::new(answers.iter().map(owned).collect());
        let reads = Arc::new(Mutex::new(0));
        let counted = Arc::clone(&reads);
        let read = move || {
            *counted.lock().unwrap() += 1;
            let answer = answers.lock().unwrap().pop_front().unwrap();
            async move { answer }
        };
        (Routing::read_by(Regions::parse("us-east-1", "us-east-1,us-west-2").unwrap(), read), reads)
    }

    fn metrics() -> Metrics {
        Emitter::to("dev", "ingest", |_| ()).start(0)
    }

    /// There is no parameter.
    const ABSENT: &str = "absent";
    const STANDBY: &str = r#"{"version":1,"log":"standby"}"#;

    #[tokio::test]
    async fn copy_is_reused_for_some_seconds_then_read_again() {
        let (routing, reads) = routing(&[Ok(STANDBY), Ok(r#"{"version":1}"#)]);
        let (metrics, began) = (metrics(), Instant::now());
        let log_after = async |seconds| routing.routes(&metrics, began + Duration::from_secs(seconds)).await.log();
        assert_eq!(log_after(0).await, Override::Standby);
        assert_eq!(log_after(9).await, Override::Standby);
        assert_eq!(*reads.lock().unwrap(), 1);
        assert_eq!(log_after(10).await, Override::Auto);
        assert_eq!(*reads.lock().unwrap(), 2);
    }

    #[tokio::test]
    async fn last_good_copy_holds_and_failures_are_counted_by_reason() {
        let (routing, reads) = routing(&[
            Err("unreachable"),
            Ok(STANDBY),
            Ok("{"),
            Ok(r#"{"version":1,"regions":{"mars-1":{"state":"active"}}}"#),
            Err("unreachable"),
        ]);
        let (metrics, mut now) = (metrics(), Instant::now());
        let mut log = Vec::new();
        for _ in 0..5 {
            log.push(routing.routes(&metrics, now).await.log());
            now += MAX_AGE;
        }
        assert_eq!(log[0], Override::Auto, "no document was read yet");
        assert_eq!(log[1..], [Override::Standby; 4]);
        assert_eq!(metrics.count(Metric::RoutingErrors("unavailable")), 2);
        assert_eq!(metrics.count(Metric::RoutingErrors("invalid")), 2);
        assert_eq!(*reads.lock().unwrap(), 5);
    }

    #[tokio::test]
    async fn hanging_read_times_out_while_others_use_the_old_copy() {
        let regions = Regions::parse("us-east-1", "").unwrap();
        let routing = Routing::read_by(regions, std::future::pending);
        let (metrics, now) = (metrics(), Instant::now());
        let mut first = std::pin::pin!(routing.routes(&metrics, now));
        tokio::select! {
            biased;
            _ = &mut first => panic!("a read that never ends has ended"),
            _ = routing.routes(&metrics, now) => {}
        }
        first.await;
        assert_eq!(metrics.count(Metric::RoutingErrors("unavailable")), 1);
    }

    #[tokio::test]
    async fn routes_are_unknown_until_a_document_was_read() {
        let (routing, reads) = routing(&[Err("unreachable"), Ok("{"), Ok(STANDBY), Err("unreachable"), Err(ABSENT)]);
        let (metrics, began) = (metrics(), Instant::now());
        let log_after = async |seconds| {
            let routes = routing.known_routes(&metrics, began + Duration::from_secs(seconds)).await;
            routes.map(|routes| routes.log())
        };
        assert_eq!(log_after(0).await, None);
        assert_eq!(log_after(1).await, None);
        assert_eq!(*reads.lock().unwrap(), 1, "not for each request");
        assert_eq!(log_after(2).await, None, "an invalid document says nothing");
        for seconds in [4, 14, 24] {
            assert_eq!(log_after(seconds).await, Some(Override::Standby), "{seconds}");
        }
        assert_eq!(*reads.lock().unwrap(), 5);
    }

    #[tokio::test]
    async fn absent_document_is_known_to_be_absent() {
        let (routing, _) = routing(&[Err(ABSENT)]);
        let (metrics, now) = (metrics(), Instant::now());
        assert_eq!(routing.known_routes(&metrics, now).await.map(|routes| routes.log()), Some(Override::Auto));
        assert_eq!(metrics.count(Metric::RoutingErrors("unavailable")), 1);
    }

    #[tokio::test]
    async fn one_read_serves_all_who_need_a_document() {
        let (routing, reads) = routing(&[Ok(STANDBY)]);
        let (metrics, now) = (metrics(), Instant::now());
        let all = futures::future::join_all((0..20).map(|_| routing.known_routes(&metrics, now))).await;
        assert!(all.iter().all(Option::is_some));
        assert_eq!(*reads.lock().unwrap(), 1);
    }
}
