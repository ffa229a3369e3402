//! Switching the host to forwarding, and back: what was before is written down first, what somebody
//! has switched off for single interfaces stays off, and nothing is left switched behind the last
//! network.
//!
//! The switch of the whole host throws those of all interfaces (Documentation/networking/ip-sysctl.rst),
//! and does not remember what they were. So the ledger does.

use std::collections::HashSet;
use std::path::Path;

use super::Engine;
use crate::apply::apply_each;
use crate::error::{Error, Result};
use crate::kernel::Kernel;
use crate::model::{Object, Place, Sysctl};
use crate::plan::{Step, plan_around};
use crate::store::{self, HeldLedger, Ledger, Switched};

/// The switches of the whole host, and whether they are IPv6's.
const OF_ALL: [(&str, bool); 2] = [("net/ipv4/ip_forward", false), ("net/ipv6/conf/all/forwarding", true)];

/// Says whether forwarding was thrown on for all interfaces until now, as far as anybody has heard.
pub(super) type Thrown<'a> = &'a mut (dyn FnMut() -> Result<bool> + Send);

/// A change of switches under way; the ledger is held until it is done.
pub(super) struct Switching {
    ledger: HeldLedger,
    /// Single interfaces' switches that are to be on.
    on: HashSet<String>,
}

impl<K: Kernel> Engine<K> {
    /// Prepares for what `steps` switch, on the way to `wanted`: writes down what was, and sees to it
    /// that the host keeps its ways out. Nothing if they switch nothing.
    pub(super) async fn before_switching(
        &self,
        kernel: &K,
        steps: &[Step],
        wanted: &[Object],
    ) -> Result<Option<Switching>> {
        let switched: Vec<(&Sysctl, &Sysctl)> = steps.iter().filter_map(switch).collect();
        let of_all = |ipv6: bool| OF_ALL.iter().find(|(_, family)| *family == ipv6).map(|(name, _)| *name);
        let asks = |name: &str| settings(wanted).any(|setting| setting.name == name && setting.value == "1");
        let concerned = settings(wanted).any(|setting| OF_ALL.iter().any(|(name, _)| *name == setting.name));
        if switched.is_empty() && (!concerned || self.store.has_ledger()) {
            return Ok(None);
        }
        let mut ledger = self.store.ledger()?;
        let on: HashSet<String> =
            settings(wanted).filter(|setting| setting.value == "1").map(|setting| setting.name.clone()).collect();
        for ipv6 in [false, true] {
            let Some(name) = of_all(ipv6).filter(|name| asks(name)) else { continue };
            if !switched.iter().any(|(_, setting)| setting.name == name) {
                self.remember_off(kernel, &mut ledger, ipv6)?;
                continue;
            }
            // With the switch of all off and that of the way out on, somebody forwards by single
            // interfaces, and those that are off are meant to be.
            let (singles, all) = self.switches(kernel, ipv6)?;
            let (is_on, is_off): (Vec<_>, Vec<_>) = singles.into_iter().partition(|single| single.value == "1");
            let by_singles = match kernel.default_link(Place::Host).await? {
                Some(way_out) => is_on.iter().any(|single| is_switch_of(single, way_out.as_str())),
                None => is_on.iter().any(|single| !on.contains(&single.name)),
            };
            if all == Some(false) && by_singles {
                ledger.ledger.off.extend(is_off.into_iter().map(|single| single.name));
                ledger.ledger.on_before.extend(is_on.into_iter().map(|single| single.name));
            }
            ledger.ledger.throwing = true;
        }
        // 0 is somebody's own choice, and whoever chose it brings the routes by other means.
        let mut ways_out = Vec::new();
        if switched.iter().any(|(_, setting)| of_all(true) == Some(&setting.name) && setting.value == "1") {
            ways_out = kernel.advertised_ways_out()?;
            ways_out.retain(|setting| setting.value == "1");
        }
        for (was, setting) in &switched {
            note(&mut ledger, was, &setting.value);
        }
        for was in &ways_out {
            note(&mut ledger, was, "2");
        }
        ledger.save()?;
        for was in ways_out {
            let setting = Sysctl { value: "2".to_owned(), ..was.clone() };
            kernel.update(&Object::Sysctl(was), &Object::Sysctl(setting)).await?;
        }
        Ok(Some(Switching { ledger, on }))
    }

    /// Ends what [`before_switching`](Self::before_switching) began: what was off and should be is
    /// switched off again. The steps that did it, each with what became of it.
    pub(super) async fn after_switching(
        &self,
        kernel: &K,
        switching: Option<Switching>,
    ) -> Result<Vec<(Step, Result<()>)>> {
        let Some(Switching { mut ledger, on }) = switching else { return Ok(Vec::new()) };
        if !ledger.ledger.throwing {
            return Ok(Vec::new());
        }
        let wanted = ledger.ledger.off.iter().filter(|name| !on.contains(*name)).map(|name| off(name)).collect();
        let done = rewrite(kernel, wanted).await?;
        ledger.ledger.throwing = false;
        ledger.save()?;
        Ok(done)
    }

    /// Switches off again what the ledger knows to have been off, if `thrown`, or if whoever threw the
    /// switch of all died over it; otherwise remembers what is off now. Once for each look.
    pub(super) async fn keep_off(
        &self,
        kernel: &K,
        wanted: &[Object],
        thrown: Thrown<'_>,
    ) -> Result<Vec<(Step, Result<()>)>> {
        let asked: Vec<bool> = OF_ALL
            .iter()
            .filter(|(name, _)| settings(wanted).any(|setting| setting.name == *name))
            .map(|(_, ipv6)| *ipv6)
            .collect();
        if asked.is_empty() {
            return Ok(Vec::new());
        }
        let mut ledger = self.store.ledger()?;
        let before = ledger.ledger.clone();
        for ipv6 in asked {
            self.remember_off(kernel, &mut ledger, ipv6)?;
        }
        // Asked only now: the kernel says that the switch of all was thrown before that shows on the others (IPv4's; of
        // IPv6's, right behind), so what was seen is meant if nothing was heard. And what this look has thrown itself
        // it has also put right.
        if thrown()? || before.throwing {
            ledger.ledger = Ledger { throwing: true, ..before };
            let on = settings(wanted).filter(|setting| setting.value == "1").map(|setting| setting.name.clone());
            return self.after_switching(kernel, Some(Switching { ledger, on: on.collect() })).await;
        }
        if ledger.ledger != before || !self.store.has_ledger() {
            ledger.save()?;
        }
        Ok(Vec::new())
    }

    /// Puts what was switched back to what it was, if it still is as we set it, and forgets about it,
    /// unless anybody is attached to anything.
    pub(super) async fn switch_back(&self) -> Result<()> {
        // A record that cannot be understood may need them, and who has them set at every start wants them
        // to be.
        if !self.store.has_ledger()
            || self.store.any(None, |_| true).unwrap_or(true)
            || store::is_persisted(Path::new("/"))
        {
            return Ok(());
        }
        let ledger = self.store.ledger()?;
        let mut back: Vec<(Sysctl, Sysctl)> = Vec::new();
        for (name, switched) in &ledger.ledger.switched {
            let set = setting(name, &switched.set);
            back.push((set, setting(name, &switched.was)));
        }
        // The switch of all throws the others, so it goes first.
        back.sort_by_key(|(set, _)| !OF_ALL.iter().any(|(name, _)| *name == set.name));
        let (mut errors, mut gone_back) = (Vec::new(), Vec::new());
        for (set, was) in back {
            let seen = self.kernel.observe(&[Object::Sysctl(set.clone())]).await?;
            if settings(&seen.0).any(|seen| *seen == set) {
                match self.kernel.update(&Object::Sysctl(set.clone()), &Object::Sysctl(was.clone())).await {
                    Ok(()) => gone_back.push((set, was)),
                    Err(error) => errors.push(error),
                }
            }
        }
        if gone_back.iter().any(|(set, _)| OF_ALL.iter().any(|(name, _)| *name == set.name)) {
            let wanted = ledger.ledger.on_before.iter().map(|name| setting(name, "1")).map(Object::Sysctl).collect();
            errors.extend(rewrite(&self.kernel, wanted).await?.into_iter().filter_map(|(_, done)| done.err()));
        }
        // Somebody may have been attached who saw the switches as they were: they come back on for them.
        if self.store.any(None, |_| true).unwrap_or(true) {
            for (set, was) in gone_back {
                errors.extend(self.kernel.update(&Object::Sysctl(was), &Object::Sysctl(set)).await.err());
            }
            return Error::from_list(errors);
        }
        Error::from_list(errors)?;
        ledger.forget()
    }

    /// While the host forwards, what does not is meant not to.
    fn remember_off(&self, kernel: &K, ledger: &mut HeldLedger, ipv6: bool) -> Result<()> {
        let (singles, all) = self.switches(kernel, ipv6)?;
        if all == Some(true) {
            let family = if ipv6 { "net/ipv6/" } else { "net/ipv4/" };
            let off = singles.into_iter().filter(|single| single.value == "0");
            ledger.ledger.off.retain(|name| !name.starts_with(family));
            ledger.ledger.off.extend(off.map(|single| single.name));
        }
        Ok(())
    }

    /// Those of single interfaces, and whether that of all is on, if it is not being thrown.
    fn switches(&self, kernel: &K, ipv6: bool) -> Result<(Vec<Sysctl>, Option<bool>)> {
        let is_of_all = |setting: &Sysctl| OF_ALL.iter().any(|(name, _)| *name == setting.name);
        let (all, singles): (Vec<_>, Vec<_>) = kernel.forwarding_switches(ipv6)?.into_iter().partition(is_of_all);
        Ok((singles, all.first().map(|setting| setting.value != "0")))
    }
}

/// Whether `single` is the forwarding switch of `interface`.
fn is_switch_of(single: &Sysctl, interface: &str) -> bool {
    single.name.strip_suffix("/forwarding").is_some_and(|name| name.ends_with(&format!("/conf/{interface}")))
}

/// What a step switches, from what to what, if it switches a setting of the host.
fn switch(step: &Step) -> Option<(&Sysctl, &Sysctl)> {
    match step {
        Step::Update { was, object: Object::Sysctl(setting), .. } if setting.place == Place::Host => {
            settings(std::slice::from_ref(&**was)).next().map(|was| (was, setting))
        }
        _ => None,
    }
}

/// The first value that was found counts: later ones may be ours, or between ours.
fn note(ledger: &mut HeldLedger, was: &Sysctl, set: &str) {
    let switched = ledger.ledger.switched.entry(was.name.clone());
    let switched = switched.or_insert_with(|| Switched { was: was.value.clone(), set: String::new() });
    switched.set = set.to_owned();
}

/// Gives those of `wanted` that are there and differ their values.
async fn rewrite<K: Kernel>(kernel: &K, wanted: Vec<Object>) -> Result<Vec<(Step, Result<()>)>> {
    let (mut steps, _) = plan_around(&wanted, &kernel.observe(&wanted).await?);
    // An interface that has gone has no switch.
    steps.retain(|step| matches!(step, Step::Update { .. }));
    let done = apply_each(kernel, &steps).await;
    Ok(steps.into_iter().zip(done).collect())
}

fn settings(objects: &[Object]) -> impl Iterator<Item = &Sysctl> {
    objects.iter().filter_map(|object| match object {
        Object::Sysctl(setting) if setting.place == Place::Host => Some(setting),
        _ => None,
    })
}

fn setting(name: &str, value: &str) -> Sysctl {
    Sysctl { place: Place::Host, name: name.to_owned(), value: value.to_owned() }
}

fn off(name: &str) -> Object {
    Object::Sysctl(setting(name, "0"))
}

#[cfg(test)]
mod tests {
    use tokio::runtime::Builder;

    use super::*;
    use crate::kernel::Memory;
    use crate::store::Store;

    const ALL: &str = "net/ipv4/ip_forward";
    const ETH1: &str = "net/ipv4/conf/eth1/forwarding";

    fn set(kernel: &Memory, name: &str, to: &str) {
        for value in ["0", "1"] {
            kernel.take(&Object::Sysctl(setting(name, value)));
        }
        kernel.put(Object::Sysctl(setting(name, to)));
    }

    /// Looks at a host that forwards; `heard` says whether that was thrown by the time the switches have been read.
    fn look(engine: &Engine<Memory>, heard: bool) -> usize {
        let wanted = [Object::Sysctl(setting(ALL, "1"))];
        let mut thrown = || Ok(heard);
        let looked = engine.keep_off(&engine.kernel, &wanted, &mut thrown);
        Builder::new_current_thread().build().expect("a runtime").block_on(looked).expect("a look").len()
    }

    #[test]
    fn what_is_thrown_in_the_middle_of_a_look_is_not_what_was_meant() {
        let directory = tempfile::tempdir().expect("a directory");
        let kernel = Memory::new();
        let engine = Engine::new(kernel.clone(), Store::new(directory.path().join("records")));
        let value = |expected| kernel.objects().contains(&Object::Sysctl(setting(ETH1, expected)));
        set(&kernel, ALL, "1");
        set(&kernel, ETH1, "0");
        assert_eq!(look(&engine, false), 0);

        // The switch of all, after the look has begun.
        set(&kernel, ETH1, "1");
        assert_eq!(look(&engine, true), 1);
        assert!(value("0"));
        // Heard by that look already.
        assert_eq!(look(&engine, false), 0);
        // Somebody means it.
        set(&kernel, ETH1, "1");
        assert_eq!(look(&engine, false), 0);
        assert_eq!(look(&engine, true), 0);
        assert!(value("1"));
    }
}
