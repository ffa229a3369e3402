//! What a network's settings leave to the host is asked for once, when a container is attached,
//! and written into its record: drivers and every later verb see settings that are complete.

use crate::error::{Error, Result};
use crate::kernel::Kernel;
use crate::model::{MacvlanConfig, Mode, Network, Place};

/// `network` with what only the kernel knows filled in.
pub(super) async fn resolve<K: Kernel>(kernel: &K, network: &Network) -> Result<Network> {
    let mut network = network.clone();
    match &mut network.mode {
        Mode::Macvlan(config) => resolve_macvlan(kernel, config).await?,
        Mode::Bridge(_) | Mode::None(_) | Mode::Host(_) | Mode::Container(_) | Mode::Overlay(_) => {}
    }
    Ok(network)
}

async fn resolve_macvlan<K: Kernel>(kernel: &K, config: &mut MacvlanConfig) -> Result<()> {
    let place = if config.link_in_container { Place::Sandbox } else { Place::Host };
    let master = match config.master.take() {
        Some(master) => master,
        None => kernel.default_link(place).await?.ok_or_else(|| {
            let expected = format!("an interface: name one, for the {place} has no default route to take it from");
            Error::invalid("master", "nothing", expected)
        })?,
    };
    if config.host_access && config.host_addresses.is_empty() {
        config.host_addresses = kernel.host_addresses(&master).await?;
        if config.host_addresses.is_empty() {
            let expected =
                format!("possible: the host has no address on {master}; give it one, or name some in hostAddresses");
            return Err(Error::invalid("hostAccess", "true", expected));
        }
    }
    config.master = Some(master);
    Ok(())
}
