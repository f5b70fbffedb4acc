//! The fault suite: checks whether the promises hold when things break. Every scenario runs the
//! real template and the real functions on three real Apache Kafka brokers (three copies, two in
//! sync) with a standby on Kinesis, and breaks something while simulated devices send at a steady
//! rate. Then it compares everything with what the devices were told: the books, the logs record by
//! record, the dead-letter queue, and every member's view, which the simulator computes
//! independently of the code under test.
//!
//! It takes about 14 minutes on two cores, so it runs only on request:
//! `PLAYHEAD_TEST_FAULTS=1 cargo test --test faults`, with
//! `-- [SCENARIO …] [--slice K/N] [--seed N] [--rate N]` for a part of it. The table is printed and
//! written to `target/playhead/faults/` as Markdown and JSON. The exit status is 0 only if every
//! scenario kept every promise. What it shares with the suite of several regions is in
//! `playhead_tests::suite`.

mod logs;
mod play;
mod scenario;
mod settle;
mod stage;
mod table;

use std::process::ExitCode;
use std::time::Duration;

use anyhow::Result;
use local::ApacheKafka;
use playhead_tests::suite::{self, About, Load, Row, Suite};

use self::scenario::Scenario;
use self::table::Figures;

const BROKERS: u16 = 3;

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
        minutes: 14,
        // What two cores can carry with everything on them, and the faults too.
        rate: 50.0,
        longest: Duration::from_secs(420),
    };

    async fn start() -> Result<Self> {
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
