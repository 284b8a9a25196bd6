//! The flags of `build` and its siblings.

use sampan_gotext::flags::{Flag, Kind};
use sampan_oci::Reference;

use super::super::FORCE;
use crate::command::{Command, Things, Words};
use crate::create::checks;

const BUILDKIT: &str = "it needs BuildKit's protocol, which comes later";

const BUILD: &[Flag] = &[
    Flag::new("add-host", Kind::List, "Add a line to /etc/hosts of the build's commands (host:ip)").check(checks::extra_host),
    Flag::new("build-context", Kind::List, "A folder or docker-image://NAME in place of a stage or an image (name=value)"),
    Flag::new("builder", Kind::Text, "Builder to use; there is one: default").hidden().check(builder),
    Flag::new("build-arg", Kind::List, "Set an ARG; without a value: take it from the environment").check(checks::variable),
    Flag::new("cache-from", Kind::Strings, "Images whose steps count as cached"),
    Flag::new("call", Kind::Text, "What to do with the Dockerfile: build, check, outline or targets").default("build"),
    Flag::new("cgroup-parent", Kind::Text, "Parent of the cgroup of the build's commands"),
    Flag::new("check", Kind::Bool, "Check the Dockerfile, build nothing (--call=check)"),
    Flag::new("compress", Kind::Bool, "Send the context compressed"),
    Flag::new("cpu-period", Kind::Int, "Period of the CPU limit in microseconds"),
    Flag::new("cpu-quota", Kind::Int, "CPU time per period in microseconds"),
    Flag::new("cpu-shares", Kind::Int, "Share of CPU time against others").short('c'),
    Flag::new("cpuset-cpus", Kind::Text, "CPUs to run on (0-3, 0,1)"),
    Flag::new("cpuset-mems", Kind::Text, "Memory nodes to use (0-3, 0,1)"),
    Flag::new("disable-content-trust", Kind::Bool, "Do not check the images' signatures").default("true"),
    Flag::new("explain", Kind::Bool, "Say for each step why it ran or was cached"),
    Flag::new("file", Kind::Text, "The Dockerfile (default: PATH/Dockerfile)").short('f'),
    Flag::new("force-rm", Kind::Bool, "Remove the containers of steps that failed, too"),
    Flag::new("iidfile", Kind::Text, "Write the image's ID to a file"),
    Flag::new("isolation", Kind::Text, "Isolation technology (Windows)"),
    Flag::new("label", Kind::List, "Set a label of the image").check(checks::label),
    Flag::new("load", Kind::Bool, "Keep the image in the engine, too (--output=type=docker)"),
    Flag::new("memory", Kind::Bytes, "Memory limit").short('m'),
    Flag::new("memory-swap", Kind::Bytes, "Limit of memory and swap together; -1 for no limit of swap"),
    Flag::new("metadata-file", Kind::Text, "Write what was built to a file, as JSON"),
    Flag::new("network", Kind::Text, "Network of the build's commands: default, none, host").default("default"),
    Flag::new("no-cache", Kind::Bool, "Run every step, cached or not"),
    Flag::new("no-cache-filter", Kind::Strings, "Run every step of these stages, cached or not"),
    Flag::new(
        "output",
        Kind::List,
        "Where the result goes: DIR or type=local,dest=DIR (its files), type=tar,dest=FILE, type=docker[,dest=FILE], type=oci,dest=FILE, type=image[,push=true], type=registry, type=cacheonly",
    )
    .short('o'),
    Flag::new("platform", Kind::Text, "Platform of the image (linux/amd64)"),
    Flag::new("progress", Kind::Text, "How to show the build: auto, tty, plain or quiet").default("auto"),
    Flag::new("pull", Kind::Bool, "Ask the registry for newer base images"),
    Flag::new("push", Kind::Bool, "Push the image's names when it is built (--output=type=registry)"),
    Flag::new("quiet", Kind::Bool, "Print the image's ID alone").short('q'),
    Flag::new("rm", Kind::Bool, "Remove the containers of steps that succeeded").default("true"),
    Flag::new("security-opt", Kind::Strings, "Security option"),
    Flag::new("shm-size", Kind::Bytes, "Size of /dev/shm"),
    Flag::new("squash", Kind::Bool, "Make one layer of all").hidden(),
    Flag::new("tag", Kind::List, "Name of the image (name:tag)").short('t').check(tag),
    Flag::new("target", Kind::Text, "Stage to build"),
    Flag::new("ulimit", Kind::Other("ulimit"), "Limit of processes (name=soft[:hard])").default("[]").check(checks::ulimit),
];

/// Flags that speak to BuildKit alone.
const LATER: &[Flag] = &[
    Flag::new("allow", Kind::List, "Allow an extra right").hidden().later(BUILDKIT),
    Flag::new("annotation", Kind::List, "Add an annotation").hidden().later(BUILDKIT),
    Flag::new("attest", Kind::List, "Add an attestation").hidden().later(BUILDKIT),
    Flag::new("cache-to", Kind::List, "Where to keep the cache").hidden().later(BUILDKIT),
    Flag::new("provenance", Kind::Text, "Add a provenance attestation").hidden().later(BUILDKIT),
    Flag::new("sbom", Kind::Text, "Add a bill of materials").hidden().later(BUILDKIT),
    Flag::new("secret", Kind::List, "Give a secret to the build").hidden().later(BUILDKIT),
    Flag::new("ssh", Kind::List, "Give an SSH agent to the build").hidden().later(BUILDKIT),
];

/// `build` and `builder prune`.
pub(in crate::commands) const COMMANDS: &[Command] = &[
    Command {
        paths: &["image build", "build", "builder build", "buildx build", "buildx b"],
        usage: "[OPTIONS] PATH | URL | -",
        about: "Build an image from a Dockerfile",
        more: "PATH is a directory, URL a git repository, an archive or a Dockerfile; '-' reads\na Dockerfile or an archive from standard input.\n\nExamples:\n  \
               PROGRAM build -t app .                        build ./Dockerfile and name the image app:latest\n  \
               PROGRAM build -f deploy/Dockerfile .          another Dockerfile, the same context\n  \
               PROGRAM build --push -t host/team/app:1 .     build, then push\n  \
               PROGRAM build --target test -o out .          one stage, and its files into the folder out\n  \
               PROGRAM build -o type=oci,dest=app.tar .      the image as an archive of an OCI layout\n  \
               PROGRAM build --check .                       look for mistakes in the Dockerfile\n  \
               PROGRAM build --call outline .                what can be given to it: arguments, secrets",
        words: Words::Exactly(1),
        things: Things::Files,
        flags: &[BUILD, LATER],
        interspersed: true,
        run: |app, matches| Box::pin(super::build(app, matches)),
    },
    Command {
        paths: &["builder prune", "buildx prune"],
        usage: "",
        about: "Remove what builds keep for the next ones",
        more: "",
        words: Words::Exactly(0),
        things: Things::Nothing,
        flags: &[&[
            Flag::new("all", Kind::Bool, "Remove what is in use by images, too").short('a'),
            Flag::new("filter", Kind::Filter, "Remove only what fits: until=, id=, type="),
            FORCE,
            Flag::new("keep-storage", Kind::Bytes, "Space that the cache may keep"),
        ]],
        interspersed: true,
        run: |app, matches| Box::pin(super::prune(app, matches)),
    },
];

/// # Errors
/// Buildx's words.
fn builder(value: &str) -> Result<String, String> {
    if matches!(value, "" | "default") { Ok(value.to_owned()) } else { Err(format!("no builder {} found", sampan_gotext::quote(value))) }
}

fn tag(value: &str) -> Result<String, String> {
    Reference::parse_normalized(value).map(|_| value.to_owned()).map_err(|error| error.to_string())
}
