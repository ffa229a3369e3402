//! What an operation left behind: everything on a host that an attachment could change, in words.

use std::collections::BTreeMap;
use std::fmt;

use serde_json::Value;

use crate::Host;

/// What there was on a host at one moment. Two of them are compared with [`Snapshot::assert_same`].
#[derive(Clone, PartialEq, Eq)]
pub struct Snapshot {
    things: BTreeMap<String, String>,
}

impl Snapshot {
    pub(crate) fn of(host: &Host) -> Self {
        let mut things = BTreeMap::new();
        for link in json(host, "ip -j -d link") {
            let text = |key: &str| link[key].as_str().unwrap_or_default().to_owned();
            let kind = link["linkinfo"]["info_kind"].as_str().unwrap_or_default();
            let up = link["flags"].as_array().is_some_and(|flags| flags.iter().any(|flag| flag == "UP"));
            let what =
                format!("{kind} up={up} mtu={} master={} alias={}", link["mtu"], text("master"), text("ifalias"));
            things.insert(format!("link {}", text("ifname")), what);
        }
        for link in json(host, "ip -j addr") {
            for address in link["addr_info"].as_array().into_iter().flatten() {
                // Link-local ones come and go with the kernel's own timing.
                if address["scope"] != "link" {
                    let what = format!("address {}/{}", words(&address["local"]), address["prefixlen"]);
                    things.insert(format!("{what} on {}", words(&link["ifname"])), String::new());
                }
            }
        }
        for family in ["-4", "-6"] {
            let routes = host.run(&format!("ip {family} route show table all"));
            // The kernel's own follow from addresses, at its own pace.
            for route in routes.lines().filter(|route| !route.contains("proto kernel")) {
                let route = route.replace(" linkdown", "").replace(" pref medium", "");
                things.insert(format!("route {}", route.trim()), String::new());
            }
        }
        let rules = host.run("nft -s list ruleset");
        for line in with_place(&rules) {
            things.insert(format!("nft {line}"), String::new());
        }
        // Namespace files are mounts; one over another is two of them.
        for mount in host.run("grep ' - nsfs ' /proc/self/mountinfo || true").lines() {
            let field = |number: usize| mount.split(' ').nth(number).unwrap_or_default();
            let mut name = format!("mount {}", field(4));
            while things.contains_key(&name) {
                name += " again";
            }
            things.insert(name, field(3).to_owned());
        }
        let files = "find /run/netcore /var/lib/cni /run/netns ! -type d 2>/dev/null || true";
        for path in host.run(files).lines().filter(|path| !is_bookkeeping(path)) {
            things.insert(format!("file {path}"), String::new());
        }
        for name in ["net.ipv4.ip_forward", "net.ipv6.conf.all.forwarding", "net.ipv4.conf.all.route_localnet"] {
            things.insert(format!("sysctl {name}"), host.run(&format!("sysctl -n {name}")));
        }
        Self { things }
    }

    /// Whether anything here has `text` in its name or its description.
    #[must_use]
    pub fn mentions(&self, text: &str) -> bool {
        self.things.iter().any(|(name, what)| name.contains(text) || what.contains(text))
    }

    /// How many things' names start with `prefix` (`link veth`, `file /run/netcore`).
    #[must_use]
    pub fn count(&self, prefix: &str) -> usize {
        self.things.keys().filter(|name| name.starts_with(prefix)).count()
    }

    /// Fails when anything is different at `later`.
    ///
    /// # Panics
    /// Then, listing what differs and nothing else.
    #[track_caller]
    pub fn assert_same(&self, later: &Snapshot, when: &str) {
        assert!(self == later, "not the same {when}:\n{}", self.difference(later));
    }

    /// What differs at `later`, a line each.
    #[must_use]
    pub fn difference(&self, later: &Snapshot) -> String {
        let mut lines = String::new();
        for (name, what) in &self.things {
            if later.things.get(name) != Some(what) {
                lines += &format!("- {name} {what}\n");
            }
        }
        for (name, what) in &later.things {
            if self.things.get(name) != Some(what) {
                lines += &format!("+ {name} {what}\n");
            }
        }
        lines
    }
}

impl fmt::Display for Snapshot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.things.iter().try_for_each(|(name, what)| writeln!(f, "{name} {what}"))
    }
}

impl fmt::Debug for Snapshot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Files that stay on purpose: locks, and host-local's memory of the last address.
fn is_bookkeeping(path: &str) -> bool {
    let name = path.rsplit('/').next().unwrap_or_default();
    name == "lock" || name.ends_with(".lock") || name.starts_with("last_reserved_ip.")
}

/// Each line of a rule set, and each element of a set, with the table, chain or set it stands in
/// and a number among its equals.
fn with_place(rules: &str) -> Vec<String> {
    let mut open: Vec<&str> = Vec::new();
    let mut seen: BTreeMap<String, u32> = BTreeMap::new();
    let mut lines = Vec::new();
    for line in rules.lines().map(str::trim).filter(|line| !line.is_empty()) {
        if line == "}" {
            open.pop();
            continue;
        }
        // The kernel lists the elements of a set in no particular order, nft several on a line.
        let in_set = open.last().is_some_and(|place| place.starts_with("set ") || place.starts_with("map "));
        let separator = if in_set { "," } else { "\0" };
        let items = line.trim_start_matches("elements = {").trim_end_matches('}').split(separator).map(str::trim);
        for item in items.filter(|item| !item.is_empty()) {
            let place = format!("{}: {item}", open.join("/"));
            let number = seen.entry(place.clone()).and_modify(|number| *number += 1).or_insert(1);
            lines.push(format!("{place} #{number}"));
        }
        if let Some(opened) = line.strip_suffix(" {") {
            open.push(opened);
        }
    }
    lines
}

fn json(host: &Host, command: &str) -> Vec<Value> {
    let text = host.run(command);
    match serde_json::from_str(&text) {
        Ok(Value::Array(items)) => items,
        other => panic!("`{command}` printed {other:?}"),
    }
}

fn words(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}
