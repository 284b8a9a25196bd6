//! Every seed, and some thousand mutations of them, through every target. `SAMPAN_FUZZ_ROUNDS` multiplies the mutations.
#![allow(clippy::disallowed_methods, reason = "tests read their environment")]

use sampan_hostile::mutate::{Numbers, mutate};
use sampan_hostile::{TARGETS, Target, seed_folder, seeds, target};

fn committed(target: &Target) -> Vec<(String, Vec<u8>)> {
    let folder = seed_folder(target.name);
    let mut seeds: Vec<_> = std::fs::read_dir(&folder)
        .expect("run `cargo run -p sampan-hostile --bin seeds`")
        .map(|entry| entry.expect("a readable folder").path())
        .map(|path| (path.file_name().unwrap_or_default().to_string_lossy().into_owned(), std::fs::read(&path).expect("a seed")))
        .collect();
    seeds.sort();
    seeds
}

fn survive(name: &str) {
    let target = target(name).expect("a target of this name");
    let seeds = committed(target);
    assert!(seeds.len() >= 3, "{name} has its seeds");
    for (_, seed) in &seeds {
        (target.run)(seed);
    }
    let factor = std::env::var("SAMPAN_FUZZ_ROUNDS").ok().and_then(|text| text.parse::<u32>().ok()).unwrap_or(1);
    for round in 0..target.rounds.saturating_mul(factor) {
        let mut numbers = Numbers::new(u64::from(round));
        let (from, seed) = &seeds[numbers.below(seeds.len())];
        let (_, other) = &seeds[numbers.below(seeds.len())];
        let bytes = mutate(seed, other, target.words, &mut numbers);
        let outcome = std::panic::catch_unwind(|| (target.run)(&bytes));
        assert!(outcome.is_ok(), "round {round} of {name} (from seed {from}) fails: {:?}", String::from_utf8_lossy(&bytes));
    }
}

macro_rules! tests {
    ($($name:ident)*) => {$(
        #[test]
        fn $name() {
            survive(stringify!($name));
        }
    )*};
}

tests!(tar compressed layer reference manifest plan api text dockerfile shellwords ignore registry distribution);

#[test]
fn the_committed_seeds_are_those_made_here() {
    for target in TARGETS {
        let committed = committed(target);
        for (name, bytes) in seeds::of(target.name) {
            let found = committed.iter().find(|(known, _)| known == name);
            assert_eq!(
                found.map(|(_, bytes)| bytes),
                Some(&bytes),
                "run `cargo run -p sampan-hostile --bin seeds`: {}/{name}",
                target.name
            );
        }
    }
}
