//! Panics of the application's code in a manager: in its provider and hook, and where their errors are shown or dropped.
//! Each is caught, so that it ends neither the manager's task nor the sessions of other places. The panic hook has run
//! before.

use std::any::Any;
use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::task::{Context, Poll};

/// Runs code of the application's.
///
/// # Errors
/// The text of its panic.
pub(super) fn catch<T>(run: impl FnOnce() -> T) -> Result<T, String> {
    catch_unwind(AssertUnwindSafe(run)).map_err(text)
}

/// Drops a value of the application's. A panic of its drop changes nothing.
pub(super) fn dispose<T>(value: T) {
    let _ = catch(|| drop(value));
}

/// Makes and awaits a future of the application's.
///
/// # Errors
/// The text of the panic of either.
pub(super) async fn caught<F: Future>(make: impl FnOnce() -> F) -> Result<F::Output, String> {
    Caught(Some(catch(|| Box::pin(make()))?)).await
}

/// `None` once it has completed.
struct Caught<F>(Option<Pin<Box<F>>>);

impl<F> Caught<F> {
    fn clear(&mut self) {
        dispose(self.0.take());
    }
}

impl<F: Future> Future for Caught<F> {
    type Output = Result<F::Output, String>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let Some(future) = &mut self.0 else {
            return Poll::Pending;
        };
        let polled = match catch(|| future.as_mut().poll(cx)) {
            Ok(Poll::Pending) => return Poll::Pending,
            Ok(Poll::Ready(output)) => Ok(output),
            Err(text) => Err(text),
        };
        self.clear();
        Poll::Ready(polled)
    }
}

impl<F> Drop for Caught<F> {
    fn drop(&mut self) {
        self.clear();
    }
}

fn text(panic: Box<dyn Any + Send>) -> String {
    let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
    let text = text.or_else(|| panic.downcast_ref::<String>().cloned());
    if let Err(another) = catch_unwind(AssertUnwindSafe(|| drop(panic))) {
        // Its drop might panic again.
        std::mem::forget(another);
    }
    text.unwrap_or_else(|| "the panic has no text".to_owned())
}

#[cfg(test)]
mod tests {
    use std::panic::panic_any;

    use super::*;

    struct PanicsAtDrop;

    impl Drop for PanicsAtDrop {
        fn drop(&mut self) {
            panic_any(1_u8);
        }
    }

    #[test]
    fn every_panic_becomes_a_text() {
        assert_eq!(catch(|| 1), Ok(1));
        let literal = catch(|| panic!("a literal"));
        assert_eq!(literal, Err::<(), _>("a literal".to_owned()));
        let formatted = catch(|| panic!("{} parts", 2));
        assert_eq!(formatted, Err::<(), _>("2 parts".to_owned()));
        let other = catch(|| panic_any(PanicsAtDrop));
        assert_eq!(other, Err::<(), _>("the panic has no text".to_owned()));
    }

    #[tokio::test]
    async fn a_future_may_panic_when_it_is_made_polled_or_dropped() {
        let made = caught(|| -> std::future::Ready<()> { panic!("made") }).await;
        assert_eq!(made, Err("made".to_owned()));
        let polled = caught(|| async { panic!("polled") }).await;
        assert_eq!(polled, Err::<(), _>("polled".to_owned()));
        let completed = caught(|| async {
            let _kept = PanicsAtDrop;
            1
        });
        // The panic is in the poll that completes it.
        assert!(completed.await.is_err());
        let held = PanicsAtDrop;
        let dropped = caught(|| async move {
            let _held = held;
            std::future::pending::<()>().await;
        });
        let mut dropped = Box::pin(dropped);
        assert!(futures_util::poll!(dropped.as_mut()).is_pending());
        drop(dropped);
    }
}
