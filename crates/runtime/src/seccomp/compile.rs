//! The compiler: a profile becomes a classic BPF program for this machine's architecture and its 32-bit sibling.
//!
//! Shape: check the architecture, load the number, find its range by binary search, decide. Conditions load arguments as two
//! 32-bit halves. Jumps over more than 255 instructions go through an unconditional one.
#![expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "halves of arguments, small numbers, lengths below 4096")]

use std::collections::BTreeMap;

use super::profile::{Action, Condition, Operator, Profile};

const LOAD: u16 = 0x20; // ld [k], 32 bits
const RETURN: u16 = 0x06; // ret k
const JUMP: u16 = 0x05; // ja k
const IF_EQUAL: u16 = 0x15; // jeq k
const IF_GREATER: u16 = 0x25; // jgt k
const IF_GREATER_EQUAL: u16 = 0x35; // jge k
const AND: u16 = 0x54; // and k

/// `offsetof(struct seccomp_data, nr)`.
const NUMBER: u32 = 0;
/// `offsetof(struct seccomp_data, arch)`.
const ARCHITECTURE: u32 = 4;

const AUDIT_X86_64: u32 = 0xc000_003e;
const AUDIT_I386: u32 = 0x4000_0003;
const AUDIT_AARCH64: u32 = 0xc000_00b7;

/// Instructions: code, jump if true, jump if false, operand.
type Instruction = (u16, u8, u8, u32);

/// A ready program.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Compiled {
    instructions: Vec<Instruction>,
}

impl Compiled {
    /// The bytes that seccomp(2) takes, eight an instruction.
    #[must_use]
    pub fn bytes(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(self.instructions.len() * 8);
        for (code, yes, no, operand) in &self.instructions {
            out.extend_from_slice(&code.to_ne_bytes());
            out.extend_from_slice(&[*yes, *no]);
            out.extend_from_slice(&operand.to_ne_bytes());
        }
        out
    }
}

/// Compiles a profile for the machine this runs on.
#[must_use]
pub fn compile(profile: &Profile) -> Compiled {
    let mut sections: Vec<(u32, Vec<Instruction>)> = Vec::new();
    if cfg!(target_arch = "x86_64") {
        sections
            .push((AUDIT_X86_64, section(profile, |name| name.parse::<syscalls::x86_64::Sysno>().ok().map(|number| number.id() as u32))));
        sections.push((AUDIT_I386, section(profile, |name| name.parse::<syscalls::x86::Sysno>().ok().map(|number| number.id() as u32))));
    } else {
        sections
            .push((AUDIT_AARCH64, section(profile, |name| name.parse::<syscalls::aarch64::Sysno>().ok().map(|number| number.id() as u32))));
    }
    let mut out = vec![(LOAD, 0, 0, ARCHITECTURE)];
    for (architecture, body) in sections {
        out.push((IF_EQUAL, 1, 0, architecture));
        out.push((JUMP, 0, 0, body.len() as u32));
        out.extend(body);
    }
    out.push((RETURN, 0, 0, Action::KillProcess.code()));
    Compiled { instructions: out }
}

/// What is decided for one number.
type Decision<'a> = Vec<(&'a [Condition], Action)>;

fn section(profile: &Profile, number_of: impl Fn(&str) -> Option<u32>) -> Vec<Instruction> {
    let mut decisions: BTreeMap<u32, Decision<'_>> = BTreeMap::new();
    for rule in &profile.rules {
        for number in rule.names.iter().filter_map(|name| number_of(name)) {
            decisions.entry(number).or_default().push((&rule.conditions, rule.action));
        }
    }
    let ranges = ranges(&decisions, profile.default);
    let mut out = vec![(LOAD, 0, 0, NUMBER)];
    out.extend(search(&ranges));
    out
}

/// First numbers of runs that share a decision, from 0 on.
fn ranges(decisions: &BTreeMap<u32, Decision<'_>>, default: Action) -> Vec<(u32, Vec<Instruction>)> {
    let otherwise = vec![(RETURN, 0, 0, default.code())];
    let mut out: Vec<(u32, Vec<Instruction>)> = vec![(0, otherwise.clone())];
    let mut next = 0;
    let mut push = |first: u32, body: Vec<Instruction>| {
        match out.last_mut() {
            Some((start, last)) if *start == first => *last = body,
            Some((_, last)) if *last == body => {}
            _ => out.push((first, body)),
        };
    };
    for (number, decision) in decisions {
        if *number > next {
            push(next, otherwise.clone());
        }
        push(*number, decide(decision, default));
        next = number + 1;
    }
    push(next, otherwise);
    out
}

/// Binary search over the ranges.
fn search(ranges: &[(u32, Vec<Instruction>)]) -> Vec<Instruction> {
    if let [(_, body)] = ranges {
        return body.clone();
    }
    let (left, right) = ranges.split_at(ranges.len() / 2);
    let (low, high) = (search(left), search(right));
    let mut out = vec![(IF_GREATER_EQUAL, 0, 1, right[0].0), (JUMP, 0, 0, low.len() as u32)];
    out.extend(low);
    out.extend(high);
    out
}

/// The rules of one number in order; the first whose conditions hold decides.
fn decide(decision: &Decision<'_>, default: Action) -> Vec<Instruction> {
    let mut out = Vec::new();
    for (conditions, action) in decision {
        if conditions.is_empty() {
            out.push((RETURN, 0, 0, action.code()));
            return out;
        }
        out.extend(guarded(conditions, *action));
    }
    out.push((RETURN, 0, 0, default.code()));
    out
}

/// `if all conditions { return action }`: each failing test jumps behind the return.
fn guarded(conditions: &[Condition], action: Action) -> Vec<Instruction> {
    let mut out = vec![(RETURN, 0, 0, action.code())];
    for condition in conditions.iter().rev() {
        let mut test = test(condition, out.len() as u32);
        test.append(&mut out);
        out = test;
    }
    out
}

/// Falls through when the condition holds, else jumps over `rest` further instructions.
fn test(condition: &Condition, rest: u32) -> Vec<Instruction> {
    let low = 16 + 8 * u32::from(condition.argument);
    let high = low + 4;
    let comparison = condition.comparison;
    let halves = |value: u64| ((value >> 32) as u32, value as u32);
    // Every test ends in: [fail] ja rest. Offsets below are relative to that last instruction.
    let mut out: Vec<Instruction> = match comparison.operator {
        Operator::Eq | Operator::Ne => {
            let (upper, lower) = halves(comparison.value);
            vec![(LOAD, 0, 0, high), (IF_EQUAL, 0, 2, upper), (LOAD, 0, 0, low), (IF_EQUAL, 1, 0, lower)]
        }
        Operator::MaskedEq => {
            let ((mask_upper, mask_lower), (upper, lower)) = (halves(comparison.value), halves(comparison.masked));
            vec![
                (LOAD, 0, 0, high),
                (AND, 0, 0, mask_upper),
                (IF_EQUAL, 0, 3, upper),
                (LOAD, 0, 0, low),
                (AND, 0, 0, mask_lower),
                (IF_EQUAL, 1, 0, lower),
            ]
        }
        Operator::Gt | Operator::Ge | Operator::Lt | Operator::Le => {
            let (upper, lower) = halves(comparison.value);
            let last = if matches!(comparison.operator, Operator::Gt | Operator::Le) { IF_GREATER } else { IF_GREATER_EQUAL };
            // upper greater: holds; upper less: fails; equal: the lower half decides.
            vec![(LOAD, 0, 0, high), (IF_GREATER, 4, 0, upper), (IF_EQUAL, 0, 2, upper), (LOAD, 0, 0, low), (last, 1, 0, lower)]
        }
    };
    let negated = matches!(comparison.operator, Operator::Ne | Operator::Lt | Operator::Le);
    if negated {
        // What the positive form would let through jumps away; what it stops goes on behind the jump.
        out.push((JUMP, 0, 0, 1));
        out.push((JUMP, 0, 0, rest));
    } else {
        out.push((JUMP, 0, 0, rest));
    }
    out
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::profile::{Comparison, Facts, Rule};
    use super::*;

    /// Runs a program as the kernel does.
    fn run(program: &Compiled, architecture: u32, number: u32, arguments: [u64; 6]) -> u32 {
        let mut data = [0_u8; 64];
        data[0..4].copy_from_slice(&number.to_ne_bytes());
        data[4..8].copy_from_slice(&architecture.to_ne_bytes());
        for (index, argument) in arguments.iter().enumerate() {
            data[16 + 8 * index..24 + 8 * index].copy_from_slice(&argument.to_ne_bytes());
        }
        let (mut at, mut register) = (0_usize, 0_u32);
        loop {
            let (code, yes, no, operand) = program.instructions[at];
            at += 1;
            let jump = |holds: bool| usize::from(if holds { yes } else { no });
            match code {
                LOAD => register = u32::from_ne_bytes(data[operand as usize..operand as usize + 4].try_into().unwrap()),
                AND => register &= operand,
                RETURN => return operand,
                JUMP => at += operand as usize,
                IF_EQUAL => at += jump(register == operand),
                IF_GREATER => at += jump(register > operand),
                IF_GREATER_EQUAL => at += jump(register >= operand),
                other => panic!("unknown instruction {other:#x}"),
            }
        }
    }

    fn holds(comparison: Comparison, value: u64) -> bool {
        match comparison.operator {
            Operator::Ne => value != comparison.value,
            Operator::Lt => value < comparison.value,
            Operator::Le => value <= comparison.value,
            Operator::Eq => value == comparison.value,
            Operator::Ge => value >= comparison.value,
            Operator::Gt => value > comparison.value,
            Operator::MaskedEq => value & comparison.value == comparison.masked,
        }
    }

    fn operators() -> impl Strategy<Value = Operator> {
        prop::sample::select(vec![Operator::Ne, Operator::Lt, Operator::Le, Operator::Eq, Operator::Ge, Operator::Gt, Operator::MaskedEq])
    }

    /// Values that collide in one half more often than chance would have it.
    fn values() -> impl Strategy<Value = u64> {
        (0_u64..3, 0_u64..3).prop_map(|(upper, lower)| upper << 32 | lower)
    }

    proptest! {
        #[test]
        fn conditions_mean_what_they_say(
            conditions in prop::collection::vec((0_u8..3, operators(), values(), values()), 1..4),
            arguments in prop::collection::vec(values(), 6),
        ) {
            let conditions: Vec<_> = conditions.into_iter().map(|(argument, operator, value, masked)| {
                Condition { argument, comparison: Comparison { operator, value, masked } }
            }).collect();
            let rule = Rule { names: vec!["read".into()], action: Action::Allow, conditions: conditions.clone() };
            let program = compile(&Profile { default: Action::Errno(1), rules: vec![rule] });
            let arguments: [u64; 6] = arguments.try_into().unwrap();
            let wanted = conditions.iter().all(|condition| holds(condition.comparison, arguments[usize::from(condition.argument)]));
            let wanted = if wanted { Action::Allow } else { Action::Errno(1) };
            prop_assert_eq!(run(&program, AUDIT_X86_64, 0, arguments), wanted.code());
        }

        #[test]
        fn every_number_finds_its_rule(numbers in prop::collection::btree_set(0_u32..400, 0..60), asked in 0_u32..500) {
            let name = |number: &u32| syscalls::x86_64::Sysno::new(*number as usize).map(|number| number.name().to_owned());
            let known: Vec<(u32, String)> = numbers.iter().filter_map(|number| Some((*number, name(number)?))).collect();
            let rule = Rule { names: known.iter().map(|(_, name)| name.clone()).collect(), action: Action::Allow, conditions: Vec::new() };
            let program = compile(&Profile { default: Action::Errno(38), rules: vec![rule] });
            let wanted = if known.iter().any(|(number, _)| *number == asked) { Action::Allow } else { Action::Errno(38) };
            prop_assert_eq!(run(&program, AUDIT_X86_64, asked, [0; 6]), wanted.code());
        }
    }

    #[test]
    fn the_default_profile_decides_as_documented() {
        let facts = Facts { capabilities: vec!["CAP_CHOWN".into()], architecture: "amd64".into(), kernel: (6, 1) };
        let program = compile(&super::super::default_profile(&facts));
        let verdict = |name: &str, arguments: [u64; 6]| {
            let number = name.parse::<syscalls::x86_64::Sysno>().unwrap().id() as u32;
            run(&program, AUDIT_X86_64, number, arguments)
        };
        assert_eq!(verdict("read", [0; 6]), Action::Allow.code());
        assert_eq!(verdict("mount", [0; 6]), Action::Errno(1).code());
        assert_eq!(verdict("clone3", [0; 6]), Action::Errno(38).code());
        assert_eq!(verdict("clone", [0x1000_0000, 0, 0, 0, 0, 0]), Action::Errno(1).code(), "CLONE_NEWUSER");
        assert_eq!(verdict("clone", [17, 0, 0, 0, 0, 0]), Action::Allow.code());
        assert_eq!(verdict("socket", [40, 0, 0, 0, 0, 0]), Action::Errno(1).code(), "AF_VSOCK");
        assert_eq!(verdict("socket", [38, 0, 0, 0, 0, 0]), Action::Errno(1).code(), "AF_ALG");
        assert_eq!(verdict("socket", [2, 0, 0, 0, 0, 0]), Action::Allow.code());
        assert_eq!(verdict("personality", [0xffff_ffff, 0, 0, 0, 0, 0]), Action::Allow.code());
        assert_eq!(verdict("personality", [5, 0, 0, 0, 0, 0]), Action::Errno(1).code());
        assert_eq!(run(&program, 0x1234, 0, [0; 6]), Action::KillProcess.code());
        let admin = Facts { capabilities: vec!["CAP_SYS_ADMIN".into()], ..facts };
        let program = compile(&super::super::default_profile(&admin));
        let mount = syscalls::x86_64::Sysno::mount.id() as u32;
        assert_eq!(run(&program, AUDIT_X86_64, mount, [0; 6]), Action::Allow.code());
        assert!(program.bytes().len() / 8 < 4096, "the kernel's limit");
    }
}
