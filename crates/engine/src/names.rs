//! Ids and names: how they are made and which are allowed.

/// What a name starts with.
const QUALITIES: &[&str] = &[
    "able", "airy", "amber", "azure", "bold", "brave", "breezy", "bright", "brisk", "calm", "candid", "clear", "clever", "coastal", "cool",
    "coral", "crisp", "daring", "deep", "eager", "early", "easy", "fair", "fast", "fleet", "fond", "frank", "free", "fresh", "gentle",
    "glad", "golden", "grand", "happy", "hardy", "honest", "jolly", "keen", "kind", "lively", "loyal", "lucid", "lucky", "mellow", "merry",
    "mild", "modest", "neat", "nimble", "noble", "patient", "placid", "plain", "polite", "proud", "quick", "quiet", "ready", "rustic",
    "sage", "salty", "serene", "sharp", "shiny", "silent", "simple", "sleek", "smart", "smooth", "snug", "solid", "sound", "spry",
    "stable", "steady", "still", "stout", "sunny", "sure", "swift", "tidal", "tidy", "tranquil", "trim", "true", "trusty", "upbeat",
    "vivid", "warm", "wise", "witty", "zesty",
];

/// What a name ends with: craft and crew of the water.
const VESSELS: &[&str] = &[
    "anchor",
    "barge",
    "barque",
    "beacon",
    "bosun",
    "bow",
    "brig",
    "buoy",
    "cabin",
    "canoe",
    "caravel",
    "cargo",
    "catamaran",
    "clipper",
    "coble",
    "compass",
    "coracle",
    "corvette",
    "cutter",
    "cygnet",
    "deck",
    "dhow",
    "dinghy",
    "dory",
    "dromon",
    "felucca",
    "ferry",
    "fluyt",
    "frigate",
    "galleon",
    "galley",
    "gig",
    "gondola",
    "gull",
    "halyard",
    "harbour",
    "helm",
    "heron",
    "hull",
    "jetty",
    "jib",
    "junk",
    "kayak",
    "keel",
    "ketch",
    "knarr",
    "lagoon",
    "lantern",
    "launch",
    "lugger",
    "mast",
    "mizzen",
    "mooring",
    "oar",
    "outrigger",
    "packet",
    "pelican",
    "pier",
    "pilot",
    "pinnace",
    "pontoon",
    "port",
    "prow",
    "punt",
    "quay",
    "raft",
    "reef",
    "rigging",
    "rudder",
    "sail",
    "sampan",
    "schooner",
    "scow",
    "sextant",
    "shallop",
    "skiff",
    "sloop",
    "spar",
    "stern",
    "tender",
    "tern",
    "tide",
    "tiller",
    "trawler",
    "trireme",
    "tug",
    "wave",
    "wharf",
    "wherry",
    "xebec",
    "yacht",
    "yawl",
];

/// Makes an id of 64 hex digits.
///
/// # Panics
/// When the kernel gives no randomness.
#[must_use]
pub(crate) fn new_id() -> String {
    let mut bytes = [0; 32];
    getrandom::fill(&mut bytes).expect("getrandom(2) cannot fail on a supported kernel");
    // A short id of digits only would read as a number in other programs: make the first digit a letter now and then.
    let id = hex::encode(bytes);
    if id[..12].bytes().all(|byte| byte.is_ascii_digit()) { format!("a{}", &id[1..]) } else { id }
}

/// Proposes a name; `attempt` > 0 adds a digit, as a name was taken.
#[must_use]
pub(crate) fn random_name(attempt: u32) -> String {
    let mut bytes = [0; 4];
    getrandom::fill(&mut bytes).expect("getrandom(2) cannot fail on a supported kernel");
    let pick = |list: &[&'static str], high: u8, low: u8| list[(usize::from(high) * 256 + usize::from(low)) % list.len()];
    let name = format!("{}_{}", pick(QUALITIES, bytes[0], bytes[1]), pick(VESSELS, bytes[2], bytes[3]));
    if attempt == 0 { name } else { format!("{name}{attempt}") }
}

/// Whether a container or volume may have this name: `[a-zA-Z0-9][a-zA-Z0-9_.-]+`.
#[must_use]
pub(crate) fn is_valid(name: &str) -> bool {
    let mut characters = name.chars();
    characters.next().is_some_and(|first| first.is_ascii_alphanumeric())
        && name.len() >= 2
        && name.len() <= 255
        && characters.all(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '-'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_and_names_have_their_shape() {
        let id = new_id();
        assert_eq!(id.len(), 64);
        assert_ne!(id, new_id());
        assert!(is_valid(&random_name(0)) && random_name(3).ends_with('3'));
    }

    #[test]
    fn bad_names_are_refused() {
        for name in ["", "a", "-ab", "a b", "a/b", "ü1", &"a".repeat(256)] {
            assert!(!is_valid(name), "{name}");
        }
        assert!(is_valid("web-1_x.y"));
    }
}
