//! The numbers, side by side, with what is aimed at.

use std::fmt;
use std::time::Duration;

use serde_json::{Value, json};

use crate::measure::{Cost, Sample};

/// What is aimed at: fractions of the reference's cost.
pub(crate) struct Goals {
    pub(crate) wall: f64,
    pub(crate) cpu: f64,
}

const PEAK_GOAL_KIB: f64 = 6.0 * 1024.0;

/// How a row's numbers are meant.
#[derive(Clone, Copy)]
pub(crate) enum Unit {
    Milliseconds,
    Mebibytes,
    Programs,
    PerSecond,
    Gigabits,
}

/// When a row is good.
pub(crate) enum Goal {
    /// At most one in so many of the reference's.
    Fraction(f64),
    /// At least so many times the reference's.
    Times(f64),
    /// At most so many times the reference's.
    NoMoreThan(f64),
    /// At most this.
    Most(f64),
    /// Shown for the record.
    None,
}

struct Row {
    scenario: String,
    what: String,
    unit: Unit,
    ours: f64,
    reference: f64,
    goal: Goal,
}

/// All rows.
pub(crate) struct Report {
    iterations: usize,
    rows: Vec<Row>,
}

impl Report {
    pub(crate) fn new(iterations: usize) -> Self {
        Self { iterations, rows: Vec::new() }
    }

    pub(crate) fn operation(
        &mut self,
        scenario: &str,
        verb: &str,
        samples: [&[Sample]; 2],
        costs: [&Cost; 2],
        goals: &Goals,
    ) {
        let mut add = |what: &str, unit, [ours, reference]: [f64; 2], goal| {
            let (scenario, what) = (scenario.to_owned(), format!("{verb} {what}"));
            self.rows.push(Row { scenario, what, unit, ours, reference, goal });
        };
        let walls = samples.map(|samples| sorted(samples, |sample| sample.wall));
        let cpus = samples.map(|samples| sorted(samples, |sample| sample.cpu));
        add(
            "wall, median",
            Unit::Milliseconds,
            [quantile(&walls[0], 50), quantile(&walls[1], 50)],
            Goal::Fraction(goals.wall),
        );
        add("wall, p99", Unit::Milliseconds, [quantile(&walls[0], 99), quantile(&walls[1], 99)], Goal::None);
        add(
            "CPU, median",
            Unit::Milliseconds,
            [quantile(&cpus[0], 50), quantile(&cpus[1], 50)],
            Goal::Fraction(goals.cpu),
        );
        #[allow(clippy::cast_precision_loss, reason = "mebibytes, and a handful")]
        {
            let peaks = costs.map(|cost| cost.peak_kib as f64 / 1024.0);
            add("peak memory", Unit::Mebibytes, peaks, Goal::Most(PEAK_GOAL_KIB / 1024.0));
            add("programs run", Unit::Programs, costs.map(|cost| cost.programs as f64), Goal::Most(1.0));
        }
    }

    pub(crate) fn rate(&mut self, scenario: &str, verb: &str, rates: [&[f64]; 2], times: Option<f64>) {
        let [ours, reference] = rates.map(|rates| {
            let mut rates = rates.to_vec();
            rates.sort_by(f64::total_cmp);
            quantile(&rates, 50)
        });
        let goal = times.map_or(Goal::None, Goal::Times);
        let (scenario, what) = (scenario.to_owned(), format!("{verb} rate, median"));
        self.rows.push(Row { scenario, what, unit: Unit::PerSecond, ours, reference, goal });
    }

    /// Times of the same thing under two circumstances, and how much of the second's the first may be
    /// at most, as a fraction of one.
    pub(crate) fn times(&mut self, scenario: &str, what: &str, samples: [&[Sample]; 2], parts: f64) {
        let [ours, reference] = samples.map(|samples| quantile(&sorted(samples, |sample| sample.wall), 50));
        let (scenario, what) = (scenario.to_owned(), what.to_owned());
        self.rows.push(Row { scenario, what, unit: Unit::Milliseconds, ours, reference, goal: Goal::Fraction(parts) });
    }

    /// Two things that are not ours and the reference's: medians.
    pub(crate) fn beside(&mut self, scenario: &str, what: &str, unit: Unit, values: [&[f64]; 2], goal: Goal) {
        let [ours, reference] = values.map(|values| {
            let mut values = values.to_vec();
            values.sort_by(f64::total_cmp);
            quantile(&values, 50)
        });
        self.rows.push(Row { scenario: scenario.to_owned(), what: what.to_owned(), unit, ours, reference, goal });
    }

    /// Times of something that only we do, and the most milliseconds it may take.
    pub(crate) fn own(&mut self, scenario: &str, what: &str, times: Vec<Duration>, most: Option<f64>) {
        let mut times: Vec<f64> = times.iter().map(|time| time.as_secs_f64() * 1000.0).collect();
        times.sort_by(f64::total_cmp);
        self.rows.push(Row {
            scenario: scenario.to_owned(),
            what: what.to_owned(),
            unit: Unit::Milliseconds,
            ours: quantile(&times, 50),
            reference: f64::NAN,
            goal: most.map_or(Goal::None, Goal::Most),
        });
    }

    pub(crate) fn json(&self) -> Value {
        let row = |row: &Row| {
            json!({
                "scenario": row.scenario, "what": row.what, "unit": row.unit.name(), "ours": row.ours,
                "reference": row.reference, "goal": row.goal_words(), "reached": row.reached(),
            })
        };
        json!({ "iterations": self.iterations, "rows": self.rows.iter().map(row).collect::<Vec<_>>() })
    }
}

impl Row {
    fn reached(&self) -> Option<bool> {
        match self.goal {
            Goal::Fraction(parts) => Some(self.ours * parts <= self.reference),
            Goal::Times(times) => Some(self.ours >= self.reference * times),
            Goal::NoMoreThan(times) => Some(self.ours <= self.reference * times),
            Goal::Most(most) => Some(self.ours <= most),
            Goal::None => None,
        }
    }

    fn goal_words(&self) -> String {
        match self.goal {
            Goal::Fraction(parts) => format!("at most 1/{parts}"),
            Goal::Times(times) => format!("at least {times}x"),
            Goal::NoMoreThan(times) => format!("at most {times}x"),
            Goal::Most(most) => format!("at most {most}"),
            Goal::None => String::new(),
        }
    }

    fn ratio(&self) -> String {
        match self.unit {
            _ if self.reference.is_nan() || self.ours == 0.0 => String::new(),
            _ if matches!(self.goal, Goal::NoMoreThan(_)) => format!("{:.2}x", self.ours / self.reference),
            Unit::Gigabits => format!("{:.2}x", self.ours / self.reference),
            Unit::PerSecond => format!("{:.1}x", self.ours / self.reference),
            _ => format!("1/{:.1}", self.reference / self.ours),
        }
    }
}

impl Unit {
    fn name(self) -> &'static str {
        match self {
            Self::Milliseconds => "ms",
            Self::Mebibytes => "MiB",
            Self::Programs => "",
            Self::PerSecond => "/s",
            Self::Gigabits => "Gbit/s",
        }
    }

    fn show(self, value: f64) -> String {
        match self {
            _ if value.is_nan() => String::new(),
            Self::Programs => format!("{value:.0}"),
            Self::PerSecond => format!("{value:.0} {}", self.name()),
            _ => format!("{value:.2} {}", self.name()),
        }
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut scenario = "";
        for row in &self.rows {
            if row.scenario != scenario {
                scenario = &row.scenario;
                writeln!(f, "\n{scenario:<38}{:>12}{:>12}{:>9}   goal", "ours", "reference", "ratio")?;
            }
            let verdict = match row.reached() {
                Some(true) => "reached",
                Some(false) => "MISSED",
                None => "",
            };
            let (ours, reference) = (row.unit.show(row.ours), row.unit.show(row.reference));
            let line = format!(
                "  {:<36}{ours:>12}{reference:>12}{:>9}   {} {verdict}",
                row.what,
                row.ratio(),
                row.goal_words()
            );
            writeln!(f, "{}", line.trim_end())?;
        }
        write!(f, "\n{} operations of each kind, ours and the reference's by turns; whole processes", self.iterations)
    }
}

fn sorted(samples: &[Sample], of: impl Fn(&Sample) -> Duration) -> Vec<f64> {
    let mut values: Vec<f64> = samples.iter().map(|sample| of(sample).as_secs_f64() * 1000.0).collect();
    values.sort_by(f64::total_cmp);
    values
}

/// The value that `percent` of the sorted values do not exceed (nearest rank).
fn quantile(sorted: &[f64], percent: usize) -> f64 {
    let rank = (sorted.len() * percent).div_ceil(100).max(1);
    sorted.get(rank - 1).copied().unwrap_or(f64::NAN)
}
