//! What every CNI plugin binary shares: the protocol in, the protocol out.
//!
//! A call comes in as an `environment` and a `document` on stdin, is checked as a whole, becomes
//! a network (`configuration`) and an attachment (`wishes`), and goes to the engine as one of its
//! `verbs`. What comes back goes to stdout as a `result` in the shape of the configuration's
//! version, or as a `failure`. Nothing else is ever written there.

mod arguments;
mod configuration;
mod decode;
mod delegate;
mod document;
mod engine;
mod environment;
mod failure;
mod namespace;
mod ports;
mod result;
mod serve;
mod unsupported;
mod verbs;
mod versions;
mod wishes;
