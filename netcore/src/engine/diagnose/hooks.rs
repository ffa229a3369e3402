//! The rules of one hook, on the host or in a container: what stops a packet there, and what may.

use super::container::Container;
use super::cure;
use super::evaluate::{self, Blame, Surroundings};
use super::packet::Packet;
use super::walk::{Walk, usable};
use super::world::HOST;
use super::{Cure, Halt, Stopped};
use crate::kernel::Inspect;
use crate::model::Scene;
use crate::model::rules::Hook;

impl<'w, K: Inspect> Walk<'w, K> {
    /// Into a container, up to its programs.
    pub(super) fn enter_hooks(&mut self, container: &Container<'w, K>, packet: &mut Packet) -> Result<(), Halt> {
        packet.came_by = container.wire();
        packet.leaves_by = None;
        self.inside(container, Hook::Ingress, packet)?;
        self.inside(container, Hook::Prerouting, packet)?;
        self.inside(container, Hook::Input, packet)
    }

    pub(super) fn inside(&mut self, container: &Container<'w, K>, hook: Hook, packet: &mut Packet) -> Result<(), Halt> {
        let at = container.name();
        let outcome = self.evaluate(&at, &container.scene, hook, false, i32::MIN..=i32::MAX, None, packet);
        outcome.map(drop).map_err(|halt| match halt {
            Halt::Stopped(stopped) => {
                let cure = match &stopped.cure {
                    Cure::Command(command) => container.command(command),
                    advice => advice.clone(),
                };
                Halt::Stopped(Box::new(Stopped { cure, ..*stopped }))
            }
            failed => failed,
        })
    }

    pub(super) fn frame_hook(&mut self, hook: Option<Hook>, packet: &mut Packet) -> Result<(), Halt> {
        let Some(hook) = hook else { return Ok(()) };
        let world = self.world;
        self.evaluate(HOST, &world.scene, hook, true, i32::MIN..=i32::MAX, None, packet).map(drop)
    }

    pub(super) fn hook(&mut self, hook: Hook, packet: &mut Packet) -> Result<Option<Blame>, Halt> {
        self.run(hook, i32::MIN..=i32::MAX, None, packet)
    }

    pub(super) fn run(
        &mut self,
        hook: Hook,
        priorities: std::ops::RangeInclusive<i32>,
        leads_back: Option<bool>,
        packet: &mut Packet,
    ) -> Result<Option<Blame>, Halt> {
        let world = self.world;
        self.evaluate(HOST, &world.scene, hook, false, priorities, leads_back, packet)
    }

    #[allow(clippy::too_many_arguments, reason = "one place where a hook is run, for both namespaces")]
    pub(super) fn evaluate(
        &mut self,
        at: &str,
        scene: &Scene,
        hook: Hook,
        is_frame: bool,
        priorities: std::ops::RangeInclusive<i32>,
        leads_back: Option<bool>,
        packet: &mut Packet,
    ) -> Result<Option<Blame>, Halt> {
        let v6 = packet.is_v6();
        let leaving = packet.leaves_by.as_ref().and_then(|wire| scene.by_index(wire.index));
        let around = Surroundings {
            rules: &scene.rules,
            is_local: &|address| scene.is_local(address),
            masquerade: leaving.and_then(|interface| usable(interface, v6)),
            leads_back,
        };
        let passage = evaluate::pass(packet, hook, is_frame, priorities, &around);
        for (blame, reason) in &passage.doubts {
            let doubt = format!("{at}: {} may apply: {reason}", cure::describe(blame));
            if !self.doubts.contains(&doubt) {
                self.doubts.push(doubt);
            }
        }
        if let Some(blame) = passage.stopped {
            let what = if packet.is_answer { "the answer" } else { "it" };
            let verb = if blame.rejects { "rejects" } else { "drops" };
            let by = format!("{} {verb} {what}", cure::describe(&blame));
            let is_ours_to_mend = hook == Hook::Forward && at == HOST && cure::is_iptables(&blame);
            let cure = if is_ours_to_mend && self.world.lacks_admission() {
                Cure::repair()
            } else {
                cure::admit(&blame, packet, scene, at == HOST)
            };
            return Err(Halt::at(at, by, cure));
        }
        if passage.chains > 0 {
            let (frames, answer) =
                (if is_frame { "bridge " } else { "" }, if packet.is_answer { ", the answer" } else { "" });
            let chains = if passage.chains == 1 { "1 chain".to_owned() } else { format!("{} chains", passage.chains) };
            self.pass(at, format!("{frames}{}: {chains}{answer}", hook.name()));
        }
        for fault in &scene.rules.faults {
            let doubt = format!("{at}: {fault}");
            if !self.doubts.contains(&doubt) {
                self.doubts.push(doubt);
            }
        }
        Ok(passage.translated)
    }
}
