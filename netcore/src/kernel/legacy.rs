//! iptables of the older kind, whose rules the kernel keeps apart from nf_tables: what
//! `iptables-legacy-save` prints (iptables-save(8)), as data. It is run only where the kernel has such
//! tables.

use std::fs;
use std::process::Command;

use crate::model::rules::{Backend, Base, Chain, Condition, Expression, Family, Hook, Rule, Rules, Verdict};

const PROGRAMS: [(Family, &str, &str); 2] = [
    (Family::Ip, "/proc/thread-self/net/ip_tables_names", "iptables-legacy-save"),
    (Family::Ip6, "/proc/thread-self/net/ip6_tables_names", "ip6tables-legacy-save"),
];

/// Adds the rules of the calling thread's namespace to `rules`.
pub(super) fn read(rules: &mut Rules) {
    for (family, tables, program) in PROGRAMS {
        if fs::read_to_string(tables).unwrap_or_default().trim().is_empty() {
            continue;
        }
        match Command::new(program).output() {
            Ok(output) if output.status.success() => {
                rules.chains.extend(parse(family, &String::from_utf8_lossy(&output.stdout)));
            }
            Ok(output) => rules.faults.push(format!(
                "the kernel has rules of {family}tables-legacy, and {program} failed: {}",
                String::from_utf8_lossy(&output.stderr).trim(),
                family = family.name(),
            )),
            Err(error) => rules.faults.push(format!(
                "the kernel has rules of {}tables-legacy, and {program} cannot be run: {error}",
                family.name()
            )),
        }
    }
}

/// The chains in what was printed.
fn parse(family: Family, text: &str) -> Vec<Chain> {
    let mut chains: Vec<Chain> = Vec::new();
    let mut table = "";
    for line in text.lines() {
        if let Some(name) = line.strip_prefix('*') {
            table = name;
        } else if let Some(declared) = line.strip_prefix(':') {
            let mut words = declared.split_whitespace();
            let (Some(name), Some(policy)) = (words.next(), words.next()) else { continue };
            let base = hook(name).filter(|_| policy != "-").map(|hook| Base {
                hook,
                priority: priority(table, hook),
                translates: table == "nat",
                drops: policy == "DROP",
                devices: Vec::new(),
            });
            chains.push(Chain {
                backend: Backend::Legacy,
                family,
                table: table.to_owned(),
                name: name.to_owned(),
                base,
                rules: Vec::new(),
            });
        } else if let Some(rule) = line.strip_prefix("-A ") {
            let words = words(rule);
            let Some((name, rest)) = words.split_first() else { continue };
            if let Some(chain) = chains.iter_mut().find(|chain| chain.table == table && chain.name == *name) {
                let handle = chain.rules.len() as u64 + 1;
                chain.rules.push(Rule { handle, expressions: expressions(rest) });
            }
        }
    }
    chains
}

fn hook(chain: &str) -> Option<Hook> {
    Some(match chain {
        "PREROUTING" => Hook::Prerouting,
        "INPUT" => Hook::Input,
        "FORWARD" => Hook::Forward,
        "OUTPUT" => Hook::Output,
        "POSTROUTING" => Hook::Postrouting,
        _ => return None,
    })
}

/// `NF_IP_PRI_*` (linux/netfilter_ipv4.h).
fn priority(table: &str, hook: Hook) -> i32 {
    match (table, hook) {
        ("raw", _) => -300,
        ("mangle", _) => -150,
        ("nat", Hook::Prerouting | Hook::Output) => -100,
        ("nat", _) => 100,
        ("security", _) => 50,
        _ => 0,
    }
}

/// The words of a line; quotes hold them together.
fn words(line: &str) -> Vec<String> {
    let (mut words, mut word, mut quoted, mut escaped) = (Vec::new(), String::new(), false, false);
    for character in line.chars() {
        match character {
            _ if escaped => {
                word.push(character);
                escaped = false;
            }
            '\\' if quoted => escaped = true,
            '"' => quoted = !quoted,
            ' ' if !quoted => {
                if !word.is_empty() {
                    words.push(std::mem::take(&mut word));
                }
            }
            _ => word.push(character),
        }
    }
    if !word.is_empty() {
        words.push(word);
    }
    words
}

/// What the options of a rule say.
fn expressions(options: &[String]) -> Vec<Expression> {
    let mut read = Vec::new();
    let (mut holds, mut place) = (true, 0);
    let mut target = None;
    while let Some(option) = options.get(place) {
        let value = options.get(place + 1).map(String::as_str);
        let mut taken = 2;
        match (option.as_str(), value) {
            ("!", _) => {
                holds = false;
                place += 1;
                continue;
            }
            // What a match says is said by its options.
            ("-m", Some(_)) => {}
            ("--comment", Some(_)) => read.push(Expression::Passive),
            ("-j" | "-g", Some(name)) => {
                let goes = option == "-g";
                let rest = options.get(place + 2..).unwrap_or_default();
                target = Some(action(name, goes, rest));
                // Whatever follows belongs to the target.
                break;
            }
            (name, Some(value)) => match condition(name, value) {
                Some(condition) => read.push(Expression::If(condition, holds)),
                None => {
                    read.push(Expression::Unknown(name.trim_start_matches('-').to_owned()));
                    // An option of its own, or one with values: the next one begins with a dash.
                    taken = 1 + options[place + 1..]
                        .iter()
                        .take_while(|next| !next.starts_with('-') && *next != "!")
                        .count();
                }
            },
            (name, None) => {
                read.push(Expression::Unknown(name.trim_start_matches('-').to_owned()));
                taken = 1;
            }
        }
        holds = true;
        place += taken;
    }
    read.extend(target);
    read
}

fn condition(option: &str, value: &str) -> Option<Condition> {
    Some(match option {
        "-s" => Condition::From(value.parse().ok()?),
        "-d" => Condition::To(value.parse().ok()?),
        "-i" => Condition::CameBy(value.to_owned()),
        "-o" => Condition::LeavesBy(value.to_owned()),
        "-p" => Condition::Protocol(match value {
            "tcp" => 6,
            "udp" => 17,
            "icmp" => 1,
            "ipv6-icmp" => 58,
            "sctp" => 132,
            number => number.parse().ok()?,
        }),
        "--sport" | "--sports" => Condition::FromPorts(ranges(value)?),
        "--dport" | "--dports" => Condition::ToPorts(ranges(value)?),
        "--ctstate" | "--state" => {
            let (mut states, mut snat, mut dnat) = (0, false, false);
            for state in value.split(',') {
                match state {
                    "INVALID" => states |= 1,
                    "ESTABLISHED" => states |= 2,
                    "RELATED" => states |= 4,
                    "NEW" => states |= 8,
                    "UNTRACKED" => states |= 64,
                    "SNAT" => snat = true,
                    "DNAT" => dnat = true,
                    _ => return None,
                }
            }
            Condition::Connection(states, snat, dnat)
        }
        "--dst-type" => Condition::ToType(kinds(value)?),
        "--src-type" => Condition::FromType(kinds(value)?),
        _ => return None,
    })
}

fn ranges(text: &str) -> Option<Vec<(u16, u16)>> {
    let range = |text: &str| {
        let (first, last) = text.split_once(':').unwrap_or((text, text));
        Some((first.parse().ok()?, last.parse().ok()?))
    };
    text.split(',').map(range).collect()
}

/// Address types as bits (`XT_ADDRTYPE_*`).
fn kinds(text: &str) -> Option<u16> {
    let kind = |text: &str| {
        Some(match text {
            "UNSPEC" => 1,
            "UNICAST" => 1 << 1,
            "LOCAL" => 1 << 2,
            "BROADCAST" => 1 << 3,
            "ANYCAST" => 1 << 4,
            "MULTICAST" => 1 << 5,
            _ => return None,
        })
    };
    text.split(',').try_fold(0, |bits, text| Some(bits | kind(text)?))
}

fn action(name: &str, goes: bool, options: &[String]) -> Expression {
    let value = |option: &str| {
        let place = options.iter().position(|found| found == option)?;
        options.get(place + 1)
    };
    match name {
        "ACCEPT" => Expression::Verdict(Verdict::Accept),
        "DROP" => Expression::Verdict(Verdict::Drop),
        "REJECT" => Expression::Verdict(Verdict::Reject),
        "RETURN" => Expression::Verdict(Verdict::Return),
        "NFQUEUE" | "QUEUE" => Expression::Verdict(Verdict::Queue),
        "MASQUERADE" => Expression::Masquerade,
        "DNAT" | "SNAT" => {
            let option = if name == "DNAT" { "--to-destination" } else { "--to-source" };
            match (value(option).and_then(|text| address(text)), name) {
                (Some((address, port)), "DNAT") => Expression::DnatTo(address, port),
                (Some((address, port)), _) => Expression::SnatTo(address, port),
                (None, _) => Expression::Unknown(format!("target {name}")),
            }
        }
        "AUDIT" | "CHECKSUM" | "CLASSIFY" | "CONNMARK" | "CT" | "DSCP" | "LOG" | "MARK" | "NFLOG" | "NOTRACK"
        | "TCPMSS" | "TOS" | "TRACE" => Expression::Passive,
        "TPROXY" | "REDIRECT" | "NETMAP" | "SYNPROXY" | "SET" | "ULOG" | "TEE" | "HMARK" | "IDLETIMER" => {
            Expression::Unknown(format!("target {name}"))
        }
        chain if goes => Expression::Verdict(Verdict::Goto(chain.to_owned())),
        chain => Expression::Verdict(Verdict::Jump(chain.to_owned())),
    }
}

/// `192.0.2.1`, `192.0.2.1:80`, `[2001:db8::1]:80` or `:80`; of ranges, the first.
fn address(text: &str) -> Option<(Option<std::net::IpAddr>, Option<u16>)> {
    let first = |text: &str| text.split('-').next().unwrap_or_default().to_owned();
    if let Some(rest) = text.strip_prefix('[') {
        let (address, port) = rest.split_once(']')?;
        let port = port.strip_prefix(':').map(|port| first(port).parse()).transpose().ok()?;
        return Some((Some(first(address).parse().ok()?), port));
    }
    if let Ok(address) = first(text).parse() {
        return Some((Some(address), None));
    }
    let (address, port) = text.rsplit_once(':')?;
    let address = if address.is_empty() { None } else { Some(first(address).parse().ok()?) };
    Some((address, Some(first(port).parse().ok()?)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_printed_is_read() {
        let chains = parse(
            Family::Ip,
            "*nat\n:PREROUTING ACCEPT [0:0]\n:DOCKER - [0:0]\n\
             -A PREROUTING -m addrtype --dst-type LOCAL -j DOCKER\n\
             -A DOCKER ! -i docker0 -p tcp -m tcp --dport 8080 -m comment --comment \"a -j b\" -j DNAT --to-destination 172.17.0.2:80\n\
             COMMIT\n*filter\n:FORWARD DROP [1:2]\n-A FORWARD -m set --match-set bad src -j DROP\nCOMMIT\n",
        );
        assert_eq!(chains.len(), 3);
        let base = chains[0].base.as_ref().unwrap();
        assert!(base.translates && base.priority == -100 && !base.drops);
        assert!(chains[1].base.is_none() && chains[2].base.as_ref().unwrap().drops);
        assert_eq!(
            chains[1].rules[0].expressions,
            [
                Expression::If(Condition::CameBy("docker0".into()), false),
                Expression::If(Condition::Protocol(6), true),
                Expression::If(Condition::ToPorts(vec![(8080, 8080)]), true),
                Expression::Passive,
                Expression::DnatTo(Some("172.17.0.2".parse().unwrap()), Some(80)),
            ]
        );
        assert_eq!(
            chains[2].rules[0].expressions,
            [Expression::Unknown("match-set".into()), Expression::Verdict(Verdict::Drop)]
        );
    }
}
