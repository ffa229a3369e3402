//! Modes that give a container somebody else's namespace: whose it is, and why it may not be.
//! All of this is found out before anything is touched.

use std::path::PathBuf;

use super::Engine;
use crate::error::{Error, Result};
use crate::kernel::Kernel;
use crate::model::{Attachment, ContainerConfig, Mode, Name, Network, SharedNamespace, Target};
use crate::store::Record;

impl<K: Kernel> Engine<K> {
    /// The attachments that share the namespace of `container`. They go on in it when the
    /// container is detached, without the interfaces it had.
    ///
    /// # Errors
    /// [`Error::File`] when the records cannot be read.
    pub fn guests(&self, container: &Name) -> Result<Vec<Record>> {
        let owned: Vec<_> = self
            .store
            .of_container(container)?
            .iter()
            .filter(|record| shared(record).is_none())
            .filter_map(|record| self.kernel.identify(Some(record.attachment.netns.as_deref()?)).ok())
            .collect();
        let mut guests = self.store.of_mode(&Mode::Container(ContainerConfig::default()))?;
        guests.retain(|guest| {
            let is_owned = |namespace: &SharedNamespace| {
                namespace.owner.as_ref() == Some(container) || owned.contains(&namespace.id)
            };
            guest.attachment.id.container != *container && shared(guest).is_some_and(is_owned)
        });
        Ok(guests)
    }

    /// Whether one of our networks has put `container` into the host's namespace.
    ///
    /// # Errors
    /// [`Error::File`] when the records cannot be read.
    pub fn is_on_host(&self, container: &Name) -> Result<bool> {
        let records = self.store.of_container(container)?;
        Ok(records.iter().any(|record| shared(record).is_some_and(|namespace| namespace.found_at.is_none())))
    }

    /// Whether a record of `attachment` that cannot be read may tell of something that nothing else
    /// does: what another version makes is not known, and a mount carries no mark. There is none where
    /// the namespace's file has gone, or shows another namespace than it would.
    pub(super) fn is_needed(&self, network: &Network, attachment: &Attachment) -> bool {
        let shown = || self.kernel.identify(Some(attachment.netns.as_deref()?)).ok();
        let may_be_bound = match &network.mode {
            Mode::Host(_) => shown().is_some_and(|id| self.kernel.identify(None).is_ok_and(|own| own == id)),
            Mode::Container(_) => shown().is_some(),
            _ => false,
        };
        may_be_bound || self.store.is_of_another_version(network, &attachment.id)
    }

    /// The namespace that `attachment` is to share, in a mode that shares one.
    pub(super) fn namespace_for(&self, network: &Network, attachment: &Attachment) -> Result<Option<SharedNamespace>> {
        match &network.mode {
            Mode::Host(_) => self.host_namespace(attachment).map(Some),
            Mode::Container(config) => self.owners_namespace(config, attachment).map(Some),
            _ => Ok(None),
        }
    }

    fn host_namespace(&self, attachment: &Attachment) -> Result<SharedNamespace> {
        if !attachment.publish.is_empty()
            && let Some(listener) = self.kernel.listener(&attachment.publish)?
        {
            return Err(Error::PortInUse(Box::new(listener)));
        }
        let id = self.kernel.identify(None)?;
        let given = self.kernel.identify(attachment.netns.as_deref())? == id;
        Ok(SharedNamespace { id, found_at: None, owner: None, given })
    }

    fn owners_namespace(&self, config: &ContainerConfig, attachment: &Attachment) -> Result<SharedNamespace> {
        let own = &attachment.id.container;
        let Some(target) = attachment.join.as_ref().or(config.container.as_ref()) else {
            let expected = "a container's id, the path of a network namespace or the number of a process: say whose \
                            namespace it is in the configuration, in args.cni, or with CONTAINER= in CNI_ARGS";
            return Err(Error::invalid("container", "a missing value", expected));
        };
        if let Some(guest) = self.guests(own)?.first() {
            let way_out = format!("detach {} first, or have it share that namespace too", guest.attachment.id);
            let found = format!("{} shares the namespace it would leave", guest.attachment.id.container);
            return Err(Error::Conflict { object: format!("container {own}"), found, way_out });
        }
        let (path, mut owner) = self.find(target, own)?;
        let id = self.kernel.identify(Some(&path)).map_err(|source| Error::Conflict {
            object: format!("container {target}"),
            found: format!("its namespace is not there ({source})"),
            way_out: "start it first, or share another one's".to_owned(),
        })?;
        if id == self.kernel.identify(None)? {
            let expected = "a container with a namespace of its own: it is in the host's; use a network of type host";
            return Err(Error::invalid("container", target, expected));
        }
        let netns = attachment.netns.as_deref();
        if netns.is_some_and(|netns| is_same_file(netns, &path)) {
            return Err(itself(target));
        }
        if owner.is_none() {
            owner = self.owner_of(&path, own, target)?;
        }
        let given = self.kernel.identify(netns)? == id;
        Ok(SharedNamespace { id, found_at: Some(path), owner, given })
    }

    /// The namespace file of `target`, and its container where that was what it was named by.
    fn find(&self, target: &Target, own: &Name) -> Result<(PathBuf, Option<Name>)> {
        let of_pid = |pid: u32| PathBuf::from(format!("/proc/{pid}/ns/net"));
        let name = match target {
            Target::Path(path) => return Ok((path.clone(), None)),
            Target::Pid(pid) => return Ok((of_pid(*pid), None)),
            Target::Container(name) if name == own => return Err(itself(target)),
            Target::Container(name) => name,
        };
        let records = self.store.of_container(name)?;
        if let Some(namespace) = records.iter().find_map(shared) {
            return Err(chain(name, namespace, own));
        }
        if let Some(path) = records.into_iter().find_map(|record| record.attachment.netns) {
            return Ok((path, Some(name.clone())));
        }
        // CNI_ARGS knows no numbers, and no container that we know is called so.
        match name.as_str().parse() {
            Ok(pid) => Ok((of_pid(pid), None)),
            Err(_) => Err(Error::invalid(
                "container",
                name,
                format!(
                    "a container that is attached to one of our networks (no record of it in {}): start it first, or \
                     give the path of its namespace",
                    self.store.directory().display()
                ),
            )),
        }
    }

    /// Whose namespace is at `path`, as far as our records tell.
    fn owner_of(&self, path: &std::path::Path, own: &Name, target: &Target) -> Result<Option<Name>> {
        let id = self.kernel.identify(Some(path))?;
        let mut owner = None;
        for record in self.store.records(None)?.0 {
            let container = &record.attachment.id.container;
            let Some(netns) = record.attachment.netns.as_deref() else { continue };
            match shared(&record) {
                Some(namespace) if is_same_file(netns, path) => return Err(chain(container, namespace, own)),
                None if self.kernel.identify(Some(netns)).is_ok_and(|other| other == id) => {
                    if container == own {
                        return Err(itself(target));
                    }
                    owner = Some(container.clone());
                }
                _ => {}
            }
        }
        Ok(owner)
    }
}

pub(super) fn shared(record: &Record) -> Option<&SharedNamespace> {
    record.lease.as_ref()?.namespace.as_ref()
}

/// Whether two paths lead to one file: `/var/run/netns/web-1` is `/run/netns/web-1`.
fn is_same_file(one: &std::path::Path, other: &std::path::Path) -> bool {
    let real = |path: &std::path::Path| {
        let directory = path.parent().and_then(|parent| parent.canonicalize().ok());
        directory.zip(path.file_name()).map_or_else(|| path.to_owned(), |(directory, name)| directory.join(name))
    };
    real(one) == real(other)
}

fn itself(target: &Target) -> Error {
    Error::invalid("container", target, "another container: this is the one that is being attached")
}

/// Who shares a namespace cannot give it on: it would be gone with the owner, whom nobody asked.
fn chain(guest: &Name, namespace: &SharedNamespace, own: &Name) -> Error {
    let way_out = match (&namespace.owner, &namespace.found_at) {
        (Some(owner), _) if owner == own => "a container cannot share what it gives".to_owned(),
        (Some(owner), _) => format!("share that of {owner} itself"),
        (None, Some(path)) => format!("share {} itself", path.display()),
        (None, None) => "use a network of type host".to_owned(),
    };
    Error::Conflict { object: format!("container {guest}"), found: format!("it shares {namespace}"), way_out }
}
