//! Builds as they are shown, from messages as an engine sends them.

use serde_json::json;

use super::*;

#[expect(clippy::needless_pass_by_value, reason = "written in place by each test")]
fn event(kind: &str, step: u64, more: Value) -> Value {
    let mut event = json!({"kind": kind, "step": step});
    for (key, value) in more.as_object().unwrap() {
        event[key] = value.clone();
    }
    json!({"sampan": event})
}

fn recorded() -> Vec<(u64, Value)> {
    let steps = json!([
        {"name": "[1/3] FROM alpine:3.14", "from": true},
        {"name": "[2/3] RUN make", "from": false},
        {"name": "[3/3] COPY a b", "from": false},
    ]);
    let warnings = json!([{"rule":"UndefinedVar","message":"Usage of undefined variable '$X'","line":3}]);
    vec![
        (0, event("planned", 0, json!({"steps": steps, "warnings": warnings}))),
        (0, json!({"status":"Pulling from library/alpine","id":"3.14"})),
        (5, json!({"status":"Downloading","id":"abc","progressDetail":{"current":1,"total":2}})),
        (10, event("started", 0, json!({}))),
        (11, event("done", 0, json!({"cached": false, "reason": ""}))),
        (20, event("started", 1, json!({}))),
        (230, event("output", 1, json!({"stderr": false, "text": "one\ntw"}))),
        (240, event("output", 1, json!({"stderr": true, "text": "\u{1b}[31mred\u{1b}[0m\n"}))),
        (250, event("output", 1, json!({"stderr": false, "text": "o\n10%\r20%\r\nend"}))),
        (1270, event("done", 1, json!({"cached": false, "reason": "the command changed"}))),
        (1280, event("done", 2, json!({"cached": true, "reason": "nothing changed"}))),
        (1290, event("finished", 0, json!({"image": "sha256:0123456789abcdef", "names": ["a:1"], "unused": ["U"]}))),
    ]
}

fn play(style: Style, explain: bool, messages: &[(u64, Value)], good: bool) -> String {
    let mut out = Vec::new();
    let mut steps = Steps::new(&mut out, style, explain);
    for (at, message) in messages {
        steps.show(message, Duration::from_millis(*at)).unwrap();
    }
    let now = Duration::from_millis(1300);
    if good { steps.finish(now) } else { steps.fail(Some(&Failure { step: Some(1), text: "process \"make\" ended".into() }), now) }
        .unwrap();
    drop(steps);
    String::from_utf8(out).unwrap()
}

#[test]
fn plain_lines_tell_what_happens() {
    let expected = "WARNING: UndefinedVar: Usage of undefined variable '$X' (line 3)
3.14: Pulling from library/alpine
#1 [1/3] FROM alpine:3.14
#1 DONE 0.0s

#2 [2/3] RUN make
#2 0.210 one
#2 0.220 red
#2 0.230 two
#2 0.230 20%
#2 1.250 end
#2 DONE 1.2s

#3 [3/3] COPY a b
#3 CACHED

WARNING: One or more build-args [U] were not consumed
1 of 2 steps were cached; built 0123456789ab in 1.3s
named a:1
";
    assert_eq!(play(Style::Plain, false, &recorded(), true), expected);
}

#[test]
fn explained_steps_say_why() {
    let text = play(Style::Plain, true, &recorded(), true);
    let expected = "[2/3] RUN make: ran: the command changed\n[3/3] COPY a b: cached: nothing changed\n1 of 2 steps were cached;";
    assert!(text.contains(expected), "{text}");
}

/// What stands on a screen after a text of lines, `CSI n A`, `CSI K`, `CSI J`.
fn screen(text: &str) -> Vec<String> {
    let mut lines = vec![String::new()];
    let (mut row, mut column) = (0, 0);
    let mut rest = text.chars().peekable();
    while let Some(character) = rest.next() {
        match character {
            '\n' => {
                (row, column) = (row + 1, 0);
                if row == lines.len() {
                    lines.push(String::new());
                }
            }
            '\r' => column = 0,
            '\u{1b}' => {
                assert_eq!(rest.next(), Some('['));
                let mut parameters = String::new();
                let last = loop {
                    match rest.next().unwrap() {
                        letter if letter.is_ascii_alphabetic() => break letter,
                        other => parameters.push(other),
                    }
                };
                match last {
                    'A' => row -= parameters.parse::<usize>().unwrap(),
                    'K' => lines[row].truncate(column),
                    'J' => {
                        lines[row].truncate(column);
                        lines.truncate(row + 1);
                    }
                    _ => {}
                }
            }
            other => {
                lines[row].truncate(column);
                lines[row].push(other);
                column += 1;
            }
        }
    }
    lines
}

#[test]
fn on_a_terminal_lines_move_and_go() {
    let style = Style::Terminal { rows: 24, columns: 80 };
    let all = recorded();
    let mut out = Vec::new();
    let mut steps = Steps::new(&mut out, style, false);
    for (at, message) in &all[1..9] {
        if let (10, first) = (at, &all[0].1) {
            steps.show(first, Duration::ZERO).unwrap();
        }
        steps.show(message, Duration::from_millis(*at)).unwrap();
    }
    steps.tick(Duration::from_secs(1)).unwrap();
    let shown = screen(std::str::from_utf8(steps.out).unwrap());
    let expected = [
        "WARNING: UndefinedVar: Usage of undefined variable '$X' (line 3)",
        "[1/3] FROM alpine:3.14  0.0s",
        "building 1.0s, 1 of 3 steps done",
        "=> [2/3] RUN make  1.0s",
        "   one",
        "   red",
        "   two",
        "   20%",
        "",
    ];
    assert_eq!(shown, expected);
    drop(steps);
    assert_eq!(screen(std::str::from_utf8(&out).unwrap())[1..], ["[1/3] FROM alpine:3.14  0.0s", ""], "the moving part is gone");
    assert!(out.ends_with(b"\x1b[?25h"), "the cursor is back");
    let shown = screen(&play(style, false, &all, true));
    assert_eq!(shown[2..4], ["[2/3] RUN make  1.2s", "[3/3] COPY a b  CACHED"]);
    assert_eq!(shown[shown.len() - 2..], ["named a:1", ""]);
}

#[test]
fn a_failed_step_shows_what_it_printed() {
    let mut all = recorded();
    all.truncate(9);
    let shown = screen(&play(Style::Terminal { rows: 24, columns: 80 }, false, &all, false));
    let printed = ["------", " > [2/3] RUN make:", "0.210 one", "0.220 red", "0.230 two", "0.230 20%", "1.280 end", "------"];
    assert_eq!(shown[2..], [&["[2/3] RUN make  failed after 1.3s"][..], &printed, &[""]].concat());
    let plain = play(Style::Plain, false, &all, false);
    let expected = format!("#2 1.280 end\n#2 ERROR: process \"make\" ended\n{}\n", printed.join("\n"));
    assert!(plain.ends_with(&expected), "{plain}");
    // Others that were under way did not fail.
    all.push((1280, event("started", 2, json!({}))));
    assert!(play(Style::Plain, false, &all, false).contains("#2 ERROR: process \"make\" ended\n#3 CANCELED\n------"));
}

#[test]
fn nonsense_does_no_harm() {
    let messages = [
        json!({"sampan":{}}),
        json!({"sampan":7}),
        event("started", u64::MAX, json!({})),
        event("output", 77, json!({"text":"x"})),
        event("done", 55, json!({})),
        json!({"sampan":{"kind":"done","step":-1}}),
        event("planned", 0, json!({"steps":[7, {"name":"a\u{1b}]0;title\u{7}b\u{202e}\n"}], "warnings":"x"})),
        event("started", 1, json!({})),
        event("finished", 0, json!({"image":"é€é€é€é€","names":[1]})),
        json!([]),
    ];
    let messages: Vec<(u64, Value)> = messages.into_iter().map(|message| (0, message)).collect();
    let text = play(Style::Terminal { rows: 0, columns: 0 }, true, &messages, true);
    assert!(!text.contains("\u{1b}]") && !text.contains('\u{202e}'), "{text:?}");
    let text = play(Style::Plain, true, &messages, true);
    assert!(text.contains("#2 a]0;titleb"), "{text:?}");
}
