//! Several regions side by side on one machine. Each is a whole local cloud, from the same template
//! with the same stack name. A [`Link`] connects them, and a [`Replicator`] replicates their views.

use super::cloud::{LocalCloud, LocalOptions, Prepared};
use super::link::Link;
use super::progress::Progress;
use super::replicate::Replicator;
use super::tools::hex;
use anyhow::{Context as _, Result};
use futures::future::{join_all, select_all, try_join_all};
use operate::Endpoints;
use operate::run::RunFolder;

/// The running local clouds of one deployment, one per region. The first is *the* cloud, and the
/// others are its peers. With one region it is just that [`LocalCloud`]. All end when this is
/// dropped or our process ends, even by SIGKILL.
#[derive(Debug)]
pub struct LocalRegions {
    // In drop order.
    replicator: Replicator,
    clouds: Vec<LocalCloud>,
    link: Link,
    endpoints: Endpoints,
}

impl LocalRegions {
    /// Starts one cloud per region of the options. The first is in the folder of the run, the
    /// others in folders inside it, so each has its own logs. All have the same secret.
    ///
    /// # Errors
    /// If any step fails, or another process runs a local cloud in the same folder. Parts that were
    /// already started are ended.
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
            // The first one reports the progress of all.
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
                let cloud = cloud.with_context(|| format!("starting the region {region}"))?;
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

    /// How to reach the first region and its peers.
    #[must_use]
    pub fn endpoints(&self) -> &Endpoints {
        &self.endpoints
    }

    /// The cloud of a region.
    ///
    /// # Errors
    /// If there is no such region.
    pub fn cloud(&self, region: &str) -> Result<&LocalCloud> {
        let cloud = self.clouds.iter().find(|cloud| cloud.endpoints().region == region);
        cloud.with_context(|| format!("there is no local cloud of the region {region}"))
    }

    /// The cloud of a region, to stop and start its parts.
    ///
    /// # Errors
    /// As [`LocalRegions::cloud`].
    pub fn cloud_mut(&mut self, region: &str) -> Result<&mut LocalCloud> {
        let cloud = self.clouds.iter_mut().find(|cloud| cloud.endpoints().region == region);
        cloud.with_context(|| format!("there is no local cloud of the region {region}"))
    }

    /// All clouds, in the order of the options.
    #[must_use]
    pub fn clouds(&self) -> &[LocalCloud] {
        &self.clouds
    }

    /// All clouds, to stop and start their parts.
    pub fn clouds_mut(&mut self) -> &mut [LocalCloud] {
        &mut self.clouds
    }

    /// The link between the regions' functions and the queues of other regions.
    #[must_use]
    pub fn link(&self) -> &Link {
        &self.link
    }

    /// The replicator of the views.
    #[must_use]
    pub fn replicator(&self) -> &Replicator {
        &self.replicator
    }

    /// Waits until a part of a cloud ends by itself, as [`LocalCloud::failure`] does.
    pub async fn failure(&mut self) -> anyhow::Error {
        let failures = self.clouds.iter_mut().map(|cloud| Box::pin(cloud.failure()));
        select_all(failures).await.0
    }

    /// Ends all clouds and waits until they are gone.
    ///
    /// # Errors
    /// As [`LocalCloud::stop`]: the first error.
    pub async fn stop(self) -> Result<()> {
        drop(self.replicator);
        // The first one last: when its folder shows that it is gone, all are gone.
        let mut clouds = self.clouds;
        let peers = clouds.split_off(1.min(clouds.len()));
        let stopped = join_all(peers.into_iter().map(LocalCloud::stop)).await;
        let first = join_all(clouds.into_iter().map(LocalCloud::stop)).await;
        stopped.into_iter().chain(first).collect()
    }
}
