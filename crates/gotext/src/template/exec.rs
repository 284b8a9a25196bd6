//! Walks the nodes.

use std::collections::BTreeMap;

use super::function;
use super::parse::{Base, Command, Node, Operand, Pipe, Place};
use super::{Settings, TemplateError};
use crate::Value;

/// Deepest chain of templates that call each other.
const DEEPEST: usize = 200;
/// Most bytes a template may print.
const LARGEST: usize = 64 << 20;

type Result<T> = std::result::Result<T, TemplateError>;

pub(super) fn execute(nodes: &[Node], defined: &BTreeMap<String, Vec<Node>>, settings: &Settings, data: &Value) -> Result<String> {
    let mut run =
        Run { defined, settings, out: String::new(), variables: vec![("$".into(), data.clone())], depth: 0, name: settings.name.clone() };
    run.list(nodes, data)?;
    Ok(run.out)
}

struct Run<'a> {
    defined: &'a BTreeMap<String, Vec<Node>>,
    settings: &'a Settings,
    out: String,
    variables: Vec<(String, Value)>,
    depth: usize,
    name: String,
}

/// Whether a loop goes on.
#[derive(PartialEq)]
enum Flow {
    On,
    Break,
    Continue,
}

impl Run<'_> {
    fn fail(&self, place: &Place, message: &str) -> TemplateError {
        let shown = if place.text.chars().count() > 20 {
            format!("{}...", place.text.chars().take(20).collect::<String>())
        } else {
            place.text.clone()
        };
        TemplateError(format!(
            "template: {}:{}:{}: executing {} at <{shown}>: {message}",
            self.settings.name,
            place.line,
            place.column,
            crate::quote(&self.name)
        ))
    }

    fn list(&mut self, nodes: &[Node], dot: &Value) -> Result<Flow> {
        for node in nodes {
            let flow = self.node(node, dot)?;
            if flow != Flow::On {
                return Ok(flow);
            }
        }
        Ok(Flow::On)
    }

    fn node(&mut self, node: &Node, dot: &Value) -> Result<Flow> {
        match node {
            Node::Text(text) => self.out.push_str(text),
            Node::Action(pipe) => {
                let value = self.pipe(pipe, dot)?;
                if pipe.variables.is_empty() {
                    let text = crate::fmt::plain(&value);
                    if self.out.len() + text.len() > LARGEST {
                        return Err(TemplateError("template: output too long".into()));
                    }
                    self.out.push_str(&text);
                }
            }
            Node::If { pipe, body, otherwise } => {
                let known = self.variables.len();
                let truth = self.pipe(pipe, dot)?.is_true();
                let flow = self.list(if truth { body } else { otherwise }, dot)?;
                self.variables.truncate(known);
                return Ok(flow);
            }
            Node::With { pipe, body, otherwise } => {
                let known = self.variables.len();
                let value = self.pipe(pipe, dot)?;
                let flow = if value.is_true() { self.list(body, &value)? } else { self.list(otherwise, dot)? };
                self.variables.truncate(known);
                return Ok(flow);
            }
            Node::Range { pipe, body, otherwise } => {
                let known = self.variables.len();
                let flow = self.range(pipe, body, otherwise, dot)?;
                self.variables.truncate(known);
                return Ok(flow);
            }
            Node::Template { name, pipe, place } => self.call_template(name, pipe.as_ref(), place, dot)?,
            Node::Break => return Ok(Flow::Break),
            Node::Continue => return Ok(Flow::Continue),
        }
        Ok(Flow::On)
    }

    fn call_template(&mut self, name: &str, pipe: Option<&Pipe>, place: &Place, dot: &Value) -> Result<()> {
        let data = pipe.map_or(Ok(Value::Nil), |pipe| self.pipe(pipe, dot))?;
        let Some(nodes) = self.defined.get(name) else {
            return Err(self.fail(place, &format!("template {} not defined", crate::quote(name))));
        };
        if self.depth >= DEEPEST {
            return Err(self.fail(place, "exceeded maximum template depth"));
        }
        self.depth += 1;
        let variables = std::mem::replace(&mut self.variables, vec![("$".into(), data.clone())]);
        let outer = std::mem::replace(&mut self.name, name.to_owned());
        self.list(nodes, &data)?;
        (self.variables, self.name) = (variables, outer);
        self.depth -= 1;
        Ok(())
    }

    fn range(&mut self, pipe: &Pipe, body: &[Node], otherwise: &[Node], dot: &Value) -> Result<Flow> {
        let plain = Pipe { variables: Vec::new(), assigns: false, commands: pipe.commands.clone() };
        let value = self.pipe(&plain, dot)?;
        let pairs: Vec<(Value, Value)> = match &value {
            Value::List(list) => (0..).map(Value::Int).zip(list.iter().cloned()).collect(),
            Value::Map(map) => map.iter().map(|(key, value)| (Value::Text(key.clone()), value.clone())).collect(),
            Value::Int(count) if pipe.variables.len() > 1 => {
                let place = pipe.commands.first().map(|command| command.place.clone()).unwrap_or_default();
                return Err(self.fail(&place, &format!("can't use {count} to iterate over more than one variable")));
            }
            Value::Int(count) => (0..(*count).clamp(0, 1_000_000)).map(|number| (Value::Int(number), Value::Int(number))).collect(),
            Value::Nil | Value::Missing => Vec::new(),
            other => {
                let place = pipe.commands.first().map(|command| command.place.clone()).unwrap_or_default();
                return Err(self.fail(&place, &format!("range can't iterate over {}", crate::fmt::plain(other))));
            }
        };
        if pairs.is_empty() {
            return self.list(otherwise, dot);
        }
        let known = self.variables.len();
        for (key, value) in pairs {
            match &pipe.variables[..] {
                [] => {}
                [one] => self.set(one, value.clone(), pipe.assigns),
                [first, second, ..] => {
                    self.set(first, key, pipe.assigns);
                    self.set(second, value.clone(), pipe.assigns);
                }
            }
            let flow = self.list(body, &value)?;
            self.variables.truncate(known);
            if flow == Flow::Break {
                break;
            }
        }
        Ok(Flow::On)
    }

    fn set(&mut self, name: &str, value: Value, assigns: bool) {
        if assigns && let Some(slot) = self.variables.iter_mut().rev().find(|(known, _)| known == name) {
            slot.1 = value;
            return;
        }
        self.variables.push((name.to_owned(), value));
    }

    fn pipe(&mut self, pipe: &Pipe, dot: &Value) -> Result<Value> {
        let mut value = None;
        for command in &pipe.commands {
            value = Some(self.command(command, dot, value)?);
        }
        let value = value.unwrap_or(Value::Nil);
        for name in &pipe.variables {
            self.set(name, value.clone(), pipe.assigns);
        }
        Ok(value)
    }

    fn command(&mut self, command: &Command, dot: &Value, piped: Option<Value>) -> Result<Value> {
        let Some((first, rest)) = command.operands.split_first() else { return Ok(Value::Nil) };
        if let Base::Function(name) = &first.base {
            return self.call(name, command, rest, dot, piped, &first.fields);
        }
        if let ([name], Some(owner)) = (rest, self.label_of(first, dot)?) {
            let key = self.operand(name, dot)?;
            let key = key.as_text().unwrap_or_default();
            if self.settings.heads {
                let last = key.rsplit('.').next().unwrap_or(key);
                return Ok(Value::Text(last.replace(['-', '_'], " ")));
            }
            return Ok(Value::Text(owner.get(key).cloned().unwrap_or_default()));
        }
        if !rest.is_empty() || piped.is_some() {
            let what = match &first.base {
                Base::Dot | Base::Variable(_) if !first.fields.is_empty() => {
                    format!("{} has arguments but cannot be invoked as function", first.fields.last().map_or("", String::as_str))
                }
                _ => "can't give argument to non-function ".to_owned() + &first.place.text,
            };
            return Err(self.fail(&first.place, &what));
        }
        if matches!(first.base, Base::Nil) {
            return Err(self.fail(&first.place, "nil is not a command"));
        }
        self.operand(first, dot)
    }

    /// The labels of a record when the operand is its method `Label`.
    fn label_of(&mut self, operand: &Operand, dot: &Value) -> Result<Option<BTreeMap<String, String>>> {
        let Some((last, before)) = operand.fields.split_last() else { return Ok(None) };
        if last != "Label" {
            return Ok(None);
        }
        let owner = Operand { base: operand.base.clone(), fields: before.to_vec(), place: operand.place.clone() };
        match self.operand(&owner, dot)? {
            Value::Record(record) => Ok(record.labels.clone()),
            _ => Ok(None),
        }
    }

    fn call(
        &mut self,
        name: &str,
        command: &Command,
        rest: &[Operand],
        dot: &Value,
        piped: Option<Value>,
        fields: &[String],
    ) -> Result<Value> {
        // These two look at no more operands than they need.
        if matches!(name, "and" | "or") {
            let mut last = None;
            for operand in rest {
                // `nil` becomes no value at all.
                let value = match self.operand(operand, dot)? {
                    Value::Nil => Value::Missing,
                    other => other,
                };
                if value.is_true() == (name == "or") {
                    return Ok(value);
                }
                last = Some(value);
            }
            return piped
                .or(last)
                .ok_or_else(|| self.fail(&command.place, &format!("wrong number of args for {name}: want at least 1 got 0")));
        }
        let mut values = Vec::with_capacity(rest.len() + 1);
        for operand in rest {
            values.push(self.operand(operand, dot)?);
        }
        values.extend(piped);
        if self.settings.heads && matches!(name, "json" | "split" | "join" | "title" | "lower" | "upper" | "truncate") {
            return Ok(values.into_iter().next().unwrap_or(Value::Nil));
        }
        let value = function::call(name, &values).map_err(|error| match error {
            function::Fault::Arguments(message) => self.fail(&command.place, &message),
            function::Fault::Call(message) => self.fail(&command.place, &format!("error calling {name}: {message}")),
        })?;
        self.fields(value, fields, &command.place)
    }

    fn operand(&mut self, operand: &Operand, dot: &Value) -> Result<Value> {
        let value = match &operand.base {
            Base::Dot => dot.clone(),
            Base::Variable(name) => {
                let found = self.variables.iter().rev().find(|(known, _)| known == name);
                found.map(|(_, value)| value.clone()).unwrap_or(Value::Nil)
            }
            Base::Nil => Value::Nil,
            Base::Bool(truth) => Value::Bool(*truth),
            Base::Int(number) => Value::Int(*number),
            Base::Float(number) => Value::Float(*number),
            Base::Text(text) => Value::Text(text.clone()),
            Base::Pipe(pipe) => self.pipe(pipe, dot)?,
            Base::Function(name) => {
                let command = Command { operands: Vec::new(), place: operand.place.clone() };
                return self.call(name, &command, &[], dot, None, &operand.fields);
            }
        };
        self.fields(value, &operand.fields, &operand.place)
    }

    fn fields(&self, mut value: Value, fields: &[String], place: &Place) -> Result<Value> {
        for name in fields {
            value = match &value {
                Value::Map(map) => match map.get(name) {
                    Some(value) => value.clone(),
                    None if self.settings.strict => {
                        return Err(self.fail(place, &format!("map has no entry for key {}", crate::quote(name))));
                    }
                    None => Value::Missing,
                },
                Value::Record(record) => match record.get(name) {
                    Some(value) => value.clone(),
                    None => return Err(self.fail(place, &format!("can't evaluate field {name} in type {}", record.type_name))),
                },
                Value::Missing if self.settings.strict => {
                    return Err(self.fail(place, &format!("nil data; no entry for key {}", crate::quote(name))));
                }
                Value::Missing => Value::Missing,
                Value::Nil => return Err(self.fail(place, &format!("nil pointer evaluating interface {{}}.{name}"))),
                _ => return Err(self.fail(place, &format!("can't evaluate field {name} in type interface {{}}"))),
            };
        }
        Ok(value)
    }
}
