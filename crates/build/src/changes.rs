//! `-c` of commit and import: Dockerfile instructions that change a configuration. Pure.

use sampan_base::{ErrorKind, Failure};
use sampan_gotext::shellwords::{Expansion, Lexer};
use sampan_oci::ContainerConfig;
use serde_json::json;

use crate::dockerfile::{CommandLine, Instruction, Kind, Pair, parse_changes};
use crate::plan::{is_signal, join, parse_port, set_line};

/// How many bytes the variables of one request may move.
const MAX_COST: usize = 64 << 20;

/// A line that cannot be applied.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ChangeError {
    /// No instruction, or one that makes layers or stages.
    #[error("{0} is not a valid change command")]
    NotAChange(String),
    /// Its words are wrong.
    #[error("{0}")]
    Syntax(String),
}

impl Failure for ChangeError {
    fn kind(&self) -> ErrorKind {
        ErrorKind::Invalid
    }
}

/// What `-c` takes.
const ALLOWED: [&str; 11] =
    ["cmd", "entrypoint", "healthcheck", "env", "expose", "label", "onbuild", "stopsignal", "user", "volume", "workdir"];

/// Applies lines in order; together they are one Dockerfile without stages.
///
/// # Errors
/// [`ChangeError`] of the first bad line; the configuration is unchanged then.
pub fn apply_changes(config: &ContainerConfig, lines: &[String]) -> Result<ContainerConfig, ChangeError> {
    if lines.is_empty() {
        return Ok(config.clone());
    }
    let instructions = parse_changes(&lines.join("\n"), &ALLOWED).map_err(|error| match error {
        Ok(message) => ChangeError::Syntax(message),
        Err(name) => ChangeError::NotAChange(name),
    })?;
    let mut changed = Changed { config: config.clone(), own_cmd: false, cost: 0 };
    for instruction in &instructions {
        changed.apply(instruction).map_err(ChangeError::Syntax)?;
    }
    let mut out = changed.config;
    // What was emptied means "as before".
    if out.entrypoint.as_ref().is_none_or(Vec::is_empty) {
        out.entrypoint.clone_from(&config.entrypoint);
        if out.cmd.as_ref().is_none_or(Vec::is_empty) {
            out.cmd.clone_from(&config.cmd);
        }
    }
    Ok(out)
}

/// A configuration that changes.
struct Changed {
    config: ContainerConfig,
    own_cmd: bool,
    cost: usize,
}

impl Changed {
    fn apply(&mut self, instruction: &Instruction) -> Result<(), String> {
        match &instruction.kind {
            Kind::Cmd(line) => {
                self.config.cmd = Some(self.with_shell(line));
                self.own_cmd = true;
            }
            Kind::Entrypoint(line) => {
                self.config.entrypoint = if line.words.is_empty() { None } else { Some(self.with_shell(line)) };
                // Arguments made for another entry point mean nothing to this one; those of the same request do.
                if !self.own_cmd {
                    self.config.cmd = None;
                }
            }
            Kind::Env(pairs) => {
                for (key, value) in self.pairs(pairs)? {
                    set_line(self.config.env.get_or_insert_default(), &key, &value);
                }
            }
            Kind::Label(pairs) => {
                let pairs = self.pairs(pairs)?;
                self.config.labels.extend(pairs);
            }
            Kind::Expose(words) => {
                for word in words {
                    for word in self.expand(word)?.words {
                        let ports = parse_port(&word, instruction.head.lines, &mut Vec::new())
                            .map_err(|fault| fault.classic.unwrap_or(fault.message))?;
                        self.config.exposed_ports.extend(ports.into_iter().map(|port| (port, json!({}))));
                    }
                }
            }
            Kind::User(user) => self.config.user = self.expand(user)?.text,
            Kind::Workdir(path) => {
                let path = self.expand(path)?.text;
                self.config.working_dir = join(&self.config.working_dir, &path);
            }
            Kind::Volume(paths) => {
                for path in paths {
                    let path = self.expand(path)?.text;
                    if path.is_empty() {
                        return Err("VOLUME specified can not be an empty string".to_owned());
                    }
                    self.config.volumes.insert(path, json!({}));
                }
            }
            Kind::StopSignal(signal) => {
                let signal = self.expand(signal)?.text;
                if !is_signal(&signal) {
                    return Err(format!("invalid signal: {signal}"));
                }
                self.config.stop_signal = signal;
            }
            Kind::Healthcheck(check) => self.config.healthcheck = Some(check.clone()),
            Kind::Onbuild(trigger) => self.config.on_build.get_or_insert_default().push(trigger.clone()),
            _ => return Err(format!("{} is not a valid change command", instruction.head.keyword)),
        }
        Ok(())
    }

    fn with_shell(&self, line: &CommandLine) -> Vec<String> {
        if !line.shell_form {
            return line.words.clone();
        }
        let shell = self.config.shell.as_ref().filter(|shell| !shell.is_empty());
        let mut words = shell.cloned().unwrap_or_else(|| vec!["/bin/sh".to_owned(), "-c".to_owned()]);
        words.extend(line.words.iter().cloned());
        words
    }

    fn pairs(&mut self, pairs: &[Pair]) -> Result<Vec<(String, String)>, String> {
        pairs.iter().map(|pair| Ok((self.expand(&pair.key)?.text, self.expand(&pair.value)?.text))).collect()
    }

    fn expand(&mut self, text: &str) -> Result<Expansion, String> {
        let env = self.config.env.as_deref().unwrap_or_default();
        let lookup = |name: &str| {
            env.iter().find_map(|line| line.split_once('=').filter(|(key, _)| *key == name)).map(|(_, value)| value.to_owned())
        };
        let expansion = Lexer::new('\\').expand(text, &lookup).map_err(|error| error.to_string())?;
        self.cost += expansion.cost;
        if self.cost > MAX_COST { Err("the changes are too large".to_owned()) } else { Ok(expansion) }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn changed(lines: &[&str]) -> Result<ContainerConfig, String> {
        let lines: Vec<String> = lines.iter().map(|line| (*line).to_owned()).collect();
        apply_changes(&ContainerConfig::default(), &lines).map_err(|error| error.to_string())
    }

    #[test]
    fn instructions_change_what_they_name() {
        let config = changed(&[
            "ENV A=1 B=\"two words\"",
            "env A 3",
            "CMD [\"a\", \"b\"]",
            "EXPOSE 80 8000-8001/udp",
            "LABEL x=y",
            "WORKDIR /a",
            "workdir b",
            "VOLUME [\"/v\"]",
        ])
        .unwrap();
        assert_eq!(config.env, Some(vec!["A=3".to_owned(), "B=two words".to_owned()]));
        assert_eq!(config.cmd, Some(vec!["a".to_owned(), "b".to_owned()]));
        assert_eq!(config.exposed_ports.keys().collect::<Vec<_>>(), ["80/tcp", "8000/udp", "8001/udp"]);
        assert_eq!((config.working_dir.as_str(), config.volumes.len(), config.labels["x"].as_str()), ("/a/b", 1, "y"));
        assert_eq!(changed(&["CMD echo hi"]).unwrap().cmd, Some(vec!["/bin/sh".to_owned(), "-c".to_owned(), "echo hi".to_owned()]));
    }

    #[test]
    fn others_are_refused_in_dockers_words() {
        for (line, wanted) in [
            ("RUN x", "RUN is not a valid change command"),
            ("NOSUCH x", "NOSUCH is not a valid change command"),
            ("SHELL [\"/a\"]", "SHELL is not a valid change command"),
            ("ENV", "ENV requires at least one argument"),
            ("ENV a", "ENV must have two arguments"),
            ("ENV a=b c", "Syntax error - can't find = in \"c\". Must be of the form: name=value"),
            ("ENV =x", "ENV names can not be blank"),
            ("CMD [\"a\",1]", "when using JSON array syntax, arrays must be comprised of strings only"),
            ("EXPOSE 80/foo", "Invalid proto: foo"),
            ("EXPOSE x", "Invalid containerPort: x"),
            ("USER", "USER requires exactly one argument"),
            ("VOLUME [\"\"]", "VOLUME specified can not be an empty string"),
            ("LABEL a=\"b", "failed to process \"\\\"b\": unexpected end of statement while looking for matching double-quote"),
            ("ONBUILD FROM x", "FROM isn't allowed as an ONBUILD trigger"),
            ("STOPSIGNAL foo", "invalid signal: foo"),
            ("CMD --x=y a", "unknown flag: --x"),
            ("", "file with no instructions"),
        ] {
            assert_eq!(changed(&[line]), Err(wanted.to_owned()), "{line}");
        }
    }

    #[test]
    fn variables_and_emptied_commands_are_as_dockers() {
        let before = ContainerConfig {
            env: Some(vec!["PATH=/usr/bin:/bin".to_owned()]),
            cmd: Some(vec!["true".to_owned()]),
            ..ContainerConfig::default()
        };
        let changed = |lines: &[&str]| apply_changes(&before, &lines.iter().map(|line| (*line).to_owned()).collect::<Vec<_>>()).unwrap();
        assert_eq!(changed(&["ENV a=$PATH\nENV b=$a"]).env.unwrap()[2], "b=/usr/bin:/bin");
        assert_eq!(changed(&["CMD []"]).cmd, before.cmd);
        assert_eq!(changed(&["ENTRYPOINT"]), before);
        assert_eq!(changed(&["CMD"]).cmd, Some(vec!["/bin/sh".to_owned(), "-c".to_owned()]));
        let both = changed(&["CMD [\"b\"]", "ENTRYPOINT [\"a\"]"]);
        assert_eq!((both.entrypoint, both.cmd), (Some(vec!["a".to_owned()]), Some(vec!["b".to_owned()])));
        assert_eq!(changed(&["ENTRYPOINT [\"a\"]"]).cmd, None);
        assert_eq!(changed(&["USER a b", "HEALTHCHECK CMD x"]).user, "a b");
        assert_eq!(changed(&["WORKDIR x"]).working_dir, "/x");
        assert_eq!(changed(&[]), before);
    }

    proptest! {
        #[test]
        fn arbitrary_lines_do_no_harm(line: String) {
            let _either = apply_changes(&ContainerConfig::default(), &[line]);
        }
    }
}
