//! `ls` and `show`: what is attached, where, with which addresses and ports, who shares whose
//! namespace, and whether it is intact.

use netcore::engine::{Share, Standing};
use netcore::model::{AttachmentId, Name};
use netcore::{Engine, Error};
use serde::Serialize;

use crate::exit::{Exit, Failure};
use crate::output::{self, Tone, plain};

/// One line of `ls`.
#[derive(Serialize)]
struct Listed {
    network: String,
    attachment: String,
    mode: &'static str,
    addresses: Vec<String>,
    publish: Vec<String>,
    netns: Option<String>,
    /// In whose namespace it stands, in mode `container`.
    #[serde(skip_serializing_if = "Option::is_none")]
    shares: Option<Shares>,
    /// Who stands in its namespace: `NETWORK/CONTAINER/INTERFACE`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    guests: Vec<String>,
}

/// In whose namespace an attachment stands.
#[derive(Serialize)]
struct Shares {
    /// The container, or the path, or the namespace's number where no more is known.
    with: String,
    /// Whether that is still attached, or there.
    gone: bool,
}

impl Listed {
    fn new(standing: &Standing, shares: &[Share]) -> Self {
        let id = &standing.attachment.id;
        let own = shares.iter().find(|share| share.network == standing.network.name && share.guest == *id);
        let guests = shares.iter().filter(|share| share.owner.as_ref() == Some(&id.container) && !share.owner_is_gone);
        Self {
            network: standing.network.name.to_string(),
            attachment: standing.attachment.id.to_string(),
            mode: standing.network.mode.name(),
            addresses: standing
                .lease
                .iter()
                .flat_map(|lease| &lease.addresses)
                .map(|l| l.address.to_string())
                .collect(),
            publish: standing.attachment.publish.iter().map(ToString::to_string).collect(),
            netns: standing.attachment.netns.as_ref().map(|path| path.display().to_string()),
            shares: own.map(|share| Shares { with: share.with(), gone: share.owner_is_gone }),
            guests: guests.map(|share| format!("{}/{}", share.network, share.guest)).collect(),
        }
    }

    /// `shares web-1`, `shared by own/box/eth0`
    fn company(&self) -> Vec<(String, Tone)> {
        let shares = self.shares.iter().map(|shares| match shares.gone {
            true => (format!("shares {}, which is gone", shares.with), Tone::Bad),
            false => plain(format_args!("shares {}", shares.with)),
        });
        shares
            .chain((!self.guests.is_empty()).then(|| plain(format_args!("shared by {}", self.guests.join(" ")))))
            .collect()
    }
}

/// Lists every attachment, or those of `network`.
pub(crate) fn ls(engine: &Engine, network: Option<&Name>, json: bool) -> Result<Exit, Failure> {
    let (standing, faults) = engine.attachments(network)?;
    let shares = engine.shares()?;
    let listed: Vec<Listed> = standing.iter().map(|standing| Listed::new(standing, &shares)).collect();
    if json {
        output::json(&listed)?;
    } else {
        let row = |listed: &Listed| {
            let mut row = vec![
                plain(&listed.network),
                plain(&listed.attachment),
                plain(listed.mode),
                plain(listed.addresses.join(" ")),
                plain(listed.publish.join(" ")),
            ];
            row.extend(listed.company());
            row
        };
        output::table(&listed.iter().map(row).collect::<Vec<_>>())?;
    }
    faults.iter().for_each(|fault| eprintln!("netctl: {fault}"));
    Ok(match (faults.is_empty(), listed.is_empty()) {
        (true, _) => Exit::Done,
        (false, false) => Exit::Partial,
        (false, true) => Exit::Nothing,
    })
}

/// One attachment, as `show` has it.
#[derive(Serialize)]
struct Shown {
    #[serde(flatten)]
    listed: Listed,
    gateways: Vec<String>,
    routes: Vec<String>,
    intact: bool,
    drift: Vec<String>,
}

/// Shows the attachments that `name` means.
pub(crate) async fn show(engine: &Engine, name: &str, json: bool) -> Result<Exit, Failure> {
    let wanted = Wanted::parse(name)?;
    let (standing, faults) = engine.attachments(wanted.network.as_ref())?;
    faults.iter().for_each(|fault| eprintln!("netctl: {fault}"));
    let shares = engine.shares()?;
    let mut shown = Vec::new();
    for standing in standing.iter().filter(|standing| wanted.means(&standing.attachment.id)) {
        let drift = match engine.check(&standing.network, &standing.attachment.id).await {
            Ok(()) => Vec::new(),
            Err(Error::Drift(drifts)) => drifts.iter().map(ToString::to_string).collect(),
            Err(error) => vec![error.to_string()],
        };
        let lease = standing.lease.clone().unwrap_or_default();
        let gateways = lease.addresses.iter().filter_map(|leased| leased.gateway).map(|gateway| gateway.to_string());
        let routes = lease.routes.iter().map(|route| match route.gw {
            Some(gateway) => format!("{} via {gateway}", route.dst),
            None => route.dst.to_string(),
        });
        shown.push(Shown {
            listed: Listed::new(standing, &shares),
            gateways: gateways.collect(),
            routes: routes.collect(),
            intact: drift.is_empty(),
            drift,
        });
    }
    if shown.is_empty() {
        let left = shares.iter().filter(|share| share.owner.as_ref() == Some(&wanted.container));
        let left: Vec<String> = left.map(|share| format!("{}/{}", share.network, share.guest)).collect();
        let message = match left.is_empty() {
            true => format!("{name} is not attached: `netctl ls` lists what is"),
            false => format!("{name} is not attached; {} still shares its namespace", left.join(", ")),
        };
        return Err(Failure { exit: Exit::Drift, message });
    }
    if json {
        output::json(&shown)?;
    } else {
        shown.iter().try_for_each(print)?;
    }
    Ok(if shown.iter().all(|shown| shown.intact) { Exit::Done } else { Exit::Drift })
}

fn print(shown: &Shown) -> std::io::Result<()> {
    let listed = &shown.listed;
    let state = if shown.intact { ("intact".to_owned(), Tone::Good) } else { ("not intact".to_owned(), Tone::Bad) };
    let mut rows = vec![
        vec![plain("attachment"), plain(format_args!("{}/{}", listed.network, listed.attachment))],
        vec![plain("mode"), plain(listed.mode)],
        vec![plain("namespace"), plain(listed.netns.as_deref().unwrap_or("unknown"))],
    ];
    let lists = [
        ("address", &listed.addresses),
        ("gateway", &shown.gateways),
        ("route", &shown.routes),
        ("published", &listed.publish),
    ];
    for (what, values) in lists {
        rows.extend(values.iter().map(|value| vec![plain(what), plain(value)]));
    }
    rows.extend(listed.company().into_iter().map(|company| vec![plain("namespace"), company]));
    rows.push(vec![plain("state"), state]);
    rows.extend(shown.drift.iter().map(|drift| vec![plain(""), (drift.clone(), Tone::Bad)]));
    output::table(&rows)
}

/// Which attachments a name on the command line means.
struct Wanted {
    network: Option<Name>,
    container: Name,
    interface: Option<String>,
}

impl Wanted {
    fn parse(text: &str) -> Result<Self, Failure> {
        let name = |text: &str| text.parse::<Name>().map_err(Failure::usage);
        let mut parts = text.split('/');
        let (first, second, third) = (parts.next().unwrap_or_default(), parts.next(), parts.next());
        if parts.next().is_some() {
            return Err(Failure::usage(format!(
                "{text:?} is not CONTAINER, NETWORK/CONTAINER or NETWORK/CONTAINER/INTERFACE"
            )));
        }
        Ok(match second {
            None => Self { network: None, container: name(first)?, interface: None },
            Some(second) => {
                Self { network: Some(name(first)?), container: name(second)?, interface: third.map(str::to_owned) }
            }
        })
    }

    fn means(&self, id: &AttachmentId) -> bool {
        id.container == self.container
            && self.interface.as_ref().is_none_or(|interface| id.interface.as_str() == interface)
    }
}
