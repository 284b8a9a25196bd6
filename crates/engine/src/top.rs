//! `top`: the processes of a container, read from /proc. Of ps's options `-ef`, `aux` and `-o COLUMNS` are known.

use std::path::Path;

use crate::error::EngineError;

/// What `top` shows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Top {
    /// Column heads.
    pub titles: Vec<String>,
    /// One row a process.
    pub processes: Vec<Vec<String>>,
}

/// The columns a user may ask for: the name given to `-o`, and its head.
const COLUMNS: &[(&str, &str)] = &[
    ("uid", "UID"),
    ("user", "USER"),
    ("euser", "EUSER"),
    ("ruser", "RUSER"),
    ("pid", "PID"),
    ("ppid", "PPID"),
    ("pgid", "PGID"),
    ("sid", "SID"),
    ("c", "C"),
    ("stime", "STIME"),
    ("start", "STARTED"),
    ("tty", "TTY"),
    ("tt", "TT"),
    ("time", "TIME"),
    ("etime", "ELAPSED"),
    ("cmd", "CMD"),
    ("args", "COMMAND"),
    ("command", "COMMAND"),
    ("comm", "COMMAND"),
    ("stat", "STAT"),
    ("s", "S"),
    ("state", "S"),
    ("vsz", "VSZ"),
    ("rss", "RSS"),
    ("%cpu", "%CPU"),
    ("pcpu", "%CPU"),
    ("%mem", "%MEM"),
    ("pmem", "%MEM"),
    ("nlwp", "NLWP"),
    ("ni", "NI"),
    ("pri", "PRI"),
];

/// Which columns ps's arguments ask for: `(name, head)`.
///
/// # Errors
/// [`EngineError::Unsupported`] for options beyond the known ones.
pub(crate) fn columns(arguments: &str) -> Result<Vec<(String, String)>, EngineError> {
    let words: Vec<&str> = arguments.split_whitespace().collect();
    let named = |names: &[&str], heads: &[(&str, &str)]| {
        let head = |name: &str| heads.iter().chain(COLUMNS).find(|(known, _)| *known == name).map_or("", |(_, head)| *head).to_owned();
        names.iter().map(|name| ((*name).to_owned(), head(name))).collect::<Vec<_>>()
    };
    match words[..] {
        [] | ["-ef"] => Ok(named(&["uid", "pid", "ppid", "c", "stime", "tty", "time", "cmd"], &[])),
        ["aux" | "-aux"] => {
            Ok(named(&["user", "pid", "%cpu", "%mem", "vsz", "rss", "tty", "stat", "stime", "time", "command"], &[("stime", "START")]))
        }
        ["-o" | "-eo" | "o", list] => own_columns(list),
        [word] if word.starts_with("-o") || word.starts_with("-eo") => own_columns(&word[word.find('o').map_or(0, |at| at + 1)..]),
        _ => Err(EngineError::Unsupported(format!("not supported: ps options \"{arguments}\" (top knows -ef, aux and -o COLUMNS)"))),
    }
}

fn own_columns(list: &str) -> Result<Vec<(String, String)>, EngineError> {
    let mut found = Vec::new();
    for wish in list.split(',') {
        let (name, own_head) = wish.split_once('=').map_or((wish, None), |(name, head)| (name, Some(head)));
        let name = name.to_ascii_lowercase();
        let Some((_, head)) = COLUMNS.iter().find(|(known, _)| *known == name) else {
            return Err(EngineError::Unsupported(format!("not supported: ps column \"{wish}\"")));
        };
        found.push((name, own_head.unwrap_or(head).to_owned()));
    }
    // As in the original, without a pid column its rows cannot be told apart.
    if found.iter().any(|(name, _)| name == "pid") {
        Ok(found)
    } else {
        Err(EngineError::Invalid("Couldn't find PID field in ps output".into()))
    }
}

/// Reads the rows of some processes; those that ended meanwhile are left out.
pub(crate) fn rows(pids: &[u32], columns: &[(String, String)]) -> Vec<Vec<String>> {
    let host = Host::read();
    let mut sorted = pids.to_vec();
    sorted.sort_unstable();
    sorted
        .into_iter()
        .filter_map(Process::read)
        .map(|process| columns.iter().map(|(name, _)| process.column(name, &host)).collect())
        .collect()
}

/// What percentages and times are computed from.
struct Host {
    uptime: f64,
    memory_kib: f64,
    users: Vec<(u32, String)>,
}

impl Host {
    fn read() -> Self {
        let text = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
        let uptime = text("/proc/uptime").split_whitespace().next().and_then(|word| word.parse().ok()).unwrap_or(0.0);
        let memory = text("/proc/meminfo").lines().find_map(|line| line.strip_prefix("MemTotal:")?.split_whitespace().next()?.parse().ok());
        let user = |line: &str| {
            let mut fields = line.split(':');
            let name = fields.next()?.to_owned();
            Some((fields.nth(1)?.parse().ok()?, name))
        };
        Self { uptime, memory_kib: memory.unwrap_or(1.0), users: text("/etc/passwd").lines().filter_map(user).collect() }
    }
}

/// The facts of one process, from `/proc/PID/stat`, `status` and `cmdline`.
struct Process {
    pid: u32,
    uid: u32,
    name: String,
    command: String,
    stat: Vec<String>,
}

/// The kernel's clock ticks a second in `/proc`; fixed by its interface on every architecture we run on.
const TICKS: f64 = 100.0;

impl Process {
    fn read(pid: u32) -> Option<Self> {
        let folder = Path::new("/proc").join(pid.to_string());
        let stat = std::fs::read_to_string(folder.join("stat")).ok()?;
        // The name stands in parentheses and may contain anything: fields count from the last one.
        let (start, rest) = stat.rsplit_once(')')?;
        let name = start.split_once('(')?.1.to_owned();
        let status = std::fs::read_to_string(folder.join("status")).ok()?;
        let uid = status.lines().find_map(|line| line.strip_prefix("Uid:")?.split_whitespace().nth(1)?.parse().ok())?;
        let line = std::fs::read(folder.join("cmdline")).ok()?;
        let words: Vec<_> = line.split(|byte| *byte == 0).filter(|word| !word.is_empty()).map(String::from_utf8_lossy).collect();
        let command = if words.is_empty() { format!("[{name}]") } else { words.join(" ") };
        Some(Self { pid, uid, name, command, stat: rest.split_whitespace().map(str::to_owned).collect() })
    }

    /// Field `n` of proc(5)'s stat table, counted from 1 as there.
    fn number(&self, field: usize) -> f64 {
        self.stat.get(field - 3).and_then(|text| text.parse().ok()).unwrap_or(0.0)
    }

    fn column(&self, name: &str, host: &Host) -> String {
        let cpu = (self.number(14) + self.number(15)) / TICKS;
        let age = (host.uptime - self.number(22) / TICKS).max(0.01);
        let user = || host.users.iter().find(|(uid, _)| *uid == self.uid).map_or_else(|| self.uid.to_string(), |(_, name)| name.clone());
        match name {
            "uid" | "user" | "euser" | "ruser" => user(),
            "pid" => self.pid.to_string(),
            "ppid" => self.number(4).to_string(),
            "pgid" => self.number(5).to_string(),
            "sid" => self.number(6).to_string(),
            "c" => format!("{:.0}", (100.0 * cpu / age).floor()),
            "%cpu" | "pcpu" => format!("{:.1}", 100.0 * cpu / age),
            "%mem" | "pmem" => format!("{:.1}", 100.0 * self.number(24) * 4.0 / host.memory_kib),
            "stime" | "start" => start_time(age),
            "tty" | "tt" => tty_name(self.number(7)),
            "time" => clock_time(cpu),
            "etime" => elapsed(age),
            "stat" | "s" | "state" => self.stat.first().cloned().unwrap_or_default(),
            "vsz" => format!("{:.0}", self.number(23) / 1024.0),
            "rss" => format!("{:.0}", self.number(24) * 4.0),
            "nlwp" => self.number(20).to_string(),
            "ni" => self.number(19).to_string(),
            "pri" => self.number(18).to_string(),
            "comm" => self.name.clone(),
            _ => self.command.clone(),
        }
    }
}

fn start_time(age: f64) -> String {
    let span = jiff::SignedDuration::from_secs_f64(age);
    let start = jiff::Zoned::now().checked_sub(span).unwrap_or_else(|_| jiff::Zoned::now());
    start.strftime(if age < 86_400.0 { "%H:%M" } else { "%b%d" }).to_string()
}

fn clock_time(seconds: f64) -> String {
    let whole = jiff::SignedDuration::from_secs_f64(seconds).as_secs();
    format!("{:02}:{:02}:{:02}", whole / 3600, whole / 60 % 60, whole % 60)
}

fn elapsed(seconds: f64) -> String {
    let whole = jiff::SignedDuration::from_secs_f64(seconds).as_secs();
    if whole < 3600 { format!("{:02}:{:02}", whole / 60, whole % 60) } else { clock_time(seconds) }
}

/// The name of a controlling terminal by its device number (pts: major 136 to 143).
fn tty_name(number: f64) -> String {
    let device = rustix::fs::Dev::from(number.max(0.0).round().to_string().parse::<u32>().unwrap_or(0));
    let (major, minor) = (rustix::fs::major(device), rustix::fs::minor(device));
    if (136..144).contains(&major) { format!("pts/{}", (major - 136) * 256 + minor) } else { "?".to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_options_choose_columns_and_others_are_refused() {
        let heads =
            |arguments: &str| columns(arguments).map(|columns| columns.into_iter().map(|(_, head)| head).collect::<Vec<_>>().join(" "));
        assert_eq!(heads("").unwrap(), "UID PID PPID C STIME TTY TIME CMD");
        assert_eq!(heads("aux").unwrap(), "USER PID %CPU %MEM VSZ RSS TTY STAT START TIME COMMAND");
        assert_eq!(heads("-o pid,comm=NAME").unwrap(), "PID NAME");
        assert_eq!((heads("-eopid,user").unwrap(), heads("-eo pid,user").unwrap()), ("PID USER".into(), "PID USER".into()));
        assert!(heads("-o comm").is_err() && heads("--forest").is_err() && heads("-o pid,nosuch").is_err());
    }

    #[test]
    fn this_process_is_found() {
        let columns = columns("-o pid,user,cmd").unwrap();
        let rows = rows(&[std::process::id(), u32::MAX], &columns);
        assert_eq!((rows.len(), rows[0][0].clone()), (1, std::process::id().to_string()));
    }
}
