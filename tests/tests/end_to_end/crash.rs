//! What breaks between a write and its answer, and while nobody polls: nothing is lost, nothing counts double.

use std::collections::BTreeSet;
use std::fs;
use std::sync::Arc;

use anyhow::{Context as _, Result, ensure};
use aws_sdk_lambda::types::{Environment, LastUpdateStatus};
use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse as _, Response};
use playhead::local::Endpoints;
use playhead::local::poller::{Poller, PollerConfig};
use playhead::simulate::expect::expect;
use playhead::simulate::{Faults, Model};
use rustix::process::{Pid, Signal, kill_process};
use tokio::net::TcpListener;
use tokio::runtime::Runtime;
use tokio::sync::{Mutex, watch};

use super::cloud::{eventually, run_alone};
use super::member::{Member, Viewing};
use super::simulated::{agree, drain, plan, send_all};

/// Of the DynamoDB client alone; the functions' other clients go to the emulator.
const VARIABLE: &str = "AWS_ENDPOINT_URL_DYNAMODB";
/// How often each fault is injected.
const TIMES: usize = 4;

/// Stands between `process` and DynamoDB. It passes everything on; the fault comes when a write is durable.
struct Saboteur {
    http: reqwest::Client,
    dynamodb: String,
    url: String,
    fault: Fault,
    done: Mutex<Done>,
}

/// What happens to the answer of a durable write.
enum Fault {
    /// By turns: its writer is killed, it is lost, it gets through.
    KillOrLose,
    /// It is held back until this is true.
    Hold(watch::Receiver<bool>),
}

/// What was done so far.
#[derive(Debug, Default, Clone, Copy)]
struct Done {
    writes: usize,
    killings: usize,
    lost_answers: usize,
}

impl Saboteur {
    async fn start(http: &reqwest::Client, dynamodb: &str, fault: Fault) -> Result<Arc<Self>> {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
        let url = format!("http://{}", listener.local_addr()?);
        let done = Mutex::default();
        let saboteur = Arc::new(Self { http: http.clone(), dynamodb: dynamodb.to_owned(), url, fault, done });
        let app = Router::new().fallback(serve).with_state(Arc::clone(&saboteur));
        tokio::spawn(async { axum::serve(listener, app).await });
        Ok(saboteur)
    }

    /// The processes of this run's `process`: they alone were told this saboteur's address.
    fn victims(&self) -> Result<Vec<Pid>> {
        let told = format!("{VARIABLE}={}", self.url);
        let mut victims = Vec::new();
        for entry in fs::read_dir("/proc")? {
            let entry = entry?;
            let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse().ok()).and_then(Pid::from_raw)
            else {
                continue;
            };
            // A process that ended meanwhile has no environment any more.
            let environment = fs::read(entry.path().join("environ")).unwrap_or_default();
            if environment.split(|byte| *byte == 0).any(|variable| variable == told.as_bytes()) {
                victims.push(pid);
            }
        }
        Ok(victims)
    }

    /// Passes a request on, and gives the answer.
    async fn pass_on(&self, headers: HeaderMap, body: Bytes) -> Result<Response> {
        let answer = self.http.post(&self.dynamodb).headers(headers).body(body).send().await?;
        let (status, headers) = (answer.status(), answer.headers().clone());
        Ok((status, headers, answer.bytes().await?).into_response())
    }

    async fn sabotage(&self, headers: HeaderMap, body: Bytes) -> Result<Response> {
        match &self.fault {
            Fault::KillOrLose => self.kill_or_lose(headers, body).await,
            Fault::Hold(released) => {
                let answer = self.pass_on(headers, body).await?;
                released.clone().wait_for(|released| *released).await?;
                Ok(answer)
            }
        }
    }

    /// Takes writes one by one. Of three that are durable, one's writer is killed and one's answer is lost, until each
    /// has happened often enough.
    async fn kill_or_lose(&self, headers: HeaderMap, body: Bytes) -> Result<Response> {
        let mut done = self.done.lock().await;
        let answer = self.pass_on(headers, body).await?;
        if !answer.status().is_success() {
            return Ok(answer);
        }
        done.writes += 1;
        match done.writes % 3 {
            1 if done.killings < TIMES => {
                let victims = self.victims()?;
                for victim in &victims {
                    kill_process(*victim, Signal::KILL)?;
                }
                done.killings += usize::from(!victims.is_empty());
                Ok(StatusCode::BAD_GATEWAY.into_response()) // nobody is there to read it
            }
            2 if done.lost_answers < TIMES => {
                done.lost_answers += 1;
                Ok(StatusCode::INTERNAL_SERVER_ERROR.into_response())
            }
            _ => Ok(answer),
        }
    }
}

async fn serve(State(saboteur): State<Arc<Saboteur>>, headers: HeaderMap, body: Bytes) -> Response {
    let is_write = headers.get("x-amz-target").is_some_and(|target| target.as_bytes().ends_with(b".UpdateItem"));
    let served = if is_write { saboteur.sabotage(headers, body).await } else { saboteur.pass_on(headers, body).await };
    served.unwrap_or_else(|error| {
        eprintln!("the proxy failed: {error:#}");
        StatusCode::BAD_GATEWAY.into_response()
    })
}

/// Tells `process` where DynamoDB is, or to go by the endpoint of all services again, and waits until that holds.
async fn tell_process(endpoints: &Endpoints, dynamodb: Option<&str>) -> Result<()> {
    let lambda = aws_sdk_lambda::Client::new(&endpoints.sdk_config());
    let function = &endpoints.process_function;
    let now = lambda.get_function_configuration().function_name(function).send().await?;
    let mut variables = now.environment.and_then(|environment| environment.variables).context("no environment")?;
    variables.remove(VARIABLE);
    variables.extend(dynamodb.map(|url| (VARIABLE.to_owned(), url.to_owned())));
    let environment = Environment::builder().set_variables(Some(variables)).build();
    lambda.update_function_configuration().function_name(function).environment(environment).send().await?;
    eventually("the function's new configuration", async || {
        let now = lambda.get_function_configuration().function_name(function).send().await?;
        Ok((now.last_update_status == Some(LastUpdateStatus::Successful)).then_some(()))
    })
    .await
}

#[test]
fn a_process_killed_between_write_and_answer_loses_nothing_and_counts_nothing_twice() -> Result<()> {
    run_alone(async |cloud, local| {
        let endpoints = &cloud.endpoints;
        let saboteur = Saboteur::start(&cloud.http, &endpoints.aws_endpoint, Fault::KillOrLose).await?;
        let before = local.poller().context("no poller")?.stats();
        let faults = Faults { duplicates: 0.1, reorder: 0.1, ..Faults::NONE };
        let model = Model { sessions: 20, viewers: Some(6), titles: 9, homes: vec!["use1".parse()?], seed: 3, faults };
        let plan = plan("killed", &model)?;
        let expected = expect(&plan, &BTreeSet::new());

        tell_process(endpoints, Some(&saboteur.url)).await?;
        let settled = async {
            send_all(cloud, &plan).await?;
            agree(cloud, &expected).await?;
            drain(cloud, "killed-last").await
        };
        let settled = settled.await;
        // Whatever came of it, the tests after this one find the function as it was.
        tell_process(endpoints, None).await?;
        settled?;
        agree(cloud, &expected).await?;

        let done = *saboteur.done.lock().await;
        ensure!((done.killings, done.lost_answers) == (TIMES, TIMES), "too few faults to mean anything: {done:?}");
        let after = local.poller().context("no poller")?.stats();
        let killed = TIMES as u64;
        assert!(after.function_errors >= before.function_errors + killed, "{before:?} {after:?}");
        assert!(after.retries >= before.retries + killed, "{before:?} {after:?}");
        assert_eq!(after.discarded, before.discarded, "{before:?} {after:?}");
        Ok(())
    })
}

#[test]
fn what_is_sent_while_nobody_polls_waits_on_the_log() -> Result<()> {
    run_alone(async |cloud, local| {
        let member = Member::new(cloud, "unpolled");
        let viewings: Vec<Viewing> = (0..8).map(|_| Viewing::begin(&member, "t1")).collect();
        let events = |count| viewings.iter().flat_map(|viewing| viewing.events(count)).collect::<Vec<_>>();
        let wanted = |count| viewings.iter().map(|viewing| (viewing, count)).collect::<Vec<_>>();
        member.post(&events(2)).await?;
        member.history_with(&wanted(2)).await?;

        local.stop_poller().await?;
        member.post(&events(5)).await?;
        let meanwhile = member.history().await?;
        assert!(meanwhile.iter().all(|session| session["events"] == 2), "{meanwhile:?}");

        local.start_poller().await?;
        member.history_with(&wanted(5)).await?;
        assert_eq!(local.poller().context("no poller")?.stats().function_errors, 0);
        Ok(())
    })
}

#[test]
fn what_a_dead_poller_had_not_committed_is_delivered_again() -> Result<()> {
    run_alone(async |cloud, local| {
        let endpoints = &cloud.endpoints;
        let member = Member::new(cloud, "uncommitted");
        let viewings: Vec<Viewing> = (0..4).map(|_| Viewing::begin(&member, "t1")).collect();
        let (release, released) = watch::channel(false);
        let saboteur = Saboteur::start(&cloud.http, &endpoints.aws_endpoint, Fault::Hold(released)).await?;

        local.stop_poller().await?;
        tell_process(endpoints, Some(&saboteur.url)).await?;
        let mortal = Runtime::new()?;
        let died = async {
            let poller = mortal.spawn(Poller::start(PollerConfig {
                sdk: endpoints.sdk_config(),
                bootstrap: endpoints.log_bootstrap.clone().context("the log is on Kafka")?,
                stack: endpoints.stack.clone(),
                logical_id: "ProcessLogMapping".to_owned(),
            }));
            let poller = poller.await??;
            member.post(&viewings.iter().flat_map(|viewing| viewing.events(2)).collect::<Vec<_>>()).await?;
            for viewing in &viewings {
                eventually("a write", async || cloud.stored("uncommitted", &viewing.session).await).await?;
            }
            Ok::<_, anyhow::Error>(poller.stats())
        };
        let died = died.await;
        mortal.shutdown_background(); // in the middle of its invocations
        release.send(true)?;
        tell_process(endpoints, None).await?;
        local.start_poller().await?;
        assert_eq!(died?.records_delivered, 0, "the poller got an answer: nothing is uncommitted");

        let stats = || local.poller().map(Poller::stats).context("no poller");
        let again =
            eventually("the second delivery", async || Ok(Some(stats()?).filter(|stats| stats.records_delivered >= 4)));
        assert_eq!(again.await?.records_delivered, 4);
        let history = member.history_with(&viewings.iter().map(|viewing| (viewing, 2)).collect::<Vec<_>>()).await?;
        assert!(history.iter().all(|session| session["played_ms"] == 1_000), "{history:?}");
        Ok(())
    })
}
