//! Rules as instructions of nf_tables' virtual machine, the same that `nft` makes of the same
//! text: what the kernel runs, and what it lists. Both the kernel's listing and ours are brought
//! into one form here, so that comparing them means something.

use std::borrow::Cow;
use std::ffi::CStr;

use nftnl_sys as sys;
use nftnl_sys::libc;

use super::ruleset::{Action, Match, Read, Rule, Set};

/// One instruction: its name, and its operands by libnftnl's numbers (`NFTNL_EXPR_*`,
/// libnftnl/expr.h) in ascending order. Numbers are in host byte order, text ends in NUL.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Instruction {
    pub(super) name: Cow<'static, CStr>,
    pub(super) operands: Vec<(u32, Vec<u8>)>,
}

// What the libc crate lacks of linux/netfilter/nf_tables.h and linux/netfilter/nf_nat.h.
const NFT_FIB_RESULT_ADDRTYPE: i32 = 3;
const NFTA_FIB_F_DADDR: i32 = 1 << 1;
const NF_NAT_RANGE_MAP_IPS: u32 = 1 << 0;
const NF_NAT_RANGE_PROTO_SPECIFIED: u32 = 1 << 1;

/// `rule` as instructions.
pub(super) fn compile(rule: &Rule) -> Vec<Instruction> {
    let mut program = Program(Vec::new());
    for condition in rule.when {
        program.condition(condition);
    }
    program.action(&rule.then);
    program.0
}

struct Program(Vec<Instruction>);

impl Program {
    fn push(&mut self, name: &'static CStr, operands: Vec<(u32, Vec<u8>)>) {
        self.0.push(Instruction { name: Cow::Borrowed(name), operands }.in_order());
    }

    fn condition(&mut self, condition: &Match) {
        match condition {
            Match::Is(read, value) => {
                self.read(*read, 0);
                self.compare(libc::NFT_CMP_EQ, value);
            }
            Match::IsNot(read, value) => {
                self.read(*read, 0);
                self.compare(libc::NFT_CMP_NEQ, value);
            }
            Match::Within(read, address, bits) => self.prefix(*read, address, *bits, libc::NFT_CMP_EQ),
            Match::NotWithin(read, address, bits) => self.prefix(*read, address, *bits, libc::NFT_CMP_NEQ),
            Match::Has(read, bit) => {
                self.read(*read, 0);
                self.mask(&bit.to_ne_bytes());
                self.compare(libc::NFT_CMP_NEQ, &[0; 4]);
            }
            Match::In(key, set) => {
                self.concatenate(key);
                self.lookup(set, None);
            }
            Match::NotIn(key, set) => {
                self.concatenate(key);
                self.lookup(set, Some((sys::NFTNL_EXPR_LOOKUP_FLAGS, number(libc::NFT_LOOKUP_F_INV))));
            }
        }
    }

    fn action(&mut self, action: &Action) {
        match action {
            Action::DnatTo(family, key, map) => {
                self.concatenate(key);
                self.lookup(map, Some((sys::NFTNL_EXPR_LOOKUP_DREG, register(0))));
                let address_words = map.data.first().map_or(0, |address| words(address.bytes()));
                self.push(
                    c"nat",
                    vec![
                        (sys::NFTNL_EXPR_NAT_TYPE, number(libc::NFT_NAT_DNAT)),
                        (sys::NFTNL_EXPR_NAT_FAMILY, number(*family as i32)),
                        (sys::NFTNL_EXPR_NAT_REG_ADDR_MIN, register(0)),
                        (sys::NFTNL_EXPR_NAT_REG_PROTO_MIN, register(address_words)),
                    ],
                );
            }
            Action::Masquerade => self.push(c"masq", vec![]),
            Action::Jump(chain) => {
                self.verdict(libc::NFT_JUMP, Some((sys::NFTNL_EXPR_IMM_CHAIN, chain.to_bytes_with_nul().to_vec())));
            }
            Action::Return => self.verdict(libc::NFT_RETURN, None),
            Action::Accept => self.verdict(libc::NF_ACCEPT, None),
            Action::Drop => self.verdict(libc::NF_DROP, None),
            Action::CountAndDrop => {
                self.push(c"counter", vec![]);
                self.verdict(libc::NF_DROP, None);
            }
        }
    }

    /// Reads into the registers from `word` on.
    fn read(&mut self, read: Read, word: usize) {
        match read {
            Read::Family => self.meta(libc::NFT_META_NFPROTO, word),
            Read::Protocol => self.meta(libc::NFT_META_L4PROTO, word),
            Read::ComesBy => self.meta(libc::NFT_META_IIFNAME, word),
            Read::LeavesBy => self.meta(libc::NFT_META_OIFNAME, word),
            Read::FrameProtocol => self.meta(libc::NFT_META_PROTOCOL, word),
            Read::Ipv4Source
            | Read::Ipv4Destination
            | Read::Ipv6Source
            | Read::Ipv6Destination
            | Read::DestinationPort
            | Read::MacSource
            | Read::ArpSenderMac
            | Read::ArpSender
            | Read::ArpTarget
            | Read::Icmp6Type
            | Read::NeighbourTarget => self.payload(read, read.bytes(), word),
            Read::DestinationType => self.push(
                c"fib",
                vec![
                    (sys::NFTNL_EXPR_FIB_DREG, register(word)),
                    (sys::NFTNL_EXPR_FIB_RESULT, number(NFT_FIB_RESULT_ADDRTYPE)),
                    (sys::NFTNL_EXPR_FIB_FLAGS, number(NFTA_FIB_F_DADDR)),
                ],
            ),
            Read::ConnectionStatus => self.push(
                c"ct",
                vec![(sys::NFTNL_EXPR_CT_DREG, register(word)), (sys::NFTNL_EXPR_CT_KEY, number(libc::NFT_CT_STATUS))],
            ),
            Read::ConnectionState => self.push(
                c"ct",
                vec![(sys::NFTNL_EXPR_CT_DREG, register(word)), (sys::NFTNL_EXPR_CT_KEY, number(libc::NFT_CT_STATE))],
            ),
        }
    }

    fn meta(&mut self, key: i32, word: usize) {
        self.push(c"meta", vec![(sys::NFTNL_EXPR_META_KEY, number(key)), (sys::NFTNL_EXPR_META_DREG, register(word))]);
    }

    fn payload(&mut self, read: Read, bytes: usize, word: usize) {
        // Offsets as in RFC 791, RFC 8200, for ports RFC 9293, 768 and 9260 alike, RFC 826 on Ethernet
        // and RFC 4861.
        let (base, offset) = match read {
            Read::Ipv4Source => (libc::NFT_PAYLOAD_NETWORK_HEADER, 12),
            Read::Ipv4Destination => (libc::NFT_PAYLOAD_NETWORK_HEADER, 16),
            Read::Ipv6Source | Read::ArpSenderMac => (libc::NFT_PAYLOAD_NETWORK_HEADER, 8),
            Read::Ipv6Destination | Read::ArpTarget => (libc::NFT_PAYLOAD_NETWORK_HEADER, 24),
            Read::MacSource => (libc::NFT_PAYLOAD_LL_HEADER, 6),
            Read::ArpSender => (libc::NFT_PAYLOAD_NETWORK_HEADER, 14),
            Read::Icmp6Type => (libc::NFT_PAYLOAD_TRANSPORT_HEADER, 0),
            Read::NeighbourTarget => (libc::NFT_PAYLOAD_TRANSPORT_HEADER, 8),
            _ => (libc::NFT_PAYLOAD_TRANSPORT_HEADER, 2),
        };
        self.push(
            c"payload",
            vec![
                (sys::NFTNL_EXPR_PAYLOAD_DREG, register(word)),
                (sys::NFTNL_EXPR_PAYLOAD_BASE, number(base)),
                (sys::NFTNL_EXPR_PAYLOAD_OFFSET, number(offset)),
                (sys::NFTNL_EXPR_PAYLOAD_LEN, number(bytes as i32)),
            ],
        );
    }

    /// Reads several values one behind the other, each from a whole word on.
    fn concatenate(&mut self, key: &[Read]) {
        let mut word = 0;
        for read in key {
            self.read(*read, word);
            word += words(read.bytes());
        }
    }

    /// As nft does it: whole bytes of an address are compared alone, a remainder needs a mask.
    fn prefix(&mut self, read: Read, address: &[u8], bits: usize, comparison: i32) {
        let (whole, rest) = (bits / 8, bits % 8);
        if rest == 0 {
            self.payload(read, whole, 0);
            self.compare(comparison, &address[..whole]);
        } else {
            let mut mask = vec![0; address.len()];
            mask[..whole].fill(0xff);
            mask[whole] = 0xff << (8 - rest);
            self.read(read, 0);
            self.mask(&mask);
            self.compare(comparison, address);
        }
    }

    fn mask(&mut self, mask: &[u8]) {
        self.push(
            c"bitwise",
            vec![
                (sys::NFTNL_EXPR_BITWISE_SREG, register(0)),
                (sys::NFTNL_EXPR_BITWISE_DREG, register(0)),
                (sys::NFTNL_EXPR_BITWISE_LEN, number(mask.len() as i32)),
                (sys::NFTNL_EXPR_BITWISE_MASK, mask.to_vec()),
                (sys::NFTNL_EXPR_BITWISE_XOR, vec![0; mask.len()]),
            ],
        );
    }

    fn compare(&mut self, comparison: i32, value: &[u8]) {
        self.push(
            c"cmp",
            vec![
                (sys::NFTNL_EXPR_CMP_SREG, register(0)),
                (sys::NFTNL_EXPR_CMP_OP, number(comparison)),
                (sys::NFTNL_EXPR_CMP_DATA, value.to_vec()),
            ],
        );
    }

    fn lookup(&mut self, set: &Set, more: Option<(u32, Vec<u8>)>) {
        let mut operands = vec![
            (sys::NFTNL_EXPR_LOOKUP_SREG, register(0)),
            (sys::NFTNL_EXPR_LOOKUP_SET, set.name.to_bytes_with_nul().to_vec()),
        ];
        operands.extend(more);
        self.push(c"lookup", operands);
    }

    fn verdict(&mut self, verdict: i32, more: Option<(u32, Vec<u8>)>) {
        let mut operands = vec![
            (sys::NFTNL_EXPR_IMM_DREG, number(libc::NFT_REG_VERDICT)),
            (sys::NFTNL_EXPR_IMM_VERDICT, number(verdict)),
        ];
        operands.extend(more);
        self.push(c"immediate", operands);
    }
}

impl Read {
    fn bytes(self) -> usize {
        match self {
            Self::Family | Self::Protocol | Self::Icmp6Type => 1,
            Self::DestinationPort | Self::FrameProtocol => 2,
            Self::Ipv4Source
            | Self::Ipv4Destination
            | Self::ArpSender
            | Self::ArpTarget
            | Self::DestinationType
            | Self::ConnectionStatus
            | Self::ConnectionState => 4,
            Self::MacSource | Self::ArpSenderMac => 6,
            Self::Ipv6Source | Self::Ipv6Destination | Self::NeighbourTarget | Self::ComesBy | Self::LeavesBy => 16,
        }
    }
}

impl Instruction {
    /// This instruction as this module would have written it: without what the kernel spells
    /// out though nobody said it.
    pub(super) fn normal(mut self) -> Self {
        let all = self.operands.clone();
        let value = |wanted: u32| all.iter().find(|(operand, _)| *operand == wanted).map(|(_, value)| value);
        let only =
            |value: &[u8], bits: u32| value.first_chunk().is_some_and(|value| u32::from_ne_bytes(*value) & !bits == 0);
        self.operands.retain(|(operand, said)| {
            !match (self.name.to_bytes(), *operand) {
                (b"lookup", sys::NFTNL_EXPR_LOOKUP_FLAGS) | (b"bitwise", sys::NFTNL_EXPR_BITWISE_OP) => only(said, 0),
                // What was counted is not what the rule does.
                (b"counter", _) => true,
                // A range of one.
                (b"nat", sys::NFTNL_EXPR_NAT_REG_ADDR_MAX) => value(sys::NFTNL_EXPR_NAT_REG_ADDR_MIN) == Some(said),
                (b"nat", sys::NFTNL_EXPR_NAT_REG_PROTO_MAX) => value(sys::NFTNL_EXPR_NAT_REG_PROTO_MIN) == Some(said),
                // They follow from the registers that are in use.
                (b"nat", sys::NFTNL_EXPR_NAT_FLAGS) => only(said, NF_NAT_RANGE_MAP_IPS | NF_NAT_RANGE_PROTO_SPECIFIED),
                _ => false,
            }
        });
        self.in_order()
    }

    fn in_order(mut self) -> Self {
        self.operands.sort_by_key(|(number, _)| *number);
        self
    }
}

/// The name of the register that begins with a word: four words are one register of 128 bits,
/// and only words inside one have a name of their own.
fn register(word: usize) -> Vec<u8> {
    let word = word as i32;
    number(if word % 4 == 0 { libc::NFT_REG_1 + word / 4 } else { libc::NFT_REG32_00 + word })
}

fn number(value: i32) -> Vec<u8> {
    value.to_ne_bytes().to_vec()
}

fn words(bytes: usize) -> usize {
    bytes.div_ceil(4)
}
