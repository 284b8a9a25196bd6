//! Health probes as users see them: the verdict in inspect, ps and events, what stops them, what a killed daemon's successor does.

use sampan_testkit::World;

use crate::storm::{eventually, kill};

fn world() -> World {
    let world = World::with_our_docker();
    drop(world.ok("docker load -q -i box.tar"));
    world
}

const VERDICT: &str = "docker inspect -f '{{.State.Health.Status}} {{.State.Health.FailingStreak}}'";
const RESULTS: &str = "docker inspect -f '{{range .State.Health.Log}}{{.ExitCode}} {{printf \"%q\" .Output}};{{end}}'";

fn becomes(world: &World, name: &str, wanted: &str) {
    eventually(world, wanted, || {
        let found = world.ok(&format!("{VERDICT} {name}"));
        if found.starts_with(wanted) { Ok(()) } else { Err(found) }
    });
}

/// The newest result.
fn last_result(world: &World, name: &str) -> String {
    let results = world.ok(&format!("{RESULTS} {name}"));
    results.trim_end_matches(';').rsplit(';').next().unwrap_or_default().to_owned()
}

/// Creates and starts a container whose probe is given as in the API; it fails once to be unhealthy.
fn with_test(world: &World, name: &str, test: &str) {
    let body = format!(r#"{{"Image":"box","Cmd":["sleep","1000"],"Healthcheck":{{"Test":{test},"Interval":50000000,"Retries":1}}}}"#);
    let url = format!("http://localhost/v1.51/containers/create?name={name}");
    let line = format!("curl -sf --unix-socket /run/sampan/sampan.sock -H 'Content-Type: application/json' '{url}' -d '{body}'");
    assert!(world.ok(&line).contains("\"Warnings\":[]"));
    drop(world.ok(&format!("docker start {name}")));
}

#[test]
fn a_verdict_is_seen_everywhere_and_changes() {
    let world = world();
    let begin = world.ok("date +%s.%N");
    let probe = "--health-cmd 'echo asked; test -e /tmp/well' --health-interval 50ms --health-retries 2";
    drop(world.ok(&format!("docker run -d --name web --health-start-period 1h --health-start-interval 50ms {probe} box sleep 1000")));
    // In the start period failures do not count.
    eventually(&world, "probes", || if last_result(&world, "web") == "1 \"asked\\n\"" { Ok(()) } else { Err("none".into()) });
    assert_eq!(world.ok(&format!("{VERDICT} web")), "starting 0");
    let status = "docker ps --format '{{.Names}} {{.Status}}'";
    assert!(world.ok(status).ends_with("(health: starting)"), "{}", world.ok(status));
    drop(world.ok("docker exec web touch /tmp/well"));
    becomes(&world, "web", "healthy 0");
    assert!(world.ok(status).ends_with("(healthy)"));
    assert_eq!(last_result(&world, "web"), "0 \"asked\\n\"");
    drop(world.ok("docker exec web rm /tmp/well"));
    becomes(&world, "web", "unhealthy");
    assert!(world.ok(status).ends_with("(unhealthy)"));
    drop(world.ok("docker run -d --name none --no-healthcheck box sleep 1000"));
    for (wanted, names) in [("healthy", ""), ("unhealthy", "web"), ("starting", ""), ("none", "none")] {
        assert_eq!(world.ok(&format!("docker ps --filter health={wanted} --format '{{{{.Names}}}}'")), names, "{wanted}");
    }
    let refusal = world.sh("docker ps --filter health=ill").stderr;
    assert!(refusal.contains("invalid value for health (ill): must be one of none, starting, healthy, unhealthy"), "{refusal}");
    let events = |filter: &str| {
        world
            .ok(&format!("docker events --since {begin} --until $(date +%s.%N) --filter container=web {filter} --format '{{{{.Action}}}}'"))
    };
    assert_eq!(events("--filter event=health_status"), "health_status: healthy\nhealth_status: unhealthy");
    assert_eq!(events("--filter 'event=health_status: healthy'"), "health_status: healthy");
    let execs = events("--filter event=exec_create");
    assert!(execs.starts_with("exec_create: /bin/sh -c echo asked; test -e /tmp/well"), "{execs}");
    // Five results are kept, with their times.
    assert_eq!(world.ok("docker inspect -f '{{len .State.Health.Log}}' web"), "5");
    drop(world.ok("docker rm -f web none"));
}

#[test]
fn who_is_not_probed_counts_as_unhealthy() {
    let world = world();
    drop(world.ok("docker run -d --name web --health-cmd true --health-interval 50ms box sleep 1000"));
    becomes(&world, "web", "healthy 0");
    drop(world.ok("docker pause web"));
    assert_eq!(world.ok(&format!("{VERDICT} web")), "unhealthy 0");
    assert!(world.ok("docker ps --format '{{.Status}}'").ends_with("(Paused)"));
    drop(world.ok("docker unpause web"));
    becomes(&world, "web", "healthy 0");
    drop(world.ok("docker stop -t 0 web"));
    assert_eq!(world.ok(&format!("{VERDICT} web")), "unhealthy 0");
    let count = world.ok("docker inspect -f '{{len .State.Health.Log}}' web");
    assert_ne!(count, "0");
    drop(world.ok("docker start web"));
    becomes(&world, "web", "healthy 0");
    // Removed in the middle of a probe that never ends.
    drop(world.ok("docker run -d --name slow --health-cmd 'sleep 1000' --health-interval 1ms --health-timeout 1h box sleep 1000"));
    eventually(&world, "a probe", || {
        let execs = world.ok("docker inspect -f '{{len .ExecIDs}}' slow");
        if execs == "1" { Ok(()) } else { Err(execs) }
    });
    drop(world.ok("docker rm -f slow web"));
}

#[test]
fn every_end_of_a_probe_is_a_result() {
    let world = world();
    with_test(&world, "missing", r#"["CMD","nope","x"]"#);
    with_test(&world, "empty", r#"["CMD"]"#);
    with_test(&world, "killed", r#"["CMD-SHELL","kill -9 $$"]"#);
    with_test(&world, "words", r#"["CMD-SHELL","echo $0","word"]"#);
    with_test(&world, "bytes", r#"["CMD-SHELL","printf \"a\\377b\"; exit 2"]"#);
    let not_found = "exec: \\\"nope\\\": executable file not found in $PATH\"";
    for (name, verdict, start, end) in [
        ("missing", "unhealthy", "-1 \"OCI runtime exec failed: exec failed: unable to start container process: ", not_found),
        // The original's daemon ends here.
        ("empty", "unhealthy", "-1 \"", "No exec command specified\""),
        ("killed", "unhealthy", "137 \"", "\""),
        ("words", "healthy", "0 \"word\\n\"", ""),
        ("bytes", "unhealthy", "2 \"a\u{fffd}b\"", ""),
    ] {
        becomes(&world, name, verdict);
        let result = last_result(&world, name);
        assert!(result.starts_with(start) && result.ends_with(end), "{name}: {result}");
    }
    with_test(&world, "unknown", r#"["OTHER","x"]"#);
    assert_eq!(world.ok("docker inspect -f '{{json .State.Health}}' unknown"), "null");
    let probe = "--health-interval 50ms --health-timeout 200ms --health-retries 1";
    drop(world.ok(&format!("docker run -d --name slow {probe} --health-cmd 'echo so far; exec sleep 1000' box sleep 1000")));
    becomes(&world, "slow", "unhealthy");
    assert_eq!(last_result(&world, "slow"), "-1 \"Health check exceeded timeout (200ms): so far\\n\"");
    // It was killed: what runs is process 1, and at most one probe.
    let processes = world.ok("docker top slow -eo pid,args").lines().filter(|line| line.contains("sleep")).count();
    assert!(processes <= 2, "{processes}");
    // One that leaves a child behind which holds its output open has ended all the same.
    drop(world.ok(&format!("docker run -d --name parent {probe} --health-cmd 'sleep 1000 & echo done' box sleep 1000")));
    becomes(&world, "parent", "healthy");
    let user = "--user 1000 --workdir /tmp --env WORD=said";
    let long = "id -u; pwd; echo $WORD; head -c 5000 /dev/zero | tr '\\0' x";
    drop(world.ok(&format!("docker run -d --name long {user} {probe} --health-cmd \"{}\" box sleep 1000", long.replace('$', "\\$"))));
    becomes(&world, "long", "healthy");
    let result = last_result(&world, "long");
    assert!(result.starts_with("0 \"1000\\n/tmp\\nsaid\\nxxx") && result.ends_with("xxx...\""), "{result}");
    assert_eq!(world.ok("docker inspect -f '{{range .State.Health.Log}}{{len .Output}} {{end}}' long | cut -d' ' -f1"), "4099");
    drop(world.ok("docker rm -f $(docker ps -aq)"));
}

#[test]
fn an_image_brings_its_probe_and_a_killed_daemon_s_successor_goes_on() {
    let mut world = world();
    drop(world.ok("mkdir probed && printf 'FROM box\\nHEALTHCHECK --interval=50ms CMD echo of the image\\nCMD [\"sleep\", \"1000\"]\\n' > probed/Dockerfile"));
    drop(world.ok("sampan build -q -t probed probed"));
    drop(world.ok("sampan run -d --name web probed && sampan run -d --name off --no-healthcheck probed"));
    becomes(&world, "web", "healthy 0");
    assert_eq!(last_result(&world, "web"), "0 \"of the image\\n\"");
    assert_eq!(world.ok("docker inspect -f '{{json .State.Health}}' off"), "null");
    drop(world.ok("docker run -d --name own --health-cmd 'test ! -e /tmp/ill' --health-retries 1 probed"));
    becomes(&world, "own", "healthy 0");
    world.kill_daemon();
    world.start_daemon();
    drop(world.ok("docker exec own touch /tmp/ill"));
    becomes(&world, "own", "unhealthy");
    becomes(&world, "web", "healthy 0");
    // A run that ended while nobody looked is not healthy.
    world.kill_daemon();
    for (pid, _) in world.shims() {
        kill(pid);
    }
    world.start_daemon();
    assert_eq!(world.ok(&format!("{VERDICT} web")), "unhealthy 0");
    drop(world.ok("docker rm -f web off own"));
}
