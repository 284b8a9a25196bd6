//! Bearer tokens: JSON Web Tokens signed with Ed25519, as the Docker token specification describes them.

use std::io;
use std::path::Path;
use std::time::Duration;

use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair as _};
use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey, Header, Validation};
use serde::{Deserialize, Serialize};

use crate::store::{Role, now};

/// How long a token is good, seconds.
pub(crate) const LIFE: i64 = 300;
/// Longest list of scopes in one request.
const MAX_SCOPES: usize = 100;
const ISSUER: &str = "sampan-registry";

/// What is done with a repository.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Access {
    Pull,
    Push,
    Delete,
}

impl Access {
    fn name(self) -> &'static str {
        match self {
            Self::Pull => "pull",
            Self::Push => "push",
            Self::Delete => "delete",
        }
    }

    /// The least role that may.
    pub(crate) fn role(self) -> Role {
        match self {
            Self::Pull => Role::Pull,
            Self::Push | Self::Delete => Role::Push,
        }
    }
}

/// One entry of a token's `access`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Scope {
    #[serde(rename = "type")]
    pub(crate) kind: String,
    pub(crate) name: String,
    pub(crate) actions: Vec<String>,
}

impl Scope {
    /// Reads `repository:NAME:ACTION,ACTION`; a name may hold colons (a port).
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let (kind, rest) = text.split_once(':')?;
        let (name, actions) = rest.rsplit_once(':')?;
        // `repository(plugin)` is a repository.
        let kind = kind.split('(').next().unwrap_or_default();
        let actions = actions.split(',').filter(|action| !action.is_empty()).map(str::to_owned).collect();
        Some(Self { kind: kind.to_owned(), name: name.to_owned(), actions })
    }

    /// Reads what a request's `scope` parameters list, divided by spaces.
    pub(crate) fn parse_all<'a>(texts: impl Iterator<Item = &'a str>) -> Vec<Self> {
        texts.flat_map(|text| text.split(' ')).filter_map(Self::parse).take(MAX_SCOPES).collect()
    }

    /// Whether it covers something with a repository.
    pub(crate) fn allows(&self, access: Access, repo: &str) -> bool {
        if repo == crate::CATALOG {
            return self.kind == "registry" && self.name == "catalog" && self.actions.iter().any(|action| action == "*");
        }
        let fits = |action: &String| action == access.name() || action == "*";
        self.kind == "repository" && self.name == repo && self.actions.iter().any(fits)
    }

    /// The challenge's text for it.
    pub(crate) fn challenge(access: Access, repo: &str) -> String {
        if repo == crate::CATALOG {
            return "registry:catalog:*".to_owned();
        }
        let actions = match access {
            Access::Pull => "pull",
            Access::Push => "pull,push",
            Access::Delete => "delete",
        };
        format!("repository:{repo}:{actions}")
    }

    /// What is left of it for a role.
    pub(crate) fn granted(self, role: Option<Role>) -> Self {
        let allowed = |action: &String| match action.as_str() {
            "pull" => role >= Some(Role::Pull),
            "push" | "delete" => role >= Some(Role::Push),
            "*" => role >= Some(if self.kind == "registry" { Role::Pull } else { Role::Push }),
            _ => false,
        };
        let actions = if role.is_some() { self.actions.iter().filter(|action| allowed(action)).cloned().collect() } else { Vec::new() };
        Self { actions, ..self }
    }
}

/// What a token says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Claims {
    iss: String,
    /// The user; empty: nobody in particular.
    pub(crate) sub: String,
    aud: String,
    exp: i64,
    nbf: i64,
    iat: i64,
    jti: String,
    pub(crate) access: Vec<Scope>,
    /// The state of the user that it was given to.
    #[serde(default)]
    pub(crate) changed: i64,
}

/// The key that signs tokens.
pub(crate) struct Keys {
    signing: EncodingKey,
    checking: DecodingKey,
    validation: Validation,
}

impl std::fmt::Debug for Keys {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Keys(redacted)")
    }
}

impl Keys {
    /// Reads the key of a data root, `keys/token.pk8` (PKCS #8, mode 0600); makes it if there is none.
    pub(crate) fn open(root: &Path) -> io::Result<Self> {
        let folder = root.join("keys");
        let path = folder.join("token.pk8");
        let bytes = match std::fs::read(&path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                use std::os::unix::fs::DirBuilderExt as _;
                std::fs::DirBuilder::new().recursive(true).mode(0o700).create(&folder)?;
                let made = Ed25519KeyPair::generate_pkcs8(&aws_lc_rs::rand::SystemRandom::new()).map_err(io::Error::other)?;
                sampan_durable::write_atomic_with_mode(&path, made.as_ref(), 0o600)?;
                made.as_ref().to_vec()
            }
            Err(error) => return Err(error),
        };
        let pair = Ed25519KeyPair::from_pkcs8(&bytes)
            .map_err(|error| io::Error::new(io::ErrorKind::InvalidData, format!("{}: {error}", path.display())))?;
        let mut validation = Validation::new(Algorithm::EdDSA);
        validation.set_issuer(&[ISSUER]);
        validation.set_audience(&[ISSUER]);
        validation.leeway = 10;
        validation.validate_nbf = true;
        let checking = DecodingKey::from_ed_der(pair.public_key().as_ref());
        Ok(Self { signing: EncodingKey::from_ed_der(&bytes), checking, validation })
    }

    /// Gives out a token.
    pub(crate) fn sign(&self, user: &str, changed: i64, access: Vec<Scope>) -> io::Result<String> {
        let mut random = [0; 16];
        getrandom::fill(&mut random).map_err(io::Error::other)?;
        let now = now();
        let claims = Claims {
            iss: ISSUER.into(),
            sub: user.to_owned(),
            aud: ISSUER.into(),
            exp: now + LIFE,
            nbf: now,
            iat: now,
            jti: hex::encode(random),
            access,
            changed,
        };
        jsonwebtoken::encode(&Header::new(Algorithm::EdDSA), &claims, &self.signing).map_err(io::Error::other)
    }

    /// What a token says, and how long it is good; `None` for one that is not ours, or not any more.
    pub(crate) fn verify(&self, token: &str) -> Option<(Claims, Duration)> {
        let claims = jsonwebtoken::decode::<Claims>(token, &self.checking, &self.validation).ok()?.claims;
        let left = u64::try_from(claims.exp - now()).unwrap_or(0);
        Some((claims, Duration::from_secs(left)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_known_by_its_key_only() {
        let folder = tempfile::tempdir().unwrap();
        let keys = Keys::open(folder.path()).unwrap();
        let scope = Scope::parse("repository:a/b:pull,push").unwrap();
        let token = keys.sign("jane", 7, vec![scope.clone()]).unwrap();
        let again = Keys::open(folder.path()).unwrap();
        let (claims, left) = again.verify(&token).unwrap();
        assert_eq!((claims.sub.as_str(), claims.changed, &claims.access[0]), ("jane", 7, &scope));
        assert!(left <= Duration::from_secs(300) && left > Duration::from_secs(200));
        let other = Keys::open(tempfile::tempdir().unwrap().path()).unwrap();
        assert!(other.verify(&token).is_none());
        assert!(again.verify("").is_none() && again.verify("a.b.c").is_none());
        // A token without a signature is none.
        let (head, _) = token.rsplit_once('.').unwrap();
        assert!(again.verify(&format!("{head}.")).is_none());
    }

    #[test]
    fn scopes_are_read_and_cut_to_the_role() {
        let scope = Scope::parse("repository:host:5000/a:pull,push,delete").unwrap();
        assert_eq!(scope.name, "host:5000/a");
        assert!(scope.allows(Access::Push, "host:5000/a") && !scope.allows(Access::Push, "a"));
        assert_eq!(scope.clone().granted(Some(Role::Pull)).actions, ["pull"]);
        assert_eq!(scope.clone().granted(None).actions, Vec::<String>::new());
        assert_eq!(scope.granted(Some(Role::Push)).actions, ["pull", "push", "delete"]);
        assert_eq!(Scope::parse("nonsense"), None);
        assert_eq!(Scope::parse_all(["repository:a:pull repository:b:push", "x"].into_iter()).len(), 2);
    }
}
