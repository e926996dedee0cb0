//! CPU time of a thread, so that the generator's own share of a small machine can be told.

use std::time::Duration;

/// CPU time that the calling thread has used, user and system together; `None` where the system does not tell
/// (Linux does, in nanoseconds, as the first number of `schedstat`).
pub fn of_this_thread() -> Option<Duration> {
    let schedstat = std::fs::read_to_string("/proc/thread-self/schedstat").ok()?;
    schedstat
        .split_whitespace()
        .next()?
        .parse()
        .ok()
        .map(Duration::from_nanos)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[cfg(target_os = "linux")]
    fn work_uses_cpu_time() {
        let before = of_this_thread().expect("Linux tells");
        let mut sum = 0_u64;
        while of_this_thread().expect("Linux tells") < before + Duration::from_millis(1) {
            sum = std::hint::black_box(sum.wrapping_add(1));
        }
        assert!(sum > 0);
    }
}
