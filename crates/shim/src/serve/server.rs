//! The loop: requests in, replies and events out.

use std::io;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::path::Path;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use sampan_sys::process::{self, Ended};
use sampan_sys::sock;

use super::child::{self, Child};
use super::streams::Client;
use crate::apply::{self, Descriptors, Fault};
use crate::flat;
use crate::log::{LogWriter, Stream};
use crate::plan::{Plan, ProcessPlan};
use crate::protocol::{Numbered, Reply, Request, Stage, Streams};
use crate::record::ExitRecord;

/// How long output is awaited that somebody else than the ended process may still write.
const DRAIN: Duration = Duration::from_secs(2);
/// How long memory is kept for output to come.
const KEEP: Duration = Duration::from_millis(250);
/// Largest plan.
const MAX_PLAN: u64 = 8 << 20;

/// What a wake-up is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Source {
    Connection,
    Listener,
    Process(usize),
    Output(usize, Stream),
    Input(usize),
    Client(usize, usize),
}

#[derive(Debug)]
pub(super) struct Server {
    connection: Option<OwnedFd>,
    listener: Option<OwnedFd>,
    plan: Option<Plan>,
    log: Option<LogWriter>,
    children: Vec<Child>,
    exit: Option<Reply>,
    /// The daemon has taken note of the end, or there was never a container.
    forgotten: bool,
    buffer: Vec<u8>,
    /// Until when memory that output or a start needed is kept.
    keep_until: Option<Instant>,
}

impl Server {
    pub(super) fn new(connection: OwnedFd) -> io::Result<Self> {
        Ok(Self {
            connection: Some(connection),
            listener: None,
            plan: None,
            log: None,
            children: Vec::new(),
            exit: None,
            forgotten: false,
            buffer: Vec::new(),
            keep_until: None,
        })
    }

    pub(super) fn run(mut self) -> io::Result<()> {
        while !self.is_over() {
            let (sources, wait) = self.interests();
            let ready = wait_for(&sources, wait)?;
            for (source, flags) in ready {
                self.serve(source, flags);
            }
            self.settle();
        }
        if let (Some(_), Some(plan)) = (&self.listener, &self.plan) {
            drop(std::fs::remove_file(&plan.socket));
        }
        Ok(())
    }

    /// Over when the end is told, or durable with nobody to tell.
    fn is_over(&self) -> bool {
        let drained = self.children.is_empty();
        let told = self.forgotten || self.connection.is_none();
        match (&self.plan, &self.exit) {
            (None, _) => self.connection.is_none() || self.forgotten,
            (Some(_), Some(_)) => drained && told,
            (Some(_), None) => false,
        }
    }

    /// What to wait for, freshly computed: there are few descriptors, and a stale registration cannot exist.
    fn interests(&self) -> (Vec<(Source, BorrowedFd<'_>, PollFlags)>, Option<Duration>) {
        let mut list: Vec<(Source, BorrowedFd<'_>, PollFlags)> = Vec::new();
        if let Some(connection) = &self.connection {
            list.push((Source::Connection, connection.as_fd(), PollFlags::IN));
        }
        if let Some(listener) = &self.listener {
            list.push((Source::Listener, listener.as_fd(), PollFlags::IN));
        }
        let now = Instant::now();
        let mut deadline = self.keep_until;
        for (index, child) in self.children.iter().enumerate() {
            if child.ended.is_none() {
                list.push((Source::Process(index), child.pidfd.as_fd(), PollFlags::IN));
            }
            let resting = child.resting(now);
            if !child.is_held() && resting.is_none() {
                for stream in [Stream::Stdout, Stream::Stderr] {
                    if let Some(fd) = child.stream(stream) {
                        list.push((Source::Output(index, stream), fd.as_fd(), PollFlags::IN));
                    }
                }
            }
            if child.has_input()
                && let Some(stdin) = child.stdin()
            {
                list.push((Source::Input(index), stdin.as_fd(), PollFlags::OUT));
            }
            for (number, client) in child.clients.iter().enumerate() {
                let mut flags = PollFlags::empty();
                flags.set(PollFlags::IN, !client.input_ended && !child.has_input());
                flags.set(PollFlags::OUT, client.is_behind());
                list.push((Source::Client(index, number), client.socket.as_fd(), flags));
            }
            let ends = child.clients.iter().filter_map(Client::deadline).chain(child.drain_until).chain(resting);
            deadline = ends.chain(deadline).min();
        }
        (list, deadline.map(|end| end.saturating_duration_since(now)))
    }

    fn serve(&mut self, source: Source, flags: PollFlags) {
        match source {
            Source::Connection => self.take_requests(),
            Source::Listener => self.take_connection(),
            Source::Process(index) => self.reap(index),
            Source::Output(index, stream) => self.pump(index, stream),
            Source::Input(index) => self.children[index].flush_input(),
            Source::Client(index, number) => {
                let child = &mut self.children[index];
                if child.clients.get(number).is_some_and(|client| !client.input_ended) {
                    child.take_input(number);
                }
                child.flush_client(number);
                if flags.intersects(PollFlags::HUP | PollFlags::ERR) {
                    child.drop_client(number);
                }
            }
        }
    }

    fn pump(&mut self, index: usize, stream: Stream) {
        self.buffer.resize(64 * 1024, 0);
        self.keep_until = Some(Instant::now() + KEEP);
        let is_first = self.children[index].name.is_empty();
        let log = if is_first { self.log.as_mut() } else { None };
        self.children[index].pump(stream, log, &mut self.buffer);
    }

    /// After each round: memory back, stuck clients out, ended processes reported.
    fn settle(&mut self) {
        self.reap_strays();
        let now = Instant::now();
        if self.keep_until.is_some_and(|end| end <= now) {
            self.keep_until = None;
            self.buffer = Vec::new();
            self.log.iter_mut().for_each(LogWriter::shrink);
            sampan_sys::memory::release_free();
        }
        let mut index = 0;
        while index < self.children.len() {
            self.children[index].sweep_clients(now);
            let child = &self.children[index];
            if child.name.is_empty() && child.ended.is_some() && child.output_over(now) && self.exit.is_none() {
                self.record_end(index);
            }
            if self.children[index].is_drained(now) {
                let child = self.children.remove(index);
                if let (Some(ended), false) = (child.ended, child.name.is_empty()) {
                    let code = ended.code();
                    self.event(&Reply::Exited { exec: child.name.clone(), code, oom: false, at: now_nanos() });
                }
                continue;
            }
            index += 1;
        }
    }

    fn reap(&mut self, index: usize) {
        let child = &mut self.children[index];
        match process::try_wait(child.pidfd.as_fd()) {
            Ok(Some(ended)) => child.ended = Some(ended),
            Ok(None) => return,
            // Somebody else reaped it: the end is certain, the code is not.
            Err(_) => child.ended = Some(Ended::Exited(255)),
        }
        child.drain_until = Some(Instant::now() + DRAIN);
        for stream in [Stream::Stdout, Stream::Stderr] {
            self.pump(index, stream);
        }
    }

    /// Orphans of a shared pid namespace become our children.
    fn reap_strays(&self) {
        if !self.children.iter().any(|child| child.ended.is_none()) {
            while let Ok(Some(_)) = process::try_wait_any() {}
        }
    }

    /// Process 1 is over: its record is made durable, then the daemon is told.
    fn record_end(&mut self, index: usize) {
        let Some(plan) = &self.plan else { return };
        let Some(ended) = self.children[index].ended else { return };
        let oom = apply::cgroup::oom_killed(&plan.cgroup);
        if plan.namespaces & process::NewNamespaces::PID.bits() == 0 {
            apply::cgroup::kill(&plan.cgroup);
        }
        let record = ExitRecord { code: ended.code(), oom, at: now_nanos() };
        // On a full disk the record is lost, the message is not.
        drop(record.write(Path::new(&plan.record)));
        let message = Reply::Exited { exec: String::new(), code: record.code, oom, at: record.at };
        self.event(&message);
        self.exit = Some(message);
    }

    fn take_connection(&mut self) {
        let Some(listener) = &self.listener else { return };
        if let Ok(Some(connection)) = sock::accept(listener.as_fd()) {
            self.connection = Some(connection);
            if let Some(exit) = self.exit.clone() {
                self.event(&exit);
            }
        }
    }

    fn take_requests(&mut self) {
        loop {
            let Some(connection) = &self.connection else { return };
            match sock::receive(connection.as_fd(), false) {
                Ok((message, _)) if message.is_empty() => self.connection = None,
                Ok((message, fds)) => self.answer(&message, fds),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                Err(_) => self.connection = None,
            }
        }
    }

    fn answer(&mut self, message: &[u8], fds: Vec<OwnedFd>) {
        let Ok(numbered) = flat::decode::<Numbered>(message) else { return };
        let reply = match flat::decode::<Request>(&numbered.body) {
            Ok(request) => {
                self.perform(request, fds).unwrap_or_else(|Fault { stage, errno, detail }| Reply::Failed { stage, errno, detail })
            }
            Err(_) => Reply::Failed { stage: Stage::Plan {}, errno: 22, detail: "malformed request".into() },
        };
        self.send(numbered.number, &reply);
    }

    fn send(&mut self, number: u64, reply: &Reply) {
        let message = flat::encode(&Numbered { number, body: flat::encode(reply) });
        if let Some(connection) = &self.connection
            && sock::send(connection.as_fd(), &message, &[]).is_err()
        {
            self.connection = None;
        }
    }

    fn event(&mut self, event: &Reply) {
        self.send(0, event);
    }

    fn perform(&mut self, request: Request, fds: Vec<OwnedFd>) -> Result<Reply, Fault> {
        match request {
            Request::Start { clients } => self.start(&clients, fds),
            Request::Exec { exec, clients } => self.exec(exec, &clients, fds),
            Request::Attach { exec, streams } => {
                let child = self.child(&exec)?;
                let socket = fds.into_iter().next().ok_or_else(|| fault(Stage::Stdio {}, "no socket"))?;
                let client = Client::new(socket, streams, child.terminal).map_err(Fault::new(Stage::Stdio {}, "client"))?;
                child.attach(client);
                Ok(Reply::Done {})
            }
            Request::Resize { exec, width, height } => {
                let child = self.child(&exec)?;
                let terminal = child.terminal_fd().ok_or_else(|| fault(Stage::Stdio {}, "no terminal"))?;
                sampan_sys::pty::resize(terminal.as_fd(), width, height).map_err(Fault::new(Stage::Stdio {}, "resize"))?;
                Ok(Reply::Done {})
            }
            Request::Signal { exec, number } => {
                self.child(&exec)?.send_signal(number).map_err(Fault::new(Stage::Gone {}, number.to_string()))?;
                Ok(Reply::Done {})
            }
            Request::Query {} => Ok(self.state()),
            Request::Forget {} => {
                self.forgotten = true;
                Ok(Reply::Done {})
            }
        }
    }

    fn state(&self) -> Reply {
        let living = |child: &&Child| child.ended.is_none();
        let pid = self.children.iter().filter(living).find(|child| child.name.is_empty()).map_or(0, |child| child.pid);
        let execs = self.children.iter().filter(living).filter(|child| !child.name.is_empty());
        Reply::State { pid, execs: execs.map(|child| (child.name.clone(), child.pid)).collect() }
    }

    fn child(&mut self, name: &str) -> Result<&mut Child, Fault> {
        let found = self.children.iter_mut().find(|child| child.name == name && child.ended.is_none());
        found.ok_or_else(|| Fault { stage: Stage::Gone {}, errno: 3, detail: name.to_owned() })
    }

    fn start(&mut self, clients: &[Streams], fds: Vec<OwnedFd>) -> Result<Reply, Fault> {
        if self.plan.is_some() {
            return Err(fault(Stage::Plan {}, "started already"));
        }
        self.keep_until = Some(Instant::now() + KEEP);
        let mut fds = fds.into_iter();
        let plan: Plan = read_plan(fds.next())?;
        let root = fds.next().ok_or_else(|| fault(Stage::Plan {}, "no root"))?;
        let joins: Vec<OwnedFd> = fds.by_ref().take(plan.joins as usize).collect();
        let given: Vec<OwnedFd> = fds.by_ref().take(plan.given as usize).collect();
        let clients = make_clients(clients, fds, plan.process.terminal)?;
        ExitRecord::reserve(Path::new(&plan.record)).map_err(Fault::new(Stage::Log {}, "exit record"))?;
        let log = plan.log.as_ref().map(LogWriter::open).transpose().map_err(Fault::new(Stage::Log {}, "log file"))?;
        let (stdio, ours) = child::make_stdio(&plan.process).map_err(Fault::new(Stage::Stdio {}, "pipes"))?;
        let listener = sock::listen(Path::new(&plan.socket)).map_err(Fault::new(Stage::Plan {}, &plan.socket))?;
        let container = match apply::start(&plan, Descriptors { root, joins, given, stdio }) {
            Ok(container) => container,
            Err(fault) => {
                drop(std::fs::remove_file(&plan.socket));
                return Err(fault);
            }
        };
        let ours = ours.with_terminal(container.terminal, plan.process.stdin).map_err(Fault::new(Stage::Stdio {}, "terminal"))?;
        self.children.push(Child::new(String::new(), container.pid, container.pidfd, &plan.process, ours, clients));
        self.log = log;
        self.listener = Some(listener);
        self.plan = Some(plan);
        Ok(Reply::Started { pid: container.pid })
    }

    fn exec(&mut self, name: String, clients: &[Streams], fds: Vec<OwnedFd>) -> Result<Reply, Fault> {
        self.keep_until = Some(Instant::now() + KEEP);
        let mut fds = fds.into_iter();
        let process: ProcessPlan = read_plan(fds.next())?;
        if name.is_empty() || self.children.iter().any(|child| child.name == name) {
            return Err(fault(Stage::Plan {}, "name in use"));
        }
        let clients = make_clients(clients, fds, process.terminal)?;
        let (stdio, ours) = child::make_stdio(&process).map_err(Fault::new(Stage::Stdio {}, "pipes"))?;
        let Some(plan) = &self.plan else { return Err(fault(Stage::Gone {}, "not started")) };
        let namespaces = plan.namespaces_of_members();
        let cgroup = plan.cgroup.clone();
        let init = &self.child("")?.pidfd;
        let outcome = apply::exec(init, namespaces, &cgroup, &process, stdio)?;
        let ours = ours.with_terminal(outcome.terminal, process.stdin).map_err(Fault::new(Stage::Stdio {}, "terminal"))?;
        self.children.push(Child::new(name, outcome.pid, outcome.pidfd, &process, ours, clients));
        Ok(Reply::Started { pid: outcome.pid })
    }
}

fn fault(stage: Stage, detail: &str) -> Fault {
    Fault { stage, errno: 0, detail: detail.to_owned() }
}

fn make_clients(streams: &[Streams], fds: impl Iterator<Item = OwnedFd>, raw: bool) -> Result<Vec<Client>, Fault> {
    let made = streams.iter().zip(fds).map(|(streams, socket)| Client::new(socket, streams.clone(), raw));
    made.collect::<io::Result<_>>().map_err(Fault::new(Stage::Stdio {}, "client"))
}

fn read_plan<T: flat::Flat>(fd: Option<OwnedFd>) -> Result<T, Fault> {
    let fd = fd.ok_or_else(|| fault(Stage::Plan {}, "no plan"))?;
    let mut bytes = Vec::new();
    io::Read::read_to_end(&mut io::Read::take(std::fs::File::from(fd), MAX_PLAN), &mut bytes)
        .map_err(Fault::new(Stage::Plan {}, "read"))?;
    flat::decode(&bytes).map_err(|error| fault(Stage::Plan {}, &error.to_string()))
}

/// Waits until something is ready, or the time is over.
fn wait_for(sources: &[(Source, BorrowedFd<'_>, PollFlags)], wait: Option<Duration>) -> io::Result<Vec<(Source, PollFlags)>> {
    let mut fds: Vec<PollFd<'_>> = sources.iter().map(|(_, fd, flags)| PollFd::from_borrowed_fd(*fd, *flags)).collect();
    let timeout = wait.map(|wait| Timespec { tv_sec: wait.as_secs().cast_signed(), tv_nsec: wait.subsec_nanos().into() });
    match poll(&mut fds, timeout.as_ref()) {
        Err(rustix::io::Errno::INTR) => return Ok(Vec::new()),
        other => other?,
    };
    // Clients last and from the back: serving one may remove it.
    let ready = sources.iter().zip(&fds).map(|((source, ..), fd)| (*source, fd.revents())).filter(|(_, flags)| !flags.is_empty());
    let (clients, others): (Vec<_>, Vec<_>) = ready.partition(|(source, _)| matches!(source, Source::Client(..)));
    Ok(others.into_iter().chain(clients.into_iter().rev()).collect())
}

fn now_nanos() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |span| i64::try_from(span.as_nanos()).unwrap_or(i64::MAX))
}
