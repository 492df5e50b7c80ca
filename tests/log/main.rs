//! What the log promises: one module for each behaviour, in one program, because linking one program for each takes longer than most of the tests.
//! Those that count what their process does or start others, and the corpus of the fuzz targets, which are not in the published package, are programs
//! of their own. `tests/README.log.md` maps every known failure of durable logs to the test here that would see it.

mod support;

mod beside;
mod bit_flips;
mod close;
mod commit;
mod crash_states;
mod directory;
mod fault_table;
mod faults;
mod fixtures;
mod limits;
mod open_faults;
mod quarantine;
mod read_only;
mod readers;
mod reads;
mod recycled;
mod sharing;
mod taken_names;
