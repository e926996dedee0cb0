//! What coordinator and workers tell each other, as MessagePack.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context, Result};
use async_nats::Client;
use bytes::Bytes;
use hdrhistogram::Histogram;
use hdrhistogram::serialization::{Deserializer, Serializer, V2DeflateSerializer};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::recorder::{Interval, Series};
use crate::run::Share;
use crate::schedule::Sends;

/// Time for the broker to take a message. While it is gone, the NATS client only waits for it to come back.
const SEND_MAX: Duration = Duration::from_secs(5);

/// What has to be alike on all machines: the same workloads, built from the same source.
pub fn version() -> String {
    let revision = option_env!("LOADGEN_GIT_REVISION").unwrap_or("no revision");
    format!("{} {revision}", env!("CARGO_PKG_VERSION"))
}

/// A worker asks for a place.
#[derive(Debug, Serialize, Deserialize)]
pub struct Join {
    /// The same when it asks again.
    pub id: String,
    pub version: String,
}

/// What it is answered.
#[derive(Debug, Serialize, Deserialize)]
pub enum Answer {
    Job(Job),
    Refused(String),
}

/// What a worker is to do.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Job {
    /// What the job's subjects begin with.
    pub subject: String,
    pub index: u32,
    pub of: u32,
    /// The command line, without the program.
    pub words: Vec<String>,
    /// What the resources of the run begin with, for all workers the same.
    pub name: String,
}

/// What a worker tells.
#[derive(Debug, Serialize, Deserialize)]
pub struct Told {
    pub worker: u32,
    pub what: What,
}

#[derive(Debug, Serialize, Deserialize)]
pub enum What {
    /// Its threads are connected for this run of the command, counted from 0.
    Ready(u32),
    /// What one of its threads recorded in a second.
    Interval(IntervalOnWire),
    /// All its threads have ended.
    Ended {
        share: ShareOnWire,
        /// Whether somebody stopped this worker.
        interrupted: bool,
    },
    /// It cannot go on.
    Failed(String),
}

#[derive(Debug, Serialize, Deserialize)]
pub struct IntervalOnWire {
    second: Option<u32>,
    series: Vec<SeriesOnWire>,
    warm_up_count: u64,
}

/// Histograms are in HdrHistogram's compressed V2 form.
#[derive(Debug, Serialize, Deserialize)]
struct SeriesOnWire {
    latency_us: Bytes,
    since_send_us: Bytes,
    errors: BTreeMap<String, u64>,
    refusals: BTreeMap<String, u64>,
    unknown: u64,
}

#[derive(Debug, Serialize, Deserialize)]
pub struct ShareOnWire {
    last_end: Option<Duration>,
    cpu: Option<Duration>,
    sends: Option<Sends>,
}

impl IntervalOnWire {
    pub fn new(interval: &Interval) -> Self {
        Self {
            second: interval.second,
            series: interval.series.iter().map(SeriesOnWire::new).collect(),
            warm_up_count: interval.warm_up_count,
        }
    }

    /// The interval of a workload with so many series.
    ///
    /// # Errors
    /// It is none.
    pub fn read(self, series: usize) -> Result<Interval> {
        let read: Result<Vec<_>> = self.series.into_iter().map(SeriesOnWire::read).collect();
        let read = read?;
        anyhow::ensure!(read.len() == series, "{} series, not {series}", read.len());
        Ok(Interval {
            second: self.second,
            series: read,
            warm_up_count: self.warm_up_count,
        })
    }
}

impl SeriesOnWire {
    fn new(series: &Series) -> Self {
        Self {
            latency_us: compressed(series.latency_us()),
            since_send_us: compressed(series.since_send_us()),
            errors: series.errors().clone(),
            refusals: series.refusals().clone(),
            unknown: series.unknown(),
        }
    }

    fn read(self) -> Result<Series> {
        let histogram = |bytes: Bytes| -> Result<Histogram<u64>> {
            let read = Deserializer::new().deserialize(&mut &bytes[..]);
            read.ok().context("a histogram that cannot be read")
        };
        let (latency_us, since_send_us) =
            (histogram(self.latency_us)?, histogram(self.since_send_us)?);
        let Self {
            errors,
            refusals,
            unknown,
            ..
        } = self;
        Ok(Series::of(
            &latency_us,
            &since_send_us,
            errors,
            refusals,
            unknown,
        )?)
    }
}

impl ShareOnWire {
    pub fn new(share: &Share) -> Self {
        let Share {
            last_end,
            cpu,
            sends,
        } = *share;
        Self {
            last_end,
            cpu,
            sends,
        }
    }

    pub fn read(self) -> Share {
        let Self {
            last_end,
            cpu,
            sends,
        } = self;
        Share {
            last_end,
            cpu,
            sends,
        }
    }
}

fn compressed(histogram: &Histogram<u64>) -> Bytes {
    let mut bytes = Vec::new();
    V2DeflateSerializer::new()
        .serialize(histogram, &mut bytes)
        .expect("a histogram can be written to memory");
    bytes.into()
}

pub fn write(message: &impl Serialize) -> Bytes {
    let bytes = rmp_serde::to_vec_named(message);
    bytes.expect("a message can be written to memory").into()
}

/// # Errors
/// It is another message, or one of another version.
pub fn read<T: DeserializeOwned>(bytes: &[u8]) -> Result<T> {
    rmp_serde::from_slice(bytes).context("a message of another program, or of another version")
}

/// Sends a message; when this returns, it is on its way to the broker.
///
/// # Errors
/// The broker is gone, or the connection to it was closed.
pub async fn send(nats: &Client, subject: String, message: Bytes) -> Result<()> {
    let send = async {
        nats.publish(subject, message).await?;
        nats.flush().await?;
        anyhow::Ok(())
    };
    let sent = tokio::time::timeout(SEND_MAX, send).await;
    sent.context("the broker does not take what is sent to it")?
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::recorder::Fault;

    fn interval() -> Interval {
        let mut series = Series::new();
        for n in 1..2000_u64 {
            series.succeeded(Duration::from_micros(n * n), Duration::from_micros(n));
        }
        series.failed(Fault {
            code: "no_leader",
            unknown: true,
        });
        series.refused("lock_held");
        Interval {
            second: Some(3),
            series: vec![series, Series::new()],
            warm_up_count: 7,
        }
    }

    #[test]
    fn an_interval_is_the_same_on_the_other_side() {
        let told = Told {
            worker: 1,
            what: What::Interval(IntervalOnWire::new(&interval())),
        };
        let bytes = write(&told);
        assert!(bytes.len() < 100_000, "{} bytes", bytes.len());
        let told: Told = read(&bytes).unwrap();
        let What::Interval(read) = told.what else {
            panic!("an interval");
        };
        let (read, sent) = (read.read(2).unwrap(), interval());
        assert_eq!((read.second, read.warm_up_count), (Some(3), 7));
        for (read, sent) in read.series.iter().zip(&sent.series) {
            assert_eq!(read.latency_us(), sent.latency_us());
            assert_eq!(read.since_send_us(), sent.since_send_us());
            assert_eq!(
                (read.errors(), read.refusals(), read.unknown()),
                (sent.errors(), sent.refusals(), sent.unknown())
            );
        }
    }

    #[test]
    fn what_is_no_interval_of_the_workload_is_refused() {
        assert!(IntervalOnWire::new(&interval()).read(3).is_err());
        let mut broken = IntervalOnWire::new(&interval());
        broken.series[0].latency_us = Bytes::from_static(b"histogram");
        assert!(broken.read(2).is_err());
        assert!(super::read::<Told>(b"told").is_err());
    }
}
