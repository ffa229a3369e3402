//! What others still do for bridges that are gone: a permanent binding of firewalld's, whom nobody
//! could tell when its bridge went.

use super::repair::outcome;
use super::{Engine, Outcome, Repair, Repaired};
use crate::error::Result;
use crate::kernel::Kernel;
use crate::model::{Mark, Name, Object};

impl<K: Kernel> Engine<K> {
    /// Takes it back: what there was, and what became of it.
    pub(super) async fn sweep(&self) -> Result<Vec<(Object, Result<()>)>> {
        let mut swept = Vec::new();
        for (network, object) in self.leftovers().await? {
            let done = self.take_back(&network, vec![object.clone()]).await;
            swept.push((object, done));
        }
        Ok(swept)
    }

    /// As [`sweep`](Self::sweep), or only a look, as a part of `report`.
    pub(super) async fn report_sweep(&self, check: bool, report: &mut Repair) -> Result<()> {
        let swept: Vec<(Object, Outcome)> = if check {
            self.leftovers().await?.into_iter().map(|(_, object)| (object, Outcome::Left)).collect()
        } else {
            self.sweep().await?.into_iter().map(|(object, done)| (object, outcome(&done))).collect()
        };
        report.objects.extend(swept.into_iter().map(|(object, outcome)| {
            let who = object.mark().map(Mark::who).unwrap_or_default().to_owned();
            Repaired { who, object: object.to_string(), found: "left behind".to_owned(), outcome }
        }));
        Ok(())
    }

    /// What is left that no record asks for, with its network's name, as the mark has it.
    async fn leftovers(&self) -> Result<Vec<(Name, Object)>> {
        let named = |object: Object| Some((Name::new(object.mark()?.who()).ok()?, object));
        let mut left: Vec<(Name, Object)> = self.kernel.left_behind().await?.into_iter().filter_map(named).collect();
        left.retain(|(network, object)| !self.unneeded(network, vec![object.clone()]).is_empty());
        Ok(left)
    }
}
