//! Declares and dispatches the commands. Each command has its own file.

use crate::{bench, demo, invoke, soak};
use anyhow::Result;
use clap::{Parser, Subcommand};
use operate::{books, comparison, dlq, rollout, routing, token, topics};
use simulate::{encode, folding};
use std::process::ExitCode;

/// Playhead's command line: a local cloud, a viewer simulator, and operations
#[derive(Debug, Parser)]
#[command(name = "playhead", bin_name = "cargo playhead", version, arg_required_else_help = true)]
#[command(after_help = "Examples:
  cargo playhead demo                              watch the whole pipeline work, with a proof
  cargo playhead local up                          start the whole system on this machine
  cargo playhead token --profile p00000054         print a token for its API
  cargo playhead local status                      show where everything is
  cargo playhead local down                        stop it

Set RUST_LOG to see more of what happens inside, for example RUST_LOG=info.")]
pub struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Demo(Box<demo::Args>),
    /// Run the whole system on this machine: the real template, functions and log, with AWS
    /// emulated
    #[command(arg_required_else_help = true)]
    Local(local::command::Args),
    Invoke(invoke::Args),
    Token(token::Args),
    Simulate(Box<simulate::Args>),
    Encode(encode::Args),
    Bench(bench::Args),
    Folding(folding::Args),
    Plan(Box<plan::Args>),
    Soak(soak::Args),
    Books(books::Args),
    Dlq(Box<dlq::Args>),
    Routing(Box<routing::Args>),
    Rollout(Box<rollout::Args>),
    Compare(Box<comparison::Args>),
    Topics(topics::Args),
}

impl Cli {
    /// What is logged if `RUST_LOG` does not say it. While a soak breaks things, clients that
    /// complain are no news.
    #[must_use]
    pub fn log_level(&self) -> &'static str {
        if matches!(self.command, Command::Soak(_)) { "off" } else { "warn" }
    }

    /// Runs the command.
    ///
    /// # Errors
    /// If the command failed. The message is for the user.
    pub async fn run(self) -> Result<ExitCode> {
        match self.command {
            Command::Bench(args) => return bench::run(args).await,
            Command::Soak(args) => return soak::run(args).await,
            Command::Books(args) => return books::run(args).await,
            Command::Dlq(args) => return dlq::run(*args).await,
            Command::Topics(args) => return topics::run(args, local::topic_settings).await,
            Command::Demo(args) => return demo::run(*args).await,
            Command::Routing(args) => return routing::run(*args).await,
            Command::Rollout(args) => return rollout::run(*args).await,
            Command::Compare(args) => return comparison::run(*args).await,
            Command::Local(args) => return local::command::run(args, live::serve).await,
            Command::Invoke(args) => invoke::run(args).await?,
            Command::Token(args) => token::run(args)?,
            Command::Folding(args) => folding::run(&args)?,
            Command::Plan(args) => plan::run(&args)?,
            Command::Simulate(args) => simulate::run(*args).await?,
            Command::Encode(args) => encode::run(args).await?,
        }
        Ok(ExitCode::SUCCESS)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory as _;

    #[test]
    fn clap_declaration_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn stack_may_be_named_before_or_after_the_subcommand() {
        let parses = |line: &str| Cli::try_parse_from(line.split(' ')).map(drop).map_err(|error| error.to_string());
        for line in [
            "playhead routing --stack playhead-prod --region us-east-1 show",
            "playhead routing set --from us-east-1 --stack playhead-prod --region us-east-1",
            "playhead dlq list --stack playhead-prod --region us-east-1",
            "playhead books --stack playhead-prod",
            "playhead routing set --log standby --dry-run",
        ] {
            assert_eq!(parses(line), Ok(()), "{line}");
        }
        for line in ["playhead routing show --region us-east-1", "playhead routing set --log auto --version 3"] {
            assert!(parses(line).is_err(), "{line}");
        }
    }
}
