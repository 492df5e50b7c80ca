//! The machine: its description, its processors, and where the host has put them.
//!
//! Virtual processors move about on the host. Whether two of them share a core, a cache or nothing changes the
//! speed of any queue between them 4 to 15 times, so every run is labelled with the [`Placement`] that a short
//! exchange of one cache line finds before and after it.

use std::{
    fmt, fs, hint, mem,
    process::Command,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicU64, Ordering},
    },
    thread::{self, Thread},
    time::{Duration, Instant},
};

/// How far apart the two processors are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Placement {
    /// Two threads of one core: a round trip of about 50 ns.
    Same,
    /// Neighbours under one last-level cache: the class that gates.
    Near,
    /// No cache in common.
    Far,
}

/// Where the classes begin and end on this machine, in nanoseconds of a round trip.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    near: f64,
    far: f64,
    /// The median of the samples that the bounds were taken from.
    pub sampled: f64,
}

impl Bounds {
    /// Two threads of a core answer within 50 ns everywhere. Machines made of small clusters of cores answer in 105
    /// to 125 ns inside a cluster and above 500 ns outside; those with one mesh of cores take 250 to 550 ns for any two.
    fn from_samples(mut samples: Vec<f64>) -> Self {
        const SAME: f64 = 80.0;
        const CLUSTER: f64 = 250.0;
        samples.sort_by(f64::total_cmp);
        let sampled = samples[samples.len() / 2];
        // Clusters show by what is not there: a mesh in a fast moment is as fast as a cluster, but has every figure up to its slowest.
        let share = |from: f64, to: f64| samples.iter().filter(|ns| (from..to).contains(*ns)).count() * 20 / samples.len();
        let has_clusters = share(SAME, CLUSTER) > 0 && share(CLUSTER, 2.0 * CLUSTER) == 0;
        Bounds {
            near: SAME,
            far: if has_clusters { CLUSTER } else { 2.0 * sampled.max(CLUSTER) },
            sampled,
        }
    }

    fn placement(&self, round_trip_ns: f64) -> Placement {
        match round_trip_ns {
            ns if ns < self.near => Placement::Same,
            ns if ns < self.far => Placement::Near,
            _ => Placement::Far,
        }
    }
}

impl fmt::Display for Bounds {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Bounds { near, far, sampled } = self;
        write!(
            f,
            "a cache line there and back: S < {near:.0} ns <= N < {far:.0} ns <= F; median at the start {sampled:.0} ns"
        )
    }
}

/// Bounces one word between the first two processors.
pub struct Probe {
    bounds: Bounds,
    ball: Arc<Ball>,
    echo: Thread,
}

/// The two halves of a bounce, each on a line of its own.
#[derive(Default)]
struct Ball {
    ping: Line,
    pong: Line,
}

#[derive(Default)]
#[repr(align(128))]
struct Line(AtomicU64);

/// Bounces per group, groups per probe; the quietest group counts. The first group warms up.
const BOUNCES: u64 = 75;
const GROUPS: u64 = 5;

/// How long the host is watched before the classes are fixed.
const SAMPLES: usize = 200;
const SAMPLE_EVERY: Duration = Duration::from_millis(4);

impl Probe {
    /// Starts the thread that sends the word back, which sleeps between probes, and finds the bounds of the classes.
    pub fn start() -> Self {
        let ball = Arc::new(Ball::default());
        let theirs = ball.clone();
        let echo = thread::Builder::new()
            .name("probe".into())
            .spawn(move || {
                pin(1);
                for expected in 1.. {
                    while theirs.ping.0.load(Ordering::Acquire) < expected {
                        match expected % (BOUNCES * GROUPS) {
                            1 => thread::park(),
                            _ => hint::spin_loop(),
                        }
                    }
                    theirs.pong.0.store(expected, Ordering::Release);
                }
            })
            .expect("a thread can be started");
        let bounds = Bounds {
            near: 0.0,
            far: f64::MAX,
            sampled: 0.0,
        };
        let mut probe = Probe {
            bounds,
            ball,
            echo: echo.thread().clone(),
        };
        let sample = |_| {
            thread::sleep(SAMPLE_EVERY);
            probe.round_trip_ns()
        };
        probe.bounds = Bounds::from_samples((0..SAMPLES).map(sample).collect());
        probe
    }

    /// What the classes mean here.
    pub fn bounds(&self) -> Bounds {
        self.bounds
    }

    /// Finds the placement of this moment.
    pub fn placement(&self) -> Placement {
        self.bounds.placement(self.round_trip_ns())
    }

    /// How long a line takes to the other processor and back, in nanoseconds.
    fn round_trip_ns(&self) -> f64 {
        pin(0);
        let first = self.ball.ping.0.load(Ordering::Relaxed) + 1;
        self.ball.ping.0.store(first, Ordering::Release);
        self.echo.unpark();
        self.wait_for(first);
        let mut next = first + 1;
        let mut best = Duration::MAX;
        for group in 0..GROUPS {
            let until = first + (group + 1) * BOUNCES;
            let started = Instant::now();
            while next < until {
                self.ball.ping.0.store(next, Ordering::Release);
                self.wait_for(next);
                next += 1;
            }
            if group > 0 {
                best = best.min(started.elapsed());
            }
        }
        unpin();
        best.as_nanos() as f64 / BOUNCES as f64
    }

    fn wait_for(&self, bounce: u64) {
        while self.ball.pong.0.load(Ordering::Acquire) < bounce {
            hint::spin_loop();
        }
    }

    /// Waits up to `patience` for neighbours; says what it found in the end.
    pub fn near_or_after(&self, patience: Duration) -> Placement {
        let deadline = Instant::now() + patience;
        loop {
            let placement = self.placement();
            if placement == Placement::Near || Instant::now() >= deadline {
                return placement;
            }
            thread::sleep(Duration::from_millis(1));
        }
    }
}

/// Keeps the calling thread on the first or the second processor that the process may use.
pub fn pin(side: usize) {
    let all = allowed();
    // SAFETY: every index that is asked for is below the size of the set.
    let may = |cpu: &usize| unsafe { libc::CPU_ISSET(*cpu, all) };
    if let Some(cpu) = (0..libc::CPU_SETSIZE as usize).filter(may).nth(side) {
        let mut one = empty_set();
        // SAFETY: the index is below the size of the set.
        unsafe { libc::CPU_SET(cpu, &mut one) };
        apply(&one);
    }
}

/// Lets the calling thread run on every processor again.
pub fn unpin() {
    apply(allowed());
}

/// The processors that the process was started on.
fn allowed() -> &'static libc::cpu_set_t {
    static ALLOWED: OnceLock<libc::cpu_set_t> = OnceLock::new();
    ALLOWED.get_or_init(|| {
        let mut set = empty_set();
        // SAFETY: the set outlives the call and its size is given.
        let _ = unsafe { libc::sched_getaffinity(0, mem::size_of_val(&set), &mut set) };
        set
    })
}

fn empty_set() -> libc::cpu_set_t {
    // SAFETY: `cpu_set_t` is a plain bit set, for which all zeros is the empty set.
    unsafe { mem::zeroed() }
}

/// A machine that refuses is measured unpinned.
fn apply(set: &libc::cpu_set_t) {
    // SAFETY: the set outlives the call and its size is given.
    let _ = unsafe { libc::sched_setaffinity(0, mem::size_of_val(set), set) };
}

/// Asks to be preferred over whatever else runs here, so that short runs are disturbed less. Says what came of it.
pub fn prefer() -> &'static str {
    // SAFETY: a plain call on the calling process.
    match unsafe { libc::setpriority(libc::PRIO_PROCESS, 0, -19) } {
        0 => "raised",
        _ => "as started",
    }
}

/// Processor time of the calling thread.
pub fn thread_cpu() -> Duration {
    clock(libc::CLOCK_THREAD_CPUTIME_ID)
}

/// Processor time of the whole process.
pub fn process_cpu() -> Duration {
    clock(libc::CLOCK_PROCESS_CPUTIME_ID)
}

fn clock(id: libc::clockid_t) -> Duration {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the struct outlives the call, which only writes to it.
    let _ = unsafe { libc::clock_gettime(id, &mut time) };
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}

/// Machine, kernel, toolchain, date and command, one per line; `target` is what cargo must be told beside the manifest.
pub fn describe(target: &str) -> String {
    let cpuinfo = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = cpuinfo
        .lines()
        .find_map(|line| line.strip_prefix("model name"))
        .map_or("unknown processor", |rest| rest.trim_start_matches([' ', '\t', ':']));
    let cpus = thread::available_parallelism().map_or(1, |count| count.get());
    let meminfo = fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let memory_kib: u64 = meminfo.split_whitespace().nth(1).and_then(|word| word.parse().ok()).unwrap_or(0);
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let load = fs::read_to_string("/proc/loadavg").unwrap_or_default();
    let date = Command::new("date").arg("-u").arg("+%Y-%m-%d %H:%M UTC").output();
    let date = date
        .map(|out| String::from_utf8_lossy(&out.stdout).trim().to_owned())
        .unwrap_or_default();
    let arguments: String = std::env::args().skip(1).map(|argument| format!(" {argument}")).collect();
    format!(
        "machine    {model}, {cpus} processors, {} GiB; load before {}\n\
         kernel     {}\n\
         toolchain  {}, lto fat, one codegen unit\n\
         date       {date}\n\
         command    cargo run --release --manifest-path benches/peers/Cargo.toml{target}{}{arguments}",
        memory_kib.div_ceil(1 << 20),
        load.split_whitespace().next().unwrap_or("unknown"),
        kernel.trim(),
        env!("TOOLCHAIN"),
        if arguments.is_empty() { "" } else { " --" },
    )
}
