//! Push on one engine, pull on another: over TLS, under a real name, with a login, through Debian's docker-registry.
//!
//! What a registry of another make proves: that our client speaks to it as Docker does, not as our own server expects.

use sampan_testkit::{Fleet, REGISTRY_ADDRESS, REGISTRY_NAME, Service, World, images, setup};

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
