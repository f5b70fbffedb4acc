//! Several regions side by side on one machine: a whole local cloud for each, from the same template under the same stack name, with the link
//! between them ([`Link`]) and the replication of their views ([`Replicator`]).

use super::cloud::{LocalCloud, LocalOptions, Prepared};
use super::link::Link;
use super::progress::Progress;
use super::replicate::Replicator;
use super::tools::hex;
use anyhow::{Context as _, Result};
use futures::future::{join_all, select_all, try_join_all};
use operate::Endpoints;
use operate::run::RunFolder;

/// Running local clouds of one deployment: one a region, the first of which is *the* cloud and the others its peers. With one region it is
/// that [`LocalCloud`] and nothing else. Dropping it ends all, as does the end of our process, however that comes.
#[derive(Debug)]
pub struct LocalRegions {
    // In the order in which they are dropped.
    replicator: Replicator,
    clouds: Vec<LocalCloud>,
    link: Link,
    endpoints: Endpoints,
}

impl LocalRegions {
    /// Starts a cloud for each of the options' regions: the first one in the folder of the run, the others in folders inside of it, so that
    /// each has its own logs. All have the same secret.
    ///
    /// # Errors
    /// If any of it fails, or another process runs a local cloud in the same folder. What was started is ended again.
    pub async fn start(options: LocalOptions, progress: &Progress) -> Result<Self> {
        let folder = RunFolder::take(&options.run_dir).await?;
        let prepared = Prepared::new(&options, progress).await?;
        let regions = match &options.regions[..] {
            [] => vec![options.region.clone()],
            several => several.to_vec(),
        };
        let link = Link::open(&regions).await?;
        let secret = hex(&rand::random::<[u8; 32]>());
        let (delay, silent) = (options.replication_delay, Progress::silent());
        let mut folder = Some(folder);
        let mut starting = Vec::with_capacity(regions.len());
        for region in &regions {
            let mut options = LocalOptions { region: region.clone(), ..options.clone() };
            options.parameters.entry("JwtSecret".to_owned()).or_insert_with(|| secret.clone());
            if regions.len() > 1 {
                options.sqs_endpoint = link.url(region).map(str::to_owned);
            }
            // The first one says what all are doing.
            let (folder, progress) = match folder.take() {
                Some(folder) => (folder, progress),
                None => {
                    options.run_dir = options.run_dir.join(region);
                    (RunFolder::take(&options.run_dir).await?, &silent)
                }
            };
            let (prepared, link) = (&prepared, &link);
            starting.push(async move {
                let cloud = LocalCloud::start_in(folder, options, prepared, progress).await;
                let cloud = cloud.with_context(|| format!("the region {region}"))?;
                link.lead_to(region, &cloud.endpoints().aws_endpoint);
                anyhow::Ok(cloud)
            });
        }
        let clouds = try_join_all(starting).await?;
        let table = |cloud: &LocalCloud| {
            let endpoints = cloud.endpoints();
            (endpoints.region.clone(), (endpoints.sdk_config(), endpoints.views_table.clone()))
        };
        let replicator = Replicator::start(clouds.iter().map(table).collect(), delay).await?;
        let (first, others) = clouds.split_first().context("no region")?;
        let peers: Vec<Endpoints> = others.iter().map(|cloud| cloud.endpoints().clone()).collect();
        for peer in others {
            peer.publish(Vec::new())?;
        }
        first.publish(peers.clone())?;
        let endpoints = Endpoints { peers, ..first.endpoints().clone() };
        Ok(Self { replicator, clouds, link, endpoints })
    }

    /// How to speak to the first region, and to its peers.
    #[must_use]
    pub fn endpoints(&self) -> &Endpoints {
        &self.endpoints
    }

    /// The cloud of a region.
    ///
    /// # Errors
    /// If it is none of these regions.
    pub fn cloud(&self, region: &str) -> Result<&LocalCloud> {
        let cloud = self.clouds.iter().find(|cloud| cloud.endpoints().region == region);
        cloud.with_context(|| format!("no local cloud is the region {region}"))
    }

    /// The cloud of a region, to stop and start what it is made of.
    ///
    /// # Errors
    /// As [`LocalRegions::cloud`].
    pub fn cloud_mut(&mut self, region: &str) -> Result<&mut LocalCloud> {
        let cloud = self.clouds.iter_mut().find(|cloud| cloud.endpoints().region == region);
        cloud.with_context(|| format!("no local cloud is the region {region}"))
    }

    /// All clouds, in the order of the options.
    #[must_use]
    pub fn clouds(&self) -> &[LocalCloud] {
        &self.clouds
    }

    /// What lies between the regions' functions and the queues of other regions.
    #[must_use]
    pub fn link(&self) -> &Link {
        &self.link
    }

    /// What copies the views between the regions.
    #[must_use]
    pub fn replicator(&self) -> &Replicator {
        &self.replicator
    }

    /// Waits until a part of a cloud ends by itself, as [`LocalCloud::failure`] does.
    pub async fn failure(&mut self) -> anyhow::Error {
        let failures = self.clouds.iter_mut().map(|cloud| Box::pin(cloud.failure()));
        select_all(failures).await.0
    }

    /// Ends all, and waits until they are gone.
    ///
    /// # Errors
    /// As [`LocalCloud::stop`], the first error.
    pub async fn stop(self) -> Result<()> {
        drop(self.replicator);
        // The first one last: whoever looks at its folder sees that all are gone.
        let mut clouds = self.clouds;
        let peers = clouds.split_off(1.min(clouds.len()));
        let stopped = join_all(peers.into_iter().map(LocalCloud::stop)).await;
        let first = join_all(clouds.into_iter().map(LocalCloud::stop)).await;
        stopped.into_iter().chain(first).collect()
    }
}
