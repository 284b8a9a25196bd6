//! Who may do what. Pure: roles, scopes of tokens, and the question a handler asks.

use serde::{Deserialize, Serialize};

use crate::name::is_repository;
use crate::users::Role;

/// The most scopes that one token takes.
const SCOPES: usize = 100;

/// What is done to a repository.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// Read.
    Pull,
    /// Bring.
    Push,
    /// Take away.
    Delete,
}

impl Action {
    /// The word in scopes.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Pull => "pull",
            Self::Push => "push",
            Self::Delete => "delete",
        }
    }

    /// Whether a role has it.
    #[must_use]
    pub fn allowed_to(self, role: Role) -> bool {
        match self {
            Self::Pull => true,
            Self::Push => role >= Role::Push,
            Self::Delete => role >= Role::Admin,
        }
    }
}

/// An entry of a token's `access`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Access {
    /// `repository` or `registry`.
    #[serde(rename = "type")]
    pub kind: String,
    /// Which.
    pub name: String,
    /// What.
    pub actions: Vec<String>,
}

/// Where somebody's rights come from.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Rights {
    /// None at all.
    Nothing,
    /// A role, everywhere.
    Role(Role),
    /// What a token says.
    Token(Vec<Access>, Option<Role>),
}

/// Who asks, and with which rights.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    /// The user; none for strangers.
    pub user: Option<String>,
    rights: Rights,
}

impl Identity {
    /// A stranger, with what strangers may.
    #[must_use]
    pub fn stranger(role: Option<Role>) -> Self {
        Self { user: None, rights: role.map_or(Rights::Nothing, Rights::Role) }
    }

    /// A user who gave a password.
    #[must_use]
    pub fn user(name: &str, role: Role) -> Self {
        Self { user: Some(name.to_owned()), rights: Rights::Role(role) }
    }

    /// Somebody with a token; `role` is the user's, none for strangers.
    #[must_use]
    pub fn token(user: Option<String>, access: Vec<Access>, role: Option<Role>) -> Self {
        Self { user, rights: Rights::Token(access, role) }
    }

    /// Whether it came with a token.
    #[must_use]
    pub fn has_token(&self) -> bool {
        matches!(self.rights, Rights::Token(..))
    }

    /// Whether something may be done to a repository.
    #[must_use]
    pub fn may(&self, action: Action, repository: &str) -> bool {
        match &self.rights {
            Rights::Nothing => false,
            Rights::Role(role) => action.allowed_to(*role),
            Rights::Token(access, _) => access.iter().any(|access| {
                access.kind == "repository" && access.name == repository && access.actions.iter().any(|known| known == action.name())
            }),
        }
    }

    /// Whether the list of repositories may be read.
    #[must_use]
    pub fn may_list(&self) -> bool {
        match &self.rights {
            Rights::Nothing => false,
            Rights::Role(_) => true,
            Rights::Token(access, _) => access.iter().any(|access| access.kind == "registry" && access.name == "catalog"),
        }
    }

    /// Whether it is an administrator.
    #[must_use]
    pub fn is_admin(&self) -> bool {
        matches!(&self.rights, Rights::Role(Role::Admin) | Rights::Token(_, Some(Role::Admin))) && self.user.is_some()
    }
}

/// What of the scopes that were asked for is granted to a role. Scopes that make no sense are left out.
#[must_use]
pub fn grant<'a>(scopes: impl Iterator<Item = &'a str>, role: Option<Role>) -> Vec<Access> {
    let Some(role) = role else { return Vec::new() };
    let mut granted: Vec<Access> = Vec::new();
    for scope in scopes.flat_map(str::split_ascii_whitespace).take(SCOPES) {
        let Some((kind, rest)) = scope.split_once(':') else { continue };
        // `repository(plugin)` is a repository with a class, which says nothing about rights.
        let kind = if kind.starts_with("repository(") && kind.ends_with(')') { "repository" } else { kind };
        let Some((name, actions)) = rest.rsplit_once(':') else { continue };
        let asked: Vec<&str> = actions.split(',').collect();
        let actions: Vec<String> = match kind {
            "registry" if name == "catalog" => vec!["*".to_owned()],
            "repository" if is_repository(name) => [Action::Pull, Action::Push, Action::Delete]
                .into_iter()
                .filter(|action| asked.contains(&action.name()) || asked.contains(&"*"))
                .filter(|action| action.allowed_to(role))
                .map(|action| action.name().to_owned())
                .collect(),
            _ => continue,
        };
        if actions.is_empty() {
            continue;
        }
        match granted.iter_mut().find(|access| access.kind == kind && access.name == name) {
            Some(access) => access.actions.extend(actions.into_iter().filter(|new| !access.actions.contains(new)).collect::<Vec<_>>()),
            None => granted.push(Access { kind: kind.to_owned(), name: name.to_owned(), actions }),
        }
    }
    granted
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scopes_are_cut_to_the_role() {
        let of = |scope: &'static str, role| grant([scope].into_iter(), role);
        let push = of("repository:a/b:pull,push,delete repository:a/b:pull", Some(Role::Push));
        assert_eq!(push, [Access { kind: "repository".into(), name: "a/b".into(), actions: vec!["pull".into(), "push".into()] }]);
        assert_eq!(of("repository:a:*", Some(Role::Admin))[0].actions, ["pull", "push", "delete"]);
        assert_eq!(of("repository(plugin):a:pull", Some(Role::Pull)), of("repository:a:pull", Some(Role::Pull)));
        assert_eq!(of("repository:a:push", Some(Role::Pull)), []);
        assert_eq!(of("repository:a:pull", None), []);
        for odd in ["", ":", "::", "repository:A:pull", "repository:a", "x:y:z", "repository:../a:pull", "repository(:a:pull"] {
            assert_eq!(of(odd, Some(Role::Admin)), [], "{odd}");
        }
    }

    #[test]
    fn a_token_gives_what_it_names() {
        let identity = Identity::token(Some("u".into()), grant(["repository:a:pull"].into_iter(), Some(Role::Admin)), Some(Role::Admin));
        assert!(identity.may(Action::Pull, "a") && !identity.may(Action::Push, "a") && !identity.may(Action::Pull, "b"));
        assert!(identity.is_admin() && !identity.may_list());
        assert!(!Identity::stranger(None).may(Action::Pull, "a"));
        assert!(Identity::stranger(Some(Role::Pull)).may(Action::Pull, "a"));
        assert!(!Identity::stranger(Some(Role::Admin)).is_admin());
    }
}
