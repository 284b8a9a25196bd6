//! Users, groups, capabilities, no-new-privileges, filters: what a process may do from here on.

use std::io;

use rustix::process::{Gid, Uid};
use rustix::thread::{CapabilitySet, CapabilitySets};
use sampan_sys::seccomp;

use super::Fault;
use crate::plan::ProcessPlan;
use crate::protocol::Stage;

/// The highest capability that a mask can hold.
const HIGHEST: u32 = 63;

/// Takes on a process's identity. The filter is loaded while loading needs no further right: before the drop without
/// no-new-privileges, after it with.
pub(crate) fn apply(plan: &ProcessPlan) -> Result<(), Fault> {
    let fault = |detail: &str| Fault::new(Stage::Identity {}, detail.to_owned());
    if plan.no_new_privileges {
        rustix::thread::set_no_new_privs(true).map_err(|error| fault("no_new_privs")(error.into()))?;
    } else {
        load_filter(plan)?;
    }
    drop_bounding(plan.bounding).map_err(fault("bounding set"))?;
    rustix::thread::set_keep_capabilities(true).map_err(|error| fault("keep capabilities")(error.into()))?;
    set_ids(plan).map_err(fault(&format!("user {}:{}", plan.uid, plan.gid)))?;
    rustix::thread::set_keep_capabilities(false).map_err(|error| fault("keep capabilities")(error.into()))?;
    set_capabilities(plan).map_err(fault("capabilities"))?;
    if plan.no_new_privileges {
        load_filter(plan)?;
    }
    Ok(())
}

fn load_filter(plan: &ProcessPlan) -> Result<(), Fault> {
    match &plan.seccomp {
        Some(filter) => seccomp::load(filter).map_err(Fault::new(Stage::Seccomp {}, "")),
        None => Ok(()),
    }
}

fn set_ids(plan: &ProcessPlan) -> io::Result<()> {
    let groups: Vec<Gid> = plan.groups.iter().map(|group| Gid::from_raw(*group)).collect();
    rustix::thread::set_thread_groups(&groups)?;
    let gid = Gid::from_raw(plan.gid);
    rustix::thread::set_thread_res_gid(gid, gid, gid)?;
    let uid = Uid::from_raw(plan.uid);
    Ok(rustix::thread::set_thread_res_uid(uid, uid, uid)?)
}

/// Drops what is not wanted; capabilities that the kernel does not know end the loop.
fn drop_bounding(keep: u64) -> io::Result<()> {
    for number in 0..=HIGHEST {
        let Some(capability) = one(number) else { continue };
        if keep & (1 << number) != 0 {
            continue;
        }
        match rustix::thread::capability_is_in_bounding_set(capability) {
            Ok(true) => rustix::thread::remove_capability_from_bounding_set(capability)?,
            Ok(false) => {}
            Err(_) => break,
        }
    }
    Ok(())
}

fn set_capabilities(plan: &ProcessPlan) -> io::Result<()> {
    let set = CapabilitySet::from_bits_retain;
    let known = known_capabilities();
    let sets = CapabilitySets {
        effective: set(plan.effective & known),
        permitted: set(plan.permitted & known),
        inheritable: set(plan.inheritable & known),
    };
    rustix::thread::set_capabilities(None, sets)?;
    let _none_there = rustix::thread::clear_ambient_capability_set();
    for number in (0..=HIGHEST).filter(|number| plan.ambient & (1 << number) != 0) {
        if let Some(capability) = one(number) {
            rustix::thread::configure_capability_in_ambient_set(capability, true)?;
        }
    }
    Ok(())
}

fn one(number: u32) -> Option<CapabilitySet> {
    let capability = CapabilitySet::from_bits_retain(1 << number);
    (number <= 40).then_some(capability)
}

/// What this process has: a plan may name capabilities that the daemon itself lacks.
fn known_capabilities() -> u64 {
    rustix::thread::capabilities(None).map_or(0, |sets| sets.permitted.bits())
}
