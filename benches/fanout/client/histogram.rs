//! [`Histogram`]: times in nanoseconds, to within one part in 64.

const STEPS: u32 = 64;

#[derive(Debug)]
pub(crate) struct Histogram {
    counts: Vec<u64>,
    total: u64,
}

impl Default for Histogram {
    fn default() -> Self {
        Self {
            counts: vec![0; (u64::BITS * STEPS) as usize],
            total: 0,
        }
    }
}

impl Histogram {
    pub(crate) fn record(&mut self, value: u64) {
        self.counts[bucket(value)] += 1;
        self.total += 1;
    }

    /// The value below which so large a part of all lies.
    pub(crate) fn quantile(&self, part: f64) -> f64 {
        let mut left = (self.total as f64 * part).ceil();
        for (bucket, count) in self.counts.iter().enumerate() {
            left -= *count as f64;
            if left <= 0.0 {
                return floor(bucket) as f64;
            }
        }
        f64::NAN
    }

    pub(crate) fn clear(&mut self) {
        self.counts.fill(0);
        self.total = 0;
    }
}

/// Exact up to [`STEPS`], and from there on so many steps to each doubling.
fn bucket(value: u64) -> usize {
    let doublings = (value | 1).ilog2().saturating_sub(STEPS.ilog2());
    (u64::from(doublings * STEPS) + (value >> doublings)) as usize
}

fn floor(bucket: usize) -> u64 {
    let doublings = (bucket as u64 / u64::from(STEPS)).saturating_sub(1);
    (bucket as u64 - doublings * u64::from(STEPS)) << doublings
}
