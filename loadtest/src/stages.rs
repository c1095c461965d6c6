//! Counters and histograms of a deployment, from the metrics of all its processes.

use std::{collections::BTreeMap, time::Duration};

/// What an operation passes, in order: what it is called here, and the metric.
pub(crate) const STAGES: [(&str, &str); 6] = [
    ("to the queue", "chopmark_queue_append_seconds"),
    ("in the queue (Kafka)", "chopmark_queue_waited_seconds"),
    ("at the ledger", "chopmark_committer_ledger_seconds"),
    ("block to log", "chopmark_node_commit_seconds"),
    ("block to checkpoint", "chopmark_node_cosigned_seconds"),
    ("block to database", "chopmark_committer_projected_seconds"),
];

/// Samples by name, summed over labels and processes; of buckets, by their bound.
#[derive(Debug, Clone, Default)]
pub(crate) struct Samples {
    sums: BTreeMap<String, f64>,
    buckets: BTreeMap<String, BTreeMap<Bound, f64>>,
}

/// Upper bound of a bucket; the last is open.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Bound {
    Below(Duration),
    Open,
}

impl Bound {
    fn parse(text: &str) -> Option<Self> {
        if text == "+Inf" {
            return Some(Self::Open);
        }
        Some(Self::Below(Duration::try_from_secs_f64(text.parse().ok()?).ok()?))
    }
}

impl Samples {
    /// Adds what one process says, in Prometheus' text format.
    pub(crate) fn add(&mut self, text: &str) {
        for line in text.lines().filter(|line| !line.starts_with('#')) {
            let Some((series, value)) = line.rsplit_once(' ') else { continue };
            let Ok(value) = value.parse::<f64>() else { continue };
            let (name, labels) = series.split_once('{').unwrap_or((series, ""));
            match name.strip_suffix("_bucket").zip(bound(labels)) {
                Some((name, bound)) => {
                    *self.buckets.entry(name.to_owned()).or_default().entry(bound).or_default() += value;
                }
                None => *self.sums.entry(name.to_owned()).or_default() += value,
            }
        }
    }

    /// What came between two looks.
    pub(crate) fn since(&self, before: &Self) -> Self {
        let mut since = self.clone();
        for (name, value) in &mut since.sums {
            *value -= before.sums.get(name).copied().unwrap_or_default();
        }
        for (name, buckets) in &mut since.buckets {
            for (bound, value) in buckets {
                *value -= before.buckets.get(name).and_then(|known| known.get(bound)).copied().unwrap_or_default();
            }
        }
        since
    }

    /// Sum of a counter over all labels and processes.
    pub(crate) fn value(&self, name: &str) -> f64 {
        self.sums.get(name).copied().unwrap_or_default()
    }

    /// A quantile of a histogram in seconds, as Prometheus estimates it: evenly spread within its bucket.
    /// `None` where nothing was observed.
    pub(crate) fn quantile(&self, name: &str, quantile: f64) -> Option<f64> {
        let buckets = self.buckets.get(name)?;
        let all = *buckets.get(&Bound::Open).filter(|all| **all > 0.0)?;
        let rank = quantile * all;
        let (mut below, mut from) = (0.0, 0.0);
        for (bound, count) in buckets {
            let Bound::Below(to) = bound else { break };
            let to = to.as_secs_f64();
            if *count >= rank && *count > below {
                return Some(from + (to - from) * (rank - below) / (count - below));
            }
            (below, from) = (*count, to);
        }
        // Above the last bound; nothing more is known.
        Some(from)
    }
}

fn bound(labels: &str) -> Option<Bound> {
    let rest = labels.split("le=\"").nth(1)?;
    Bound::parse(rest.split('"').next()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "# TYPE a histogram\n\
        a_bucket{network=\"sandbox\",le=\"0.1\"} 50\na_bucket{network=\"sandbox\",le=\"0.2\"} 90\n\
        a_bucket{network=\"sandbox\",le=\"+Inf\"} 100\na_sum{network=\"sandbox\"} 9\na_count{network=\"sandbox\"} 100\n\
        b_total 3\nb_total{x=\"y z\"} 4\n";

    #[test]
    fn samples_are_summed_and_taken_from_each_other() {
        let mut before = Samples::default();
        before.add(TEXT);
        let mut now = before.clone();
        now.add(TEXT);
        assert_eq!((now.value("b_total"), now.value("a_count"), now.value("none")), (14.0, 200.0, 0.0));
        assert_eq!(now.since(&before).value("b_total"), 7.0);
        assert_eq!(now.since(&now).quantile("a", 0.5), None);
    }

    #[test]
    fn quantiles_lie_within_their_bucket() {
        let mut samples = Samples::default();
        samples.add(TEXT);
        let close = |quantile, expected: f64| (samples.quantile("a", quantile).unwrap() - expected).abs() < 1e-9;
        assert!(close(0.5, 0.1) && close(0.25, 0.05) && close(0.7, 0.15), "{samples:?}");
        assert!(close(0.99, 0.2), "above the last bound it is at least that");
        assert_eq!(samples.quantile("b", 0.5), None);
    }
}
