//! `cargo xtask packages`: fetches what the examples depend on, with the ecosystems' own clients, and lays it out to be served.
//!
//! `target/packages/{pypi,npm,maven,go}` are files as the four kinds of index answer them; testkit's `package-index` serves them
//! inside a world. Fetched again only when a list of dependencies changes. Nothing else in the repository reaches an index.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, ensure};
use sampan_testkit::{images, index, setup};
use serde_json::{Value, json};

/// One ecosystem: its name, the lists that decide what is fetched, and how.
struct Ecosystem {
    name: &'static str,
    lists: &'static [&'static str],
    fetch: fn(&Path) -> anyhow::Result<()>,
}

const ALL: &[Ecosystem] = &[
    Ecosystem { name: "pypi", lists: &["catalog/requirements.txt"], fetch: pypi },
    Ecosystem { name: "go", lists: &["prices/go.mod", "prices/go.sum"], fetch: go },
    Ecosystem { name: "npm", lists: &["cart/package-lock.json", "static/Dockerfile"], fetch: npm },
    Ecosystem { name: "maven", lists: &["orders/pom.xml"], fetch: maven },
];

/// Packages of npm that no lock file names: the archive that an image of the examples adds by its address.
const OTHER_NPM: &[(&str, &str)] = &[("mime-db", "1.52.0")];

/// Fetches for the named ecosystems, or for all.
pub(crate) fn packages(names: &[String]) -> anyhow::Result<()> {
    for name in names {
        ensure!(ALL.iter().any(|one| one.name == name), "no ecosystem {name:?}; there are pypi, go, npm, maven");
    }
    std::fs::create_dir_all(setup::packages())?;
    let lock = std::fs::File::create(setup::packages().join("lock"))?;
    lock.lock()?;
    for ecosystem in ALL.iter().filter(|one| names.is_empty() || names.iter().any(|name| name == one.name)) {
        let folder = setup::packages().join(ecosystem.name);
        let mut wanted = String::new();
        for list in ecosystem.lists {
            wanted.push_str(&std::fs::read_to_string(examples().join(list)).with_context(|| format!("cannot read {list}"))?);
        }
        let stamp = setup::packages().join(format!("{}.stamp", ecosystem.name));
        let wanted = images::sha256(format!("{wanted}{}", include_str!("packages.rs")).as_bytes());
        if std::fs::read_to_string(&stamp).is_ok_and(|text| text == wanted) {
            println!("{}: as fetched before", ecosystem.name);
            continue;
        }
        drop(std::fs::remove_dir_all(&folder));
        std::fs::create_dir_all(&folder)?;
        (ecosystem.fetch)(&folder).with_context(|| format!("cannot fetch the packages of {}", ecosystem.name))?;
        std::fs::write(&stamp, wanted)?;
        println!("{}: fetched into {}", ecosystem.name, folder.display());
    }
    Ok(())
}

fn examples() -> PathBuf {
    setup::root().join("examples")
}

fn run(command: &mut Command) -> anyhow::Result<String> {
    let output = command.output().with_context(|| format!("cannot start {}", command.get_program().display()))?;
    let error = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{command:?} failed:\n{error}{}", String::from_utf8_lossy(&output.stdout));
    Ok(String::from_utf8(output.stdout)?)
}

/// Wheels for the Python of the stand-ins, and a page for each project.
fn pypi(folder: &Path) -> anyhow::Result<()> {
    let files = folder.join("files");
    let mut command = Command::new("python3");
    command.args(["-m", "pip", "download", "-q", "--only-binary=:all:", "--python-version", "3.11", "--implementation", "cp"]);
    command.args(["--platform", "manylinux2014_x86_64", "--platform", "manylinux_2_17_x86_64", "-d"]).arg(&files);
    run(command.arg("-r").arg(examples().join("catalog/requirements.txt")))?;
    let mut names: Vec<String> = std::fs::read_dir(&files)?.flatten().filter_map(|entry| entry.file_name().into_string().ok()).collect();
    names.sort();
    for file in names {
        let project = normalized(file.split('-').next().unwrap_or_default());
        let page = folder.join("simple").join(&project).join("index.html");
        let mut text = std::fs::read_to_string(&page).unwrap_or_else(|_| format!("<!DOCTYPE html><title>{project}</title>\n"));
        let hash = images::sha256_of_file(&files.join(&file))?;
        writeln!(text, "<a href=\"../../files/{file}#sha256={hash}\">{file}</a><br>")?;
        images::write(&page, text.as_bytes())?;
    }
    Ok(())
}

/// A project's name as the simple index spells it.
fn normalized(name: &str) -> String {
    let words: Vec<&str> = name.split(['-', '_', '.']).filter(|word| !word.is_empty()).collect();
    words.join("-").to_lowercase()
}

/// What go itself keeps of a proxy's answers has the layout of a proxy.
fn go(folder: &Path) -> anyhow::Result<()> {
    let cache = tempfile::tempdir_in(folder)?;
    let mut command = Command::new("go");
    command.args(["mod", "download"]).current_dir(examples().join("prices"));
    run(command.env("GOMODCACHE", cache.path()).env("GOFLAGS", "-modcacherw"))?;
    for entry in std::fs::read_dir(cache.path().join("cache/download"))?.flatten() {
        std::fs::rename(entry.path(), folder.join(entry.file_name()))?;
    }
    Ok(())
}

/// Archives of the locked packages, and a document for each name.
fn npm(folder: &Path) -> anyhow::Result<()> {
    let lock: Value = serde_json::from_slice(&std::fs::read(examples().join("cart/package-lock.json"))?)?;
    let locked = lock["packages"].as_object().context("packages of the lock file")?;
    let mut wanted: Vec<(String, String)> = locked
        .iter()
        .filter_map(|(path, facts)| Some((path.rsplit_once("node_modules/")?.1.to_owned(), facts["version"].as_str()?.to_owned())))
        .collect();
    wanted.extend(OTHER_NPM.iter().map(|(name, version)| ((*name).to_owned(), (*version).to_owned())));
    for (name, version) in wanted {
        npm_package(folder, &name, &version).with_context(|| format!("{name}@{version}"))?;
    }
    Ok(())
}

fn npm_package(folder: &Path, name: &str, version: &str) -> anyhow::Result<()> {
    let place = folder.join(name).join("-");
    std::fs::create_dir_all(&place)?;
    let mut command = Command::new("npm");
    command.args(["pack", "--json", "--pack-destination"]).arg(&place).arg(format!("{name}@{version}"));
    let packed: Value = serde_json::from_str(&run(&mut command)?)?;
    // One object a package, in a list or, since npm 11, by name.
    let facts = packed.get(0).or_else(|| packed.as_object()?.values().next()).context("npm pack says nothing")?;
    // The registry's own name of the archive has no scope in it; the client's has.
    let packed_name = facts["filename"].as_str().context("a file name")?.replace('@', "").replace('/', "-");
    let file = format!("{}-{version}.tgz", name.rsplit('/').next().unwrap_or(name));
    if packed_name != file {
        std::fs::rename(place.join(&packed_name), place.join(&file))?;
    }
    let mut tar = Command::new("tar");
    tar.arg("-xzOf").arg(place.join(&file)).args(["--wildcards", "--no-wildcards-match-slash", "*/package.json"]);
    let mut manifest: Value = serde_json::from_str(&run(&mut tar)?)?;
    manifest["dist"] = json!({
        "tarball": format!("http://{}/npm/{name}/-/{file}", index::ADDRESS), "integrity": facts["integrity"], "shasum": facts["shasum"],
    });
    let page = folder.join(name).join("index.json");
    let known = std::fs::read(&page).ok().and_then(|bytes| serde_json::from_slice(&bytes).ok());
    let mut document: Value = known.unwrap_or_else(|| json!({"name": name, "versions": {}}));
    document["versions"][version] = manifest;
    document["dist-tags"] = json!({"latest": version});
    Ok(images::write(&page, document.to_string().as_bytes())?)
}

/// A build with an empty local repository leaves there what a repository has to answer.
fn maven(folder: &Path) -> anyhow::Result<()> {
    let work = tempfile::tempdir()?;
    run(Command::new("cp").arg("-r").arg(examples().join("orders")).arg(work.path().join("orders")))?;
    let local = format!("-Dmaven.repo.local={}", folder.display());
    let mut command = Command::new("mvn");
    run(command.args(["-B", "-q", &local, "dependency:go-offline", "package"]).current_dir(work.path().join("orders")))?;
    prune(folder)
}

/// Takes out the client's own notes.
fn prune(folder: &Path) -> anyhow::Result<()> {
    for entry in std::fs::read_dir(folder)?.flatten() {
        let (path, name) = (entry.path(), entry.file_name().to_string_lossy().into_owned());
        if path.is_dir() {
            prune(&path)?;
        } else if name == "_remote.repositories" || name.ends_with(".lastUpdated") || name == "resolver-status.properties" {
            std::fs::remove_file(path)?;
        }
    }
    Ok(())
}
