//! The daemon's side of the shims: starting them, asking them, hearing of ends.
//!
//! One thread reads all connections; a request waits for its numbered reply. Requests of many threads may be under way at once.

use std::collections::HashMap;
use std::ffi::CString;
use std::io;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rustix::event::epoll::{self, CreateFlags, EventData, EventFlags};
use sampan_shim::flat;
use sampan_shim::plan::{Plan, ProcessPlan};
use sampan_shim::protocol::{Numbered, Reply, Request, Stage, Streams};
use sampan_sys::{file, memfd, process, sock};

/// The static shim, as built with this crate.
const PROGRAM: &[u8] = include_bytes!(env!("SAMPAN_SHIM"));

/// How long a shim may take to answer: a start includes mounts on a busy machine.
const ANSWER: Duration = Duration::from_secs(120);

/// What a shim tells on its own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ShimEvent {
    /// A process ended.
    Exited {
        /// The container.
        id: String,
        /// Empty: process 1.
        exec: String,
        /// Exit code.
        code: i32,
        /// Killed for memory.
        oom: bool,
        /// Nanoseconds since the epoch.
        at: i64,
    },
    /// The shim is gone.
    Lost {
        /// The container.
        id: String,
    },
}

/// A request that failed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ShimError {
    /// A step of a start failed.
    #[error("{stage:?} {detail} (errno {errno})")]
    Failed {
        /// Which.
        stage: Stage,
        /// The kernel's number.
        errno: i32,
        /// About what.
        detail: String,
    },
    /// The shim went away or did not answer.
    #[error("the shim of container {0} does not answer")]
    Gone(String),
    /// It could not be started.
    #[error("cannot start a shim: {0}")]
    Spawn(String),
}

/// A client of a process: its socket and what it wants.
pub type Attachment = (OwnedFd, Streams);

/// All shims of a daemon.
#[derive(Debug)]
pub struct Shims {
    program: OwnedFd,
    exec_root: PathBuf,
    epoll: OwnedFd,
    next: AtomicU64,
    inner: Mutex<Inner>,
    events: Sender<ShimEvent>,
}

#[derive(Debug, Default)]
struct Inner {
    connections: HashMap<String, Connection>,
    by_token: HashMap<u64, String>,
    /// Who hears of a container's end instead of the receiver of all.
    listeners: HashMap<String, Sender<ShimEvent>>,
}

#[derive(Debug)]
struct Connection {
    token: u64,
    socket: Arc<OwnedFd>,
    waiting: HashMap<u64, Sender<Reply>>,
    /// Of the shim itself, while we are its parent.
    child: Option<OwnedFd>,
    /// Its process 1 has ended and that was told: the connection may go without a word.
    ended: bool,
    /// What it told before it was known whether there is a container at all; `None` once that is known.
    held: Option<Vec<ShimEvent>>,
}

impl Shims {
    /// Makes the shim program ready and starts the reading thread.
    ///
    /// # Errors
    /// When the kernel gives no memfd or epoll.
    pub fn open(exec_root: &Path) -> io::Result<(Arc<Self>, Receiver<ShimEvent>)> {
        let program = memfd::sealed(c"sampan-shim", PROGRAM, true)?;
        let (events, receiver) = channel();
        let shims = Arc::new(Self {
            program,
            exec_root: exec_root.to_owned(),
            epoll: epoll::create(CreateFlags::CLOEXEC)?,
            next: AtomicU64::new(1),
            inner: Mutex::default(),
            events,
        });
        let reader = Arc::downgrade(&shims);
        std::thread::Builder::new().name("shims".into()).spawn(move || {
            while let Some(shims) = reader.upgrade() {
                shims.read_once();
            }
        })?;
        Ok((shims, receiver))
    }

    /// The shim's bytes: also the small init of `--init`, to be kept as a file.
    #[must_use]
    pub fn program() -> &'static [u8] {
        PROGRAM
    }

    /// The folder of one container below the exec root.
    #[must_use]
    pub fn folder(&self, id: &str) -> PathBuf {
        self.exec_root.join("containers").join(id)
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Starts a container. Gives the host's process id of its process 1.
    ///
    /// # Errors
    /// [`ShimError`]; the shim is gone then.
    pub fn start(
        &self,
        plan: &Plan,
        root: BorrowedFd<'_>,
        given: &[BorrowedFd<'_>],
        attachments: Vec<Attachment>,
    ) -> Result<u32, ShimError> {
        let (ours, theirs) = sock::pair().map_err(spawn_error)?;
        let null = rustix::fs::open("/dev/null", rustix::fs::OFlags::RDWR | rustix::fs::OFlags::CLOEXEC, rustix::fs::Mode::empty());
        let null = null.map_err(|error| spawn_error(error.into()))?;
        let name = CString::new(format!("sampan-shim {}", &plan.id[..plan.id.len().min(12)])).unwrap_or_default();
        // Held by the shim alone once we have let go of it: as long as it lives, also before it listens.
        let lock = file::try_lock(&self.lock_path(&plan.id)).map_err(spawn_error)?;
        let lock = lock.ok_or_else(|| ShimError::Spawn("an earlier shim of this container still lives".to_owned()))?;
        let descriptors = [null.as_fd(), null.as_fd(), null.as_fd(), theirs.as_fd(), lock.as_fd()];
        let (_, child) = process::spawn(self.program.as_fd(), &[name], &descriptors).map_err(spawn_error)?;
        drop((theirs, lock));
        self.add(&plan.id, ours, Some(child), None).map_err(spawn_error)?;
        let memfd = memfd::sealed(c"plan", &flat::encode(plan), false).map_err(spawn_error)?;
        let (sockets, clients): (Vec<OwnedFd>, Vec<Streams>) = attachments.into_iter().unzip();
        let mut fds = vec![memfd.as_fd(), root];
        fds.extend_from_slice(given);
        fds.extend(sockets.iter().map(OwnedFd::as_fd));
        match self.ask(&plan.id, &Request::Start { clients }, &fds) {
            Ok(Reply::Started { pid }) => Ok(pid),
            other => {
                self.forget(&plan.id);
                Err(other.err().unwrap_or_else(|| ShimError::Gone(plan.id.clone())))
            }
        }
    }

    /// Starts a further process in a container.
    ///
    /// # Errors
    /// [`ShimError`].
    pub fn exec(&self, id: &str, exec: &str, plan: &ProcessPlan, attachments: Vec<Attachment>) -> Result<u32, ShimError> {
        let memfd = memfd::sealed(c"plan", &flat::encode(plan), false).map_err(spawn_error)?;
        let (sockets, clients): (Vec<OwnedFd>, Vec<Streams>) = attachments.into_iter().unzip();
        let mut fds = vec![memfd.as_fd()];
        fds.extend(sockets.iter().map(OwnedFd::as_fd));
        match self.ask(id, &Request::Exec { exec: exec.to_owned(), clients }, &fds)? {
            Reply::Started { pid } => Ok(pid),
            _ => Err(ShimError::Gone(id.to_owned())),
        }
    }

    /// Gives a client to a process.
    ///
    /// # Errors
    /// [`ShimError`].
    pub fn attach(&self, id: &str, exec: &str, (socket, streams): Attachment) -> Result<(), ShimError> {
        self.ask(id, &Request::Attach { exec: exec.to_owned(), streams }, &[socket.as_fd()]).map(drop)
    }

    /// Sets a terminal's size.
    ///
    /// # Errors
    /// [`ShimError`].
    pub fn resize(&self, id: &str, exec: &str, width: u16, height: u16) -> Result<(), ShimError> {
        self.ask(id, &Request::Resize { exec: exec.to_owned(), width, height }, &[]).map(drop)
    }

    /// Sends a signal.
    ///
    /// # Errors
    /// [`ShimError`].
    pub fn signal(&self, id: &str, exec: &str, number: i32) -> Result<(), ShimError> {
        self.ask(id, &Request::Signal { exec: exec.to_owned(), number }, &[]).map(drop)
    }

    fn lock_path(&self, id: &str) -> PathBuf {
        self.folder(id).join("lock")
    }

    /// Whether a shim of a container lives, listening or not.
    #[must_use]
    pub fn is_alive(&self, id: &str) -> bool {
        let path = self.lock_path(id);
        path.exists() && matches!(file::try_lock(&path), Ok(None))
    }

    /// Connects to the shim of a container that an earlier daemon started. Gives process 1 (0: ended) and the further processes.
    ///
    /// # Errors
    /// [`ShimError::Gone`] when there is none.
    pub fn connect(&self, id: &str, patience: Duration) -> Result<(u32, Vec<(String, u32)>), ShimError> {
        let gone = |_| ShimError::Gone(id.to_owned());
        let socket = sock::connect(&self.folder(id).join("shim.sock")).map_err(gone)?;
        self.add(id, socket, None, Some(Vec::new())).map_err(gone)?;
        let answer = self.ask_within(id, &Request::Query {}, &[], patience);
        let held = self.lock().connections.get_mut(id).and_then(|connection| connection.held.take());
        match answer {
            Ok(Reply::State { pid, execs }) => {
                // An end that the answer knows of is not told a second time.
                for event in held.into_iter().flatten().filter(|_| pid != 0) {
                    self.tell(id, event);
                }
                Ok((pid, execs))
            }
            _ => {
                self.remove(id);
                Err(ShimError::Gone(id.to_owned()))
            }
        }
    }

    /// Lets a shim go whose end is written down.
    pub fn forget(&self, id: &str) {
        let socket = self.lock().connections.get(id).map(|connection| Arc::clone(&connection.socket));
        if let Some(socket) = socket {
            let body = flat::encode(&Request::Forget {});
            drop(sock::send(socket.as_fd(), &flat::encode(&Numbered { number: 0, body }), &[]));
        }
        self.remove(id);
    }

    fn add(&self, id: &str, socket: OwnedFd, child: Option<OwnedFd>, held: Option<Vec<ShimEvent>>) -> io::Result<()> {
        let token = self.next.fetch_add(1, Ordering::Relaxed);
        let socket = Arc::new(socket);
        let mut inner = self.lock();
        inner.by_token.insert(token, id.to_owned());
        let connection = Connection { token, socket: Arc::clone(&socket), waiting: HashMap::new(), child, ended: false, held };
        inner.connections.insert(id.to_owned(), connection);
        drop(inner);
        Ok(epoll::add(&self.epoll, &*socket, EventData::new_u64(token), EventFlags::IN)?)
    }

    fn remove(&self, id: &str) {
        let mut inner = self.lock();
        let Some(connection) = inner.connections.remove(id) else { return };
        inner.by_token.remove(&connection.token);
        drop(inner);
        let _already_gone = epoll::delete(&self.epoll, &*connection.socket);
        drop(connection.socket);
        if let Some(child) = connection.child {
            // The shim ends by itself now that nobody listens; reap it on the side.
            let reaper = std::thread::Builder::new().name("reap".into()).stack_size(64 * 1024);
            drop(reaper.spawn(move || process::wait(child.as_fd())));
        }
    }

    fn ask(&self, id: &str, request: &Request, fds: &[BorrowedFd<'_>]) -> Result<Reply, ShimError> {
        self.ask_within(id, request, fds, ANSWER)
    }

    fn ask_within(&self, id: &str, request: &Request, fds: &[BorrowedFd<'_>], patience: Duration) -> Result<Reply, ShimError> {
        let gone = || ShimError::Gone(id.to_owned());
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let (sender, receiver) = channel();
        let socket = {
            let mut inner = self.lock();
            let connection = inner.connections.get_mut(id).ok_or_else(gone)?;
            connection.waiting.insert(number, sender);
            Arc::clone(&connection.socket)
        };
        let message = flat::encode(&Numbered { number, body: flat::encode(request) });
        sock::send(socket.as_fd(), &message, fds).map_err(|_| gone())?;
        match receiver.recv_timeout(patience) {
            Ok(Reply::Failed { stage, errno, detail }) => Err(ShimError::Failed { stage, errno, detail }),
            Ok(reply) => Ok(reply),
            Err(_) => Err(gone()),
        }
    }

    /// Waits for messages for at most a second, so that the thread notices the end of the daemon.
    fn read_once(&self) {
        let mut events = [epoll::Event { flags: EventFlags::empty(), data: EventData::new_u64(0) }; 64];
        let second = rustix::event::Timespec { tv_sec: 1, tv_nsec: 0 };
        let count = epoll::wait(&self.epoll, &mut events, Some(&second)).unwrap_or(0);
        for event in &events[..count] {
            let token = event.data.u64();
            let found = {
                let inner = self.lock();
                let id = inner.by_token.get(&token).cloned();
                id.and_then(|id| inner.connections.get(&id).map(|connection| (id, Arc::clone(&connection.socket))))
            };
            let Some((id, socket)) = found else { continue };
            while self.read_message(&id, &socket) {}
        }
    }

    /// Takes one message; `false` when there is no further one.
    fn read_message(&self, id: &str, socket: &Arc<OwnedFd>) -> bool {
        match sock::receive(socket.as_fd(), false) {
            Ok((message, _)) if !message.is_empty() => {
                let reply =
                    flat::decode::<Numbered>(&message).and_then(|numbered| Ok((numbered.number, flat::decode::<Reply>(&numbered.body)?)));
                match reply {
                    Ok((0, Reply::Exited { exec, code, oom, at })) => {
                        self.tell(id, ShimEvent::Exited { id: id.to_owned(), exec, code, oom, at });
                    }
                    Ok((number, reply)) => {
                        let waiting = self.lock().connections.get_mut(id).and_then(|connection| connection.waiting.remove(&number));
                        if let Some(waiting) = waiting {
                            drop(waiting.send(reply));
                        }
                    }
                    Err(error) => tracing::error!(container = id, %error, "message of a shim"),
                }
                true
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => false,
            Ok(_) | Err(_) => {
                let expected =
                    self.lock().connections.get(id).is_none_or(|connection| connection.ended || !Arc::ptr_eq(&connection.socket, socket));
                if expected {
                    let _already_gone = epoll::delete(&self.epoll, &**socket);
                } else {
                    let _already_gone = epoll::delete(&self.epoll, &**socket);
                    self.tell(id, ShimEvent::Lost { id: id.to_owned() });
                }
                false
            }
        }
    }

    /// Passes an event on, or keeps it while the container is being looked for. With its shim a connection goes.
    fn tell(&self, id: &str, event: ShimEvent) {
        let lost = matches!(event, ShimEvent::Lost { .. });
        let mut inner = self.lock();
        if let Some(connection) = inner.connections.get_mut(id) {
            connection.ended |= matches!(&event, ShimEvent::Exited { exec, .. } if exec.is_empty());
            if let Some(held) = &mut connection.held {
                held.push(event);
                if lost {
                    connection.waiting.clear();
                }
                return;
            }
        }
        let listener = inner.listeners.get(id).cloned();
        drop(inner);
        if lost {
            self.remove(id);
        }
        drop(listener.as_ref().unwrap_or(&self.events).send(event));
    }

    /// Sends what happens to one container to a receiver of its own, from before its start until [`Shims::unlisten`].
    pub fn listen(&self, id: &str) -> Receiver<ShimEvent> {
        let (sender, receiver) = channel();
        self.lock().listeners.insert(id.to_owned(), sender);
        receiver
    }

    /// Ends [`Shims::listen`].
    pub fn unlisten(&self, id: &str) {
        self.lock().listeners.remove(id);
    }
}

#[expect(clippy::needless_pass_by_value, reason = "an adapter for map_err")]
fn spawn_error(error: io::Error) -> ShimError {
    ShimError::Spawn(error.to_string())
}
