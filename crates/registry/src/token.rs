//! Tokens: made and checked here alone, signed with a key of this registry. No HTTP.

use std::io;
use std::path::Path;

use aws_lc_rs::signature::KeyPair as _;
use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey, Header, Validation};
use serde::{Deserialize, Serialize};

use crate::error::{Code, RegistryError, Result};
use crate::rights::Access;
use crate::store::{now, random_id};

/// Seconds that a token is good for.
pub const LIFE: i64 = 300;
/// Seconds that a refresh token is good for.
const REFRESH_LIFE: i64 = 90 * 24 * 3600;
/// The longest token that is looked at.
const LIMIT: usize = 32 << 10;
const ISSUER: &str = "sampan-registry";

/// What a token is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Use {
    /// Requests.
    Access,
    /// Getting other tokens.
    Refresh,
}

/// What a token says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Claims {
    /// Who made it.
    pub iss: String,
    /// The user; empty for strangers.
    pub sub: String,
    /// The service it was asked for.
    pub aud: String,
    /// Not after.
    pub exp: i64,
    /// Not before.
    pub nbf: i64,
    /// Made when.
    pub iat: i64,
    /// No two are the same.
    pub jti: String,
    /// Rights.
    #[serde(default)]
    pub access: Vec<Access>,
    /// Version of the user's password.
    #[serde(default, rename = "ver")]
    pub version: String,
    /// What for.
    #[serde(rename = "use")]
    pub used_for: Use,
}

/// The key of this registry.
pub struct TokenKey {
    sign: EncodingKey,
    check: DecodingKey,
    rules: Validation,
}

impl std::fmt::Debug for TokenKey {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("TokenKey")
    }
}

impl TokenKey {
    /// Reads the key of a data root, and makes it at the first start.
    ///
    /// # Errors
    /// A failing disk, a broken file.
    pub fn open(root: &Path) -> io::Result<Self> {
        let path = root.join("token.key");
        let broken = || io::Error::new(io::ErrorKind::InvalidData, format!("{} holds no Ed25519 key", path.display()));
        let der = match std::fs::read(&path) {
            Ok(der) => der,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let made = aws_lc_rs::signature::Ed25519KeyPair::generate_pkcs8(&aws_lc_rs::rand::SystemRandom::new());
                let der = made.map_err(io::Error::other)?.as_ref().to_vec();
                sampan_durable::write_atomic_with_mode(&path, &der, 0o600)?;
                der
            }
            Err(error) => return Err(error),
        };
        let pair = aws_lc_rs::signature::Ed25519KeyPair::from_pkcs8(&der).map_err(|_| broken())?;
        let mut rules = Validation::new(Algorithm::EdDSA);
        rules.set_issuer(&[ISSUER]);
        rules.validate_aud = false;
        rules.validate_nbf = true;
        rules.leeway = 5;
        Ok(Self { sign: EncodingKey::from_ed_der(&der), check: DecodingKey::from_ed_der(pair.public_key().as_ref()), rules })
    }

    /// Makes a token.
    ///
    /// # Errors
    /// A machine without random numbers.
    pub fn make(&self, used_for: Use, user: &str, version: &str, service: &str, access: Vec<Access>) -> Result<String> {
        let iat = now();
        let life = if used_for == Use::Refresh { REFRESH_LIFE } else { LIFE };
        let claims = Claims {
            iss: ISSUER.to_owned(),
            sub: user.to_owned(),
            aud: service.to_owned(),
            exp: iat + life,
            nbf: iat,
            iat,
            jti: random_id()?,
            access,
            version: version.to_owned(),
            used_for,
        };
        jsonwebtoken::encode(&Header::new(Algorithm::EdDSA), &claims, &self.sign).map_err(|error| io::Error::other(error).into())
    }

    /// Checks a token.
    ///
    /// # Errors
    /// `UNAUTHORIZED` for anything that this registry did not make for this use, or that is over.
    pub fn check(&self, token: &str, used_for: Use) -> Result<Claims> {
        let refused = || RegistryError::say(Code::Unauthorized, "invalid token");
        if token.len() > LIMIT {
            return Err(refused());
        }
        let claims = jsonwebtoken::decode::<Claims>(token, &self.check, &self.rules).map_err(|_| refused())?.claims;
        if claims.used_for == used_for { Ok(claims) } else { Err(refused()) }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn only_our_tokens_are_good_and_only_for_their_use() {
        let (one, two) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let key = TokenKey::open(one.path()).unwrap();
        let mode = std::fs::metadata(one.path().join("token.key")).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        let token = key.make(Use::Access, "u", "v", "s", Vec::new()).unwrap();
        assert_eq!(TokenKey::open(one.path()).unwrap().check(&token, Use::Access).unwrap().sub, "u");
        assert!(key.check(&token, Use::Refresh).is_err());
        assert!(TokenKey::open(two.path()).unwrap().check(&token, Use::Access).is_err());
        let (head, rest) = token.split_once('.').unwrap();
        let (claims, _) = rest.split_once('.').unwrap();
        let none = "eyJhbGciOiJub25lIiwidHlwIjoiSldUIn0";
        for bad in [
            format!("{none}.{claims}."),
            format!("{head}.{claims}."),
            format!("{token}x"),
            String::new(),
            "a.b.c".into(),
            "x".repeat(40_000),
        ] {
            assert!(key.check(&bad, Use::Access).is_err(), "{bad}");
        }
        std::fs::write(one.path().join("token.key"), b"broken").unwrap();
        assert!(TokenKey::open(one.path()).is_err());
    }
}
