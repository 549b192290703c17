//! Locks on files, by which two processes know of each other: `flock(2)`.

use std::fs::{File, TryLockError};

/// A lock, until it is dropped or the process ends.
#[derive(Debug)]
pub(crate) struct Lock(File);

impl Lock {
    /// Takes the lock of a file, or tells at once that somebody has it.
    ///
    /// # Errors
    /// [`TryLockError::WouldBlock`]: somebody has it.
    pub(crate) fn take(file: File) -> Result<Self, TryLockError> {
        file.try_lock()?;
        Ok(Self(file))
    }
}

impl Drop for Lock {
    fn drop(&mut self) {
        // To close the file is not enough: a child process that is just being started, the compiler, has it open as well until it has become another
        // program. Where it cannot be given up the file is closed all the same.
        let _ = self.0.unlock();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_has_it_and_gives_it_up_whoever_has_the_file_open_too() {
        let folder = tempfile::tempdir().expect("a folder");
        let open = || File::create(folder.path().join("lock")).expect("a file");
        let file = open();
        // What a fork makes of it.
        let _inherited = file.try_clone().expect("a descriptor");
        let lock = Lock::take(file).expect("nobody has it");
        assert!(matches!(Lock::take(open()), Err(TryLockError::WouldBlock)));
        drop(lock);
        assert!(Lock::take(open()).is_ok());
    }
}
