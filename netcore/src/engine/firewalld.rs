//! What firewalld is asked for. It may refuse, or not answer: that is said, and keeps nothing else
//! from being done.

use crate::apply::apply_each;
use crate::error::Error;
use crate::kernel::Kernel;
use crate::model::{InterfaceName, Key, Object, Phase, State};
use crate::plan::Step;

/// What is ours to do, and what firewalld is to be asked for.
pub(super) fn split(steps: Vec<Step>) -> (Vec<Step>, Vec<Step>) {
    steps.into_iter().partition(|step| step.object().phase() != Phase::Firewalld)
}

/// Asks for `steps`, and returns what was refused.
pub(super) async fn ask<K: Kernel>(kernel: &K, steps: &[Step]) -> Vec<String> {
    let refused = apply_each(kernel, steps).await.into_iter().filter_map(Result::err);
    let each = refused.flat_map(|error| match error {
        Error::Several(errors) => errors,
        error => vec![error],
    });
    each.map(|error| error.to_string()).collect()
}

/// What is not asked for, since somebody else has decided it.
pub(super) fn declined(wanted: &[Object], actual: &State) -> Vec<String> {
    let is_wanted = |link: &InterfaceName| wanted.iter().any(|object| object.key() == Key::Zone(link.clone()));
    let elsewhere = actual.0.iter().filter_map(|object| match object {
        Object::Zone(seen) if is_wanted(&seen.link) => Some((seen, seen.elsewhere()?)),
        _ => None,
    });
    elsewhere
        .map(|(seen, zone)| {
            format!(
                "firewalld: {} is in zone {zone} and stays there: whether containers are reached, and reach \
                 others, is for that zone to say; take it out of it to have it in zone netcore",
                seen.link
            )
        })
        .collect()
}
