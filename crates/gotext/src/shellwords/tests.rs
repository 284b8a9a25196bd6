//! Words and expansions, by table and by chance.

use proptest::prelude::*;

use super::*;

fn lookup(name: &str) -> Option<String> {
    let value = match name {
        "PWD" => "/home",
        "EMPTY" => "",
        "KO" => "한국어",
        "P" => "/usr/local/lib/x.tar.gz",
        "V" => "1.2.3",
        "S" => "two words",
        "STAR" => "a*b",
        _ => return None,
    };
    Some(value.to_owned())
}

fn word(text: &str) -> Result<String, String> {
    Lexer::new('\\').expand(text, &lookup).map(|done| done.text).map_err(|error| error.reason)
}

#[test]
fn texts_are_expanded() {
    for (text, wanted) in [
        ("hello", "hello"),
        ("he'll'o", "hello"),
        ("he\\'llo", "he'llo"),
        ("abc\\tdef", "abctdef"),
        ("'abc\\tdef'", "abc\\tdef"),
        ("\"abc\\tdef\"", "abc\\tdef"),
        ("\"a\\\"b\\$PWD\"", "a\"b$PWD"),
        ("hello\\", "hello"),
        ("'$PWD'", "$PWD"),
        ("\"$PWD\"x", "/homex"),
        ("$PWDx", ""),
        ("${PWD}x", "/homex"),
        ("$KO", "한국어"),
        ("안녕$PWD", "안녕/home"),
        ("$", "$"),
        ("a$ b", "a$ b"),
        ("$1", ""),
        ("$12x", "x"),
        ("$@", ""),
        ("${UNSET:-a}", "a"),
        ("${EMPTY:-a}", "a"),
        ("${EMPTY-a}", ""),
        ("${PWD:-a}", "/home"),
        ("${UNSET:-$PWD}", "/home"),
        ("${UNSET:-${UNSET2:-x}}", "x"),
        ("${PWD:+a}", "a"),
        ("${EMPTY:+a}", ""),
        ("${EMPTY+a}", "a"),
        ("${UNSET+a}", ""),
        ("${PWD:?no}", "/home"),
        ("${EMPTY?no}", ""),
        ("${P#*/}", "usr/local/lib/x.tar.gz"),
        ("${P##*/}", "x.tar.gz"),
        ("${P%/*}", "/usr/local/lib"),
        ("${P%%/*}", ""),
        ("${P%.gz}", "/usr/local/lib/x.tar"),
        ("${P%%.*}", "/usr/local/lib/x"),
        ("${V%.?}", "1.2"),
        ("${V#?.}", "2.3"),
        ("${V##*.}", "3"),
        ("${V/./-}", "1-2.3"),
        ("${V//./-}", "1-2-3"),
        ("${V//?.?/x}", "x.3"),
        ("${P/*lib/L}", "L/x.tar.gz"),
        ("${P//\\//:}", ":usr:local:lib:x.tar.gz"),
        ("${STAR/\\*/+}", "a+b"),
        ("${STAR%\\*b}", "a"),
        ("${V/x/y}", "1.2.3"),
        ("${UNSET/x/y}", ""),
        ("a<<b", "a<<b"),
    ] {
        assert_eq!(word(text).as_deref(), Ok(wanted), "{text}");
    }
}

#[test]
fn faults_have_buildkits_words() {
    for (text, wanted) in [
        ("'abc", "unexpected end of statement while looking for matching single-quote"),
        ("\"abc", "unexpected end of statement while looking for matching double-quote"),
        ("${", "syntax error: missing '}'"),
        ("${}", "syntax error: bad substitution"),
        ("${{x}}", "syntax error: bad substitution"),
        ("${x", "unsupported modifier (\u{fffd}) in substitution"),
        ("${x:-a", "syntax error: missing '}'"),
        ("${x:a}", "unsupported modifier (:a) in substitution"),
        ("${PWD:#a}", "unsupported modifier (:#) in substitution"),
        ("${x@a}", "unsupported modifier (@) in substitution"),
        ("${UNSET:?}", "UNSET: is not allowed to be unset"),
        ("${EMPTY:?}", "EMPTY: is not allowed to be empty"),
        ("${UNSET?message}", "UNSET: message"),
        ("${V/a}", "syntax error: missing '/' in ${}"),
        ("${V#\\x}", "invalid pattern (\\x) in substitution: invalid escape '\\x'"),
    ] {
        assert_eq!(word(text), Err(wanted.to_owned()), "{text}");
    }
    let error = Lexer::new('\\').expand("a 'b", &lookup).unwrap_err().to_string();
    assert_eq!(error, "failed to process \"a 'b\": unexpected end of statement while looking for matching single-quote");
}

#[test]
fn words_split_where_nothing_is_quoted() {
    for (text, wanted) in [
        ("a  b", &["a", "b"][..]),
        ("a\\ b", &["a b"]),
        ("'a b' \"c d\"", &["a b", "c d"]),
        ("$S", &["two", "words"]),
        ("\"$S\"", &["two words"]),
        ("<<EOF x", &["<<EOF", "x"]),
        ("<< EOF x", &["<< EOF", "x"]),
        ("''", &[]),
        ("", &[]),
    ] {
        assert_eq!(Lexer::new('\\').expand(text, &lookup).unwrap().words, wanted, "{text}");
    }
}

#[test]
fn raw_forms_keep_what_they_are_told_to_keep() {
    let raw = Lexer { raw_quotes: true, raw_escapes: true, skip_unset: true, ..Lexer::new('\\') };
    let kept = raw.expand("'a' \"b\" \\c $UNSET ${UNSET:-x} $PWD", &lookup).unwrap();
    assert_eq!(kept.text, "'a' \"b\" \\c $UNSET ${UNSET:-x} /home");
    assert_eq!((kept.matched.into_iter().collect::<Vec<_>>(), kept.unmatched.len()), (vec!["PWD".to_owned()], 1));
    let body = Lexer { skip_quotes: true, ..Lexer::new('\\') };
    assert_eq!(body.expand("it's $PWD \\$x", &lookup).unwrap().text, "it's /home $x");
    assert_eq!(Lexer::new('`').expand("a\\b`$x", &lookup).unwrap().text, "a\\b$x");
}

#[test]
fn hostile_texts_end_quickly() {
    assert!(word(&"${a:-".repeat(10_000)).is_err());
    let large = |_: &str| Some("x".repeat(600_000));
    assert!(Lexer::new('\\').expand("$a$a", &large).is_err());
    assert!(Lexer::new('\\').expand(&format!("${{a//{}/b}}", "*x".repeat(20_000)), &large).is_err());
    assert!(Lexer::new('\\').expand("${a//x/yy}", &large).is_err());
}

proptest! {
    #[test]
    fn arbitrary_texts_do_no_harm(text in r#"[ab$\{\}:?#%/*'"\\<+ 0-]{0,24}"#) {
        let _either = Lexer::new('\\').expand(&text, &lookup);
        let _either = Lexer { raw_quotes: true, raw_escapes: true, skip_unset: true, ..Lexer::new('`') }.expand(&text, &lookup);
    }

    #[test]
    fn single_quotes_keep_everything(text in "[^']{0,20}") {
        prop_assert_eq!(word(&format!("'{text}'")), Ok(text));
    }
}
