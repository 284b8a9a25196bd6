//! The seeds, made here. `cargo run -p sampan-hostile --bin seeds` writes them to `fuzz/seeds`; what the fuzzer finds is added
//! there beside them, under the name of its fault.

use std::io::Write as _;

use sampan_archive::tar::{Header, Kind, Writer};
use sampan_shim::flat::encode;
use sampan_shim::plan::{CgroupDirectory, CgroupPlan, DeviceNode, LogPlan, MountSource, MountStep, Plan, ProcessPlan};
use sampan_shim::protocol::{Numbered, Reply, Request, Stage, Streams};

/// Name and bytes of each seed of a target.
#[must_use]
pub fn of(target: &str) -> Vec<(&'static str, Vec<u8>)> {
    match target {
        "tar" => vec![("plain", archive(&plain())), ("pax", pax()), ("gnu", gnu())],
        "compressed" => compressed(),
        "layer" => layers(),
        "reference" => texts(&[
            ("short", "busybox"),
            ("full", "localhost:5000/a/b__c.d--e:Tag_1.0-x"),
            ("address", "[::1]:5000/x:t"),
            ("digest", "docker.io/library/box@sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"),
            ("platform", "linux/arm/v7"),
        ]),
        "manifest" => texts(&[("manifest", MANIFEST), ("index", INDEX), ("list", LIST), ("config", CONFIG)]),
        "distribution" => texts(&[
            ("manifest-path", "\u{0}/v2/team/app/manifests/latest"),
            ("blob-path", "\u{0}/v2/a/blobs/sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"),
            ("upload-path", "\u{0}/v2/a/b-c/blobs/uploads/0123456789abcdef0123456789abcdef"),
            ("range", "\u{1}bytes=2-5"),
            ("chunk", "\u{1}0-99"),
            (
                "artifact",
                "\u{2}{\"schemaVersion\":2,\"artifactType\":\"x/y\",\"config\":{\"mediaType\":\"application/vnd.oci.empty.v1+json\",\"digest\":\"sha256:44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a\",\"size\":2,\"data\":\"e30=\"},\"layers\":[],\"subject\":{\"digest\":\"sha256:44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a\",\"size\":2}}",
            ),
            ("scope", "\u{3}service=s&scope=repository%3Aa%2Fb%3Apull%2Cpush&scope=registry:catalog:*"),
        ]),
        "plan" => vec![("plan", encode(&plan())), ("process", encode(&plan().process))].into_iter().chain(messages()).collect(),
        "api" => texts(&[
            ("create", CREATE),
            (
                "exec",
                "\u{1}{\"Cmd\":[\"sh\"],\"Env\":[\"A=b\"],\"Tty\":true,\"ConsoleSize\":[24,80],\"User\":\"u\",\"Privileged\":false,\"Detach\":false}",
            ),
            (
                "update",
                "\u{2}{\"Memory\":67108864,\"PidsLimit\":5,\"RestartPolicy\":{\"Name\":\"on-failure\",\"MaximumRetryCount\":2},\"Ulimits\":[{\"Name\":\"nofile\",\"Soft\":1,\"Hard\":2}]}",
            ),
            ("volume", "\u{3}{\"Name\":\"v\",\"Driver\":\"local\",\"DriverOpts\":null,\"Labels\":{\"a\":\"b\"}}"),
            (
                "query",
                "\u{4}all=1&t=5&since=1.5&until=10m&filters=%7B%22label%22%3A%7B%22a%3Db%22%3Atrue%7D%2C%22until%22%3A%5B%225%22%5D%7D",
            ),
            ("path", "\u{5}/v1.41/containers/a%2Fb/json"),
        ]),
        "text" => texts(&[
            ("passwd", "user:users\nroot:x:0:0:root:/root:/bin/sh\nuser:x:1000:1001::/home/user:/bin/sh\nusers:x:100:user,other\n"),
            ("odd", "4242\na:b\n:::::::\n+::0:0:::\n"),
            ("range", "evil\nevil:x:4294967295:4294967294:::\n"),
            (
                "changes",
                "CMD [\"a\",\"b\"]\nENV A=b \"c d\"=e\nLABEL x=y\nEXPOSE 80 90-92/udp\nVOLUME [\"/a\"]\nUSER u:g\nWORKDIR a/b\nSTOPSIGNAL 9\nENTRYPOINT x\nONBUILD RUN x\nHEALTHCHECK --interval=5s CMD x\n",
            ),
        ]),
        "registry" => texts(&[
            (
                "challenges",
                "Negotiate abc=, Basic realm=\"x\"\nBearer realm=\"https://h/token\",service=\"a \\\"b\\\"\",scope=\"repository:x:pull,push\"",
            ),
            ("link", "<a>; rel=prev, </v2/x/tags/list?last=b&n=2>; title=\"<c>\"; rel=\"last next\""),
            ("pause", "Wed, 21 Oct 2015 07:28:00 GMT"),
            ("seconds", "120"),
        ]),
        "dockerfile" => texts(&[
            ("all", DOCKERFILE),
            (
                "stages",
                "# escape=`\nARG V=1\nFROM a:$V AS one\nONBUILD RUN x\nFROM one AS two\nCOPY --from=one /a `\n /b\nFROM scratch\nCOPY --from=0 --parents a/./b* /c/\nCOPY --from=x:1 . .\n",
            ),
            (
                "heredocs",
                "FROM a\nRUN <<EOF\n#!/bin/sh\nx\nEOF\nRUN cat <<-A <<\"B\"\n\tx\n\tA\ny\nB\nCOPY <<F /f\n$A\nF\nONBUILD RUN <<E\nq\nE\n",
            ),
            ("faulty", "FROM a\nENV a=${b!c}\nFOO\n"),
        ]),
        "shellwords" => texts(&[
            ("operators", "A=1.2.3,B=\n${A} ${A:-x} ${B:+y} ${A#*.} ${A##*.} ${A%.*} ${A%%.*} ${A/./-} ${A//./-} ${C?no}"),
            ("quotes", "A=b c\n'a $A' \"b \\\" $A\" c\\ d <<EOF $@ $1 ${A:-${B:-\"x\"}}"),
            ("open", "A=x\n${A:-'"),
        ]),
        "ignore" => texts(&[
            ("plain", "# c\n*.md\n!README.md\n/a/../b\n\nx.md\nREADME.md\nb/c\n"),
            ("deep", "**\n!**/keep\nnode_modules/**\na**b\n\na/keep\nnode_modules/x/keep\n"),
            ("classes", "[a-c]?*\n![^b]x\n\\*\n\nab/c\ncx\n*\n"),
        ]),
        _ => Vec::new(),
    }
}

const DOCKERFILE: &str = "# syntax=docker/dockerfile:1\n# check=skip=X\nARG B=a\nFROM --platform=$BUILDPLATFORM ${B}:1 AS build\nMAINTAINER me\nARG X=1 Y\nENV A=1 \"C D\"='e f'\nENV OLD form\nLABEL a=b\nRUN --mount=type=cache,id=x,target=/c,mode=0700 --network=none make $X \\\n # comment\n && b\nRUN [\"a\", \"b\"]\nCOPY --chown=1:2 --chmod=u=rwX,go= a* b /c/\nADD --checksum=sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef http://h/x.tar /d\nADD https://h/x.git#v1:sub /g\nWORKDIR w\nUSER u:g\nEXPOSE 80 90-92/UDP 1.2.3.4:5:6\nVOLUME [\"/v\"]\nSTOPSIGNAL SIGRTMIN+3\nSHELL [\"/bin/sh\", \"-ec\"]\nHEALTHCHECK --interval=5s --retries=3 CMD x\nENTRYPOINT [\"e\"]\nCMD c\nONBUILD COPY . .\n";
const MANIFEST: &str = r#"{"schemaVersion":2,"mediaType":"application/vnd.oci.image.manifest.v1+json","config":{"mediaType":"application/vnd.oci.image.config.v1+json","digest":"sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef","size":7},"layers":[{"mediaType":"application/vnd.oci.image.layer.v1.tar","digest":"sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef","size":32,"annotations":{"a":"b"}}]}"#;
const INDEX: &str = r#"{"schemaVersion":2,"manifests":[{"digest":"sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef","size":1,"platform":{"architecture":"arm","os":"linux","variant":"v7"},"annotations":{"io.containerd.image.name":"docker.io/library/box:1"}}]}"#;
const LIST: &str = r#"[{"Config":"a.json","RepoTags":["box:1",null],"Layers":["a/layer.tar"]},{"Config":"b","RepoTags":null,"Layers":[]}]"#;
const CONFIG: &str = r#"{"architecture":"amd64","config":{"User":"u","ExposedPorts":{"80/tcp":{}},"Env":["A=b"],"Cmd":["sh"],"Entrypoint":null,"Volumes":{"/v":{}},"WorkingDir":"/w","Labels":{"a":"b"},"StopSignal":"9","Healthcheck":{"Test":["CMD","x"],"Interval":5},"Odd":[1.5,null]},"created":"2024-01-01T00:00:00Z","history":[{"created_by":"x"},{"empty_layer":true}],"os":"linux","rootfs":{"type":"layers","diff_ids":["sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"]},"other":{"x":[]}}"#;
const CREATE: &str = "\0{\"Image\":\"box\",\"Cmd\":[\"sh\"],\"Env\":[\"A=b\"],\"Labels\":{\"a\":\"b\"},\"ExposedPorts\":{\"80/tcp\":{}},\"Volumes\":{\"/v\":{}},\"Healthcheck\":{\"Test\":[\"NONE\"],\"Interval\":1},\"HostConfig\":{\"Binds\":[\"/a:/b:ro\"],\"PortBindings\":{\"80/tcp\":[{\"HostIp\":\"127.0.0.1\",\"HostPort\":\"8000-8010\"}]},\"Mounts\":[{\"Type\":\"tmpfs\",\"Target\":\"/t\",\"TmpfsOptions\":{\"SizeBytes\":5,\"Mode\":511,\"Options\":[[\"noexec\"]]}},{\"Type\":\"volume\",\"Source\":\"v\",\"Target\":\"/v\",\"VolumeOptions\":{\"Subpath\":\"a/b\"}}],\"Memory\":7,\"Devices\":[{\"PathOnHost\":\"/dev/x\"}],\"Ulimits\":[],\"ConsoleSize\":[1,2],\"RestartPolicy\":{\"Name\":\"always\"},\"LogConfig\":{\"Type\":\"json-file\",\"Config\":{\"max-size\":\"1k\"}},\"Tmpfs\":{\"/x\":\"size=1\"},\"BlkioDeviceReadBps\":[{\"Path\":\"/dev/a\",\"Rate\":1}]},\"NetworkingConfig\":{\"EndpointsConfig\":{\"bridge\":{\"IPAMConfig\":{\"IPv4Address\":\"1.2.3.4\"}}}}}";

fn texts(list: &[(&'static str, &str)]) -> Vec<(&'static str, Vec<u8>)> {
    list.iter().map(|(name, text)| (*name, text.as_bytes().to_vec())).collect()
}

/// An archive of headers with their content.
#[must_use]
pub fn archive(entries: &[(Header, Vec<u8>)]) -> Vec<u8> {
    let mut writer = Writer::new(Vec::new());
    for (header, content) in entries {
        let mut header = header.clone();
        header.size = content.len() as u64;
        writer.append(&header, &mut &content[..]).unwrap();
    }
    writer.finish().unwrap()
}

fn entry(kind: Kind, path: &str, link: &str, content: &[u8]) -> (Header, Vec<u8>) {
    let mut header = Header::new(kind, path);
    header.link = link.as_bytes().to_vec();
    (header, content.to_vec())
}

fn plain() -> Vec<(Header, Vec<u8>)> {
    let mut device = Header::new(Kind::Character, "d/null");
    device.device = (1, 3);
    vec![
        entry(Kind::Directory, "d", "", b""),
        entry(Kind::File, "d/f", "", b"content"),
        entry(Kind::Symlink, "d/s", "../x", b""),
        entry(Kind::Hardlink, "d/h", "d/f", b""),
        entry(Kind::Fifo, "d/p", "", b""),
        (device, Vec::new()),
    ]
}

fn pax() -> Vec<u8> {
    let mut file = Header::new(Kind::File, "long/".repeat(40) + "name");
    file.mtime = (1_700_000_000, 123_456_789);
    file.uid = 3_000_000_000;
    file.xattrs = vec![("user.a".into(), b"value".to_vec()), ("security.capability".into(), vec![1, 0, 0, 2])];
    let global = raw("g", b'g', b"13 uid=12345\n14 mtime=-1.5\n", "");
    [global, archive(&[(file, b"x".to_vec())])].concat()
}

fn gnu() -> Vec<u8> {
    let name = "n".repeat(150);
    [raw("././@LongLink", b'L', name.as_bytes(), ""), raw("././@LongLink", b'K', b"target", ""), raw("short", b'2', b"", "short")].concat()
}

/// One raw entry of any type.
#[must_use]
pub fn raw(name: &str, kind: u8, content: &[u8], link: &str) -> Vec<u8> {
    let mut block = vec![0_u8; 512];
    let mut put = |at: usize, bytes: &[u8]| block[at..at + bytes.len()].copy_from_slice(bytes);
    put(0, name.as_bytes());
    put(100, b"0000644\0");
    put(108, b"0000000\0");
    put(116, b"0000000\0");
    put(124, format!("{:011o}\0", content.len()).as_bytes());
    put(136, b"00000000000\0");
    put(148, b"        ");
    put(156, &[kind]);
    put(157, link.as_bytes());
    put(257, b"ustar\x0000");
    let sum: u32 = block.iter().map(|byte| u32::from(*byte)).sum();
    block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    block.extend_from_slice(content);
    block.resize(block.len().next_multiple_of(512), 0);
    block
}

fn layers() -> Vec<(&'static str, Vec<u8>)> {
    let whiteouts = archive(&[
        entry(Kind::Directory, "d", "", b""),
        entry(Kind::File, "d/.wh..wh..opq", "", b""),
        entry(Kind::File, "d/.wh.gone", "", b""),
        entry(Kind::File, "d/new", "", b"new"),
        entry(Kind::File, ".wh...", "", b""),
    ]);
    let escapes = archive(&[
        entry(Kind::Symlink, "l", "/", b""),
        entry(Kind::File, "l/canary", "", b"in the root"),
        entry(Kind::File, "out/canary", "", b"through a link"),
        entry(Kind::File, "kept/up/canary", "", b"through dots"),
        entry(Kind::Hardlink, "hard", "out/canary", b""),
        entry(Kind::File, "out/.wh.canary", "", b""),
        entry(Kind::File, "kept/up/.wh..wh..opq", "", b""),
        entry(Kind::File, "../canary", "", b"refused"),
    ]);
    let replaced = archive(&[
        entry(Kind::Symlink, "x", "out", b""),
        entry(Kind::Directory, "x", "", b""),
        entry(Kind::File, "x/canary", "", b"in x"),
        entry(Kind::File, "x", "", b"a file"),
        entry(Kind::Directory, "", "", b""),
    ]);
    let with = |first: u8, bytes: &[u8]| [&[first], bytes].concat();
    vec![
        ("plain", with(1, &archive(&plain()))),
        ("whiteouts", with(0, &whiteouts)),
        ("escapes", with(0, &escapes)),
        ("replaced", with(0, &replaced)),
        ("copied", with(1, &escapes)),
    ]
}

fn compressed() -> Vec<(&'static str, Vec<u8>)> {
    // The smallest streams of each kind, of the text "seed\n".
    let zstd = [0x28, 0xb5, 0x2f, 0xfd, 0x20, 5, 0x29, 0, 0, b's', b'e', b'e', b'd', b'\n'];
    let mut gzip = vec![0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 3, 1, 5, 0, 0xfa, 0xff];
    gzip.write_all(b"seed\n").unwrap();
    gzip.extend(0x16ef_5fd7_u32.to_le_bytes());
    gzip.extend(5_u32.to_le_bytes());
    let xz = [0xfd, b'7', b'z', b'X', b'Z', 0, 0, 0, 0xff, 0x12, 0xd9, 0x41, 2, 0, 0x21, 1, 0x1c, 0, 0, 0, 0x10, 0xcf, 0x58, 0xcc];
    vec![("gzip", gzip), ("zstd", zstd.to_vec()), ("xz", xz.to_vec()), ("bzip2", b"BZh91AY&SY".to_vec()), ("none", b"seed\n".to_vec())]
}

fn plan() -> Plan {
    let process = ProcessPlan {
        arguments: vec!["sh".into()],
        environment: vec!["A=b".into()],
        cwd: "/".into(),
        groups: vec![1],
        limits: vec![(7, (1, 2))],
        oom_score_adj: Some(-1),
        seccomp: Some(vec![6, 0, 0, 0, 0, 0, 0xff, 0x7f]),
        ..ProcessPlan::default()
    };
    let bind = MountSource::Bind { path: "/a".into(), recursive: true };
    let beneath = MountSource::BindBeneath { directory: "/a".into(), path: "b".into() };
    let new = MountSource::New { kind: "tmpfs".into(), options: vec![("mode".into(), "755".into())] };
    Plan {
        id: "id".into(),
        process,
        mounts: [bind, beneath, new].map(|source| MountStep { source, target: "/t".into(), ..MountStep::default() }).into(),
        devices: vec![DeviceNode { path: "/dev/x".into(), ..DeviceNode::default() }],
        links: vec![("fd".into(), "/proc/self/fd".into())],
        cgroup: CgroupPlan {
            directories: vec![CgroupDirectory { path: "/c".into(), writes: vec![("f".into(), "v".into())], optional: true }],
            ..CgroupPlan::default()
        },
        log: Some(LogPlan { path: "/l".into(), ..LogPlan::default() }),
        ..Plan::default()
    }
}

fn messages() -> Vec<(&'static str, Vec<u8>)> {
    let streams = Streams { stdin: true, stdout: false, stderr: true };
    let exec = Request::Exec { exec: "e".into(), clients: vec![streams] };
    vec![
        ("exec", encode(&exec)),
        ("failed", encode(&Reply::Failed { stage: Stage::Mount {}, errno: 2, detail: "x".into() })),
        ("exited", encode(&Reply::Exited { exec: String::new(), code: 1, oom: false, at: 5 })),
        ("numbered", encode(&Numbered { number: 1, body: encode(&Request::Query {}) })),
    ]
}
