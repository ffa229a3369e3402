//! `repair-chains`: what was not as it should be, and what became of it.

use std::time::Instant;

use netcore::Engine;
use netcore::engine::{Outcome, Repair, RepairOptions};
use plugins::heap;

use crate::cli::RepairArguments;
use crate::docker;
use crate::exit::{Exit, Failure};
use crate::output::{self, Cell, Tone, plain};

/// What a repair of a thousand attachments takes.
const HEAP: u32 = 16 << 20;

/// Repairs, or checks, and prints what there was to say.
pub(crate) async fn repair_chains(engine: &Engine, arguments: &RepairArguments, json: bool) -> Result<Exit, Failure> {
    let started = Instant::now();
    heap::grow_by(HEAP);
    let options = RepairOptions { network: arguments.network.network.clone(), check: arguments.check };
    let mut report = engine.repair(&options).await?;
    let persisted = match (arguments.persist, arguments.unpersist) {
        (true, _) => engine.persist(),
        (_, true) => engine.unpersist(),
        _ => Ok(None),
    };
    if let Err(error) = &persisted {
        report.faults.push(error.to_string());
    }
    match arguments.docker.as_deref().map(|socket| docker::repair(socket, arguments.check)) {
        None => {}
        Some(Ok(rules)) => report.objects.extend(rules),
        Some(Err(fault)) => report.faults.push(fault),
    }
    if json {
        output::json(&report)?;
    } else {
        output::table(&rows(&report))?;
        for fault in &report.faults {
            println!("{fault}");
        }
        if let Ok(Some(path)) = &persisted {
            let path = path.display();
            match arguments.persist {
                true => println!("switches are set at every start by {path}"),
                false => println!("switches are no longer set at every start: {path} was removed"),
            }
        }
        println!("{} in {} ms", summary(&report), started.elapsed().as_millis());
    }
    Ok(verdict(&report))
}

fn rows(report: &Repair) -> Vec<Vec<Cell>> {
    let row = |object: &netcore::engine::Repaired| {
        let tone = if object.outcome == Outcome::Restored { Tone::Good } else { Tone::Bad };
        vec![plain(&object.who), plain(&object.object), plain(&object.found), (object.outcome.to_string(), tone)]
    };
    report.objects.iter().map(row).collect()
}

fn summary(report: &Repair) -> String {
    let count = |outcome: fn(&Outcome) -> bool| report.count(outcome);
    let counts = [
        (count(|outcome| *outcome == Outcome::Restored), "restored"),
        (count(|outcome| *outcome == Outcome::Left), "to be restored"),
        (count(|outcome| matches!(outcome, Outcome::Failed { .. })), "not restored"),
        (report.faults.len(), "other faults"),
    ];
    let words: Vec<String> =
        counts.iter().filter(|(count, _)| *count > 0).map(|(count, what)| format!("{count} {what}")).collect();
    if words.is_empty() { format!("{} intact", report.attachments) } else { words.join(", ") }
}

/// A record that makes no sense is a part that could not be done, whatever became of the rest.
fn verdict(report: &Repair) -> Exit {
    let failed = report.count(|outcome| matches!(outcome, Outcome::Failed { .. })) + report.faults.len();
    let left = report.count(|outcome| *outcome == Outcome::Left);
    let restored = report.count(|outcome| *outcome == Outcome::Restored);
    match (failed, left) {
        (0, 0) => Exit::Done,
        (_, 1..) => Exit::Drift,
        _ if restored == 0 && report.attachments == 0 => Exit::Nothing,
        _ if restored == 0 && !report.objects.is_empty() => Exit::Nothing,
        _ => Exit::Partial,
    }
}
