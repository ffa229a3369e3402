//! The plugin as a runtime sees it: a process with an environment, a stdin and a stdout.

#![allow(clippy::unwrap_used, reason = "a test ends where it goes wrong")]

use std::io::Write;
use std::process::{Command, Output, Stdio};

use serde_json::{Value, json};

fn bridge(variables: &[(&str, &str)], input: &str) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_bridge"));
    command.env_clear().envs(variables.iter().copied());
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    // Whatever the plugin does not read is none of our business.
    let _ = child.stdin.take().unwrap().write_all(input.as_bytes());
    child.wait_with_output().unwrap()
}

fn stdout(output: &Output) -> Value {
    serde_json::from_slice(&output.stdout).unwrap()
}

#[test]
fn a_person_is_told_what_it_is() {
    let output = bridge(&[], "");
    assert!(output.status.success() && output.stdout.is_empty());
    let introduction = String::from_utf8(output.stderr).unwrap();
    assert!(introduction.starts_with("CNI plugin bridge of netcore "), "{introduction}");
    assert!(introduction.contains("0.1.0, 0.2.0, 0.3.0, 0.3.1, 0.4.0, 1.0.0, 1.1.0"), "{introduction}");
}

#[test]
fn a_runtime_is_told_the_versions() {
    let output = bridge(&[("CNI_COMMAND", "VERSION"), ("CNI_NETNS", "dummy")], r#"{"cniVersion": "0.4.0"}"#);
    assert!(output.status.success());
    let supported = ["0.1.0", "0.2.0", "0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0"];
    assert_eq!(stdout(&output), json!({"cniVersion": "0.4.0", "supportedVersions": supported}));
}

#[test]
fn a_refusal_is_json_on_stdout_and_a_failed_exit() {
    let variables = [
        ("CNI_COMMAND", "ADD"),
        ("CNI_CONTAINERID", "web-1"),
        ("CNI_NETNS", "/proc/self/ns/net"),
        ("CNI_IFNAME", "eth0"),
    ];
    let output = bridge(&variables, r#"{"cniVersion": "1.0.0", "name": "web"}"#);
    assert_eq!(output.status.code(), Some(1));
    let refusal = stdout(&output);
    assert_eq!((&refusal["cniVersion"], &refusal["code"]), (&json!("1.0.0"), &json!(8)));
    assert!(refusal["msg"].as_str().unwrap().contains("/proc/self/ns/net: it is the plugin's own"), "{refusal}");

    let output = bridge(&variables, &" ".repeat(10 << 20));
    assert_eq!((output.status.code(), &stdout(&output)["code"]), (Some(1), &json!(6)));
}
