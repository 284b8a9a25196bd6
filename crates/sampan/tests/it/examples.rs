//! The examples on our engine: built from stand-ins and an index inside the world, run, asked, and stopped.
//!
//! `cargo xtask examples` does the same on the real Docker. Node's and Java's need large stand-ins: they are built where
//! `SAMPAN_FULL` is set (`./test --full`).

use sampan_testkit::{World, index, setup};

/// Runs the smoke test of an example by a command line.
fn smoke(program: &str, name: &str, bases: &[&str]) {
    let world = World::with_docker();
    let _index = world.serve_packages();
    world.load_base_images(bases);
    let script = setup::root().join("examples").join(name).join("smoke");
    let mirror = format!("http://{}/npm", index::ADDRESS);
    let line = format!("DOCKER={program} DOCKER_BUILDKIT=0 BUILD=-q NPM_MIRROR={mirror} '{}'", script.display());
    let told = world.ok(&line);
    assert!(told.ends_with(": ok"), "{told}");
}

fn in_full(program: &str, name: &str, bases: &[&str]) {
    if std::env::var_os("SAMPAN_FULL").is_some() {
        smoke(program, name, bases);
    }
}

#[test]
fn a_server_of_pages_is_built_with_what_it_adds_from_an_address() {
    smoke("sampan", "static", &["alpine:3.14"]);
}

#[test]
fn a_python_service_is_built_and_answers() {
    smoke("docker", "catalog", &["python:3.9-slim"]);
}

#[test]
fn a_go_program_is_built_and_answers() {
    smoke("sampan", "prices", &["golang:1.19"]);
}

#[test]
fn a_node_service_is_built_and_answers() {
    in_full("sampan", "cart", &["node:14"]);
}

#[test]
fn a_java_service_is_built_and_answers() {
    in_full("docker", "orders", &["maven:3.8-openjdk-17", "eclipse-temurin:17-jre"]);
}
