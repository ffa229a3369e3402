//! `watch`: repairs by itself, until it is told to end.

mod firewalld;
mod log;

use std::pin::pin;
use std::time::Duration;

use futures::future::{Either, select};
use netcore::Engine;
use netcore::engine::{Mended, Outcome, Watch};

use self::firewalld::Firewalld;
use self::log::Log;
use crate::cli::WatchArguments;
use crate::exit::{Exit, Failure};
use crate::stop::Stop;
use crate::supervisor::Supervisor;

/// Watches, and says what it did.
pub(crate) async fn watch(engine: &Engine, arguments: &WatchArguments, json: bool) -> Result<Exit, Failure> {
    let mut stop = Stop::on_signals()?;
    let supervisor = Supervisor::of_environment();
    let mut log = Log::new(json);
    let mut watch = engine.watch()?.every(arguments.every.map(Duration::from_secs));
    if !watch.hears_firewall() {
        log.warn(
            "the kernel has no nf_tables: changes of the firewall are not heard, but looked for every ten seconds",
        );
    }
    let mut firewalld = Firewalld::listen();
    let mut repairs = 0_u64;
    let mut first = true;
    loop {
        let status = match watch.mend().await {
            Ok(mended) => {
                repairs += u64::from(mended.repair.count(|outcome| *outcome == Outcome::Restored) > 0);
                log.mended(&mended, first);
                status(&mended, repairs)
            }
            Err(error) => {
                log.failed(&error);
                error.to_string()
            }
        };
        supervisor.status(&status);
        if first {
            supervisor.ready();
            first = false;
        }
        if next(&mut watch, &mut stop, &mut firewalld, &supervisor).await?.is_none() {
            supervisor.stopping();
            log.stopped();
            return Ok(Exit::Done);
        }
    }
}

/// What ends a wait.
enum Heard {
    Trouble,
    Stop,
    Firewalld(&'static str),
    Nothing,
}

/// Waits until there is something to look at, or until it is time to end: nothing then.
async fn next(
    watch: &mut Watch<'_>,
    stop: &mut Stop,
    firewalld: &mut Firewalld,
    supervisor: &Supervisor,
) -> Result<Option<()>, Failure> {
    loop {
        supervisor.alive();
        let heard = {
            let (told, tick) = (pin!(firewalld.told()), pin!(supervisor.tick()));
            let (trouble, stopped) = (pin!(watch.trouble()), pin!(stop.told()));
            match select(trouble, select(stopped, select(told, tick))).await {
                Either::Left((heard, _)) => heard.map(|()| Heard::Trouble)?,
                Either::Right((Either::Left(_), _)) => Heard::Stop,
                Either::Right((Either::Right((Either::Left((what, _)), _)), _)) => Heard::Firewalld(what),
                Either::Right((Either::Right((Either::Right(_), _)), _)) => Heard::Nothing,
            }
        };
        match heard {
            Heard::Trouble => return Ok(Some(())),
            Heard::Stop => return Ok(None),
            Heard::Firewalld(what) => watch.suspect(what),
            Heard::Nothing => {}
        }
    }
}

fn status(mended: &Mended, repairs: u64) -> String {
    let attachments = mended.repair.attachments;
    let failed = mended.repair.count(|outcome| matches!(outcome, Outcome::Failed { .. })) + mended.repair.faults.len();
    match failed {
        0 => format!("intact; {attachments} looked at last, {repairs} repairs"),
        _ => format!("{failed} not as they should be; {attachments} looked at last, {repairs} repairs"),
    }
}
