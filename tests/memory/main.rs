//! What a user of the crate in memory is promised: one module for each behaviour, in one program, because linking one program for each takes longer
//! than all the tests. Those that count what the whole process does (its allocations, its threads, its idle time) are programs of their own.

#[path = "../matrix_support/mod.rs"]
mod matrix_support;
#[path = "../support/mod.rs"]
mod support;

mod ack_timeout;
mod async_verbs;
mod auto_traits;
mod bad_input;
mod catching_up;
mod closing;
mod dead_letters;
mod handlers;
mod linearizability;
mod matrix_panic;
mod matrix_regressions;
mod matrix_size;
mod model_sequences;
mod order;
mod overflow;
mod panics_in_drop;
mod publish_verbs;
mod recv_verbs;
mod removing;
mod retries;
mod selecting;
mod start_since;
mod stream_and_sink;
mod subscriptions;
mod verdicts;
mod watching;
