//! One measure: samples, their percentiles, the peer's, the goal.

use std::fmt::Write;
use std::time::Duration;

use serde_json::json;

/// A measure with its peer.
pub struct Record {
    suite: &'static str,
    name: &'static str,
    unit: &'static str,
    goal: &'static str,
    samples: Vec<f64>,
    peer: Option<(&'static str, Vec<f64>)>,
}

impl Record {
    /// A measure in milliseconds.
    pub fn new(suite: &'static str, name: &'static str, goal: &'static str, samples: &[Duration]) -> Self {
        Self { suite, name, unit: "ms", goal, samples: sorted(milliseconds(samples)), peer: None }
    }

    /// A measure in another unit.
    pub fn values(
        suite: &'static str,
        name: &'static str,
        unit: &'static str,
        goal: &'static str,
        samples: Vec<f64>,
    ) -> Self {
        Self { suite, name, unit, goal, samples: sorted(samples), peer: None }
    }

    /// A measure in megabytes a second, of transfers of `bytes`.
    pub fn rates(
        suite: &'static str,
        name: &'static str,
        goal: &'static str,
        bytes: usize,
        samples: &[Duration],
    ) -> Self {
        Self { suite, name, unit: "MB/s", goal, samples: sorted(rates(bytes, samples)), peer: None }
    }

    /// The same measure beside a peer.
    pub fn beside(mut self, peer: &'static str, samples: &[Duration]) -> Self {
        self.peer = Some((peer, sorted(milliseconds(samples))));
        self
    }

    /// The same rate beside that of a peer.
    pub fn beside_rates(mut self, peer: &'static str, bytes: usize, samples: &[Duration]) -> Self {
        self.peer = Some((peer, sorted(rates(bytes, samples))));
        self
    }

    fn peer_p50(&self) -> Option<f64> {
        self.peer.as_ref().map(|(_, samples)| percentile(samples, 50.0))
    }

    fn ratio(&self) -> Option<f64> {
        self.peer_p50().map(|peer| percentile(&self.samples, 50.0) / peer)
    }

    /// The record as one line of JSON.
    pub fn json(&self) -> String {
        let round = |value: f64| (value * 1000.0).round() / 1000.0;
        json!({
            "suite": self.suite,
            "name": self.name,
            "unit": self.unit,
            "n": self.samples.len(),
            "p50": round(percentile(&self.samples, 50.0)),
            "p95": round(percentile(&self.samples, 95.0)),
            "p99": round(percentile(&self.samples, 99.0)),
            "peer": self.peer.as_ref().map(|(name, _)| *name),
            "peer_p50": self.peer_p50().map(round),
            "ratio": self.ratio().map(round),
        })
        .to_string()
    }
}

fn milliseconds(samples: &[Duration]) -> Vec<f64> {
    samples.iter().map(|sample| sample.as_secs_f64() * 1000.0).collect()
}

fn rates(bytes: usize, samples: &[Duration]) -> Vec<f64> {
    samples.iter().map(|sample| bytes as f64 / 1e6 / sample.as_secs_f64()).collect()
}

fn sorted(mut sorted: Vec<f64>) -> Vec<f64> {
    sorted.sort_by(f64::total_cmp);
    sorted
}

/// The nearest-rank percentile of sorted samples; NaN of none.
fn percentile(sorted: &[f64], percent: f64) -> f64 {
    let rank = (percent / 100.0 * sorted.len() as f64).ceil().max(1.0) as usize;
    sorted.get(rank - 1).copied().unwrap_or(f64::NAN)
}

/// All records for people.
pub fn table(records: &[Record]) -> String {
    let mut text = format!(
        "{:<44} {:<5} {:>5} {:>9} {:>9} {:>9}  {:<22} {:>9} {:>6}  {}\n",
        "measure", "unit", "n", "p50", "p95", "p99", "peer", "peer p50", "ratio", "goal"
    );
    for record in records {
        let (peer, peer_p50, ratio) = match (&record.peer, record.peer_p50(), record.ratio()) {
            (Some((name, _)), Some(p50), Some(ratio)) => (*name, format!("{p50:.2}"), format!("{ratio:.2}")),
            _ => ("", String::new(), String::new()),
        };
        let [p50, p95, p99] = [50.0, 95.0, 99.0].map(|percent| percentile(&record.samples, percent));
        let name = format!("{}.{}", record.suite, record.name);
        let (unit, n) = (record.unit, record.samples.len());
        let _ = writeln!(
            text,
            "{name:<44} {unit:<5} {n:>5} {p50:>9.2} {p95:>9.2} {p99:>9.2}  {peer:<22} {peer_p50:>9} {ratio:>6}  {}",
            record.goal
        );
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_by_nearest_rank() {
        let samples: Vec<f64> = (1..=100).map(f64::from).collect();
        assert_eq!([50.0, 95.0, 99.0].map(|percent| percentile(&samples, percent)), [50.0, 95.0, 99.0]);
        assert!(percentile(&[], 50.0).is_nan());
    }
}
