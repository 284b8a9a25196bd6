//! Push on one engine, pull on another: over TLS, under a real name, with a login, through our registry and Debian's.
//!
//! What a registry of another make proves: that our client speaks to it as Docker does, not as our own server expects.

use std::time::{Duration, Instant};

use sampan_testkit::{Fleet, Output, REGISTRY_ADDRESS, REGISTRY_NAME, Service, World, images, setup};

/// `sailor` with the password `three boards`, as bcrypt.
const ACCOUNTS: &[u8] = b"sailor:$2b$04$abcdefghijklmnopqrstuu87A.Rc2UNk8.kM/6rAAENesbUyEVrny\n";

/// A certificate for the registry's name, signed by itself: what is trusted and what is shown.
fn certificate(fleet: &Fleet) -> String {
    let root = fleet.registry_root();
    let names = format!("subjectAltName=DNS:{REGISTRY_NAME}");
    let line = format!(
        "cd '{}' && openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 -subj /CN=harbor \
         -addext '{names}' -keyout key.pem -out cert.pem 2>&1 && chmod 644 key.pem",
        root.display()
    );
    let _made = fleet.harbor.ok(&line);
    std::fs::read_to_string(root.join("cert.pem")).expect("the certificate that was made")
}

/// Debian's docker-registry of the peers, in the harbor.
fn serve(fleet: &Fleet) -> Service {
    let root = fleet.registry_root();
    let address = format!("{REGISTRY_ADDRESS}:5000");
    images::write(&root.join("accounts"), ACCOUNTS).expect("a file in the world");
    let settings = format!(
        "version: 0.1\nlog: {{level: info}}\nstorage: {{filesystem: {{rootdirectory: '{0}/data'}}, delete: {{enabled: true}}}}\n\
         http: {{addr: '{address}', tls: {{certificate: '{0}/cert.pem', key: '{0}/key.pem'}}}}\n\
         auth: {{htpasswd: {{realm: harbor, path: '{0}/accounts'}}}}\n",
        root.display()
    );
    images::write(&root.join("settings.yml"), settings.as_bytes()).expect("a file in the world");
    let program = setup::peer_program("registry2").expect("docker-registry is missing (./test installs it where the peers are)");
    let mut command = fleet.harbor.command_as(65534, &program.display().to_string());
    command.arg("serve").arg(root.join("settings.yml"));
    Service::start(&fleet.harbor, "registry", command, &address)
}

#[test]
fn an_image_goes_to_a_registry_and_comes_back_on_another_engine() {
    let fleet = Fleet::start(2, World::with_docker);
    let authority = certificate(&fleet);
    let registry = serve(&fleet);
    let host = format!("{REGISTRY_NAME}:5000");
    let [here, there] = &fleet.engines[..] else { panic!("two engines") };
    let login = |program: &str| format!("{program} login -u sailor --password-stdin {host} <<<'three boards'");

    // Without the authority nothing is told to the registry.
    let _loaded =
        here.ok(&format!("docker load -q -i box.tar && docker tag box {host}/shop/box:1.0 && docker tag box {host}/shop/box:2.0"));
    for line in [login("docker"), login("sampan"), format!("docker pull {host}/shop/box:1.0"), format!("docker push {host}/shop/box:1.0")] {
        let refused = here.sh(&format!("timeout 20 {line}"));
        assert!(refused.code == 1 && refused.stderr.contains("x509: certificate signed by unknown authority"), "{line}: {refused:?}");
    }
    assert!(!registry.log().contains("http.request.uri"), "the registry was asked:\n{}", registry.log());
    (0..2).for_each(|engine| fleet.trust(engine, &authority));

    // With it, and not logged in.
    let refused = here.sh(&format!("docker push {host}/shop/box:1.0"));
    assert!(refused.code == 1 && refused.stderr.contains("no basic auth credentials"), "{refused:?}");
    let wrong = here.sh(&format!("echo wrong | docker login -u sailor --password-stdin {host}"));
    assert!(wrong.code == 1 && wrong.stderr.contains("failed with status: 401 Unauthorized"), "{wrong:?}");
    for program in ["docker", "sampan"] {
        assert!(here.ok(&login(program)).ends_with("Login Succeeded"), "{program}");
    }
    let pushed = here.ok(&format!("docker push {host}/shop/box:1.0"));
    let digest = pushed.split("digest: ").nth(1).and_then(|rest| rest.split(' ').next()).expect("a digest").to_owned();
    let again = here.ok(&format!("sampan push {host}/shop/box:2.0"));
    assert!(again.contains("Layer already exists") && again.contains(&digest), "{again}");

    // The other engine shares nothing but the wire.
    let denied = there.sh(&format!("docker pull {host}/shop/box:1.0"));
    assert!(denied.code == 1 && denied.stderr.contains("no basic auth credentials"), "{denied:?}");
    assert!(there.ok(&login("docker")).ends_with("Login Succeeded"));
    assert_eq!(there.ok(&format!("docker run --rm --pull always -q {host}/shop/box:1.0 echo hello")), "hello");
    let pulled = there.ok(&format!("sampan pull {host}/shop/box@{digest}"));
    assert!(pulled.contains(&digest), "{pulled}");
    let id = |world: &World, name: &str| world.ok(&format!("docker inspect -f '{{{{.Id}}}} {{{{.Architecture}}}}' {name}"));
    assert_eq!(id(here, "box"), id(there, &format!("{host}/shop/box:1.0")));
    let shown = there.ok(&format!("docker images --digests --format '{{{{.Digest}}}}' {host}/shop/box"));
    assert_eq!(shown.lines().next(), Some(&*digest));
    assert!(there.ok(&format!("docker logout {host}")).contains("Removing login credentials"));
}

/// A program's command lines for one repository of our registry.
struct Sailor<'a> {
    fleet: &'a Fleet,
    registry: &'a Service,
    program: &'a str,
    name: String,
}

impl Sailor<'_> {
    fn login(&self, world: &World, password: &str) -> Output {
        world.sh(&format!("{} login -u sailor --password-stdin {REGISTRY_NAME}:5000 <<<'{password}'", self.program))
    }

    /// Builds the application as it is in `ctx/app`.
    fn build(&self, tag: &str) {
        let (program, name) = (self.program, &self.name);
        let _built = self.fleet.engines[0].ok(&format!("DOCKER_BUILDKIT=0 {program} build --network none -t {name}:{tag} ctx"));
    }

    /// Pushes a tag; gives the digest that the client was told, and what it printed.
    fn push(&self, tag: &str) -> (String, String) {
        let pushed = self.fleet.engines[0].ok(&format!("{} push {}:{tag}", self.program, self.name));
        let digest = pushed.split("digest: ").nth(1).and_then(|rest| rest.split(' ').next()).expect("a digest").to_owned();
        (digest, pushed)
    }

    /// What a command of the second engine asks the registry: methods, paths without what all have in common, statuses.
    fn asked(&self, work: impl FnOnce(&World)) -> Vec<String> {
        let before = self.settled("before");
        work(&self.fleet.engines[1]);
        let end = self.settled("after");
        let words = |line: &str| line.split(' ').skip(3).take(3).collect::<Vec<_>>().join(" ");
        let log = self.registry.log();
        let lines = log.lines().take(end).skip(before);
        lines.filter(|line| line.contains("/v2/") && !line.contains("/v2/mark-")).map(words).collect()
    }

    /// How many lines the registry's log has when all is written. A line is written after the answer, and some wait for others:
    /// one more request, and its line says that all before it are there.
    fn settled(&self, when: &str) -> usize {
        let mark = format!("/v2/mark-{when}/{}/tags/list", self.registry.log().lines().count());
        let _denied = self.fleet.harbor.sh(&format!("curl -sk --noproxy '*' https://{REGISTRY_NAME}:5000{mark}"));
        let end = Instant::now() + Duration::from_secs(30);
        loop {
            let log = self.registry.log();
            if let Some(line) = log.lines().position(|line| line.contains(&mark) && log.ends_with('\n')) {
                return line + 1;
            }
            assert!(Instant::now() < end, "the registry does not log:\n{log}");
            std::thread::yield_now();
        }
    }
}

fn blobs(asked: &[String]) -> Vec<&String> {
    asked.iter().filter(|line| line.starts_with("GET ") && line.contains("/blobs/")).collect()
}

/// A Dockerfile becomes an image, the image goes to our registry, comes back on another engine and runs.
fn voyage(program: &str) {
    let fleet = Fleet::start(2, World::with_docker);
    let registry = fleet.serve_with_user("sailor", "three boards");
    let sailor = Sailor { fleet: &fleet, registry: &registry, program, name: format!("{REGISTRY_NAME}:5000/shop/web") };
    let [here, there] = &fleet.engines[..] else { panic!("two engines") };
    let name = &sailor.name;
    let file = "FROM box\\nRUN seq 1 200000 > /numbers\\nCOPY app /app\\nCMD [\"sh\", \"/app\"]\\n";
    let _made = here.ok(&format!("docker load -q -i box.tar; mkdir ctx; printf '{file}' > ctx/Dockerfile; echo 'echo first' > ctx/app"));
    sailor.build("1.0");
    strangers(&sailor);
    for world in &fleet.engines {
        let login = sailor.login(world, "three boards");
        assert!(login.code == 0 && login.stdout.contains("Login Succeeded"), "{login:?}\n{}", registry.log());
    }

    let (first, pushed) = sailor.push("1.0");
    assert_eq!(pushed.matches(": Pushed").count(), 3, "{pushed}");
    let _changed = here.ok("echo 'echo second' > ctx/app");
    sailor.build("1.1");
    let (second, pushed) = sailor.push("1.1");
    assert_eq!((pushed.matches("Layer already exists").count(), pushed.matches(": Pushed").count()), (2, 1), "{pushed}");
    let (again, pushed) = sailor.push("1.1");
    assert_eq!((pushed.matches("Layer already exists").count(), &again), (3, &second), "{pushed}");

    // By tag, by digest, and only what is missing.
    let asked = sailor.asked(|there| drop(there.ok(&format!("{program} pull {name}:1.0"))));
    assert_eq!(blobs(&asked).len(), 4, "three layers and the config: {asked:?}");
    let asked = sailor.asked(|there| drop(there.ok(&format!("{program} pull {name}:1.1"))));
    assert_eq!(blobs(&asked).len(), 2, "a layer and the config: {asked:?}");
    let asked = sailor.asked(|there| {
        let pulled = there.ok(&format!("{program} pull {name}@{first}"));
        assert!(pulled.contains(&format!("Digest: {first}")) && pulled.contains("up to date"), "{pulled}");
    });
    assert_eq!(blobs(&asked).len(), 0, "{asked:?}");
    let run = |what: &str| there.ok(&format!("{program} run --rm --pull always -q {name}{what}"));
    assert_eq!((run(":1.0"), run(":1.1"), run(&format!("@{second}"))), ("first".into(), "second".into(), "second".into()));
    let id = |world: &World, what: &str| world.ok(&format!("{program} inspect -f '{{{{.Id}}}} {{{{.RootFS.Layers}}}}' {name}{what}"));
    for tag in [":1.0", ":1.1"] {
        assert_eq!(id(here, tag), id(there, tag));
    }
    everything(&sailor, &[("1.0", &first), ("1.1", &second)]);
    let found = there.ok(&format!("{program} search --format '{{{{.Name}}}}' {REGISTRY_NAME}:5000/web"));
    assert_eq!(found, "shop/web", "{}", registry.log());
    // What is missing is fetched to be run, and to be built on.
    let _gone = there.ok(&format!("{program} rmi {name}:1.0 {name}:1.1"));
    let ran = there.sh(&format!("{program} run --rm {name}:1.0"));
    assert_eq!((ran.code, &*ran.stdout), (0, "first\n"), "{ran:?}");
    let told = format!("Unable to find image '{name}:1.0' locally\n1.0: Pulling from shop/web\n");
    assert!(ran.stderr.starts_with(&told), "{ran:?}");
    let _built =
        there.ok(&format!("printf 'FROM {name}:1.1\\nRUN cat /app > /seen\\n' | DOCKER_BUILDKIT=0 {program} build --network none -t on -"));
    assert_eq!(there.ok(&format!("{program} run --rm on cat /seen")), "echo second");

    let removed = here.ok(&format!("{program} logout {REGISTRY_NAME}:5000"));
    assert!(removed.contains("Removing login credentials"), "{removed}");
    let refused = here.sh(&format!("{program} push {name}:1.1"));
    assert!(denied(&refused), "{refused:?}");
}

/// Who is not logged in is told so.
fn denied(output: &Output) -> bool {
    output.code == 1 && output.stderr.ends_with("unauthorized: authentication required\n")
}

/// Without the authority, without a login and with a wrong password nothing works.
fn strangers(sailor: &Sailor<'_>) {
    let (fleet, program, name) = (sailor.fleet, sailor.program, &sailor.name);
    let here = &fleet.engines[0];
    for refused in [
        sailor.login(here, "three boards"),
        here.sh(&format!("timeout 60 {program} pull {name}:1.0")),
        here.sh(&format!("timeout 60 {program} push {name}:1.0")),
    ] {
        assert!(refused.code == 1 && refused.stderr.contains("x509: certificate signed by unknown authority"), "{refused:?}");
    }
    assert!(!sailor.registry.log().contains("/v2/"), "the registry was asked:\n{}", sailor.registry.log());
    (0..2).for_each(|engine| fleet.trust(engine, &fleet.authority()));
    for what in ["push", "pull"] {
        let refused = here.sh(&format!("{program} {what} {name}:1.0"));
        assert!(denied(&refused), "{refused:?}");
    }
    let wrong = sailor.login(here, "two boards");
    assert!(wrong.code == 1 && wrong.stderr.contains("unauthorized: incorrect username or password"), "{wrong:?}");
}

/// `-a` brings every tag to an engine that has none, and sends every tag back.
fn everything(sailor: &Sailor<'_>, tags: &[(&str, &String)]) {
    let (program, name, there) = (sailor.program, &sailor.name, &sailor.fleet.engines[1]);
    let _gone = there.ok(&format!("{program} rmi $({program} images -q --no-trunc {name}) -f && {program} images -q {name} | wc -l"));
    let pulled = there.ok(&format!("{program} pull -a {name}"));
    let shown = there.ok(&format!("{program} images --digests --format '{{{{.Tag}}}} {{{{.Digest}}}}' {name} | sort"));
    let wanted: Vec<String> = tags.iter().map(|(tag, digest)| format!("{tag} {digest}")).collect();
    assert_eq!(shown.lines().collect::<Vec<_>>(), wanted, "{pulled}");
    let asked = sailor.asked(|there| {
        let pushed = there.ok(&format!("{program} push -a {name}"));
        for (tag, digest) in tags {
            assert!(pushed.contains(&format!("{tag}: digest: {digest}")), "{pushed}");
        }
    });
    assert_eq!(blobs(&asked).len() + asked.iter().filter(|line| line.starts_with("PATCH ")).count(), 0, "nothing was sent: {asked:?}");
}

#[test]
fn a_dockerfile_becomes_an_image_on_another_engine() {
    voyage("docker");
}

#[test]
fn our_own_command_line_does_the_same() {
    voyage("sampan");
}
