//! Parses the values of the command line.

use std::fmt;
use std::ops::RangeInclusive;
use std::str::FromStr;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use clap::ValueEnum;
use mufakat::client;
use mufakat::ids::NodeId;
use mufakat::protocol::TIMEOUT_MS_MAX;
use mufakat::protocol::lock::WAIT_MS_MAX;

/// Maximum length of a run; the bound keeps instants from overflowing.
const DURATION_MAX: Duration = Duration::from_secs(30 * 24 * 3600);
/// The protocol's bound for values, which must fit into one message of the broker.
const VALUE_BYTES_MAX: usize = 900 * 1000;
/// With a larger exponent nearly all requests use the first key.
const EXPONENT_MAX: f64 = 10.0;
/// With a higher rate the load generator does nothing but count what it drops.
const RATE_MAX: f64 = 1e6;
/// Leases outlast holds, and are at most a day.
const HOLD_MAX: Duration = Duration::from_secs(3600);

/// The name of an encoding on the command line.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum EncodingName {
    #[default]
    Json,
    Msgpack,
}

impl EncodingName {
    pub fn name(self) -> &'static str {
        match self {
            Self::Json => "json",
            Self::Msgpack => "msgpack",
        }
    }
}

/// The node to ask, on the command line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Target {
    /// The same for all clients.
    One(client::Target),
    /// A node for each client.
    Spread,
}

impl FromStr for Target {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> Result<Self> {
        Ok(Self::One(match text {
            "spread" => return Ok(Self::Spread),
            "any" => client::Target::Any,
            "leader" => client::Target::Leader,
            _ => match text.strip_prefix("node=") {
                Some(id) => {
                    client::Target::Node(NodeId(id.parse().context("a node id is a number")?))
                }
                None => bail!("expected any, leader, node=ID or spread"),
            },
        }))
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::One(client::Target::Any) => f.write_str("any"),
            Self::One(client::Target::Leader) => f.write_str("leader"),
            Self::One(client::Target::Node(node)) => write!(f, "node={node}"),
            Self::Spread => f.write_str("spread"),
        }
    }
}

pub fn duration(text: &str) -> Result<Duration> {
    let length = humantime::parse_duration(text)?;
    if length > DURATION_MAX {
        bail!("must be at most 30 days")
    } else {
        Ok(length)
    }
}

/// A duration that is short enough to occur often in a run.
pub fn gap(text: &str) -> Result<Duration> {
    let length = humantime::parse_duration(text)?;
    if (Duration::from_millis(10)..=HOLD_MAX).contains(&length) {
        Ok(length)
    } else {
        bail!("must be between 10ms and 1h")
    }
}

pub fn timeout(text: &str) -> Result<Duration> {
    let length = humantime::parse_duration(text)?;
    let range = Duration::from_millis(1)..=Duration::from_millis(TIMEOUT_MS_MAX);
    if range.contains(&length) {
        Ok(length)
    } else {
        bail!("must be between 1ms and {TIMEOUT_MS_MAX}ms")
    }
}

pub fn hold(text: &str) -> Result<Duration> {
    let length = humantime::parse_duration(text)?;
    if length > HOLD_MAX {
        bail!("must be at most 1h")
    } else {
        Ok(length)
    }
}

pub fn wait(text: &str) -> Result<Duration> {
    let length = humantime::parse_duration(text)?;
    if length > Duration::from_millis(WAIT_MS_MAX) {
        bail!("must be at most {WAIT_MS_MAX}ms")
    } else {
        Ok(length)
    }
}

/// A name that can be part of a subject.
pub fn group(text: &str) -> Result<String> {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_".contains(&byte);
    if !text.is_empty() && text.bytes().all(plain) {
        Ok(text.to_owned())
    } else {
        bail!("must be letters, digits, `-` and `_`")
    }
}

pub fn positive_rate(text: &str) -> Result<f64> {
    let rate: f64 = text.parse()?;
    // A lower rate is a mistake, and would overflow the schedule.
    if (1.0 / 86_400.0..=RATE_MAX).contains(&rate) {
        Ok(rate)
    } else {
        bail!("must be a rate of at least 1 per day and at most {RATE_MAX} per second")
    }
}

pub fn share(text: &str) -> Result<f64> {
    let share: f64 = text.parse()?;
    if (0.0..=1.0).contains(&share) {
        Ok(share)
    } else {
        bail!("must be between 0 and 1")
    }
}

/// `5` or `5%`.
pub fn percent(text: &str) -> Result<f64> {
    let percent: f64 = text.strip_suffix('%').unwrap_or(text).trim().parse()?;
    if percent.is_finite() && percent >= 0.0 {
        Ok(percent)
    } else {
        bail!("must be 0 or more")
    }
}

pub fn exponent(text: &str) -> Result<f64> {
    let exponent: f64 = text.parse()?;
    if exponent > 0.0 && exponent <= EXPONENT_MAX {
        Ok(exponent)
    } else {
        bail!("must be above 0 and at most {EXPONENT_MAX}")
    }
}

/// `100`, or `100-4096`.
pub fn sizes(text: &str) -> Result<RangeInclusive<usize>> {
    let (low, high) = text.split_once('-').unwrap_or((text, text));
    let (low, high) = (low.parse()?, high.parse()?);
    if low <= high && high <= VALUE_BYTES_MAX {
        Ok(low..=high)
    } else {
        bail!("must be a number, or a range of numbers, from 0 to {VALUE_BYTES_MAX}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn targets_are_read_and_written_alike() {
        for text in ["any", "leader", "node=2", "spread"] {
            assert_eq!(text.parse::<Target>().unwrap().to_string(), text);
        }
        assert!("node=x".parse::<Target>().is_err());
        assert!("follower".parse::<Target>().is_err());
    }

    #[test]
    fn rates_are_above_zero_and_bounded() {
        assert_eq!(positive_rate("0.5").unwrap(), 0.5);
        for wrong in ["0", "-1", "inf", "NaN", "1e-300", "1e10", "x"] {
            assert!(positive_rate(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn groups_are_parts_of_subjects() {
        assert_eq!(group("team-1").unwrap(), "team-1");
        for wrong in ["", "a.b", "*", ">", "a b"] {
            assert!(group(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn sizes_are_a_number_or_a_range() {
        assert_eq!(sizes("100").unwrap(), 100..=100);
        assert_eq!(sizes("0-4096").unwrap(), 0..=4096);
        for wrong in ["", "9-1", "-1", "1-", "1-900001", "x"] {
            assert!(sizes(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn shares_are_from_0_to_1() {
        assert_eq!(share("0.95").unwrap(), 0.95);
        for wrong in ["-0.1", "1.1", "NaN", "x"] {
            assert!(share(wrong).is_err(), "{wrong}");
        }
        assert_eq!(percent("5%").unwrap(), percent("5").unwrap());
        for wrong in ["-1%", "%", "NaN"] {
            assert!(percent(wrong).is_err(), "{wrong}");
        }
        for wrong in ["0", "-1", "11", "NaN"] {
            assert!(exponent(wrong).is_err(), "{wrong}");
        }
    }
}
