//! What it costs to log: a container writes lines to its end, the json-file log takes them.
//!
//! Wall: megabytes a second from the first byte to the last, as the container sees it, so pipes and files push back as they
//! do in life. CPU: what the parents of the container and the daemon used for it, for a gigabyte of text.

use std::io::Write as _;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};

use super::api::Api;
use super::{Engines, Row, median, processes};

/// Length of a line with its end.
const LINE: usize = 100;
const ROUNDS: usize = 3;
/// The last line, to see that all came through.
const LAST: &str = "the last line of all";

/// Large writes: a program that buffers its output.
pub(super) fn log(engines: &mut Engines) -> anyhow::Result<Vec<Row>> {
    measure(engines, ["log", "log_cpu"], 600_000_000, "cat /mark/lines")
}

/// A write for each line: a program that does not.
pub(super) fn log_lines(engines: &mut Engines) -> anyhow::Result<Vec<Row>> {
    measure(engines, ["log_lines", "log_lines_cpu"], 100_000_000, "dd if=/mark/lines bs=100 2>/dev/null")
}

fn measure(engines: &Engines, names: [&'static str; 2], bytes: usize, producer: &str) -> anyhow::Result<Vec<Row>> {
    let folder = tempfile::tempdir()?;
    lines(&folder.path().join("lines"), bytes)?;
    let (mut mine, mut theirs) = ([Vec::new(), Vec::new()], [Vec::new(), Vec::new()]);
    for _ in 0..ROUNDS {
        for (index, api) in engines.both().enumerate() {
            let (wall, cpu) = once(engines, api, folder.path(), producer)?;
            let megabytes = f64::from(u32::try_from(bytes / 1_000)?) / 1000.0;
            let into = if index == 0 { &mut mine } else { &mut theirs };
            into[0].push(megabytes / wall);
            into[1].push(cpu * 1000.0 / megabytes);
        }
    }
    let [wall, cpu] = mine.map(median);
    let [peer_wall, peer_cpu] = theirs.map(|values| (!values.is_empty()).then(|| median(values)));
    Ok(vec![Row::new(names[0], wall, peer_wall, "MB/s").higher_is_better(), Row::new(names[1], cpu, peer_cpu, "CPU s/GB")])
}

/// Wall seconds and CPU seconds of one container's output.
fn once(engines: &Engines, api: &Api, folder: &Path, producer: &str) -> anyhow::Result<(f64, f64)> {
    for name in ["go", "end"] {
        drop(std::fs::remove_file(folder.join(name)));
    }
    let script = format!("while [ ! -e /mark/go ]; do usleep 5000; done; {producer}; echo {LAST}; >/mark/end; exec sleep 1000");
    let id = api.create(&["sh", "-c", &script], &[format!("{}:/mark", folder.display())])?;
    api.start(&id)?;
    let servers = engines.servers(api);
    let before = processes::cpu_seconds(&servers);
    let start = Instant::now();
    std::fs::write(folder.join("go"), "")?;
    while !folder.join("end").exists() {
        ensure!(start.elapsed() < Duration::from_secs(600), "the container did not come to its end");
        std::thread::sleep(Duration::from_millis(2));
    }
    let wall = start.elapsed().as_secs_f64();
    // What is still in pipes.
    std::thread::sleep(Duration::from_millis(200));
    let cpu = processes::cpu_seconds(&servers) - before;
    let tail = api.call("GET", &format!("/containers/{id}/logs?stdout=1&tail=1"), "application/json", b"")?;
    api.remove(&id)?;
    ensure!(String::from_utf8_lossy(&tail).contains(LAST), "the log does not end as the output did");
    Ok((wall, cpu))
}

/// A file of numbered lines.
fn lines(path: &Path, bytes: usize) -> anyhow::Result<()> {
    let mut file = std::io::BufWriter::with_capacity(1 << 20, std::fs::File::create(path)?);
    for number in 0..bytes / LINE {
        writeln!(file, "{number:010} INFO request served status=200 path=/api/v1/things user=\"someone\" took 17.25 ms {:8}", "ok")?;
    }
    file.flush()?;
    let written = file.get_ref().metadata()?.len();
    ensure!(written == u64::try_from(bytes).context("a size")?, "{written} bytes of lines");
    Ok(())
}
