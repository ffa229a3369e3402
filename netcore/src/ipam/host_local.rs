//! Which address an attachment gets, and when one is free again. The arithmetic is in
//! [`range`], the files in [`reservations`](super::reservations); here is the policy.

use std::net::IpAddr;
use std::path::{Path, PathBuf};

use ipnetwork::IpNetwork;

use super::range::{self, Pool, Set};
use super::reservations::{Directory, Draft, Holder, Locked, Reservation};
use super::stamp::{Boot, Stamp};
use super::{Ipam, Request, resolv_conf};
use crate::error::{Error, Result};
use crate::model::{self, AttachmentId, Dns, Lease, LeasedAddress, Name};

/// How many addresses are tried before it is cheaper to list the directory.
const NEARBY: usize = 32;

/// Addresses out of ranges, round robin, remembered in the files of the reference `host-local`
/// plugin, each of the two able to take back what the other gave out.
///
/// A reservation ends when its attachment is detached, when garbage collection finds it without
/// an attachment, or when its address is wanted and it turns out to be of an earlier boot and its
/// namespace gone.
#[derive(Debug)]
pub struct HostLocal<'a> {
    config: &'a model::HostLocal,
    boot_id: PathBuf,
}

impl<'a> HostLocal<'a> {
    /// Where reservations are kept unless the configuration says otherwise.
    pub const DATA_DIR: &'static str = "/var/lib/cni/networks";

    /// Address management as `config` wants it.
    #[must_use]
    pub fn new(config: &'a model::HostLocal) -> Self {
        Self { config, boot_id: Boot::PATH.into() }
    }

    /// The same in another boot: the one that the file at `path` names.
    #[cfg(test)]
    pub(super) fn in_boot(self, path: &Path) -> Self {
        Self { boot_id: path.to_owned(), ..self }
    }

    fn data_dir(&self) -> &Path {
        self.config.data_dir.as_deref().unwrap_or(Path::new(Self::DATA_DIR))
    }

    fn open(&self, network: &Name) -> Result<Option<Directory>> {
        Directory::open(self.data_dir(), network)
    }
}

impl Ipam for HostLocal<'_> {
    fn allocate(&self, request: &Request<'_>) -> Result<Lease> {
        let sets = range::sets(self.config)?;
        let wishes = distribute(&sets, &request.attachment.addresses)?;
        let dns = self.config.resolv_conf.as_deref().map_or(Ok(Dns::default()), resolv_conf::read)?;

        let boot = Boot::read(&self.boot_id);
        let id = &request.attachment.id;
        let stamp = boot.clone().map(|boot| Stamp::new(boot, request.attachment.netns.as_deref()));
        let directory = Directory::create(self.data_dir(), request.network)?;
        let draft = directory.draft(id, stamp.as_ref())?;
        let locked = directory.lock()?;
        let draft = draft.map_or_else(|| locked.draft(id, stamp.as_ref()), Ok)?;
        let mut desk =
            Desk { network: request.network, id, boot, directory: &directory, locked, draft, given: Vec::new() };

        let addresses = sets.iter().zip(wishes).enumerate().map(|(number, (set, wish))| desk.serve(number, set, wish));
        match addresses.collect() {
            Ok(addresses) => Ok(Lease { addresses, routes: self.config.routes.clone(), dns, namespace: None }),
            Err(error) => {
                desk.take_back();
                Err(error)
            }
        }
    }

    fn preview(&self, request: &Request<'_>) -> Result<Option<Lease>> {
        let sets = range::sets(self.config)?;
        let wishes = distribute(&sets, &request.attachment.addresses)?;
        let dns = self.config.resolv_conf.as_deref().map_or(Ok(Dns::default()), resolv_conf::read)?;
        let (directory, boot) = (self.open(request.network)?, Boot::read(&self.boot_id));
        let held = |address| directory.as_ref().map_or(Ok(None), |directory| directory.get(address));
        let is_ours =
            |held: &Option<Reservation>| held.as_ref().is_some_and(|held| held.holder.is(&request.attachment.id));
        let give = |(number, (set, wish)): (usize, (&Set, Option<IpAddr>))| {
            let (address, pool) = match (wish.and_then(|wish| Some((wish, set.pool_of(wish)?))), &directory) {
                (Some((wish, pool)), _) => {
                    let held = held(wish)?;
                    if !is_ours(&held) && !is_free(held.as_ref(), boot.as_ref()) {
                        return Err(taken(request.network, wish, &held.map_or(Holder::Nobody, |held| held.holder)));
                    }
                    (wish, pool)
                }
                (None, Some(directory)) => choose(directory, number, set, |address| {
                    Ok(!directory.has(address)? || is_free(directory.get(address)?.as_ref(), boot.as_ref()))
                })?
                .ok_or_else(|| exhausted(request.network, set))?,
                (None, None) => set.after(None).next().ok_or_else(|| exhausted(request.network, set))?,
            };
            leased(address, pool)
        };
        let addresses = sets.iter().zip(wishes).enumerate().map(give).collect::<Result<_>>()?;
        Ok(Some(Lease { addresses, routes: self.config.routes.clone(), dns, ..Lease::default() }))
    }

    fn release(&self, request: &Request<'_>) -> Result<()> {
        let Some(directory) = self.open(request.network)? else { return Ok(()) };
        let id = &request.attachment.id;
        let locked = directory.lock()?;
        if let Some(lease) = request.lease {
            let held = lease.addresses.iter().map(|leased| leased.address.ip());
            return remove_where(&directory, &locked, held, |holder| holder.is(id) || holder.is_container_of(id))
                .map(drop);
        }
        let found = remove_where(&directory, &locked, directory.addresses()?, |holder| holder.is(id))?;
        if found == 0 {
            // Nothing under its full name: what early versions of the reference wrote.
            remove_where(&directory, &locked, directory.addresses()?, |holder| holder.is_container_of(id))?;
        }
        Ok(())
    }

    fn check(&self, request: &Request<'_>) -> Result<()> {
        let (network, id) = (request.network, &request.attachment.id);
        let directory = self.open(network)?;
        let holder = |address| match &directory {
            Some(directory) => Ok(directory.get(address)?.map_or(Holder::Nobody, |reservation| reservation.holder)),
            None => Ok(Holder::Nobody),
        };
        let missing = |what: String| Error::Conflict {
            object: format!("network {network}: {what}"),
            found: format!("not reserved for {id}"),
            way_out: "detach it and attach it again".to_owned(),
        };
        let Some(lease) = request.lease else {
            let addresses = directory.as_ref().map_or(Ok(Default::default()), Directory::addresses)?;
            for address in addresses {
                let holder = holder(address)?;
                if holder.is(id) || holder.is_container_of(id) {
                    return Ok(());
                }
            }
            return Err(missing("an address".to_owned()));
        };
        let faults = lease.addresses.iter().filter_map(|leased| {
            let address = leased.address.ip();
            match holder(address) {
                Ok(holder) if holder.is(id) || holder.is_container_of(id) => None,
                Ok(Holder::Nobody) => Some(missing(format!("address {address}"))),
                Ok(holder) => Some(taken(network, address, &holder)),
                Err(error) => Some(error),
            }
        });
        Error::from_list(faults.collect())
    }

    fn status(&self, network: &Name) -> Result<()> {
        let sets = range::sets(self.config)?;
        let Some(directory) = self.open(network)? else { return Ok(()) };
        let boot = Boot::read(&self.boot_id);
        for (number, set) in sets.iter().enumerate() {
            let free = choose(&directory, number, set, |address| {
                Ok(!directory.has(address)? || is_free(directory.get(address)?.as_ref(), boot.as_ref()))
            })?;
            if free.is_none() {
                return Err(exhausted(network, set));
            }
        }
        Ok(())
    }

    fn gc(&self, network: &Name, valid: &[AttachmentId]) -> Result<()> {
        let Some(directory) = self.open(network)? else { return Ok(()) };
        let locked = directory.lock()?;
        locked.forget_draft()?;
        let is_valid = |holder: &Holder| valid.iter().any(|id| holder.is(id) || holder.is_container_of(id));
        let stale = |holder: &Holder| *holder != Holder::Foreign && !is_valid(holder);
        remove_where(&directory, &locked, directory.addresses()?, stale).map(drop)
    }
}

/// Where one attachment is served, under the lock.
struct Desk<'a> {
    network: &'a Name,
    id: &'a AttachmentId,
    boot: Option<Boot>,
    directory: &'a Directory,
    // Before the lock: a draft with a name goes while it is held.
    draft: Draft<'a>,
    locked: Locked<'a>,
    given: Vec<IpAddr>,
}

impl Desk<'_> {
    /// Reserves one address of `set`: the one that is wished for, or the next that is free.
    fn serve(&mut self, number: usize, set: &Set, wish: Option<IpAddr>) -> Result<LeasedAddress> {
        let chosen = match wish.and_then(|wish| Some((wish, set.pool_of(wish)?))) {
            Some((wish, pool)) => {
                if !self.claim(wish)? {
                    let held = self.directory.get(wish)?;
                    return Err(taken(self.network, wish, &held.map_or(Holder::Nobody, |held| held.holder)));
                }
                Some((wish, pool))
            }
            None => choose(self.directory, number, set, |address| self.claim(address))?,
        };
        let (address, pool) = chosen.ok_or_else(|| exhausted(self.network, set))?;
        self.given.push(address);
        self.locked.set_last_reserved(number, address)?;
        leased(address, pool)
    }

    /// Reserves `address`; `false` when somebody has it.
    fn claim(&self, address: IpAddr) -> Result<bool> {
        if self.locked.reserve(&self.draft, address)? {
            return Ok(true);
        }
        // A file that cannot be read is somebody's.
        let Ok(held) = self.directory.get(address) else { return Ok(false) };
        let is_ours = held.as_ref().is_some_and(|held| held.holder.is(self.id));
        if !is_ours && !is_free(held.as_ref(), self.boot.as_ref()) {
            return Ok(false);
        }
        // Ours from an attempt that was cut short, or nobody's: a fresh one takes its place.
        self.locked.remove(address)?;
        self.locked.reserve(&self.draft, address)
    }

    fn take_back(&self) {
        for address in &self.given {
            // The error that brought us here is the one to report.
            let _ = self.locked.remove(*address);
        }
    }
}

fn leased(address: IpAddr, pool: &Pool) -> Result<LeasedAddress> {
    let network =
        IpNetwork::new(address, pool.subnet.prefix()).map_err(|_| Error::invalid("subnet", pool.subnet, "a subnet"))?;
    Ok(LeasedAddress { address: network, gateway: Some(pool.gateway) })
}

/// The first address of `set` that `claim` can have, in the order they are given out. Directly
/// as long as that is likely to succeed, then with a listing; the last resort is to look into
/// every reservation.
fn choose<'s>(
    directory: &Directory,
    number: usize,
    set: &'s Set,
    claim: impl Fn(IpAddr) -> Result<bool>,
) -> Result<Option<(IpAddr, &'s Pool)>> {
    let last = directory.last_reserved(number);
    for (address, pool) in set.after(last).take(NEARBY) {
        if claim(address)? {
            return Ok(Some((address, pool)));
        }
    }
    let taken = directory.addresses()?;
    for expect_taken in [false, true] {
        for (address, pool) in set.after(last).skip(NEARBY) {
            if taken.contains(&address) == expect_taken && claim(address)? {
                return Ok(Some((address, pool)));
            }
        }
    }
    Ok(None)
}

/// Whether an address that is, or was, reserved like this can be given out.
fn is_free(held: Option<&Reservation>, boot: Option<&Boot>) -> bool {
    let Some(held) = held else { return true };
    let is_stale = || boot.zip(held.stamp()).is_some_and(|(boot, stamp)| stamp.is_stale(boot));
    held.holder == Holder::Nobody || is_stale()
}

/// Which of the addresses asked for comes from which set: each must find a place.
fn distribute(sets: &[Set], asked: &[IpNetwork]) -> Result<Vec<Option<IpAddr>>> {
    let mut wishes = vec![None; sets.len()];
    for address in asked.iter().map(|asked| asked.ip().to_canonical()) {
        if sets.iter().any(|set| set.is_gateway(address)) {
            return Err(Error::invalid("address", address, "an address for a container: it is the gateway's"));
        }
        let Some(place) = sets.iter().position(|set| set.pool_of(address).is_some()) else {
            let ranges: Vec<_> = sets.iter().map(Set::to_string).collect();
            return Err(Error::invalid("address", address, format!("an address of {}", ranges.join(", "))));
        };
        match wishes[place] {
            Some(other) if other != address => {
                let expected = format!("from another range than {other}: there is one address from each");
                return Err(Error::invalid("address", address, expected));
            }
            _ => wishes[place] = Some(address),
        }
    }
    Ok(wishes)
}

/// Removes those of `addresses` whose holder is `unwanted`, past any error; how many there were.
fn remove_where(
    directory: &Directory,
    locked: &Locked<'_>,
    addresses: impl IntoIterator<Item = IpAddr>,
    unwanted: impl Fn(&Holder) -> bool,
) -> Result<usize> {
    let (mut removed, mut errors) = (0, Vec::new());
    for address in addresses {
        match directory.get(address) {
            Ok(Some(held)) if unwanted(&held.holder) => match locked.remove(address) {
                Ok(()) => removed += 1,
                Err(error) => errors.push(error),
            },
            Ok(_) => {}
            Err(error) => errors.push(error),
        }
    }
    Error::from_list(errors).map(|()| removed)
}

fn taken(network: &Name, address: IpAddr, holder: &Holder) -> Error {
    Error::AddressTaken { network: network.to_string(), address, holder: holder.to_string() }
}

fn exhausted(network: &Name, set: &Set) -> Error {
    Error::PoolExhausted { network: network.to_string(), ranges: set.to_string() }
}
