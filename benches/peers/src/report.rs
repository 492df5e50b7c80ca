//! The printed table.

use crate::{
    bench::{Bench, Lane},
    machine::Placement,
    queue::Idle,
    rows::{Bar, Of, Unit},
    stats::Quartiles,
};

const HEADER: [&str; 8] = [
    "workload",
    "ours",
    "figure",
    "best that parks",
    "ratio [quartiles]",
    "best of any",
    "ratio [quartiles]",
    "bars",
];

/// One line per claim, then what was measured outside the placement that gates.
pub fn table<'b>(benches: impl Iterator<Item = &'b Bench>) -> String {
    let mut lines = vec![HEADER.map(str::to_owned).to_vec()];
    for bench in benches {
        lines.extend(bench.row.claims.iter().filter_map(|claim| line(bench, claim)));
    }
    columns(&lines)
}

fn line(bench: &Bench, claim: &crate::rows::Claim) -> Option<Vec<String>> {
    let ours = bench.lane(claim.ours)?;
    let bars: Vec<String> = claim.bars.iter().map(|bar| verdict(bench, claim, bar)).collect();
    Some(vec![
        bench.row.name.to_owned(),
        claim.ours.to_owned(),
        figure(bench, ours),
        rival(bench, Of::Parking),
        ratio(bench.against(claim, Of::Parking)),
        rival(bench, Of::Any),
        ratio(bench.against(claim, Of::Any)),
        bars.join("; "),
    ])
}

fn rival(bench: &Bench, of: Of) -> String {
    bench
        .rival(of)
        .map_or("-".to_owned(), |lane| format!("{} {}", lane.contender.name, figure(bench, lane)))
}

fn figure(bench: &Bench, lane: &Lane) -> String {
    let unit = match bench.row.workload.unit() {
        Unit::MillionPerSecond => "M/s",
        Unit::Nanoseconds => "ns",
        Unit::Microseconds => "us",
    };
    bench
        .figures(lane, Placement::Near)
        .map_or("-".to_owned(), |figures| format!("{} {unit}", short(figures.median)))
}

fn verdict(bench: &Bench, claim: &crate::rows::Claim, bar: &Bar) -> String {
    let sign = match bench.row.workload.unit() {
        Unit::MillionPerSecond => ">=",
        Unit::Nanoseconds | Unit::Microseconds => "<=",
    };
    let of = match bar.of {
        Of::Parking => "parks",
        Of::Any => "any",
        Of::Named(name) => name,
    };
    let (outcome, measured) = match bench.against(claim, bar.of) {
        Some(ratio) if bench.holds(bar, &ratio) => ("met", short(ratio.median)),
        Some(ratio) => ("MISSED", short(ratio.median)),
        None => ("not measured", "-".to_owned()),
    };
    format!("{sign} {} {of}: {measured} {outcome}", bar.limit)
}

fn ratio(ratio: Option<Quartiles>) -> String {
    ratio.map_or("-".to_owned(), |it| format!("{:.2} [{:.2}..{:.2}]", it.median, it.low, it.high))
}

/// Three significant digits.
fn short(figure: f64) -> String {
    match figure {
        figure if figure >= 100.0 => format!("{figure:.0}"),
        figure if figure >= 10.0 => format!("{figure:.1}"),
        figure => format!("{figure:.2}"),
    }
}

/// Every contender of every row, in each placement: median, quartiles, number of runs.
pub fn details(benches: &[Bench]) -> String {
    let header = ["workload", "contender", "idle", "N (gates)", "S", "F", "dropped"];
    let mut lines = vec![header.map(str::to_owned).to_vec()];
    for bench in benches {
        for lane in &bench.lanes {
            let cell = |placement| {
                bench.figures(lane, placement).map_or("-".to_owned(), |it| {
                    format!("{} [{}..{}] x{}", short(it.median), short(it.low), short(it.high), it.count)
                })
            };
            lines.push(vec![
                bench.row.name.to_owned(),
                lane.contender.name.to_owned(),
                match lane.contender.idle {
                    Idle::Parks => "parks".to_owned(),
                    Idle::Spins => "spins".to_owned(),
                },
                cell(Placement::Near),
                cell(Placement::Same),
                cell(Placement::Far),
                lane.dropped.to_string(),
            ]);
        }
    }
    columns(&lines)
}

/// How many bars are met, missed and unmeasured.
pub fn summary(benches: &[Bench]) -> String {
    let (mut met, mut missed, mut open) = (0, Vec::new(), 0);
    for bench in benches {
        for claim in bench.row.claims {
            for bar in claim.bars {
                match bench.against(claim, bar.of) {
                    Some(ratio) if bench.holds(bar, &ratio) => met += 1,
                    Some(_) => missed.push(format!("{} ({})", bench.row.name, claim.ours)),
                    None => open += 1,
                }
            }
        }
    }
    let missed_count = missed.len();
    missed.dedup();
    format!(
        "bars met {met}, missed {missed_count}, not measured {open}\nmissed: {}",
        missed.join("; ")
    )
}

/// Pads every column to its widest cell.
pub fn columns(lines: &[Vec<String>]) -> String {
    let count = lines.iter().map(Vec::len).max().unwrap_or(0);
    let width = |column: usize| lines.iter().filter_map(|line| line.get(column)).map(String::len).max();
    let widths: Vec<usize> = (0..count).map(|column| width(column).unwrap_or(0)).collect();
    let mut text = String::new();
    for line in lines {
        let cells: Vec<String> = line
            .iter()
            .zip(&widths)
            .map(|(cell, width)| format!("{cell:<width$}", width = *width))
            .collect();
        text.push_str(cells.join("  ").trim_end());
        text.push('\n');
    }
    text
}
