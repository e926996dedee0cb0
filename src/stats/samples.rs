//! Metrics as values, for those who read no text format.
//!
//! Read from the text that a node renders, so that both say the same. Limits: this reads what this very
//! program writes, not OpenMetrics at large (no exemplars, no timestamps).

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// One metric with its samples.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Family {
    pub name: String,
    /// `counter`, `gauge`, `histogram` or `info`.
    pub r#type: String,
    /// `seconds`, `bytes`, or empty.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub unit: String,
    pub help: String,
    /// None while there is nothing to show.
    pub samples: Vec<Sample>,
}

/// One number.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Sample {
    /// The name of the metric with what its type adds: `_total`, `_bucket`, `_sum`, `_count`, `_info`.
    pub name: String,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
    pub value: Value,
}

/// Counts stay integers.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Value {
    Integer(u64),
    Fraction(f64),
}

/// The metrics of a text, in its order; none if it is no such text.
pub fn read(text: &str) -> Option<Vec<Family>> {
    let mut families: Vec<Family> = Vec::new();
    for line in text.lines() {
        let Some(comment) = line.strip_prefix("# ") else {
            families.last_mut()?.samples.push(sample(line)?);
            continue;
        };
        let mut words = comment.splitn(3, ' ');
        let what = words.next()?;
        let (name, said) = (words.next(), words.next());
        match what {
            "EOF" => return Some(families),
            "HELP" => families.push(Family {
                name: name?.to_owned(),
                help: said?.trim_end_matches('.').to_owned(),
                ..Family::default()
            }),
            "TYPE" => families.last_mut()?.r#type = said?.to_owned(),
            "UNIT" => families.last_mut()?.unit = said?.to_owned(),
            _ => return None,
        }
    }
    None
}

fn sample(line: &str) -> Option<Sample> {
    let (series, value) = line.rsplit_once(' ')?;
    let value = match value.parse() {
        Ok(integer) => Value::Integer(integer),
        Err(_) => Value::Fraction(value.parse().ok()?),
    };
    let (name, labels) = match series.split_once('{') {
        Some((name, labels)) => (name, labels_of(labels.strip_suffix('}')?)?),
        None => (series, BTreeMap::new()),
    };
    Some(Sample {
        name: name.to_owned(),
        labels,
        value,
    })
}

/// Labels, with what is escaped in their values as it was.
fn labels_of(mut rest: &str) -> Option<BTreeMap<String, String>> {
    let mut labels = BTreeMap::new();
    while !rest.is_empty() {
        let (name, after) = rest.split_once("=\"")?;
        let mut value = String::new();
        let mut letters = after.char_indices();
        let end = loop {
            match letters.next()? {
                (at, '"') => break at,
                (_, '\\') => value.push(match letters.next()?.1 {
                    'n' => '\n',
                    other => other,
                }),
                (_, other) => value.push(other),
            }
        };
        labels.insert(name.to_owned(), value);
        rest = after[end + 1..].trim_start_matches(',');
    }
    Some(labels)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::stats::Stats;

    #[test]
    fn a_nodes_text_is_read_whole() {
        let stats = Stats::new(&["lock_acquire"], &["lock_held"]);
        let (operations, odd) = (&stats.operations, "a\\b\"c,d={e}");
        operations.record(0, Duration::from_micros(1_500), Some(0));
        stats.queue.topic(odd).pushed.inc_by(3);
        let text = stats.encode_text();
        let families = read(&text).expect("it is such a text");
        let samples = families.iter().map(|family| family.samples.len());
        let lines = text.lines().filter(|line| !line.starts_with('#'));
        assert_eq!(samples.sum::<usize>(), lines.count());
        let find = |name: &str, label: (&str, &str)| {
            let all = families.iter().flat_map(|family| &family.samples);
            let is_it =
                |s: &&Sample| s.name == name && s.labels.get(label.0) == Some(&label.1.into());
            all.into_iter().find(is_it).map(|sample| sample.value)
        };
        let pushed = find("mufakat_queue_pushed_total", ("topic", odd));
        assert_eq!(pushed, Some(Value::Integer(3)));
        let took = ("operation", "lock_acquire");
        let sum = find("mufakat_request_duration_seconds_sum", took);
        assert_eq!(sum, Some(Value::Fraction(0.0015)));
        let below = find("mufakat_request_duration_seconds_bucket", ("le", "+Inf"));
        assert_eq!(below, Some(Value::Integer(1)));
        let rss = families
            .iter()
            .find(|f| f.name == "process_resident_memory_bytes");
        let rss = rss.expect("it is there");
        assert_eq!((&*rss.r#type, &*rss.unit), ("gauge", "bytes"));
    }

    #[test]
    fn what_is_cut_off_is_not_read() {
        let text = Stats::new(&["a"], &["b"]).encode_text();
        assert_eq!(read(text.strip_suffix("# EOF\n").expect("it ends")), None);
        assert_eq!(read(""), None);
        assert_eq!(read("x 1\n# EOF\n"), None);
    }
}
