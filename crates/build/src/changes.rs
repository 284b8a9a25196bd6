//! `-c` of commit and import: Dockerfile instructions that change a configuration. Pure.

use sampan_base::{ErrorKind, Failure};
use sampan_oci::ContainerConfig;
use serde_json::{Value, json};

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

/// Applies lines in order.
///
/// # Errors
/// [`ChangeError`] of the first bad line; the configuration is unchanged then.
pub fn apply_changes(config: &ContainerConfig, lines: &[String]) -> Result<ContainerConfig, ChangeError> {
    let mut out = config.clone();
    let mut own_cmd = false;
    for line in lines {
        apply(&mut out, line.trim(), &mut own_cmd)?;
    }
    Ok(out)
}

fn apply(config: &mut ContainerConfig, line: &str, own_cmd: &mut bool) -> Result<(), ChangeError> {
    let (word, rest) = line.split_once(char::is_whitespace).unwrap_or((line, ""));
    let (name, rest) = (word.to_ascii_uppercase(), rest.trim());
    let needs = |least: &str| ChangeError::Syntax(format!("{name} requires {least}"));
    if rest.is_empty() && !matches!(name.as_str(), "CMD" | "ENTRYPOINT") {
        return Err(match name.as_str() {
            "ENV" | "LABEL" | "EXPOSE" | "VOLUME" => needs("at least one argument"),
            "USER" | "WORKDIR" | "STOPSIGNAL" | "ONBUILD" => needs("exactly one argument"),
            _ => known(&name, word),
        });
    }
    match name.as_str() {
        "CMD" => {
            config.cmd = Some(command(rest));
            *own_cmd = true;
        }
        "ENTRYPOINT" => {
            config.entrypoint = Some(command(rest));
            // Arguments made for another entry point mean nothing to this one; those of the same request do.
            if !*own_cmd {
                config.cmd = None;
            }
        }
        "ENV" => {
            let env = config.env.get_or_insert_default();
            for (key, value) in pairs(rest, &name)? {
                env.retain(|line| line.split('=').next() != Some(&key));
                env.push(format!("{key}={value}"));
            }
        }
        "LABEL" => config.labels.extend(pairs(rest, &name)?),
        "EXPOSE" => {
            for port in words(rest)? {
                config.exposed_ports.extend(ports(&port)?);
            }
        }
        "USER" => config.user = single(rest, &name)?,
        "WORKDIR" => {
            let path = single(rest, &name)?;
            config.working_dir = if path.starts_with('/') { path } else { format!("{}/{path}", config.working_dir.trim_end_matches('/')) };
        }
        "VOLUME" => {
            let list = json_list(rest).map_or_else(|| words(rest), Ok)?;
            config.volumes.extend(list.into_iter().map(|path| (path, json!({}))));
        }
        "STOPSIGNAL" => config.stop_signal = single(rest, &name)?,
        "ONBUILD" => config.on_build.get_or_insert_default().push(rest.to_owned()),
        _ => return Err(known(&name, word)),
    }
    Ok(())
}

fn known(name: &str, word: &str) -> ChangeError {
    if word.is_empty() { ChangeError::Syntax("a change must not be empty".into()) } else { ChangeError::NotAChange(name.to_owned()) }
}

/// A JSON list of texts is the command; anything else is a line for the shell.
fn command(text: &str) -> Vec<String> {
    json_list(text).unwrap_or_else(|| if text.is_empty() { Vec::new() } else { vec!["/bin/sh".into(), "-c".into(), text.to_owned()] })
}

fn json_list(text: &str) -> Option<Vec<String>> {
    let list: Vec<Value> = serde_json::from_str(text).ok()?;
    list.into_iter().map(|item| item.as_str().map(str::to_owned)).collect()
}

/// `a=b c="d e"`, or the old form `a b c` with one key.
fn pairs(text: &str, name: &str) -> Result<Vec<(String, String)>, ChangeError> {
    let words = words(text)?;
    if !words.first().is_some_and(|word| word.contains('=')) {
        let (key, value) =
            text.split_once(char::is_whitespace).ok_or_else(|| ChangeError::Syntax(format!("{name} must have two arguments")))?;
        return Ok(vec![(key.to_owned(), value.trim().to_owned())]);
    }
    let pair = |word: String| match word.split_once('=') {
        Some(("", _)) => Err(ChangeError::Syntax(format!("{name} names can not be blank"))),
        Some((key, value)) => Ok((key.to_owned(), value.to_owned())),
        None => Err(ChangeError::Syntax(format!("Syntax error - can't find = in \"{word}\". Must be of the form: name=value"))),
    };
    words.into_iter().map(pair).collect()
}

fn single(text: &str, name: &str) -> Result<String, ChangeError> {
    let mut words = words(text)?;
    if words.len() == 1 { Ok(words.remove(0)) } else { Err(ChangeError::Syntax(format!("{name} requires exactly one argument"))) }
}

fn ports(text: &str) -> Result<Vec<(String, Value)>, ChangeError> {
    let invalid = || ChangeError::Syntax(format!("invalid containerPort: {text}"));
    let (numbers, protocol) = text.split_once('/').unwrap_or((text, "tcp"));
    let protocol = protocol.to_ascii_lowercase();
    if !matches!(protocol.as_str(), "tcp" | "udp" | "sctp") {
        return Err(ChangeError::Syntax(format!("invalid proto: {protocol}")));
    }
    let (first, last) = numbers.split_once('-').unwrap_or((numbers, numbers));
    let (first, last) = (first.parse::<u16>().map_err(|_| invalid())?, last.parse::<u16>().map_err(|_| invalid())?);
    if first > last {
        return Err(invalid());
    }
    Ok((first..=last).map(|port| (format!("{port}/{protocol}"), json!({}))).collect())
}

/// Words with quotes and backslashes, without expansion of variables.
fn words(text: &str) -> Result<Vec<String>, ChangeError> {
    let mut out = Vec::new();
    let mut word: Option<String> = None;
    let mut quote: Option<char> = None;
    let mut characters = text.chars();
    while let Some(character) = characters.next() {
        match (quote, character) {
            (Some(open), close) if open == close => quote = None,
            (Some('\''), other) => word.get_or_insert_default().push(other),
            (_, '\\') => word.get_or_insert_default().push(characters.next().unwrap_or('\\')),
            (None, open @ ('"' | '\'')) => {
                quote = Some(open);
                word.get_or_insert_default();
            }
            (None, space) if space.is_whitespace() => out.extend(word.take()),
            (_, other) => word.get_or_insert_default().push(other),
        }
    }
    if quote.is_some() {
        return Err(ChangeError::Syntax(format!("unexpected end of statement while looking for matching quote in: {text}")));
    }
    out.extend(word);
    Ok(out)
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
        assert_eq!(config.env, Some(vec!["B=two words".to_owned(), "A=3".to_owned()]));
        assert_eq!(config.cmd, Some(vec!["a".to_owned(), "b".to_owned()]));
        assert_eq!(config.exposed_ports.keys().collect::<Vec<_>>(), ["80/tcp", "8000/udp", "8001/udp"]);
        assert_eq!((config.working_dir.as_str(), config.volumes.len(), config.labels["x"].as_str()), ("/a/b", 1, "y"));
        assert_eq!(changed(&["CMD echo hi"]).unwrap().cmd, Some(vec!["/bin/sh".to_owned(), "-c".to_owned(), "echo hi".to_owned()]));
    }

    #[test]
    fn others_are_refused_and_nothing_changes() {
        assert_eq!(changed(&["RUN x"]).unwrap_err(), "RUN is not a valid change command");
        assert_eq!(changed(&["NOSUCH x"]).unwrap_err(), "NOSUCH is not a valid change command");
        assert_eq!(changed(&["ENV"]).unwrap_err(), "ENV requires at least one argument");
        assert!(changed(&["ENV =x"]).is_err() && changed(&["USER a b"]).is_err() && changed(&["LABEL a=\"b"]).is_err());
    }

    proptest! {
        #[test]
        fn arbitrary_lines_do_no_harm(line: String) {
            let _either = apply_changes(&ContainerConfig::default(), &[line]);
        }
    }
}
