//! The recorded command lines: what the real Docker prints, ours must print; each accepted difference stands in the file.

use sampan_testkit::{World, setup, transcript};

fn replay(name: &str) {
    let path = setup::root().join(format!("crates/sampan/tests/recorded/{name}.txt"));
    let cases = transcript::parse(&std::fs::read_to_string(path).expect("a recorded transcript"));
    assert!(cases.len() > 10, "the transcript was recorded");
    let world = World::with_docker();
    let differences = transcript::replay(&cases, |line| world.sh(line));
    assert!(differences.is_empty(), "{} of {} differ from what was recorded:\n{}", differences.len(), cases.len(), differences.join("\n"));
}

#[test]
fn run() {
    replay("run");
}

#[test]
fn lifecycle() {
    replay("lifecycle");
}

#[test]
fn images() {
    replay("images");
}

#[test]
fn streams() {
    replay("streams");
}

#[test]
fn storage() {
    replay("storage");
}
