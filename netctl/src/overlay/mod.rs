//! `overlay`: the nodes of a network that spans several hosts.

mod agent;
mod etcd;
mod file;
mod join;
mod key;
mod membership;
mod session;
mod state;
mod status;

use netcore::Engine;
use netcore::model::{Mode, Name, Network, OverlayConfig, PeerSource};
use netcore::peers::this_node;

use crate::cli::{OverlayArguments, OverlayVerb};
use crate::exit::{Exit, Failure};

/// Answers one of the overlay's verbs.
pub(crate) async fn answer(verb: &OverlayVerb, json: bool) -> Result<Exit, Failure> {
    let engine = Engine::open()?;
    match verb {
        OverlayVerb::Agent { overlay, underlay } => {
            agent::run(&engine, &Overlay::read(overlay)?, underlay.clone()).await
        }
        OverlayVerb::Status(arguments) => status::status(&engine, arguments.network.as_ref(), json).await,
        OverlayVerb::Peers(overlay) => status::peers(&Overlay::read(overlay)?, json).await,
        OverlayVerb::Join { overlay, underlay } => {
            join::join(&engine, &Overlay::read(overlay)?, underlay.clone(), json).await
        }
        OverlayVerb::Key { network } => key::key(&engine, network, json),
        OverlayVerb::Leave { overlay, force } => join::leave(&engine, &Overlay::read(overlay)?, *force, json).await,
    }
}

/// The network that a verb is about, for the node that this host is.
struct Overlay {
    network: Network,
    config: OverlayConfig,
    node: Name,
}

impl Overlay {
    fn read(arguments: &OverlayArguments) -> Result<Self, Failure> {
        let path = arguments.config.display();
        let text = std::fs::read(&arguments.config).map_err(|error| Failure::usage(format!("read {path}: {error}")))?;
        let members = plugins::conflist::read(&text).map_err(|error| Failure::usage(format!("{path}: {error}")))?;
        let network = members.into_iter().filter_map(|member| member.network);
        let found = network.filter_map(|network| match network.mode.clone() {
            Mode::Overlay(config) => Some((network, config)),
            _ => None,
        });
        let Some((network, config)) = found.into_iter().next() else {
            return Err(Failure::usage(format!("{path}: no plugin of type overlay is in it")));
        };
        let node = match (&arguments.node, &config.source) {
            (Some(node), PeerSource::Etcd(_)) => node.clone(),
            (Some(_), PeerSource::File(file)) => {
                let message = format!("--node: {} says which node this is", file.display());
                return Err(Failure::usage(message));
            }
            (None, PeerSource::Etcd(_)) => this_node("name it with --node").map_err(Failure::usage)?,
            // The file may name another; it is asked first.
            (None, PeerSource::File(file)) => {
                let read = netcore::peers::Source::read(&netcore::peers::File::new(file), &config);
                read.map_or_else(|_| this_node("set it in the file"), |reading| Ok(reading.node))
                    .map_err(Failure::usage)?
            }
        };
        Ok(Self { network, config, node })
    }
}
