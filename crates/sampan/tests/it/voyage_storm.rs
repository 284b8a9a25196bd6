//! The storm at sea: kill -9 of the client, of a daemon or of the registry at random moments of build, push and pull.
//!
//! Each round brings new content on the way from a Dockerfile to a run on another engine, strikes one step of it, lets what was
//! killed come back, and looks: what was acknowledged is there, what can be seen is whole, nothing unfinished is left but what
//! goes on where it stopped. Then the whole way is gone again and must succeed, with the same digests everywhere.
//! `SAMPAN_STORM` is the number of kills, `SAMPAN_STORM_SEED` repeats the same draws.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use sampan_base::Cancel;
use sampan_testkit::{Fleet, Output, REGISTRY_NAME, Service, World, images, setup};

use crate::storm::{Dice, Left, eventually, kill, names, residue, shown};

/// What may be struck.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Step {
    Build,
    Push,
    Pull,
}

const WAY: [Step; 3] = [Step::Build, Step::Push, Step::Pull];

/// What may be killed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Victim {
    Client,
    Daemon,
    Registry,
    /// The registry, which is back before the client gives up.
    RegistryBriefly,
}

const VICTIMS: [Victim; 4] = [Victim::Client, Victim::Daemon, Victim::Registry, Victim::RegistryBriefly];

/// The sea, and how long each step takes in calm weather.
struct Sea {
    fleet: Fleet,
    registry: Service,
    dice: Dice,
    usual: BTreeMap<Step, Duration>,
    /// Mounts and processes of the engines' worlds at rest.
    rest: Vec<(String, String)>,
}

impl Step {
    /// The number of the engine that does it.
    fn engine(self) -> usize {
        usize::from(self == Self::Pull)
    }

    fn line(self, program: &str, name: &str) -> String {
        match self {
            Self::Build => format!("{program} build --pull --network none -t {name} ctx"),
            Self::Push => format!("{program} push {name}"),
            Self::Pull => format!("{program} pull {name}"),
        }
    }
}

fn image(number: u32) -> String {
    format!("{REGISTRY_NAME}:5000/shop/web:{number}")
}

/// Goes a step; the client's process is in `client.pid`.
fn go(fleet: &Fleet, step: Step, program: &str, name: &str) -> Output {
    let line = format!("echo $$ > client.pid; exec env DOCKER_BUILDKIT=0 {}", step.line(program, name));
    fleet.engines[step.engine()].sh(&line)
}

/// The digest that a client was told.
fn told(output: &Output) -> Option<String> {
    let rest = output.stdout.split("igest: ").nth(1)?;
    rest.split_whitespace().next().map(str::to_owned)
}

/// What an image says of its own content, made when it was built and again now.
fn content(world: &World, name: &str) -> String {
    world.ok(&format!("docker run --rm --network none {name} sh -c 'sha256sum /data | diff - /sum && cat /sum'"))
}

/// The names of all processes of a world.
fn processes(world: &World) -> String {
    world.ok("ps -eo comm= | sort | tr '\\n' ' '")
}

fn open_sea(seed: u64) -> Sea {
    let fleet = Fleet::start(2, World::with_docker);
    let registry = fleet.serve_with_user("sailor", "three boards");
    let root = fleet.registry_root();
    let captain = format!("echo x | sampan registry user add captain --role admin --data-root '{}' --password-stdin", root.display());
    let _added = fleet.harbor.ok(&captain);
    let base = format!("{REGISTRY_NAME}:5000/shop/base:1");
    let file = format!("FROM {base}\\nCOPY data /data\\nRUN sha256sum /data > /sum\\nRUN head -c 500000 /data > /part\\n");
    for (number, world) in fleet.engines.iter().enumerate() {
        fleet.trust(number, &fleet.authority());
        let _loaded = world.ok(&format!("docker load -q -i box.tar; mkdir ctx; printf '{file}' > ctx/Dockerfile"));
        let _in = world.ok(&format!("docker login -u sailor --password-stdin {REGISTRY_NAME}:5000 <<<'three boards'"));
    }
    let _base = fleet.engines[0].ok(&format!("docker tag box {base} && docker push -q {base}"));
    let rest = fleet.engines.iter().map(|world| (world.ok("cat /proc/mounts"), processes(world))).collect();
    Sea { fleet, registry, dice: Dice(seed | 1), usual: BTreeMap::new(), rest }
}

impl Sea {
    /// New content.
    fn load(&mut self, number: u32) {
        let words = 250_000 + self.dice.draw(250_000);
        let data: Vec<u8> = (0..words).flat_map(|_| self.dice.draw(1 << 53).to_be_bytes()).collect();
        let path = self.fleet.engines[0].folder().join("work/ctx/data");
        images::write(&path, &data).unwrap_or_else(|error| panic!("content {number}: {error}"));
    }

    /// Goes a step that must succeed.
    fn must(&mut self, step: Step, program: &str, name: &str) -> Output {
        let begun = Instant::now();
        let output = go(&self.fleet, step, program, name);
        let world = &self.fleet.engines[step.engine()];
        let logs = || format!("{}\n{}", world.daemon_log(), self.registry.log());
        assert_eq!(output.code, 0, "{}: {output:?}\n{}", step.line(program, name), logs());
        self.usual.entry(step).or_insert_with(|| begun.elapsed());
        output
    }

    /// Goes a step, and kills something meanwhile; gives how the step ended. What was killed is back then.
    fn strike(&mut self, step: Step, victim: Victim, program: &str, name: &str) -> Output {
        let usual = u64::try_from(self.usual[&step].as_millis()).expect("short");
        let moment = Duration::from_millis(self.dice.draw(usual + usual / 10 + 1));
        let daemon = self.fleet.engines[step.engine()].daemon_pid();
        let (fleet, registry) = (&self.fleet, &mut self.registry);
        let output = std::thread::scope(|scope| {
            let client = scope.spawn(move || go(fleet, step, program, name));
            // The moment is what is random; nothing waits for it.
            let _never_cancelled = Cancel::new().wait_timeout(moment);
            match victim {
                // It may have ended by itself, or not have begun.
                Victim::Client => drop(fleet.engines[step.engine()].sh("kill -9 $(cat client.pid)")),
                Victim::Daemon => kill(daemon),
                Victim::Registry => registry.kill(),
                Victim::RegistryBriefly => {
                    registry.kill();
                    *registry = back(fleet);
                }
            }
            client.join().expect("the client's thread does not panic")
        });
        if victim == Victim::Daemon {
            let world = &mut self.fleet.engines[step.engine()];
            world.daemon_ended();
            world.start_daemon();
        }
        if victim == Victim::Registry {
            self.registry = back(&self.fleet);
        }
        output
    }

    /// What was acknowledged is there, and what is there is whole.
    fn whole(&self, step: Step, output: &Output, name: &str) {
        let world = &self.fleet.engines[step.engine()];
        let done = output.code == 0;
        if step == Step::Push {
            let (rest, tag) = name.rsplit_once(':').expect("a tag");
            let repository = rest.split_once('/').expect("a host").1;
            let curl = "curl -s --cacert /etc/sampan/certs.d/*/ca.crt --noproxy '*' -u captain:x -o /dev/null -w '%{http_code}'";
            let kinds = "-H 'Accept: application/vnd.docker.distribution.manifest.v2+json, application/vnd.oci.image.manifest.v1+json'";
            let status = world.ok(&format!("{curl} {kinds} https://{REGISTRY_NAME}:5000/v2/{repository}/manifests/{tag}"));
            assert!(status == "200" || (!done && status == "404"), "{name}: {status}, {output:?}\n{}", self.registry.log());
            if status == "200" {
                let there = &self.fleet.engines[1];
                let _pulled = there.ok(&format!("docker pull -q {name}"));
                let _sum = content(there, name);
                let _gone = there.ok(&format!("docker rmi {name}"));
            }
            return;
        }
        let is_there = world.sh(&format!("docker image inspect {name}")).code == 0;
        assert!(is_there || !done, "{name} was acknowledged and is lost: {output:?}\n{}", world.daemon_log());
        if is_there {
            let _sum = content(world, name);
        }
    }

    /// Nothing else is left on the engines.
    fn clean(&self, left: Left) {
        for (world, (mounts, rest)) in self.fleet.engines.iter().zip(&self.rest) {
            eventually(world, "nothing is left", || {
                let now = processes(world);
                if now != *rest {
                    return Err(format!("processes: {now}, at rest {rest}"));
                }
                residue(world, &shown(world), mounts, left)
            });
        }
    }

    /// Every file of the registry has its row.
    fn registry_is_clean(&self) {
        let curl = "curl -sS --cacert /etc/sampan/certs.d/*/ca.crt --noproxy '*' -u captain:x";
        let line = format!("{curl} https://{REGISTRY_NAME}:5000/metrics | sed -n 's/^sampan_registry_blobs //p'");
        let root = self.fleet.registry_root();
        eventually(&self.fleet.engines[0], "the registry has no file without a row", || {
            let rows = self.fleet.engines[0].ok(&line);
            let files = self.fleet.harbor.ok(&format!("find '{}/blobs' -type f | wc -l", root.display()));
            let trash = names(&root.join("trash"));
            if rows == files && trash.is_empty() { Ok(()) } else { Err(format!("{rows} rows, {files} files, trash {trash:?}")) }
        });
    }
}

/// The registry after a kill: its authority, users and images are those it had.
fn back(fleet: &Fleet) -> Service {
    fleet.serve_registry(&["--tls-generate", "--hostname", REGISTRY_NAME])
}

#[test]
fn whatever_is_killed_on_the_way_a_retry_arrives() {
    let (kills, seed) = setup::storm();
    println!("storm of the voyage: {kills} kills, SAMPAN_STORM_SEED={seed}");
    let mut sea = open_sea(seed);
    for number in 0..=kills {
        let name = image(number);
        let program = ["docker", "sampan"][usize::from(sea.dice.draw(2) == 0)];
        sea.load(number);
        // The first way is gone in calm weather.
        if number > 0 {
            let step = WAY[usize::try_from(sea.dice.draw(3)).expect("small")];
            let victim = VICTIMS[usize::try_from(sea.dice.draw(4)).expect("small")];
            for before in WAY.into_iter().take_while(|before| *before != step) {
                let _done = sea.must(before, program, &name);
            }
            let output = sea.strike(step, victim, program, &name);
            let error = output.stderr.lines().last().unwrap_or_default();
            println!("kill {number}: {victim:?} while {program} did {step:?}, which ended with {}: {error}", output.code);
            assert!(matches!(output.code, 0 | 137) || !error.is_empty(), "it failed and does not say why: {output:?}");
            sea.whole(step, &output, &name);
            sea.clean(Left::OfPulls);
        }
        let outputs = WAY.map(|step| sea.must(step, program, &name));
        assert!(told(&outputs[1]).is_some() && told(&outputs[1]) == told(&outputs[2]), "{outputs:?}");
        let [here, there] = &sea.fleet.engines[..] else { panic!("two engines") };
        let id = format!("docker inspect -f '{{{{.Id}}}} {{{{index .RepoDigests 0}}}}' {name}");
        assert_eq!((here.ok(&id), content(here, &name)), (there.ok(&id), content(there, &name)));
        let _gone = there.ok(&format!("docker rmi {name}"));
        sea.clean(Left::Nothing);
    }
    sea.registry_is_clean();
    println!("in calm weather: {:?}", sea.usual);
}
