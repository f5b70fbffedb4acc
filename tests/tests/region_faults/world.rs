//! The two regions that all scenarios use.

use std::time::Duration;

use anyhow::{Result, bail};
use futures::FutureExt as _;
use local::{Cut, LocalOptions, LocalRegions, Progress};
use operate::Endpoints;
use operate::books::{Minute, Reader};
use operate::{routing, token};
use playback::routing::{Document, State};
use playback::session::Home;
use rand::RngExt as _;
use rand_chacha::ChaCha8Rng;
use reqwest::Client;

const EAST: &str = "us-east-1";
const WEST: &str = "us-west-2";
const TOKEN_LIFETIME: Duration = Duration::from_secs(3_600);
/// The mapping through which `forward` reads records for other regions.
const FORWARD_MAPPING: &str = "ForwardLogMapping";

/// One of the two regions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Side {
    East,
    West,
}

impl Side {
    pub(crate) const BOTH: [Self; 2] = [Self::East, Self::West];

    /// One of them at random.
    pub(crate) fn drawn(chance: &mut ChaCha8Rng) -> Self {
        if chance.random_bool(0.5) { Self::East } else { Self::West }
    }

    pub(crate) fn region(self) -> &'static str {
        match self {
            Self::East => EAST,
            Self::West => WEST,
        }
    }

    pub(crate) fn other(self) -> Self {
        match self {
            Self::East => Self::West,
            Self::West => Self::East,
        }
    }

    /// Its code in session ids.
    pub(crate) fn home(self) -> Result<Home> {
        Ok(if self == Self::East { "use1" } else { "usw2" }.parse()?)
    }
}

/// Something that is done to the regions, or to the connection between them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Action {
    /// Sessions at home in this region go to the other one from now on.
    Drain(Side),
    /// No region is drained any more.
    Restore,
    CutLink(Cut),
    HealLink,
    DelayReplication(Duration),
    CutReplication,
    HealReplication,
}

/// Two running regions.
pub(crate) struct World {
    pub(crate) regions: LocalRegions,
    pub(crate) http: Client,
    /// A backend's token, which may read and change every profile.
    pub(crate) token: String,
    /// How many scenarios were played.
    pub(crate) played: usize,
    readers: Vec<Reader>,
    /// How long replication takes while nobody delays it.
    replication_delay: Duration,
}

impl World {
    pub(crate) async fn start() -> Result<Self> {
        let regions = Side::BOTH.map(|side| side.region().to_owned()).to_vec();
        let options = LocalOptions { regions, ..LocalOptions::named("region-faults-cloud")? };
        let replication_delay = options.replication_delay;
        let regions = LocalRegions::start(options, &Progress::silent()).await?;
        let token = token::of_service(&regions.endpoints().jwt_secret, TOKEN_LIFETIME)?;
        let http = Client::builder().no_proxy().timeout(Duration::from_secs(30)).build()?;
        let readers = regions.endpoints().regions().map(Reader::new).collect();
        Ok(Self { regions, http, token, played: 0, readers, replication_delay })
    }

    pub(crate) fn endpoints(&self, side: Side) -> Result<&Endpoints> {
        Ok(self.regions.cloud(side.region())?.endpoints())
    }

    /// What the functions of both regions have counted since the start.
    pub(crate) async fn books(&mut self) -> Result<Minute> {
        let mut sum = Minute::default();
        for reader in &mut self.readers {
            reader.catch_up().await?.minutes.values().for_each(|minute| sum += *minute);
        }
        Ok(sum)
    }

    pub(crate) async fn act(&self, action: Action) -> Result<()> {
        let (link, replicator) = (self.regions.link(), self.regions.replicator());
        match action {
            Action::Drain(side) => {
                let draining = State::Draining { to: side.other().region().to_owned() };
                let mut document = Document::default();
                document.regions.insert(side.region().to_owned(), draining);
                routing::write(self.regions.endpoints(), &document).await?;
            }
            Action::Restore => routing::write(self.regions.endpoints(), &Document::default()).await?,
            Action::CutLink(how) => link.cut(how),
            Action::HealLink => link.heal(),
            Action::DelayReplication(delay) => replicator.delay(delay),
            Action::CutReplication => replicator.cut(),
            Action::HealReplication => replicator.heal(),
        }
        Ok(())
    }

    /// Repairs everything, whatever was done.
    pub(crate) async fn repair(&self) -> Result<()> {
        let normal = Action::DelayReplication(self.replication_delay);
        for action in [Action::HealLink, Action::HealReplication, normal, Action::Restore] {
            self.act(action).await?;
        }
        Ok(())
    }

    /// Fails if a part of a cloud has ended by itself.
    pub(crate) fn is_whole(&mut self) -> Result<()> {
        match self.regions.failure().now_or_never() {
            Some(reason) => bail!(reason.context("a local cloud broke")),
            None => Ok(()),
        }
    }

    /// Records that wait for another region, as far as the pollers have read them.
    pub(crate) fn waiting(&self) -> u64 {
        let pollers = self.regions.clouds().iter().filter_map(|cloud| cloud.poller()?.of(FORWARD_MAPPING));
        pollers.map(|poller| poller.stats().waiting).sum()
    }

    /// Requests between the regions that failed.
    pub(crate) fn cut_off(&self) -> u64 {
        self.regions.link().crossings().values().map(|crossing| crossing.cut_off).sum()
    }
}
