//! `--mount type=…,source=…,target=…`.

use sampan_wire::{Json, object};

/// Checks a mount while flags are read.
pub(crate) fn check(value: &str) -> Result<String, String> {
    parse(value).map(|_| value.to_owned())
}

/// What is read of one mount.
#[derive(Debug, Default)]
struct Mount {
    kind: String,
    source: String,
    target: String,
    read_only: bool,
    consistency: String,
    bind: Vec<(String, Json)>,
    volume: Vec<(String, Json)>,
    labels: Vec<(String, Json)>,
    driver: String,
    driver_options: Vec<(String, Json)>,
    image: Vec<(String, Json)>,
    tmpfs: Vec<(String, Json)>,
}

/// The engine's form of a mount.
///
/// # Errors
/// Docker's texts.
pub(crate) fn parse(value: &str) -> Result<Json, String> {
    let mut mount = Mount { kind: "volume".into(), ..Mount::default() };
    for field in fields(value)? {
        let (key, given) = field.split_once('=').map_or((field.as_str(), None), |(key, value)| (key, Some(value)));
        mount.set(&key.to_lowercase(), given, &field)?;
    }
    mount.finish()
}

/// Fields with commas between; a field may stand in quotes, as in CSV.
fn fields(value: &str) -> Result<Vec<String>, String> {
    if value.is_empty() {
        return Err("EOF".into());
    }
    let mut out = Vec::new();
    let mut rest = value;
    loop {
        if let Some(quoted) = rest.strip_prefix('"') {
            let mut field = String::new();
            let mut inner = quoted;
            loop {
                let end = inner.find('"').ok_or("parse error on line 1: extraneous or missing \" in quoted-field")?;
                field.push_str(&inner[..end]);
                inner = &inner[end + 1..];
                let Some(more) = inner.strip_prefix('"') else { break };
                field.push('"');
                inner = more;
            }
            out.push(field);
            match inner.strip_prefix(',') {
                Some(next) => rest = next,
                None if inner.is_empty() => return Ok(out),
                None => return Err("parse error on line 1: extraneous or missing \" in quoted-field".into()),
            }
        } else {
            let (field, next) = rest.split_once(',').map_or((rest, None), |(field, next)| (field, Some(next)));
            out.push(field.to_owned());
            let Some(next) = next else { return Ok(out) };
            rest = next;
        }
    }
}

impl Mount {
    fn set(&mut self, key: &str, given: Option<&str>, field: &str) -> Result<(), String> {
        let truth = || match given {
            None | Some("true" | "1") => Ok(true),
            Some("false" | "0") => Ok(false),
            Some(other) => Err(format!("invalid value for {key}: {other}")),
        };
        // Switches may stand without a value.
        match key {
            "readonly" | "ro" => {
                self.read_only = truth()?;
                return Ok(());
            }
            "volume-nocopy" => {
                self.volume.push(("NoCopy".into(), truth()?.into()));
                return Ok(());
            }
            "bind-nonrecursive" => {
                self.bind.push(("NonRecursive".into(), truth()?.into()));
                return Ok(());
            }
            "bind-create-src" => {
                self.bind.push(("CreateMountpoint".into(), truth()?.into()));
                return Ok(());
            }
            _ => {}
        }
        let value = given.ok_or_else(|| format!("invalid field '{field}' must be a key=value pair"))?;
        match key {
            "type" => self.kind = value.to_lowercase(),
            "source" | "src" => value.clone_into(&mut self.source),
            "target" | "dst" | "destination" => value.clone_into(&mut self.target),
            "consistency" => self.consistency = value.to_lowercase(),
            "bind-propagation" => self.bind.push(("Propagation".into(), value.to_lowercase().into())),
            "bind-recursive" => self.set_recursive(value)?,
            "volume-subpath" => self.volume.push(("Subpath".into(), value.into())),
            "volume-label" => self.labels.push(pair(value)),
            "volume-driver" => value.clone_into(&mut self.driver),
            "volume-opt" => self.driver_options.push(pair(value)),
            "image-subpath" => self.image.push(("Subpath".into(), value.into())),
            "tmpfs-size" => {
                let size = sampan_gotext::units::parse_binary_size(value).map_err(|_| format!("invalid value for {key}: {value}"))?;
                self.tmpfs.push(("SizeBytes".into(), size.into()));
            }
            "tmpfs-mode" => {
                let mode = u32::from_str_radix(value, 8).map_err(|_| format!("invalid value for {key}: {value}"))?;
                self.tmpfs.push(("Mode".into(), mode.into()));
            }
            _ => return Err(format!("unexpected key '{key}' in '{field}'")),
        }
        Ok(())
    }

    fn set_recursive(&mut self, value: &str) -> Result<(), String> {
        match value {
            "enabled" => {}
            "disabled" => self.bind.push(("NonRecursive".into(), true.into())),
            "writable" => self.bind.push(("ReadOnlyNonRecursive".into(), true.into())),
            "readonly" => self.bind.push(("ReadOnlyForceRecursive".into(), true.into())),
            other => {
                return Err(format!(
                    "invalid value for bind-recursive: {other} (must be \"enabled\", \"disabled\", \"writable\", or \"readonly\")"
                ));
            }
        }
        Ok(())
    }

    fn finish(mut self) -> Result<Json, String> {
        if self.kind.is_empty() {
            return Err("type is required".into());
        }
        if self.target.is_empty() {
            return Err("target is required".into());
        }
        let has_volume = !self.volume.is_empty() || !self.labels.is_empty() || !self.driver.is_empty() || !self.driver_options.is_empty();
        for (given, kind) in
            [(has_volume, "volume"), (!self.bind.is_empty(), "bind"), (!self.image.is_empty(), "image"), (!self.tmpfs.is_empty(), "tmpfs")]
        {
            if given && self.kind != kind {
                return Err(format!("cannot mix '{kind}-*' options with mount type '{}'", self.kind));
            }
        }
        if self.kind == "bind" && self.source.starts_with('.') {
            let here = std::env::current_dir().map_err(|error| error.to_string())?;
            self.source = clean(&here.join(&self.source));
        }
        let mut out = vec![("Type".to_owned(), Json::from(self.kind.as_str()))];
        if !self.source.is_empty() {
            out.push(("Source".into(), self.source.as_str().into()));
        }
        out.push(("Target".into(), self.target.as_str().into()));
        if self.read_only {
            out.push(("ReadOnly".into(), true.into()));
        }
        if !self.consistency.is_empty() {
            out.push(("Consistency".into(), self.consistency.as_str().into()));
        }
        if has_volume {
            let mut volume = self.volume;
            volume.push(("Labels".into(), Json::Object(self.labels)));
            if !self.driver.is_empty() || !self.driver_options.is_empty() {
                volume.push(("DriverConfig".into(), object! { "Name": self.driver, "Options": Json::Object(self.driver_options) }));
            }
            out.push(("VolumeOptions".into(), Json::Object(volume)));
        }
        for (name, options) in [("BindOptions", self.bind), ("ImageOptions", self.image), ("TmpfsOptions", self.tmpfs)] {
            if !options.is_empty() {
                out.push((name.into(), Json::Object(options)));
            }
        }
        Ok(Json::Object(out))
    }
}

/// `key=value` as a pair.
fn pair(text: &str) -> (String, Json) {
    let (key, value) = text.split_once('=').unwrap_or((text, ""));
    (key.to_owned(), value.into())
}

/// A path without `.` and `..`.
pub(crate) fn clean(path: &std::path::Path) -> String {
    let mut out = std::path::PathBuf::new();
    for part in path.components() {
        match part {
            std::path::Component::ParentDir => drop(out.pop()),
            std::path::Component::CurDir => {}
            other => out.push(other),
        }
    }
    out.display().to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mounts_are_read() {
        let shown = |value: &str| parse(value).map(|mount| mount.print());
        assert_eq!(
            shown("type=bind,src=/a,dst=/b,readonly,bind-propagation=rslave").as_deref(),
            Ok(r#"{"Type":"bind","Source":"/a","Target":"/b","ReadOnly":true,"BindOptions":{"Propagation":"rslave"}}"#)
        );
        assert_eq!(
            shown("type=tmpfs,target=/t,tmpfs-size=1m,tmpfs-mode=700").as_deref(),
            Ok(r#"{"Type":"tmpfs","Target":"/t","TmpfsOptions":{"SizeBytes":1048576,"Mode":448}}"#)
        );
        assert_eq!(shown("\"source=a,b\",target=/x").as_deref(), Ok(r#"{"Type":"volume","Source":"a,b","Target":"/x"}"#));
        for (value, error) in [
            ("x", "invalid field 'x' must be a key=value pair"),
            ("type=bind", "target is required"),
            ("type=bind,foo=1", "unexpected key 'foo' in 'foo=1'"),
            ("type=bind,target=/x,volume-nocopy", "cannot mix 'volume-*' options with mount type 'bind'"),
            ("target=/x,readonly=maybe", "invalid value for readonly: maybe"),
        ] {
            assert_eq!(shown(value).unwrap_err(), error);
        }
    }
}
