//! The examples are what they are for: together they use every instruction and form, and nothing in them is of a test's making.
#![allow(clippy::disallowed_methods, reason = "reads files of the repository")]

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

fn examples() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples")
}

fn dockerfiles(folder: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder).expect("a folder").map(|entry| entry.expect("an entry").path());
    let (folders, files): (Vec<_>, Vec<_>) = entries.partition(|path| path.is_dir());
    let own = files.into_iter().filter(|path| path.file_name().is_some_and(|name| name == "Dockerfile"));
    own.chain(folders.iter().flat_map(|folder| dockerfiles(folder))).collect()
}

#[test]
fn every_instruction_and_form_is_used() {
    let texts: Vec<String> = dockerfiles(&examples()).iter().map(|path| std::fs::read_to_string(path).expect("a file")).collect();
    let lines: Vec<&str> = texts.iter().flat_map(|text| text.lines()).map(str::trim).collect();
    let used: BTreeSet<&str> = lines.iter().filter_map(|line| line.split_whitespace().next()).collect();
    let all = [
        "ADD",
        "ARG",
        "CMD",
        "COPY",
        "ENTRYPOINT",
        "ENV",
        "EXPOSE",
        "FROM",
        "HEALTHCHECK",
        "LABEL",
        "MAINTAINER",
        "ONBUILD",
        "RUN",
        "SHELL",
        "STOPSIGNAL",
        "USER",
        "VOLUME",
        "WORKDIR",
    ];
    let missing: Vec<&str> = all.into_iter().filter(|name| !used.contains(name)).collect();
    assert!(missing.is_empty(), "no example uses {missing:?}");
    for form in [" AS build", "RUN [", "RUN <<", "COPY --from=build", "--chown=", "--chmod=", "ADD --checksum=sha256:", ".tar.gz /"] {
        assert!(lines.iter().any(|line| line.contains(form)), "no example has {form:?}");
    }
    let before_and_after = |text: &&String| {
        let first = text.lines().position(|line| line.starts_with("FROM "));
        let arguments: Vec<usize> = text.lines().enumerate().filter(|(_, line)| line.starts_with("ARG ")).map(|(at, _)| at).collect();
        first.is_some_and(|first| arguments.iter().any(|at| *at < first) && arguments.iter().any(|at| *at > first))
    };
    assert!(texts.iter().any(|text| before_and_after(&text)), "no example has ARG before and after FROM");
}

#[test]
fn every_example_has_its_files_and_knows_no_test() {
    for entry in std::fs::read_dir(examples()).expect("the examples").flatten().filter(|entry| entry.path().is_dir()) {
        for name in ["Dockerfile", ".dockerignore", "README.md", "smoke"] {
            assert!(entry.path().join(name).is_file(), "{}: {name} is missing", entry.path().display());
        }
    }
    for path in dockerfiles(&examples()) {
        let text = std::fs::read_to_string(&path).expect("a file");
        assert!(!text.contains("198.51.100."), "{}: the address of a test's index; stand-ins carry it", path.display());
    }
}
