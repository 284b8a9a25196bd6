//! Several worlds on one wire: a registry's, and one for each engine.
//!
//! The registry's world has a bridge, every other world a veth pair into it, and all know the registry by a real name at an
//! address that is not loopback, as clients ask for no TLS there. The addresses are of a range kept for documentation
//! (RFC 5737); nothing leads out of the wire. The registry itself is started by the test: it is what the test is about.

use std::process::Command;

use crate::service::Service;
use crate::{World, WorldOptions};

/// The registry's name in every world of a fleet.
pub const REGISTRY_NAME: &str = "registry.sampan.test";
/// The registry's address.
pub const REGISTRY_ADDRESS: &str = "203.0.113.1";
/// The user that the registry runs as: nobody.
const REGISTRY_USER: u32 = 65534;

/// Worlds that reach one another.
#[derive(Debug)]
pub struct Fleet {
    /// The registry's world; no engine runs in it.
    pub harbor: World,
    /// The engines' worlds.
    pub engines: Vec<World>,
}

impl Fleet {
    /// Makes the registry's world, so many others by `make`, and the wire.
    ///
    /// # Panics
    /// When the machine lacks what it takes (root, iproute2); the message says what.
    #[must_use]
    pub fn start(count: u8, make: impl Fn() -> World) -> Self {
        let harbor = World::start(WorldOptions { no_daemon: true, ..WorldOptions::default() });
        let bridge = format!("ip link add lan0 type bridge && ip address add {REGISTRY_ADDRESS}/24 dev lan0 && ip link set lan0 up");
        let _made = harbor.ok(&bridge);
        harbor.name_address(REGISTRY_NAME, REGISTRY_ADDRESS);
        let mut fleet = Self { harbor, engines: Vec::new() };
        for number in 0..count {
            fleet.join(make(), number);
        }
        fleet
    }

    /// Puts a world on the wire: its address ends in 10 and more.
    fn join(&mut self, world: World, number: u8) {
        let (harbor, own) = (&self.harbor, world.init());
        // The process id is the host's, so the command enters the network alone; the pair is never seen outside the two worlds.
        let mut add = Command::new("nsenter");
        add.args(["-t", &harbor.init().to_string(), "-n", "ip", "link", "add", &format!("port{number}"), "type", "veth"]);
        let status = add.args(["peer", "name", "lan0", "netns", &own.to_string()]).status().expect("nsenter starts");
        assert!(status.success(), "cannot make a veth pair between two worlds: root and iproute2 are needed");
        let _up = harbor.ok(&format!("ip link set port{number} master lan0 && ip link set port{number} up"));
        let _up = world.ok(&format!("ip address add 203.0.113.{}/24 dev lan0 && ip link set lan0 up", 10 + number));
        world.name_address(REGISTRY_NAME, REGISTRY_ADDRESS);
        self.engines.push(world);
    }

    /// A folder of the registry's world that the registry's unprivileged user owns.
    ///
    /// # Panics
    /// When it cannot be made.
    #[must_use]
    pub fn registry_root(&self) -> std::path::PathBuf {
        let folder = self.harbor.folder().join("registry");
        std::fs::create_dir_all(&folder).expect("a folder in the world's folder");
        std::os::unix::fs::chown(&folder, Some(REGISTRY_USER), Some(REGISTRY_USER)).expect("root gives folders away");
        folder
    }

    /// Starts `sampan registry serve` as an unprivileged user on port 5000, its data root [`Self::registry_root`], with further words.
    ///
    /// # Panics
    /// When it does not answer; with what it printed.
    #[must_use]
    pub fn serve_registry(&self, words: &[&str]) -> Service {
        let address = format!("{REGISTRY_ADDRESS}:5000");
        let root = self.registry_root();
        let mut command = self.harbor.command_as(REGISTRY_USER, "sampan");
        command.args(["registry", "serve", "--listen", &address, "--data-root"]).arg(&root).args(words).env("HOME", &root);
        Service::start(&self.harbor, "registry", command, &address)
    }

    /// Our own registry as an administrator sets it up: with an authority of its own and a user who may push. What is asked is
    /// in its log, a line for each request.
    ///
    /// # Panics
    /// When it does not answer, or the user cannot be added.
    #[must_use]
    pub fn serve_with_user(&self, user: &str, password: &str) -> Service {
        let registry = self.serve_registry(&["--tls-generate", "--hostname", REGISTRY_NAME]);
        let root = self.registry_root();
        let line = format!("sampan registry user add {user} --data-root '{}' --password-stdin", root.display());
        let added = self.harbor.sh_with_input(&line, password.as_bytes());
        assert_eq!((added.code, added.stdout.trim()), (0, user), "{added:?}\n{}", registry.log());
        registry
    }

    /// The certificate of the authority that our registry made.
    ///
    /// # Panics
    /// When there is none.
    #[must_use]
    pub fn authority(&self) -> String {
        self.harbor.ok(&format!("cat '{}/tls/ca.crt'", self.registry_root().display())) + "\n"
    }

    /// Makes an engine trust an authority for the registry, as an administrator does: by a file in `certs.d`.
    ///
    /// # Panics
    /// When the file cannot be written.
    pub fn trust(&self, engine: usize, authority: &str) {
        let path = self.engines[engine].folder().join(format!("etc/certs.d/{REGISTRY_NAME}:5000/ca.crt"));
        crate::images::write(&path, authority.as_bytes()).expect("a file in the world's folder");
    }
}
