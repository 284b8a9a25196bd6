//! Further processes in a running container.

/// What `exec create` asks for.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ExecRequest {
    /// Program and arguments.
    pub cmd: Vec<String>,
    /// Further environment.
    pub env: Vec<String>,
    /// `user[:group]`; empty: the container's.
    pub user: String,
    /// Working directory; empty: the container's.
    pub working_dir: String,
    /// All capabilities.
    pub privileged: bool,
    /// With a pseudo-terminal.
    pub tty: bool,
    /// Attach standard input.
    pub attach_stdin: bool,
    /// Attach standard output.
    pub attach_stdout: bool,
    /// Attach standard error.
    pub attach_stderr: bool,
    /// Detach key sequence of the client, kept for inspect.
    pub detach_keys: String,
    /// Terminal size at start: height, width.
    pub console_size: Option<[u16; 2]>,
}

/// An exec as it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExecView {
    /// 64 hex digits.
    pub id: String,
    /// The container.
    pub container_id: String,
    /// As asked.
    pub request: ExecRequest,
    /// Whether its process lives.
    pub running: bool,
    /// Once it ended.
    pub exit_code: Option<i32>,
    /// Host process id; 0 when none.
    pub pid: u32,
    /// Whether the streams were handed out and may not be again.
    pub can_remove: bool,
}
