//! Shell words as Dockerfiles know them: quotes, escapes and `$variables` with all their operators. Text in, text out; no shell.
//!
//! The dialect is BuildKit's, error texts included. Depth and length of results are limited, so that hostile text ends quickly.

use std::collections::BTreeSet;

mod glob;

/// The longest text that an expansion may result in.
pub const MAX_RESULT: usize = 1 << 20;
/// How deep `${a:-${b:-…}}` may be nested.
const MAX_DEPTH: usize = 64;

/// How words are read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Lexer {
    /// `\`, or what the `escape` directive says.
    pub escape: char,
    /// Quotes stay in the result.
    pub raw_quotes: bool,
    /// Escapes stay in the result.
    pub raw_escapes: bool,
    /// Quotes are ordinary characters.
    pub skip_quotes: bool,
    /// Variables that are not set stay as they are written.
    pub skip_unset: bool,
}

/// What became of a text.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Expansion {
    /// As one word.
    pub text: String,
    /// As words, split at blanks that are not quoted.
    pub words: Vec<String>,
    /// Variables that were found.
    pub matched: BTreeSet<String>,
    /// Variables that were not.
    pub unmatched: BTreeSet<String>,
    /// About how many bytes were moved for it; who expands many texts of a stranger sets a limit to the sum.
    pub cost: usize,
}

/// A text that cannot be expanded.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("failed to process {}: {reason}", crate::quote(source_text))]
pub struct WordError {
    /// The text.
    pub source_text: String,
    /// Why.
    pub reason: String,
}

/// Looks a variable up.
pub type Lookup<'a> = dyn Fn(&str) -> Option<String> + 'a;

impl Lexer {
    /// Reads quotes and escapes and replaces variables.
    #[must_use]
    pub fn new(escape: char) -> Self {
        Self { escape, raw_quotes: false, raw_escapes: false, skip_quotes: false, skip_unset: false }
    }

    /// Expands a text.
    ///
    /// # Errors
    /// [`WordError`] of an open quote, an unknown operator, an unset variable with `?`, and of results that are too long.
    pub fn expand(&self, text: &str, lookup: &Lookup<'_>) -> Result<Expansion, WordError> {
        let mut scanner = Scanner {
            lexer: *self,
            raw_escapes: self.raw_escapes,
            rest: text.chars(),
            lookup,
            out: Expansion::default(),
            depth: 0,
            words: Words::default(),
            spent: 0,
        };
        match scanner.until(None, self.raw_escapes) {
            Ok(result) => {
                let mut out = scanner.out;
                out.cost = scanner.spent + result.len();
                (out.text, out.words) = (result, scanner.words.finish());
                Ok(out)
            }
            Err(reason) => Err(WordError { source_text: text.to_owned(), reason }),
        }
    }
}

/// Splits a text into words while it is read.
#[derive(Debug, Default)]
struct Words {
    done: Vec<String>,
    word: String,
}

impl Words {
    fn push(&mut self, character: char) {
        if !character.is_whitespace() {
            self.word.push(character);
        } else if !self.word.is_empty() {
            self.done.push(std::mem::take(&mut self.word));
        }
    }

    fn finish(mut self) -> Vec<String> {
        if !self.word.is_empty() {
            self.done.push(self.word);
        }
        self.done
    }
}

struct Scanner<'a> {
    lexer: Lexer,
    raw_escapes: bool,
    rest: std::str::Chars<'a>,
    lookup: &'a Lookup<'a>,
    out: Expansion,
    depth: usize,
    words: Words,
    spent: usize,
}

impl Scanner<'_> {
    fn peek(&self) -> Option<char> {
        self.rest.clone().next()
    }

    /// Everything up to a character, or to the end.
    fn until(&mut self, stop: Option<char>, raw_escapes: bool) -> Result<String, String> {
        if self.depth > MAX_DEPTH {
            return Err("substitutions are nested too deeply".to_owned());
        }
        let before = std::mem::replace(&mut self.raw_escapes, raw_escapes);
        self.depth += 1;
        let result = self.until_inner(stop);
        self.depth -= 1;
        self.raw_escapes = before;
        result
    }

    fn until_inner(&mut self, stop: Option<char>) -> Result<String, String> {
        // Words are those of the outermost text only.
        let outer = self.depth == 1;
        let mut result = String::new();
        while let Some(character) = self.peek() {
            if Some(character) == stop {
                self.rest.next();
                return Ok(result);
            }
            let (part, splits) = match character {
                '$' => (self.dollar()?, true),
                '<' => (self.heredoc(), false),
                '\'' if !self.lexer.skip_quotes => (self.single_quoted()?, false),
                '"' if !self.lexer.skip_quotes => (self.double_quoted()?, false),
                _ => (self.plain(), character != self.lexer.escape),
            };
            if outer && splits {
                part.chars().for_each(|character| self.words.push(character));
            } else if outer {
                self.words.word.push_str(&part);
            }
            result.push_str(&part);
            self.check(&result)?;
        }
        match stop {
            Some(stop) => Err(format!("unexpected end of statement while looking for matching {stop}")),
            None => Ok(result),
        }
    }

    fn check(&self, result: &str) -> Result<(), String> {
        if result.len() > MAX_RESULT || self.spent > 16 * MAX_RESULT { Err("the result is longer than 1 MiB".to_owned()) } else { Ok(()) }
    }

    fn plain(&mut self) -> String {
        let mut part = String::new();
        let Some(character) = self.rest.next() else { return part };
        if character == self.lexer.escape {
            if self.raw_escapes {
                part.push(character);
            }
            // At the end of the text an escape is dropped.
            part.extend(self.rest.next());
        } else {
            part.push(character);
        }
        part
    }

    fn single_quoted(&mut self) -> Result<String, String> {
        let mut result = String::new();
        let raw = self.lexer.raw_quotes;
        let open = self.rest.next();
        result.extend(open.filter(|_| raw));
        loop {
            match self.rest.next() {
                None => return Err("unexpected end of statement while looking for matching single-quote".to_owned()),
                Some('\'') => {
                    result.extend(raw.then_some('\''));
                    return Ok(result);
                }
                Some(character) => result.push(character),
            }
        }
    }

    fn double_quoted(&mut self) -> Result<String, String> {
        let mut result = String::new();
        let raw = self.lexer.raw_quotes;
        let open = self.rest.next();
        result.extend(open.filter(|_| raw));
        loop {
            match self.peek() {
                None => return Err("unexpected end of statement while looking for matching double-quote".to_owned()),
                Some('"') => {
                    self.rest.next();
                    result.extend(raw.then_some('"'));
                    return Ok(result);
                }
                Some('$') => {
                    let value = self.dollar()?;
                    result.push_str(&value);
                    self.check(&result)?;
                }
                Some(escape) if escape == self.lexer.escape => {
                    self.rest.next();
                    if self.raw_escapes {
                        result.push(escape);
                    }
                    match self.peek() {
                        None => {}
                        Some(next) if next == '"' || next == '$' || next == escape => result.extend(self.rest.next()),
                        Some(_) => result.push(escape),
                    }
                }
                Some(_) => result.extend(self.rest.next()),
            }
        }
    }

    fn heredoc(&mut self) -> String {
        self.rest.next();
        if self.peek() != Some('<') {
            return "<".to_owned();
        }
        self.rest.next();
        let mut result = "<<".to_owned();
        while self.peek().is_some_and(|next| matches!(next, '\t' | '\r' | ' ')) {
            result.extend(self.rest.next());
        }
        result
    }

    fn get(&mut self, name: &str) -> Option<String> {
        let value = (self.lookup)(name);
        self.spent += value.as_ref().map_or(0, String::len);
        let set = if value.is_some() { &mut self.out.matched } else { &mut self.out.unmatched };
        set.insert(name.to_owned());
        value
    }

    fn dollar(&mut self) -> Result<String, String> {
        self.rest.next();
        if self.peek() == Some('{') {
            self.rest.next();
            return self.braces();
        }
        let name = self.name();
        if name.is_empty() {
            return Ok("$".to_owned());
        }
        match self.get(&name) {
            None if self.lexer.skip_unset => Ok(format!("${name}")),
            value => Ok(value.unwrap_or_default()),
        }
    }

    fn braces(&mut self) -> Result<String, String> {
        match self.peek() {
            None => return Err("syntax error: missing '}'".to_owned()),
            Some('{' | '}' | ':') => return Err("syntax error: bad substitution".to_owned()),
            Some(_) => {}
        }
        let name = self.name();
        match self.rest.next() {
            Some('}') => match self.get(&name) {
                None if self.lexer.skip_unset => Ok(format!("${{{name}}}")),
                value => Ok(value.unwrap_or_default()),
            },
            Some(':') => {
                let operator = self.rest.next();
                self.modified(&name, true, operator)
            }
            Some(operator @ ('+' | '-' | '?' | '#' | '%')) => self.modified(&name, false, Some(operator)),
            Some('/') => self.replaced(&name),
            other => Err(unsupported(false, other)),
        }
    }

    /// `${name:-word}` and its like, behind the operator.
    fn modified(&mut self, name: &str, null_is_unset: bool, operator: Option<char>) -> Result<String, String> {
        let cuts = matches!(operator, Some('#' | '%'));
        if null_is_unset && cuts {
            return Err(unsupported(true, operator));
        }
        let word = self.operand('}', cuts, "syntax error: missing '}'")?;
        let value = self.get(name);
        if self.lexer.skip_unset && value.is_none() {
            let colon = if null_is_unset { ":" } else { "" };
            return Ok(format!("${{{name}{colon}{}{word}}}", operator.unwrap_or(char::REPLACEMENT_CHARACTER)));
        }
        let present = value.as_ref().is_some_and(|value| !(null_is_unset && value.is_empty()));
        match operator {
            Some('-') => Ok(value.filter(|_| present).unwrap_or(word)),
            Some('+') => Ok(if present { word } else { String::new() }),
            Some('?') => match value {
                Some(value) if present => Ok(value),
                _ if !word.is_empty() => Err(format!("{name}: {word}")),
                Some(_) => Err(format!("{name}: is not allowed to be empty")),
                None => Err(format!("{name}: is not allowed to be unset")),
            },
            Some(cut @ ('#' | '%')) => {
                let (greedy, pattern) = word.strip_prefix(cut).map_or((false, word.as_str()), |rest| (true, rest));
                let value = value.unwrap_or_default();
                self.spent += pattern.len() * value.len() / 32;
                if cut == '#' { glob::trim_prefix(pattern, &value, greedy) } else { glob::trim_suffix(pattern, &value, greedy) }
            }
            other => Err(unsupported(null_is_unset, other)),
        }
    }

    /// `${name/pattern/replacement}`, behind the first slash.
    fn replaced(&mut self, name: &str) -> Result<String, String> {
        let all = self.peek() == Some('/');
        if all {
            self.rest.next();
        }
        let pattern = self.operand('/', true, "syntax error: missing '/' in ${}")?;
        let replacement = self.operand('}', true, "syntax error: missing '}'")?;
        let value = self.get(name);
        match value {
            None if self.lexer.skip_unset => Ok(format!("${{{name}/{pattern}/{replacement}}}")),
            value => {
                let value = value.unwrap_or_default();
                self.spent += pattern.len() * value.len() / 32;
                glob::replace(&pattern, &value, &replacement, all)
            }
        }
    }

    /// What follows an operator; an error at the end of the text is that of the missing end.
    fn operand(&mut self, stop: char, raw_escapes: bool, missing: &str) -> Result<String, String> {
        let word = self.until(Some(stop), raw_escapes);
        word.map_err(|error| if self.peek().is_none() { missing.to_owned() } else { error })
    }

    fn name(&mut self) -> String {
        let mut name = String::new();
        let Some(first) = self.peek() else { return name };
        if first.is_numeric() {
            while let Some(digit) = self.peek().filter(|next| next.is_numeric()) {
                self.rest.next();
                name.push(digit);
            }
        } else if matches!(first, '@' | '*' | '#' | '?' | '-' | '$' | '!') {
            self.rest.next();
            name.push(first);
        } else {
            while let Some(next) = self.peek().filter(|next| next.is_alphanumeric() || *next == '_') {
                self.rest.next();
                name.push(next);
            }
        }
        name
    }
}

fn unsupported(colon: bool, operator: Option<char>) -> String {
    let colon = if colon { ":" } else { "" };
    format!("unsupported modifier ({colon}{}) in substitution", operator.unwrap_or(char::REPLACEMENT_CHARACTER))
}

#[cfg(test)]
mod tests;
