//! The recorded command lines: what the real Docker prints, ours must print; each accepted difference stands in the file.

use sampan_testkit::{World, setup, transcript};

fn cases(name: &str) -> Vec<transcript::Case> {
    let path = setup::root().join(format!("crates/sampan/tests/recorded/{name}.txt"));
    let cases = transcript::parse(&std::fs::read_to_string(path).expect("a recorded transcript"));
    assert!(cases.len() > 10, "the transcript was recorded");
    cases
}

fn replay(name: &str, world: &World) {
    let cases = cases(name);
    let differences = transcript::replay(&cases, |line| world.sh(line));
    assert!(differences.is_empty(), "{} of {} differ from what was recorded:\n{}", differences.len(), cases.len(), differences.join("\n"));
}

/// Each theme through the unmodified docker command line, and through ours under its name.
macro_rules! themes {
    ($($name:ident),*) => {
        mod through_docker {
            $(#[test] fn $name() { super::replay(stringify!($name), &super::World::with_docker()); })*
        }
        mod through_ours {
            $(#[test] fn $name() { super::replay(stringify!($name), &super::World::with_our_docker()); })*
        }
    };
}

/// Registries, with one on 127.0.0.1:5000.
macro_rules! with_registry {
    ($($name:ident: $world:expr),*) => {
        mod registry {
            $(#[test] fn $name() {
                let world = $world;
                let _registry = sampan_testkit::registry::Registry::start(&world, 5000);
                super::replay("registry", &world);
            })*
        }
    };
}

with_registry!(through_docker: sampan_testkit::World::with_docker(), through_ours: sampan_testkit::World::with_our_docker());

themes!(build, run, lifecycle, images, archives, streams, storage, mistakes, lists, platforms);
