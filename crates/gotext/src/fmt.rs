//! Go's `fmt`: `%v` and its relatives.

use crate::value::Value;

/// `fmt.Sprint` of one operand.
pub(crate) fn plain(value: &Value) -> String {
    match value {
        Value::Nil => "<nil>".into(),
        Value::Missing => "<no value>".into(),
        other => nested(other, false),
    }
}

/// `%v`, with field names when `plus`.
fn nested(value: &Value, plus: bool) -> String {
    match value {
        Value::Nil | Value::Missing => "<nil>".into(),
        Value::Bool(truth) => truth.to_string(),
        Value::Int(number) => number.to_string(),
        Value::Float(number) => general(*number),
        Value::Text(text) => text.clone(),
        Value::List(list) => format!("[{}]", list.iter().map(|item| nested(item, plus)).collect::<Vec<_>>().join(" ")),
        Value::Map(map) => {
            format!("map[{}]", map.iter().map(|(key, item)| format!("{key}:{}", nested(item, plus))).collect::<Vec<_>>().join(" "))
        }
        Value::Record(record) => {
            let fields = record
                .printed
                .as_ref()
                .unwrap_or(&record.fields)
                .iter()
                .map(|(key, item)| if plus { format!("{key}:{}", nested(item, plus)) } else { nested(item, plus) });
            format!("{{{}}}", fields.collect::<Vec<_>>().join(" "))
        }
    }
}

/// `%v` of a float: `%g` with an exponent from 21 digits on.
pub(crate) fn general(number: f64) -> String {
    exponent_or_plain(number, 21)
}

/// The shortest text that reads back as the same number, as Go's JSON writes it.
pub(crate) fn shortest(number: f64) -> String {
    exponent_or_plain(number, 21)
}

fn exponent_or_plain(number: f64, limit: i32) -> String {
    if number.is_nan() {
        return "NaN".into();
    }
    if number.is_infinite() {
        return if number > 0.0 { "+Inf".into() } else { "-Inf".into() };
    }
    let scientific = format!("{number:e}");
    let (digits, exponent) = scientific.split_once('e').unwrap_or((&scientific, "0"));
    let exponent: i32 = exponent.parse().unwrap_or(0);
    if exponent < -4 || exponent >= limit { format!("{digits}e{exponent:+03}") } else { format!("{number}") }
}

/// `%q`.
pub(crate) fn quote(text: &str) -> String {
    let mut out = String::from("\"");
    for character in text.chars() {
        match character {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            '\u{7}' => out.push_str("\\a"),
            '\u{8}' => out.push_str("\\b"),
            '\u{b}' => out.push_str("\\v"),
            '\u{c}' => out.push_str("\\f"),
            control if u32::from(control) < 0x20 || u32::from(control) == 0x7f => out.push_str(&format!("\\x{:02x}", u32::from(control))),
            other => out.push(other),
        }
    }
    out.push('"');
    out
}

/// `fmt.Sprint`: a space between two operands when neither is a text.
pub(crate) fn sprint(values: &[Value]) -> String {
    let mut out = String::new();
    for (index, value) in values.iter().enumerate() {
        let texts = matches!(value, Value::Text(_)) || index == 0 || matches!(values[index - 1], Value::Text(_));
        out.push_str(if texts { "" } else { " " });
        out.push_str(&nested(value, false));
    }
    out
}

/// `fmt.Sprintln`.
pub(crate) fn sprintln(values: &[Value]) -> String {
    values.iter().map(|value| nested(value, false)).collect::<Vec<_>>().join(" ") + "\n"
}

/// The flags of a verb.
#[derive(Debug, Default, Clone)]
struct Flags {
    minus: bool,
    plus: bool,
    sharp: bool,
    space: bool,
    zero: bool,
    width: Option<usize>,
    precision: Option<usize>,
}

/// Widest a field may be made: a format is not a way to fill the memory.
const MAX_WIDTH: usize = 100_000;

/// `fmt.Sprintf`.
pub(crate) fn sprintf(format: &str, values: &[Value]) -> String {
    let mut out = String::new();
    let mut characters = format.chars().peekable();
    let mut next = 0;
    while let Some(character) = characters.next() {
        if character != '%' {
            out.push(character);
            continue;
        }
        let mut flags = Flags::default();
        while let Some(flag) = characters.peek().copied() {
            match flag {
                '-' => flags.minus = true,
                '+' => flags.plus = true,
                '#' => flags.sharp = true,
                ' ' => flags.space = true,
                '0' => flags.zero = true,
                _ => break,
            }
            characters.next();
        }
        flags.width = number(&mut characters, values, &mut next);
        if characters.peek() == Some(&'.') {
            characters.next();
            flags.precision = number(&mut characters, values, &mut next).or(Some(0));
        }
        let Some(verb) = characters.next() else {
            out.push_str("%!(NOVERB)");
            break;
        };
        if verb == '%' {
            out.push('%');
            continue;
        }
        let Some(value) = values.get(next) else {
            out.push_str(&format!("%!{verb}(MISSING)"));
            continue;
        };
        next += 1;
        out.push_str(&one(verb, &flags, value));
    }
    if next < values.len() {
        let shown = |value: &Value| match value {
            Value::Nil | Value::Missing => "<nil>".to_owned(),
            other => format!("{}={}", other.type_name(), nested(other, false)),
        };
        let extra: Vec<String> = values[next..].iter().map(shown).collect();
        out.push_str(&format!("%!(EXTRA {})", extra.join(", ")));
    }
    out
}

/// A width: digits, or `*` for the next operand.
fn number(characters: &mut std::iter::Peekable<std::str::Chars<'_>>, values: &[Value], next: &mut usize) -> Option<usize> {
    if characters.peek() == Some(&'*') {
        characters.next();
        let value = values.get(*next);
        *next += 1;
        return match value {
            Some(Value::Int(number)) => usize::try_from(*number).ok().map(|number| number.min(MAX_WIDTH)),
            _ => None,
        };
    }
    let mut found = None;
    while let Some(digit) = characters.peek().and_then(|digit| digit.to_digit(10)) {
        found = Some((found.unwrap_or(0_usize) * 10 + digit as usize).min(MAX_WIDTH));
        characters.next();
    }
    found
}

fn one(verb: char, flags: &Flags, value: &Value) -> String {
    match (verb, value) {
        ('T', _) => padded(cut(value.type_name(), flags), flags, false),
        // A plus means names of fields here, and not a sign.
        ('v', Value::Int(number)) => integer(*number, 'd', &Flags { plus: false, ..flags.clone() }),
        ('v', Value::Float(number)) => float(*number, 'g', &Flags { plus: false, ..flags.clone() }),
        ('v', Value::Text(text)) if flags.sharp => padded(quote(text), flags, false),
        ('v', Value::Text(text)) => padded(cut(text, flags), flags, false),
        ('v', Value::Nil | Value::Missing | Value::Bool(_) | Value::Record(_)) => padded(nested(value, flags.plus), flags, false),
        ('t', Value::Bool(truth)) => padded(truth.to_string(), flags, false),
        ('d' | 'b' | 'o' | 'x' | 'X' | 'c' | 'U', Value::Int(number)) => integer(*number, verb, flags),
        ('q', Value::Int(number)) => padded(format!("'{}'", character_of(*number)), flags, false),
        ('e' | 'E' | 'f' | 'F' | 'g' | 'G', Value::Float(number)) => float(*number, verb, flags),
        ('s', Value::Text(text)) => padded(cut(text, flags), flags, false),
        ('q', Value::Text(text)) => padded(quote(&cut(text, flags)), flags, false),
        ('x' | 'X', Value::Text(text)) => padded(hexadecimal(&cut(text, flags), verb, flags), flags, false),
        (_, Value::List(list)) => {
            format!("[{}]", list.iter().map(|item| one(verb, flags, item)).collect::<Vec<_>>().join(" "))
        }
        (_, Value::Map(map)) => {
            let pairs = map.iter().map(|(key, item)| format!("{}:{}", one(verb, flags, &Value::Text(key.clone())), one(verb, flags, item)));
            format!("map[{}]", pairs.collect::<Vec<_>>().join(" "))
        }
        (_, Value::Nil | Value::Missing) => format!("%!{verb}(<nil>)"),
        // Flags, width and precision hold for the value in the complaint too.
        (_, other) => format!("%!{verb}({}={})", other.type_name(), one(plain_verb(other), flags, other)),
    }
}

/// The verb that `%v` stands for.
fn plain_verb(value: &Value) -> char {
    match value {
        Value::Int(_) => 'd',
        Value::Float(_) => 'g',
        Value::Text(_) => 's',
        Value::Bool(_) => 't',
        _ => 'v',
    }
}

/// A text cut to the precision, counted in characters.
fn cut(text: &str, flags: &Flags) -> String {
    flags.precision.map_or_else(|| text.to_owned(), |most| text.chars().take(most).collect())
}

fn hexadecimal(text: &str, verb: char, flags: &Flags) -> String {
    let bytes = text.bytes().map(|byte| if verb == 'x' { format!("{byte:02x}") } else { format!("{byte:02X}") });
    bytes.collect::<Vec<_>>().join(if flags.space { " " } else { "" })
}

fn character_of(number: i64) -> char {
    u32::try_from(number).ok().and_then(char::from_u32).unwrap_or('\u{fffd}')
}

fn integer(number: i64, verb: char, flags: &Flags) -> String {
    let size = number.unsigned_abs();
    let (prefix, digits) = match verb {
        'b' => (if flags.sharp { "0b" } else { "" }, format!("{size:b}")),
        'o' => (if flags.sharp { "0" } else { "" }, format!("{size:o}")),
        'x' => (if flags.sharp { "0x" } else { "" }, format!("{size:x}")),
        'X' => (if flags.sharp { "0X" } else { "" }, format!("{size:X}")),
        'c' => return padded(character_of(number).to_string(), flags, false),
        'U' => return padded(format!("U+{size:04X}"), flags, false),
        _ => ("", size.to_string()),
    };
    let digits = flags.precision.map_or_else(|| digits.clone(), |least| format!("{digits:0>least$}"));
    let sign = sign_of(number < 0, flags);
    signed(sign, prefix, &digits, flags)
}

fn sign_of(negative: bool, flags: &Flags) -> &'static str {
    match (negative, flags.plus, flags.space) {
        (true, ..) => "-",
        (_, true, _) => "+",
        (_, _, true) => " ",
        _ => "",
    }
}

/// Sign, prefix and digits, filled with zeros between them where asked.
fn signed(sign: &str, prefix: &str, digits: &str, flags: &Flags) -> String {
    if flags.zero && !flags.minus && flags.precision.is_none_or(|_| digits.contains('.')) {
        let fill = flags.width.unwrap_or(0).saturating_sub(sign.len() + prefix.len() + digits.len());
        return format!("{sign}{prefix}{}{digits}", "0".repeat(fill));
    }
    padded(format!("{sign}{prefix}{digits}"), flags, true)
}

fn float(number: f64, verb: char, flags: &Flags) -> String {
    let size = number.abs();
    let digits = match verb {
        'e' | 'E' => {
            let text = format!("{size:.*e}", flags.precision.unwrap_or(6));
            let (digits, exponent) = text.split_once('e').unwrap_or((&text, "0"));
            format!("{digits}{verb}{:+03}", exponent.parse::<i32>().unwrap_or(0))
        }
        'g' | 'G' => flags.precision.map_or_else(|| general(size), |digits| significant(size, digits)),
        _ => format!("{size:.*}", flags.precision.unwrap_or(6)),
    };
    signed(sign_of(number.is_sign_negative(), flags), "", &digits, flags)
}

/// `%.Ng`: so many significant digits, trailing zeros away.
pub(crate) fn significant(number: f64, digits: usize) -> String {
    let digits = digits.max(1);
    let scientific = format!("{number:.*e}", digits - 1);
    let (mantissa, exponent) = scientific.split_once('e').unwrap_or((&scientific, "0"));
    let exponent: i32 = exponent.parse().unwrap_or(0);
    let trim = |text: &str| if text.contains('.') { text.trim_end_matches('0').trim_end_matches('.').to_owned() } else { text.to_owned() };
    if exponent < -4 || exponent >= i32::try_from(digits).unwrap_or(i32::MAX) {
        return format!("{}e{exponent:+03}", trim(mantissa));
    }
    let places = usize::try_from(i32::try_from(digits).unwrap_or(i32::MAX) - 1 - exponent).unwrap_or(0);
    trim(&format!("{number:.places$}"))
}

fn padded(text: String, flags: &Flags, _number: bool) -> String {
    let missing = flags.width.unwrap_or(0).saturating_sub(text.chars().count());
    if missing == 0 {
        return text;
    }
    if flags.minus { text + &" ".repeat(missing) } else { (if flags.zero { "0" } else { " " }).repeat(missing) + &text }
}
