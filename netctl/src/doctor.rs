//! `doctor`: what became of each flow that was followed.

use std::path::Path;

use netcore::engine::{Cure, Diagnosis};
use netcore::model::Name;
use netcore::{Engine, Error};

use crate::cli::DoctorArguments;
use crate::docker;
use crate::exit::{Exit, Failure};
use crate::output::{self, Cell, Tone, plain};

/// Diagnoses, and prints what there is to say.
pub(crate) async fn doctor(engine: &Engine, arguments: &DoctorArguments, json: bool) -> Result<Exit, Failure> {
    let diagnoses = diagnose(engine, arguments).await?;
    if json {
        output::json(&diagnoses)?;
    } else {
        diagnoses.iter().try_for_each(|diagnosis| print(diagnosis, arguments.verbose))?;
    }
    let is_stopped = |diagnosis: &Diagnosis| diagnosis.stopped.is_some();
    Ok(match diagnoses.iter().any(is_stopped) {
        true => Exit::Drift,
        false if diagnoses.iter().all(Diagnosis::passes) => Exit::Done,
        false => Exit::Partial,
    })
}

async fn diagnose(engine: &Engine, arguments: &DoctorArguments) -> Result<Vec<Diagnosis>, Failure> {
    let socket = Path::new(docker::SOCKET);
    let about = arguments.about.as_deref();
    if about.is_some_and(docker::is_missing_chain) {
        return Ok(vec![docker::diagnose_error(socket)]);
    }
    let about: Option<Name> = about.map(str::parse).transpose().map_err(Failure::usage)?;
    let mut diagnoses = match engine.diagnose(about.as_ref(), arguments.flow.as_ref()).await {
        Err(error @ Error::Invalid { .. }) => return Err(Failure::usage(error)),
        diagnoses => diagnoses?,
    };
    if let (Some(name), true) = (&about, diagnoses.is_empty()) {
        let message =
            format!("nothing is published of {name}, and nothing leaves it: ask about some traffic, with --flow");
        return Err(Failure { exit: Exit::Partial, message });
    }
    if about.is_none() && arguments.flow.is_none() {
        diagnoses.extend(docker::diagnose(socket));
    }
    Ok(diagnoses)
}

fn print(diagnosis: &Diagnosis, verbose: bool) -> std::io::Result<()> {
    let verdict = match (&diagnosis.stopped, diagnosis.doubts.is_empty()) {
        (Some(_), _) => ("is stopped", Tone::Bad),
        (None, false) => ("may be stopped", Tone::Bad),
        (None, true) => ("passes", Tone::Good),
    };
    output::table(&[vec![plain(&diagnosis.flow), (verdict.0.to_owned(), verdict.1)]])?;
    let mut rows: Vec<Vec<Cell>> = Vec::new();
    if verbose {
        rows.extend(diagnosis.passed.iter().map(|passed| vec![plain(""), plain(&passed.at), plain(&passed.what)]));
    }
    rows.extend(diagnosis.doubts.iter().map(|doubt| vec![plain(""), plain("doubt"), plain(doubt)]));
    if let Some(stopped) = &diagnosis.stopped {
        rows.push(vec![plain(""), plain(&stopped.at), (stopped.by.clone(), Tone::Bad)]);
        let what = match stopped.cure {
            Cure::Command(_) => "cure",
            Cure::Advice(_) => "advice",
        };
        rows.push(vec![plain(""), plain(what), plain(&stopped.cure)]);
    }
    output::table(&rows)
}
