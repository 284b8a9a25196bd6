//! Physical lines to logical ones: directives, comments, continuations, heredocs. Knows no instruction but which may have heredocs.

use sampan_gotext::shellwords::Lexer;

use super::ParseError;
use super::ast::{Heredoc, Lines, Warning};
use super::checks::rules;
use super::words::{self, NotJson, Parts};

/// The longest physical line.
const MAX_LINE: usize = 65_535;
/// The largest file.
const MAX_FILE: usize = 8 << 20;
/// The most instructions of a file.
const MAX_INSTRUCTIONS: usize = 10_000;

/// A logical line, split but not understood.
#[derive(Debug, Clone)]
pub(super) struct Node {
    pub(super) keyword: String,
    pub(super) flags: Vec<String>,
    pub(super) args: Vec<String>,
    pub(super) json: bool,
    pub(super) original: String,
    pub(super) heredocs: Vec<Heredoc>,
    pub(super) lines: Lines,
    pub(super) comments: Vec<String>,
}

/// A file's logical lines.
#[derive(Debug)]
pub(super) struct Source {
    pub(super) escape: char,
    pub(super) syntax: Option<String>,
    pub(super) check: Option<String>,
    pub(super) nodes: Vec<Node>,
    pub(super) findings: Vec<Warning>,
}

/// The directives at the top.
#[derive(Debug)]
struct Directives {
    escape: char,
    syntax: Option<String>,
    check: Option<String>,
    seen: Vec<String>,
    over: bool,
}

impl Directives {
    /// Takes a line; whether it is a directive.
    fn take(&mut self, line: &str) -> Result<bool, String> {
        if self.over {
            return Ok(false);
        }
        let Some((key, value)) = directive(line).filter(|(key, _)| matches!(key.as_str(), "syntax" | "escape" | "check")) else {
            self.over = true;
            return Ok(false);
        };
        if self.seen.contains(&key) {
            return Err(format!("only one {key} parser directive can be used"));
        }
        match key.as_str() {
            "escape" => match value {
                "\\" => self.escape = '\\',
                "`" => self.escape = '`',
                other => return Err(format!("invalid escape token '{other}' does not match ` or \\")),
            },
            "syntax" => self.syntax = Some(value.to_owned()),
            // Only the first word counts.
            _ => self.check = value.split(' ').next().map(str::to_owned),
        }
        self.seen.push(key);
        Ok(true)
    }
}

/// `# key = value`.
fn directive(line: &str) -> Option<(String, &str)> {
    let (key, value) = line.strip_prefix('#')?.split_once('=')?;
    let (key, value) = (key.trim(), value.trim());
    let word = key.starts_with(|c: char| c.is_ascii_alphabetic()) && key.chars().all(|c| c.is_ascii_alphanumeric());
    (word && !value.is_empty()).then(|| (key.to_ascii_lowercase(), value))
}

/// Physical lines with their ends, one after the other.
struct Reader<'a> {
    rest: &'a str,
    number: usize,
}

impl<'a> Reader<'a> {
    fn next(&mut self) -> Result<Option<&'a str>, ParseError> {
        if self.rest.is_empty() {
            return Ok(None);
        }
        let window = &self.rest.as_bytes()[..self.rest.len().min(MAX_LINE + 1)];
        let end = match window.iter().position(|byte| *byte == b'\n') {
            Some(at) => at + 1,
            None if self.rest.len() <= MAX_LINE => self.rest.len(),
            None => return Err(fault(format!("dockerfile line greater than max allowed size of {MAX_LINE}"), self.number, 0)),
        };
        let (line, rest) = self.rest.split_at(end);
        self.rest = rest;
        self.number += 1;
        Ok(Some(line))
    }
}

fn fault(message: String, first: usize, last: usize) -> ParseError {
    ParseError::of_form(message, Some(Lines { first, last: last.max(first) }))
}

fn is_comment(line: &str) -> bool {
    line.trim_start().starts_with('#')
}

fn without_end(line: &str) -> &str {
    line.trim_end_matches(['\r', '\n'])
}

/// A line without its continuation character; whether the logical line ends with it.
fn continuation(line: &str, escape: char) -> (&str, bool) {
    match line.trim_end_matches([' ', '\t']).strip_suffix(escape) {
        Some(rest) if !rest.ends_with(escape) => (rest, false),
        _ => (line, true),
    }
}

/// Reads a file.
pub(super) fn read(text: &[u8]) -> Result<Source, ParseError> {
    if text.len() > MAX_FILE {
        return Err(ParseError::of_form("the Dockerfile is larger than 8 MiB".to_owned(), None));
    }
    let text = String::from_utf8_lossy(text);
    let mut reader = Reader { rest: text.strip_prefix('\u{feff}').unwrap_or(&text), number: 0 };
    let mut directives = Directives { escape: '\\', syntax: None, check: None, seen: Vec::new(), over: false };
    let (mut nodes, mut findings, mut comments) = (Vec::new(), Vec::new(), Vec::new());
    loop {
        let before = reader.number;
        let Some(raw) = reader.next()? else { break };
        let line = without_end(raw).trim_start();
        let is_directive = directives.take(line).map_err(|message| fault(message, before, 0))?;
        if is_comment(raw) {
            // What stands before the sign of an indented comment belongs to it.
            let mut characters = raw.chars();
            characters.next();
            match characters.as_str().trim() {
                _ if is_directive => {}
                "" => comments.clear(),
                comment => comments.push(comment.to_owned()),
            }
            continue;
        }
        let first = reader.number;
        if line.is_empty() {
            continue;
        }
        let (line, empty) = logical(&mut reader, line, directives.escape)?;
        if empty {
            let lines = Lines { first: reader.number, last: reader.number };
            findings.push(rules::NO_EMPTY_CONTINUATION.warn(lines, "Empty continuation line".to_owned()));
        }
        let mut node = node(&line, directives.escape, 0).map_err(|message| fault(message, first, reader.number))?;
        if may_have_heredocs(&node, directives.escape) && line.contains("<<") {
            node.heredocs = heredocs(&mut reader, &line, first)?;
        }
        node.lines = Lines { first, last: reader.number };
        node.comments = std::mem::take(&mut comments);
        nodes.push(node);
        if nodes.len() > MAX_INSTRUCTIONS {
            return Err(fault(format!("more than {MAX_INSTRUCTIONS} instructions"), first, 0));
        }
    }
    if nodes.is_empty() {
        return Err(fault("file with no instructions".to_owned(), reader.number, 0));
    }
    Ok(Source { escape: directives.escape, syntax: directives.syntax, check: directives.check, nodes, findings })
}

/// A line with those that continue it; whether one of them was empty.
fn logical(reader: &mut Reader<'_>, line: &str, escape: char) -> Result<(String, bool), ParseError> {
    let (begin, mut ended) = continuation(line, escape);
    let (mut line, mut empty) = (begin.to_owned(), false);
    while !ended {
        let Some(raw) = reader.next()? else { break };
        if is_comment(raw) {
            continue;
        }
        let part = without_end(raw);
        if part.trim_start().is_empty() {
            empty = true;
            continue;
        }
        let (part, end) = continuation(part, escape);
        line.push_str(part);
        ended = end;
    }
    Ok((line, empty))
}

/// Splits a logical line as its keyword wants it.
pub(super) fn node(line: &str, escape: char, depth: usize) -> Result<Node, String> {
    let Parts { keyword, flags, rest } = words::split(line, escape);
    let not_texts = || "when using JSON array syntax, arrays must be comprised of strings only".to_owned();
    let mut json = false;
    let mut maybe_json = |text: &str, fall_back: fn(&str) -> Vec<String>| match words::json_words(text) {
        Ok(list) => {
            json = true;
            Ok(list)
        }
        Err(NotJson::NotTexts) => Err(not_texts()),
        Err(NotJson::Other) => Ok(fall_back(text)),
    };
    let args = match keyword.to_ascii_lowercase().as_str() {
        "add" | "copy" | "volume" => maybe_json(&rest, words::plain_words)?,
        "cmd" | "entrypoint" | "run" | "shell" => maybe_json(&rest, whole)?,
        "arg" => words::quoted_words(&rest, escape),
        "env" => pairs(&rest, "ENV", escape)?,
        "label" => pairs(&rest, "LABEL", escape)?,
        "expose" | "from" => words::plain_words(&rest),
        "healthcheck" => match rest.find(char::is_whitespace) {
            None => whole(&rest),
            Some(at) => {
                let command = maybe_json(rest[at..].trim_start(), whole)?;
                std::iter::once(rest[..at].to_owned()).chain(command).collect()
            }
        },
        "maintainer" | "stopsignal" | "user" | "workdir" => whole(&rest),
        // Triggers of triggers are refused later; they need not be looked into.
        "onbuild" if rest.is_empty() || depth > 1 => whole(&rest),
        "onbuild" => {
            let child = node(&rest, escape, depth + 1)?;
            std::iter::once(child.keyword).chain(child.args).collect()
        }
        _ => vec![String::new()],
    };
    Ok(Node {
        keyword,
        flags,
        args,
        json,
        original: line.to_owned(),
        heredocs: Vec::new(),
        lines: Lines { first: 0, last: 0 },
        comments: Vec::new(),
    })
}

fn whole(text: &str) -> Vec<String> {
    if text.is_empty() { Vec::new() } else { vec![text.to_owned()] }
}

/// Keys, values and separators, three words each.
fn pairs(text: &str, keyword: &str, escape: char) -> Result<Vec<String>, String> {
    let words = words::quoted_words(text, escape);
    let Some(first) = words.first() else { return Ok(Vec::new()) };
    if !first.contains('=') {
        let (key, value) = text.split_once(words::is_blank).ok_or_else(|| format!("{keyword} must have two arguments"))?;
        return Ok(vec![key.to_owned(), value.trim_start_matches(words::is_blank).to_owned(), String::new()]);
    }
    let mut out = Vec::with_capacity(words.len() * 3);
    for word in words {
        let Some((key, value)) = word.split_once('=') else {
            let word = sampan_gotext::quote(&word);
            return Err(format!("Syntax error - can't find = in {word}. Must be of the form: name=value"));
        };
        out.extend([key.to_owned(), value.to_owned(), "=".to_owned()]);
    }
    Ok(out)
}

fn may_have_heredocs(node: &Node, escape: char) -> bool {
    let fits = |keyword: &str, json: bool| matches!(keyword.to_ascii_lowercase().as_str(), "add" | "copy" | "run") && !json;
    if !node.keyword.eq_ignore_ascii_case("onbuild") {
        return fits(&node.keyword, node.json);
    }
    let trigger = words::split(&words::split(&node.original, escape).rest, escape);
    fits(&trigger.keyword, words::json_words(&trigger.rest).is_ok())
}

/// The bodies of the heredocs that a line announces.
fn heredocs(reader: &mut Reader<'_>, line: &str, first: usize) -> Result<Vec<Heredoc>, ParseError> {
    let lexer = Lexer { raw_quotes: true, raw_escapes: true, skip_unset: true, ..Lexer::new('\\') };
    let announced = lexer.expand(line, &|_| None).map(|done| done.words).unwrap_or_default();
    let mut out = Vec::new();
    for word in announced {
        let Some(mut heredoc) = heredoc(&word).map_err(|message| fault(message, first, reader.number))? else { continue };
        loop {
            let Some(raw) = reader.next()? else { return Err(fault("unterminated heredoc".to_owned(), first, reader.number)) };
            let mut end = without_end(raw);
            if heredoc.chomp {
                end = end.trim_start_matches('\t');
            }
            if end == heredoc.name {
                break;
            }
            heredoc.content.push_str(raw);
        }
        out.push(heredoc);
    }
    Ok(out)
}

/// What `<<NAME`, `3<<-"NAME"` announce.
pub(crate) fn heredoc(word: &str) -> Result<Option<Heredoc>, String> {
    let Some((descriptor, rest)) = word.split_once("<<") else { return Ok(None) };
    let (chomp, rest) = rest.strip_prefix('-').map_or((false, rest), |rest| (true, rest));
    let rest = rest.trim_start();
    if !descriptor.bytes().all(|byte| byte.is_ascii_digit()) || rest.is_empty() || rest.contains('<') {
        return Ok(None);
    }
    let plain = Lexer { skip_unset: true, ..Lexer::new('\\') };
    let raw = Lexer { raw_quotes: true, ..plain };
    let words = |lexer: Lexer| lexer.expand(rest, &|_| None).map(|done| done.words).map_err(|error| error.to_string());
    let (mut names, raw_names) = (words(plain)?, words(raw)?);
    if names.len() != 1 {
        return Ok(None);
    }
    if raw_names.len() != 1 {
        return Err(format!("internal lexing of heredoc produced inconsistent results: {rest}"));
    }
    let quotes = |text: &str| text.matches(['\'', '"']).count();
    let expand = quotes(&names[0]) == quotes(&raw_names[0]);
    Ok(Some(Heredoc { name: names.remove(0), expand, chomp, content: String::new() }))
}

/// A heredoc's content without the tabs that `<<-` removes.
pub(crate) fn chomped(content: &str) -> String {
    content.split_inclusive('\n').map(|line| line.trim_start_matches('\t')).collect()
}
