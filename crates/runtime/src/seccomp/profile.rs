//! Profiles: the default one and those a user gives as JSON in Docker's format.

use serde::Deserialize;

/// What happens to a system call.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Action {
    /// It goes on.
    Allow,
    /// It fails with this number.
    Errno(u16),
    /// The thread dies.
    KillThread,
    /// The process dies.
    KillProcess,
    /// A signal.
    Trap,
    /// A tracer decides.
    Trace(u16),
    /// It goes on and is logged.
    Log,
}

impl Action {
    /// The kernel's return value (`SECCOMP_RET_*`).
    #[must_use]
    pub fn code(self) -> u32 {
        match self {
            Self::Allow => 0x7fff_0000,
            Self::Errno(number) => 0x0005_0000 | u32::from(number),
            Self::KillThread => 0,
            Self::KillProcess => 0x8000_0000,
            Self::Trap => 0x0003_0000,
            Self::Trace(number) => 0x7ff0_0000 | u32::from(number),
            Self::Log => 0x7ffc_0000,
        }
    }
}

/// How an argument is compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Operator {
    /// Not equal.
    Ne,
    /// Less.
    Lt,
    /// Less or equal.
    Le,
    /// Equal.
    Eq,
    /// Greater or equal.
    Ge,
    /// Greater.
    Gt,
    /// Equal under a mask.
    MaskedEq,
}

/// A comparison: the operator with its right side.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Comparison {
    /// How.
    pub operator: Operator,
    /// The value; for [`Operator::MaskedEq`] the mask.
    pub value: u64,
    /// For [`Operator::MaskedEq`] the value under the mask.
    pub masked: u64,
}

/// A condition on one argument.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Condition {
    /// 0 to 5.
    pub argument: u8,
    /// What must hold.
    pub comparison: Comparison,
}

/// Names that share an action under conditions (all must hold).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rule {
    /// System call names; those that an architecture lacks are skipped.
    pub names: Vec<String>,
    /// What happens.
    pub action: Action,
    /// Empty: always.
    pub conditions: Vec<Condition>,
}

/// A profile with its filters already applied.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Profile {
    /// For what no rule names.
    pub default: Action,
    /// In the order of their precedence for one name.
    pub rules: Vec<Rule>,
}

/// What filters of a profile look at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Facts {
    /// The container's bounding set, as names (`CAP_SYS_ADMIN`).
    pub capabilities: Vec<String>,
    /// `amd64` or `arm64`.
    pub architecture: String,
    /// Major and minor version.
    pub kernel: (u32, u32),
}

/// A profile that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ProfileError {
    /// Not JSON of the right form.
    #[error("decoding seccomp profile failed: {0}")]
    Malformed(String),
    /// A name of an action or operator that does not exist.
    #[error("string {name} is not a valid {what} for seccomp")]
    Unknown {
        /// `action` or `operator`.
        what: &'static str,
        /// As written.
        name: String,
    },
    /// A rule in both the old and the new form.
    #[error("both 'name' and 'names' are specified in the seccomp profile, use either 'name' or 'names'")]
    BothNames,
    /// An action that needs a listener.
    #[error("not supported: seccomp action {0}")]
    Unsupported(String),
}

impl sampan_base::Failure for ProfileError {
    fn kind(&self) -> sampan_base::ErrorKind {
        sampan_base::ErrorKind::Invalid
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct JsonProfile {
    default_action: String,
    default_errno_ret: Option<u16>,
    #[serde(default)]
    syscalls: Vec<JsonRule>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct JsonRule {
    #[serde(default)]
    name: String,
    #[serde(default)]
    names: Vec<String>,
    action: String,
    errno_ret: Option<u16>,
    args: Option<Vec<JsonCondition>>,
    #[serde(default)]
    includes: JsonFilter,
    #[serde(default)]
    excludes: JsonFilter,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct JsonCondition {
    index: u8,
    value: u64,
    #[serde(default)]
    value_two: u64,
    op: String,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
struct JsonFilter {
    caps: Vec<String>,
    arches: Vec<String>,
    min_kernel: Option<String>,
}

impl Profile {
    /// Reads a profile in Docker's JSON format and applies its filters.
    ///
    /// # Errors
    /// [`ProfileError`] with what was wrong.
    pub fn parse(json: &str, facts: &Facts) -> Result<Self, ProfileError> {
        let profile: JsonProfile = serde_json::from_str(json).map_err(|error| ProfileError::Malformed(error.to_string()))?;
        let mut rules = Vec::new();
        for rule in profile.syscalls {
            if !rule.includes.holds(facts) || rule.excludes.hits(facts) {
                continue;
            }
            if !rule.name.is_empty() && !rule.names.is_empty() {
                return Err(ProfileError::BothNames);
            }
            let mut names = rule.names;
            names.extend(Some(rule.name).filter(|name| !name.is_empty()));
            let conditions = rule.args.unwrap_or_default().iter().map(condition).collect::<Result<_, _>>()?;
            rules.push(Rule { names, action: action(&rule.action, rule.errno_ret)?, conditions });
        }
        Ok(Self { default: action(&profile.default_action, profile.default_errno_ret)?, rules })
    }
}

impl JsonFilter {
    fn holds(&self, facts: &Facts) -> bool {
        let arch = self.arches.is_empty() || self.arches.contains(&facts.architecture);
        let caps = self.caps.iter().all(|capability| facts.capabilities.contains(capability));
        arch && caps && self.min_kernel.as_deref().is_none_or(|wanted| version(wanted) <= facts.kernel)
    }

    fn hits(&self, facts: &Facts) -> bool {
        let arch = self.arches.contains(&facts.architecture);
        let caps = self.caps.iter().any(|capability| facts.capabilities.contains(capability));
        arch || caps || self.min_kernel.as_deref().is_some_and(|wanted| version(wanted) <= facts.kernel)
    }
}

fn version(text: &str) -> (u32, u32) {
    let mut parts = text.split('.').map(|part| part.parse().unwrap_or(0));
    (parts.next().unwrap_or(0), parts.next().unwrap_or(0))
}

fn action(name: &str, errno: Option<u16>) -> Result<Action, ProfileError> {
    Ok(match name {
        "SCMP_ACT_ALLOW" => Action::Allow,
        "SCMP_ACT_ERRNO" => Action::Errno(errno.unwrap_or(1)),
        "SCMP_ACT_KILL" | "SCMP_ACT_KILL_THREAD" => Action::KillThread,
        "SCMP_ACT_KILL_PROCESS" => Action::KillProcess,
        "SCMP_ACT_TRAP" => Action::Trap,
        "SCMP_ACT_TRACE" => Action::Trace(errno.unwrap_or(1)),
        "SCMP_ACT_LOG" => Action::Log,
        "SCMP_ACT_NOTIFY" => return Err(ProfileError::Unsupported(name.to_owned())),
        other => return Err(ProfileError::Unknown { what: "action", name: other.to_owned() }),
    })
}

fn condition(json: &JsonCondition) -> Result<Condition, ProfileError> {
    let operator = match json.op.as_str() {
        "SCMP_CMP_NE" => Operator::Ne,
        "SCMP_CMP_LT" => Operator::Lt,
        "SCMP_CMP_LE" => Operator::Le,
        "SCMP_CMP_EQ" => Operator::Eq,
        "SCMP_CMP_GE" => Operator::Ge,
        "SCMP_CMP_GT" => Operator::Gt,
        "SCMP_CMP_MASKED_EQ" => Operator::MaskedEq,
        other => return Err(ProfileError::Unknown { what: "operator", name: other.to_owned() }),
    };
    if json.index > 5 {
        return Err(ProfileError::Malformed(format!("argument {} of a system call does not exist", json.index)));
    }
    Ok(Condition { argument: json.index, comparison: Comparison { operator, value: json.value, masked: json.value_two } })
}
