//! Where a build's result goes: `--load`, `--push`, `-o`. This file reads what is asked; `deliver` does it.

use sampan_gotext::flags::Matches;
use sampan_oci::Reference;

use crate::error::{CliError, Outcome};

/// Tells that a result is wanted in a way that there is not here.
const CACHE: &str = "the cache is the engine's own";

/// One place for a result.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Target {
    /// The engine's images.
    Image,
    /// A registry, and the engine's images on the way.
    Registry,
    /// A folder: the files of the image's root.
    Folder(String),
    /// An archive of those files; `-` is standard output.
    Tar(String),
    /// An archive that `load` takes.
    Docker(String),
    /// An archive of an OCI layout.
    Oci(String),
    /// Nowhere: what was built stays in the cache.
    Nowhere,
}

/// All places, and the names of the image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Outputs {
    pub(super) targets: Vec<Target>,
    pub(super) names: Vec<String>,
}

impl Outputs {
    /// # Errors
    /// Words of `-o` that mean nothing; places that do not go together.
    pub(super) fn read(matches: &Matches) -> Outcome<Self> {
        let mut names = matches.list("tag").to_vec();
        let mut targets = Vec::new();
        for text in matches.list("output") {
            let (target, name) = one(text)?;
            targets.push(target);
            if matches.list("tag").is_empty() {
                names.extend(name.split(',').filter(|name| !name.is_empty()).map(str::to_owned));
            }
        }
        if matches.truth("push") {
            targets.push(Target::Registry);
        }
        if matches.truth("load") || targets.is_empty() {
            targets.push(Target::Image);
        }
        let outputs = Self { targets, names };
        outputs.check(matches)?;
        Ok(outputs)
    }

    fn check(&self, matches: &Matches) -> Outcome<()> {
        let files = |target: &Target| matches!(target, Target::Folder(_) | Target::Tar(_));
        if !matches.text("iidfile").is_empty() && self.targets.iter().any(files) {
            return Err(CliError::new("local and tar exporters are incompatible with image ID file"));
        }
        if self.targets.contains(&Target::Registry) && self.names.is_empty() {
            return Err(CliError::new("tag is needed when pushing to registry"));
        }
        for name in &self.names {
            Reference::parse_normalized(name)
                .map_err(|error| CliError::new(format!("invalid tag {}: {error}", sampan_gotext::quote(name))))?;
        }
        let out = |target: &&Target| matches!(target, Target::Tar(dest) | Target::Docker(dest) | Target::Oci(dest) if dest == "-");
        if self.targets.iter().filter(out).count() > 1 {
            return Err(CliError::new("only one output can go to standard output"));
        }
        if self.targets.iter().any(|target| out(&target)) && sampan_ui::terminal::is_terminal(std::io::stdout()) {
            return Err(CliError::new("dest file is required for an archive. refusing to write to console"));
        }
        Ok(())
    }

    /// The names that the image gets; none where only its files are wanted.
    pub(super) fn tags(&self) -> &[String] {
        let images = |target: &Target| !matches!(target, Target::Folder(_) | Target::Tar(_) | Target::Nowhere);
        if self.targets.iter().any(images) { &self.names } else { &[] }
    }

    /// Whether the image's ID is a result to print: not where only its files are wanted, nor where standard output is an archive.
    pub(super) fn says_id(&self) -> bool {
        let archive = |target: &Target| matches!(target, Target::Tar(dest) | Target::Docker(dest) | Target::Oci(dest) if dest == "-");
        let image = |target: &Target| !matches!(target, Target::Folder(_) | Target::Tar(_));
        self.targets.iter().any(image) && !self.targets.iter().any(archive)
    }
}

/// `DIR`, `-`, or `type=…,key=value`: the place, and the name that it gives.
fn one(text: &str) -> Outcome<(Target, String)> {
    if text == "-" {
        return Ok((Target::Tar("-".into()), String::new()));
    }
    if !text.contains('=') {
        return Ok((Target::Folder(text.to_owned()), String::new()));
    }
    let (mut kind, mut dest, mut name, mut push) = ("", "", String::new(), false);
    // A name may list several, in quotation marks.
    let fields = fields(text);
    for field in &fields {
        let (key, value) = field.split_once('=').ok_or_else(|| CliError::new(format!("invalid value {field}")))?;
        match key.to_lowercase().as_str() {
            "type" => kind = value,
            "dest" => dest = value,
            "name" => value.clone_into(&mut name),
            "push" => push = sampan_gotext::flags::truth(value).map_err(CliError::new)? == "true",
            "tar" if value == "true" => {}
            // Layers are what they are: nothing is compressed or written anew on the way.
            other => return Err(CliError::unsupported(&format!("--output {other}="), "outputs take type, dest, name and push")),
        }
    }
    let target = match (kind, dest) {
        ("", _) => return Err(CliError::new("type is required for output")),
        ("local", "") => return Err(CliError::new("dest is required for local exporter")),
        ("local", dest) => Target::Folder(dest.to_owned()),
        ("tar", dest) => Target::Tar(if dest.is_empty() { "-" } else { dest }.to_owned()),
        ("docker", "") => Target::Image,
        ("docker", dest) => Target::Docker(dest.to_owned()),
        ("oci", dest) => Target::Oci(if dest.is_empty() { "-" } else { dest }.to_owned()),
        ("image", _) if push => Target::Registry,
        ("image", _) => Target::Image,
        ("registry", _) => Target::Registry,
        ("cacheonly", _) => Target::Nowhere,
        (other, _) => return Err(CliError::new(format!("exporter {} could not be found", sampan_gotext::quote(other)))),
    };
    Ok((target, name))
}

/// Fields between commas; `"…"` keeps commas together.
fn fields(text: &str) -> Vec<String> {
    let (mut out, mut quoted) = (vec![String::new()], false);
    for character in text.chars() {
        match character {
            '"' => quoted = !quoted,
            ',' if !quoted => out.push(String::new()),
            other => {
                if let Some(last) = out.last_mut() {
                    last.push(other);
                }
            }
        }
    }
    out
}

/// Refuses kinds of caches that there are not.
///
/// # Errors
/// `--cache-to` of a kind other than `inline`.
pub(super) fn check_cache(matches: &Matches) -> Outcome<()> {
    match matches.list("cache-to").first() {
        Some(_) => Err(CliError::unsupported("--cache-to", CACHE)),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::super::flags::COMMANDS;
    use super::*;

    fn read(words: &str) -> Result<Outputs, String> {
        let words: Vec<String> = words.split(' ').filter(|word| !word.is_empty()).map(str::to_owned).collect();
        let matches = sampan_gotext::flags::parse(COMMANDS[0].flags, &words, true).map_err(|error| error.0)?;
        Outputs::read(&matches).map_err(|error| error.text)
    }

    #[test]
    fn each_form_of_an_output_is_read() {
        for (words, target) in [
            ("", Target::Image),
            ("--load", Target::Image),
            ("-o type=docker", Target::Image),
            ("--push -t a", Target::Registry),
            ("-o type=image,push=true,name=a", Target::Registry),
            ("-o out", Target::Folder("out".into())),
            ("-o type=local,dest=out", Target::Folder("out".into())),
            ("--output -", Target::Tar("-".into())),
            ("-o type=tar,dest=o.tar", Target::Tar("o.tar".into())),
            ("-o type=docker,dest=o.tar", Target::Docker("o.tar".into())),
            ("-o type=oci,dest=o.tar", Target::Oci("o.tar".into())),
            ("-o type=cacheonly", Target::Nowhere),
        ] {
            assert_eq!(read(words).unwrap().targets, [target], "{words}");
        }
        let outputs = read("-o out --push -t a -t b:1").unwrap();
        assert_eq!((outputs.targets.len(), outputs.tags()), (2, &["a".to_owned(), "b:1".to_owned()][..]));
        assert_eq!(read("-o out -t a").unwrap().tags(), [] as [String; 0]);
        assert_eq!(read("-o type=image,\"name=a,b:1\"").unwrap().names, ["a", "b:1"]);
    }

    #[test]
    fn mistakes_are_told_in_dockers_words() {
        for (words, text) in [
            ("-o type=local", "dest is required for local exporter"),
            ("-o type=nosuch", "exporter \"nosuch\" could not be found"),
            ("-o dest=x", "type is required for output"),
            ("--push", "tag is needed when pushing to registry"),
            ("-o out --iidfile i", "local and tar exporters are incompatible with image ID file"),
            ("-o - -o type=oci,dest=-", "only one output can go to standard output"),
            ("-o type=image,compression=zstd", "not supported: --output compression= (outputs take type, dest, name and push)"),
        ] {
            assert_eq!(read(words).unwrap_err(), text, "{words}");
        }
    }
}
