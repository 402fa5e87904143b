//! The log against a naive model: a list of everything ever appended.

use super::*;
use proptest::prelude::*;

#[derive(Clone, Debug)]
enum Op {
    Append {
        size: usize,
    },
    Hole,
    Pass(u64),
    KeepFrom {
        back: usize,
    },
    /// A reader reads up to the id that is `back` before the newest.
    Read {
        reader: usize,
        back: u64,
    },
    Seek {
        reader: usize,
        back: u64,
    },
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        12 => prop_oneof![8 => 1usize..400, 3 => 400usize..6000, 1 => 60_000usize..70_000]
            .prop_map(|size| Op::Append { size }),
        1 => Just(Op::Hole),
        2 => (0u64..50).prop_map(Op::Pass),
        2 => (0..30usize).prop_map(|back| Op::KeepFrom { back }),
        6 => (0usize..3, prop_oneof![4 => Just(0), 1 => 0u64..20])
            .prop_map(|(reader, back)| Op::Read { reader, back }),
        2 => (0usize..3, 0u64..60).prop_map(|(reader, back)| Op::Seek { reader, back }),
    ]
}

#[derive(Clone, Debug)]
struct Entry {
    id: u64,
    bytes: Vec<u8>,
    at: u64,
}

impl Entry {
    fn is_hole(&self) -> bool {
        self.bytes.is_empty()
    }
}

/// The laws in their simplest form.
struct Model {
    limits: Limits,
    all: Vec<Entry>,
    now: u64,
    /// Index of the oldest entry that a seek can reach.
    replay: usize,
    first: usize,
    live: usize,
}

impl Model {
    fn meets_limits(&self, from: usize, with_readers: bool) -> bool {
        let run = &self.all[from..];
        let bytes: usize = run.iter().map(|entry| entry.bytes.len()).sum();
        let young = |entry: &Entry| self.limits.age.is_none_or(|age| self.now - entry.at <= age);
        bytes <= self.limits.bytes
            && (with_readers || (run.len() <= self.limits.events && run.iter().all(young)))
    }

    fn trim(&mut self) {
        let end = self.all.len();
        // Neither ever moves back: time only passes, and entries are only added.
        self.replay = (self.replay..=end)
            .find(|from| self.meets_limits(*from, false))
            .unwrap();
        let kept = self.replay.min(self.live).max(self.first);
        self.first = (kept..=end)
            .find(|from| self.meets_limits(*from, true))
            .unwrap();
    }

    /// The index of the first entry after the event `id`, holes included.
    fn after(&self, id: u64) -> usize {
        self.all
            .iter()
            .position(|entry| entry.id > id || (entry.id == id && entry.is_hole()))
            .unwrap_or(self.all.len())
    }
}

fn id(sequence: u64) -> EventId {
    EventId::new(7, sequence)
}

fn payload(sequence: u64, size: usize) -> Vec<u8> {
    let mark = u8::try_from(sequence % 251).unwrap();
    (0..size)
        .map(|at| mark ^ u8::try_from(at % 7).unwrap())
        .collect()
}

fn run(limits: Limits, ops: Vec<Op>, every_id: bool) {
    let mut log = Log::new(limits, id(0));
    let mut model = Model {
        limits,
        all: Vec::new(),
        now: 0,
        replay: 0,
        first: 0,
        live: 0,
    };
    let mut newest = 0;
    let mut readers = [0u64; 3];
    for op in ops {
        match op {
            Op::Append { size } => {
                if !log.fits(size) {
                    assert!(size > limits.bytes);
                    continue;
                }
                // Ids have holes, because other logs share the clock.
                newest += 1 + newest % 3;
                let bytes = payload(newest, size);
                let (head, tail) = bytes.split_at(size / 3);
                drop(log.append(id(newest), &[head, tail], model.now, true));
                let at = model.now;
                model.all.push(Entry {
                    id: newest,
                    bytes,
                    at,
                });
            }
            Op::Hole => {
                drop(log.hole(model.now));
                let at = model.now;
                model.all.push(Entry {
                    id: newest,
                    bytes: Vec::new(),
                    at,
                });
            }
            Op::Pass(time) => {
                model.now += time;
                drop(log.expire(model.now));
            }
            Op::KeepFrom { back } => {
                let floor = model.all.len().saturating_sub(back);
                drop(log.keep_from(floor as u64));
                model.live = model.live.max(floor);
            }
            Op::Read { reader, back } => {
                read(
                    &mut log,
                    &model,
                    &mut readers[reader],
                    newest.saturating_sub(back),
                );
            }
            Op::Seek { reader, back } => {
                if let Seek::Exact { position, .. } = log.seek(id(newest.saturating_sub(back))) {
                    readers[reader] = position;
                }
            }
        }
        model.trim();
        check_bounds(&log, &model);
        if every_id {
            (0..=newest).for_each(|sequence| check_seek(&log, &model, sequence));
        } else {
            [0, newest / 2, newest]
                .iter()
                .for_each(|sequence| check_seek(&log, &model, *sequence));
        }
    }
}

fn read(log: &mut Log, model: &Model, position: &mut u64, up_to: u64) {
    let at = usize::try_from(*position).unwrap();
    let limit = 3000;
    let mut out = b"before".to_vec();
    let (merged, next_id) = log.read_into(*position, id(up_to), limit, &mut out);
    let copied = out.split_off(6);
    let next = usize::try_from(merged.next(*position)).unwrap();
    let next_id = next_id.map(EventId::sequence);
    assert_eq!(next_id, model.all.get(next).map(|entry| entry.id));
    match log.read(*position, id(up_to)) {
        Read::End => {
            // A hole comes after the event whose id it has.
            let beyond = |entry: &Entry| entry.id > up_to || entry.is_hole();
            assert!(model.all.get(at).is_none_or(beyond));
            assert!(matches!(merged, Read::End));
        }
        Read::Events { chunk, next } => {
            let next_index = usize::try_from(next).unwrap();
            let run = &model.all[at..next_index];
            assert!(!run.is_empty());
            assert!(
                run.iter()
                    .all(|entry| !entry.is_hole() && entry.id <= up_to)
            );
            assert_eq!(
                chunk,
                run.iter().flat_map(|e| e.bytes.clone()).collect::<Vec<_>>()
            );
            assert!(chunk.len() <= SEGMENT || run.len() == 1, "{}", chunk.len());

            let Read::Events { chunk, next } = merged else {
                panic!("{merged:?}")
            };
            let run = &model.all[at..usize::try_from(next).unwrap()];
            let expected: Vec<_> = run.iter().flat_map(|e| e.bytes.clone()).collect();
            assert!(copied.is_empty() || chunk.is_empty());
            assert_eq!([copied.as_slice(), &chunk].concat(), expected);
            assert!(copied.len() <= limit || run.len() == 1);
            *position = next_index as u64;
        }
        Read::Hole { next } => {
            assert!(model.all[at].is_hole());
            assert_eq!(next, *position + 1);
            assert!(matches!(merged, Read::Hole { .. }));
            *position = next;
        }
        Read::Overrun { next } => {
            assert!(at < model.first);
            assert_eq!(next, model.first as u64);
            assert!(matches!(merged, Read::Overrun { .. }));
            *position = next;
        }
    }
    // A reader never misses an entry that was kept.
    assert!(at >= model.first || *position == model.first as u64);
}

fn check_bounds(log: &Log, model: &Model) {
    assert_eq!(log.oldest(), model.replay as u64);
    assert_eq!(log.first, model.first as u64);
    let run = &model.all[model.replay..];
    let bytes: usize = run.iter().map(|entry| entry.bytes.len()).sum();
    assert_eq!(log.retained(), (run.len() as u64, bytes as u64));
    let holes = model.all[model.first..]
        .iter()
        .filter(|entry| entry.is_hole());
    assert_eq!(log.holes, holes.count());
    // Law 6: memory is freed per segment, at most one segment over.
    assert!(
        log.segments
            .front()
            .is_none_or(|front| front.end() > log.first)
    );
}

fn check_seek(log: &Log, model: &Model, sequence: u64) {
    let after = model.after(sequence);
    let expected = if after >= model.replay {
        Seek::Exact {
            position: after as u64,
            pending: (model.all.len() - after) as u64,
        }
    } else {
        Seek::Evicted
    };
    assert_eq!(log.seek(id(sequence)), expected, "id {sequence}");

    let is_kept = after >= model.first;
    let found = log.seek_kept(id(sequence));
    assert_eq!(
        matches!(found, Seek::Exact { .. }),
        is_kept,
        "id {sequence}"
    );
    if let Seek::Exact { position, .. } = found {
        assert_eq!(position, after as u64, "id {sequence}");
    }
    // If the number of missing events is known, it is right.
    let missed = (model.replay.max(after) - after) as u64;
    let known = log.missed(id(sequence), log.oldest());
    assert!(
        known.is_none_or(|known| known == missed),
        "id {sequence}: {known:?}"
    );
    let before_all = model.all.first().is_none_or(|first| sequence < first.id);
    let must_be_known = is_kept || (before_all && !log.had_holes);
    assert!(!must_be_known || known.is_some(), "id {sequence}");

    let (_, bytes) = log.retained();
    let later = &model.all[after..];
    let bytes_later: usize = later.iter().map(|entry| entry.bytes.len()).sum();
    let recent = expected != Seek::Evicted
        && later.len() <= model.limits.events / 2
        && bytes_later <= SEGMENT.min(model.limits.bytes / 2);
    assert!(!recent || bytes_later as u64 <= bytes);
    assert_eq!(log.is_recent(id(sequence), 0), recent, "id {sequence}");
}

fn limits() -> impl Strategy<Value = Limits> {
    (
        prop_oneof![Just(0usize), Just(1), 2usize..40, Just(100_000)],
        prop_oneof![1usize..300, 300usize..20_000, Just(1 << 20)],
        prop_oneof![Just(None), (0u64..200).prop_map(Some)],
    )
        .prop_map(|(events, bytes, age)| Limits { events, bytes, age })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn laws_2_and_6_small_logs(limits in limits(), ops in prop::collection::vec(op(), 1..80)) {
        run(limits, ops, true);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 40, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn laws_2_and_6_long_logs(limits in limits(), ops in prop::collection::vec(op(), 500..1500)) {
        run(limits, ops, false);
    }
}

#[test]
fn rule_84_the_start_is_a_place_to_seek() {
    let limits = Limits {
        events: 10,
        bytes: 1000,
        age: None,
    };
    let mut log = Log::new(limits, id(0));
    assert_eq!(
        log.seek(id(0)),
        Seek::Exact {
            position: 0,
            pending: 0
        }
    );
    drop(log.append(id(1), &[b"x"], 0, false));
    assert_eq!(
        log.seek(id(0)),
        Seek::Exact {
            position: 0,
            pending: 1
        }
    );
}

#[test]
fn law_7_an_id_before_a_remade_log_is_evicted() {
    let limits = Limits {
        events: 10,
        bytes: 1000,
        age: None,
    };
    let log = Log::new(limits, id(5));
    assert_eq!(log.seek(id(4)), Seek::Evicted);
    assert_eq!(
        log.seek(id(5)),
        Seek::Exact {
            position: 0,
            pending: 0
        }
    );
    assert_eq!(
        log.seek(id(9)),
        Seek::Exact {
            position: 0,
            pending: 0
        }
    );
}

#[test]
fn an_empty_log_allocates_nothing_and_a_small_one_stays_small() {
    let limits = Limits {
        events: 10,
        bytes: 1 << 20,
        age: None,
    };
    let mut log = Log::new(limits, id(0));
    assert_eq!(log.segments.capacity(), 0);
    for sequence in 1..10_000 {
        drop(log.append(id(sequence), &[&[b'x'; 100]], 0, false));
        let held: usize = log.segments.len() * SMALLEST_SEGMENT;
        assert!(
            held <= 3 * SMALLEST_SEGMENT,
            "{held} for ten events of 100 bytes"
        );
    }
}

#[test]
fn readers_at_one_place_share_a_chunk() {
    let limits = Limits {
        events: 10,
        bytes: 1 << 20,
        age: None,
    };
    let mut log = Log::new(limits, id(0));
    drop(log.append(id(1), &[b"one"], 0, true));
    let mut chunk = || match log.read(0, EventId::MAX) {
        Read::Events { chunk, .. } => chunk,
        other => panic!("{other:?}"),
    };
    assert_eq!(chunk().as_ptr(), chunk().as_ptr());
}

#[test]
fn a_sealed_segment_is_handed_out_without_a_copy() {
    let limits = Limits {
        events: 1000,
        bytes: 1 << 20,
        age: None,
    };
    let mut log = Log::new(limits, id(0));
    for sequence in 1..200 {
        drop(log.append(id(sequence), &[&[b'x'; 1000]], 0, true));
    }
    let mut position = 0;
    let mut shared = 0;
    while let Read::Events { chunk, next } = log.read(position, EventId::MAX) {
        let again = log.read(position, EventId::MAX);
        let Read::Events { chunk: again, .. } = again else {
            panic!("{again:?}")
        };
        shared += usize::from(chunk.len() >= SMALL && chunk.as_ptr() == again.as_ptr());
        position = next;
    }
    assert!(shared > 3, "{shared}");
}
