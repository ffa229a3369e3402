//! `netctl overlay key`: who this node is to the others.

use std::io::{self, Write};

use netcore::Engine;
use netcore::model::Name;
use serde_json::json;

use crate::exit::{Exit, Failure};
use crate::output;

pub(crate) fn key(engine: &Engine, network: &Name, as_json: bool) -> Result<Exit, Failure> {
    let key = engine.node_key(network)?;
    if as_json {
        output::json(&json!({ "publicKey": key.public }))?;
    } else {
        writeln!(io::stdout(), "{}", key.public)?;
    }
    Ok(Exit::Done)
}
