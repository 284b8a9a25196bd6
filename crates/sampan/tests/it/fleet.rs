//! The surroundings that tests of builds and registries stand on: an index of packages, and engines on one wire with a registry.

use sampan_testkit::{Fleet, REGISTRY_ADDRESS, REGISTRY_NAME, Service, World, images, index, setup};

/// A server of one file in a world.
fn serve(world: &World, address: &str) -> Service {
    let folder = world.folder().join("files");
    images::write(&folder.join("pypi/simple/flask/index.html"), b"flask is here\n").expect("a file in the world");
    let mut command = world.command(&setup::tool("package-index").display().to_string());
    command.arg(address).arg(folder);
    Service::start(world, "files", command, address)
}

#[test]
fn containers_with_a_network_reach_the_index_of_packages() {
    let world = World::with_our_docker();
    let _address = world.ok(&format!("ip address add {}/32 dev lo", index::ADDRESS));
    let mut server = serve(&world, &format!("{}:80", index::ADDRESS));
    let _loaded = world.ok("sampan load -q -i box.tar");
    for network in ["default", "bridge", "host"] {
        let line = format!("sampan run --rm --network {network} box wget -q -O - http://{}/pypi/simple/flask/", index::ADDRESS);
        assert_eq!(world.ok(&line), "flask is here", "{network}");
    }
    let none = world.sh(&format!("sampan run --rm --network none box wget -q -O - http://{}/pypi/simple/flask/", index::ADDRESS));
    assert_ne!(none.code, 0, "{none:?}");
    server.kill();
}

#[test]
fn engines_of_a_fleet_reach_the_registry_by_its_name() {
    let fleet = Fleet::start(2, World::with_our_docker);
    let mut server = serve(&fleet.harbor, &format!("{REGISTRY_ADDRESS}:5000"));
    for world in &fleet.engines {
        let asked = format!("curl -sS --noproxy '*' -m 10 http://{REGISTRY_NAME}:5000/pypi/simple/flask/");
        assert_eq!(world.ok(&asked), "flask is here");
        let _loaded = world.ok("sampan load -q -i box.tar");
        let inside = format!("sampan run --rm box wget -q -O - http://{REGISTRY_ADDRESS}:5000/pypi/simple/flask/");
        assert_eq!(world.ok(&inside), "flask is here");
    }
    // The engines have nothing in common but the wire.
    let _named = fleet.engines[0].ok("sampan tag box only:here");
    assert_eq!(fleet.engines[1].ok("sampan images -q only"), "");
    fleet.trust(1, "an authority\n");
    assert_eq!(fleet.engines[1].ok(&format!("cat /etc/sampan/certs.d/{REGISTRY_NAME}:5000/ca.crt")), "an authority");
    assert_ne!(fleet.engines[0].sh(&format!("cat /etc/sampan/certs.d/{REGISTRY_NAME}:5000/ca.crt")).code, 0);
    assert_eq!(fleet.harbor.ok("ls /run/sampan"), "", "no engine in the harbor");
    assert!(server.stop().code().is_none(), "ended by the signal");
    assert!(!std::path::Path::new(&format!("/proc/{}", server.pid())).exists());
}

#[test]
fn a_registry_s_folder_is_its_unprivileged_user_s() {
    let fleet = Fleet::start(0, World::with_our_docker);
    let root = fleet.registry_root();
    let mut command = fleet.harbor.command_as(65534, "bash");
    let line =
        format!("id -u; touch '{0}/mine' && stat -c %u '{0}/mine'; touch /run/sampan/other 2>/dev/null || echo refused", root.display());
    let output = command.args(["-c", &line]).output().unwrap();
    assert_eq!(String::from_utf8_lossy(&output.stdout), "65534\n65534\nrefused\n", "{output:?}");
}
