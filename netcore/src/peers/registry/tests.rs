//! Given what is in a registry, this is who is a peer, and what a node writes to be one.

use super::*;
use crate::model::OverlayConfig;

const PREFIX: &str = "/netcore/mesh";

fn name(text: &str) -> Name {
    Name::new(text).unwrap()
}

fn config(cidr: &[&str], lengths: &[u8]) -> OverlayConfig {
    let etcd = serde_json::json!({ "etcd": { "endpoints": ["http://192.0.2.100:2379"], "prefix": PREFIX } });
    let config = serde_json::json!({ "vni": 42, "cidr": cidr, "subnetLen": lengths, "source": etcd });
    serde_json::from_value(config).unwrap()
}

fn wish(node: &str, underlay: &str) -> Peer {
    let node = name(node);
    Peer {
        mac: Peer::endpoint_mac(&node, 42),
        node,
        subnets: Vec::new(),
        underlay: underlay.parse().unwrap(),
        vni: 42,
        port: 4789,
        generation: 0,
        public_key: None,
    }
}

/// A registry that does what etcd would.
struct Store {
    registry: Registry,
    held: BTreeMap<String, (Vec<u8>, u64)>,
    revision: u64,
}

impl Store {
    fn new() -> Self {
        Self { registry: Registry::new(Keys::new(PREFIX)), held: BTreeMap::new(), revision: 1 }
    }

    fn put(&mut self, key: &str, value: impl Into<Vec<u8>>) -> BTreeSet<Name> {
        self.revision += 1;
        let (value, revision) = (value.into(), self.revision);
        let created = self.held.get(key).map_or(revision, |(_, created)| *created);
        self.held.insert(key.to_owned(), (value.clone(), created));
        self.registry.hear(Event::Put(Entry { key: key.to_owned(), value, created }))
    }

    fn delete(&mut self, key: &str) -> BTreeSet<Name> {
        self.held.remove(key);
        self.registry.hear(Event::Deleted(key.to_owned()))
    }

    /// Whether it could be written.
    fn write(&mut self, registration: &Registration) -> bool {
        let absent = registration.absent.iter().all(|key| !self.held.contains_key(key));
        let holds = registration.holds.iter();
        let holds = holds.into_iter().all(|(key, value)| self.held.get(key).is_some_and(|(held, _)| held == value));
        if absent && holds {
            for (key, value) in &registration.put {
                self.put(key, value.clone());
            }
            for key in &registration.delete {
                self.delete(key);
            }
        }
        absent && holds
    }

    fn registration(&self, config: &OverlayConfig, wish: Peer, before: &[&str]) -> Result<Registration> {
        let before: Vec<IpNetwork> = before.iter().map(|subnet| subnet.parse().unwrap()).collect();
        self.registry.registration(&name("mesh"), config, wish, &before, None)
    }

    fn join(&mut self, config: &OverlayConfig, node: &str, underlay: &str) -> Peer {
        let registration = self.registration(config, wish(node, underlay), &[]).unwrap();
        assert!(self.write(&registration));
        assert!(self.registration(config, wish(node, underlay), &[]).unwrap().is_complete());
        self.peer(node)
    }

    fn peer(&self, node: &str) -> Peer {
        match self.registry.said(&name(node)) {
            Said::Peer(peer) => peer,
            other => panic!("{node}: {other:?}"),
        }
    }
}

#[test]
fn every_node_has_a_subnet_of_its_own_and_keeps_it() {
    let config = config(&["10.244.0.0/16", "fd24::/48"], &[]);
    let mut store = Store::new();
    let peers: Vec<Peer> =
        (0..256).map(|node| store.join(&config, &format!("n{node}"), &format!("192.0.2.{node}"))).collect();
    let mut seen = BTreeSet::new();
    for peer in &peers {
        assert_eq!(peer.subnets.iter().map(IpNetwork::prefix).collect::<Vec<_>>(), [24, 64]);
        assert!(peer.subnets.iter().all(|subnet| seen.insert(*subnet)), "{peer:?}");
    }
    let full = store.registration(&config, wish("late", "198.51.100.1"), &[]).unwrap_err().to_string();
    assert!(full.contains("no free address in 10.244.0.0/16, in subnets of /24"), "{full}");

    // Whoever returns is what it was, also with nothing left but what etcd has; and elsewhere.
    assert_eq!(store.join(&config, "n7", "198.51.100.7").subnets, peers[7].subnets);
    assert_eq!(store.peer("n7").underlay.to_string(), "198.51.100.7");
    // Also when its record is lost, but not its place.
    store.delete(&format!("{PREFIX}/nodes/n8"));
    assert!(matches!(store.registry.said(&name("n8")), Said::Nothing));
    assert_eq!(store.join(&config, "n8", "192.0.2.8").subnets, peers[8].subnets);

    let gone = store.registry.withdrawal(&name("n9"));
    assert_eq!(gone.len(), 3);
    gone.iter().for_each(|key| drop(store.delete(key)));
    assert_eq!(store.join(&config, "late", "198.51.100.1").subnets[0], peers[9].subnets[0]);
    assert_eq!(store.registry.withdrawal(&name("n9")), Vec::<String>::new());
}

#[test]
fn what_a_node_had_before_is_taken_if_it_is_free() {
    let config = config(&["10.244.0.0/16"], &[]);
    let mut store = Store::new();
    let mine = ["10.244.77.0/24"];
    let registration = store.registration(&config, wish("a", "192.0.2.1"), &mine).unwrap();
    assert_eq!(registration.peer.subnets[0].to_string(), mine[0]);
    store.put(&format!("{PREFIX}/subnets/10.244.64.0-18"), "b");
    let other = store.registration(&config, wish("a", "192.0.2.1"), &mine).unwrap().peer.subnets[0];
    assert!(
        other.to_string() != mine[0]
            && !(64..128).contains(&other.to_string().split('.').nth(2).unwrap().parse().unwrap())
    );
    assert_eq!(store.registry.holder(&mine[0].parse().unwrap()), Some("b"));
    // What is of another size, or out of the range, was another network's.
    for before in ["10.244.1.0/25", "10.9.1.0/24", "fd24::/64"] {
        let subnet = store.registration(&config, wish("a", "192.0.2.1"), &[before]).unwrap().peer.subnets[0];
        assert_ne!(subnet.to_string(), before);
    }
}

#[test]
fn of_two_who_want_the_same_one_gets_it() {
    let config = config(&["10.244.0.0/24"], &[25]);
    let mut store = Store::new();
    let one = store.registration(&config, wish("a", "192.0.2.1"), &["10.244.0.0/25"]).unwrap();
    let two = store.registration(&config, wish("b", "192.0.2.2"), &["10.244.0.0/25"]).unwrap();
    assert!(store.write(&one));
    assert!(!store.write(&two), "what it was based on is not so any more");
    let two = store.registration(&config, wish("b", "192.0.2.2"), &["10.244.0.0/25"]).unwrap();
    assert!(store.write(&two));
    assert_eq!(store.peer("b").subnets[0].to_string(), "10.244.0.128/25");
    // Two of one name: the second finds that the first is at work.
    let alive = store.registry.registration(&name("mesh"), &config, wish("a", "192.0.2.9"), &[], Some("192.0.2.1"));
    assert!(alive.unwrap_err().to_string().contains("the node at 192.0.2.1 has it"));
    // And goes on in its place when it is not.
    let moved = store.registry.registration(&name("mesh"), &config, wish("a", "192.0.2.9"), &[], Some("192.0.2.9"));
    assert_eq!(moved.unwrap().peer.subnets, one.peer.subnets);
}

#[test]
fn another_size_of_subnets_is_taken_up_and_the_old_one_given_back() {
    let mut store = Store::new();
    store.join(&config(&["10.244.0.0/16"], &[]), "a", "192.0.2.1");
    let narrow = config(&["10.244.0.0/16"], &[26]);
    let peer = store.join(&narrow, "a", "192.0.2.1");
    assert_eq!(peer.subnets[0].prefix(), 26);
    let held: Vec<&String> = store.held.keys().filter(|key| key.contains("/subnets/")).collect();
    assert_eq!(held, [&Keys::new(PREFIX).subnet(&peer.subnets[0])]);
}

#[test]
fn a_subnet_that_is_given_away_takes_its_node_along() {
    let config = config(&["10.244.0.0/16"], &[]);
    let mut store = Store::new();
    let subnet = store.join(&config, "a", "192.0.2.1").subnets[0];
    let key = Keys::new(PREFIX).subnet(&subnet);
    assert_eq!(store.put(&key, "b"), BTreeSet::from([name("a"), name("b")]));
    let Said::Dispossessed(fault) = store.registry.said(&name("a")) else { panic!("a has it still") };
    assert_eq!(fault.to_string(), format!("{PREFIX}/nodes/a: {subnet} is node b's"));
    assert_eq!(store.delete(&key), BTreeSet::from([name("b")]));
    // Nobody has it: that is no reason to let go what was believed.
    let Said::Unreadable(fault) = store.registry.said(&name("a")) else { panic!("a has it, or another") };
    assert!(fault.to_string().ends_with("is not reserved for it"));
}

#[test]
fn keys_that_mean_nothing_are_passed_over() {
    let mut store = Store::new();
    for key in ["nodes", "nodes/", "subnets/10.244.1.0", "subnets/x-24", "subnets/10.244.1.0-99", "other/a", "alive/a"]
    {
        assert_eq!(store.put(&format!("{PREFIX}/{key}"), "{}"), BTreeSet::new(), "{key}");
    }
    assert_eq!(store.registry.hear(Event::Deleted("/elsewhere/nodes/a".to_owned())), BTreeSet::new());
    assert_eq!(store.registry.nodes().count(), 0);
    let keys = Keys::new(PREFIX);
    let (from, to) = keys.followed();
    let within = |key: String| from <= key && key < to;
    assert!(within(keys.node(&name("z"))) && within(keys.subnet(&"fd24::/64".parse().unwrap())));
    assert!(!within(keys.alive(&name("a"))));
}
