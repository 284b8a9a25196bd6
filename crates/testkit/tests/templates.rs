//! What Go printed for a list of templates, ours must print. The list lies beside the project; where it is missing, the test says so.

use sampan_gotext::Value;
use sampan_gotext::template::Template;
use sampan_testkit::setup;

#[test]
fn templates_print_what_go_prints() {
    let Some(folder) = setup::testdata().map(|folder| folder.join("go-templates")) else {
        eprintln!("not run: no test data beside the project (SAMPAN_TESTDATA)");
        return;
    };
    // One case cuts a character in half: both sides show that as the replacement character.
    let read = |name: &str| String::from_utf8_lossy(&std::fs::read(folder.join(name)).expect("a file of the list")).into_owned();
    let data: serde_json::Value = serde_json::from_str(&read("data.json")).expect("data");
    let data = Value::from(&data);
    let (cases, expected) = (read("cases.txt"), read("expected.txt"));
    let mut wrong = Vec::new();
    for (case, expected) in cases.lines().zip(expected.lines()) {
        let printed = match Template::parse(case) {
            Err(_) => "PARSE-ERR".to_owned(),
            Ok(template) => template.execute(&data).map_or_else(|_| "EXEC-ERR".to_owned(), |text| text.replace('\n', "\\n")),
        };
        if printed != expected {
            wrong.push(format!("{case}\n  Go   {expected}\n  ours {printed}"));
        }
    }
    assert!(wrong.is_empty(), "{} differ:\n{}", wrong.len(), wrong.join("\n"));
}
