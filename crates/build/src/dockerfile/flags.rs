//! Flags of instructions: `--chown=a`, `--link`. Each instruction says which it has; the error texts are BuildKit's.

use super::words::with_suggestion;

/// How a flag is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Takes {
    Truth,
    Text,
    /// Text, any number of times.
    Texts,
}

/// Flags that were given.
#[derive(Debug, Default)]
pub(super) struct Flags {
    given: Vec<(String, String)>,
}

impl Flags {
    /// Reads the flags of an instruction.
    pub(super) fn parse(words: &[String], known: &[(&str, Takes)]) -> Result<Self, String> {
        let mut flags = Self::default();
        for word in words {
            let (flag, value) = word.split_once('=').map_or((word.as_str(), None), |(flag, value)| (flag, Some(value)));
            let Some(name) = flag.strip_prefix("--") else { return Err(format!("arg should start with -- : {word}")) };
            let Some((_, takes)) = known.iter().find(|(other, _)| *other == name) else {
                let options: Vec<&str> = known.iter().map(|(name, _)| *name).collect();
                return Err(with_suggestion(format!("unknown flag: {flag}"), name, &options, true));
            };
            if *takes != Takes::Texts && flags.given(name) {
                return Err(format!("duplicate flag specified: {flag}"));
            }
            let value = match (takes, value) {
                (Takes::Truth, None) => "true".to_owned(),
                (Takes::Truth, Some("")) | (_, None) => return Err(format!("missing a value on flag: {flag}")),
                (Takes::Truth, Some(value)) => match value.to_lowercase().as_str() {
                    truth @ ("true" | "false") => truth.to_owned(),
                    _ => return Err(format!("expecting boolean value for flag {flag}, not: {value}")),
                },
                (_, Some(value)) => value.to_owned(),
            };
            flags.given.push((name.to_owned(), value));
        }
        Ok(flags)
    }

    pub(super) fn given(&self, name: &str) -> bool {
        self.given.iter().any(|(other, _)| other == name)
    }

    pub(super) fn text(&self, name: &str) -> String {
        self.given.iter().find(|(other, _)| other == name).map(|(_, value)| value.clone()).unwrap_or_default()
    }

    pub(super) fn texts(&self, name: &str) -> Vec<String> {
        self.given.iter().filter(|(other, _)| other == name).map(|(_, value)| value.clone()).collect()
    }

    pub(super) fn truth(&self, name: &str) -> bool {
        self.text(name) == "true"
    }

    pub(super) fn given_truth(&self, name: &str) -> Option<bool> {
        self.given(name).then(|| self.truth(name))
    }
}
