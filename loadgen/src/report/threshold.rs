//! What a run has to reach: `lock.acquire.p99<20ms`, `cache.get.rate>5000`, `queue.push.errors<0.1%`.

use std::fmt;
use std::str::FromStr;

use anyhow::{Context, Result, bail};

use super::figures::{Figures, Percentiles, Run};

/// One bound on one figure of one operation.
#[derive(Clone, Debug)]
pub struct Threshold {
    text: String,
    operation: String,
    metric: Metric,
    relation: Relation,
    /// In the metric's unit.
    limit: f64,
}

#[derive(Clone, Copy, Debug)]
enum Metric {
    /// Milliseconds.
    Latency(fn(&Percentiles) -> f64),
    /// Successes per second.
    Rate,
    /// Successes.
    Count,
    Errors,
    /// Of all requests, in percent.
    ErrorShare,
    /// Errors that may have taken effect.
    Unknown,
    /// Arrivals of an open loop that were dropped.
    Dropped,
    /// Of all arrivals, in percent.
    DroppedShare,
}

#[derive(Clone, Copy, Debug)]
enum Relation {
    Below,
    AtMost,
    Above,
    AtLeast,
}

/// The operation in whose place the arrivals of an open loop are named.
const ARRIVALS: &str = "arrivals";

/// How a threshold was met.
#[derive(Clone, Debug, PartialEq)]
pub struct Judgement {
    pub threshold: String,
    /// In words, such as `queue pushes: 12.5 ms`.
    pub found: String,
    pub holds: bool,
}

impl FromStr for Threshold {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> Result<Self> {
        let relations = [
            ("<=", Relation::AtMost),
            (">=", Relation::AtLeast),
            ("<", Relation::Below),
            (">", Relation::Above),
        ];
        let split = relations
            .into_iter()
            .find_map(|(sign, relation)| Some((text.split_once(sign)?, relation)));
        let ((figure, limit), relation) =
            split.context("not OPERATION.METRIC followed by <, <=, > or >= and a limit")?;
        let (figure, limit) = (figure.trim(), limit.trim());
        // The one metric with a dot in its name.
        let split = figure
            .strip_suffix(".p99.9")
            .map(|operation| (operation, "p999"));
        let (operation, metric) = split
            .or_else(|| figure.rsplit_once('.'))
            .context("an operation and a metric, as in lock.acquire.p99")?;
        let (metric, limit) = limited(operation, metric, limit)?;
        Ok(Self {
            text: text.to_owned(),
            operation: operation.to_owned(),
            metric,
            relation,
            limit,
        })
    }
}

/// The metric by its name, and the limit in its unit.
fn limited(operation: &str, metric: &str, limit: &str) -> Result<(Metric, f64)> {
    if operation == ARRIVALS {
        return match (metric, limit.strip_suffix('%')) {
            ("dropped", Some(share)) => Ok((Metric::DroppedShare, number(share)?)),
            ("dropped", None) => Ok((Metric::Dropped, number(limit)?)),
            _ => bail!("of arrivals there is `dropped` alone"),
        };
    }
    let latency: fn(&Percentiles) -> f64 = match metric {
        "rate" => {
            return Ok((
                Metric::Rate,
                number(limit.strip_suffix("/s").unwrap_or(limit))?,
            ));
        }
        "count" => return Ok((Metric::Count, number(limit)?)),
        "unknown" => return Ok((Metric::Unknown, number(limit)?)),
        "errors" => {
            return match limit.strip_suffix('%') {
                Some(share) => Ok((Metric::ErrorShare, number(share)?)),
                None => Ok((Metric::Errors, number(limit)?)),
            };
        }
        "mean" => |latency| latency.mean_ms,
        "p50" => |latency| latency.p50_ms,
        "p90" => |latency| latency.p90_ms,
        "p95" => |latency| latency.p95_ms,
        "p99" => |latency| latency.p99_ms,
        "p999" => |latency| latency.p999_ms,
        "max" => |latency| latency.max_ms,
        _ => bail!(
            "`{metric}` is not one of mean, p50, p90, p95, p99, p99.9, max, rate, count, errors, unknown"
        ),
    };
    Ok((Metric::Latency(latency), milliseconds(limit)?))
}

fn number(text: &str) -> Result<f64> {
    let number: f64 = text
        .trim()
        .parse()
        .with_context(|| format!("`{text}` is no number"))?;
    if number.is_finite() && number >= 0.0 {
        Ok(number)
    } else {
        bail!("`{text}` is not 0 or more")
    }
}

/// A length such as `20ms`, `1.5s` or `800us`.
fn milliseconds(text: &str) -> Result<f64> {
    for (unit, ms) in [("us", 0.001), ("µs", 0.001), ("ms", 1.0), ("s", 1000.0)] {
        if let Some(length) = text.strip_suffix(unit) {
            return Ok(number(length)? * ms);
        }
    }
    bail!("`{text}` has no unit: us, ms or s")
}

impl Threshold {
    /// Whether it is about errors, so that errors alone do not fail the run.
    pub fn is_about_errors(&self) -> bool {
        matches!(self.metric, Metric::Errors | Metric::ErrorShare)
    }

    /// Judges every run that has the operation. What was not measured does not hold.
    pub fn judge(&self, runs: &[Run]) -> Vec<Judgement> {
        let found = runs.iter().filter_map(|run| {
            let measured = self.measured(run)?;
            Some(self.judgement(format!("{}: {}", run.workload, measured.0), measured.1))
        });
        let found: Vec<_> = found.collect();
        match found.is_empty() {
            true => vec![self.judgement(format!("no run has `{}`", self.operation), None)],
            false => found,
        }
    }

    fn judgement(&self, found: String, value: Option<f64>) -> Judgement {
        let holds = value.is_some_and(|value| match self.relation {
            Relation::Below => value < self.limit,
            Relation::AtMost => value <= self.limit,
            Relation::Above => value > self.limit,
            Relation::AtLeast => value >= self.limit,
        });
        Judgement {
            threshold: self.text.clone(),
            found,
            holds,
        }
    }

    /// The figure in words and as a number; `None` where the run has no such operation, no number where it was not
    /// measured.
    fn measured(&self, run: &Run) -> Option<(String, Option<f64>)> {
        if self.operation == ARRIVALS {
            let sends = run.sends?;
            let dropped = sends.dropped as f64;
            return Some(match self.metric {
                Metric::DroppedShare => share(dropped, (sends.sent + sends.dropped) as f64),
                _ => (format!("{dropped}"), Some(dropped)),
            });
        }
        let figures = run.figures(&self.operation)?;
        let Figures { count, errors, .. } = *figures;
        let whole = |number: u64| (number.to_string(), Some(number as f64));
        Some(match self.metric {
            Metric::Latency(_) if count == 0 => ("no success".to_owned(), None),
            Metric::Latency(latency) => {
                let ms = latency(&figures.latency);
                (format!("{ms:.2} ms"), Some(ms))
            }
            Metric::Rate => (format!("{:.1}/s", figures.rate), Some(figures.rate)),
            Metric::Count => whole(count),
            Metric::Errors => whole(errors),
            Metric::Unknown => whole(figures.unknown),
            Metric::ErrorShare => share(errors as f64, (count + errors) as f64),
            Metric::Dropped | Metric::DroppedShare => return None,
        })
    }
}

fn share(part: f64, whole: f64) -> (String, Option<f64>) {
    if whole == 0.0 {
        return ("nothing was sent".to_owned(), None);
    }
    let percent = 100.0 * part / whole;
    (format!("{percent:.3} %"), Some(percent))
}

impl fmt::Display for Judgement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let word = if self.holds { "holds" } else { "fails" };
        write!(f, "Threshold {word}: {} ({})", self.threshold, self.found)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::schedule::Sends;

    fn run() -> Run {
        let figures = Figures {
            operation: "lock.acquire".to_owned(),
            count: 999,
            errors: 1,
            unknown: 1,
            rate: 99.9,
            latency: Percentiles {
                p50_ms: 2.0,
                p99_ms: 19.5,
                p999_ms: 30.0,
                ..Percentiles::default()
            },
            ..Figures::default()
        };
        let idle = Figures {
            operation: "status".to_owned(),
            ..Figures::default()
        };
        Run {
            workload: "locks".to_owned(),
            operations: vec![figures, idle],
            sends: Some(Sends {
                sent: 990,
                late: 5,
                dropped: 10,
            }),
            ..Run::default()
        }
    }

    #[test]
    fn thresholds_are_judged() {
        for (text, holds) in [
            ("lock.acquire.p99<20ms", true),
            ("lock.acquire.p99 < 0.0195s", false),
            ("lock.acquire.p99<=19500us", true),
            ("lock.acquire.p99.9<30ms", false),
            ("lock.acquire.p999>29ms", true),
            ("lock.acquire.rate>=99.9/s", true),
            ("lock.acquire.count>999", false),
            ("lock.acquire.errors<=1", true),
            ("lock.acquire.errors<0.1%", false),
            ("lock.acquire.errors<=0.1%", true),
            ("lock.acquire.unknown<1", false),
            ("arrivals.dropped<=1%", true),
            ("arrivals.dropped<10", false),
            ("status.p99<20ms", false),
            ("queue.push.p99<20ms", false),
        ] {
            let judged = text.parse::<Threshold>().unwrap().judge(&[run()]);
            assert_eq!(judged.len(), 1);
            assert_eq!(judged[0].holds, holds, "{}", judged[0]);
        }
    }

    #[test]
    fn what_is_no_threshold_says_why() {
        for (text, why) in [
            ("lock.acquire.p99", "followed by"),
            ("p99<20ms", "an operation and a metric"),
            ("lock.acquire.p42<20ms", "p42"),
            ("lock.acquire.p99<20", "unit"),
            ("lock.acquire.p99<x ms", "number"),
            ("lock.acquire.rate>-1", "0 or more"),
            ("arrivals.p99<1ms", "dropped"),
        ] {
            let error = text.parse::<Threshold>().unwrap_err();
            assert!(format!("{error:#}").contains(why), "{text}: {error:#}");
        }
    }
}
