use serde_json::json;

use super::*;

fn recorded() -> Vec<(u64, Value)> {
    let step = |step: u64, stage: &str, text: &str, state: &str, more: Value| {
        let mut aux = json!({"step": step, "of": 4, "stage": stage, "text": text, "state": state});
        for (key, value) in more.as_object().unwrap() {
            aux[key] = value.clone();
        }
        json!({"id": "sampan.step", "aux": aux})
    };
    let log = |step: u64, stream: &str, text: &str| json!({"id":"sampan.log","aux":{"step":step,"stream":stream,"text":text}});
    vec![
        (0, json!({"status":"Pulling from library/alpine","id":"3.14"})),
        (5, json!({"status":"Downloading","id":"abc","progressDetail":{"current":1,"total":2}})),
        (10, step(1, "build", "FROM alpine:3.14", "cached", json!({"why":"the base is here"}))),
        (20, step(2, "build", "RUN make", "started", json!({"why":"no earlier run of this command on this base"}))),
        (230, log(2, "stdout", "one\ntw")),
        (240, log(2, "stderr", "\u{1b}[31mred\u{1b}[0m\n")),
        (250, log(2, "stdout", "o\n10%\r20%\r\nend")),
        (1270, step(2, "build", "RUN make", "done", json!({"seconds":1.25,"image":"sha256:1"}))),
        (1280, step(3, "", "COPY a b", "skipped", json!({}))),
        (1290, json!({"id":"sampan.warning","aux":{"check":"UndefinedVar","text":"Usage of undefined variable '$X'","line":3,"excerpt":"   3 | >>> ENV A=$X"}})),
    ]
}

fn play(style: Style, explain: bool, messages: &[(u64, Value)], good: bool) -> String {
    let mut out = Vec::new();
    let mut steps = Steps::new(&mut out, style, explain);
    for (at, message) in messages {
        steps.show(message, Duration::from_millis(*at)).unwrap();
    }
    if good { steps.finish("sha256:1", &["a:1".to_owned()]) } else { steps.fail() }.unwrap();
    drop(steps);
    String::from_utf8(out).unwrap()
}

#[test]
fn plain_lines_are_buildkits() {
    let expected = "3.14: Pulling from library/alpine
#1 [build 1/4] FROM alpine:3.14
#1 CACHED

#2 [build 2/4] RUN make
#2 0.21 one
#2 0.22 \u{1b}[31mred\u{1b}[0m
#2 0.23 two
#2 0.23 20%
#2 1.25 end
#2 DONE 1.2s

1 of 2 steps cached
image sha256:1
named a:1

 1 warning found:
 - UndefinedVar: Usage of undefined variable '$X' (line 3)
      3 | >>> ENV A=$X
";
    assert_eq!(play(Style::Plain, false, &recorded(), true), expected);
}

#[test]
fn explained_steps_say_why() {
    let text = play(Style::Plain, true, &recorded(), true);
    assert!(text.contains("#1 [build 1/4] FROM alpine:3.14\n#1 why: the base is here\n#1 CACHED\n"), "{text}");
    assert!(text.contains("#2 [build 2/4] RUN make\n#2 why: no earlier run of this command on this base\n#2 0.21 one\n"), "{text}");
    assert!(text.contains("#3 [3/4] COPY a b\n#3 SKIPPED\n"), "{text}");
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
    for (at, message) in &all[..7] {
        steps.show(message, Duration::from_millis(*at)).unwrap();
    }
    steps.tick(Duration::from_secs(1)).unwrap();
    let shown = screen(std::str::from_utf8(&steps.out).unwrap());
    let expected =
        ["[build 1/4] FROM alpine:3.14  cached", "building 1.0s, 1 steps done", "=> [build 2/4] RUN make  1.0s", "   one", "   red", "   two", "   20%", ""];
    assert_eq!(shown, expected);
    drop(steps);
    let shown = screen(std::str::from_utf8(&out).unwrap());
    assert_eq!(shown, ["[build 1/4] FROM alpine:3.14  cached", ""], "the moving part is gone");
    assert!(out.ends_with(b"\x1b[?25h"), "the cursor is back");
    let shown = screen(&play(style, false, &all, true));
    assert_eq!(shown[..3], ["[build 1/4] FROM alpine:3.14  cached", "[build 2/4] RUN make  1.2s", "1 of 2 steps cached"]);
}

#[test]
fn a_failed_step_shows_what_it_printed() {
    let mut all = recorded();
    all.truncate(7);
    all.push((900, json!({"id":"sampan.step","aux":{"step":2,"state":"failed","seconds":0.9}})));
    let shown = screen(&play(Style::Terminal { rows: 24, columns: 80 }, false, &all, false));
    assert_eq!(
        shown[1..],
        ["[build 2/4] RUN make  failed after 0.9s", "------", " #2 [build 2/4] RUN make:", "one", "red", "two", "20%", "end", "------", ""]
    );
    assert!(play(Style::Plain, false, &all, false).ends_with("#2 0.88 end\n#2 ERROR 0.9s\n\n"));
}

#[test]
fn nonsense_does_no_harm() {
    let messages = [
        json!({"id":"sampan.step"}),
        json!({"id":"sampan.step","aux":{"step":-1,"state":"started"}}),
        json!({"id":"sampan.step","aux":{"step":1,"state":"what"}}),
        json!({"id":"sampan.log","aux":{"step":77,"text":"x"}}),
        json!({"id":"sampan.warning"}),
        json!({"id":"sampan.step","aux":{"step":1,"state":"started","text":"a\u{1b}]0;title\u{7}b\u{202e}\n"}}),
        json!([]),
    ];
    let messages: Vec<(u64, Value)> = messages.into_iter().map(|message| (0, message)).collect();
    let text = play(Style::Terminal { rows: 0, columns: 0 }, true, &messages, true);
    assert!(text.contains("a]0;titleb"), "{text:?}");
}
