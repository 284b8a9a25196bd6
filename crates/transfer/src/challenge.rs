//! `WWW-Authenticate` (RFC 9110 §11.6.1): what a registry wants to be shown. Pure; reads any bytes without failing.
//!
//! One header may hold several challenges and a challenge several parameters, both divided by commas; quoted values may hold
//! commas too. What cannot be read is left out, as the rest may suffice.

/// How many challenges are looked at.
const CHALLENGES: usize = 32;
/// How many parameters of one are kept.
const PARAMETERS: usize = 32;
/// How many bytes of all headers are read.
const LIMIT: usize = 64 << 10;

/// One challenge.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Challenge {
    /// The scheme in lower case, such as `bearer`.
    pub scheme: String,
    /// The parameters; names in lower case.
    pub parameters: Vec<(String, String)>,
}

impl Challenge {
    /// The first parameter of a name.
    #[must_use]
    pub fn parameter(&self, name: &str) -> Option<&str> {
        self.parameters.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }
}

/// Reads the challenges of all `WWW-Authenticate` headers of a reply, in order.
#[must_use]
pub fn parse<'a>(headers: impl IntoIterator<Item = &'a [u8]>) -> Vec<Challenge> {
    let mut challenges = Vec::new();
    let mut left = LIMIT;
    for header in headers {
        let header = header.get(..left.min(header.len())).unwrap_or_default();
        left -= header.len();
        Scanner { bytes: header, at: 0 }.challenges(&mut challenges);
    }
    challenges
}

struct Scanner<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl Scanner<'_> {
    fn challenges(&mut self, found: &mut Vec<Challenge>) {
        // Parameters belong to the last scheme of the same header.
        let first = found.len();
        loop {
            self.skip(|byte| matches!(byte, b' ' | b'\t' | b','));
            let token = self.token();
            if token.is_empty() {
                if self.at >= self.bytes.len() {
                    return;
                }
                // Nothing that may stand here: go on behind the next comma.
                self.skip(|byte| byte != b',');
                continue;
            }
            let mark = self.at;
            self.skip(|byte| matches!(byte, b' ' | b'\t'));
            if self.peek() == Some(b'=') {
                self.at += 1;
                self.skip(|byte| matches!(byte, b' ' | b'\t'));
                let value = self.value();
                if let Some(challenge) = found.get_mut(first..).and_then(<[Challenge]>::last_mut)
                    && challenge.parameters.len() < PARAMETERS
                {
                    challenge.parameters.push((token.to_ascii_lowercase(), value));
                }
            } else {
                if found.len() >= CHALLENGES {
                    return;
                }
                found.push(Challenge { scheme: token.to_ascii_lowercase(), parameters: Vec::new() });
                self.at = mark;
                self.skip_token68();
            }
        }
    }

    /// Steps over `Negotiate`'s sort of argument: one word, padded by `=`, with nothing behind it.
    fn skip_token68(&mut self) {
        let mark = self.at;
        self.skip(|byte| matches!(byte, b' ' | b'\t'));
        let begin = self.at;
        self.skip(|byte| byte.is_ascii_alphanumeric() || b"-._~+/".contains(&byte));
        let word = self.at > begin;
        self.skip(|byte| byte == b'=');
        self.skip(|byte| matches!(byte, b' ' | b'\t'));
        if !word || self.at == mark || !matches!(self.peek(), None | Some(b',')) {
            self.at = mark;
        }
    }

    fn value(&mut self) -> String {
        if self.peek() != Some(b'"') {
            // A bare value is a token; some registries forget the quotes around a URL.
            let begin = self.at;
            self.skip(|byte| !matches!(byte, b',' | b' ' | b'\t'));
            return lossy(self.bytes.get(begin..self.at).unwrap_or_default());
        }
        self.at += 1;
        let mut value = Vec::new();
        while let Some(byte) = self.peek() {
            self.at += 1;
            match byte {
                b'"' => break,
                b'\\' => {
                    value.extend(self.peek());
                    self.at += 1;
                }
                _ => value.push(byte),
            }
        }
        lossy(&value)
    }

    fn token(&mut self) -> String {
        let begin = self.at;
        self.skip(|byte| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte));
        lossy(self.bytes.get(begin..self.at).unwrap_or_default())
    }

    fn peek(&self) -> Option<u8> {
        self.bytes.get(self.at).copied()
    }

    fn skip(&mut self, wanted: impl Fn(u8) -> bool) {
        while self.peek().is_some_and(&wanted) {
            self.at += 1;
        }
    }
}

fn lossy(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn shown(headers: &[&str]) -> String {
        let challenges = parse(headers.iter().map(|header| header.as_bytes()));
        let one = |challenge: Challenge| {
            let parameters: Vec<_> = challenge.parameters.iter().map(|(name, value)| format!("{name}=<{value}>")).collect();
            format!("{} {}", challenge.scheme, parameters.join(" ")).trim_end().to_owned()
        };
        challenges.into_iter().map(one).collect::<Vec<_>>().join(" | ")
    }

    #[test]
    fn challenges_are_read() {
        for (headers, wanted) in [
            (&[r#"Basic realm="x""#][..], "basic realm=<x>"),
            (
                &[r#"Bearer realm="https://auth/token",service="reg",scope="repository:a/b:pull,push""#],
                "bearer realm=<https://auth/token> service=<reg> scope=<repository:a/b:pull,push>",
            ),
            (&[r#"Basic realm="a", Bearer realm="b" , service="c""#], "basic realm=<a> | bearer realm=<b> service=<c>"),
            (&[r#"Basic realm="a""#, r#"bearer Realm="b""#], "basic realm=<a> | bearer realm=<b>"),
            (&["Negotiate", r#"Negotiate abc==, Basic realm="q\"\\,x""#], r#"negotiate | negotiate | basic realm=<q"\,x>"#),
            (&[r#"NTLM, Basic realm = "a" ,,, charset=UTF-8"#], "ntlm | basic realm=<a> charset=<UTF-8>"),
            (&["Bearer realm=https://h/t?x,service=s"], "bearer realm=<https://h/t?x> service=<s>"),
            (&[r#"Bearer realm="never ends, service="#], "bearer realm=<never ends, service=>"),
            (&[r#"=, "x", Basic"#, "realm=\"lost\"", ""], "basic"),
            (&[r#"Bearer realm="x",error="insufficient_scope""#], "bearer realm=<x> error=<insufficient_scope>"),
        ] {
            assert_eq!(shown(headers), wanted, "{headers:?}");
        }
    }

    #[test]
    fn floods_end() {
        let many = "a b=c,".repeat(100_000);
        let challenges = parse([many.as_bytes(), many.as_bytes()]);
        assert_eq!(challenges.len(), CHALLENGES);
        let parameters = format!("a {}", "b=c,".repeat(10_000));
        assert_eq!(parse([parameters.as_bytes()])[0].parameters.len(), PARAMETERS);
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_do_no_harm(headers: Vec<Vec<u8>>) {
            let _challenges = parse(headers.iter().map(Vec::as_slice));
        }

        #[test]
        fn what_is_quoted_comes_back(values in proptest::collection::vec("[ -~]{0,20}", 1..5)) {
            let quoted = |value: &String| format!("k=\"{}\"", value.replace('\\', "\\\\").replace('"', "\\\""));
            let header = format!("Bearer {}", values.iter().map(quoted).collect::<Vec<_>>().join(", "));
            let challenges = parse([header.as_bytes()]);
            prop_assert_eq!(challenges.len(), 1);
            let read: Vec<_> = challenges[0].parameters.iter().map(|(_, value)| value.clone()).collect();
            prop_assert_eq!(read, values);
        }
    }
}
