//! Docker's own chains: what a running dockerd has written into iptables and somebody else has thrown
//! away. It rebuilds them when it is restarted, and with it, every container; here they are put back
//! beside it. Only what is missing is added, in one transaction a table, and nothing is removed.

use std::path::Path;
use std::process::Command;

use netcore::engine::{Cure, Diagnosis, Outcome, Repaired, Stopped};

use crate::docker_api::{self, Docker};
use crate::docker_rules;
use crate::docker_tables::{self, Missing};

/// Where dockerd listens unless told otherwise.
pub(crate) const SOCKET: &str = "/var/run/docker.sock";

/// Finds what is missing of the rules of the dockerd behind `socket`, and puts it back unless this is only
/// a check; one line for each rule.
pub(crate) fn repair(socket: &Path, check: bool) -> Result<Vec<Repaired>, String> {
    let docker = docker_api::ask(socket)
        .map_err(|error| format!("dockerd at {}: {error}: is it running, and is this its socket?", socket.display()))?;
    let missing = missing(&docker)?;
    let mut report = Vec::new();
    for (table, missing) in missing {
        let outcome = match check {
            true => Outcome::Left,
            false => match docker_tables::restore(&table, &missing) {
                Ok(()) => Outcome::Restored,
                Err(reason) => Outcome::Failed { reason },
            },
        };
        report.extend(missing.lines().map(|object| Repaired {
            who: "docker".to_owned(),
            object: format!("{table} {object}"),
            found: "missing".to_owned(),
            outcome: outcome.clone(),
        }));
    }
    Ok(report)
}

/// What is missing in each table.
fn missing(docker: &Docker) -> Result<Vec<(String, Missing)>, String> {
    let wanted = docker_rules::of(docker)?;
    let mut found = Vec::new();
    for (table, wanted) in wanted {
        let present = docker_tables::present(&table)?;
        let missing = docker_tables::compare(&wanted, &present);
        if !missing.is_empty() {
            found.push((table, missing));
        }
    }
    Ok(found)
}

/// The errors of iptables that a chain which is gone is behind (iptables 1.8, both kinds).
pub(crate) fn is_missing_chain(text: &str) -> bool {
    text.contains("No chain/target/match by that name")
        || text.contains("Couldn't load target")
        || text.contains("Chain '") && text.contains("does not exist")
        || text.contains("is incompatible, use 'nft' tool")
}

/// Whether the rules of a dockerd that runs are as it wrote them; nothing when none runs.
pub(crate) fn diagnose(socket: &Path) -> Option<Diagnosis> {
    let docker = docker_api::ask(socket).ok()?;
    let mut diagnosis =
        Diagnosis { flow: format!("Docker {}", docker.version), passed: Vec::new(), stopped: None, doubts: Vec::new() };
    match missing(&docker) {
        Err(reason) => diagnosis.doubts.push(reason),
        Ok(missing) if missing.is_empty() => {}
        Ok(missing) => {
            let rules: Vec<String> = missing
                .iter()
                .flat_map(|(table, missing)| missing.lines().map(move |line| format!("{table} {line}")))
                .collect();
            let first = rules.first().map(String::as_str).unwrap_or_default();
            let more = if rules.len() > 1 { format!(" and {} more", rules.len() - 1) } else { String::new() };
            diagnosis.stopped = Some(Stopped {
                at: "host".to_owned(),
                by: format!(
                    "missing of Docker's rules: {first}{more}; published ports do not answer, and new containers fail with \
                     `iptables: No chain/target/match by that name`"
                ),
                cure: Cure::Command("netctl repair-chains --docker".to_owned()),
            });
        }
    }
    Some(diagnosis)
}

/// What to say of such an error where no dockerd runs, or nothing of its rules is missing.
pub(crate) fn diagnose_error(socket: &Path) -> Diagnosis {
    let intact = diagnose(socket);
    let is_stopped = |diagnosis: &Diagnosis| diagnosis.stopped.is_some() || !diagnosis.doubts.is_empty();
    match intact {
        Some(diagnosis) if is_stopped(&diagnosis) => diagnosis,
        other => {
            let which = match &other {
                Some(_) => "all of dockerd's chains are there",
                None => "no dockerd answers",
            };
            Diagnosis {
                flow: "iptables".to_owned(),
                passed: Vec::new(),
                stopped: Some(Stopped {
                    at: "host".to_owned(),
                    by: format!("a chain that somebody relies on is gone; {which} ({})", socket.display()),
                    cure: Cure::Advice(
                        "the chain is of the program that printed the message: restart it, or for ours, \
                         `netctl repair-chains`"
                            .to_owned(),
                    ),
                }),
                doubts: Vec::new(),
            }
        }
    }
}

/// Runs a program of iptables, and gives back what it printed.
pub(crate) fn run(program: &str, arguments: &[&str]) -> Result<String, String> {
    let output = Command::new(program).args(arguments).output().map_err(|error| format!("{program}: {error}"))?;
    if !output.status.success() {
        return Err(format!("{program}: {}", String::from_utf8_lossy(&output.stderr).trim()));
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}
