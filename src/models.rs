//! Models: the crate's own code under the loom model checker, which runs a small program in every interleaving and with every value that
//! the memory orderings allow.
//!
//! ```text
//! RUSTFLAGS="--cfg ringmq_loom" cargo test --profile models --lib --target-dir target/loom models
//! ```
//!
//! `LOOM_MAX_PREEMPTIONS` bounds how often a thread is interrupted where it would not wait (default 2; 3 on demand, which takes many times
//! as long). With 1, threads sleep without looking again first, and counters lean towards threads at once, which finds what is wrong with waking
//! and with handing over: run both. `-- --nocapture` tells how many executions each model had.
//!
//! `RINGMQ_LEAN=1` lets counters lean in all models, whatever the bound. With two preemptions that takes many minutes for each model of three threads,
//! and two of them then have executions longer than the checker takes (50,000 branches), which it reports as a failure.
//!
//! The models stand beside the modules that they check: `ring/models/`, `wait/models.rs`, `topic/models/`. They stay tiny: two or three
//! threads, capacities of one or two. A model fails by a wrong result, by two threads in one slot at the same time (the cells are
//! watched), or by a deadlock, which is what a lost wake-up looks like. The timer and clocks are not modelled: nothing is due in a model
//! unless it is due at once.
//!
//! `tests/weaken_orderings.sh` weakens every atomic access in turn, and expects that one of these models fails.
#![forbid(unsafe_code)]

use std::sync::atomic::{AtomicU64, Ordering};

use crate::sync::LEANS;

/// Runs `model` in every execution there is, up to the bound on preemptions.
pub(crate) fn check(model: impl Fn() + Send + Sync + 'static) {
    check_up_to(usize::MAX, model);
}

/// As `check`, with at most so many preemptions, whatever the bound.
pub(crate) fn check_up_to(most: usize, model: impl Fn() + Send + Sync + 'static) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = Some(builder.preemption_bound.unwrap_or(2).min(most));
    builder.max_branches = 50_000;
    let executions = std::sync::Arc::new(AtomicU64::new(0));
    let counted = executions.clone();
    builder.check(move || {
        counted.fetch_add(1, Ordering::Relaxed);
        model();
    });
    let name = std::thread::current().name().unwrap_or_default().to_owned();
    println!("{} executions of {name}", executions.load(Ordering::Relaxed));
}

/// As `check`, where counters lean towards threads (see `ring/counter.rs`) whatever the bound, which counts up to `most`. In other models they do
/// only if it is one preemption.
pub(crate) fn check_leaning(most: usize, model: impl Fn() + Send + Sync + 'static) {
    LEANS.set(true);
    check_up_to(most, model);
    LEANS.set(false);
}

/// Unwinds without a message: for what the code under test has to survive.
pub(crate) fn unwind() -> ! {
    std::panic::resume_unwind(Box::new("a panic of the user's code"))
}
