//! `playhead local up|down|status|serve`.

use super::LocalOptions;
use super::args::CloudArgs;
use anyhow::{Context as _, Result, bail};
use operate::Endpoints;
use operate::run::{RUN, Run, in_background, run_dir};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};
use std::fs::{self, File};
use std::io::{Read as _, Write as _};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitCode, Stdio};
use std::time::{Duration, Instant};
use tokio::signal::unix::{SignalKind, signal};

const LOOK_EVERY: Duration = Duration::from_millis(50);
/// Deleting what is on a user's emulator takes longest.
const DOWN_WITHIN: Duration = Duration::from_secs(240);

/// Arguments of `playhead local`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Use the run in this folder under target/playhead, for tests beside the user's local cloud
    #[arg(long, value_name = "NAME", global = true, hide = true, default_value = RUN)]
    run: String,
    #[command(subcommand)]
    command: LocalCommand,
}

#[derive(Debug, clap::Subcommand)]
enum LocalCommand {
    /// Start the local cloud in the background, and return when it is ready
    ///
    /// Builds the functions, installs the tools under target/playhead/tools (the first time this
    /// needs Python 3.10 to 3.14 and the network), starts an AWS emulator and Kafka brokers on
    /// free ports of 127.0.0.1, deploys template.yaml, and polls the topic. It stays up until
    /// `local down`.
    Up(CloudArgs),
    /// Stop the local cloud, and return when all of it is gone
    ///
    /// Its data is gone too: tables, queues and topics live in memory.
    Down,
    /// Show how to reach the local cloud; exit status 1 if none is running
    Status {
        /// Print one JSON object, for programs
        #[arg(long)]
        json: bool,
    },
    /// Run the local cloud in the foreground until Ctrl-C or SIGTERM
    Serve(CloudArgs),
}

/// Runs `playhead local`. `serve` holds the local cloud in the foreground, with its live page.
///
/// # Errors
/// If the command fails.
pub async fn run(args: Args, serve: impl AsyncFnOnce(LocalOptions) -> Result<ExitCode>) -> Result<ExitCode> {
    let Args { run, command } = args;
    match command {
        LocalCommand::Up(args) => up(&run, &args).await,
        LocalCommand::Down => down(&run).await,
        LocalCommand::Status { json } => status(&run, json),
        LocalCommand::Serve(args) => serve(args.options(&run)?).await,
    }
}

async fn up(run: &str, args: &CloudArgs) -> Result<ExitCode> {
    let folder = args.options(run)?.run_dir;
    if let Some(Run { pid, endpoints }) = Run::find(&folder)? {
        let Some(endpoints) = endpoints else {
            bail!("the local cloud (process {pid}) is starting or stopping: see `cargo playhead local status`");
        };
        println!("The local cloud is already up (process {pid}).\n");
        print(&endpoints);
        return Ok(ExitCode::SUCCESS);
    }
    let log = folder.join("logs/serve.log");
    let mut supervisor = Supervisor::start(run, args, &log)?;
    let ready = tokio::select! {
        ready = supervisor.until_ready(&folder) => ready,
        signal = asked_to_end() => {
            signal?;
            Err(anyhow::anyhow!("interrupted: the local cloud was not started"))
        }
    };
    match ready {
        Ok(endpoints) => {
            println!("The local cloud is up (process {}). Stop it with `cargo playhead local down`.\n", endpoints.pid);
            print(&endpoints);
            Ok(ExitCode::SUCCESS)
        }
        Err(error) => {
            supervisor.end();
            Err(error)
        }
    }
}

/// The background process that holds the local cloud, while it starts.
struct Supervisor {
    process: Child,
    log: File,
    log_path: PathBuf,
}

impl Supervisor {
    fn start(run: &str, args: &CloudArgs, log_path: &Path) -> Result<Self> {
        fs::create_dir_all(log_path.parent().context("the log has no parent folder")?)?;
        let out = File::create(log_path).with_context(|| format!("creating {}", log_path.display()))?;
        let mut command = Command::new(std::env::current_exe()?);
        command.args(["local", "serve", "--run", run]).args(args.as_arguments());
        // In its own group, so Ctrl-C and closing the terminal do not reach it.
        command.process_group(0).stdin(Stdio::null()).stdout(out.try_clone()?).stderr(out);
        let process = command.spawn().context("starting the background process")?;
        let log = File::open(log_path)?;
        Ok(Self { process, log, log_path: log_path.to_owned() })
    }

    /// Shows its log until it is ready.
    async fn until_ready(&mut self, folder: &Path) -> Result<Endpoints> {
        loop {
            let ended = self.process.try_wait()?;
            self.show_news()?;
            if let Some(status) = ended {
                bail!("the local cloud did not start ({status}); its log is {}", self.log_path.display());
            }
            if let Some(Run { pid, endpoints: Some(endpoints) }) = Run::find(folder)?
                && pid == self.process.id()
            {
                self.show_news()?;
                return Ok(endpoints);
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }

    fn show_news(&mut self) -> Result<()> {
        let mut news = Vec::new();
        self.log.read_to_end(&mut news)?;
        std::io::stderr().write_all(&news)?;
        Ok(())
    }

    /// Ends it cleanly, if it still runs.
    fn end(&mut self) {
        if matches!(self.process.try_wait(), Ok(None)) {
            let asked = process_id(self.process.id()).and_then(|pid| Ok(kill_process(pid, Signal::TERM)?));
            if let Err(error) = asked.and_then(|()| Ok(self.process.wait()?)) {
                tracing::warn!("could not stop the background process: {error:#}");
            }
        }
    }
}

async fn down(run: &str) -> Result<ExitCode> {
    let folder = run_dir(run)?;
    let Some(Run { pid, .. }) = Run::find(&folder)? else {
        println!("No local cloud is running.");
        return Ok(ExitCode::SUCCESS);
    };
    if !is_supervisor(pid) {
        bail!("process {pid} holds {}, but it is not `playhead local serve`: not stopping it", folder.display());
    }
    kill_process(process_id(pid)?, Signal::TERM).with_context(|| format!("asking process {pid} to stop"))?;
    let deadline = Instant::now() + DOWN_WITHIN;
    while Run::find(&folder)?.is_some_and(|run| run.pid == pid) {
        if Instant::now() > deadline {
            bail!(
                "process {pid} did not stop within {} s; see {}",
                DOWN_WITHIN.as_secs(),
                folder.join("logs").display()
            );
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
    println!("The local cloud is down.");
    Ok(ExitCode::SUCCESS)
}

/// Whether this process is a `playhead local serve`. Only Linux can tell; elsewhere we assume so.
/// The lock says so already, but a new holder may not have replaced an old process id yet.
fn is_supervisor(pid: u32) -> bool {
    match fs::read(format!("/proc/{pid}/cmdline")) {
        Ok(arguments) => String::from_utf8_lossy(&arguments).contains("local\0serve"),
        Err(_) => !Path::new("/proc/self/cmdline").exists(),
    }
}

fn process_id(pid: u32) -> Result<Pid> {
    Pid::from_raw(i32::try_from(pid)?).context("no process has the id 0")
}

fn status(run: &str, json: bool) -> Result<ExitCode> {
    if !json {
        let endpoints = in_background(run)?;
        println!("The local cloud is up (process {}).\n", endpoints.pid);
        print(&endpoints);
        return Ok(ExitCode::SUCCESS);
    }
    let endpoints = Run::find(&run_dir(run)?)?.and_then(|run| run.endpoints);
    let (object, code) = match endpoints {
        Some(endpoints) => (describe(&endpoints)?, ExitCode::SUCCESS),
        None => (json!({ "running": false }), ExitCode::FAILURE),
    };
    println!("{}", serde_json::to_string_pretty(&object)?);
    Ok(code)
}

/// The endpoints without the secret. Programs get a token from `playhead token`.
fn describe(endpoints: &Endpoints) -> Result<Value> {
    let mut object = serde_json::to_value(endpoints)?;
    let fields = object.as_object_mut().context("the endpoints are not an object")?;
    fields.remove("jwt_secret");
    for peer in fields.get_mut("peers").and_then(Value::as_array_mut).into_iter().flatten() {
        peer.as_object_mut().map(|peer| peer.remove("jwt_secret"));
    }
    fields.insert("running".to_owned(), Value::Bool(true));
    Ok(object)
}

fn print(endpoints: &Endpoints) {
    let logs = endpoints.run_dir.join("logs").display().to_string();
    let lines = [
        ("Live page", endpoints.live_page.as_ref()),
        ("API", Some(&endpoints.api)),
        ("AWS endpoint", Some(&endpoints.aws_endpoint)),
        ("Kafka", endpoints.log_bootstrap.as_ref()),
        ("Stream", endpoints.events_stream.as_ref()),
        ("Standby Kafka", endpoints.standby_bootstrap.as_ref()),
        ("Standby stream", endpoints.standby_stream.as_ref()),
        ("Remote stream", endpoints.remote_stream.as_ref()),
        ("Remote standby", endpoints.remote_standby_stream.as_ref()),
        ("Topic", endpoints.log_bootstrap.as_ref().or(endpoints.standby_bootstrap.as_ref()).map(|_| &endpoints.topic)),
        ("Remote topic", endpoints.remote_topic.as_ref()),
        ("Region", Some(&endpoints.region)),
        ("Stack", Some(&endpoints.stack)),
        ("Views table", Some(&endpoints.views_table)),
        ("Inbound queue", Some(&endpoints.inbound_queue_url)),
        ("Retry queue", Some(&endpoints.retry_queue_url)),
        ("Dead letters", Some(&endpoints.dead_letter_queue_url)),
        ("Failed batches", Some(&endpoints.failure_bucket)),
        ("Ingest", Some(&endpoints.ingest_function)),
        ("Process", Some(&endpoints.process_function)),
        ("Retry", Some(&endpoints.retry_function)),
        ("Forward", endpoints.forward_function.as_ref()),
        ("Query", Some(&endpoints.query_function)),
        ("Legacy", endpoints.legacy_endpoint.as_ref()),
        ("Shadow table", endpoints.shadow_table.as_ref()),
        ("Candidate", endpoints.candidate_function.as_ref()),
        ("Change feed", endpoints.view_changes_stream.as_ref()),
        ("Compare", endpoints.compare_function.as_ref()),
        ("Comparisons", endpoints.reports_bucket.as_ref()),
        ("Routing", Some(&endpoints.routing_parameter)),
        ("Logs", Some(&logs)),
    ];
    for (name, value) in lines.into_iter().filter_map(|(name, value)| Some((name, value?))) {
        println!("  {name:<14} {value}");
    }
    for left_out in &endpoints.left_out {
        println!("  {:<14} {left_out}", "Left out");
    }
    for peer in &endpoints.peers {
        println!();
        print(peer);
    }
}

/// Returns on Ctrl-C or SIGTERM.
///
/// # Errors
/// If signals cannot be received.
pub async fn asked_to_end() -> Result<()> {
    let (mut interrupt, mut terminate) = (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
    tokio::select! {
        _ = interrupt.recv() => {}
        _ = terminate.recv() => {}
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use operate::testing::endpoints as example;

    #[test]
    fn status_for_programs_has_every_endpoint_and_no_secret() {
        let object = describe(&example()).unwrap();
        for field in ["api", "aws_endpoint", "log_bootstrap", "views_table", "inbound_queue_url", "process_function"] {
            assert!(object[field].is_string(), "{field}");
        }
        assert_eq!(object["running"], true);
        assert!(!object.to_string().contains("do-not-show-this"));
        let with_peer = describe(&Endpoints { peers: vec![example()], ..example() }).unwrap();
        assert_eq!(with_peer["peers"][0]["stack"], "playhead-local");
        assert!(!with_peer.to_string().contains("do-not-show-this"));
    }

    #[test]
    fn foreign_process_is_left_alone() {
        assert!(!is_supervisor(std::process::id()) || !Path::new("/proc/self/cmdline").exists());
    }
}
