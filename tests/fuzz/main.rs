//! The fuzz targets as ordinary tests: over the committed corpus, and over random inputs from a
//! fixed seed. `fuzz/run.sh` runs the same code under libFuzzer.

#[cfg(test)]
mod input;
#[cfg(test)]
mod last_event_id;
#[cfg(test)]
mod log;
#[cfg(test)]
mod origins;
#[cfg(test)]
mod reader;
#[cfg(test)]
mod round_trip;

#[cfg(test)]
mod tests {
    use std::{fs, panic, path::Path};

    use super::{last_event_id, log, origins, round_trip};

    const RANDOM_INPUTS: u64 = 1000;

    /// SplitMix64: the same numbers on every machine.
    struct Random(u64);

    impl Random {
        fn next(&mut self) -> u64 {
            self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
            let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
            mixed ^ (mixed >> 31)
        }

        fn below(&mut self, bound: usize) -> usize {
            usize::try_from(self.next() % bound as u64).unwrap()
        }

        fn bytes(&mut self, most: usize) -> Vec<u8> {
            (0..self.below(most + 1))
                .map(|_| self.next().to_le_bytes()[0])
                .collect()
        }
    }

    fn run(body: fn(&[u8]), input: &[u8], what: &str) {
        let outcome = panic::catch_unwind(|| body(input));
        assert!(outcome.is_ok(), "{what}: {input:?}");
    }

    fn check(target: &str, body: fn(&[u8])) {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR"))
            .join("fuzz/corpus")
            .join(target);
        let mut corpus: Vec<_> = fs::read_dir(&folder)
            .unwrap()
            .map(|entry| entry.unwrap().path())
            .collect();
        corpus.sort();
        assert!(!corpus.is_empty(), "{folder:?}");
        let corpus: Vec<Vec<u8>> = corpus
            .iter()
            .map(|file| {
                let input = fs::read(file).unwrap();
                run(body, &input, &format!("{file:?}"));
                input
            })
            .collect();

        let mut random = Random(1);
        for _ in 0..RANDOM_INPUTS {
            let input = if random.below(2) == 0 {
                random.bytes(400)
            } else {
                let mut input = corpus[random.below(corpus.len())].clone();
                let at = random.below(input.len() + 1);
                let removed = random.below(4).min(input.len() - at);
                input.splice(at..at + removed, random.bytes(3));
                input
            };
            run(body, &input, "a random input");
        }
    }

    #[test]
    fn events_come_back_as_they_went_in() {
        check("round_trip", round_trip::body);
    }

    #[test]
    fn any_last_event_id_has_a_defined_outcome() {
        check("last_event_id", last_event_id::body);
    }

    #[test]
    fn no_origin_is_allowed_that_is_not_listed() {
        check("origins", origins::body);
    }

    #[test]
    fn every_transcript_is_whole_or_says_where_it_is_not() {
        check("log", log::body);
    }
}
