//! The C library's allocator, which librdkafka shares with the rest of the program.

/// Has the C library keep one arena of free memory for each core. Call it first in `main`.
///
/// By default it keeps up to eight, and librdkafka and the program's threads hand memory to each
/// other: each arena then holds free pages that no other thread can use. Measured while a backlog
/// is read: a tenth less resident memory, for no more CPU time. Does nothing with another C library
/// than GNU's.
pub fn bound_arenas() {
    #[cfg(target_env = "gnu")]
    {
        let cores = std::thread::available_parallelism().map_or(2, usize::from);
        // SAFETY: sets an option of the allocator by the allocator's own constant; it locks for itself.
        unsafe { libc::mallopt(libc::M_ARENA_MAX, cores.max(2) as libc::c_int) };
    }
}
