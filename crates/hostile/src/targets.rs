//! The targets. Each takes any bytes, and panics when a promise is broken.

use std::io::Read as _;
use std::os::fd::AsFd as _;

use sampan_archive::Decompress;
use sampan_archive::tar::{Header, Kind, Reader, Writer};
use sampan_base::Cancel;
use sampan_layers::Mode;
use sampan_oci::{ArchiveItem, Digest, ImageConfig, Index, Manifest, Platform, Reference};
use sampan_shim::flat::{self, Flat};
use sampan_shim::plan::{Plan, ProcessPlan};
use sampan_shim::protocol::{Numbered, Reply, Request};

/// What archives are made of.
pub(crate) const TAR_WORDS: &[&str] = &[
    "../",
    "/etc/",
    ".wh.",
    ".wh..wh..opq",
    "11 path=a/b\n",
    "13 size=99999\n",
    "ustar\0",
    "00",
    "SCHILY.xattr.trusted.overlay.opaque=y",
    "\0\0\0\0",
    "GNU.sparse.major=1",
    "37777777777",
    "mtime=-1.5",
];

/// What requests and manifests are made of.
pub(crate) const JSON_WORDS: &[&str] = &[
    "null",
    "true",
    "[]",
    "{}",
    "\"\"",
    ":",
    ",",
    "1e400",
    "-1",
    "\\ud800",
    "\\u0000",
    "\"Cmd\":",
    "\"HostConfig\":{",
    "\"Mounts\":[{",
    "\"Healthcheck\":",
    "\"diff_ids\":",
    "[[[[[[[[",
    "%00",
    "%ff",
    "filters=",
    "+",
    "&",
];

/// What a registry's headers are made of.
pub(crate) const REGISTRY_WORDS: &[&str] = &[
    "Bearer realm=\"https://a/t\",service=\"s\",scope=\"repository:x:pull,push\"",
    "Basic realm=",
    "Negotiate abc==",
    "\"",
    "\\",
    ",",
    "=",
    "<https://h/v2/_catalog?last=a&n=2>; rel=\"next\"",
    ">",
    ";",
    "rel=",
    "Wed, 21 Oct 2015 07:28:00 GMT",
    "99999999999999999999",
];

/// The headers of a registry's replies: challenges, the next page, how long to wait. What is read stays within its limits.
pub(crate) fn registry(bytes: &[u8]) {
    let challenges = sampan_transfer::challenge::parse(bytes.split(|byte| *byte == b'\n'));
    assert!(challenges.len() <= 32 && challenges.iter().all(|challenge| challenge.parameters.len() <= 32));
    let quoted = |value: &str| format!("\"{}\"", value.replace('\\', "\\\\").replace('"', "\\\""));
    for challenge in &challenges {
        let parameters: Vec<_> = challenge.parameters.iter().map(|(name, value)| format!("{name}={}", quoted(value))).collect();
        let again = format!("{} {}", challenge.scheme, parameters.join(","));
        // A value that was cut in the middle of a character grows when it is written; only short ones must come back.
        if again.len() < 4096 {
            assert_eq!(sampan_transfer::challenge::parse([again.as_bytes()]), std::slice::from_ref(challenge), "{again}");
        }
    }
    if let Some(next) = sampan_transfer::headers::next_link(bytes.split(|byte| *byte == b'\n')) {
        assert!(!next.contains('>'));
    }
    let _pause = sampan_transfer::headers::retry_after(bytes, Default::default());
}

/// Reads every entry, and writes what was read: it must be read again the same.
pub(crate) fn tar(bytes: &[u8]) {
    check_tar(bytes);
    check_tar(&mended(bytes));
}

fn check_tar(bytes: &[u8]) {
    let mut reader = Reader::new(bytes);
    let mut entries: Vec<(Header, Vec<u8>)> = Vec::new();
    while let Ok(Some(mut header)) = reader.next_entry() {
        assert!(header.path.len() <= 4096 && header.link.len() <= 4096, "paths have a limit");
        assert!(!header.path.contains(&0) && !header.path.ends_with(b"/"), "paths are clean");
        assert!(header.kind == Kind::File || header.size == 0, "only files have content");
        assert!(header.mtime.1 < 1_000_000_000, "a second has so many nanoseconds");
        // Written in order of their names.
        header.xattrs.sort();
        let mut content = Vec::new();
        if reader.read_to_end(&mut content).is_err() {
            break;
        }
        assert_eq!(content.len() as u64, header.size, "an entry has the content that it promised");
        entries.push((header, content));
    }
    let mut writer = Writer::new(Vec::new());
    let written: Vec<_> = entries.iter().filter(|(header, content)| writer.append(header, &mut &content[..]).is_ok()).collect();
    let again = writer.finish().expect("memory does not fail");
    let mut reader = Reader::new(&again[..]);
    for (header, content) in written {
        let read = reader.next_entry().expect("what was written is read").expect("all of it");
        let mut bytes = Vec::new();
        reader.read_to_end(&mut bytes).expect("with its content");
        assert_eq!((&read, &bytes), (header, content), "what is written is read");
    }
}

/// The same with correct checksums: a mutation would hardly ever get past them.
fn mended(bytes: &[u8]) -> Vec<u8> {
    let mut out = bytes.to_vec();
    for block in out.chunks_exact_mut(512).filter(|block| &block[257..262] == b"ustar") {
        block[148..156].fill(b' ');
        let sum: u32 = block.iter().map(|byte| u32::from(*byte)).sum();
        block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    }
    out
}

/// Decompresses, at most 8 MiB.
pub(crate) fn compressed(bytes: &[u8]) {
    if let Ok(reader) = Decompress::new(bytes) {
        let mut out = Vec::new();
        let _either = reader.take(8 << 20).read_to_end(&mut out);
    }
}

/// Unpacks into a folder beside which nothing may change. The first byte says in which mode.
pub(crate) fn layer(bytes: &[u8]) {
    let (first, rest) = bytes.split_first().map_or((0, bytes), |(first, rest)| (*first, rest));
    let mode = if first & 1 == 0 { Mode::Layer } else { Mode::Plain };
    let folder = tempfile::tempdir().unwrap();
    let canary = folder.path().join("canary");
    std::fs::create_dir_all(folder.path().join("root/kept")).unwrap();
    std::fs::write(&canary, "untouched").unwrap();
    std::os::unix::fs::symlink(folder.path(), folder.path().join("root/out")).unwrap();
    std::os::unix::fs::symlink("../..", folder.path().join("root/kept/up")).unwrap();
    let before = canary.symlink_metadata().unwrap();
    let root = sampan_sys::dir::open(&folder.path().join("root")).unwrap();
    let extracted = sampan_layers::extract(&mended(rest)[..], root.as_fd(), mode, &Cancel::new());
    if extracted.is_ok() {
        let mut packed = Vec::new();
        sampan_layers::pack(root.as_fd(), &mut packed, sampan_layers::PackMode::Upper, &Cancel::new())
            .expect("what was unpacked can be packed");
    }
    let mut names: Vec<_> = std::fs::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    names.sort();
    assert_eq!(names, ["canary", "root"], "nothing appears outside");
    let after = canary.symlink_metadata().unwrap();
    let facts = |facts: &std::fs::Metadata| {
        use std::os::unix::fs::MetadataExt as _;
        (facts.mode(), facts.uid(), facts.gid(), facts.nlink(), facts.mtime_nsec(), facts.len())
    };
    assert_eq!(facts(&before), facts(&after), "nothing outside changes");
    let own = sampan_sys::dir::open(folder.path()).unwrap();
    sampan_sys::dir::remove_all(own.as_fd(), std::ffi::OsStr::new("root")).expect("everything can be removed");
}

/// References, digests, platforms.
pub(crate) fn reference(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    if let Ok(reference) = Reference::parse_normalized(&text) {
        assert_eq!(Reference::parse_normalized(&reference.to_string()).as_ref(), Ok(&reference));
        assert_eq!(Reference::parse_normalized(&reference.familiar()).as_ref(), Ok(&reference));
        let tagged = reference.with_default_tag();
        assert_eq!(Reference::parse_normalized(&tagged.familiar()), Ok(tagged));
    }
    if let Ok(digest) = text.parse::<Digest>() {
        assert!(!digest.hex().contains(['/', '.']), "digests are parts of paths");
    }
    if let Some(platform) = Platform::parse(&text) {
        assert_eq!(Platform::parse(&platform.to_string()), Some(platform));
    }
}

/// Manifests, indexes, the list of a docker-archive, configs.
pub(crate) fn manifest(bytes: &[u8]) {
    if let Ok(manifest) = Manifest::parse(bytes) {
        let again = Manifest::parse(&serde_json::to_vec(&manifest).unwrap());
        assert_eq!(again.ok(), Some(manifest));
    }
    if let Ok(index) = Index::parse(bytes) {
        assert_eq!(Index::parse(&serde_json::to_vec(&index).unwrap()).ok(), Some(index));
    }
    let _either = ArchiveItem::parse_list(bytes);
    if let Ok(config) = ImageConfig::parse(bytes) {
        ImageConfig::parse(&config.print()).expect("a config that is printed is read");
    }
}

/// Plans and messages. What is read is written byte for byte.
pub(crate) fn plan(bytes: &[u8]) {
    fn same<T: Flat>(bytes: &[u8]) {
        if let Ok(value) = flat::decode::<T>(bytes) {
            assert_eq!(flat::encode(&value), bytes, "one value has one form");
        }
    }
    same::<Plan>(bytes);
    same::<ProcessPlan>(bytes);
    same::<Numbered>(bytes);
    same::<Request>(bytes);
    same::<Reply>(bytes);
}

/// Bodies, filters and queries of requests; the first byte says which.
pub(crate) fn api(bytes: &[u8]) {
    use sampan_daemon::decode::{Part, decode};
    const PARTS: [Part; 6] = [Part::Create, Part::Exec, Part::Update, Part::Volume, Part::Query, Part::Path];
    let Some((first, rest)) = bytes.split_first() else { return };
    if let Err(message) = decode(PARTS[usize::from(*first) % PARTS.len()], rest) {
        assert!(!message.is_empty() && message.len() < 512 + 4 * bytes.len(), "an error says something, and not too much: {message:?}");
    }
}

/// Small languages: passwd and group files, `-c` of commit.
pub(crate) fn text(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    let (wish, file) = text.split_once('\n').unwrap_or((&text, ""));
    if let Ok(user) = sampan_runtime::users::resolve(wish, &[], file, file) {
        let in_range = |id: &u32| i32::try_from(*id).is_ok();
        assert!(in_range(&user.uid) && user.groups.iter().all(in_range), "no id is the kernel's word for unchanged: {user:?}");
    }
    let lines: Vec<String> = text.lines().map(str::to_owned).collect();
    let _either = sampan_build::apply_changes(&sampan_oci::ContainerConfig::default(), &lines);
}

/// What clients send to a registry: the first byte says which part of a request the rest is.
pub(crate) fn distribution(bytes: &[u8]) {
    use sampan_registry::name::{Digest, is_repository};
    use sampan_registry::range::{Wanted, parse_content_range, parse_range};
    use sampan_registry::route::{Query, Route};
    let Some((kind, rest)) = bytes.split_first() else { return };
    let text = String::from_utf8_lossy(rest);
    match kind % 5 {
        0 => {
            if let Ok(route) = Route::parse(&text)
                && let Some(name) = route.repository()
            {
                assert!(is_repository(name) && !name.contains("..") && !name.starts_with('/'), "names are clean");
            }
        }
        1 => {
            let length = u64::from(rest.first().copied().unwrap_or(0));
            if let Wanted::Part(part) = parse_range(&text, length) {
                assert!(part.start < part.end && part.end <= length, "a part lies inside");
            }
            if let Some(range) = parse_content_range(&text) {
                assert!(range.start < range.end, "a chunk has bytes");
            }
        }
        2 => {
            if let Ok(facts) = sampan_registry::manifest::parse(None, rest) {
                for digest in facts.blobs.iter().chain(&facts.children).chain(&facts.subject) {
                    assert_eq!(Digest::parse(digest.as_str()).as_ref(), Some(digest), "digests are checked");
                }
            }
        }
        3 => {
            let query = Query::parse(&text);
            let granted = sampan_registry::rights::grant(query.all("scope").chain([&*text]), Some(sampan_registry::users::Role::Pull));
            let allowed = |action: &str| action == "pull" || action == "*";
            assert!(granted.iter().all(|access| access.actions.iter().all(|action| allowed(action))), "no more than the role has");
        }
        _ => {
            let answer = sampan_registry::name::Digest::parse(&text);
            assert!(answer.is_none_or(|digest| digest.digits().bytes().all(|byte| byte.is_ascii_hexdigit())), "digits are digits");
        }
    }
}

pub(crate) const DOCKERFILE_WORDS: &[&str] = &[
    "\nFROM ",
    "\nRUN ",
    "\nCOPY --from=0 ",
    "\nADD --checksum=sha256:",
    "\nENV A=",
    "\nARG A",
    "\nONBUILD ",
    "\nHEALTHCHECK CMD ",
    " AS a",
    "<<EOF",
    "\nEOF\n",
    "<<-",
    "[\"",
    "\"]",
    "\\\n",
    "# escape=`\n",
    "# check=skip=all\n",
    "${A:-",
    "--mount=type=cache,target=/",
    "--chmod=",
    "scratch",
    "$A$A",
];

/// Any image, with everything that a configuration may have.
struct AnyImage;

impl sampan_build::plan::Bases for AnyImage {
    fn resolve(
        &self,
        reference: &sampan_oci::Reference,
        _platform: &sampan_oci::Platform,
    ) -> Result<sampan_build::plan::Base, sampan_build::plan::BaseError> {
        let mut config = sampan_oci::ImageConfig::default();
        config.config.env = Some(vec!["A=b".to_owned(), "odd".to_owned()]);
        config.config.on_build = Some(vec!["RUN x".to_owned(), reference.path().to_owned()]);
        config.config.working_dir = "a".to_owned();
        config.history.push(sampan_oci::History::default());
        let digest = "sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef".parse().unwrap();
        let image = sampan_build::plan::BaseImage { reference: reference.clone(), digest: None, id: sampan_oci::ImageId(digest) };
        Ok(sampan_build::plan::Base { image, config })
    }
}

/// A Dockerfile from bytes to a plan: positions lie in the file, inputs come before what uses them.
pub(crate) fn dockerfile(bytes: &[u8]) {
    use sampan_build::{dockerfile, plan};
    let lines = bytes.split(|byte| *byte == b'\n').count();
    let inside = |range: Option<dockerfile::Lines>| range.is_none_or(|range| range.first <= range.last && range.last <= lines);
    let file = match dockerfile::parse(bytes) {
        Ok(file) => file,
        Err(error) => {
            assert!(inside(error.lines), "a position outside of the file: {error:?}");
            let _text = dockerfile::excerpt("Dockerfile", bytes, error.lines);
            return;
        }
    };
    let request = plan::Request { checks: true, ..plan::Request::default() };
    match plan::plan(&file, &request, &AnyImage) {
        Err(error) => assert!(inside(error.lines), "a position outside of the file: {error:?}"),
        Ok(graph) => {
            assert!(graph.steps.iter().all(|step| inside(Some(step.lines))), "steps have positions in the file");
            for (number, op) in graph.ops.iter().enumerate() {
                assert!(op.inputs().iter().all(|input| input.0 < number), "inputs come first: {op:?}");
            }
            assert!(graph.warnings.iter().all(|warning| inside(warning.lines)), "findings have positions in the file");
        }
    }
}

/// A first line of variables (`A=b,C=d`), then a text to expand.
pub(crate) fn shellwords(bytes: &[u8]) {
    use sampan_gotext::shellwords::{Lexer, MAX_RESULT};
    let text = String::from_utf8_lossy(bytes);
    let (variables, text) = text.split_once('\n').unwrap_or(("", &text));
    let lookup = |name: &str| variables.split(',').find_map(|pair| pair.strip_prefix(name)?.strip_prefix('=')).map(str::to_owned);
    for lexer in [Lexer::new('\\'), Lexer { raw_quotes: true, raw_escapes: true, skip_unset: true, ..Lexer::new('`') }] {
        if let Ok(expansion) = lexer.expand(text, &lookup) {
            assert!(expansion.text.len() <= MAX_RESULT + 4, "results have a limit");
        }
    }
}

/// Patterns, an empty line, paths.
pub(crate) fn ignore(bytes: &[u8]) {
    use sampan_gotext::ignore::{Ignore, Level, read};
    let text = String::from_utf8_lossy(bytes);
    let (patterns, paths) = text.split_once("\n\n").unwrap_or((&text, "a/b/c"));
    let Ok(rules) = Ignore::new(&read(patterns)) else { return };
    for path in paths.lines().take(20) {
        let mut level = Level::default();
        for (at, _) in path.match_indices('/') {
            level = rules.enter(&level, &path[..at]);
            if level.ignored() && !rules.may_include_below(&path[..at]) {
                assert!(rules.matches(path), "nothing is kept where nobody looks: {path:?}");
            }
        }
        assert_eq!(rules.enter(&level, path).ignored(), rules.matches(path), "levels and paths agree: {path:?}");
    }
}
