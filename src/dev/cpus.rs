//! Which CPU each node of a local cluster runs on.
//!
//! Broker, nodes and load wake each other all the time. Linux runs a woken process on the CPU of its waker unless it
//! finds an idle one, and on a machine with few CPUs it stops looking once they are half busy (`nr_idle_scan` of the
//! scheduler's SIS_UTIL). Then all nodes wait for one CPU while another one idles. Nodes on separate machines never
//! share a CPU, so a local cluster keeps them apart.

use rustix::process::Pid;
use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

/// Binds a process that has just started, and its future children, to one of the CPUs of this process. Nodes take the
/// CPUs in turn. If the system refuses, the process runs on any CPU.
pub(super) fn bind(node: u8, process: Pid) {
    let Ok(allowed) = sched_getaffinity(None) else {
        return;
    };
    let Some(cpu) = turn(node, &allowed) else {
        return;
    };
    let mut own = CpuSet::new();
    own.set(cpu);
    if let Err(error) = sched_setaffinity(Some(process), &own) {
        tracing::debug!(node, cpu, %error, "a node is not bound to a CPU");
    }
}

/// The CPU of node `node` among the allowed ones.
fn turn(node: u8, allowed: &CpuSet) -> Option<usize> {
    let count = allowed.count() as usize;
    let place = usize::from(node).checked_rem(count)?;
    let mut cpus = (0..CpuSet::MAX_CPU).filter(|cpu| allowed.is_set(*cpu));
    cpus.nth(place)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nodes_take_the_allowed_cpus_in_turn() {
        let mut allowed = CpuSet::new();
        assert_eq!(turn(1, &allowed), None);
        allowed.set(3);
        allowed.set(5);
        let taken: Vec<_> = (1..=4).map(|node| turn(node, &allowed)).collect();
        assert_eq!(taken, [Some(5), Some(3), Some(5), Some(3)]);
    }
}
