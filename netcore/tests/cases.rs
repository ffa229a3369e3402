//! Drivers and plans, case by case. A case is a directory that anyone can add to:
//!
//! ```text
//! cases/driver/NAME/   network.json attachment.json lease.json → desired.json (or error.txt)
//! cases/plan/NAME/     current.json desired.json → plan.txt (one step a line, or the error)
//! cases/removal/NAME/  current.json unwanted.json → plan.txt
//! ```
//!
//! `UPDATE_GOLDEN=1 cargo test -p netcore --test cases` writes the results anew; the diff is
//! what review looks at.

#![expect(clippy::unwrap_used, reason = "a case that cannot be read fails its test")]

use std::fs;
use std::path::{Path, PathBuf};

use netcore::model::{Attachment, Network, Object, State};
use netcore::plan::{Step, plan, removal};
use serde::de::DeserializeOwned;

fn cases(kind: &str) -> Vec<PathBuf> {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/cases").join(kind);
    let mut cases: Vec<PathBuf> = fs::read_dir(&directory).unwrap().map(|entry| entry.unwrap().path()).collect();
    cases.sort();
    assert!(!cases.is_empty(), "no cases in {}", directory.display());
    cases
}

fn read<T: DeserializeOwned>(case: &Path, file: &str) -> T {
    let path = case.join(file);
    let text = fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    serde_json::from_str(&text).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// Compares with the golden file, and says how to change it.
fn compare(case: &Path, file: &str, is: &str) {
    let path = case.join(file);
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        fs::write(&path, is).unwrap();
    }
    let golden = fs::read_to_string(&path).unwrap_or_default();
    assert_eq!(golden, is, "{} differs; UPDATE_GOLDEN=1 rewrites it", path.display());
}

fn lines(steps: &[Step]) -> String {
    steps.iter().map(|step| format!("{step}\n")).collect()
}

#[test]
fn a_driver_says_what_the_kernel_should_hold() {
    for case in cases("driver") {
        let network: Network = read(&case, "network.json");
        let attachment: Attachment = read(&case, "attachment.json");
        let lease = netcore::driver::complete(&network, read(&case, "lease.json"));
        let desired =
            netcore::driver::validate(&network).and_then(|()| netcore::driver::desired(&network, &attachment, &lease));
        match desired {
            Ok(desired) => compare(&case, "desired.json", &(serde_json::to_string_pretty(&desired).unwrap() + "\n")),
            Err(error) => compare(&case, "error.txt", &format!("{error}\n")),
        }
    }
}

#[test]
fn a_plan_is_the_difference_between_desired_and_current() {
    for case in cases("plan") {
        let desired: Vec<Object> = read(&case, "desired.json");
        let current: State = read(&case, "current.json");
        let text = match plan(&desired, &current) {
            Ok(steps) => lines(&steps),
            Err(error) => format!("error: {error}\n"),
        };
        compare(&case, "plan.txt", &text);
    }
}

#[test]
fn a_removal_takes_what_is_there_and_ours_backwards() {
    for case in cases("removal") {
        let unwanted: Vec<Object> = read(&case, "unwanted.json");
        let current: State = read(&case, "current.json");
        compare(&case, "plan.txt", &lines(&removal(&unwanted, &current)));
    }
}
