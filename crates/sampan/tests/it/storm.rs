//! The crash storm: kill -9 of the daemon and of shims at random moments while several clients work, then what must hold.
//!
//! Every client keeps a ledger of what the engine has acknowledged. After each kill the daemon comes back and all ledgers are
//! compared with what it shows; what was asked for and not acknowledged may have happened or not, but never half. Nothing of
//! unfinished work may be left: processes, cgroups, links, published ports, mounts, folders. `SAMPAN_STORM` is the number of kills,
//! `SAMPAN_STORM_SEED` repeats the same draws (the moments themselves stay random).

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use sampan_base::Cancel;
use sampan_testkit::{Output, World, setup};

/// Clients at work.
const CLIENTS: u64 = 4;

/// Draws numbers (xorshift).
pub(crate) struct Dice(pub(crate) u64);

impl Dice {
    pub(crate) fn draw(&mut self, sides: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) % sides
    }
}

/// What a client knows of a container.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Life {
    Created,
    Running,
    /// Ends by itself with code 7.
    Brief,
    Stopped,
    /// A change was not acknowledged: as before or as wished.
    Unsure,
    /// A removal was not acknowledged.
    MayBeGone,
}

/// What one client was told.
#[derive(Debug, Default)]
struct Ledger {
    next: u32,
    containers: BTreeMap<String, Life>,
    /// Tags, and the text in `/mark` of their images (empty: none).
    tags: BTreeMap<String, String>,
    /// Tags whose removal or making was not acknowledged.
    unsure_tags: BTreeSet<String>,
}

/// One round's surroundings.
struct Round<'a> {
    world: &'a World,
    over: AtomicBool,
    /// Containers (first twelve digits) whose shim was killed.
    victims: &'a Mutex<BTreeSet<String>>,
}

impl Round<'_> {
    /// Runs a command line; `None` when it failed because of the storm.
    fn run(&self, line: &str) -> Option<String> {
        let output = self.world.sh(line);
        if output.code == 0 {
            return Some(output.stdout.trim().to_owned());
        }
        assert!(self.over.load(Ordering::SeqCst) || self.excused(&output), "$ {line}\n{output:?}\n{}", self.world.daemon_log());
        None
    }

    /// A killed shim's container fails in its own ways.
    fn excused(&self, output: &Output) -> bool {
        let hit = !self.victims.lock().expect("no panic").is_empty();
        let told = output.stderr.contains("is not running") || output.stderr.contains("shim");
        hit && (told || matches!(output.code, 137 | 255))
    }
}

/// Works until the storm hits.
fn client(round: &Round<'_>, number: u64, dice: &mut Dice, ledger: &mut Ledger) {
    while !round.over.load(Ordering::SeqCst) {
        let picked: Option<(String, Life)> = {
            let count = ledger.containers.len() as u64;
            let index = if count == 0 { 0 } else { usize::try_from(dice.draw(count)).expect("small") };
            ledger.containers.iter().nth(index).map(|(name, life)| (name.clone(), *life))
        };
        let roll = if ledger.containers.len() > 5 { 30 + dice.draw(70) } else { dice.draw(100) };
        match (roll, picked) {
            (0..45, _) => make(round, number, roll, ledger),
            (45..60, Some((name, Life::Running))) => {
                drop(round.run(&format!("docker exec {name} true")));
            }
            (60..70, Some((name, Life::Running))) => {
                ledger.containers.insert(name.clone(), Life::Unsure);
                if round.run(&format!("docker stop -t 0 {name}")).is_some() {
                    ledger.containers.insert(name, Life::Stopped);
                }
            }
            (45..55, Some((name, Life::Created | Life::Stopped))) => {
                ledger.containers.insert(name.clone(), Life::Unsure);
                if round.run(&format!("docker start {name}")).is_some() {
                    // One whose first start was not acknowledged.
                    let life = if name.starts_with(BRIEF) { Life::Brief } else { Life::Running };
                    ledger.containers.insert(name, life);
                }
            }
            (70..80, Some((name, life))) if life != Life::MayBeGone => commit(round, number, &name, ledger),
            (80..100, Some((name, _))) => {
                ledger.containers.insert(name.clone(), Life::MayBeGone);
                if round.run(&format!("docker rm -f {name}")).is_some() {
                    ledger.containers.remove(&name);
                }
            }
            (55..70, _) => images(round, number, dice, ledger),
            _ => {}
        }
    }
}

/// How the names of containers begin that end by themselves: also of those whose start was not acknowledged.
const BRIEF: &str = "brief";

/// Makes a container, one way or another.
fn make(round: &Round<'_>, number: u64, roll: u64, ledger: &mut Ledger) {
    ledger.next += 1;
    let brief = matches!(roll, 16..24);
    let name = format!("{}{number}-{}", if brief { BRIEF } else { "c" }, ledger.next);
    ledger.containers.insert(name.clone(), Life::MayBeGone);
    let (line, life) = match roll {
        0..8 => (format!("docker create --name {name} box sleep 10000"), Life::Created),
        8..16 => (format!("docker run -d -P --expose 80 --name {name} box sleep 10000"), Life::Running),
        _ if brief => (format!("docker run -d --name {name} -v data{number}:/data box sh -c 'sleep 0.2; exit 7'"), Life::Brief),
        24..30 => {
            if round.run(&format!("docker run --rm --name {name} box true")).is_some() {
                ledger.containers.remove(&name);
            }
            return;
        }
        _ => (format!("docker run -d --name {name} box sleep 10000"), Life::Running),
    };
    if round.run(&line).is_some() {
        ledger.containers.insert(name, life);
    }
}

fn commit(round: &Round<'_>, number: u64, name: &str, ledger: &mut Ledger) {
    ledger.next += 1;
    let (mark, tag) = (format!("{name}-{}", ledger.next), format!("made{number}:{}", ledger.next));
    ledger.unsure_tags.insert(tag.clone());
    let line = format!(
        "echo {mark} > mark-{mark} && docker cp -q mark-{mark} {name}:/mark && docker commit {name} {tag}; code=$?; rm -f mark-{mark}; exit $code"
    );
    if round.run(&line).is_some() {
        ledger.unsure_tags.remove(&tag);
        ledger.tags.insert(tag, mark);
    }
}

fn images(round: &Round<'_>, number: u64, dice: &mut Dice, ledger: &mut Ledger) {
    ledger.next += 1;
    match dice.draw(3) {
        0 => drop(round.run("docker load -q -i box.tar")),
        1 => {
            let tag = format!("named{number}:{}", ledger.next);
            ledger.unsure_tags.insert(tag.clone());
            if round.run(&format!("docker tag box {tag}")).is_some() {
                ledger.unsure_tags.remove(&tag);
                ledger.tags.insert(tag, String::new());
            }
        }
        _ => {
            let Some(tag) = ledger.tags.keys().next().cloned() else { return };
            ledger.tags.remove(&tag);
            ledger.unsure_tags.insert(tag.clone());
            if round.run(&format!("docker rmi -f {tag}")).is_some() {
                ledger.unsure_tags.remove(&tag);
            }
        }
    }
}

/// Tries until it holds.
pub(crate) fn eventually(world: &World, what: &str, check: impl Fn() -> Result<(), String>) {
    let end = Instant::now() + Duration::from_secs(60);
    loop {
        let Err(why) = check() else { return };
        assert!(Instant::now() < end, "{what}: {why}\n{}", world.daemon_log());
        std::thread::yield_now();
    }
}

fn same<T: Ord + std::fmt::Debug>(what: &str, wanted: &BTreeSet<T>, found: &BTreeSet<T>) -> Result<(), String> {
    if wanted == found { Ok(()) } else { Err(format!("{what}: wanted {wanted:?}, found {found:?}")) }
}

pub(crate) fn names(folder: &Path) -> BTreeSet<String> {
    std::fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.file_name().to_string_lossy().into_owned()).collect()
}

/// A container as the engine shows it; the error is there for messages.
#[derive(Debug, Clone)]
#[allow(dead_code, reason = "printed when something is wrong")]
pub(crate) struct Shown {
    id: String,
    status: String,
    code: i32,
    ports: usize,
    error: String,
}

pub(crate) fn shown(world: &World) -> BTreeMap<String, Shown> {
    let format = "{{.Name}}|{{.Id}}|{{.State.Status}}|{{.State.ExitCode}}|{{len .NetworkSettings.Ports}}|{{.State.Error}}";
    let text = world.ok(&format!("ids=$(docker ps -aq); [ -z \"$ids\" ] || docker inspect -f '{format}' $ids 2>/dev/null || :"));
    let one = |line: &str| {
        let mut parts = line.splitn(6, '|');
        let mut next = || parts.next().expect("six parts").to_owned();
        let name = next().trim_start_matches('/').to_owned();
        let (id, status) = (next(), next());
        let (code, ports) = (next().parse().expect("a code"), next().parse().expect("a number"));
        (name, Shown { id, status, code, ports, error: next() })
    };
    text.lines().map(one).collect()
}

/// Compares a ledger with what the engine shows, and takes over what was uncertain.
fn audit(world: &World, ledger: &mut Ledger, shown: &BTreeMap<String, Shown>, victims: &BTreeSet<String>) {
    let mut settled = BTreeMap::new();
    for (name, life) in std::mem::take(&mut ledger.containers) {
        let Some(container) = shown.get(&name) else {
            assert_eq!(life, Life::MayBeGone, "{name} was acknowledged and is lost\n{}", world.daemon_log());
            continue;
        };
        let hit = victims.contains(&container.id[..12]);
        let status = container.status.as_str();
        let codes: &[i32] = match life {
            // 128: killed while it started.
            _ if hit => &[0, 7, 128, 137, 255],
            Life::Brief => &[7],
            Life::Stopped => &[137],
            Life::Created => &[0],
            _ => &[0, 7, 137],
        };
        let fits = match life {
            Life::Created => status == "created",
            Life::Running => status == "running" || (hit && status == "exited" && container.code != 0),
            Life::Brief => status == "exited",
            Life::Stopped => status == "exited",
            Life::Unsure | Life::MayBeGone => matches!(status, "created" | "running" | "exited"),
        };
        let fits = fits && (status == "running" || codes.contains(&container.code));
        assert!(fits, "{name} was {life:?}{}: {container:?}\n{}", if hit { ", its shim was killed" } else { "" }, world.daemon_log());
        let now = match status {
            "created" => Life::Created,
            "running" => Life::Running,
            _ if container.code == 7 => Life::Brief,
            _ if container.code == 137 => Life::Stopped,
            _ => Life::Unsure,
        };
        settled.insert(name, now);
    }
    ledger.containers = settled;
    let tags: BTreeSet<String> = world.ok("docker images --format '{{.Repository}}:{{.Tag}}'").lines().map(str::to_owned).collect();
    for tag in ledger.tags.keys() {
        assert!(tags.contains(tag), "{tag} was acknowledged and is lost\n{}", world.daemon_log());
    }
    for tag in std::mem::take(&mut ledger.unsure_tags) {
        if tags.contains(&tag) {
            assert_eq!(world.sh(&format!("docker run --rm {tag} true")).code, 0, "{tag} is there and cannot be used");
            ledger.tags.insert(tag, String::new());
        }
    }
    if let Some((tag, mark)) = ledger.tags.iter().next_back().filter(|(_, mark)| !mark.is_empty()) {
        assert_eq!(world.ok(&format!("docker run --rm {tag} cat /mark")), *mark, "{tag}");
    }
}

/// What may be left beside what containers and images account for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Left {
    /// Nothing.
    Nothing,
    /// What a pull that ended early brought: parts of blobs, and layers that wait for the next try.
    OfPulls,
}

/// Nothing else is left.
pub(crate) fn residue(world: &World, shown: &BTreeMap<String, Shown>, mounts: &str, left: Left) -> Result<(), String> {
    let running: BTreeSet<String> =
        shown.values().filter(|container| container.status == "running").map(|container| container.id.clone()).collect();
    let short: BTreeSet<String> = running.iter().map(|id| id[..12].to_owned()).collect();
    let shims: Vec<String> = world.shims().into_iter().map(|(_, id)| id).collect();
    if shims.len() != short.len() {
        return Err(format!("shims: wanted {short:?}, found {shims:?}"));
    }
    same("shims", &short, &shims.into_iter().collect())?;
    let state = world.folder().join("run/containers");
    same("runtime folders", &running, &names(&state))?;
    let lib = world.folder().join("lib");
    same("containers' folders", &shown.values().map(|container| container.id.clone()).collect(), &names(&lib.join("containers")))?;
    let is_wrong = |name: &String| left == Left::Nothing || !name.starts_with("blob-");
    let unfinished = names(&lib.join("ingest")).into_iter().filter(is_wrong).collect();
    same("unfinished work", &BTreeSet::new(), &unfinished)?;
    same("trash", &BTreeSet::new(), &names(&lib.join("trash")))?;
    let layers = world.ok("docker image inspect -f '{{range .RootFS.Layers}}{{.}}\n{{end}}' $(docker images -aq)");
    let layers: BTreeSet<String> = layers.lines().filter_map(|line| line.strip_prefix("sha256:")).map(str::to_owned).collect();
    let stored = names(&lib.join("layers"));
    let mut found: BTreeSet<String> = stored.iter().filter_map(|name| name.split_once('.')).map(|(digest, _)| digest.to_owned()).collect();
    if stored.len() != found.len() {
        return Err(format!("layers: {stored:?}"));
    }
    if left == Left::OfPulls {
        found.retain(|layer| layers.contains(layer));
    }
    same("layers", &layers, &found)?;
    let volumes = world.ok("docker volume ls -q").lines().map(str::to_owned).collect();
    same("volumes", &volumes, &names(&lib.join("volumes")))?;
    for controller in ["", "memory", "pids", "devices", "freezer", "cpuset"] {
        let parent = Path::new("/sys/fs/cgroup").join(controller).join(world.name());
        if parent.is_dir() {
            let groups = std::fs::read_dir(&parent).into_iter().flatten().flatten().filter(|entry| entry.path().is_dir());
            let groups = groups.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
            same("cgroups", &running, &groups)?;
        }
    }
    let links = world.ok("ip -o link show type veth | grep -v lan0 | wc -l");
    if links != running.len().to_string() {
        return Err(format!("links: {links} for {} containers", running.len()));
    }
    let twice =
        world.ok("ids=$(docker ps -q); [ -z \"$ids\" ] || docker inspect -f '{{.NetworkSettings.IPAddress}}' $ids | sort | uniq -d");
    if !twice.is_empty() {
        return Err(format!("addresses given twice: {twice}"));
    }
    let ports: usize = shown.values().map(|container| container.ports).sum();
    // Pairs of address and port, which nft prints as they are in memory.
    let elements = world.ok("nft list ruleset | grep -oE ': 0xac11[0-9a-f]+0050' | wc -l");
    if elements != ports.to_string() {
        return Err(format!("published ports: {ports}, in the firewall {elements}:\n{}", world.ok("nft list ruleset")));
    }
    if world.ok("cat /proc/mounts") != *mounts {
        return Err(format!("mounts: {}", world.ok("cat /proc/mounts")));
    }
    Ok(())
}

pub(crate) fn kill(pid: u32) {
    let pid = i32::try_from(pid).ok().and_then(rustix::process::Pid::from_raw).expect("a process");
    // It may have ended by itself.
    let _gone_is_fine = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
}

/// Kills a random shim; its container is noted first.
fn kill_a_shim(world: &World, dice: &mut Dice, victims: &Mutex<BTreeSet<String>>) {
    let shims = world.shims();
    if shims.is_empty() {
        return;
    }
    let (pid, id) = &shims[usize::try_from(dice.draw(shims.len() as u64)).expect("small")];
    victims.lock().expect("no panic").insert(id.clone());
    kill(*pid);
}

#[test]
fn nothing_acknowledged_is_lost_and_nothing_unfinished_is_left() {
    let (kills, seed) = setup::storm();
    println!("crash storm: {kills} kills, SAMPAN_STORM_SEED={seed}");
    let mut dice = Dice(seed | 1);
    let mut world = World::with_docker();
    drop(world.ok("docker load -q -i box.tar"));
    let mounts = world.ok("cat /proc/mounts");
    let mut ledgers: Vec<Ledger> = (0..CLIENTS).map(|_| Ledger::default()).collect();
    let victims = Mutex::new(BTreeSet::new());
    for number in 1..=kills {
        let (shims, daemon_too) = (dice.draw(3), dice.draw(4) != 0);
        let moment = Duration::from_millis(dice.draw(1500));
        let seeds: Vec<u64> = (0..CLIENTS).map(|_| dice.draw(1 << 40)).collect();
        let daemon = world.daemon_pid();
        let round = Round { world: &world, over: AtomicBool::new(false), victims: &victims };
        std::thread::scope(|scope| {
            for ((number, ledger), seed) in (0..).zip(&mut ledgers).zip(&seeds) {
                let round = &round;
                scope.spawn(move || client(round, number, &mut Dice(seed | 1), ledger));
            }
            // The moment is what is random; nothing waits for it.
            let _never_cancelled = Cancel::new().wait_timeout(moment);
            for _ in 0..shims {
                kill_a_shim(&world, &mut dice, &victims);
            }
            round.over.store(true, Ordering::SeqCst);
            if daemon_too {
                kill(daemon);
            }
        });
        if daemon_too {
            world.daemon_ended();
            if dice.draw(3) == 0 {
                kill_a_shim(&world, &mut dice, &victims);
            }
            world.start_daemon();
        }
        let hit = victims.lock().expect("no panic").clone();
        // What was ending when the storm hit takes its time.
        eventually(&world, "brief containers end", || {
            let all = shown(&world);
            let brief = ledgers
                .iter()
                .flat_map(|ledger| &ledger.containers)
                .filter(|(name, life)| **life == Life::Brief || name.starts_with(BRIEF));
            let mut running = brief.filter(|(name, _)| all.get(*name).is_some_and(|container| container.status == "running"));
            let dying = all.values().find(|container| {
                container.status == "running" && hit.contains(&container.id[..12]) && container.code == 0 && {
                    !world.shims().iter().any(|(_, id)| *id == container.id[..12])
                }
            });
            running.next().map_or(Ok(()), |(name, _)| Err(name.clone()))?;
            dying.map_or(Ok(()), |container| Err(format!("{} has no shim", container.id)))
        });
        let all = shown(&world);
        for ledger in &mut ledgers {
            audit(&world, ledger, &all, &hit);
        }
        eventually(&world, "nothing is left", || residue(&world, &shown(&world), &mounts, Left::Nothing));
        println!("kill {number}: {} containers, {} shims killed so far, daemon {daemon_too}", all.len(), hit.len());
    }
    drop(world.ok("docker rm -f $(docker ps -aq) >/dev/null; docker ps -aq"));
    eventually(&world, "all is gone", || residue(&world, &BTreeMap::new(), &mounts, Left::Nothing));
}
