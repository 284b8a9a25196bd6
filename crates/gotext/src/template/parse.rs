//! Tokens to nodes.

use std::collections::BTreeMap;

use super::TemplateError;
use super::function;
use super::lex::{self, Kind, Part, Token};

/// A part of a parsed template.
#[derive(Debug, Clone)]
pub(super) enum Node {
    Text(String),
    Action(Pipe),
    If { pipe: Pipe, body: Vec<Self>, otherwise: Vec<Self> },
    With { pipe: Pipe, body: Vec<Self>, otherwise: Vec<Self> },
    Range { pipe: Pipe, body: Vec<Self>, otherwise: Vec<Self> },
    Template { name: String, pipe: Option<Pipe>, place: Place },
    Break,
    Continue,
}

/// Commands whose values flow from left to right.
#[derive(Debug, Clone)]
pub(super) struct Pipe {
    pub(super) variables: Vec<String>,
    /// `=` and not `:=`.
    pub(super) assigns: bool,
    pub(super) commands: Vec<Command>,
}

#[derive(Debug, Clone)]
pub(super) struct Command {
    pub(super) operands: Vec<Operand>,
    pub(super) place: Place,
}

/// Where an error happened.
#[derive(Debug, Clone, Default)]
pub(super) struct Place {
    pub(super) line: usize,
    pub(super) column: usize,
    pub(super) text: String,
}

#[derive(Debug, Clone)]
pub(super) struct Operand {
    pub(super) base: Base,
    /// `.A.B` behind it.
    pub(super) fields: Vec<String>,
    pub(super) place: Place,
}

#[derive(Debug, Clone)]
pub(super) enum Base {
    Dot,
    Variable(String),
    Function(String),
    Nil,
    Bool(bool),
    Int(i64),
    Float(f64),
    Text(String),
    Pipe(Box<Pipe>),
}

type Defined = BTreeMap<String, Vec<Node>>;

/// How deep actions and parentheses may nest.
const DEEPEST: usize = 100;

/// Parses a whole template.
pub(super) fn parse(text: &str) -> Result<(Vec<Node>, Defined), TemplateError> {
    let parts = lex::parts(text)?;
    let mut parser = Parser { text, parts: &parts, next: 0, defined: BTreeMap::new(), variables: vec!["$".into()], loops: 0, depth: 0 };
    let (nodes, end) = parser.list()?;
    match end {
        End::Eof => Ok((nodes, parser.defined)),
        End::Closed => Err(parser.fail(0, "unexpected {{end}}")),
        End::Else(..) => Err(parser.fail(0, "unexpected {{else}}")),
    }
}

struct Parser<'a> {
    text: &'a str,
    parts: &'a [Part],
    next: usize,
    defined: Defined,
    variables: Vec<String>,
    loops: usize,
    depth: usize,
}

/// What a list of nodes stopped at.
enum End<'a> {
    Eof,
    Closed,
    Else(&'a [Token]),
}

impl<'a> Parser<'a> {
    fn fail(&self, at: usize, message: &str) -> TemplateError {
        TemplateError(format!("template: :{}: {message}", lex::line(self.text, at)))
    }

    fn list(&mut self) -> Result<(Vec<Node>, End<'a>), TemplateError> {
        let mut nodes = Vec::new();
        while let Some(part) = self.parts.get(self.next) {
            self.next += 1;
            let tokens = match part {
                Part::Text(text) => {
                    nodes.push(Node::Text(text.clone()));
                    continue;
                }
                Part::Action(tokens) => tokens,
            };
            let Some(first) = tokens.first() else { return Err(self.fail(0, "missing value for command")) };
            let word = if let Kind::Word(word) = &first.kind { word.as_str() } else { "" };
            match word {
                "end" => return Ok((nodes, End::Closed)),
                "else" => return Ok((nodes, End::Else(&tokens[1..]))),
                "if" | "with" | "range" => {
                    let node = self.block(word, first.at, &tokens[1..])?;
                    nodes.push(node);
                }
                "break" | "continue" if tokens.len() == 1 => {
                    if self.loops == 0 {
                        return Err(self.fail(first.at, &format!("{{{{{word}}}}} outside {{{{range}}}}")));
                    }
                    nodes.push(if word == "break" { Node::Break } else { Node::Continue });
                }
                "define" => self.define(first.at, &tokens[1..])?,
                "template" | "block" => {
                    let node = self.template(word, first.at, &tokens[1..])?;
                    nodes.push(node);
                }
                _ => nodes.push(Node::Action(self.pipe(tokens)?)),
            }
        }
        Ok((nodes, End::Eof))
    }

    /// `if`, `with` or `range` with all that follows up to its `end`.
    fn block(&mut self, word: &str, at: usize, tokens: &'a [Token]) -> Result<Node, TemplateError> {
        self.depth += 1;
        if self.depth > DEEPEST {
            return Err(self.fail(at, "nested too deeply"));
        }
        let known = self.variables.len();
        if tokens.is_empty() {
            return Err(self.fail(at, &format!("missing value for {word}")));
        }
        let pipe = self.pipe(tokens)?;
        self.loops += usize::from(word == "range");
        let (body, end) = self.list()?;
        let otherwise = match end {
            End::Eof => return Err(self.fail(self.text.len(), "unexpected EOF")),
            End::Closed => Vec::new(),
            End::Else([]) => match self.list()? {
                (nodes, End::Closed) => nodes,
                (_, End::Eof) => return Err(self.fail(self.text.len(), "unexpected EOF")),
                (_, End::Else(_)) => return Err(self.fail(at, "expected end; found {{else}}")),
            },
            End::Else(rest) => match &rest[0].kind {
                // `else if` and `else with` share the `end`.
                Kind::Word(next) if (next == "if" || next == "with") && next == word => {
                    vec![self.block(next, rest[0].at, &rest[1..])?]
                }
                _ => return Err(self.fail(at, "unexpected token in {{else}}")),
            },
        };
        self.loops -= usize::from(word == "range");
        self.variables.truncate(known);
        self.depth -= 1;
        Ok(match word {
            "if" => Node::If { pipe, body, otherwise },
            "with" => Node::With { pipe, body, otherwise },
            _ => Node::Range { pipe, body, otherwise },
        })
    }

    fn define(&mut self, at: usize, tokens: &[Token]) -> Result<(), TemplateError> {
        let [Token { kind: Kind::Text(name), .. }] = tokens else {
            return Err(self.fail(at, "unexpected token in define clause"));
        };
        let body = self.body(at)?;
        self.defined.insert(name.clone(), body);
        Ok(())
    }

    /// A list of its own up to `end`: only `$` is known in it.
    fn body(&mut self, at: usize) -> Result<Vec<Node>, TemplateError> {
        self.depth += 1;
        if self.depth > DEEPEST {
            return Err(self.fail(at, "nested too deeply"));
        }
        let variables = std::mem::replace(&mut self.variables, vec!["$".into()]);
        let loops = std::mem::take(&mut self.loops);
        let (nodes, end) = self.list()?;
        (self.variables, self.loops) = (variables, loops);
        self.depth -= 1;
        match end {
            End::Closed => Ok(nodes),
            End::Eof => Err(self.fail(self.text.len(), "unexpected EOF")),
            End::Else(_) => Err(self.fail(at, "unexpected {{else}}")),
        }
    }

    fn template(&mut self, word: &str, at: usize, tokens: &[Token]) -> Result<Node, TemplateError> {
        let Some((Token { kind: Kind::Text(name), .. }, rest)) = tokens.split_first() else {
            return Err(self.fail(at, &format!("unexpected token in {word} clause")));
        };
        let pipe = if rest.is_empty() { None } else { Some(self.pipe(rest)?) };
        if word == "block" {
            if pipe.is_none() {
                return Err(self.fail(at, "missing value for block clause"));
            }
            let body = self.body(at)?;
            self.defined.insert(name.clone(), body);
        }
        Ok(Node::Template { name: name.clone(), pipe, place: self.place(at, tokens.last()) })
    }

    fn place(&self, at: usize, last: Option<&Token>) -> Place {
        let end = last.map_or(at, |token| token.at + self.length(token));
        let start = self.text[..at.min(self.text.len())].rfind('\n').map_or(0, |newline| newline + 1);
        Place { line: lex::line(self.text, at), column: at - start, text: self.text.get(at..end).unwrap_or_default().to_owned() }
    }

    /// Bytes of a token; texts are looked up because escapes make them longer.
    fn length(&self, token: &Token) -> usize {
        match &token.kind {
            Kind::Field(name) => name.len() + 1,
            Kind::Variable(name) | Kind::Word(name) => name.len(),
            Kind::Declare => 2,
            Kind::Text(_) | Kind::Int(_) | Kind::Float(_) => {
                let rest = &self.text[token.at..];
                let quote = rest.chars().next().filter(|first| matches!(first, '"' | '`' | '\''));
                let end = match quote {
                    Some(quote) => rest[1..].find(quote).map(|end| end + 2),
                    None => rest.find(|character: char| !character.is_alphanumeric() && !matches!(character, '.' | '+' | '-' | '_')),
                };
                end.unwrap_or(rest.len())
            }
            _ => 1,
        }
    }

    fn pipe(&mut self, tokens: &[Token]) -> Result<Pipe, TemplateError> {
        self.depth += 1;
        if self.depth > DEEPEST {
            return Err(self.fail(0, "nested too deeply"));
        }
        let (variables, assigns, rest) = self.declarations(tokens)?;
        let mut commands = Vec::new();
        for (index, words) in split(rest).into_iter().enumerate() {
            let at = words.first().or(tokens.first()).map_or(0, |token| token.at);
            if words.is_empty() {
                return Err(self.fail(at, "missing value for command"));
            }
            let operands = self.operands(words)?;
            let literal = matches!(operands[0].base, Base::Nil | Base::Bool(_) | Base::Int(_) | Base::Float(_) | Base::Text(_));
            if index > 0 && literal {
                return Err(self.fail(at, &format!("non executable command in pipeline stage {}", index + 1)));
            }
            commands.push(Command { operands, place: self.place(at, words.last()) });
        }
        if !assigns {
            self.variables.extend(variables.iter().cloned());
        }
        self.depth -= 1;
        Ok(Pipe { variables, assigns, commands })
    }

    /// `$x :=`, `$k, $v :=`, `$x =`.
    fn declarations<'t>(&self, tokens: &'t [Token]) -> Result<(Vec<String>, bool, &'t [Token]), TemplateError> {
        match tokens {
            [Token { kind: Kind::Variable(name), .. }, Token { kind: Kind::Declare, .. }, rest @ ..] => {
                Ok((vec![name.clone()], false, rest))
            }
            [Token { kind: Kind::Variable(name), at, .. }, Token { kind: Kind::Assign, .. }, rest @ ..] => {
                if !self.variables.contains(name) {
                    return Err(self.fail(*at, &format!("undefined variable {}", crate::quote(name))));
                }
                Ok((vec![name.clone()], true, rest))
            }
            [
                Token { kind: Kind::Variable(key), .. },
                Token { kind: Kind::Comma, .. },
                Token { kind: Kind::Variable(value), .. },
                Token { kind, .. },
                rest @ ..,
            ] if matches!(kind, Kind::Declare | Kind::Assign) => Ok((vec![key.clone(), value.clone()], *kind == Kind::Assign, rest)),
            _ => Ok((Vec::new(), false, tokens)),
        }
    }

    fn operands(&mut self, words: &[Token]) -> Result<Vec<Operand>, TemplateError> {
        let mut operands: Vec<Operand> = Vec::new();
        let mut index = 0;
        while let Some(token) = words.get(index) {
            let start = index;
            index += 1;
            let mut fields = Vec::new();
            let base = match &token.kind {
                Kind::Dot => Base::Dot,
                Kind::Field(name) => {
                    fields.push(name.clone());
                    Base::Dot
                }
                Kind::Variable(name) => {
                    if !self.variables.contains(name) {
                        return Err(self.fail(token.at, &format!("undefined variable {}", crate::quote(name))));
                    }
                    Base::Variable(name.clone())
                }
                Kind::Word(word) => self.word(word, token.at)?,
                Kind::Text(text) => Base::Text(text.clone()),
                Kind::Int(number) => Base::Int(*number),
                Kind::Float(number) => Base::Float(*number),
                Kind::Open => {
                    let length = matching(&words[index..]).ok_or_else(|| self.fail(token.at, "unclosed left paren"))?;
                    let pipe = self.pipe(&words[index..index + length])?;
                    if pipe.commands.is_empty() {
                        return Err(self.fail(token.at, "missing value for parenthesized pipeline"));
                    }
                    index += length + 1;
                    Base::Pipe(Box::new(pipe))
                }
                Kind::Pipe | Kind::Close | Kind::Declare | Kind::Assign | Kind::Comma => {
                    let text = &self.place(token.at, Some(token)).text;
                    return Err(self.fail(token.at, &format!("unexpected {} in operand", crate::quote(text))));
                }
            };
            while let Some(Token { kind: Kind::Field(name), spaced: false, .. }) = words.get(index) {
                if matches!(base, Base::Nil | Base::Bool(_) | Base::Int(_) | Base::Float(_) | Base::Text(_)) {
                    return Err(
                        self.fail(token.at, &format!("unexpected . after term {}", crate::quote(&self.place(token.at, Some(token)).text)))
                    );
                }
                fields.push(name.clone());
                index += 1;
            }
            let place = self.operand_place(&base, &words[start..index]);
            operands.push(Operand { base, fields, place });
        }
        Ok(operands)
    }

    /// Go reports the last field of a chain: the column is that of its dot, the text is the whole chain.
    fn operand_place(&self, base: &Base, words: &[Token]) -> Place {
        let whole = self.place(words[0].at, words.last());
        match (base, words.last()) {
            (Base::Dot | Base::Variable(_), Some(last)) if words.len() > 1 => Place { text: whole.text, ..self.place(last.at, Some(last)) },
            _ => whole,
        }
    }

    fn word(&self, word: &str, at: usize) -> Result<Base, TemplateError> {
        match word {
            "true" => Ok(Base::Bool(true)),
            "false" => Ok(Base::Bool(false)),
            "nil" => Ok(Base::Nil),
            "if" | "else" | "end" | "range" | "with" | "define" | "block" | "template" => {
                Err(self.fail(at, &format!("unexpected <{word}> in operand")))
            }
            _ if function::exists(word) => Ok(Base::Function(word.to_owned())),
            _ => Err(self.fail(at, &format!("function {} not defined", crate::quote(word)))),
        }
    }
}

/// Splits at the pipes outside of parentheses.
fn split(tokens: &[Token]) -> Vec<&[Token]> {
    let mut out = Vec::new();
    let (mut start, mut depth) = (0, 0_usize);
    for (index, token) in tokens.iter().enumerate() {
        match token.kind {
            Kind::Open => depth += 1,
            Kind::Close => depth = depth.saturating_sub(1),
            Kind::Pipe if depth == 0 => {
                out.push(&tokens[start..index]);
                start = index + 1;
            }
            _ => {}
        }
    }
    out.push(&tokens[start..]);
    out
}

/// How many tokens stand before the parenthesis that closes.
fn matching(tokens: &[Token]) -> Option<usize> {
    let mut depth = 0_usize;
    for (index, token) in tokens.iter().enumerate() {
        match token.kind {
            Kind::Open => depth += 1,
            Kind::Close if depth == 0 => return Some(index),
            Kind::Close => depth -= 1,
            _ => {}
        }
    }
    None
}
