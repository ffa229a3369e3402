//! The tables of iptables as they are, what is missing in them, and how that is added:
//! iptables-save(8) and iptables-restore(8).

use std::collections::BTreeMap;
use std::io::Write;
use std::process::{Command, Stdio};

use crate::docker::run;
use crate::docker_rules::WantedChain;

/// The chains of a table, each with its rules.
pub(crate) type Present = BTreeMap<String, Vec<String>>;

/// What is to be added to a table.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Missing {
    chains: Vec<String>,
    /// Chain, place from 1, rule.
    rules: Vec<(String, usize, String)>,
}

impl Missing {
    pub(crate) fn is_empty(&self) -> bool {
        self.chains.is_empty() && self.rules.is_empty()
    }

    /// A line for each chain and rule.
    pub(crate) fn lines(&self) -> impl Iterator<Item = String> {
        let chains = self.chains.iter().map(|chain| format!("chain {chain}"));
        chains.chain(self.rules.iter().map(|(chain, _, rule)| format!("{chain} {rule}")))
    }
}

/// Reads `table`.
pub(crate) fn present(table: &str) -> Result<Present, String> {
    Ok(parse(&run("iptables-save", &["-t", table])?))
}

fn parse(text: &str) -> Present {
    let mut present = Present::new();
    for line in text.lines() {
        if let Some(name) = line.strip_prefix(':').and_then(|declared| declared.split(' ').next()) {
            present.entry(name.to_owned()).or_default();
        } else if let Some((chain, rule)) = line.strip_prefix("-A ").and_then(|rule| rule.split_once(' ')) {
            present.entry(chain.to_owned()).or_default().push(rule.to_owned());
        }
    }
    present
}

/// What of `wanted` is not in `present`, and where it goes: behind the rule it follows, or else to the
/// front; what is last, to the end.
pub(crate) fn compare(wanted: &[WantedChain], present: &Present) -> Missing {
    let mut missing = Missing::default();
    for chain in wanted {
        let there = present.get(chain.name);
        if there.is_none() && chain.is_own {
            missing.chains.push(chain.name.to_owned());
        }
        let mut rules: Vec<String> = there.cloned().unwrap_or_default();
        let mut behind = 0;
        for rule in &chain.rules {
            if let Some(place) = rules.iter().position(|found| is_same(found, &rule.text)) {
                behind = place + 1;
                continue;
            }
            let place = if rule.is_last { rules.len() } else { behind };
            rules.insert(place, rule.text.clone());
            missing.rules.push((chain.name.to_owned(), place + 1, rule.text.clone()));
            behind = place + 1;
        }
    }
    missing
}

/// Whether two rules say the same; versions of iptables-save order options differently.
fn is_same(one: &str, other: &str) -> bool {
    let words = |text: &str| {
        let mut words: Vec<String> = Vec::new();
        let mut negates = false;
        for word in text.split_whitespace() {
            match word {
                "!" => negates = true,
                word => {
                    words.push(if negates { format!("!{word}") } else { word.to_owned() });
                    negates = false;
                }
            }
        }
        words.sort();
        words
    };
    one == other || words(one) == words(other)
}

/// Adds what is missing to `table`, all of it or nothing.
pub(crate) fn restore(table: &str, missing: &Missing) -> Result<(), String> {
    let text = script(table, missing);
    let mut child = Command::new("iptables-restore")
        .args(["--noflush", "--wait"])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(|error| format!("iptables-restore: {error}"))?;
    // What it does not read, it has refused, and says why.
    let written = child.stdin.take().map(|mut stdin| stdin.write_all(text.as_bytes()));
    let output = child.wait_with_output().map_err(|error| format!("iptables-restore: {error}"))?;
    match (output.status.success(), written) {
        (true, Some(Ok(()))) => Ok(()),
        _ => Err(format!("iptables-restore: {}", String::from_utf8_lossy(&output.stderr).trim())),
    }
}

fn script(table: &str, missing: &Missing) -> String {
    let mut text = format!("*{table}\n");
    for chain in &missing.chains {
        text += &format!(":{chain} - [0:0]\n");
    }
    for (chain, place, rule) in &missing.rules {
        text += &format!("-I {chain} {place} {rule}\n");
    }
    text + "COMMIT\n"
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::docker_api::tests::example;
    use crate::docker_rules;

    const SAVED: &str = include_str!("../tests/docker/20.10-proxy.rules");

    fn filter(text: &str) -> Present {
        parse(&text[text.find("*filter").unwrap()..])
    }

    #[test]
    fn what_is_intact_misses_nothing() {
        let wanted = docker_rules::of(&example(false)).unwrap();
        assert_eq!(compare(&wanted[0].1, &filter(SAVED)), Missing::default());
    }

    #[test]
    fn what_is_missing_goes_where_it_was() {
        let wanted = docker_rules::of(&example(false)).unwrap();
        let without = |gone: &str| SAVED.lines().filter(|line| !line.contains(gone)).collect::<Vec<_>>().join("\n");
        let missing = compare(&wanted[0].1, &filter(&without("FORWARD -j DOCKER-ISOLATION-STAGE-1")));
        assert_eq!(missing.rules, [("FORWARD".to_owned(), 2, "-j DOCKER-ISOLATION-STAGE-1".to_owned())]);
        assert!(missing.chains.is_empty());
        // An administrator's own rule in Docker's chain for that stays before the end.
        let theirs = without("DOCKER-USER -j RETURN") + "\n-A DOCKER-USER -s 192.0.2.1/32 -j DROP";
        let missing = compare(&wanted[0].1, &filter(&theirs));
        assert_eq!(missing.rules, [("DOCKER-USER".to_owned(), 2, "-j RETURN".to_owned())]);
    }

    #[test]
    fn all_of_it_comes_back_in_order() {
        let wanted = docker_rules::of(&example(false)).unwrap();
        let missing = compare(&wanted[0].1, &filter("*filter\n:FORWARD DROP [0:0]\n"));
        let mut rebuilt = Present::new();
        for (chain, place, rule) in &missing.rules {
            rebuilt.entry(chain.clone()).or_default().insert(place - 1, rule.clone());
        }
        let saved = filter(SAVED);
        for chain in ["FORWARD", "DOCKER-ISOLATION-STAGE-1", "DOCKER-ISOLATION-STAGE-2", "DOCKER-USER"] {
            assert_eq!(rebuilt[chain], saved[chain], "{chain}");
        }
        assert!(script("filter", &missing).starts_with("*filter\n:DOCKER - [0:0]\n"));
    }
}
