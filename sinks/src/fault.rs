//! Named places where a crash test can kill the process; nothing at all without the feature `testing`.

/// Aborts the process when `AION_CRASH_AT` is `<name>:<count>` and this is the count-th visit of `name`.
#[cfg(feature = "testing")]
pub fn point(name: &str) {
    use std::sync::{
        LazyLock,
        atomic::{AtomicUsize, Ordering},
    };

    static PLAN: LazyLock<Option<(String, AtomicUsize)>> = LazyLock::new(|| {
        let plan = std::env::var("AION_CRASH_AT").ok()?;
        let (name, count) = plan.rsplit_once(':')?;
        Some((name.to_owned(), AtomicUsize::new(count.parse().ok()?)))
    });

    if let Some((at, left)) = &*PLAN
        && at == name
        && left.fetch_sub(1, Ordering::Relaxed) == 1
    {
        std::process::abort();
    }
}

/// A place where a crash test kills the process; this build has no such tests in it.
#[cfg(not(feature = "testing"))]
#[inline(always)]
#[expect(clippy::inline_always, reason = "an empty function must leave nothing behind")]
pub fn point(_name: &str) {}
