//! The one definition of what can be asked: arguments, help, completions and man pages come from
//! it.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};
use clap_complete::Shell;
use netcore::model::{AttachmentId, Flow, Name, PortMapping, Protocol};

use crate::docker::SOCKET;

/// Exit codes, as `--help` and the man page give them.
const EXIT_CODES: &str = "\
Exit codes:
  0  everything is as it should be, or is again
  1  something is not (repair-chains --check, show, doctor, overlay
     status and peers), or there is no such attachment
  2  the command line, or a file named on it, makes no sense
  3  a part could not be done, or not be told (doctor): the lines say which
  4  nothing could be done: no permission, no records to be read, no nf_tables";

/// Looks after the networks of containers.
#[derive(Debug, Parser)]
#[command(name = "netctl", version, about, after_help = EXIT_CODES, after_long_help = EXIT_CODES)]
pub(crate) struct Cli {
    /// Print JSON instead of text
    #[arg(long, global = true)]
    pub(crate) json: bool,
    /// The verb
    #[command(subcommand)]
    pub(crate) verb: Verb,
}

/// What can be asked.
#[derive(Debug, Subcommand)]
pub(crate) enum Verb {
    /// Bring back everything the records ask for
    ///
    /// Chains and published ports, bridges and their addresses, the host's ends of links, settings:
    /// whatever somebody else has flushed, deleted or switched off. What is not ours is not touched.
    /// Running it when nothing is missing changes nothing.
    RepairChains(RepairArguments),
    /// Repair by itself whatever others change, as soon as they do
    ///
    /// Says what it brought back, and who changed the firewall where the kernel tells. Waits longer and
    /// longer for what does not stay. Costs nothing while nothing happens. Ends on SIGTERM or SIGINT.
    Watch(WatchArguments),
    /// List what is attached, and who shares whose namespace
    Ls(NetworkArgument),
    /// Show one attachment, and whether it is intact
    Show {
        /// CONTAINER, NETWORK/CONTAINER or NETWORK/CONTAINER/INTERFACE
        attachment: String,
    },
    /// Follow traffic on its way, and name the first thing that stops it, with its cure
    ///
    /// Nothing is sent and nothing is changed. Without --flow: to each published port from outside and from
    /// the host, and from the containers to the outside. Exits 0 only when all of it would pass, 1 when something
    /// stops it, 3 when a rule may stop it that cannot be evaluated.
    Doctor(DoctorArguments),
    /// Say what attaching a container would do here, without doing it
    Plan(PlanArguments),
    /// Look after the nodes of a network that spans several hosts
    #[command(subcommand)]
    Overlay(OverlayVerb),
    /// Print completions for a shell
    Completions {
        /// The shell
        shell: Shell,
    },
    /// Write the man pages into a directory
    #[command(hide = true)]
    Man {
        /// The directory
        directory: PathBuf,
    },
}

/// What can be asked about an overlay.
#[derive(Debug, Subcommand)]
pub(crate) enum OverlayVerb {
    /// Follow the source, and keep this node's ways to the others as it says
    ///
    /// With etcd, the node gets its subnet here. When etcd is away, what was known stays; a node goes
    /// when it withdraws, never because nothing is heard of it. With a file, an edit is applied as
    /// soon as it is written. Runs until it is told to stop, and tells systemd when it is ready.
    Agent {
        /// Which network, and for which node
        #[command(flatten)]
        overlay: OverlayArguments,
        /// By which address other nodes reach this one, or the interface that has it; the link of the
        /// default route without
        #[arg(long, value_name = "ADDRESS")]
        underlay: Option<String>,
    },
    /// Show who is in the overlays of this host, when their sources were heard last, and what is not as
    /// it should be
    Status(NetworkArgument),
    /// Show who is in an overlay by its source, now
    Peers(OverlayArguments),
    /// Have etcd give this node its subnet, without following what becomes of the others
    Join {
        /// Which network, and which node
        #[command(flatten)]
        overlay: OverlayArguments,
        /// As for the agent
        #[arg(long, value_name = "ADDRESS")]
        underlay: Option<String>,
    },
    /// Give the subnet of a node back, this one or one that will not return
    Leave {
        /// Which network, and which node
        #[command(flatten)]
        overlay: OverlayArguments,
        /// Also when containers have addresses of it, or the node's agent is at work
        #[arg(long)]
        force: bool,
    },
    /// Print the public key that the other nodes of an encrypted network have to know this one by
    ///
    /// It is the `publicKey` of this node's entry in the file of peers. The key is made when it is first
    /// asked for; its private half is in /var/lib/netcore/overlay/NETWORK.key and stays there.
    Key {
        /// The network's name
        network: Name,
    },
}

/// Which overlay, and which of its nodes.
#[derive(Debug, Args)]
pub(crate) struct OverlayArguments {
    /// The configuration that the runtime attaches containers by
    #[arg(long, value_name = "CONFLIST")]
    pub(crate) config: PathBuf,
    /// The node; NETCORE_NODE or the host's name without. A file says it itself
    #[arg(long, value_name = "NAME")]
    pub(crate) node: Option<Name>,
}

/// Which network.
#[derive(Debug, Args)]
pub(crate) struct NetworkArgument {
    /// Only this network
    #[arg(long, value_name = "NAME")]
    pub(crate) network: Option<Name>,
}

/// What `repair-chains` is to do.
#[derive(Debug, Args)]
pub(crate) struct RepairArguments {
    /// Change nothing, say what is not as it should be, and exit 1 if anything is
    #[arg(long, visible_alias = "dry-run")]
    pub(crate) check: bool,
    /// Have the host's switches set from its next start on, in /etc/sysctl.d/99-netcore.conf
    #[arg(long, conflicts_with = "check")]
    pub(crate) persist: bool,
    /// Take back what --persist wrote; what is switched now stays so
    #[arg(long, conflicts_with_all = ["check", "persist"])]
    pub(crate) unpersist: bool,
    /// Put back what is missing of the rules of a running dockerd, too, which listens at SOCKET
    #[arg(long, value_name = "SOCKET", num_args = 0..=1, require_equals = true, default_missing_value = SOCKET)]
    pub(crate) docker: Option<PathBuf>,
    /// Which network
    #[command(flatten)]
    pub(crate) network: NetworkArgument,
}

/// How `watch` is to watch.
#[derive(Debug, Args)]
pub(crate) struct WatchArguments {
    /// Look at everything every so many seconds as well; what the kernel does not announce is looked at
    /// every ten seconds in any case
    #[arg(long, value_name = "SECONDS", value_parser = clap::value_parser!(u64).range(1..))]
    pub(crate) every: Option<u64>,
}

/// What `doctor` is to follow.
#[derive(Debug, Args)]
pub(crate) struct DoctorArguments {
    /// A container or a network; everything that is attached, and a running dockerd's own rules, when
    /// absent; or an error that iptables has printed
    #[arg(value_name = "CONTAINER|NETWORK|MESSAGE")]
    pub(crate) about: Option<String>,
    /// FROM→TO:PORT or FROM->TO:PORT, with /udp if it is that; FROM and TO are a container, `host`,
    /// `outside` or an address
    #[arg(long, value_name = "FLOW")]
    pub(crate) flow: Option<Flow>,
    /// Show what the traffic got past, too
    #[arg(long, short)]
    pub(crate) verbose: bool,
}

/// What `plan` is to look at.
#[derive(Debug, Args)]
pub(crate) struct PlanArguments {
    /// The configuration: a conflist, or the configuration of one plugin
    pub(crate) conflist: PathBuf,
    /// The container: ID or ID/INTERFACE
    #[arg(long, default_value = "example", value_name = "ID")]
    pub(crate) container: AttachmentId,
    /// The container's network namespace; without it, it is taken to be empty
    #[arg(long, value_name = "PATH")]
    pub(crate) netns: Option<PathBuf>,
    /// Publish a port: HOST:CONTAINER or HOST:CONTAINER/PROTOCOL
    #[arg(long, value_name = "PORTS", value_parser = mapping)]
    pub(crate) publish: Vec<PortMapping>,
}

fn mapping(text: &str) -> Result<PortMapping, String> {
    let (ports, protocol) = text.split_once('/').unwrap_or((text, "tcp"));
    let protocol: Protocol = protocol.parse().map_err(|error| format!("{error}"))?;
    let port = |text: &str| text.parse().ok().filter(|port| *port != 0).ok_or(format!("{text:?} is not a port"));
    let (host, container) = ports.split_once(':').ok_or("expected HOST:CONTAINER")?;
    Ok(PortMapping { protocol, ..PortMapping::tcp(port(host)?, port(container)?) })
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_definition_holds_together() {
        Cli::command().debug_assert();
    }

    #[test]
    fn ports_are_read_as_runtimes_write_them() {
        assert_eq!(mapping("8080:80"), Ok(PortMapping::tcp(8080, 80)));
        assert_eq!(mapping("53:5353/udp").map(|mapping| mapping.protocol), Ok(Protocol::Udp));
        for bad in ["80", "0:80", "80:65536", "80:80/icmp", ":"] {
            assert!(mapping(bad).is_err(), "{bad}");
        }
    }
}
