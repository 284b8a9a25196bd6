//! Builds: a context of 50,000 files and 1 GB, cold, cached and with one file changed; and ten steps that do nothing.
//!
//! Two pairs: the docker command line's classic builder on our engine and on Docker, and `sampan build` beside `docker buildx
//! build`. Each of the four has an engine of its own that begins with nothing but the base image, on the same tmpfs. Wall: of the
//! command. CPU: of the command and of the engine with all that it started, as clients differ in how much they do themselves.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use anyhow::ensure;
use sampan_testkit::{images, setup};

use crate::rig::{Rig, Server};

use super::transfers::timed;
use super::{Engines, Row, Side, median};

const FILES: usize = 50_000;
const FOLDERS: usize = 500;
/// Bytes of all files, roughly: their sizes are spread around the mean.
const BYTES: usize = 1_000_000_000;
const MEMORY: u32 = 9000;
/// How often the cached build is repeated, and that with a changed file.
const CACHED: u32 = 3;
const CHANGED: u32 = 2;
/// Builds of ten steps, after one that warms up.
const RUNS: u32 = 5;

/// One way of building.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Builder {
    OursByDocker,
    Classic,
    Ours,
    Buildx,
}

const BUILDERS: [Builder; 4] = [Builder::OursByDocker, Builder::Classic, Builder::Ours, Builder::Buildx];

impl Builder {
    /// A fresh engine with the base image.
    fn engine(self, rig: &Rig) -> anyhow::Result<Server> {
        let (server, program) = match self {
            Self::OursByDocker | Self::Ours => (rig.engine()?, "sampan"),
            Self::Classic | Self::Buildx => (rig.docker(&[])?, "docker"),
        };
        let archive = rig.work().join("box.tar");
        images::write(&archive, &images::docker_archive(&setup::busybox(), "box:latest")?)?;
        rig.ok(&format!("{program} -H {} load -q -i '{}'", server.address, archive.display()))?;
        Ok(server)
    }

    fn line(self, server: &Server, rest: &str) -> String {
        let host = &server.address;
        match self {
            // A folder without plugins: asking them who they are takes the client longer than a build of ours.
            Self::OursByDocker | Self::Classic => format!("DOCKER_CONFIG=$HOME/plain DOCKER_BUILDKIT=0 docker -H {host} build {rest}"),
            Self::Ours => format!("sampan -H {host} build {rest}"),
            Self::Buildx => format!("docker -H {host} buildx build {rest}"),
        }
    }
}

/// Wall and CPU seconds of the three kinds of build.
#[derive(Debug, Default)]
struct Times {
    cold: [Vec<f64>; 2],
    cached: [Vec<f64>; 2],
    one_file: [Vec<f64>; 2],
}

/// Rows of the large context.
pub(super) fn context(_: &mut Engines) -> anyhow::Result<Vec<Row>> {
    let folder = make_context()?;
    let rig = Rig::new(MEMORY);
    let mut figures = Vec::new();
    for builder in BUILDERS {
        figures.push(large(&rig, builder, &folder).unwrap_or_else(|error| {
            eprintln!("{builder:?} is not measured: {error:#}");
            Times::default()
        }));
    }
    let [by_docker, classic, ours, buildx] = &figures[..] else { anyhow::bail!("four builders") };
    let mut rows = Vec::new();
    let mut add = |bench, peer, ours: &[Vec<f64>; 2], theirs: &[Vec<f64>; 2], index: usize, goal: Option<f64>| {
        let side = Side { ours: middle(&ours[index]), peer: middle(&theirs[index]) };
        rows.push(Row { goal, ..Row::beside(bench, peer, side, "s") });
    };
    let classic_name = "docker build";
    add("build_cold_classic", classic_name, &by_docker.cold, &classic.cold, 0, None);
    add("build_cold_classic_cpu", classic_name, &by_docker.cold, &classic.cold, 1, Some(0.5));
    add("build_cached_classic", classic_name, &by_docker.cached, &classic.cached, 0, Some(0.5));
    add("build_one_file_classic", classic_name, &by_docker.one_file, &classic.one_file, 0, None);
    add("build_cold", "buildx", &ours.cold, &buildx.cold, 0, None);
    add("build_cold_cpu", "buildx", &ours.cold, &buildx.cold, 1, Some(0.5));
    add("build_cached", "buildx", &ours.cached, &buildx.cached, 0, Some(0.5));
    add("build_cached_cpu", "buildx", &ours.cached, &buildx.cached, 1, None);
    add("build_one_file", "buildx", &ours.one_file, &buildx.one_file, 0, None);
    add("build_one_file_cpu", "buildx", &ours.one_file, &buildx.one_file, 1, None);
    Ok(rows)
}

fn middle(values: &[f64]) -> Option<f64> {
    (!values.is_empty()).then(|| median(values.to_vec()))
}

fn large(rig: &Rig, builder: Builder, context: &Path) -> anyhow::Result<Times> {
    let server = builder.engine(rig)?;
    let line = builder.line(&server, &format!("-q -t bench/context '{}'", context.display()));
    let mut times = Times::default();
    let once = |into: &mut [Vec<f64>; 2]| -> anyhow::Result<()> {
        let (wall, cpu) = timed(rig, &server, &line)?;
        into[0].push(wall);
        into[1].push(cpu);
        Ok(())
    };
    once(&mut times.cold)?;
    for _ in 0..CACHED {
        once(&mut times.cached)?;
    }
    let file = context.join("d250/f50");
    let original = std::fs::read(&file)?;
    for number in 0..CHANGED {
        std::fs::write(&file, format!("{builder:?} changed this {number}"))?;
        let result = once(&mut times.one_file);
        std::fs::write(&file, &original)?;
        result?;
    }
    rig.discard(server);
    Ok(times)
}

/// Rows of ten steps that do nothing, without a network of their own, with the host's and with the default one.
pub(super) fn run_true(_: &mut Engines) -> anyhow::Result<Vec<Row>> {
    let rig = Rig::new(2000);
    let folder = rig.work().join("steps");
    std::fs::create_dir_all(&folder)?;
    let mut text = "FROM box:latest\n".to_owned();
    for number in 0..10 {
        writeln!(text, "RUN true {number}")?;
    }
    std::fs::write(folder.join("Dockerfile"), text)?;
    let mut medians: Vec<[Option<f64>; 3]> = Vec::new();
    for builder in BUILDERS {
        medians.push(steps(&rig, builder, &folder).unwrap_or_else(|error| {
            eprintln!("{builder:?} is not measured: {error:#}");
            [None; 3]
        }));
    }
    let [by_docker, classic, ours, buildx] = medians[..] else { anyhow::bail!("four builders") };
    let mut rows = Vec::new();
    for (index, name) in ["run_true_none", "run_true_host", "run_true"].into_iter().enumerate() {
        rows.push(Row::beside(name, "buildx", Side { ours: ours[index], peer: buildx[index] }, "s").goal(0.3));
    }
    for (index, name) in ["run_true_classic_none", "run_true_classic_host", "run_true_classic"].into_iter().enumerate() {
        rows.push(Row::beside(name, "docker build", Side { ours: by_docker[index], peer: classic[index] }, "s").goal(0.3));
    }
    Ok(rows)
}

/// Seconds of a build without cache, for each of the three networks.
fn steps(rig: &Rig, builder: Builder, folder: &Path) -> anyhow::Result<[Option<f64>; 3]> {
    let server = builder.engine(rig)?;
    let mut medians = [None; 3];
    for (median_of, network) in medians.iter_mut().zip(["none", "host", "default"]) {
        let line = builder.line(&server, &format!("-q --no-cache --network {network} -t bench/steps '{}'", folder.display()));
        let mut walls = Vec::new();
        for run in 0..=RUNS {
            let (wall, _) = timed(rig, &server, &line)?;
            if run > 0 {
                walls.push(wall);
            }
        }
        *median_of = Some(median(walls));
    }
    rig.discard(server);
    Ok(medians)
}

/// The context, made once below `target/bench`: the same bytes everywhere.
fn make_context() -> anyhow::Result<PathBuf> {
    let folder = setup::target().join("bench/context");
    let stamp = setup::target().join("bench/context.stamp");
    let wanted = images::sha256(include_str!("builds.rs").as_bytes());
    if std::fs::read_to_string(&stamp).is_ok_and(|text| text == wanted) {
        return Ok(folder);
    }
    drop(std::fs::remove_dir_all(&folder));
    let mut state = 0x2545_f491_4f6c_dd1d_u64;
    let mut total = 0;
    let mut content = Vec::new();
    for number in 0..FILES {
        let directory = folder.join(format!("d{}", number / (FILES / FOLDERS)));
        if number % (FILES / FOLDERS) == 0 {
            std::fs::create_dir_all(&directory)?;
        }
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        // From a quarter of the mean to seven quarters, words that compress as source text does.
        let mean = BYTES / FILES;
        let size = mean / 4 + usize::try_from(state % u64::try_from(mean * 3 / 2)?)?;
        content.clear();
        while content.len() < size {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            content.extend_from_slice(format!("{:016x} = {};\n", state, state % 1000).as_bytes());
        }
        content.truncate(size);
        total += size;
        std::fs::write(directory.join(format!("f{}", number % (FILES / FOLDERS))), &content)?;
    }
    ensure!(total > BYTES / 100 * 95, "the context has {total} bytes only");
    std::fs::write(folder.join("Dockerfile"), "FROM box:latest\nWORKDIR /src\nCOPY . .\nRUN ls /src | wc -l\n")?;
    std::fs::write(&stamp, wanted)?;
    Ok(folder)
}
