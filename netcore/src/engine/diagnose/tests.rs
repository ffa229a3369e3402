//! Rules that decide, that do not, and that cannot be told.

use std::collections::HashMap;
use std::net::IpAddr;

use super::evaluate::{Passage, Surroundings, pass};
use super::packet::{Packet, Wire};
use crate::model::Protocol;
use crate::model::rules::{
    Backend, Base, Chain, Comparison, Condition, Destination, Element, Expression, Family, Hook, Read, Rule, Rules,
    Value, Verdict,
};

fn chain(name: &str, base: Option<(i32, bool)>, rules: Vec<Vec<Expression>>) -> Chain {
    let base = base.map(|(priority, drops)| Base {
        hook: Hook::Forward,
        priority,
        translates: false,
        drops,
        devices: Vec::new(),
    });
    let number = |(place, expressions)| Rule { handle: place as u64 + 1, expressions };
    let rules = rules.into_iter().enumerate().map(number).collect();
    Chain { backend: Backend::Nft, family: Family::Inet, table: "t".into(), name: name.into(), base, rules }
}

fn packet() -> Packet {
    let mut packet = Packet::new(Protocol::Tcp, "192.0.2.7:49152".parse().unwrap(), "10.20.0.2:80".parse().unwrap());
    packet.came_by = Some(Wire { index: 2, name: "uplink".into() });
    packet
}

fn run(rules: &Rules) -> Passage {
    let around = Surroundings { rules, is_local: &|_: IpAddr| false, masquerade: None, leads_back: None };
    pass(&mut packet(), Hook::Forward, false, i32::MIN..=i32::MAX, &around)
}

fn of(chains: Vec<Chain>) -> Rules {
    Rules { chains, ..Rules::default() }
}

fn verdict(verdict: Verdict) -> Expression {
    Expression::Verdict(verdict)
}

fn unknown() -> Expression {
    Expression::Unknown("limit".into())
}

/// The chain and the handle of what stops it.
fn stopped(passage: &Passage) -> Option<(&str, Option<u64>)> {
    passage.stopped.as_ref().map(|blame| (blame.chain.as_str(), blame.handle))
}

#[test]
fn an_accept_ends_its_own_chain_only() {
    let rules = of(vec![
        chain("late", Some((10, false)), vec![vec![verdict(Verdict::Drop)]]),
        chain("early", Some((0, true)), vec![vec![verdict(Verdict::Accept)]]),
    ]);
    assert_eq!(stopped(&run(&rules)), Some(("late", Some(1))));
    let rules = of(vec![chain("early", Some((0, true)), vec![vec![verdict(Verdict::Continue)]])]);
    assert_eq!(stopped(&run(&rules)), Some(("early", None)), "the policy");
}

#[test]
fn jumps_come_back_and_gotos_do_not() {
    let sub = || chain("sub", None, vec![vec![verdict(Verdict::Return)], vec![verdict(Verdict::Drop)]]);
    let to_sub = |verdict: fn(String) -> Verdict| vec![Expression::Verdict(verdict("sub".into()))];
    let rules = |first| of(vec![chain("base", Some((0, false)), vec![first, vec![verdict(Verdict::Drop)]]), sub()]);
    assert_eq!(stopped(&run(&rules(to_sub(Verdict::Jump)))), Some(("base", Some(2))));
    assert_eq!(stopped(&run(&rules(to_sub(Verdict::Goto)))), None);
    // A chain that jumps to itself comes to an end.
    let rules = of(vec![chain("base", Some((0, false)), vec![vec![verdict(Verdict::Jump("base".into()))]])]);
    assert_eq!(stopped(&run(&rules)), None);
}

#[test]
fn what_cannot_be_told_is_a_doubt_wherever_it_stands() {
    // It may drop.
    let passage = run(&of(vec![chain("base", Some((0, false)), vec![vec![unknown(), verdict(Verdict::Drop)]])]));
    assert_eq!((stopped(&passage), passage.doubts.len()), (None, 1));
    // It may accept before a drop.
    let rules = of(vec![chain("base", Some((0, true)), vec![vec![unknown(), verdict(Verdict::Accept)]])]);
    let passage = run(&rules);
    assert_eq!((stopped(&passage), passage.doubts.len()), (None, 1));
    // It may jump to where something drops.
    let jump = vec![unknown(), verdict(Verdict::Jump("sub".into()))];
    let sub = chain("sub", None, vec![vec![verdict(Verdict::Drop)]]);
    let passage = run(&of(vec![chain("base", Some((0, false)), vec![jump]), sub]));
    assert_eq!((stopped(&passage), passage.doubts.len()), (None, 1));
    // What stands behind a certain end is never reached.
    let jump = vec![unknown(), verdict(Verdict::Jump("sub".into()))];
    let sub = chain("sub", None, vec![vec![verdict(Verdict::Return)], vec![verdict(Verdict::Drop)]]);
    let passage = run(&of(vec![chain("base", Some((0, false)), vec![jump]), sub]));
    assert_eq!((stopped(&passage), passage.doubts.len()), (None, 0));
    // It stands behind a condition that does not hold, or before nothing that matters.
    let not_udp = Expression::If(Condition::Protocol(17), true);
    let passage = run(&of(vec![chain(
        "base",
        Some((0, false)),
        vec![vec![not_udp, unknown(), verdict(Verdict::Drop)], vec![unknown(), verdict(Verdict::Accept)]],
    )]));
    assert_eq!((stopped(&passage), passage.doubts.len()), (None, 0));
}

#[test]
fn sets_are_looked_up_by_key_by_interval_and_by_prefix() {
    let key = |port: u16| Element { key: port.to_be_bytes().to_vec(), ..Element::default() };
    let end = |port: u16| Element { ends: true, ..key(port) };
    let prefix = Element {
        key: [192, 0, 2, 0, 10, 20, 0, 0].to_vec(),
        last: Some([192, 0, 2, 255, 10, 20, 255, 255].to_vec()),
        ..Element::default()
    };
    let drops = |elements: Vec<Element>, read: Vec<(Read, usize)>, negated: bool| {
        let mut rule: Vec<Expression> = read.into_iter().map(|(read, to)| Expression::Read(read, to)).collect();
        rule.extend([Expression::Lookup { set: "s".into(), key: 0, to: None, negated }, verdict(Verdict::Drop)]);
        let sets = HashMap::from([((Family::Inet, "t".to_owned(), "s".to_owned()), elements)]);
        let chains = vec![chain("base", Some((0, false)), vec![rule])];
        run(&Rules { chains, sets, faults: Vec::new() }).stopped.is_some()
    };
    let port = || vec![(Read::TransportHeader(2, 2), 0)];
    assert!(drops(vec![key(80)], port(), false) && !drops(vec![key(81)], port(), false));
    assert!(!drops(vec![key(80)], port(), true) && drops(vec![], port(), true));
    assert!(drops(vec![key(79), end(90), end(0)], port(), false));
    assert!(!drops(vec![key(70), end(80), key(81)], port(), false));
    let pair = || vec![(Read::Network(12, 4), 0), (Read::Network(16, 4), 4)];
    assert!(drops(vec![prefix.clone()], pair(), false));
    let elsewhere = Element { key: [192, 0, 3, 0, 10, 20, 0, 0].to_vec(), ..prefix };
    assert!(!drops(vec![elsewhere], pair(), false));
}

#[test]
fn a_map_of_verdicts_decides() {
    let name = |name: &str| {
        let mut key = name.as_bytes().to_vec();
        key.resize(16, 0);
        key
    };
    let element = Element { key: name("uplink"), value: Some(Value::Verdict(Verdict::Drop)), ..Element::default() };
    let lookup = Expression::Lookup { set: "m".into(), key: 0, to: Some(Destination::Verdict), negated: false };
    let rule = vec![Expression::Read(Read::CameByName, 0), lookup];
    let sets = HashMap::from([((Family::Inet, "t".to_owned(), "m".to_owned()), vec![element])]);
    let rules = Rules { chains: vec![chain("base", Some((0, false)), vec![rule])], sets, faults: Vec::new() };
    assert_eq!(stopped(&run(&rules)), Some(("base", Some(1))));
}

#[test]
fn masks_need_only_what_they_leave() {
    // The time to live is not known; the protocol beside it is.
    let rule = vec![
        Expression::Read(Read::Network(8, 2), 0),
        Expression::Mask { from: 0, to: 0, mask: vec![0, 0xff], xor: vec![0, 0] },
        Expression::Compare(0, Comparison::Equal, vec![0, 6]),
        verdict(Verdict::Drop),
    ];
    let passage = run(&of(vec![chain("base", Some((0, false)), vec![rule])]));
    assert_eq!((stopped(&passage), passage.doubts.len()), (Some(("base", Some(1))), 0));
}
