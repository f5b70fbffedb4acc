//! The fault suite: checks whether the promises hold when things break. Every scenario runs the
//! real template and the real functions on three real Apache Kafka brokers (three copies, two in
//! sync) with a standby on Kinesis, and breaks something while simulated devices send at a steady
//! rate. Then it compares everything with what the devices were told: the books, the logs record by
//! record, the dead-letter queue, and every member's view, which the simulator computes
//! independently of the code under test.
//!
//! It takes about 22 minutes on two cores, so it runs only on request:
//! `PLAYHEAD_TEST_FAULTS=1 cargo test --test faults`, with
//! `-- [SCENARIO …] [--slice K/N] [--seed N] [--rate N]` for a part of it. With
//! `PLAYHEAD_TEST_LONG=1` too, the store of `store-hangs` hangs for 20 minutes instead of two. The
//! table is printed and written to `target/playhead/faults/` as Markdown and JSON. The exit status
//! is 0 only if every scenario kept every promise. What it shares with the suite of several regions
//! is in `playhead_tests::suite`.

mod logs;
mod play;
mod scenario;
mod settle;
mod stage;
mod table;

use std::env;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Result, ensure};
use local::ApacheKafka;
use playhead_tests::suite::{self, About, Load, Row, Suite};

use self::scenario::{LONG, Scenario};
use self::table::Figures;

const BROKERS: u16 = 3;
/// Starting the cloud of a scenario, and reading what it left.
const STARTED_WITHIN: Duration = Duration::from_secs(120);

/// The brokers that every scenario uses.
struct Faults {
    cluster: ApacheKafka,
}

impl Suite for Faults {
    type Scenario = Scenario;
    type Figures = Figures;
    const ABOUT: About = About {
        name: "faults",
        of: "faults",
        switch: "PLAYHEAD_TEST_FAULTS",
        minutes: 22,
        // What two cores can carry with everything on them, and the faults too.
        rate: 50.0,
    };

    fn longest(scenario: Scenario) -> Duration {
        STARTED_WITHIN + scenario.longest() + scenario.patience()
    }

    async fn start() -> Result<Self> {
        // A misspelled switch must not look like a long outage that passed.
        let long = env::var(LONG).unwrap_or_else(|_| "1".to_owned());
        ensure!(long == "1", "{LONG} must be 1 or unset, not {long:?}");
        Ok(Self { cluster: ApacheKafka::start("faults-kafka", BROKERS).await? })
    }

    async fn play(&mut self, scenario: Scenario, load: Load) -> Result<Row<Figures>> {
        play::play(scenario, &mut self.cluster, load).await
    }

    async fn repair(&mut self) -> Result<()> {
        Ok(()) // each scenario begins by healing the brokers
    }

    async fn stop(self) -> Result<()> {
        self.cluster.stop().await
    }
}

fn main() -> ExitCode {
    suite::main::<Faults>()
}
