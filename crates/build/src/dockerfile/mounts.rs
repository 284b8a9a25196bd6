//! `RUN --mount=…`: a line of CSV with options. `from` is fixed; everything else may have variables and is read at its turn.

use super::words::with_suggestion;

/// A mount as written, its variables expanded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct MountOptions {
    pub(crate) kind: String,
    pub(crate) from: String,
    pub(crate) source: String,
    pub(crate) target: String,
    pub(crate) readonly: bool,
    pub(crate) size: u64,
    pub(crate) id: String,
    pub(crate) sharing: String,
    pub(crate) required: bool,
    pub(crate) env: Option<String>,
    pub(crate) mode: Option<u32>,
    pub(crate) uid: Option<u32>,
    pub(crate) gid: Option<u32>,
}

const KINDS: [&str; 5] = ["bind", "cache", "tmpfs", "secret", "ssh"];
const SHARINGS: [&str; 3] = ["shared", "private", "locked"];
const KEYS: [&str; 19] = [
    "type",
    "from",
    "source",
    "target",
    "readonly",
    "id",
    "sharing",
    "required",
    "size",
    "mode",
    "uid",
    "gid",
    "src",
    "dst",
    "destination",
    "ro",
    "rw",
    "readwrite",
    "env",
];

/// Expands a value.
pub(crate) type Expander<'a> = dyn FnMut(&str) -> Result<String, String> + 'a;

/// The fields of a line of CSV.
fn fields(text: &str) -> Result<Vec<String>, String> {
    let fault = |reason: &str| format!("failed to parse csv mounts: {reason}");
    if text.is_empty() {
        return Err(fault("EOF"));
    }
    let mut out = Vec::new();
    let mut rest = text;
    loop {
        let (field, behind) = if let Some(quoted) = rest.strip_prefix('"') {
            let mut field = String::new();
            let mut characters = quoted.char_indices().peekable();
            let end = loop {
                match characters.next() {
                    None => return Err(fault("parse error on line 1, column 1: extraneous or missing \" in quoted-field")),
                    Some((_, '"')) if characters.peek().is_some_and(|(_, next)| *next == '"') => {
                        characters.next();
                        field.push('"');
                    }
                    Some((at, '"')) => break at + 1,
                    Some((_, character)) => field.push(character),
                }
            };
            (field, &quoted[end..])
        } else {
            let end = rest.find(',').unwrap_or(rest.len());
            if rest[..end].contains('"') {
                return Err(fault("bare \" in non-quoted field"));
            }
            (rest[..end].to_owned(), &rest[end..])
        };
        out.push(field);
        match behind.strip_prefix(',') {
            Some(behind) => rest = behind,
            None if behind.is_empty() => return Ok(out),
            None => return Err(fault("extraneous or missing \" in quoted-field")),
        }
    }
}

/// Checks what can be checked before variables are known.
pub(super) fn check(text: &str) -> Result<(), String> {
    for field in fields(text)? {
        let Some((key, value)) = field.split_once('=') else { continue };
        let variable = value.find('$').is_some_and(|at| at + 1 != value.len());
        if key.eq_ignore_ascii_case("from") && variable {
            return Err(format!("'{}' doesn't support variable expansion, define alias stage instead", key.to_lowercase()));
        }
    }
    Ok(())
}

/// `from` of a mount; empty without.
pub(crate) fn from_of(text: &str) -> String {
    let fields = fields(text).unwrap_or_default();
    let from =
        |field: &String| field.split_once('=').filter(|(key, _)| key.eq_ignore_ascii_case("from")).map(|(_, value)| value.to_owned());
    fields.iter().filter_map(from).next_back().unwrap_or_default()
}

/// Reads a mount.
pub(crate) fn parse(text: &str, expand: &mut Expander<'_>) -> Result<MountOptions, String> {
    let mut mount = MountOptions {
        kind: "bind".to_owned(),
        from: String::new(),
        source: String::new(),
        target: String::new(),
        readonly: false,
        size: 0,
        id: String::new(),
        sharing: String::new(),
        required: false,
        env: None,
        mode: None,
        uid: None,
        gid: None,
    };
    let mut access = None;
    for field in fields(text)? {
        let (key, value) = field.split_once('=').map_or((field.as_str(), None), |(key, value)| (key, Some(value)));
        let key = key.to_lowercase();
        match value {
            None => without_value(&mut mount, &mut access, &key, &field)?,
            Some(value) => with_value(&mut mount, &mut access, &key, &expand(value)?, &field)?,
        }
    }
    consistent(&mount)?;
    mount.readonly = access.unwrap_or(!matches!(mount.kind.as_str(), "cache" | "tmpfs"));
    Ok(mount)
}

fn unexpected(key: &str, kind: &str) -> String {
    format!("unexpected key '{key}' for mount type '{kind}'")
}

fn without_value(mount: &mut MountOptions, access: &mut Option<bool>, key: &str, field: &str) -> Result<(), String> {
    match key {
        "readonly" | "ro" => *access = Some(true),
        "readwrite" | "rw" => *access = Some(false),
        "required" if matches!(mount.kind.as_str(), "secret" | "ssh") => mount.required = true,
        "required" => return Err(unexpected(key, &mount.kind)),
        _ => return Err(format!("invalid field '{field}' must be a key=value pair")),
    }
    Ok(())
}

fn with_value(mount: &mut MountOptions, access: &mut Option<bool>, key: &str, value: &str, field: &str) -> Result<(), String> {
    let invalid = || format!("invalid value for {key}: {value}");
    let number = |radix: u32| {
        let digits = !value.is_empty() && !value.starts_with(['+', '-']);
        u32::from_str_radix(value, radix).ok().filter(|_| digits).ok_or_else(|| format!("invalid value {value} for {key}"))
    };
    match key {
        "type" => {
            mount.kind = value.to_lowercase();
            if !KINDS.contains(&mount.kind.as_str()) {
                let text = format!("unsupported mount type {}", sampan_gotext::quote(value));
                return Err(with_suggestion(text, value, &KINDS, true));
            }
        }
        "from" => value.clone_into(&mut mount.from),
        "source" | "src" => value.clone_into(&mut mount.source),
        "target" | "dst" | "destination" => value.clone_into(&mut mount.target),
        "readonly" | "ro" => *access = Some(truth(value).ok_or_else(invalid)?),
        "readwrite" | "rw" => *access = Some(!truth(value).ok_or_else(invalid)?),
        "required" if matches!(mount.kind.as_str(), "secret" | "ssh") => mount.required = truth(value).ok_or_else(invalid)?,
        "size" if mount.kind == "tmpfs" => {
            let size = sampan_gotext::units::parse_binary_size(value).map_err(|_| invalid())?;
            mount.size = u64::try_from(size).map_err(|_| invalid())?;
        }
        "required" | "size" => return Err(unexpected(key, &mount.kind)),
        "id" => value.clone_into(&mut mount.id),
        "sharing" => {
            mount.sharing = value.to_lowercase();
            if !SHARINGS.contains(&mount.sharing.as_str()) {
                let text = format!("unsupported sharing value {}", sampan_gotext::quote(value));
                return Err(with_suggestion(text, value, &SHARINGS, true));
            }
        }
        "mode" => mount.mode = Some(number(8)?),
        "uid" => mount.uid = Some(number(10)?),
        "gid" => mount.gid = Some(number(10)?),
        "env" => mount.env = Some(value.to_owned()),
        _ => return Err(with_suggestion(format!("unexpected key '{key}' in '{field}'"), key, &KEYS, true)),
    }
    Ok(())
}

fn truth(value: &str) -> Option<bool> {
    match value {
        "1" | "t" | "T" | "true" | "TRUE" | "True" => Some(true),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Some(false),
        _ => None,
    }
}

fn consistent(mount: &MountOptions) -> Result<(), String> {
    let kind = mount.kind.as_str();
    if !matches!(kind, "secret" | "ssh" | "cache") {
        for (name, given) in [("mode", mount.mode), ("uid", mount.uid), ("gid", mount.gid)] {
            if given.is_some() {
                return Err(format!("{name} not allowed for \"{kind}\" type mounts"));
            }
        }
    }
    let fault = |text: &str| Err(text.to_owned());
    if kind == "secret" {
        match mount {
            _ if !mount.from.is_empty() => return fault("secret mount should not have a from"),
            _ if !mount.sharing.is_empty() => return fault("secret mount should not define sharing"),
            _ if mount.source.is_empty() && mount.target.is_empty() && mount.id.is_empty() => {
                return fault("invalid secret mount. one of source, target required");
            }
            _ if !mount.source.is_empty() && !mount.id.is_empty() => return fault("both source and id can't be set"),
            _ => {}
        }
    }
    if !mount.sharing.is_empty() && kind != "cache" {
        return Err(format!("invalid cache sharing set for {kind} mount"));
    }
    Ok(())
}
