//! Doing: carries out the steps of a plan. On the way in it is all or nothing: one attempt, and
//! when a step fails, what was done is undone in reverse. On the way out it is best effort: a
//! step that fails never keeps the next from being tried, and every failure is reported.

use crate::error::{Error, Result};
use crate::kernel::Kernel;
use crate::model::{NatRule, Object, Phase, Place};
use crate::plan::Step;

/// Carries out `steps` and waits until what they made can be used, or leaves everything as it
/// was.
///
/// # Errors
/// What made a step fail; [`Error::Several`] when undoing failed as well.
pub async fn apply<K: Kernel>(kernel: &K, steps: &[Step]) -> Result<()> {
    let mut done = Vec::with_capacity(steps.len());
    let outcome = match advance(kernel, steps, &mut done).await {
        Ok(()) => kernel.settle(&created(steps)).await,
        failed => failed,
    };
    let Err(failure) = outcome else { return Ok(()) };
    let undo: Vec<Step> = done.into_iter().rev().map(Step::undo).collect();
    let mut errors = vec![failure];
    errors.extend(apply_all(kernel, &undo).await);
    Err(Error::several(errors))
}

/// Carries out `steps` on what attachments share, up to the first that fails. Nothing is undone:
/// another attachment may stand on it already.
///
/// # Errors
/// What made a step fail.
pub async fn apply_shared<K: Kernel>(kernel: &K, steps: &[Step]) -> Result<()> {
    advance(kernel, steps, &mut Vec::new()).await
}

/// Carries out `steps`, each whatever becomes of the others, and returns what failed.
pub async fn apply_all<K: Kernel>(kernel: &K, steps: &[Step]) -> Vec<Error> {
    let mut errors = Vec::new();
    for group in groups(steps) {
        if let Err(error) = carry_out(kernel, group).await {
            errors.push(error);
        }
    }
    errors
}

/// Carries out `steps`, each whatever becomes of the others, and says of each what became of it.
/// Steps that go to the kernel together and are refused together go again in halves, until only
/// what is refused for itself is left out.
pub async fn apply_each<K: Kernel>(kernel: &K, steps: &[Step]) -> Vec<Result<()>> {
    let mut outcomes = Vec::with_capacity(steps.len());
    for group in groups(steps) {
        let mut pending = vec![group];
        while let Some(part) = pending.pop() {
            match carry_out(kernel, part).await {
                Err(_) if part.len() > 1 => {
                    let (first, second) = part.split_at(part.len() / 2);
                    pending.extend([second, first]);
                }
                outcome @ Err(_) => outcomes.push(outcome),
                Ok(()) => outcomes.extend(part.iter().map(|_| Ok(()))),
            }
        }
    }
    outcomes
}

async fn advance<'a, K: Kernel>(kernel: &K, steps: &'a [Step], done: &mut Vec<&'a Step>) -> Result<()> {
    for group in groups(steps) {
        let outcome = carry_out(kernel, group).await;
        // A step that fails has done nothing, and so has a transaction. Of ways, some may be there.
        if outcome.is_ok() || group.len() > 1 && !is_transaction(group) {
            done.extend(group);
        }
        outcome?;
    }
    Ok(())
}

fn created(steps: &[Step]) -> Vec<Object> {
    steps.iter().filter(|step| matches!(step, Step::Create(_))).map(|step| step.object().clone()).collect()
}

/// Steps that go to the kernel together: those of the firewall, as long as they are of one kind,
/// make one transaction; the ways to other nodes, of which there may be thousands, are many
/// requests at a time. Every other step stands alone.
fn groups(steps: &[Step]) -> impl Iterator<Item = &[Step]> {
    let joins = |one: &Step, next: &Step| {
        let removes = |step: &Step| matches!(step, Step::Remove(_));
        let same_kind = makes(one) && makes(next) || removes(one) && removes(next);
        let phase = one.object().phase();
        let is_way = |step: &Step| step.object().phase() == Phase::Routes && step.object().place() == Some(Place::Host);
        let together = phase == Phase::Firewall || is_way(one) && is_way(next);
        phase == next.object().phase() && together && same_kind
    };
    steps.chunk_by(joins)
}

fn is_transaction(group: &[Step]) -> bool {
    group.iter().all(|step| step.object().phase() == Phase::Firewall)
}

/// Whether a step is done by making its object: a rule set is mended by making it again, in the
/// transaction that brings back what stood in it.
fn makes(step: &Step) -> bool {
    let mends = |object: &Object| matches!(object.rule(), Some(NatRule::Ruleset { .. }));
    matches!(step, Step::Create(_)) || matches!(step, Step::Update { object, .. } if mends(object))
}

async fn carry_out<K: Kernel>(kernel: &K, group: &[Step]) -> Result<()> {
    match group {
        [first, ..] if makes(first) => kernel.create(&objects(group)).await,
        [Step::Update { was, object, .. }] => kernel.update(was, object).await,
        [Step::Remove(_), ..] => kernel.remove(&objects(group)).await,
        _ => kernel.create(&objects(group)).await,
    }
}

fn objects(group: &[Step]) -> Vec<Object> {
    group.iter().map(|step| step.object().clone()).collect()
}
