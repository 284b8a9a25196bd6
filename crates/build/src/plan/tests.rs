//! The operations of plans; texts, histories and configurations are in the corpus (`tests/corpus.rs`).

use proptest::prelude::*;
use sampan_base::ErrorKind;
use sampan_oci::{ImageConfig, ImageId, Platform, Reference};

use super::*;
use crate::dockerfile::parse;

/// `box` with two layers and a trigger, `empty` without layers; nothing else.
struct Boxes;

impl Bases for Boxes {
    fn resolve(&self, reference: &Reference, _platform: &Platform) -> Result<Base, BaseError> {
        let mut config = ImageConfig { os: "linux".into(), architecture: "amd64".into(), ..ImageConfig::default() };
        let digest: sampan_oci::Digest = format!("sha256:{}", "0".repeat(64)).parse().unwrap();
        match reference.familiar_name().as_str() {
            "box" => config.rootfs.diff_ids = vec![sampan_oci::DiffId(digest.clone()); 2],
            "trigger" => {
                config.rootfs.diff_ids = vec![sampan_oci::DiffId(digest.clone())];
                config.config.on_build = Some(vec!["COPY --from=box /a /b".to_owned(), "RUN x".to_owned()]);
            }
            "empty" => {}
            other => return Err(BaseError { kind: ErrorKind::NotFound, message: format!("no {other}") }),
        }
        Ok(Base { image: BaseImage { reference: reference.clone(), digest: None, id: ImageId(digest) }, config })
    }
}

fn planned(text: &str) -> Graph {
    planned_with(text, &Request::default()).unwrap()
}

fn planned_with(text: &str, request: &Request) -> Result<Graph, PlanError> {
    plan(&parse(text.as_bytes())?, request, &Boxes)
}

fn exec(graph: &Graph, number: usize) -> &Exec {
    let execs: Vec<&Exec> = graph.ops.iter().filter_map(|op| if let Op::Exec(exec) = op { Some(&**exec) } else { None }).collect();
    execs[number]
}

fn copies(graph: &Graph) -> Vec<&Copy> {
    let actions = graph.ops.iter().filter_map(|op| if let Op::File(file) = op { Some(&file.actions) } else { None }).flatten();
    actions.filter_map(|action| if let FileAction::Copy(copy) = action { Some(&**copy) } else { None }).collect()
}

#[test]
fn commands_see_their_variables_and_place() {
    let graph =
        planned("ARG G=g\nFROM box\nENV A=1\nARG B=2\nARG G\nENV A=3\nWORKDIR /w/../v\nUSER u:g\nSHELL [\"/sh\"]\nRUN x  y\nRUN [\"a\"]\n");
    let first = exec(&graph, 0);
    let path = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
    assert_eq!(first.env, [path, "B=2", "G=g", "A=3"]);
    assert_eq!((first.args.as_slice(), first.display.as_str()), (["/sh".to_owned(), "x  y".to_owned()].as_slice(), "/sh x  y"));
    assert_eq!((first.cwd.as_str(), first.user.as_str(), first.shell_form), ("/v", "u:g", true));
    assert_eq!((exec(&graph, 1).args.as_slice(), exec(&graph, 1).shell_form), (["a".to_owned()].as_slice(), false));
    assert_eq!(graph.prologue, ["ARG G=g"]);
}

#[test]
fn proxies_are_seen_but_not_recorded() {
    let build_args = [("HTTP_PROXY", "p"), ("X", "y")].map(|(key, value)| (key.to_owned(), value.to_owned()));
    let graph = planned_with("FROM box\nRUN x\n", &Request { build_args: build_args.into(), ..Request::default() }).unwrap();
    assert_eq!(exec(&graph, 0).proxy_env["HTTP_PROXY"], "p");
    assert!(!exec(&graph, 0).env.iter().any(|line| line.contains("PROXY")));
    assert_eq!(graph.unused_build_args, ["X"]);
}

#[test]
fn stages_that_nothing_needs_are_left_out() {
    let text = "FROM box AS a\nRUN a\nFROM nowhere AS b\nRUN b\nFROM box AS c\nCOPY --from=a /x /y\nFROM a AS d\nRUN d\n";
    let names = |graph: &Graph| graph.stages.iter().map(|stage| stage.name.clone()).collect::<Vec<_>>();
    assert_eq!(names(&planned(text)), ["a", "d"]);
    let target = |name: &str| Request { target: Some(name.to_owned()), ..Request::default() };
    let graph = planned_with(text, &target("c")).unwrap();
    assert_eq!(names(&graph), ["a", "c"]);
    let exec_root = graph.ops.iter().position(|op| matches!(op, Op::Exec(_))).map(OpId);
    assert_eq!(copies(&graph)[0].from, exec_root);
    assert_eq!(planned_with(text, &target("b")).unwrap_err().message, "nowhere: no nowhere");
    assert!(planned_with(text, &Request { classic: true, ..Request::default() }).is_err(), "the classic builder builds them all");
    assert_eq!(graph.ops.iter().filter(|op| matches!(op, Op::Image { .. })).count(), 1, "an image is there once");
}

#[test]
fn copies_are_resolved() {
    let graph = planned(
        "FROM box\nWORKDIR /w\nCOPY a ./b c/\nCOPY --parents x/./y* /d\nADD --chmod=750 --chown=u t.tar .\nCOPY --from=empty / /e\n",
    );
    let copies = copies(&graph);
    let brief: Vec<_> = copies.iter().map(|copy| (copy.source.as_str(), copy.dest.as_str(), copy.dest_is_dir)).collect();
    assert_eq!(brief, [("/a", "/w/c/", true), ("/b", "/w/c/", true), ("/x", "/d", false), ("/t.tar", "/w/", true), ("/", "/e", false)]);
    assert_eq!((copies[2].parents.as_deref(), copies[3].unpack, &copies[3].mode), (Some("y*"), Unpack::IfArchive, &Mode::Octal(0o750)));
    assert_eq!((copies[3].owner.as_deref(), copies[4].from), (Some("u"), None));
    assert!(matches!(graph.ops[copies[0].from.unwrap().0], Op::Context { ref name } if name.is_empty()));
}

#[test]
fn downloads_and_repositories_are_sources() {
    let sum = "0".repeat(64);
    let graph =
        planned(&format!("FROM box\nADD --checksum=sha256:{sum} http://h/a/x.tar /d/\nADD --keep-git-dir https://h/y.git#v1:sub /g\n"));
    let http = graph.ops.iter().find_map(|op| if let Op::Http(http) = op { Some(http) } else { None }).unwrap();
    assert_eq!((http.file_name.as_str(), http.checksum.is_some(), copies(&graph)[0].unpack), ("x.tar", true, Unpack::Never));
    let git = graph.ops.iter().find_map(|op| if let Op::Git(git) = op { Some(git) } else { None }).unwrap();
    assert_eq!(
        (git.remote.as_str(), git.reference.as_str(), git.subdir.as_str(), git.keep_git_dir),
        ("https://h/y.git", "v1", "sub", true)
    );
}

#[test]
fn mounts_carry_all_their_options() {
    let text = "FROM box AS s\nFROM box\nWORKDIR /w\nRUN --mount=type=cache,target=c,id=i,sharing=locked,uid=5 --mount=from=s,source=a,target=/b,rw --mount=type=secret,id=k,env=K --mount=type=secret,id=q,required --mount=type=tmpfs,target=/t,size=1k --mount=type=ssh --mount=target=/ctx x\n";
    let graph = planned(text);
    let mounts = &exec(&graph, 0).mounts;
    let places: Vec<_> = mounts.iter().map(|mount| (mount.target.as_str(), mount.readonly)).collect();
    assert_eq!(places, [("/w/c", false), ("/b", false), ("", true), ("/run/secrets/q", true), ("/t", false), ("", true), ("/ctx", true)]);
    assert_eq!(mounts[0].kind, MountKind::Cache { id: "i".into(), sharing: Sharing::Locked, mode: 0o755, uid: 5, gid: 0 });
    assert_eq!((mounts[1].source.as_str(), mounts[1].from.is_some()), ("/a", true));
    assert!(matches!(&mounts[2].kind, MountKind::Secret { env: Some(name), required: false, .. } if name == "K"));
    assert_eq!(mounts[4].kind, MountKind::Tmpfs { size: 1024 });
    assert!(matches!(graph.ops[mounts[6].from.unwrap().0], Op::Context { .. }));
}

#[test]
fn heredocs_become_commands_scripts_and_files() {
    let graph = planned("FROM box\nENV V=v\nRUN <<EOF\n#!/bin/x\ny\nEOF\nRUN <<-E\n\ta\n\tE\nCOPY <<f <<'g' /d/\n$V\nf\n$V\ng\n");
    assert_eq!(exec(&graph, 0).args, ["/bin/sh", "-c", "/dev/pipes/EOF"]);
    assert_eq!(exec(&graph, 0).mounts[0].kind, MountKind::Script { content: "#!/bin/x\ny\n".into() });
    assert_eq!(exec(&graph, 1).args[2], "a\n");
    let Some(Op::File(file)) = graph.ops.last() else { panic!("a copy") };
    let content = |number: usize| match &file.actions[number] {
        FileAction::Write { content, .. } => String::from_utf8_lossy(content).into_owned(),
        other => panic!("{other:?}"),
    };
    assert_eq!((content(0).as_str(), content(1).as_str()), ("v\n", "$V\n"));
}

#[test]
fn triggers_run_first_and_bring_their_stages() {
    let graph = planned("FROM trigger\nRUN y\n");
    let texts: Vec<_> = graph.steps.iter().map(|step| (step.text.as_str(), step.trigger)).collect();
    assert_eq!(texts, [("FROM trigger", false), ("COPY --from=box /a /b", true), ("RUN x", true), ("RUN y", false)]);
    assert_eq!(graph.result.config.config.on_build, None);
    assert_eq!((graph.steps[2].name.as_str(), graph.steps[3].name.as_str()), ("[3/4] ONBUILD RUN x", "[4/4] RUN y"));
}

#[test]
fn contexts_and_rights_come_from_the_request() {
    let contexts = [("box".to_owned(), NamedContext::Directory), ("src".to_owned(), NamedContext::Directory)];
    let request = Request { contexts: contexts.into(), ..Request::default() };
    let graph = planned_with("FROM box\nCOPY --from=src a /b\n", &request).unwrap();
    assert!(graph.ops.iter().any(|op| matches!(op, Op::Context { name } if name == "src")));
    assert!(!graph.ops.iter().any(|op| matches!(op, Op::Image { .. })));
    assert_eq!(planned_with("FROM box\nRUN --network=host x\n", &request).unwrap_err().message, "network.host is not allowed");
    let entitlements = Entitlements { network_host: true, security_insecure: true };
    let graph = planned_with(
        "FROM box AS a\nRUN --network=host --security=insecure x\n",
        &Request { entitlements, no_cache: NoCache::Stages(vec!["A".into()]), ..Request::default() },
    );
    let graph = graph.unwrap();
    assert_eq!((&exec(&graph, 0).network, exec(&graph, 0).security), (&Network::Host, Security::Insecure));
    assert!(graph.steps.iter().all(|step| step.no_cache));
}

#[test]
fn a_platform_that_is_asked_for_is_the_images() {
    let request = Request { platform: Platform::parse("linux/arm64"), checks: true, ..Request::default() };
    let graph = planned_with("FROM box\nARG TARGETARCH\nENV A=$TARGETARCH\n", &request).unwrap();
    assert_eq!((graph.result.config.architecture.as_str(), graph.warnings[0].rule), ("arm64", "InvalidBaseImagePlatform"));
    assert_eq!(graph.result.config.config.env.as_ref().unwrap()[1], "A=arm64");
}

#[test]
fn exploding_variables_end_quickly() {
    let doubled = format!("FROM scratch\nENV A=xxxxxxxxxxxxxxxx\n{}", "ENV A=$A$A\n".repeat(60));
    assert!(planned_with(&doubled, &Request::default()).unwrap_err().message.contains("longer than 1 MiB"));
    let many = format!("FROM scratch\nENV A={}\n{}", "x".repeat(60_000), "ENV A=$A\nLABEL a=$A\n".repeat(4_000));
    assert!(planned_with(&many, &Request::default()).unwrap_err().message.contains("too large"));
    let chain: String = (0..3_000).map(|number| format!("FROM s{number} AS s{}\nARG A{number}=b\nRUN x\n", number + 1)).collect();
    assert!(planned_with(&format!("FROM scratch AS s0\n{chain}"), &Request::default()).unwrap_err().message.contains("too large"));
    let wide = format!("FROM scratch AS s\n{}{}", "ONBUILD USER x\n".repeat(3_000), "FROM s\n".repeat(3_000));
    assert!(planned_with(&wide, &Request { classic: true, ..Request::default() }).is_err());
    let unknown: String = (0..3_000).map(|number| format!("ENV A{number}=$unknown{number}${{other{number}}}\n")).collect();
    let _either = planned_with(&format!("FROM scratch\n{unknown}"), &Request { checks: true, ..Request::default() });
    let ports = format!("FROM scratch\n{}", "EXPOSE 1-65535\n".repeat(5_000));
    assert!(planned_with(&ports, &Request::default()).unwrap_err().message.contains("too large"));
}

proptest! {
    #[test]
    fn plans_are_in_order(parts in prop::collection::vec(PIECE, 0..14)) {
        let Ok(graph) = planned_with(&format!("FROM box AS a\n{}", parts.concat()), &Request { checks: true, ..Request::default() }) else {
            return Ok(());
        };
        for (number, op) in graph.ops.iter().enumerate() {
            prop_assert!(op.inputs().iter().all(|input| input.0 < number));
        }
        let made = graph.result.config.history.iter().filter(|entry| !entry.empty_layer && !entry.comment.is_empty()).count();
        prop_assert!(made <= graph.steps.iter().filter(|step| step.op.is_some()).count());
    }
}

const PIECE: &str = "FROM box\n|FROM a\n|FROM a AS b\n|FROM scratch\n|FROM trigger\n|RUN x\n|RUN --mount=from=a,target=/x y\n|COPY x /y\n|COPY --from=a /x /y\n|COPY --from=0 x y\n|COPY --from=box x y\n|ENV A=\\$B\n|ARG A=1\n|ONBUILD RUN x\n|ONBUILD COPY --from=a x y\n|WORKDIR a\n|WORKDIR /\n|CMD x\n|ENTRYPOINT x\n|EXPOSE 1-3\n|USER \\$A\n|LABEL a=b\n";
