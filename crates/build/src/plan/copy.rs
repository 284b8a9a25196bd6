//! COPY and ADD.

use std::str::FromStr as _;

use sampan_gotext::shellwords::Lexer;
use sampan_oci::Digest;

use super::dispatch::Done;
use super::graph::{Copy, File, FileAction, Http, Mode, Op, OpId, Unpack};
use super::planner::{Command, Fault, Planner};
use super::remote::{Remote, classify, escaped, file_name};
use super::scope::{destination, join};
use crate::dockerfile::{Lines, Transfer, rules};

impl Planner<'_> {
    pub(super) fn transfer(&mut self, stage: usize, command: &Command, written: &Transfer, add: bool) -> Result<Done, Fault> {
        let head = &command.instruction.head;
        let (transfer, from) = self.expanded(stage, head.lines, written)?;
        let from = match command.sources.first() {
            None => None,
            Some(source) => {
                let root = self.source_root(*source);
                let names = || (sampan_gotext::quote(&from), sampan_gotext::quote(&self.stages[stage].display_name));
                Some(root.ok_or_else(|| {
                    let (from, own) = names();
                    format!("cannot copy from stage {from}, it needs to be defined before current stage {own}")
                })?)
            }
        };
        let cwd = self.stages[stage].config.config.working_dir.clone();
        let dest = destination(&cwd, &transfer.dest);
        let mode = mode(&transfer.chmod)?;
        checksum_rules(&transfer, add)?;
        let shown = self.shown(stage, &head.code, self.lexer);
        let (name, number) = self.numbered(stage, &shown, command.trigger);
        let mut message = if add { "ADD" } else { "COPY" }.to_owned();
        if transfer.parents {
            message.push_str(" --parents");
        }
        for (flag, value) in [("chown", &transfer.chown), ("chmod", &transfer.chmod)] {
            if !value.is_empty() {
                message.push_str(&format!(" --{flag}={value}"));
            }
        }
        let owner = Some(transfer.chown.clone()).filter(|owner| !owner.is_empty());
        let mut actions = Vec::new();
        for source in &transfer.sources {
            message.push_str(&format!(" {source}"));
            let mut copy = self.source(source, &transfer, add, from, head.lines)?;
            copy.dest.clone_from(&dest);
            copy.dest_is_dir = dest.ends_with('/');
            (copy.owner, copy.mode) = (owner.clone(), mode.clone());
            actions.push(FileAction::Copy(Box::new(copy)));
        }
        for (name, content, _) in &transfer.contents {
            message.push_str(&format!(" <<{name}"));
            let content = content.clone().into_bytes();
            actions.push(FileAction::Write { path: dest.clone(), name: name.clone(), mode: mode.clone(), owner: owner.clone(), content });
        }
        message.push_str(&format!(" {} # buildkit", transfer.dest));
        let op = self.op(Op::File(File { root: self.stages[stage].root, actions, link: transfer.link && transfer.chmod.is_empty() }));
        self.stages[stage].root = Some(op);
        let history = Some(self.commit(stage, message, true));
        Ok(Done { op: Some(op), name, number, history })
    }

    /// The instruction with its variables, and what `--from` named.
    fn expanded(&mut self, stage: usize, lines: Lines, written: &Transfer) -> Result<(Transfer, String), String> {
        let mut transfer = written.clone();
        transfer.chown = self.word(stage, lines, &written.chown)?;
        transfer.chmod = self.word(stage, lines, &written.chmod)?;
        transfer.checksum = self.word(stage, lines, &written.checksum)?;
        transfer.sources = self.words(stage, lines, &written.sources)?;
        transfer.dest = self.word(stage, lines, &written.dest)?;
        let bodies = Lexer { skip_quotes: true, ..Lexer::new('\\') };
        for (_, content, expand) in &mut transfer.contents {
            if *expand {
                let expansion = self.expand_with(stage, content, bodies)?;
                self.report_unset(stage, lines, &expansion);
                *content = expansion.text;
            }
        }
        Ok((transfer, written.from.clone()))
    }

    /// One source, destination and owner left open.
    fn source(&mut self, source: &str, transfer: &Transfer, add: bool, from: Option<Option<OpId>>, lines: Lines) -> Result<Copy, Fault> {
        let mut copy = Copy {
            from: None,
            source: "/".to_owned(),
            source_as_written: source.to_owned(),
            dest: String::new(),
            dest_is_dir: false,
            owner: None,
            mode: Mode::Keep,
            excludes: transfer.excludes.clone(),
            parents: None,
            unpack: Unpack::Never,
            add,
        };
        match classify(source)? {
            Remote::Git { .. } if !add => return Err(no_url("source can't be a git ref for COPY")),
            Remote::Http if !add => return Err(no_url("source can't be a URL for COPY")),
            Remote::Git { mut git, keep_git_dir } => {
                if let (Some(flag), Some(query)) = (transfer.keep_git_dir, keep_git_dir)
                    && flag != query
                {
                    return Err("inconsistent keep-git-dir configuration".to_owned().into());
                }
                git.keep_git_dir = keep_git_dir.or(transfer.keep_git_dir).unwrap_or(false);
                match &git.checksum {
                    Some(other) if !transfer.checksum.is_empty() && *other != transfer.checksum => {
                        let quote = sampan_gotext::quote;
                        return Err(format!("checksum mismatch {} != {}", quote(&transfer.checksum), quote(other)).into());
                    }
                    None if !transfer.checksum.is_empty() => git.checksum = Some(transfer.checksum.clone()),
                    _ => {}
                }
                copy.from = Some(self.op(Op::Git(git)));
            }
            Remote::Http => {
                let checksum = match transfer.checksum.as_str() {
                    "" => None,
                    text => Some(Digest::from_str(text).map_err(|error| error.to_string())?),
                };
                let file_name = file_name(source);
                copy.source = format!("/{}", escaped(&file_name));
                copy.from = Some(self.op(Op::Http(Http { url: source.to_owned(), checksum, file_name })));
                copy.unpack = if transfer.unpack == Some(true) { Unpack::IfArchive } else { Unpack::Never };
            }
            Remote::Local => {
                if from.is_none() && self.ignore.matches(source.trim_start_matches('/')) && !source.is_empty() {
                    let keyword = if add { "Add" } else { "Copy" };
                    let quoted = sampan_gotext::quote(source);
                    let text = format!("Attempting to {keyword} file {quoted} that is excluded by .dockerignore");
                    self.findings.push(rules::COPY_IGNORED_FILE.warn(lines, text));
                }
                copy.from = from.unwrap_or_else(|| Some(self.context("")));
                let (base, pattern) = match source.split_once("/./") {
                    _ if !transfer.parents => (source, None),
                    Some((base, pattern)) => (base, Some(pattern)),
                    None => ("/", Some(source)),
                };
                copy.source = join("/", base);
                copy.parents = pattern.map(|pattern| join("/", pattern).trim_start_matches('/').to_owned());
                copy.unpack = if transfer.unpack.unwrap_or(add) { Unpack::IfArchive } else { Unpack::Never };
            }
        }
        Ok(copy)
    }
}

fn no_url(message: &str) -> Fault {
    Fault { message: message.to_owned(), classic: Some("COPY failed: source can't be a URL for COPY".to_owned()) }
}

fn checksum_rules(transfer: &Transfer, add: bool) -> Result<(), String> {
    if transfer.checksum.is_empty() {
        return Ok(());
    }
    let fault = |text: &str| Err(text.to_owned());
    match transfer.sources.as_slice() {
        _ if !add => fault("checksum can't be specified for COPY"),
        [source] if classify(source)? == Remote::Local => fault("checksum requires HTTP(S) or Git sources"),
        [_] => Ok(()),
        _ => fault("checksum can't be specified for multiple sources"),
    }
}

/// `--chmod`: octal, or clauses like `u=rwX,go=`.
fn mode(text: &str) -> Result<Mode, String> {
    if text.is_empty() {
        return Ok(Mode::Keep);
    }
    let not_octal = || format!("invalid chmod parameter: '{text}'. it should be octal string and between 0 and 07777");
    if !text.starts_with('+')
        && let Ok(bits) = u32::from_str_radix(text, 8)
    {
        return if bits > 0o7777 { Err(not_octal()) } else { Ok(Mode::Octal(bits)) };
    }
    if text.starts_with(|first: char| first.is_ascii_digit()) {
        return Err(not_octal());
    }
    if text.split(',').all(is_clause) { Ok(Mode::Symbolic(text.to_owned())) } else { Err("invalid syntax".to_owned()) }
}

/// `[ugoa]*([-+=]([rwxXst]*|[ugo]))+`.
fn is_clause(text: &str) -> bool {
    let rest = text.trim_start_matches(['u', 'g', 'o', 'a']);
    let mut parts = rest.split(['-', '+', '=']);
    let begins = parts.next() == Some("");
    let permissions = |part: &str| part.chars().all(|c| matches!(c, 'r' | 'w' | 'x' | 'X' | 's' | 't')) || matches!(part, "u" | "g" | "o");
    begins && !rest.is_empty() && parts.all(permissions)
}
