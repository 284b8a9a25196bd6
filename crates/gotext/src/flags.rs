//! Flags as Go's pflag reads them: `--name value`, `--name=value`, `-n value`, `-nvalue`, `-abc`; and pflag's error texts.
//!
//! What flags there are is data (see [`Flag`]); help texts and completions are made from the same tables elsewhere.

use std::collections::BTreeMap;

/// Checks and normalises a value.
pub type Check = fn(&str) -> Result<String, String>;

/// What a flag takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Nothing, or `=true`, `=false`.
    Bool,
    /// A text; the last one counts.
    Text,
    /// A signed number.
    Int,
    /// A number up to 65535.
    Uint16,
    /// An unsigned number.
    Uint,
    /// A span of time.
    Duration,
    /// A size in bytes with a unit.
    Bytes,
    /// Many texts.
    List,
    /// Many texts, each may hold several with commas between.
    Strings,
    /// Many of `key=value`.
    Map,
    /// Many of `name=value`.
    Filter,
    /// A text of a form that [`Flag::shown_as`] names; many are kept.
    Other(&'static str),
}

/// A flag of a command.
#[derive(Debug, Clone, Copy)]
pub struct Flag {
    /// Without dashes.
    pub name: &'static str,
    /// One letter.
    pub short: Option<char>,
    /// What it takes.
    pub kind: Kind,
    /// What holds without it, as help shows it.
    pub default: &'static str,
    /// One line of help.
    pub help: &'static str,
    /// Not in the help.
    pub hidden: bool,
    /// Known but not there yet, and why.
    pub later: Option<&'static str>,
    /// Says what is wrong with a value.
    pub check: Option<Check>,
}

impl Flag {
    /// A flag of a kind.
    #[must_use]
    pub const fn new(name: &'static str, kind: Kind, help: &'static str) -> Self {
        Self { name, short: None, kind, default: "", help, hidden: false, later: None, check: None }
    }

    /// With a letter.
    #[must_use]
    pub const fn short(mut self, letter: char) -> Self {
        self.short = Some(letter);
        self
    }

    /// With a default that help shows.
    #[must_use]
    pub const fn default(mut self, text: &'static str) -> Self {
        self.default = text;
        self
    }

    /// Left out of the help.
    #[must_use]
    pub const fn hidden(mut self) -> Self {
        self.hidden = true;
        self
    }

    /// Answered with `not supported: --flag (REASON)`.
    #[must_use]
    pub const fn later(mut self, reason: &'static str) -> Self {
        self.later = Some(reason);
        self
    }

    /// With a check of each value.
    #[must_use]
    pub const fn check(mut self, check: Check) -> Self {
        self.check = Some(check);
        self
    }

    /// The word that help shows for the value; empty for switches.
    #[must_use]
    pub const fn shown_as(&self) -> &'static str {
        match self.kind {
            Kind::Bool => "",
            Kind::Text => "string",
            Kind::Int => "int",
            Kind::Uint16 => "uint16",
            Kind::Uint => "uint",
            Kind::Duration => "duration",
            Kind::Bytes => "bytes",
            Kind::List => "list",
            Kind::Strings => "strings",
            Kind::Map => "map",
            Kind::Filter => "filter",
            Kind::Other(name) => name,
        }
    }

    /// How errors name it: `-m, --memory`.
    fn spelled(&self) -> String {
        self.short.map_or_else(|| format!("--{}", self.name), |letter| format!("-{letter}, --{}", self.name))
    }
}

/// What was given on a command line.
#[derive(Debug, Clone, Default)]
pub struct Matches {
    given: BTreeMap<&'static str, Vec<String>>,
    defaults: BTreeMap<&'static str, &'static str>,
    /// The words that are no flags.
    pub words: Vec<String>,
    /// How many of [`Matches::words`] stood before `--`; `None` without one.
    pub dash: Option<usize>,
    /// `-h` or `--help` was given: the former is old.
    pub help: Option<Help>,
}

/// Which help flag was given.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Help {
    /// `--help`.
    Long,
    /// `-h`.
    Short,
}

/// A mistake on a command line, in pflag's words.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct FlagError(pub String);

impl Matches {
    /// Whether a flag was given.
    #[must_use]
    pub fn given(&self, name: &str) -> bool {
        self.given.contains_key(name)
    }

    /// The last value, or the default.
    #[must_use]
    pub fn text(&self, name: &str) -> &str {
        match self.given.get(name).and_then(|values| values.last()) {
            Some(text) => text,
            None => self.defaults.get(name).copied().unwrap_or_default(),
        }
    }

    /// Whether a switch is on.
    #[must_use]
    pub fn truth(&self, name: &str) -> bool {
        self.text(name) == "true"
    }

    /// All values.
    #[must_use]
    pub fn list(&self, name: &str) -> &[String] {
        self.given.get(name).map_or(&[], Vec::as_slice)
    }

    /// A number; the default, or 0.
    #[must_use]
    pub fn int(&self, name: &str) -> i64 {
        self.text(name).parse().unwrap_or(0)
    }

    /// Names of the flags that were given.
    pub fn names(&self) -> impl Iterator<Item = &'static str> {
        self.given.keys().copied()
    }
}

/// Reads words. With `interspersed` flags may stand behind words.
///
/// # Errors
/// [`FlagError`].
pub fn parse(flags: &[&[Flag]], words: &[String], interspersed: bool) -> Result<Matches, FlagError> {
    let mut matches = Matches::default();
    let all = || flags.iter().flat_map(|list| list.iter());
    for flag in all() {
        if !flag.default.is_empty() {
            matches.defaults.insert(flag.name, flag.default);
        }
    }
    let mut rest = words.iter();
    while let Some(word) = rest.next() {
        if word == "--" {
            matches.dash = Some(matches.words.len());
            matches.words.extend(rest.by_ref().cloned());
        } else if let Some(long) = word.strip_prefix("--") {
            if long.starts_with(['-', '=']) {
                return Err(FlagError(format!("bad flag syntax: {word}")));
            }
            let (name, value) = long.split_once('=').map_or((long, None), |(name, value)| (name, Some(value.to_owned())));
            let Some(flag) = all().find(|flag| flag.name == name) else {
                if name == "help" {
                    take_help(&mut matches, value.as_deref())?;
                    continue;
                }
                return Err(FlagError(format!("unknown flag: --{name}")));
            };
            let value = match value {
                Some(value) => value,
                None if flag.kind == Kind::Bool => "true".to_owned(),
                None => rest.next().cloned().ok_or_else(|| FlagError(format!("flag needs an argument: --{name}")))?,
            };
            set(&mut matches, flag, &value)?;
        } else if word.len() > 1 && word.starts_with('-') {
            letters(&mut matches, flags, &word[1..], &mut rest)?;
        } else {
            matches.words.push(word.clone());
            if !interspersed {
                matches.words.extend(rest.by_ref().cloned());
            }
        }
    }
    Ok(matches)
}

fn take_help(matches: &mut Matches, value: Option<&str>) -> Result<(), FlagError> {
    let value = value.unwrap_or("true");
    let value =
        truth(value).map_err(|error| FlagError(format!("invalid argument {} for \"--help\" flag: {error}", crate::quote(value))))?;
    if value == "true" {
        matches.help = Some(Help::Long);
    }
    Ok(())
}

/// `-abc value`.
fn letters(matches: &mut Matches, flags: &[&[Flag]], cluster: &str, rest: &mut std::slice::Iter<'_, String>) -> Result<(), FlagError> {
    for (index, letter) in cluster.char_indices() {
        let after = &cluster[index + letter.len_utf8()..];
        let Some(flag) = flags.iter().flat_map(|list| list.iter()).find(|flag| flag.short == Some(letter)) else {
            if letter == 'h' {
                matches.help = Some(Help::Short);
                continue;
            }
            return Err(FlagError(format!("unknown shorthand flag: '{letter}' in -{cluster}")));
        };
        if let Some(value) = after.strip_prefix('=') {
            return set(matches, flag, value);
        }
        if flag.kind == Kind::Bool {
            set(matches, flag, "true")?;
            continue;
        }
        let value = if after.is_empty() { rest.next().cloned() } else { Some(after.to_owned()) };
        let value = value.ok_or_else(|| FlagError(format!("flag needs an argument: '{letter}' in -{cluster}")))?;
        return set(matches, flag, &value);
    }
    Ok(())
}

fn set(matches: &mut Matches, flag: &Flag, value: &str) -> Result<(), FlagError> {
    let bad =
        |error: String| FlagError(format!("invalid argument {} for {} flag: {error}", crate::quote(value), crate::quote(&flag.spelled())));
    let checked = match flag.kind {
        Kind::Bool => truth(value).map(str::to_owned),
        Kind::Int => integer(value),
        Kind::Uint16 => unsigned(value, u64::from(u16::MAX)),
        Kind::Uint => unsigned(value, u64::MAX),
        Kind::Duration => crate::duration::parse(value).map(|span| span.to_string()),
        Kind::Bytes if value == "-1" && flag.name == "memory-swap" => Ok(value.to_owned()),
        Kind::Bytes => crate::units::parse_binary_size(value).map(|size| size.to_string()),
        Kind::Filter => filter(value),
        Kind::Text | Kind::List | Kind::Strings | Kind::Map | Kind::Other(_) => Ok(value.to_owned()),
    };
    let checked = checked.and_then(|value| flag.check.map_or(Ok(value.clone()), |check| check(&value))).map_err(bad)?;
    let values = matches.given.entry(flag.name).or_default();
    match flag.kind {
        Kind::Strings => values.extend(checked.split(',').map(str::to_owned)),
        _ => values.push(checked),
    }
    Ok(())
}

/// `strconv.ParseBool`: `true` or `false`.
///
/// # Errors
/// `strconv.ParseBool: parsing "x": invalid syntax`.
pub fn truth(value: &str) -> Result<&'static str, String> {
    match value {
        "1" | "t" | "T" | "true" | "TRUE" | "True" => Ok("true"),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Ok("false"),
        _ => Err(format!("strconv.ParseBool: parsing {}: invalid syntax", crate::quote(value))),
    }
}

/// `strconv.ParseInt` with base 0.
///
/// # Errors
/// `strconv.ParseInt: parsing "x": invalid syntax` or `… value out of range`.
pub fn integer(value: &str) -> Result<String, String> {
    let digits = value.strip_prefix(['+', '-']).unwrap_or(value);
    let size = based(digits).map_err(|range| number_error("ParseInt", value, range))?;
    let number = if value.starts_with('-') { -i128::from(size) } else { i128::from(size) };
    i64::try_from(number).map(|number| number.to_string()).map_err(|_| number_error("ParseInt", value, true))
}

fn unsigned(value: &str, most: u64) -> Result<String, String> {
    let size = based(value).map_err(|range| number_error("ParseUint", value, range))?;
    if size > most { Err(number_error("ParseUint", value, true)) } else { Ok(size.to_string()) }
}

fn number_error(function: &str, value: &str, range: bool) -> String {
    format!("strconv.{function}: parsing {}: {}", crate::quote(value), if range { "value out of range" } else { "invalid syntax" })
}

/// Digits with `0x`, `0o`, `0b` or `0` before them; the error says whether the number is too large.
fn based(digits: &str) -> Result<u64, bool> {
    let lower = digits.to_ascii_lowercase();
    let (text, radix) = match lower.get(..2) {
        Some("0x") => (&lower[2..], 16),
        Some("0o") => (&lower[2..], 8),
        Some("0b") => (&lower[2..], 2),
        Some(_) if lower.starts_with('0') => (&lower[1..], 8),
        _ => (lower.as_str(), 10),
    };
    if text.is_empty() || !text.chars().all(|digit| digit.is_digit(radix)) {
        return Err(false);
    }
    u64::from_str_radix(text, radix).map_err(|_| true)
}

fn filter(value: &str) -> Result<String, String> {
    if value.is_empty() {
        return Ok(String::new());
    }
    let (name, rest) = value.split_once('=').ok_or("bad format of filter (expected name=value)")?;
    Ok(format!("{}={}", name.trim().to_lowercase(), rest.trim()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const FLAGS: &[Flag] = &[
        Flag::new("all", Kind::Bool, "").short('a'),
        Flag::new("interactive", Kind::Bool, "").short('i'),
        Flag::new("tail", Kind::Text, "").short('n').default("all"),
        Flag::new("time", Kind::Int, "").short('t'),
        Flag::new("weight", Kind::Uint16, ""),
        Flag::new("memory", Kind::Bytes, "").short('m'),
        Flag::new("env", Kind::List, "").short('e'),
        Flag::new("filter", Kind::Filter, "").short('f'),
        Flag::new("ips", Kind::Strings, ""),
    ];

    fn read(words: &str, interspersed: bool) -> Result<Matches, String> {
        let words: Vec<String> = words.split(' ').map(str::to_owned).collect();
        parse(&[FLAGS], &words, interspersed).map_err(|error| error.0)
    }

    #[test]
    fn all_spellings_are_read() {
        let matches = read("-ai -n5 --time=3 -e A=1 -e=B=2 x --memory 1k -- -z", true).unwrap();
        assert!(matches.truth("all") && matches.truth("interactive"));
        assert_eq!((matches.text("tail"), matches.int("time"), matches.text("memory")), ("5", 3, "1024"));
        assert_eq!(matches.list("env"), ["A=1", "B=2"]);
        assert_eq!((matches.words, matches.dash), (vec!["x".to_owned(), "-z".to_owned()], Some(1)));
        let matches = read("--ips 1,2 --ips 3 x -a", false).unwrap();
        assert_eq!(matches.list("ips"), ["1", "2", "3"]);
        assert_eq!((matches.words.join(" "), matches.truth("all"), matches.text("tail")), ("x -a".into(), false, "all"));
        assert_eq!(read("--all=false", true).unwrap().text("all"), "false");
    }

    #[test]
    fn mistakes_are_told_in_pflags_words() {
        for (words, error) in [
            ("--nosuch", "unknown flag: --nosuch"),
            ("-aZ", "unknown shorthand flag: 'Z' in -aZ"),
            ("--tail", "flag needs an argument: --tail"),
            ("-n", "flag needs an argument: 'n' in -n"),
            ("--=x", "bad flag syntax: --=x"),
            ("--all=maybe", "invalid argument \"maybe\" for \"-a, --all\" flag: strconv.ParseBool: parsing \"maybe\": invalid syntax"),
            ("-t x", "invalid argument \"x\" for \"-t, --time\" flag: strconv.ParseInt: parsing \"x\": invalid syntax"),
            (
                "--weight 99999",
                "invalid argument \"99999\" for \"--weight\" flag: strconv.ParseUint: parsing \"99999\": value out of range",
            ),
            ("-m x", "invalid argument \"x\" for \"-m, --memory\" flag: invalid size: 'x'"),
            ("-f x", "invalid argument \"x\" for \"-f, --filter\" flag: bad format of filter (expected name=value)"),
        ] {
            assert_eq!(read(words, true).unwrap_err(), error);
        }
    }

    proptest! {
        #[test]
        fn arbitrary_words_do_no_harm(words in proptest::collection::vec("[-=a-zé0-9]{0,8}", 0..6)) {
            drop(parse(&[FLAGS], &words, true));
        }
    }
}
