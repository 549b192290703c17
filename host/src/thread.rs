//! A thread whose end a task can wait for.

use std::any::Any;
use std::io;
use std::thread::JoinHandle;

use tokio::sync::oneshot;

/// A running thread.
pub struct Thread<T = ()> {
    thread: JoinHandle<T>,
    ended: oneshot::Receiver<()>,
}

impl<T: Send + 'static> Thread<T> {
    /// Starts it.
    ///
    /// # Errors
    /// Where the system gives no thread.
    #[expect(clippy::disallowed_methods, reason = "whoever has it joins it")]
    pub fn spawn(name: &str, work: impl FnOnce() -> T + Send + 'static) -> io::Result<Self> {
        let (end, ended) = oneshot::channel();
        let thread = std::thread::Builder::new().name(name.to_owned()).spawn(move || {
            // Dropped at the end, whether that is one or a panic.
            let _end = end;
            work()
        })?;
        Ok(Self { thread, ended })
    }

    /// Waits for its end, and gives what it gave.
    ///
    /// # Errors
    /// What it said when it panicked.
    pub async fn join(self) -> Result<T, String> {
        // Nothing is ever sent: the sender is gone, so the thread is at its end.
        let _ = self.ended.await;
        self.thread.join().map_err(|panic| said(&*panic))
    }
}

fn said(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().map(String::as_str).or_else(|| panic.downcast_ref::<&str>().copied());
    text.unwrap_or("a panic without a message").to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn gives_what_it_gave_and_says_why_it_panicked() {
        assert_eq!(Thread::spawn("seven", || 7).expect("a thread").join().await, Ok(7));
        let panicked = |work: fn()| async move { Thread::spawn("panics", work).expect("a thread").join().await };
        assert_eq!(panicked(|| panic!("a reason")).await, Err("a reason".to_owned()));
        assert_eq!(panicked(|| panic!("reason {}", 2)).await, Err("reason 2".to_owned()));
    }
}
