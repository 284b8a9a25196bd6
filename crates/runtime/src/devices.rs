//! The device filter of cgroup v2: a small eBPF program that allows what a list of rules allows.

use crate::cgroups::DeviceRule;

/// `opcode, destination | source << 4, offset, immediate` as the kernel's `struct bpf_insn`.
fn instruction(opcode: u8, destination: u8, source: u8, offset: i16, immediate: i32) -> [u8; 8] {
    let [offset_low, offset_high] = offset.to_ne_bytes();
    let immediate = immediate.to_ne_bytes();
    [opcode, destination | source << 4, offset_low, offset_high, immediate[0], immediate[1], immediate[2], immediate[3]]
}

const LOAD_32: u8 = 0x61;
const MOVE: u8 = 0xbf;
const MOVE_IMMEDIATE: u8 = 0xb7;
const AND_IMMEDIATE: u8 = 0x57;
const SHIFT_RIGHT: u8 = 0x77;
const UNLESS_EQUAL: u8 = 0x55;
const UNLESS_EQUAL_REGISTER: u8 = 0x5d;
const EXIT: u8 = 0x95;

/// Compiles rules; the program gets `struct bpf_cgroup_dev_ctx` (access and type, major, minor) and answers 1 or 0.
#[must_use]
pub fn program(rules: &[DeviceRule]) -> Vec<u8> {
    let mut out = vec![
        instruction(LOAD_32, 2, 1, 0, 0),
        instruction(MOVE, 3, 2, 0, 0),
        instruction(AND_IMMEDIATE, 2, 0, 0, 0xffff),
        instruction(SHIFT_RIGHT, 3, 0, 0, 16),
        instruction(LOAD_32, 4, 1, 4, 0),
        instruction(LOAD_32, 5, 1, 8, 0),
    ];
    for rule in rules {
        let code = one(rule);
        let decides_all = code == allow();
        out.extend(code);
        if decides_all {
            // What follows could not be reached, and the kernel refuses such programs.
            return out.concat();
        }
    }
    out.extend([instruction(MOVE_IMMEDIATE, 0, 0, 0, 0), instruction(EXIT, 0, 0, 0, 0)]);
    out.concat()
}

/// `return 1`.
fn allow() -> Vec<[u8; 8]> {
    vec![instruction(MOVE_IMMEDIATE, 0, 0, 0, 1), instruction(EXIT, 0, 0, 0, 0)]
}

/// Tests that skip to the next rule, then `return 1`.
fn one(rule: &DeviceRule) -> Vec<[u8; 8]> {
    let mut tests: Vec<Vec<[u8; 8]>> = Vec::new();
    match rule.kind {
        'b' => tests.push(vec![instruction(UNLESS_EQUAL, 2, 0, 0, 1)]),
        'c' => tests.push(vec![instruction(UNLESS_EQUAL, 2, 0, 0, 2)]),
        _ => {}
    }
    let bits = [('m', 1), ('r', 2), ('w', 4)].iter().filter(|(right, _)| rule.rights.contains(*right)).map(|(_, bit)| bit).sum();
    if bits != 7 {
        tests.push(vec![
            instruction(MOVE, 6, 3, 0, 0),
            instruction(AND_IMMEDIATE, 6, 0, 0, bits),
            instruction(UNLESS_EQUAL_REGISTER, 6, 3, 0, 0),
        ]);
    }
    for (register, number) in [(4, rule.major), (5, rule.minor)] {
        if let Some(number) = number {
            tests.push(vec![instruction(UNLESS_EQUAL, register, 0, 0, number.cast_signed())]);
        }
    }
    let mut out = allow();
    for mut test in tests.into_iter().rev() {
        let offset = i16::try_from(out.len()).unwrap_or(0).to_ne_bytes();
        if let Some(last) = test.last_mut() {
            last[2..4].copy_from_slice(&offset);
        }
        test.append(&mut out);
        out = test;
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Runs a program as the kernel would, on (type, access, major, minor).
    fn run(program: &[u8], kind: u32, access: u32, major: u32, minor: u32) -> i64 {
        let context = [access << 16 | kind, major, minor];
        let mut registers = [0_i64; 8];
        let mut at = 0_usize;
        loop {
            let code: [u8; 8] = program[at * 8..at * 8 + 8].try_into().unwrap();
            let (to, from) = (usize::from(code[1] & 15), usize::from(code[1] >> 4));
            let (offset, immediate) =
                (i16::from_ne_bytes([code[2], code[3]]), i64::from(i32::from_ne_bytes([code[4], code[5], code[6], code[7]])));
            at += 1;
            let skip = usize::try_from(offset).unwrap_or(0);
            match code[0] {
                LOAD_32 => registers[to] = i64::from(context[skip / 4]),
                MOVE => registers[to] = registers[from],
                MOVE_IMMEDIATE => registers[to] = immediate,
                AND_IMMEDIATE => registers[to] &= immediate,
                SHIFT_RIGHT => registers[to] >>= immediate,
                UNLESS_EQUAL if registers[to] != immediate => at += skip,
                UNLESS_EQUAL_REGISTER if registers[to] != registers[from] => at += skip,
                UNLESS_EQUAL | UNLESS_EQUAL_REGISTER => {}
                EXIT => return registers[0],
                other => panic!("unknown opcode {other:#x}"),
            }
        }
    }

    #[test]
    fn the_default_list_lets_through_what_it_should() {
        let program = program(&crate::cgroups::default_devices());
        let (mknod, read, write) = (1, 2, 4);
        assert_eq!(run(&program, 2, read | write, 1, 3), 1, "/dev/null");
        assert_eq!(run(&program, 2, read, 136, 7), 1, "a terminal");
        assert_eq!(run(&program, 1, mknod, 8, 0), 1, "making the node of a disk");
        assert_eq!(run(&program, 1, read, 8, 0), 0, "opening the node of a disk");
        assert_eq!(run(&program, 2, read, 10, 229), 0, "fuse");
        assert_eq!(run(&program, 2, mknod | read, 10, 229), 0);
    }

    #[test]
    fn everything_means_everything() {
        let all = DeviceRule::new('a', None, None, "rwm");
        let program = program(&[all.clone(), DeviceRule::new('c', Some(10), Some(229), "rwm")]);
        assert_eq!(run(&program, 1, 7, 8, 0), 1);
        assert_eq!(program, super::program(&[all]), "nothing that cannot be reached");
    }
}
