//! The firewall rules of a namespace, whoever made them, as far as it takes to say what becomes of a
//! packet: nf_tables with all its families, and iptables of either kind. What is not understood is
//! kept as such, by its name.

use std::collections::HashMap;
use std::net::IpAddr;

use ipnetwork::IpNetwork;

/// Every chain and set of a namespace.
#[derive(Clone, Debug, Default)]
pub struct Rules {
    /// The chains, in the order they were listed.
    pub chains: Vec<Chain>,
    /// The sets and maps, by family, table and name.
    pub sets: HashMap<(Family, String, String), Vec<Element>>,
    /// What could not be read, and why.
    pub faults: Vec<String>,
}

/// Which packets a table sees; for iptables, of which IP version they are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Family {
    /// Both IP versions.
    Inet,
    /// IPv4.
    Ip,
    /// IPv6.
    Ip6,
    /// Frames on a bridge.
    Bridge,
    /// Frames on an interface.
    Netdev,
}

impl Family {
    /// The family as `nft` names it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Inet => "inet",
            Self::Ip => "ip",
            Self::Ip6 => "ip6",
            Self::Bridge => "bridge",
            Self::Netdev => "netdev",
        }
    }
}

/// Whose rules they are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Backend {
    /// nf_tables, `iptables-nft` included.
    Nft,
    /// The older kernel interface of iptables.
    Legacy,
}

/// Where a packet is on its way through a namespace (`NF_INET_*`, linux/netfilter.h).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hook {
    /// It has just arrived, and has not been routed.
    Prerouting,
    /// It is for this namespace.
    Input,
    /// It is passed on.
    Forward,
    /// It comes from this namespace.
    Output,
    /// It is about to leave.
    Postrouting,
    /// It has been taken from an interface.
    Ingress,
}

impl Hook {
    /// The hook as `nft` names it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Prerouting => "prerouting",
            Self::Input => "input",
            Self::Forward => "forward",
            Self::Output => "output",
            Self::Postrouting => "postrouting",
            Self::Ingress => "ingress",
        }
    }
}

/// A chain.
#[derive(Clone, Debug)]
pub struct Chain {
    /// Whose it is.
    pub backend: Backend,
    /// The family of its table.
    pub family: Family,
    /// Its table.
    pub table: String,
    /// Its name.
    pub name: String,
    /// How packets come to it by themselves; without, by jumps only.
    pub base: Option<Base>,
    /// Its rules, in order.
    pub rules: Vec<Rule>,
}

/// How packets come to a chain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Base {
    /// Where.
    pub hook: Hook,
    /// In which order; the lowest comes first.
    pub priority: i32,
    /// Whether it translates addresses, and so sees only the first packet of a connection.
    pub translates: bool,
    /// Whether what no rule decides about is dropped.
    pub drops: bool,
    /// The interfaces, for [`Hook::Ingress`].
    pub devices: Vec<String>,
}

/// A rule.
#[derive(Clone, Debug, Default)]
pub struct Rule {
    /// Its handle; for [`Backend::Legacy`], its place in the chain, from 1.
    pub handle: u64,
    /// What it does, in order, as long as each condition holds.
    pub expressions: Vec<Expression>,
}

/// The place of a value among the 64 bytes of registers.
pub type Register = usize;

/// A part of a rule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Expression {
    /// Reads something of the packet.
    Read(Read, Register),
    /// Puts a constant into a register.
    Set(Vec<u8>, Register),
    /// Goes on if a register compares like that.
    Compare(Register, Comparison, Vec<u8>),
    /// Goes on if a register is within both bounds, or with `false`, if it is not.
    Range(Register, bool, Vec<u8>, Vec<u8>),
    /// `to = (from & mask) ^ xor`.
    Mask {
        /// From where.
        from: Register,
        /// To where.
        to: Register,
        /// The bits that stay.
        mask: Vec<u8>,
        /// The bits that are turned.
        xor: Vec<u8>,
    },
    /// Turns the bytes of words around, on machines where that means anything.
    Swap {
        /// From where.
        from: Register,
        /// To where.
        to: Register,
        /// How many bytes.
        length: usize,
        /// The width of a word in bytes.
        width: usize,
    },
    /// Goes on if the key is in the set, or with `negated`, if it is not; a map's value goes to a register,
    /// or is what becomes of the packet.
    Lookup {
        /// The set's name.
        set: String,
        /// Where the key is.
        key: Register,
        /// Where a map's value goes to.
        to: Option<Destination>,
        /// Whether not being there is what is asked for.
        negated: bool,
    },
    /// A condition that is known as a whole.
    If(Condition, bool),
    /// What becomes of the packet.
    Verdict(Verdict),
    /// Changes the destination, or with `false` the source, to what registers hold.
    Translate {
        /// Which of the two.
        destination: bool,
        /// Only packets of this IP version: whether that is IPv6.
        v6: Option<bool>,
        /// Where the address is.
        address: Option<Register>,
        /// Where the port is.
        port: Option<Register>,
    },
    /// Changes the destination to this.
    DnatTo(Option<IpAddr>, Option<u16>),
    /// Changes the source to this.
    SnatTo(Option<IpAddr>, Option<u16>),
    /// Changes the source to the address of the interface it leaves by.
    Masquerade,
    /// Changes the destination to this host.
    Redirect(Option<u16>),
    /// Does nothing to the way of a packet: counts, logs, marks.
    Passive,
    /// Not understood: it may hold or not.
    Unknown(String),
}

/// Where a map's value goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Destination {
    /// Into a register.
    Register(Register),
    /// It is what becomes of the packet.
    Verdict,
}

/// What a rule reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Read {
    /// The index of the interface it came by.
    CameByIndex,
    /// The index of the one it leaves by.
    LeavesByIndex,
    /// The name of the interface it came by, in 16 bytes.
    CameByName,
    /// The name of the one it leaves by.
    LeavesByName,
    /// `NFPROTO_*`.
    NetfilterFamily,
    /// The transport protocol's number.
    Transport,
    /// The EtherType.
    EtherType,
    /// Bytes of the frame's header, from an offset on.
    Frame(usize, usize),
    /// Bytes of the IP header.
    Network(usize, usize),
    /// Bytes of the transport header.
    TransportHeader(usize, usize),
    /// The state of its connection, as bits.
    ConnectionState,
    /// The status of its connection, as bits.
    ConnectionStatus,
    /// 0 in the direction of the first packet, 1 in the other.
    ConnectionDirection,
    /// What kind of address its source (`true`) or destination is here.
    AddressType(bool),
    /// The index of the interface that leads back to its source, 0 for none that it came by.
    WayBack,
}

/// How a value is compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Comparison {
    /// `==`
    Equal,
    /// `!=`
    Unequal,
    /// `<`
    Less,
    /// `<=`
    AtMost,
    /// `>`
    Greater,
    /// `>=`
    AtLeast,
}

/// A condition that is known as a whole.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Condition {
    /// It comes from there.
    From(IpNetwork),
    /// It goes there.
    To(IpNetwork),
    /// It came by an interface of that name, or of a name that begins so (`+`).
    CameBy(String),
    /// It leaves by one.
    LeavesBy(String),
    /// It is of that transport protocol.
    Protocol(u8),
    /// Its source port is in one of these ranges.
    FromPorts(Vec<(u16, u16)>),
    /// Its destination port is.
    ToPorts(Vec<(u16, u16)>),
    /// The state of its connection is one of these bits (`NF_CT_STATE_BIT`), or its status one of the
    /// others: (source translated, destination translated).
    Connection(u32, bool, bool),
    /// Its destination is of this type (`RTN_*` as bits).
    ToType(u16),
    /// Its source is.
    FromType(u16),
}

/// What becomes of a packet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It passes this base chain.
    Accept,
    /// It is gone.
    Drop,
    /// It is gone, and its sender is told.
    Reject,
    /// On in another chain, and then back.
    Jump(String),
    /// On in another chain.
    Goto(String),
    /// Back to where the jump came from.
    Return,
    /// On with the next rule.
    Continue,
    /// A program decides.
    Queue,
}

/// An element of a set or map.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Element {
    /// The key, or the first of a range.
    pub key: Vec<u8>,
    /// The last of a range of concatenated keys.
    pub last: Option<Vec<u8>>,
    /// Whether it marks where a range has ended.
    pub ends: bool,
    /// Whether it stands for every key that is not there.
    pub is_default: bool,
    /// A map's value.
    pub value: Option<Value>,
}

/// What a map holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Value {
    /// Bytes.
    Bytes(Vec<u8>),
    /// What becomes of the packet.
    Verdict(Verdict),
}
