//! `plan`: what an ADD would do here.

use netcore::engine::Preview;
use netcore::model::Attachment;
use netcore::{Engine, Error};
use plugins::conflist::{self, Member};
use serde::Serialize;

use crate::cli::PlanArguments;
use crate::exit::{Exit, Failure};
use crate::output::{self, Tone, plain};

/// What one plugin of the list would do.
#[derive(Serialize)]
struct Planned {
    plugin: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    plan: Option<Preview>,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
}

/// Prints what attaching would do.
pub(crate) async fn plan(engine: &Engine, arguments: &PlanArguments, json: bool) -> Result<Exit, Failure> {
    let path = arguments.conflist.display();
    let text = std::fs::read(&arguments.conflist).map_err(|error| Failure::usage(format!("read {path}: {error}")))?;
    let members = conflist::read(&text).map_err(|error| Failure::usage(format!("{path}: {error}")))?;
    let mut planned = Vec::new();
    for member in members {
        planned.push(look(engine, arguments, member).await);
    }
    if json {
        output::json(&planned)?;
    } else {
        planned.iter().try_for_each(print)?;
    }
    Ok(if planned.iter().any(|planned| planned.error.is_some()) { Exit::Partial } else { Exit::Done })
}

async fn look(engine: &Engine, arguments: &PlanArguments, member: Member) -> Planned {
    let nothing = Planned { plugin: member.plugin, plan: None, error: None };
    let Some(network) = member.network else { return nothing };
    let mut attachment = Attachment::new(arguments.container.clone(), arguments.netns.clone());
    if member.publishes {
        attachment.publish.clone_from(&arguments.publish);
    }
    match engine.preview(&network, attachment).await {
        Ok(plan) => Planned { plan: Some(plan), ..nothing },
        // A container of the same name is no reason not to know.
        Err(Error::AlreadyAttached { network, attachment }) => {
            let error = format!("{network}: {attachment} is attached already: name another with --container");
            Planned { error: Some(error), ..nothing }
        }
        Err(error) => Planned { error: Some(error.to_string()), ..nothing },
    }
}

fn print(planned: &Planned) -> std::io::Result<()> {
    let mut rows = Vec::new();
    match (&planned.plan, &planned.error) {
        (_, Some(error)) => rows.push(vec![plain(&planned.plugin), (error.clone(), Tone::Bad)]),
        (None, None) => rows.push(vec![plain(&planned.plugin), plain("is somebody else's: what it does is not known")]),
        (Some(plan), None) => {
            for leased in plan.lease.iter().flat_map(|lease| &lease.addresses) {
                let gateway = leased.gateway.map_or_else(String::new, |gateway| format!(" via {gateway}"));
                rows.push(vec![plain(&planned.plugin), plain(format_args!("lease {}{gateway}", leased.address))]);
            }
            let steps = plan.shared.iter().chain(&plan.own);
            rows.extend(steps.map(|step| vec![plain(&planned.plugin), plain(step)]));
        }
    }
    output::table(&rows)
}
