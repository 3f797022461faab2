//! The priority of threads, which the operating system gives by C alone.

/// How much less of a busy processor a polite thread gets: about a tenth of what others get.
#[cfg(target_os = "linux")]
const NICENESS: libc::c_int = 10;

/// Lets the calling thread have what other threads leave of the processors. On Linux only; elsewhere, and where it
/// isn't allowed, the thread stays as it is.
pub fn give_way() {
    #[cfg(target_os = "linux")]
    {
        // SAFETY: takes numbers only; on Linux process 0 is the calling thread, and no other.
        unsafe { libc::setpriority(libc::PRIO_PROCESS, 0, NICENESS) };
    }
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::{NICENESS, give_way};

    fn niceness() -> libc::c_int {
        // SAFETY: takes numbers only.
        unsafe { libc::getpriority(libc::PRIO_PROCESS, 0) }
    }

    #[test]
    fn one_thread_gives_way_and_no_other() {
        let before = niceness();
        let polite = std::thread::spawn(|| {
            give_way();
            niceness()
        });
        assert_eq!(polite.join().ok(), Some(NICENESS.max(before)));
        assert_eq!(niceness(), before);
    }
}
