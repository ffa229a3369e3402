//! What there is to say: lines for humans on stderr, with a priority where that is the journal, or
//! an object a line on stdout.

use std::collections::BTreeSet;
use std::env;
use std::io::{self, Write};

use netcore::engine::{Mended, Outcome};
use serde::Serialize;
use serde_json::json;

/// How many objects a repair names; a full host has thousands, and JSON names them all.
const NAMED: usize = 20;

/// syslog(3), as sd-daemon(3) has it at the beginning of a line.
#[derive(Clone, Copy)]
enum Priority {
    Error = 3,
    Warning = 4,
    Notice = 5,
    Info = 6,
}

/// Says what happens.
pub(super) struct Log {
    json: bool,
    prefixed: bool,
    /// What was wrong with records when they were last looked at: said once.
    faults: BTreeSet<String>,
}

impl Log {
    pub(super) fn new(json: bool) -> Self {
        Self { json, prefixed: stderr_is_the_journal(), faults: BTreeSet::new() }
    }

    pub(super) fn warn(&self, what: &str) {
        self.event("warning", &json!({ "message": what }));
        self.line(Priority::Warning, what);
    }

    pub(super) fn failed(&self, error: &netcore::Error) {
        self.event("failed", &json!({ "message": error.to_string() }));
        self.line(Priority::Error, &format!("nothing could be repaired: {error}"));
    }

    pub(super) fn stopped(&self) {
        self.event("stopped", &json!({}));
        self.line(Priority::Info, "stopped");
    }

    /// What came of a look; the `first` is when watching has begun.
    pub(super) fn mended(&mut self, mended: &Mended, first: bool) {
        self.event(if first { "watching" } else { "looked" }, mended);
        for object in mended.repair.objects.iter().take(NAMED) {
            let priority = if object.outcome == Outcome::Restored { Priority::Notice } else { Priority::Error };
            let (who, what, found) = (&object.who, &object.object, &object.found);
            self.line(priority, &format!("{who}: {what} was {found}: {}", object.outcome));
        }
        if let Some(more @ 1..) = mended.repair.objects.len().checked_sub(NAMED) {
            self.line(Priority::Notice, &format!("and {more} more"));
        }
        let faults: BTreeSet<String> = mended.repair.faults.iter().cloned().collect();
        for fault in faults.difference(&self.faults) {
            self.line(Priority::Warning, fault);
        }
        if !mended.reasons.is_empty() {
            // Those that only concern some attachments say nothing of the others.
            self.faults = faults;
        }
        let restored = mended.repair.count(|outcome| *outcome == Outcome::Restored);
        if restored > 0 && !first {
            self.line(Priority::Notice, &summary(mended, restored));
        }
        if let Some(fight) = mended.fight {
            let who = mended.by.as_ref().map_or_else(|| "something".to_owned(), ToString::to_string);
            let (times, pause) = (fight.times, fight.pause.as_millis());
            self.line(
                Priority::Warning,
                &format!("{who} keeps undoing this: restored {times} times in a row, the next time after {pause} ms"),
            );
        }
        if first {
            let attachments = mended.repair.attachments;
            self.line(Priority::Info, &format!("watching over {attachments} attachments"));
        }
    }

    fn event(&self, event: &str, what: &impl Serialize) {
        #[derive(Serialize)]
        struct Line<'a, T> {
            event: &'a str,
            #[serde(flatten)]
            what: &'a T,
        }
        if self.json
            && let Ok(mut line) = serde_json::to_vec(&Line { event, what })
        {
            line.push(b'\n');
            // A reader that has gone is no reason to stop watching.
            let _ = io::stdout().write_all(&line).and_then(|()| io::stdout().flush());
        }
    }

    fn line(&self, priority: Priority, text: &str) {
        if self.json {
            return;
        }
        let prefix = if self.prefixed { format!("<{}>", priority as u8) } else { String::new() };
        // The journal takes each line for a message of its own.
        let text = text.replace('\n', &format!("\n{prefix}"));
        let _ = writeln!(io::stderr(), "{prefix}{text}");
    }
}

fn summary(mended: &Mended, restored: usize) -> String {
    let cause = match (&mended.by, mended.reasons.is_empty()) {
        (Some(culprit), _) => format!(" after {culprit} changed the firewall"),
        (None, false) => format!(": {}", mended.reasons.join(", ")),
        (None, true) => String::new(),
    };
    format!("{restored} restored within {} ms{cause}", mended.took.as_millis())
}

/// Whether what we write to stderr goes to the journal itself (systemd.exec(5), `$JOURNAL_STREAM`).
fn stderr_is_the_journal() -> bool {
    let Some(stream) = env::var("JOURNAL_STREAM").ok() else { return false };
    rustix::fs::fstat(io::stderr()).is_ok_and(|stat| stream == format!("{}:{}", stat.st_dev, stat.st_ino))
}
