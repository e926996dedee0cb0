//! What a node connects to: NATS and Redis, as its configuration says.

use std::sync::Arc;

use anyhow::Result;

use crate::broker::connection::NatsBroker;
use crate::broker::options::NatsOptions;
use crate::config::{Asserted, Config};
use crate::protocol::status::Durability;
use crate::queue::address::RedisAddress;
use crate::stats::{Connection, Stats};

/// Whether a node could try to connect: that options fit together and that the files they name can be
/// read, as far as a node reads them before. Connects to nothing.
///
/// # Errors
/// What would end a node with this configuration at its start.
pub fn check(config: &Config, nats: &NatsOptions) -> Result<()> {
    nats_options(config, nats).resolve()?;
    if let Some(address) = redis_address(config) {
        address.check()?;
    }
    Ok(())
}

pub(super) async fn connect(
    nats: &NatsOptions,
    config: &Config,
    (stats, which): (&Arc<Stats>, Connection),
) -> Result<NatsBroker> {
    let label = Connection::LABELS[which as usize];
    let name = format!("{}-{}-{label}", config.prefix, config.id);
    NatsBroker::connect(&nats_options(config, nats), name, (stats.clone(), which)).await
}

/// Where the servers are is one of the node's settings; who it is there is not.
fn nats_options(config: &Config, nats: &NatsOptions) -> NatsOptions {
    NatsOptions {
        url: Some(config.nats.expose().to_owned()),
        ..nats.clone()
    }
}

pub(super) fn redis_address(config: &Config) -> Option<RedisAddress> {
    let url = config.redis.as_ref()?;
    let asserted = config.redis_durability_asserted.map(|level| match level {
        Asserted::Fsync => Durability::Fsync,
        Asserted::Os => Durability::Os,
        Asserted::Interval => Durability::Interval,
    });
    let address = RedisAddress::new(url.expose(), config.redis_tls.clone());
    Some(address.asserting(asserted).with_prefix(&config.prefix))
}
