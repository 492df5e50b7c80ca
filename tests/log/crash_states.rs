//! Goal: after any crash, opening finds every promise kept and nothing else (G6), and no crash is taken for damage (G7).
//!
//! Method: scripts drawn from seeds run on a simulated disk that keeps a copy of itself for every call and for the
//! middle of every write. Each copy is crashed, by a kill or by several power cuts, and opened again; an oracle judges
//! what is found. The opened log is used and crashed again, inside its recovery up to three deep, and over three
//! generations of sessions.
//!
//! `CRASH_STATES=n` sets how many states are opened at least (50,000 without it), `CRASH_FIRST=n` begins with another
//! script than the first, `CRASH_SEED=n` runs one script alone.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::Instant;

use ringmq::log::sim::{Fault, Moment, Op, SimDisk};
use ringmq::log::{Background, Level, LogOptions, Record};

use crate::support::oracle::{At, Loss, Rec, Session};
use crate::support::rng::Rng;
use crate::support::session::{Setting, open, run};

#[test]
fn no_crash_loses_invents_reorders_or_bricks() {
    if let Some(seed) = number("CRASH_SEED") {
        println!("{} states", explore(seed));
        return;
    }
    let wanted = number("CRASH_STATES").unwrap_or(50_000);
    let first = number("CRASH_FIRST").unwrap_or(0);
    let begun = Instant::now();
    let (next, states) = (AtomicU64::new(first), AtomicU64::new(0));
    let threads = thread::available_parallelism().map_or(2, usize::from);
    thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                while states.load(Ordering::Relaxed) < wanted || next.load(Ordering::Relaxed) - first < SCRIPTS {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    let opened = catch_unwind(AssertUnwindSafe(|| explore(seed)));
                    let Ok(opened) = opened else {
                        states.fetch_max(u64::MAX / 2, Ordering::Relaxed); // the others stop too
                        next.fetch_max(first + SCRIPTS, Ordering::Relaxed);
                        panic!("CRASH_SEED={seed} brings it back");
                    };
                    states.fetch_add(opened, Ordering::Relaxed);
                }
            });
        }
    });
    let (states, scripts) = (states.into_inner(), next.into_inner() - first);
    println!(
        "{states} crash states of {scripts} scripts from {first} on in {:?}",
        begun.elapsed()
    );
    assert!(states >= wanted && scripts >= SCRIPTS);
}

/// How many scripts run at least.
const SCRIPTS: u64 = 200;
/// Sessions on one disk, and crashes inside one recovery.
const GENERATIONS: u32 = 3;
const DEPTH: u32 = 3;
/// A recovery that makes more calls than this does not end.
const CALLS: u64 = 100_000;

/// Runs one script with all its crashes; returns how many states were opened.
fn explore(seed: u64) -> u64 {
    let mut rng = Rng::new(seed);
    let setting = Setting::draw(&mut rng);
    let mut explorer = Explorer {
        seed,
        setting,
        states: 0,
        // Every call of one of the sessions is cut; the sessions around it are cut at a call drawn by chance.
        thorough: rng.pick(&[(1, 0), (1, 0), (2, 0), (2, 1), (3, 0), (3, 2)]),
    };
    let before = Before {
        session: Session::default(),
        at: At::END,
        loss: Loss::Process,
        holes: false,
        trail: String::new(),
    };
    let begun = Instant::now();
    explorer.open(&SimDisk::new(seed), before, 1, 0, &mut rng);
    if std::env::var_os("CRASH_VERBOSE").is_some() {
        println!("script {seed}: {} states, {:?}", explorer.states, begun.elapsed());
    }
    explorer.states
}

struct Explorer {
    seed: u64,
    setting: Setting,
    states: u64,
    /// Generation, and crashes inside its recovery before.
    thorough: (u32, u32),
}

/// What is known about a disk whose processes are dead.
#[derive(Clone)]
struct Before {
    session: Session,
    at: At,
    loss: Loss,
    /// Segments were retired, and a removal that a crash undid may have left holes.
    holes: bool,
    trail: String,
}

impl Explorer {
    /// Opens a crashed disk, judges what is found, uses it, and crashes it again.
    fn open(&mut self, disk: &SimDisk, before: Before, generation: u32, depth: u32, rng: &mut Rng) {
        self.states += 1;
        let script = self.setting.script(rng);
        let calls = disk.calls();
        disk.set_capacity(None);
        disk.fail_from(Op::Any, CALLS, Fault::Eio);
        let all = (generation, depth) == self.thorough;
        let wants_opening = generation == self.thorough.0 && depth < self.thorough.1;
        let mut ran = match run(disk, &script, all, rng) {
            Ok(ran) => ran,
            Err(e) => self.fail(&before, &format!("opening failed: {e} {e:?}"), disk),
        };
        self.judge(&before, &ran.found, disk);
        ran.session.follow(&before.session);
        let report = &ran.report;
        if let Err(what) = before.session.judge_end(before.at, before.loss, report.end.0) {
            self.fail(&before, &what, disk);
        }
        if !report.damage.is_empty() || (!report.missing.is_empty() && !before.holes) || !report.unknown.is_empty() {
            self.fail(&before, &format!("a crash was taken for damage: {report:?}"), disk);
        }

        let chosen: Vec<&Moment> = if all {
            ran.opening.iter().chain(&ran.moments).collect()
        } else if wants_opening || ((generation, depth) > self.thorough && depth < DEPTH && rng.one_in(2)) {
            ran.opening.iter().collect()
        } else {
            ran.moments.iter().collect()
        };
        for moment in chosen {
            let losses: &[Loss] = match all {
                true => &[Loss::Process, Loss::Power, Loss::Power],
                false if rng.one_in(3) => &[Loss::Process],
                false => &[Loss::Power],
            };
            for loss in losses {
                let trail = format!(
                    "{}\n  {script:?}\n  cut at {}{:?} of {calls}..{}, opened at {}, {loss:?}",
                    before.trail,
                    moment.call,
                    moment.op,
                    disk.calls(),
                    ran.opened_at
                );
                let at = At {
                    call: moment.call,
                    midway: moment.midway,
                };
                let inside = inside_opening(moment, ran.opened_at);
                let (next, deeper) = if inside {
                    (
                        Before {
                            trail,
                            loss: before.loss.max(*loss),
                            ..before.clone()
                        },
                        depth + 1,
                    )
                } else {
                    (
                        Before {
                            trail,
                            loss: *loss,
                            at,
                            session: ran.session.clone(),
                            holes: before.holes || (self.setting.faults && ran.session.gave_up()),
                        },
                        0,
                    )
                };
                let younger = generation + u32::from(!inside);
                self.crash(moment, next, *loss, younger, deeper, rng);
            }
        }
    }

    fn crash(&mut self, moment: &Moment, mut next: Before, loss: Loss, generation: u32, depth: u32, rng: &mut Rng) {
        if generation > GENERATIONS || depth > DEPTH {
            return;
        }
        let disk = moment.disk.copy();
        if loss == Loss::Power {
            disk.power_cut(rng.next());
        } else if rng.one_in(4) {
            disk.evict(rng.next()); // after a failed sync this is a loss, though no power went
            next.loss = Loss::Power;
        }
        self.open(&disk, next, generation, depth, rng);
    }

    fn judge(&self, before: &Before, found: &[Rec], disk: &SimDisk) {
        if let Err(what) = before.session.judge(before.at, before.loss, found) {
            self.fail(before, &what, disk);
        }
    }

    fn fail(&self, before: &Before, what: &str, disk: &SimDisk) -> ! {
        panic!(
            "CRASH_SEED={}: {what}\n{:?}\ntrail:{}\n{disk:?}",
            self.seed, self.setting, before.trail
        );
    }
}

/// Symptom: after a power cut a log began at position 0 again, and gave positions that were handed out to other bytes. Cause: its sealed
/// segments were retired before any sync had made the header of the one that continues them durable. Fix: retiring the last sealed
/// segment makes sure of that header first.
#[test]
fn positions_go_on_after_everything_sealed_was_retired() {
    for (level, len) in [(Level::Os, 300), (Level::Os, 3500), (Level::Synced, 300)] {
        for retired_last in [false, true] {
            let disk = SimDisk::new(1);
            let options = LogOptions::new().background(Background::Inline).segment_bytes(4096, 4096).seed(1);
            let (log, ..) = open(&disk, &options).expect("the disk is fine");
            for offset in 0.. {
                log.append(&[Record::new(1, offset, &vec![7; len])], level).expect("there is space");
                if log.stats().rolls == 3 {
                    break;
                }
            }
            let mut sealed: Vec<_> = log.segments().into_iter().filter(|segment| segment.is_sealed).collect();
            if retired_last {
                sealed.reverse();
            }
            for segment in &sealed {
                log.retire(segment.first).expect("it is sealed");
            }
            let handed_out = sealed.iter().map(|segment| segment.to).max();
            assert!(log.durable() >= handed_out.expect("some are sealed"));
            drop(log);
            for cut in 0..40 {
                let disk = disk.copy();
                disk.power_cut(cut);
                let (_, report, _) = open(&disk, &options).expect("a crash is no damage");
                assert!(
                    Some(report.end) >= handed_out,
                    "{level:?} {len}, cut {cut}: {} after {handed_out:?}",
                    report.end
                );
                assert!(report.damage.is_empty(), "{report:?}");
            }
        }
    }
}

fn inside_opening(moment: &Moment, opened_at: u64) -> bool {
    moment.call < opened_at || (moment.call == opened_at && moment.midway)
}

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.replace('_', "").parse().ok()
}
