//! What iptables-nft has in this namespace: its chains are nf_tables' as well.

use std::ffi::CStr;

use nftnl::{Chain as ChainMessage, ProtoFamily, Table};
use nftnl_sys::libc;

use super::socket::{Messages, present};
use super::{Nft, garbled, sys};
use crate::error::Result;

/// The chains that are asked about, with their tables.
const CHAINS: [(&CStr, &CStr); 2] = [(c"filter", c"FORWARD"), (c"filter", c"NETCORE-FORWARD")];

/// What there is of iptables-nft, for one family.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct IptablesChains {
    /// The policy of `FORWARD`, if it is there: whether that is to drop.
    pub forward_drops: Option<bool>,
    /// Whether there is a `NETCORE-FORWARD`.
    pub has_our_forward: bool,
}

impl Nft {
    /// What there is of iptables-nft, for IPv4 and for IPv6. One question for everything.
    ///
    /// # Errors
    /// [`Error::Kernel`](crate::Error::Kernel) when the kernel does not answer.
    pub fn iptables_chains(&self) -> Result<[IptablesChains; 2]> {
        let mut questions = Messages::new();
        for family in [ProtoFamily::Ipv4, ProtoFamily::Ipv6] {
            for (table, chain) in CHAINS {
                questions.add(libc::NFT_MSG_GETCHAIN, 0, &ChainMessage::new(chain, &Table::new(table, family)));
            }
        }
        let mut answers = self.socket.ask(questions)?.into_iter().map(present);
        let mut next = || answers.next().transpose().map(Option::flatten);
        let mut chains = [IptablesChains::default(); 2];
        for chains in &mut chains {
            let forward = next()?.map(|message| sys::chain(&message).ok_or_else(garbled)).transpose()?;
            chains.forward_drops = forward.flatten().map(|base| base.policy == libc::NF_DROP as u32);
            chains.has_our_forward = next()?.is_some();
        }
        Ok(chains)
    }
}
