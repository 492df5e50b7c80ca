//! Runs the table and prints it.

use std::{
    process::ExitCode,
    sync::{Arc, Mutex},
    thread,
    time::{Duration, Instant},
};

use peers::{
    alloc,
    bench::Bench,
    contender::{Choice, contenders},
    machine::{self, Probe},
    ours, report,
    rows::ROWS,
};

const USAGE: &str = "\
Measures ringmq beside its peers, interleaved, and prints ratios.

    --seconds N     stop after N seconds (default 300); earlier if every ratio has settled
    --rows A,B      only rows of these names, or whose name contains one of these
    --peers A,B     only peers whose name contains one of these
    --all           every peer that can do a row, not only those with a chance
    --details       also print every contender in every placement
    --list          print rows and their contenders, run nothing";

#[global_allocator]
static ALLOCATOR: alloc::Counting = alloc::Counting;

/// A single run that takes so long is stuck.
const STUCK: Duration = Duration::from_secs(20);

struct Flags {
    seconds: u64,
    rows: Option<Vec<String>>,
    choice: Choice,
    details: bool,
    list: bool,
}

fn parse(mut arguments: impl Iterator<Item = String>) -> Result<Flags, String> {
    let mut flags = Flags {
        seconds: 300,
        rows: None,
        choice: Choice::Listed,
        details: false,
        list: false,
    };
    while let Some(flag) = arguments.next() {
        let mut value = || arguments.next().ok_or(format!("{flag} needs a value"));
        let words = |list: String| list.split(',').map(|word| word.trim().to_owned()).collect();
        match flag.as_str() {
            "--seconds" => {
                flags.seconds = value()?.parse().map_err(|_| "--seconds needs a whole number".to_owned())?;
            }
            "--rows" => flags.rows = Some(words(value()?)),
            "--peers" => flags.choice = Choice::Matching(words(value()?)),
            "--all" => flags.choice = Choice::All,
            "--details" => flags.details = true,
            "--list" => flags.list = true,
            other => return Err(format!("unknown flag {other}\n\n{USAGE}")),
        }
    }
    Ok(flags)
}

fn main() -> ExitCode {
    let flags = match parse(std::env::args().skip(1)) {
        Ok(flags) => flags,
        Err(message) => {
            eprintln!("{message}");
            return ExitCode::from(2);
        }
    };
    let named = |word: &String, name: &str| match ROWS.iter().any(|row| row.name == word) {
        true => name == word,
        false => name.contains(word.as_str()),
    };
    let wanted = |name: &str| flags.rows.as_ref().is_none_or(|words| words.iter().any(|word| named(word, name)));
    let mut benches: Vec<Bench> = ROWS
        .iter()
        .filter(|row| wanted(row.name))
        .map(|row| Bench::new(row, contenders(row, &flags.choice)))
        .collect();

    if flags.list {
        for bench in &benches {
            let names: Vec<&str> = bench.lanes.iter().map(|lane| lane.contender.name).collect();
            println!("{}: {}", bench.row.name, names.join(", "));
        }
        return ExitCode::SUCCESS;
    }

    println!("{}", machine::describe(""));
    let priority = machine::prefer();
    let probe = Probe::start();
    println!("placement  {}", probe.bounds());
    println!("priority   {priority}\n");
    let failed = measure(&mut benches, &probe, Duration::from_secs(flags.seconds)).err();
    println!("{}", report::table(benches.iter()));
    if flags.rows.is_none() {
        println!("{}", at_rest());
    }
    if flags.details {
        println!("{}", report::details(&benches));
    }
    println!("{}", report::summary(&benches));
    match failed {
        Some(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
        None => ExitCode::SUCCESS,
    }
}

/// What should be nothing: allocations of plain messages, and the processor time of a broker at rest.
fn at_rest() -> String {
    let allocations = ours::allocations();
    let second = Duration::from_secs(1);
    let before = machine::process_cpu();
    thread::sleep(second);
    let sleeping = machine::process_cpu() - before;
    let idle = ours::idle_cpu(second).saturating_sub(sleeping);
    let met = |holds: bool| if holds { "met" } else { "MISSED" };
    format!(
        "allocations of 100,000 plain messages, warmed up: {allocations}; bar 0: {}\n\
         processor time of an idle broker with 100 topics in 1 s: {idle:?}, more than sleeping alone; bar 0 \
         (100 us of noise allowed): {}\n",
        met(allocations == 0),
        met(idle <= Duration::from_micros(100)),
    )
}

/// Pass after pass over the rows that are not settled, until none is or the time is up.
fn measure(benches: &mut [Bench], probe: &Probe, budget: Duration) -> Result<(), String> {
    crossfire::detect_backoff_cfg();
    let watch = Watchdog::start();
    let deadline = Instant::now() + budget;
    let mut open: Vec<&mut Bench> = benches.iter_mut().collect();
    while !open.is_empty() {
        watch.keep(report::table(open.iter().map(|bench| &**bench)));
        for bench in &mut open {
            if Instant::now() >= deadline {
                return Ok(());
            }
            bench.round(probe, |row, contender| watch.note(format!("{}: {}", row.name, contender.name)))?;
        }
        open.retain(|bench| !bench.settled());
    }
    Ok(())
}

/// Ends the process, naming the run, when a run does not end.
struct Watchdog(Arc<Mutex<Watched>>);

/// The run under way, and the table of those rows that are not settled, as it stood when the pass began.
struct Watched {
    since: Instant,
    name: String,
    table: String,
}

impl Watchdog {
    fn start() -> Self {
        let current = Arc::new(Mutex::new(Watched {
            since: Instant::now(),
            name: String::new(),
            table: String::new(),
        }));
        let watched = current.clone();
        thread::spawn(move || {
            loop {
                thread::sleep(Duration::from_secs(1));
                let run = watched.lock().expect("no holder panics");
                if run.since.elapsed() > STUCK {
                    println!("{}", run.table);
                    eprintln!("error: {} is stuck; above what was measured before", run.name);
                    std::process::exit(1);
                }
            }
        });
        Watchdog(current)
    }

    fn note(&self, name: String) {
        let mut watched = self.0.lock().expect("no holder panics");
        (watched.since, watched.name) = (Instant::now(), name);
    }

    fn keep(&self, table: String) {
        self.0.lock().expect("no holder panics").table = table;
    }
}
