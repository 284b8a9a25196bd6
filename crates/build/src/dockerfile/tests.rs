//! Positions, excerpts, limits; what single files mean is in the corpus (`tests/corpus.rs`).

use std::time::{Duration, Instant};

use proptest::prelude::*;

use super::*;

fn shown(text: &str) -> String {
    let error = parse(text.as_bytes()).unwrap_err();
    excerpt("Dockerfile", text.as_bytes(), error.lines)
}

#[test]
fn excerpts_are_dockers() {
    let text = "FROM a\nENV A=1\nENV B=2\nENV C=3\nFOO\nENV D=4\nENV E=5\nENV F=6\n";
    let wanted = "Dockerfile:5\n--------------------\n   3 |     ENV B=2\n   4 |     ENV C=3\n   5 | >>> FOO\n   6 |     ENV D=4\n   7 |     ENV E=5\n--------------------\n";
    assert_eq!(shown(text), wanted);
    let wanted = "Dockerfile:2\n--------------------\n   1 |     FROM a\n   2 | >>> RUN --foo \\\n   3 | >>>  a \\\n   4 | >>>  b\n   5 |     \n--------------------\n";
    assert_eq!(shown("FROM a\nRUN --foo \\\n a \\\n b\n"), wanted);
    assert_eq!(shown("HELLO\n"), "Dockerfile:1\n--------------------\n   1 | >>> HELLO\n   2 |     \n--------------------\n");
    assert_eq!(excerpt("Dockerfile", b"FROM a\n", None), "");
    assert_eq!(excerpt("Dockerfile", b"FROM a\n", Some(Lines { first: 9, last: 9 })), "");
    assert!(!excerpt("Dockerfile", b"FOO \x1b[2J\n", Some(Lines { first: 1, last: 1 })).contains('\u{1b}'));
}

#[test]
fn instructions_know_their_lines() {
    let file = parse(b"# c\nFROM a\n\nRUN x \\\n # y\n z\nCOPY <<E /e\nq\nE\n").unwrap();
    let lines: Vec<_> =
        file.stages[0].instructions.iter().map(|instruction| (instruction.head.lines.first, instruction.head.lines.last)).collect();
    assert_eq!((lines, file.stages[0].head.lines), (vec![(4, 6), (7, 9)], Lines { first: 2, last: 2 }));
    assert_eq!(file.stages[0].instructions[0].head.code, "RUN x  z");
}

#[test]
fn large_files_end_quickly() {
    let begin = Instant::now();
    let message = |text: &[u8]| parse(text).unwrap_err().message;
    let mut line = b"FROM a\nRUN ".to_vec();
    line.resize(100 << 20, b'x');
    assert_eq!(message(&line), "the Dockerfile is larger than 8 MiB");
    line.truncate(1 << 20);
    assert_eq!(message(&line), "dockerfile line greater than max allowed size of 65535");
    line.truncate(65_535);
    assert!(parse(&line).is_ok());
    assert_eq!(message("FROM a\nENV A=b\n".repeat(500_000).as_bytes()), "more than 10000 instructions");
    assert_eq!(message("#\n".repeat(1_000_000).as_bytes()), "file with no instructions");
    assert!(parse(format!("FROM a\nRUN {}\n", "\\\n".repeat(1_000_000)).as_bytes()).is_ok());
    assert!(parse(format!("FROM a\n{}RUN x\n", "ONBUILD ".repeat(6_000)).as_bytes()).is_err());
    assert!(begin.elapsed() < Duration::from_secs(20), "took {:?}", begin.elapsed());
}

proptest! {
    #[test]
    fn every_text_is_a_file_or_a_fault_inside_of_it(parts in prop::collection::vec(PIECE, 0..12)) {
        let text = parts.concat();
        let lines = text.split('\n').count();
        match parse(text.as_bytes()) {
            Ok(file) => {
                let all = file.stages.iter().flat_map(|stage| &stage.instructions).map(|instruction| instruction.head.lines);
                for at in all {
                    prop_assert!(1 <= at.first && at.first <= at.last && at.last <= lines);
                }
            }
            Err(error) => {
                prop_assert!(error.lines.is_none_or(|at| at.first <= at.last && at.last <= lines));
                let _text = excerpt("f", text.as_bytes(), error.lines);
            }
        }
    }

    #[test]
    fn arbitrary_bytes_do_no_harm(bytes: Vec<u8>) {
        let _either = parse(&bytes);
    }
}

const PIECE: &str = "FROM a\n|FROM a AS b\n|RUN |COPY |ADD |ENV |LABEL |ARG |ONBUILD |HEALTHCHECK CMD |CMD |SHELL |EXPOSE |\\[\"a\", |\"\\]|a=b|--from=x |--mount=|<<EOF|<<-E |EOF\n|E\n|\\\\\n|\n|#|# escape=`\n|`|'|\"|\\$\\{|\t| |é|\u{a0}";
