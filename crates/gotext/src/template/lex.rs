//! Text and actions apart, and the tokens of an action.

use super::TemplateError;

/// A part of a template.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Part {
    Text(String),
    Action(Vec<Token>),
}

/// A word of an action.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Token {
    pub(super) kind: Kind,
    /// Blank before it.
    pub(super) spaced: bool,
    /// Byte in the template.
    pub(super) at: usize,
}

#[derive(Debug, Clone, PartialEq)]
pub(super) enum Kind {
    Dot,
    Field(String),
    Variable(String),
    Word(String),
    Text(String),
    Int(i64),
    Float(f64),
    Pipe,
    Open,
    Close,
    Declare,
    Assign,
    Comma,
}

/// Line of a byte, from 1.
pub(super) fn line(text: &str, at: usize) -> usize {
    text.as_bytes()[..at.min(text.len())].iter().filter(|byte| **byte == b'\n').count() + 1
}

fn error(text: &str, at: usize, message: &str) -> TemplateError {
    TemplateError(format!("template: :{}: {message}", line(text, at)))
}

/// Takes a template apart.
pub(super) fn parts(text: &str) -> Result<Vec<Part>, TemplateError> {
    let mut out = Vec::new();
    let mut at = 0;
    let mut trim_next = false;
    while let Some(found) = text[at..].find("{{") {
        let open = at + found;
        let mut plain = &text[at..open];
        if trim_next {
            plain = plain.trim_start_matches([' ', '\t', '\r', '\n']);
        }
        let mut inner = open + 2;
        let trims = text[inner..].starts_with('-') && text[inner + 1..].starts_with([' ', '\t', '\r', '\n']);
        if trims {
            plain = plain.trim_end_matches([' ', '\t', '\r', '\n']);
            inner += 2;
        }
        if !plain.is_empty() {
            out.push(Part::Text(plain.to_owned()));
        }
        if text[inner..].starts_with("/*") {
            let end = text[inner..].find("*/").ok_or_else(|| error(text, inner, "unclosed comment"))? + inner + 2;
            let rest = &text[end..];
            let (trim, skip) = if rest.starts_with(" -}}") { (true, 4) } else { (false, 2) };
            if !trim && !rest.starts_with("}}") {
                return Err(error(text, end, "comment ends before closing delimiter"));
            }
            trim_next = trim;
            at = end + skip;
            continue;
        }
        let (tokens, end, trim) = action(text, inner)?;
        out.push(Part::Action(tokens));
        trim_next = trim;
        at = end;
    }
    let mut plain = &text[at..];
    if trim_next {
        plain = plain.trim_start_matches([' ', '\t', '\r', '\n']);
    }
    if !plain.is_empty() {
        out.push(Part::Text(plain.to_owned()));
    }
    Ok(out)
}

/// The tokens up to `}}`, where the text goes on, and whether blanks after it are trimmed.
fn action(text: &str, start: usize) -> Result<(Vec<Token>, usize, bool), TemplateError> {
    let mut tokens = Vec::new();
    let mut at = start;
    let mut depth = 0_usize;
    loop {
        let rest = &text[at..];
        let blank = rest.len() - rest.trim_start_matches([' ', '\t', '\r', '\n']).len();
        let rest = &rest[blank..];
        if blank > 0 && rest.starts_with("-}}") {
            return closed(text, at, depth).map(|()| (tokens, at + blank + 3, true));
        }
        at += blank;
        if rest.starts_with("}}") {
            return closed(text, at, depth).map(|()| (tokens, at + 2, false));
        }
        let Some(first) = rest.chars().next() else { return Err(error(text, at, "unclosed action")) };
        let (kind, length) = token(text, at, first)?;
        match kind {
            Kind::Open => depth += 1,
            Kind::Close => depth = depth.checked_sub(1).ok_or_else(|| error(text, at, "unexpected right paren"))?,
            _ => {}
        }
        tokens.push(Token { kind, spaced: blank > 0, at });
        at += length;
    }
}

fn closed(text: &str, at: usize, depth: usize) -> Result<(), TemplateError> {
    if depth > 0 { Err(error(text, at, "unclosed left paren")) } else { Ok(()) }
}

fn is_word(character: char) -> bool {
    character == '_' || character.is_alphanumeric()
}

fn token(text: &str, at: usize, first: char) -> Result<(Kind, usize), TemplateError> {
    let rest = &text[at..];
    let word = |from: usize| rest[from..].find(|character: char| !is_word(character)).unwrap_or(rest.len() - from) + from;
    match first {
        '|' => Ok((Kind::Pipe, 1)),
        '(' => Ok((Kind::Open, 1)),
        ')' => Ok((Kind::Close, 1)),
        ',' => Ok((Kind::Comma, 1)),
        '=' => Ok((Kind::Assign, 1)),
        ':' if rest.starts_with(":=") => Ok((Kind::Declare, 2)),
        ':' => Err(error(text, at, "expected :=")),
        '$' => {
            let end = word(1);
            Ok((Kind::Variable(rest[..end].to_owned()), end))
        }
        '.' if !rest[1..].starts_with(|character: char| character.is_ascii_digit()) => {
            let end = word(1);
            Ok(if end == 1 { (Kind::Dot, 1) } else { (Kind::Field(rest[1..end].to_owned()), end) })
        }
        '"' => quoted(text, at),
        '`' => {
            let end = rest[1..].find('`').ok_or_else(|| error(text, at, "unterminated raw quoted string"))?;
            Ok((Kind::Text(rest[1..=end].to_owned()), end + 2))
        }
        '\'' => character(text, at),
        digit if digit.is_ascii_digit() || matches!(digit, '+' | '-' | '.') => number(text, at),
        letter if is_word(letter) => {
            let end = word(0);
            Ok((Kind::Word(rest[..end].to_owned()), end))
        }
        other => Err(error(text, at, &format!("unexpected {} in command", crate::quote(&other.to_string())))),
    }
}

fn number(text: &str, at: usize) -> Result<(Kind, usize), TemplateError> {
    let rest = &text[at..];
    let signed = usize::from(rest.starts_with(['+', '-']));
    let based = rest[signed..].starts_with("0x") || rest[signed..].starts_with("0X");
    let mut end = signed;
    for (index, character) in rest.char_indices().skip(signed) {
        let exponent_sign = matches!(character, '+' | '-') && !based && rest[..index].ends_with(['e', 'E']);
        if !is_word(character) && character != '.' && !exponent_sign {
            break;
        }
        end = index + character.len_utf8();
    }
    let word = &rest[..end];
    let digits = word[signed..].replace('_', "");
    let sign = if word.starts_with('-') { -1 } else { 1 };
    let whole = if let Some(hex) = digits.strip_prefix("0x").or_else(|| digits.strip_prefix("0X")) {
        i64::from_str_radix(hex, 16).ok()
    } else if let Some(octal) = digits.strip_prefix("0o") {
        i64::from_str_radix(octal, 8).ok()
    } else if let Some(binary) = digits.strip_prefix("0b") {
        i64::from_str_radix(binary, 2).ok()
    } else {
        digits.parse().ok()
    };
    let starts_right = digits.starts_with(|character: char| character.is_ascii_digit() || character == '.');
    if let Some(whole) = whole.filter(|_| starts_right) {
        return Ok((Kind::Int(sign * whole), end));
    }
    match digits.parse::<f64>() {
        #[expect(clippy::cast_precision_loss, reason = "one or minus one")]
        Ok(float) if starts_right => Ok((Kind::Float(sign as f64 * float), end)),
        _ => Err(error(text, at, &format!("bad number syntax: {}", crate::quote(word)))),
    }
}

fn character(text: &str, at: usize) -> Result<(Kind, usize), TemplateError> {
    let rest = &text[at..];
    let unterminated = || error(text, at, "unterminated character constant");
    let inner = rest.get(1..).and_then(|inner| inner.chars().next()).ok_or_else(unterminated)?;
    if inner == '\\' {
        let (value, length) = escape(&rest[2..]).ok_or_else(unterminated)?;
        return if rest[2 + length..].starts_with('\'') {
            Ok((Kind::Int(i64::from(u32::from(value))), length + 3))
        } else {
            Err(unterminated())
        };
    }
    let end = 1 + inner.len_utf8();
    if rest[end..].starts_with('\'') { Ok((Kind::Int(i64::from(u32::from(inner))), end + 1)) } else { Err(unterminated()) }
}

fn quoted(text: &str, at: usize) -> Result<(Kind, usize), TemplateError> {
    let rest = &text[at + 1..];
    let mut out = String::new();
    let mut position = 0;
    while let Some(character) = rest[position..].chars().next() {
        match character {
            '"' => return Ok((Kind::Text(out), position + 2)),
            '\n' => break,
            '\\' => {
                let (value, length) = escape(&rest[position + 1..]).ok_or_else(|| error(text, at, "invalid syntax in quoted string"))?;
                out.push(value);
                position += 1 + length;
            }
            other => {
                out.push(other);
                position += other.len_utf8();
            }
        }
    }
    Err(error(text, at, "unterminated quoted string"))
}

/// What stands after a backslash: its character and how many bytes it takes.
fn escape(rest: &str) -> Option<(char, usize)> {
    let simple = |value| Some((value, 1));
    let code = |from: usize, length: usize, radix: u32| {
        let digits = rest.get(from..from + length)?;
        Some((char::from_u32(u32::from_str_radix(digits, radix).ok()?)?, from + length))
    };
    match rest.chars().next()? {
        'a' => simple('\u{7}'),
        'b' => simple('\u{8}'),
        'f' => simple('\u{c}'),
        'n' => simple('\n'),
        'r' => simple('\r'),
        't' => simple('\t'),
        'v' => simple('\u{b}'),
        '\\' => simple('\\'),
        '\'' => simple('\''),
        '"' => simple('"'),
        'x' => code(1, 2, 16),
        'u' => code(1, 4, 16),
        'U' => code(1, 8, 16),
        '0'..='7' => code(0, 3, 8),
        _ => None,
    }
}
