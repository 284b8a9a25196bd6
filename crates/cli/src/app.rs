//! What every command has at hand: the program's name, the configuration, the way to the engine, standard input and output.

use std::cell::OnceCell;
use std::io::{self, Write as _};
use std::path::PathBuf;

use sampan_gotext::flags::{Flag, Kind, Matches};
use sampan_ui::terminal;

use crate::config::Config;
use crate::error::{CliError, Outcome};
use crate::remote::{Client, Endpoint, Starter};

/// The environment of a command line, read once by the binary.
#[derive(Debug, Clone, Default)]
pub struct Environment {
    /// The name the program was called by: `sampan` or `docker`.
    pub program: String,
    /// `SAMPAN_HOST`, else `DOCKER_HOST`.
    pub host: Option<String>,
    /// `DOCKER_CONTEXT`.
    pub context: Option<String>,
    /// `DOCKER_CONFIG`.
    pub config: Option<PathBuf>,
    /// `HOME`.
    pub home: PathBuf,
    /// `DOCKER_TLS_VERIFY` or `DOCKER_TLS` is set.
    pub tls: bool,
    /// `DOCKER_CONTENT_TRUST` is set.
    pub content_trust: bool,
    /// `DOCKER_API_VERSION`.
    pub api_version: Option<String>,
    /// `DOCKER_DEFAULT_PLATFORM`.
    pub platform: Option<String>,
    /// `DOCKER_CLI_HINTS=false` turns hints off.
    pub hints: bool,
    /// Starts an engine.
    pub starter: Option<Starter>,
    /// The process's environment, for `-e NAME` and env files.
    pub variables: Vec<(String, String)>,
}

/// The engine's own socket.
pub const SOCKET: &str = "/run/sampan/sampan.sock";

/// The flags that stand before a command.
pub(crate) const GLOBAL: &[Flag] = &[
    Flag::new("config", Kind::Text, "Folder of the client's configuration files (default: ~/.docker)"),
    Flag::new("context", Kind::Text, "Context to use for this command; wins over the environment and \"context use\"").short('c'),
    Flag::new("debug", Kind::Bool, "Say more about what is done").short('D'),
    Flag::new("host", Kind::List, "Engine to talk to: unix://PATH, tcp://HOST:PORT or ssh://USER@HOST").short('H'),
    Flag::new("log-level", Kind::Text, "How much is logged: debug, info, warn, error or fatal").short('l').default("info"),
    Flag::new("tls", Kind::Bool, "Use TLS").later("TLS comes later"),
    Flag::new("tlscacert", Kind::Text, "Trust only certificates signed by this authority").later("TLS comes later"),
    Flag::new("tlscert", Kind::Text, "Certificate of this client").later("TLS comes later"),
    Flag::new("tlskey", Kind::Text, "Key of this client's certificate").later("TLS comes later"),
    Flag::new("tlsverify", Kind::Bool, "Use TLS and check the engine's certificate").later("TLS comes later"),
    Flag::new("version", Kind::Bool, "Print the version and stop").short('v'),
];

/// The surroundings of a command.
#[derive(Debug)]
pub(crate) struct App {
    pub(crate) environment: Environment,
    pub(crate) global: Matches,
    pub(crate) config: Config,
    /// The name under which the command was called, without the program: `ps`.
    pub(crate) called: String,
    client: OnceCell<Client>,
}

impl App {
    pub(crate) fn new(environment: Environment, global: Matches, config: Config, called: String) -> Self {
        Self { environment, global, config, called, client: OnceCell::new() }
    }

    /// The program's name.
    pub(crate) fn program(&self) -> &str {
        &self.environment.program
    }

    /// The name of the context in use and the engine's address.
    ///
    /// # Errors
    /// A context that does not exist.
    pub(crate) fn context(&self) -> Outcome<(String, String)> {
        let default = |host: &str| Ok(("default".to_owned(), host.to_owned()));
        if let [first, rest @ ..] = self.global.list("host") {
            if !rest.is_empty() {
                return Err(CliError::new("Specify only one -H"));
            }
            if self.global.given("context") {
                return Err(CliError::new("conflicting options: cannot specify both --host and --context"));
            }
            return default(first);
        }
        let current = self.config.text("currentContext");
        let name = if self.global.given("context") {
            self.global.text("context")
        } else if let Some(host) = &self.environment.host {
            return default(host);
        } else if let Some(name) = &self.environment.context {
            name
        } else {
            current
        };
        if name.is_empty() || name == "default" {
            return default(&self.default_host());
        }
        let context = self
            .config
            .context(name)
            .map_err(|error| CliError::new(format!("Failed to initialize: unable to resolve docker endpoint: {}", error.text)))?;
        Ok((name.to_owned(), context.host().to_owned()))
    }

    /// The engine that is meant when nobody says which: ours, unless we are called `docker` and Docker's socket is there.
    pub(crate) fn default_host(&self) -> String {
        const DOCKER: &str = "/var/run/docker.sock";
        if self.program() == "docker" && !std::path::Path::new(SOCKET).exists() && std::path::Path::new(DOCKER).exists() {
            return format!("unix://{DOCKER}");
        }
        format!("unix://{SOCKET}")
    }

    /// The way to the engine.
    ///
    /// # Errors
    /// A broken address, an unknown context.
    pub(crate) fn client(&self) -> Outcome<&Client> {
        if let Some(client) = self.client.get() {
            return Ok(client);
        }
        let (_, host) = self.context()?;
        if self.environment.tls && !host.starts_with("unix://") && !host.starts_with("ssh://") {
            return Err(CliError::unsupported("DOCKER_TLS_VERIFY", "TLS comes later"));
        }
        // An engine is started only where nobody asked for another one.
        let starter = self.environment.starter.filter(|_| host == format!("unix://{SOCKET}") && self.environment.host.is_none());
        let headers = self.config.value.get("HttpHeaders").and_then(|headers| headers.as_object()).into_iter().flatten();
        let headers = headers.filter_map(|(name, value)| Some((name.clone(), value.as_str()?.to_owned())));
        let headers = headers.filter(|(name, _)| !name.eq_ignore_ascii_case("user-agent")).collect();
        let client = Client::new(Endpoint::parse(&host)?, headers, self.environment.api_version.clone(), starter);
        Ok(self.client.get_or_init(|| client))
    }

    /// Refuses to use an image unchecked where a check was asked for.
    ///
    /// # Errors
    /// Signatures are not there yet.
    pub(crate) fn check_trust(&self, matches: &Matches) -> Outcome<()> {
        let given = matches.given("disable-content-trust");
        let wanted = if given { !matches.truth("disable-content-trust") } else { self.environment.content_trust };
        let what = if given { "--disable-content-trust=false" } else { "DOCKER_CONTENT_TRUST" };
        if wanted { Err(CliError::unsupported(what, "signatures come later")) } else { Ok(()) }
    }

    /// Prints to standard output.
    ///
    /// # Errors
    /// A reader that went away.
    #[expect(clippy::unused_self, reason = "the one place where commands print")]
    pub(crate) fn print(&self, text: &str) -> Outcome<()> {
        let mut out = io::stdout().lock();
        out.write_all(text.as_bytes())?;
        Ok(out.flush()?)
    }

    /// Prints a line to standard output.
    ///
    /// # Errors
    /// A reader that went away.
    pub(crate) fn line(&self, text: &str) -> Outcome<()> {
        self.print(&format!("{text}\n"))
    }

    /// Prints a line to standard error.
    #[expect(clippy::unused_self, reason = "the one place where commands print")]
    pub(crate) fn warn(&self, text: &str) {
        drop(writeln!(io::stderr().lock(), "{text}"));
    }

    /// Asks for a `y`.
    ///
    /// # Errors
    /// A terminal that goes away.
    pub(crate) fn confirm(&self, question: &str) -> Outcome<bool> {
        self.print(&format!("{question} [y/N] "))?;
        let mut answer = String::new();
        io::stdin().read_line(&mut answer)?;
        Ok(answer.trim().eq_ignore_ascii_case("y"))
    }

    /// Columns of the terminal on standard output, or 80.
    #[expect(clippy::unused_self, reason = "the one place that knows the terminal")]
    pub(crate) fn columns(&self) -> usize {
        terminal::size(io::stdout()).map_or(80, |(_, columns)| columns.into())
    }

    /// Each word on its own: prints the outcome's text, collects the errors, and fails when there is one.
    ///
    /// # Errors
    /// The collected ones, a line each.
    pub(crate) async fn each<'a, F>(&'a self, words: &'a [String], run: impl Fn(&'a str) -> F) -> Outcome
    where
        F: Future<Output = Outcome<String>> + 'a,
    {
        let mut errors = Vec::new();
        for word in words {
            match run(word).await {
                Ok(text) => self.line(&text)?,
                Err(error) => errors.push(error.text),
            }
        }
        if errors.is_empty() { Ok(0) } else { Err(CliError::new(errors.join("\n"))) }
    }
}
