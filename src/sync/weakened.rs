//! Atomics whose orderings can be weakened one at a time, to see that some model notices.
//!
//! `RINGMQ_WEAKEN=<file>:<line>:<argument>:<ordering>` weakens the orderings that calls in this line pass, the first (0) or, of a
//! compare-and-exchange, the second (1). `RINGMQ_ORDERINGS=<file>` writes down every line that a run comes past. `tests/weaken_orderings.sh` does
//! one, then the other; both without building anew.

use std::collections::BTreeSet;
use std::io::Write as _;
use std::panic::Location;
use std::sync::{Mutex, OnceLock};

use loom::sync::atomic::Ordering::{self, *};

/// One ordering in the source.
type Place = (&'static str, u32, u8);

struct Mutation {
    file: String,
    line: u32,
    argument: u8,
    to: Ordering,
}

fn mutation() -> Option<&'static Mutation> {
    static MUTATION: OnceLock<Option<Mutation>> = OnceLock::new();
    let parse = || {
        let text = std::env::var("RINGMQ_WEAKEN").ok()?;
        let parts: Vec<&str> = text.split(':').collect();
        let [file, line, argument, to] = parts[..] else {
            panic!("RINGMQ_WEAKEN is <file>:<line>:<argument>:<ordering>, not {text}");
        };
        Some(Mutation {
            file: file.to_owned(),
            line: line.parse().expect("a line number"),
            argument: argument.parse().expect("0 or 1"),
            to: match to {
                "Acquire" => Acquire,
                "Release" => Release,
                "Relaxed" => Relaxed,
                other => panic!("{other} is weaker than nothing"),
            },
        })
    };
    MUTATION.get_or_init(parse).as_ref()
}

/// Writes a place down the first time that a run comes past it.
fn note(place: Place, ordering: Ordering) {
    static SEEN: Mutex<BTreeSet<Place>> = Mutex::new(BTreeSet::new());
    static LIST: OnceLock<Option<String>> = OnceLock::new();
    let Some(list) = LIST.get_or_init(|| std::env::var("RINGMQ_ORDERINGS").ok()) else {
        return;
    };
    if SEEN.lock().expect("nothing panics in here").insert(place) {
        let mut file = std::fs::OpenOptions::new()
            .append(true)
            .create(true)
            .open(list)
            .expect("RINGMQ_ORDERINGS is a file");
        writeln!(file, "{} {} {} {ordering:?}", place.0, place.1, place.2).expect("RINGMQ_ORDERINGS can be written");
    }
}

fn weaken(at: &'static Location<'static>, argument: u8, ordering: Ordering) -> Ordering {
    note((at.file(), at.line(), argument), ordering);
    match mutation() {
        Some(to) if to.line == at.line() && to.argument == argument && to.file == at.file() && ordering != Relaxed => to.to,
        _ => ordering,
    }
}

macro_rules! atomic {
    ($name:ident, $value:ty) => {
        #[derive(Debug, Default)]
        pub(crate) struct $name(loom::sync::atomic::$name);

        #[allow(dead_code, reason = "not every kind needs every operation")]
        impl $name {
            #[track_caller]
            pub(crate) fn new(value: $value) -> Self {
                Self(loom::sync::atomic::$name::new(value))
            }

            #[track_caller]
            pub(crate) fn load(&self, ordering: Ordering) -> $value {
                self.0.load(weaken(Location::caller(), 0, ordering))
            }

            #[track_caller]
            pub(crate) fn store(&self, value: $value, ordering: Ordering) {
                self.0.store(value, weaken(Location::caller(), 0, ordering));
            }

            #[track_caller]
            pub(crate) fn compare_exchange(&self, from: $value, to: $value, ok: Ordering, failed: Ordering) -> Result<$value, $value> {
                let at = Location::caller();
                self.0.compare_exchange(from, to, weaken(at, 0, ok), weaken(at, 1, failed))
            }

            #[track_caller]
            pub(crate) fn fetch_update(
                &self,
                ok: Ordering,
                failed: Ordering,
                change: impl FnMut($value) -> Option<$value>,
            ) -> Result<$value, $value> {
                let at = Location::caller();
                self.0.fetch_update(weaken(at, 0, ok), weaken(at, 1, failed), change)
            }

            atomic!(@each $value: swap fetch_add fetch_sub fetch_or fetch_and fetch_max);
        }
    };
    (@each $value:ty: $($verb:ident)*) => {
        $(
            #[track_caller]
            pub(crate) fn $verb(&self, value: $value, ordering: Ordering) -> $value {
                self.0.$verb(value, weaken(Location::caller(), 0, ordering))
            }
        )*
    };
}

atomic!(AtomicU64, u64);
atomic!(AtomicUsize, usize);
