//! A program that serves in a world: started, waited for, killed or stopped, and read what it printed.

use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal};

use crate::World;
use crate::world::only_child;

/// A running program. Dropping it kills it.
#[derive(Debug)]
pub struct Service {
    child: Child,
    pid: u32,
    log: PathBuf,
}

impl Service {
    /// Starts a command of the world and waits until an address (`HOST:PORT`) accepts connections there. What it prints goes
    /// into `NAME.log` of the world's folder.
    ///
    /// # Panics
    /// When it ends before, or does not answer within two minutes: with what it printed.
    #[must_use]
    pub fn start(world: &World, name: &str, mut command: Command, address: &str) -> Self {
        let log = world.folder().join(format!("{name}.log"));
        let file = std::fs::File::options().append(true).create(true).open(&log).expect("a log file in the world's folder");
        command.stdin(Stdio::null()).stdout(file.try_clone().expect("a second handle")).stderr(file);
        let child = command.spawn().expect("nsenter starts");
        let pid = only_child(child.id());
        let mut service = Self { child, pid, log };
        let probe = format!("exec 3<>/dev/tcp/{}", address.replacen(':', "/", 1));
        let end = Instant::now() + Duration::from_secs(120);
        while world.sh(&probe).code != 0 {
            let died = service.child.try_wait().ok().flatten();
            assert!(died.is_none() && Instant::now() < end, "{name} does not answer at {address}:\n{}", service.log());
            std::thread::sleep(Duration::from_millis(10));
        }
        service
    }

    /// Its process id, as the host sees it.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.pid
    }

    /// What it printed so far.
    #[must_use]
    pub fn log(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// Kills it with SIGKILL and waits for its end.
    pub fn kill(&mut self) {
        let _how = self.end(Signal::KILL);
    }

    /// Asks it to end, and tells how it did.
    ///
    /// # Panics
    /// When it cannot be waited for.
    pub fn stop(&mut self) -> ExitStatus {
        self.end(Signal::TERM).expect("our own child")
    }

    fn end(&mut self, signal: Signal) -> Option<ExitStatus> {
        // Once waited for, the number may be another's.
        if let Some(status) = self.child.try_wait().ok().flatten() {
            return Some(status);
        }
        let pid = i32::try_from(self.pid).ok().and_then(Pid::from_raw);
        let _gone_is_fine = pid.map(|pid| rustix::process::kill_process(pid, signal));
        self.child.wait().ok()
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        self.kill();
    }
}
