//! What a conformance suite reports as JUnit XML, as far as the reports here need it: each test's name, how it went, and why. Pure.

/// How a test went.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Status {
    /// As it should.
    Passed,
    /// Not run, or nothing that a registry must have.
    Skipped,
    /// Everything else.
    Failed,
}

/// A test.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Test {
    pub(crate) name: String,
    pub(crate) status: Status,
    /// The first line of what it says about a failure.
    pub(crate) why: String,
}

/// The tests of a report, in their order.
pub(crate) fn tests(xml: &str) -> Vec<Test> {
    xml.split("<testcase ").skip(1).map(|part| test(part.split("</testcase>").next().unwrap_or_default())).collect()
}

fn test(part: &str) -> Test {
    let (head, rest) = part.split_once('>').unwrap_or((part, ""));
    let status = match attribute(head, "status").as_str() {
        "passed" => Status::Passed,
        "skipped" | "pending" => Status::Skipped,
        _ => Status::Failed,
    };
    let said = rest.split_once("<failure ").map(|(_, failure)| attribute(failure.split('>').next().unwrap_or_default(), "message"));
    let printed = || Some(plain(rest.split_once("<system-out>")?.1.split("</system-out>").next()?));
    let why = said.or_else(printed).unwrap_or_default();
    let lines: Vec<&str> = why.lines().map(str::trim).filter(|line| !line.is_empty()).take(3).collect();
    Test { name: attribute(head, "name"), status, why: lines.join(" ") }
}

fn attribute(head: &str, name: &str) -> String {
    let start = format!("{name}=\"");
    let value = head.split_once(start.as_str()).and_then(|(_, rest)| rest.split_once('"'));
    value.map_or_else(String::new, |(value, _)| plain(value))
}

/// Text without the escapes of XML.
fn plain(text: &str) -> String {
    let mut text = text.to_owned();
    for (escape, letter) in
        [("&lt;", "<"), ("&gt;", ">"), ("&#34;", "\""), ("&quot;", "\""), ("&#39;", "'"), ("&#xA;", "\n"), ("&#x9;", " "), ("&amp;", "&")]
    {
        text = text.replace(escape, letter);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_suites_reports_are_read() {
        let old = "<testsuites><testsuite><testcase name=\"[It] a &amp; b\" status=\"passed\" time=\"1\"><system-err>x</system-err></testcase>\
                   <testcase name=\"c\" status=\"failed\"><failure message=\"Expected&#xA;    &lt;int&gt;: 4\" type=\"failed\">f</failure></testcase>";
        let found = tests(old);
        assert_eq!(found[0], Test { name: "[It] a & b".into(), status: Status::Passed, why: String::new() });
        assert_eq!(found[1], Test { name: "c".into(), status: Status::Failed, why: "Expected <int>: 4".into() });
        let new = "<testcase name=\"d/e\" classname=\"\" status=\"skipped\"></testcase><testcase name=\"f\" status=\"failure\">\
                   <system-out>no &#34;x&#34;</system-out></testcase>";
        let found = tests(new);
        assert_eq!((found[0].status, found[1].status, found[1].why.as_str()), (Status::Skipped, Status::Failed, "no \"x\""));
    }
}
