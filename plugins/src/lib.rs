//! What every CNI plugin binary shares: the protocol in, the protocol out.
//!
//! A call comes in as an `environment` and a `document` on stdin, is checked as a whole, becomes
//! a network (`configuration`) and an attachment (`wishes`), and goes to the engine as one of its
//! `verbs`. What comes back goes to stdout as a `result` in the shape of the configuration's
//! version, or as a `failure`. Nothing else is ever written there.

mod arguments;
mod configuration;
pub mod conflist;
mod decode;
mod delegate;
mod document;
mod engine;
mod environment;
mod failure;
pub mod heap;
#[cfg(static_nftnl)]
mod mnl;
mod namespace;
mod ports;
mod result;
mod serve;
mod start;
mod verbs;
mod versions;
mod wishes;

use std::env;
use std::io::{self, IsTerminal, Read, Write};

use netcore::driver::Driver;

use crate::engine::Host;
use crate::serve::{Answer, serve};
use crate::versions::Version;

pub use crate::start::start;

/// Answers the one call that this process was started for; whether it succeeded.
fn run<D: Driver>() -> bool {
    failure::answer_panics();
    let tell = |text: &str| {
        let mut stdout = io::stdout();
        writeln!(stdout, "{text}").and_then(|()| stdout.flush())
    };
    match serve::<D, _>(|name| env::var_os(name), stdin(), tell, Host::open) {
        Ok(Answer::Done) => true,
        Ok(Answer::Introduce) => {
            eprintln!("CNI plugin {} of netcore {}", D::TYPE, env!("CARGO_PKG_VERSION"));
            eprintln!("CNI protocol versions supported: {}", Version::list());
            true
        }
        Err(failure) => {
            let text = failure.to_json();
            if tell(&text).is_err() {
                eprintln!("{text}");
            }
            false
        }
    }
}

/// A terminal has no configuration to offer, and would be waited for.
fn stdin() -> Box<dyn Read> {
    if io::stdin().is_terminal() { Box::new(io::empty()) } else { Box::new(io::stdin().lock()) }
}
